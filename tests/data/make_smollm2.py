"""Makes tests/data/smollm2: what the default model answers, from its GGUF through mlx-lm in f32.

    python make_smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf            writes golden.json, long.json
    python make_smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf --verify   checks them (README.md)

The conversion shares no code with the server: gguf-py reads and dequantises the file, mlx-lm runs
it. Dequantised weights equal the quantised ones exactly (d·q + m has one rounding either way), and
with OpenBLAS preloaded they are 20 times faster than MLX's quantised matmul on a CPU.
"""

import argparse
import hashlib
import json
import random
from pathlib import Path

import gguf
import jinja2
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import regex
from gguf import GGMLQuantizationType as Type
from mlx_lm.models import llama

import golden
import tokenizer

OUT = Path(__file__).parent / "smollm2"
GREEDY_TOKENS = 32
TOP = 64

PLAIN = {
    "capital": "The capital of France is",
    "story": "Once upon a time, in a village by the sea, there lived an old clockmaker who had"
    " never been late in his life. One morning every clock in his shop stopped at",
    "digits": "I'll pay $1,234.56 on 2024-05-17; it's due at 09:30.\n\n\tTotal:   3 x 7 =",
    "code": "def fibonacci(n: int) -> list[int]:\n"
    '    """Return the first n Fibonacci numbers."""\n    numbers = [0, 1]\n    while',
    "unicode": "Grüße aus Köln 👋🏽! 世界は広い。「こんにちは」 means hello — naïve café, Привет 🌍\n"
    "In English, these greetings say:",
}
CHATS = {
    "question": [{"role": "user", "content": "What is the capital of France?"}],
    "system": [
        {"role": "system", "content": "You are a terse pirate. Answer in one sentence."},
        {"role": "user", "content": "Why is the sky blue?"},
    ],
    "two turns": [
        {"role": "user", "content": "My name is Ada and I keep three cats."},
        {"role": "assistant", "content": "Nice to meet you, Ada! What are your cats called?"},
        {"role": "user", "content": "Byron, Babbage and Lace. How many cats do I have?"},
    ],
}

# Where tokenizers differ: white space, digits, contractions, joined scripts, special tokens.
TEXTS = [
    "",
    " ",
    "Hello",
    " Hello",
    "  two spaces",
    "trailing  ",
    "\n",
    "\n\n\n  x",
    "tab\there\r\nand Windows",
    "I've we'll they'd it's DON'T",
    "1234567890",
    "3.14159 and 2,000",
    "x1y22z333",
    "½ ² Ⅻ ٣ 三",
    "don’t “quote” — …",
    "你好，世界",
    "日本語のテキスト",
    "한국어 문장",
    "Здравствуй, мир",
    "مرحبا بالعالم",
    "e\u0301 é",  # one accent combining, one composed: nothing may be normalised
    "👩‍👩‍👧‍👦🏳️‍🌈👍🏽",
    "\u00a0\u3000\u200b",
    "<|im_start|>user\nHi<|im_end|>\n",
    "a<|im_end|>b<|im_end",
    "<|endoftext|><|endoftext|>",
    "fn main() { println!(\"{}\", 0xFF); }",
    "AAAAAAAAAAAAAAAAAAAAAAAA",
    "http://example.com/a?b=c&d=%20#e",
]


