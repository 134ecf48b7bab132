"""Makes tests/data/gguf: GGUF files as llama.cpp's converter writes them, and what they hold.

    python make_gguf.py        (after make_tiny.py; versions and contents: README.md)
"""

import json
import shutil
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Type
from mlx.utils import tree_flatten
from mlx_lm import utils

import golden
import tokenizer

HERE = Path(__file__).parent
OUT = HERE / "gguf"

# GGUF name of each Hugging Face module.
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA_NAMES = NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
PRE = {"llama": "smollm", "qwen2": "qwen2", "qwen3": "qwen2", "gemma3": "smollm"}


def gguf_name(path, names=NAMES):
    module, kind = path.rsplit(".", 1)
    if module.startswith("model.layers."):
        _, _, layer, module = module.split(".", 3)
        return f"blk.{layer}.{names[module]}.{kind}"
    return f"{names[module]}.{kind}"


def permute(weight, heads):
    """Rows of q and k from rotate-halves order to adjacent pairs (LlamaModel.permute)."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write_metadata(writer, config, pre):
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    writer.add_name("tiny")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if head_dim * heads != config["hidden_size"]:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config["model_type"] == "llama":
        writer.add_rope_dimension_count(head_dim)
    tokens, types = tokenizer.tiny()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(tokenizer.MERGES)
    writer.add_bos_token_id(tokenizer.BOS)
    writer.add_eos_token_id(tokenizer.EOS)
    writer.add_unk_token_id(tokenizer.UNKNOWN)
    writer.add_pad_token_id(tokenizer.PADDING)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.TEMPLATE)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add(writer, name, weight, kind):
    """Adds an f32 matrix as `kind`; vectors stay f32, as llama.cpp wants them."""
    if weight.ndim == 1 or kind == Type.F32:
        writer.add_tensor(name, weight)
    elif kind == Type.F16:
        writer.add_tensor(name, weight.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)


def write_model(name, config, weights, kind_of, pre=None, extra=()):
    """Writes `gguf/<name>.gguf` from f32 weights under their Hugging Face names."""
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", config["model_type"])
    write_metadata(writer, config, pre or PRE[config["model_type"]])
    for path, weight in sorted(weights.items()):
        if config["model_type"] == "llama" and "q_proj" in path:
            weight = permute(weight, config["num_attention_heads"])
        if config["model_type"] == "llama" and "k_proj" in path:
            weight = permute(weight, config["num_key_value_heads"])
        add(writer, gguf_name(path), weight, kind_of(path))
    for tensor, value in extra:
        writer.add_tensor(tensor, value)
    finish(writer)


def load_tiny(name):
    """Config and weights of tests/data/tiny/<name>, weights as f32 (exact from f16 and bf16)."""
    folder = HERE / "tiny" / name
    weights = {}
    for file in sorted(folder.glob("model*.safetensors")):
        weights |= mx.load(str(file))
    config = json.loads((folder / "config.json").read_text())
    return config, {path: np.array(w.astype(mx.float32)) for path, w in weights.items()}


def rope_factors(config):
    """llama.cpp's rope_freqs.weight: each frequency is divided by its factor."""
    scaling = config["rope_scaling"]
    context = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for i in range(0, config["head_dim"], 2):
        wavelength = 2 * np.pi * config["rope_theta"] ** (i / config["head_dim"])
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(scaling["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, np.float32)


def equal_to_tiny():
    """Same stem, same weights: the golden of tests/data/tiny/<name> applies to gguf/<name>.gguf."""
    kinds = {"llama-f16": Type.F16, "qwen2": Type.F16, "qwen3": Type.BF16}
    for name, kind in kinds.items():
        write_model(name, *load_tiny(name), lambda _path: kind)
    gemma3()
    config, weights = load_tiny("llama3-rope")
    factors = ("rope_freqs.weight", rope_factors(config))
    write_model("llama3-rope", config, weights, lambda _path: Type.BF16, "llama-bpe", [factors])


def gemma3():
    """llama.cpp's converter adds to the norms what Gemma does."""
    config, weights = load_tiny("gemma3")
    assert config["sliding_window_pattern"] == 2
    writer = gguf.GGUFWriter(OUT / "gemma3.gguf", "gemma3")
    write_metadata(writer, config | {"model_type": "gemma3"}, PRE["gemma3"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_uint32("gemma3.attention.sliding_window_pattern", 2)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(config["rope_scaling"]["factor"])
    for path, weight in sorted(weights.items()):
        if path.endswith("norm.weight"):
            weight = weight + 1
        add(writer, gguf_name(path, GEMMA_NAMES), weight, Type.BF16)
    finish(writer)


def legacy_kind(path):
    """Every legacy quantisation has its place in one model."""
    if "embed_tokens" in path or "v_proj" in path:
        return Type.Q8_0
    if "down_proj" in path or "o_proj" in path:
        return Type.Q4_1
    return Type.Q4_0


def quantised_legacy():
    config, weights = load_tiny("llama-f32")
    write_model("llama-legacy-quants", config, weights, legacy_kind)
    exact = {
        path: w if w.ndim == 1 else round_trip(w, legacy_kind(path)) for path, w in weights.items()
    }
    write_golden("llama-legacy-quants", config, exact, seed=20)


def round_trip(weight, kind):
    return gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind)


def write_golden(name, config, weights, seed):
    model_class, arguments = utils._get_classes(config)
    model = model_class(arguments.from_dict(config))
    model.load_weights([(path, mx.array(w)) for path, w in weights.items()], strict=True)
    prompts = golden.random_prompts(np.random.default_rng(seed), config["vocab_size"])
    source = "mlx-lm 0.32.2 on CPU in float32 on the weights that gguf-py 0.19.0 dequantises"
    records, _ = golden.write(OUT / name, model, source, prompts)
    distinct = [len(set(record["greedy"])) for record in records]
    margin = min(min(record["margins"]) for record in records)
    print(f"{name:20} distinct greedy {distinct}  min margin {margin:.4f}")
    assert margin >= 0.01 and min(distinct) >= 8, f"{name}: try another seed"


# Bytes of a block of 256 weights, where its f16 scales lie, and a standard deviation of weight
# per unit of scale when all other bytes are random.
K_BLOCKS = {
    Type.Q4_K: (144, {"d": 0, "dmin": 2}, 175.0),
    Type.Q5_K: (176, {"d": 0, "dmin": 2}, 360.0),
    Type.Q6_K: (210, {"d": 208}, 1780.0),
}
# dmin over d that puts the mean weight near zero: the mean quant.
K_CENTRE = {Type.Q4_K: 7.5, Type.Q5_K: 15.5}


def random_k_blocks(rng, rows, columns, kind, deviation):
    """Random bytes are a valid K-quant block once its f16 scales are finite and small."""
    size, offsets, unit = K_BLOCKS[kind]
    blocks = rng.integers(0, 256, (rows, columns // 256, size), np.uint8)
    d = rng.uniform(0.7, 1.3, blocks.shape[:2]) * deviation / unit
    scales = {"d": d, "dmin": d * K_CENTRE.get(kind, 0)}
    for field, offset in offsets.items():
        halves = scales[field].astype(np.float16)[..., None].view(np.uint8)
        blocks[..., offset : offset + 2] = halves
    if kind == Type.Q6_K:
        # As in real files: of both signs, and neighbours alike in size.
        magnitude = rng.integers(64, 128, (*blocks.shape[:2], 16))
        blocks[..., 192:208] = (magnitude * rng.choice([-1, 1], magnitude.shape)).astype(np.int8).view(np.uint8)
    return blocks.reshape(rows, -1)


def q4_k_and_q5_k(path):
    heavy = any(module in path for module in ("embed_tokens", "v_proj", "o_proj", "down_proj"))
    return Type.Q5_K if heavy else Type.Q4_K


def q4_k_medium(path):
    """As llama.cpp's Q4_K_M: what hurts most has six bits."""
    heavy = any(module in path for module in ("embed_tokens", "v_proj", "down_proj"))
    return Type.Q6_K if heavy else Type.Q4_K


def quantised_k(name, kind_of, seed):
    """A qwen3 (nothing is permuted) whose matrices are K-quants of random bytes."""
    config, _ = load_tiny("qwen3")
    config |= {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1,
               "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    model_class, arguments = utils._get_classes(config)
    parameters = tree_flatten(model_class(arguments.from_dict(config)).parameters())
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", "qwen3")
    write_metadata(writer, config, "qwen2")
    weights = {}
    for path, parameter in sorted(parameters, key=lambda named: named[0]):
        if parameter.ndim == 1:
            weights[path] = rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)
            writer.add_tensor(gguf_name(path), weights[path])
            continue
        kind = kind_of(path)
        deviation = 0.18 if "embed_tokens" in path else 2 / np.sqrt(parameter.shape[1])
        blocks = random_k_blocks(rng, *parameter.shape, kind, deviation)
        weights[path] = gguf.quants.dequantize(blocks, kind)
        writer.add_tensor(gguf_name(path), blocks, raw_dtype=kind)
    finish(writer)
    write_golden(name, config, weights, seed)


def every_type():
    """types.gguf: one matrix of each type read; types.safetensors: the f32 they mean."""
    rng = np.random.default_rng(30)
    rows, columns = 4, 512
    writer = gguf.GGUFWriter(OUT / "types.gguf", "llama")
    meaning = {}
    for kind in [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q8_0, *K_BLOCKS]:
        name = kind.name.lower()
        if kind in K_BLOCKS:
            blocks = random_k_blocks(rng, rows, columns, kind, 1.0)
            writer.add_tensor(name, blocks, raw_dtype=kind)
            meaning[name] = gguf.quants.dequantize(blocks, kind)
        else:
            weight = rng.normal(0, 1, (rows, columns)).astype(np.float32)
            add(writer, name, weight, kind)
            meaning[name] = round_trip(weight, kind)
    finish(writer)
    assert all(np.isfinite(m).all() for m in meaning.values())
    tensors = {name: mx.array(m) for name, m in meaning.items()}
    mx.save_safetensors(str(OUT / "types.safetensors"), tensors)
    for name, m in meaning.items():
        print(f"{name:6} mean {m.mean():+.2f} ±{m.std():.2f}")


def unsupported():
    """A file whose second tensor has a type that must be refused by name."""
    rng = np.random.default_rng(31)
    writer = gguf.GGUFWriter(OUT / "unsupported.gguf", "llama")
    add(writer, "good.weight", rng.normal(0, 1, (2, 256)).astype(np.float32), Type.Q8_0)
    blocks = rng.integers(0, 256, (2, 84), np.uint8)  # a Q2_K block has 84 bytes
    writer.add_tensor("bad.weight", blocks, raw_dtype=Type.Q2_K)
    finish(writer)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    equal_to_tiny()
    quantised_legacy()
    quantised_k("qwen3-q4-q5-k", q4_k_and_q5_k, seed=25)
    quantised_k("qwen3-q4-k-m", q4_k_medium, seed=23)
    every_type()
    unsupported()


if __name__ == "__main__":
    main()
