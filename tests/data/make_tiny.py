"""Makes tests/data/tiny: small random models as mlx-lm saves them, each with its golden.

    python make_tiny.py        (versions and file formats: README.md)
"""

import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm import utils

import golden
import tokenizer

HERE = Path(__file__).parent

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,  # not hidden_size / num_attention_heads
    "rms_norm_eps": 1e-5,
    "vocab_size": 288,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "bos_token_id": 0,
    "eos_token_id": 1,
}
UNTIED = {"tie_word_embeddings": False}
# Groups of 64 want more than one group in a row, and 96 is not a multiple of 64.
WIDE = {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32}
# All query heads share one KV head.
ONE_KV = {"head_dim": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
QWEN2 = LLAMA | {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "head_dim": None,  # mlx-lm's qwen2 has none: it is hidden_size / num_attention_heads
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
}
QWEN3 = LLAMA | {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
}
MISTRAL = LLAMA | UNTIED | {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "head_dim": None,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 3,
    "sliding_window": None,
}
# The original context is so short that all three bands of the scaling matter within 150 tokens.
LLAMA3 = LLAMA | UNTIED | {
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}
# Layers see a window or everything in turn; sqrt(96) is not a bf16, so its rounding shows.
GEMMA3 = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "rms_norm_eps": 1e-6,
    "vocab_size": 288,
    "max_position_embeddings": 1024,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    "sliding_window": 16,
    "sliding_window_pattern": 2,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "bos_token_id": 0,
    "eos_token_id": [1, 3],
}
# A window that is longer than a block of 256 tokens, and no multiple of it.
GEMMA3_WIDE = GEMMA3 | {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "query_pre_attn_scalar": 24,  # not head_dim, which GGUF files could not say
    "rope_scaling": None,
    "sliding_window": 300,
}
# As mlx-community has the larger models: the text model is a part, and much is left out.
GEMMA3_NESTED = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "vocab_size": 288,
    "eos_token_id": [1, 3],
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "num_hidden_layers": 6,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window": 64,
    },
}
BIAS = LLAMA | ONE_KV | {"attention_bias": True, "mlp_bias": True}


def mixed(path, _module):
    """Per-module settings: mlx-lm writes each deviation into `quantization` under its path."""
    if path == "model.layers.1.mlp.down_proj":
        return False  # stays dense, and is not named in the config
    if "embed_tokens" in path or "v_proj" in path:
        return {"group_size": 64, "bits": 8}
    if "down_proj" in path:
        return {"group_size": 32, "bits": 4}
    return True


def q(bits, group_size, predicate=None):
    return {"bits": bits, "group_size": group_size, "quant_predicate": predicate}


# name: (config, stored dtype, quantisation, seed). The seeds were searched so that no greedy
# step is a near-tie (all lead by 0.01 nats) and no continuation is stuck on a few tokens.
MODELS = {
    "llama-f32": (LLAMA, mx.float32, None, 1),
    "llama-bf16": (LLAMA | UNTIED, mx.bfloat16, None, 202),
    "llama-f16": (LLAMA | UNTIED, mx.float16, None, 3),
    "llama3-rope": (LLAMA3, mx.bfloat16, None, 104),
    "llama-bias": (BIAS, mx.bfloat16, None, 405),
    "mistral": (MISTRAL, mx.bfloat16, None, 106),
    "qwen2": (QWEN2, mx.float16, None, 107),
    "qwen3": (QWEN3, mx.bfloat16, None, 108),
    "llama-q4-g32": (LLAMA, mx.float32, q(4, 32), 309),
    "llama-q4-g64": (LLAMA | WIDE | UNTIED, mx.bfloat16, q(4, 64), 210),
    "qwen2-q4-g32": (QWEN2 | UNTIED, mx.bfloat16, q(4, 32), 11),
    "qwen2-q4-g64": (QWEN2 | WIDE | {"head_dim": None}, mx.float16, q(4, 64), 12),
    "qwen3-q4-g32": (QWEN3, mx.bfloat16, q(4, 32), 913),
    "qwen3-q4-g64": (QWEN3 | WIDE | ONE_KV, mx.float32, q(4, 64), 14),
    "qwen3-q8-g64": (QWEN3 | WIDE | UNTIED, mx.float16, q(8, 64), 815),
    "llama-mixed": (LLAMA | WIDE, mx.float32, q(4, 64, mixed), 16),
    "gemma3": (GEMMA3, mx.bfloat16, None, 217),
    "gemma3-wide-window": (GEMMA3_WIDE, mx.bfloat16, None, 3418),
    "gemma3-q4-g32": (GEMMA3_NESTED, mx.bfloat16, q(4, 32), 5319),
}
SHARDED = "llama-f16"
WITH_TOKENIZER = "llama-f16"
# Past the window in the prompt, and past it only in the answer.
LENGTHS = {"gemma3-wide-window": (1, 37, 290, 600)}