def diary(rng):
    """About 1,200 tokens of prose with a question that only its middle answers."""
    weather = ["a thin rain", "fog until noon", "a hard frost", "sun and no wind", "hail at dusk",
               "warm air from the south", "low grey cloud", "a gale that shook the lamp"]
    work = ["painted the north door", "oiled the winding gear", "mended two nets",
            "counted the paraffin tins", "carried coal up ninety steps", "cleaned the great lens",
            "wrote to the harbour office", "split driftwood behind the shed"]
    seen = ["a seal asleep on the slip", "three trawlers heading home", "a whale far to the west",
            "geese in a ragged line", "a bottle with nothing in it", "the mail boat, an hour late",
            "a rainbow that touched the reef", "lights on the mainland for the first time"]
    thought = ["I slept badly and did not mind.", "Supper was beans again.",
               "The radio spoke only in static.", "I thought of my sister and her bakery.",
               "The kettle has learned to whistle in tune.", "I have begun to talk to the gulls.",
               "Tomorrow I will start the long letter.", "The silence here has a grain, like wood."]
    days = []
    for day in range(1, 29):
        days.append(f"Day {day}. We had {rng.choice(weather)}. In the morning I {rng.choice(work)},"
                    f" and later I saw {rng.choice(seen)}. {rng.choice(thought)}")
        if day == 13:
            days[-1] += " A visitor came today: a botanist named Orla Finch, looking for sea kale."
    question = "Who visited the lighthouse on day 13, and what was she looking for?"
    text = "This is a lighthouse keeper's diary.\n\n" + "\n".join(days) + "\n\n" + question
    return [{"role": "user", "content": text}]


def program(rng):
    """About 1,200 tokens of Python: small functions over made-up sensors, cut in mid-function."""
    sensors = ["tide", "wind", "lamp", "fog_horn", "battery", "barometer", "rain_gauge", "buoy"]
    verbs = ["read", "clean", "average", "compare", "archive", "plot", "reset", "calibrate"]
    bodies = [
        "    total = 0.0\n    for value in values:\n        if value > limit:\n"
        "            total += value - limit\n    return total",
        "    kept = [value for value in values if abs(value) <= limit]\n"
        "    return sum(kept) / max(len(kept), 1)",
        "    previous = None\n    steps = []\n    for value in values:\n"
        "        if previous is not None:\n            steps.append(value - previous)\n"
        "        previous = value\n    return max(steps, default=limit)",
        "    ordered = sorted(values)\n    middle = len(ordered) // 2\n"
        "    return min(ordered[middle], limit)",
    ]
    pairs = rng.sample([(verb, sensor) for verb in verbs for sensor in sensors], 18)
    functions = [
        f"def {verb}_{sensor}(values, limit={rng.randrange(2, 90) / 2}):\n"
        f'    """{verb.capitalize()} the {sensor.replace("_", " ")} and return one number."""\n'
        f"{rng.choice(bodies)}\n"
        for verb, sensor in pairs
    ]
    end = "def report_all(readings):\n    \"\"\"Call every function above and print"
    return "# Instruments of a small lighthouse.\n\n" + "\n\n".join(functions) + "\n\n" + end


# The model.


