"""What a golden is, and how mlx-lm computes one: shared by the make_*.py scripts.

Everything runs in f32 on the CPU with mlx-lm's plain f32 KV cache. Parameters stored as bf16 or
f16 (dense weights, or the scales and biases of quantised ones) are upcast to f32 first, so the
only rounding is that of f32 arithmetic.
"""

import json

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models.cache import make_prompt_cache

mx.set_default_device(mx.cpu)


def upcast(model):
    """Casts every floating-point parameter to f32; packed weights are integers and stay."""
    to_f32 = lambda p: p.astype(mx.float32) if mx.issubdtype(p.dtype, mx.floating) else p
    model.update(tree_map(to_f32, model.parameters()))
    mx.eval(model.parameters())
    return model


def forward(model, ids, cache):
    """Logits of all positions of `ids` as numpy f32, [positions, vocabulary]."""
    logits = model(mx.array([ids]), cache=cache)[0]
    assert logits.dtype == mx.float32
    return np.array(logits)


def greedy(model, prompt, count):
    """Logits of the prompt, `count` greedy ids, and each id's lead over the second best in nats."""
    cache = make_prompt_cache(model)
    logits = forward(model, prompt, cache)
    ids, margins, last = [], [], logits[-1]
    while True:
        second, first = np.partition(last, -2)[-2:]
        ids.append(int(last.argmax()))
        margins.append(float(np.float32(first - second)))
        if len(ids) == count:
            return logits, ids, margins
        last = forward(model, [ids[-1]], cache)[-1]


LENGTHS = (1, 5, 37, 150)


def random_prompts(rng, vocabulary, lengths=LENGTHS):
    return [rng.integers(0, vocabulary, length).tolist() for length in lengths]


def write(folder, model, source, prompts, greedy_tokens=32, all_positions_max=64):
    """Writes golden.json and golden.safetensors; long prompts keep their last position only."""
    records, tensors = [], {}
    for index, prompt in enumerate(prompts):
        logits, ids, margins = greedy(model, prompt, greedy_tokens)
        check_teacher_forced(model, prompt, ids, margins)
        first = 0 if len(prompt) <= all_positions_max else len(prompt) - 1
        tensors[f"logits.{index}"] = mx.array(logits[first:])
        records.append(
            {
                "ids": prompt,
                "positions": list(range(first, len(prompt))),
                "greedy": ids,
                "margins": [round(m, 6) for m in margins],
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "golden.safetensors"), tensors)
    dump(folder / "golden.json", {"source": source, "prompts": records})
    return records, tensors


def check_teacher_forced(model, prompt, ids, margins):
    """Cached decoding and one uncached forward pass must choose the same tokens."""
    logits = forward(model, prompt + ids[:-1], None)[len(prompt) - 1 :]
    wrong = [i for i, row in enumerate(logits) if row.argmax() != ids[i] and margins[i] > 1e-4]
    assert not wrong, f"steps {wrong} depend on the cache"


def dump(path, value):
    """JSON with one line per list of numbers: readable, and a diff shows what moved."""
    path.write_text(pretty(value) + "\n")


def pretty(value, indent=0):
    pad = " " * (indent + 1)
    if isinstance(value, dict) and value:
        rows = [f"{pad}{json.dumps(k)}: {pretty(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        rows = [pad + pretty(v, indent + 1) for v in value]
        return "[\n" + ",\n".join(rows) + "\n" + " " * indent + "]"
    return json.dumps(value, ensure_ascii=False)