def random_weight(rng, path, shape, gemma):
    """Wide enough that greedy text varies and the best token leads by a clear margin."""
    if gemma and path.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
        # Large beside the embedding, which is multiplied by sqrt(hidden).
        return rng.uniform(12, 36, shape)
    if gemma and path.endswith("norm.weight"):
        return rng.uniform(-0.5, 0.5, shape)  # 1 is added
    if path.endswith("norm.weight"):
        return rng.uniform(0.5, 1.5, shape)
    if path.endswith(".bias"):
        return rng.normal(0, 0.3, shape)
    if "embed_tokens" in path:
        # Small beside what the layers add, or a tied head would repeat its input for ever.
        return rng.normal(0, 0.35, shape)
    if "lm_head" in path:
        return rng.normal(0, 4 / np.sqrt(shape[1]), shape)
    return rng.normal(0, 2 / np.sqrt(shape[1]), shape)


def build(config, dtype, quantisation, seed):
    model_class, arguments = utils._get_classes(config)
    model = model_class(arguments.from_dict(config))
    rng = np.random.default_rng(seed)
    gemma = config["model_type"].startswith("gemma")
    if gemma:
        # mlx-lm ties its head where the weights have none, whatever the config says.
        getattr(model, "language_model", model).sanitize({})
    weights = {
        path: mx.array(random_weight(rng, path, value.shape, gemma).astype(np.float32)).astype(dtype)
        for path, value in sorted(tree_flatten(model.parameters()))
    }
    model.update(tree_unflatten(list(weights.items())))
    if quantisation:
        model, config = utils.quantize_model(model, config, **quantisation)
    return model, config


def save(folder, model, config, shards):
    """Saves as mlx-lm does. Its shards hold 5 GB, so for two small ones the split is ours."""
    original = utils.make_shards
    if shards == 2:
        utils.make_shards = in_two
    utils.save_model(folder, model)
    utils.make_shards = original
    utils.save_config(config, folder / "config.json")


def save_tokenizer(folder):
    """The same tokenizer as in the GGUF files, as a Hugging Face folder has it."""
    tokens, types = tokenizer.tiny()
    tokenizer.hugging_face(tokens, types, tokenizer.MERGES, "smollm").save(
        str(folder / "tokenizer.json")
    )
    golden.dump(
        folder / "tokenizer_config.json",
        {
            "bos_token": tokens[tokenizer.BOS],
            "eos_token": tokens[tokenizer.EOS],
            "add_bos_token": False,
            "chat_template": tokenizer.TEMPLATE,
        },
    )


def in_two(weights):
    names = list(weights)
    half = len(names) // 2
    return [{name: weights[name] for name in part} for part in (names[:half], names[half:])]


def source(dtype, quantisation):
    stored = str(dtype).removeprefix("mlx.core.")
    what = "scales, biases and norms" if quantisation else "weights"
    how = "as stored" if dtype == mx.float32 else f"{what} upcast from {stored} to float32 first"
    return f"mlx-lm 0.32.2 on CPU, all in float32 with a float32 KV cache; {how}"


def main():
    shutil.rmtree(HERE / "tiny", ignore_errors=True)
    for name, (config, dtype, quantisation, seed) in MODELS.items():
        config = {key: value for key, value in config.items() if value is not None}
        folder = HERE / "tiny" / name
        model, config = build(config, dtype, quantisation, seed)
        save(folder, model, config, shards=2 if name == SHARDED else 1)
        if name == WITH_TOKENIZER:
            save_tokenizer(folder)
        # The golden is of what a reader will load, not of what was in memory.
        model, config = utils.load_model(folder)
        prompts = golden.random_prompts(
            np.random.default_rng(seed + 1000), config["vocab_size"], LENGTHS.get(name, golden.LENGTHS)
        )
        records, tensors = golden.write(
            folder, golden.upcast(model), source(dtype, quantisation), prompts
        )
        summarise(name, records, tensors)


def summarise(name, records, tensors):
    deviation = np.std(np.array(tensors["logits.2"]))
    distinct = [len(set(record["greedy"])) for record in records]
    margin = min(min(record["margins"]) for record in records)
    assert margin >= 0.01 and min(distinct) >= 8, f"{name}: try another seed"
    print(f"{name:14} logits ±{deviation:.1f}  distinct greedy {distinct}  min margin {margin:.4f}")


if __name__ == "__main__":
    main()