def hugging_face_path(name):
    modules = {
        "token_embd": "model.embed_tokens", "output_norm": "model.norm",
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    if not name.startswith("blk."):
        module, kind = name.split(".")
        return f"{modules[module]}.{kind}"
    _, layer, module, kind = name.split(".")
    return f"model.layers.{layer}.{modules[module]}.{kind}"


def unpermute(rows, heads):
    """Rows of q and k from llama.cpp's adjacent pairs back to rotate-halves order."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def tensors(reader, arguments):
    """(path, type, raw rows) with q and k un-permuted: whole rows move, so any type can."""
    for tensor in reader.tensors:
        rows = np.array(tensor.data)
        if "attn_q." in tensor.name:
            rows = unpermute(rows, arguments.num_attention_heads)
        if "attn_k." in tensor.name:
            rows = unpermute(rows, arguments.num_key_value_heads)
        yield hugging_face_path(tensor.name), tensor.tensor_type, rows


def field(reader, key):
    return reader.fields[key].contents()


def arguments(reader):
    return llama.ModelArgs(
        model_type="llama",
        hidden_size=field(reader, "llama.embedding_length"),
        num_hidden_layers=field(reader, "llama.block_count"),
        intermediate_size=field(reader, "llama.feed_forward_length"),
        num_attention_heads=field(reader, "llama.attention.head_count"),
        num_key_value_heads=field(reader, "llama.attention.head_count_kv"),
        rms_norm_eps=field(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_theta=field(reader, "llama.rope.freq_base"),
        max_position_embeddings=field(reader, "llama.context_length"),
        vocab_size=field(reader, "llama.vocab_size"),
        tie_word_embeddings=not any(t.name == "output.weight" for t in reader.tensors),
    )


def dense_model(reader):
    model = llama.Model(arguments(reader))
    weights = [
        (path, mx.array(gguf.quants.dequantize(rows, kind)))
        for path, kind, rows in tensors(reader, model.args)
    ]
    model.load_weights(weights, strict=True)
    return model


def affine(rows, kind):
    """MLX's (weight, scales, biases) of 32-weight blocks: w = scale·q + bias, exactly."""
    scale_bytes = {Type.Q4_1: 4, Type.Q8_0: 2}[kind]
    blocks = rows.reshape(rows.shape[0], -1, scale_bytes + (16 if kind == Type.Q4_1 else 32))
    header = np.ascontiguousarray(blocks[..., :scale_bytes]).view(np.float16).astype(np.float32)
    body = blocks[..., scale_bytes:]
    if kind == Type.Q4_1:
        # A block's first 16 weights are the low nibbles; MLX wants neighbours in one byte.
        q = np.concatenate([body & 15, body >> 4], axis=-1)
        packed = q[..., 0::2] | q[..., 1::2] << 4
        scales, biases = header[..., 0], header[..., 1]
    else:
        packed = body ^ 128  # int8 q as q + 128
        scales = header[..., 0]
        biases = -128 * scales
    words = np.ascontiguousarray(packed).reshape(rows.shape[0], -1).view(np.uint32)
    return {"weight": words, "scales": scales, "biases": biases}


def quantised_model(reader):
    model = llama.Model(arguments(reader))

    def setting(path, module):
        bits = 8 if path == "model.embed_tokens" else 4
        return hasattr(module, "to_quantized") and {"group_size": 32, "bits": bits}

    nn.quantize(model, class_predicate=setting)
    weights = []
    for path, kind, rows in tensors(reader, model.args):
        if kind == Type.F32:
            weights.append((path, mx.array(rows)))
            continue
        module = path.removesuffix(".weight")
        weights += [(f"{module}.{part}", mx.array(v)) for part, v in affine(rows, kind).items()]
    model.load_weights(weights, strict=True)
    return model


# The text.


def text_tools(reader):
    keys = ("tokens", "token_type", "merges", "pre")
    parts = [field(reader, f"tokenizer.ggml.{key}") for key in keys]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(field(reader, "tokenizer.chat_template"))
    return tokenizer.hugging_face(*parts), template


def prompts(plain, chats, tools):
    encoder, template = tools
    for name, text in plain.items():
        yield {"name": name, "messages": None, "text": text, "ids": encoder.encode(text).ids}
    for name, messages in chats.items():
        text = template.render(messages=messages, add_generation_prompt=True)
        yield {"name": name, "messages": messages, "text": text, "ids": encoder.encode(text).ids}


def check_tokens(reader, text, ids):
    """The tokenizer again, written out: the split as llama.cpp spells it, and BPE by rank."""
    tokens = field(reader, "tokenizer.ggml.tokens")
    types = field(reader, "tokenizer.ggml.token_type")
    merges = field(reader, "tokenizer.ggml.merges")
    id_of = {token: index for index, token in enumerate(tokens)}
    rank = {tuple(merge.split(" ")): index for index, merge in enumerate(merges)}
    control = [t for t, kind in zip(tokens, types) if kind == tokenizer.CONTROL]
    letters = tokenizer.byte_characters()
    words = regex.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )
    expected = []
    for span in regex.split("(" + "|".join(map(regex.escape, control)) + ")", text):
        if span in control:
            expected.append(id_of[span])
            continue
        for piece in regex.split(r"(\p{N})", span):
            for word in words.findall(piece):
                expected += [id_of[p] for p in merge([letters[b] for b in word.encode()], rank)]
    assert expected == ids, f"tokenizers disagree on {text!r}"


def merge(parts, rank):
    while True:
        pairs = list(zip(parts, parts[1:]))
        best = min(pairs, key=lambda pair: rank.get(pair, len(rank)), default=None)
        if best not in rank:
            return parts
        merged, index = [], 0
        while index < len(parts):
            together = tuple(parts[index : index + 2]) == best
            merged.append("".join(best) if together else parts[index])
            index += 2 if together else 1
        parts = merged


# The goldens.


def answer(model, record, encoder):
    logits, ids, margins = golden.greedy(model, record["ids"], GREEDY_TOKENS)
    top = np.argsort(-logits[-1], kind="stable")[:TOP]
    return record | {
        "greedy": ids,
        "margins": [round(m, 6) for m in margins],
        "answer": encoder.decode(ids, skip_special_tokens=False),
        "top_ids": top.tolist(),
        "top_logits": [round(float(x), 5) for x in logits[-1][top]],
    }


def write(path, model, records, encoder, file_digest):
    answers = []
    for record in records:
        answers.append(answer(model, record, encoder))
        last = answers[-1]
        print(f"{last['name']:10} {len(last['ids']):5} tokens, margin {min(last['margins']):.4f}:"
              f" {last['answer']!r}", flush=True)
    source = ("mlx-lm 0.32.2 on CPU, all in float32 with a float32 KV cache, on the weights that"
              " gguf-py 0.19.0 dequantises; generation does not stop at an end-of-turn token")
    golden.dump(path, {"source": source, "model_sha256": file_digest, "prompts": answers})


def verify(model, path):
    """Teacher-forces the stored answers through `model` and says how far it is from them."""
    steps = agreed = 0
    worst_logit = worst_flip = 0.0
    for record in json.loads(path.read_text())["prompts"]:
        prompt, greedy = record["ids"], record["greedy"]
        logits = golden.forward(model, prompt + greedy[:-1], None)[len(prompt) - 1 :]
        difference = np.abs(logits[0][record["top_ids"]] - record["top_logits"]).max()
        worst_logit = max(worst_logit, float(difference))
        for row, expected, margin in zip(logits, greedy, record["margins"]):
            steps += 1
            agreed += int(row.argmax() == expected)
            if row.argmax() != expected:
                worst_flip = max(worst_flip, margin)
        print(f"{path.name} {record['name']:10} {agreed}/{steps} so far, logits within"
              f" {worst_logit:.1e}", flush=True)
    print(f"{path.name}: {agreed} of {steps} greedy tokens agree, largest flipped margin"
          f" {worst_flip:.4f}, logits within {worst_logit:.1e}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--verify", action="store_true", help="against true quantised matmul")
    options = parser.parse_args()
    reader = gguf.GGUFReader(options.gguf)
    if options.verify:
        model = quantised_model(reader)
        verify(model, OUT / "golden.json")
        verify(model, OUT / "long.json")
        return

    OUT.mkdir(exist_ok=True)
    tools = text_tools(reader)
    short = list(prompts(PLAIN, CHATS, tools))
    texts, chats = {"program": program(random.Random(1))}, {"diary": diary(random.Random(2))}
    long = list(prompts(texts, chats, tools))
    assert sum(len(record["ids"]) for record in short) <= 400
    assert all(5 <= len(record["ids"]) <= 100 for record in short)
    assert all(1000 <= len(record["ids"]) <= 1500 for record in long)
    plain = [{"text": text, "ids": tools[0].encode(text).ids} for text in TEXTS]
    for record in short + long + plain:
        check_tokens(reader, record["text"], record["ids"])
        assert tools[0].decode(record["ids"], skip_special_tokens=False) == record["text"]
    digest = hashlib.sha256(options.gguf.read_bytes()).hexdigest()
    source = "tokenizers 0.23.3 on the GGUF's vocabulary; special tokens are recognised in the text"
    golden.dump(OUT / "tokens.json", {"source": source, "texts": plain})
    model = dense_model(reader)
    write(OUT / "golden.json", model, short, tools[0], digest)
    write(OUT / "long.json", model, long, tools[0], digest)


if __name__ == "__main__":
    main()
