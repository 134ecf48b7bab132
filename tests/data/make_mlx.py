"""Writes a GGUF file of SmolLM2 as the folder that mlx-lm's server loads, for `semantic bench`.

    python make_mlx.py SmolLM2-135M-Instruct.Q4_1.gguf FOLDER

Weights are dequantised to f32: with OpenBLAS preloaded that is what mlx-lm is fastest with on a CPU.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import gguf
import mlx.core as mx
import tokenizer
from make_smollm2 import arguments, dense_model, field
from mlx.utils import tree_flatten


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    reader = gguf.GGUFReader(given.file)
    given.folder.mkdir(parents=True, exist_ok=True)

    weights = dict(tree_flatten(dense_model(reader).parameters()))
    mx.save_safetensors(str(given.folder / "model.safetensors"), weights, {"format": "mlx"})
    config = {name: value for name, value in dataclasses.asdict(arguments(reader)).items()
              if value is not None}
    end = field(reader, "tokenizer.ggml.eos_token_id")
    write(given.folder / "config.json", config | {"eos_token_id": end})

    parts = [field(reader, f"tokenizer.ggml.{key}")
             for key in ("tokens", "token_type", "merges", "pre")]
    tokenizer.hugging_face(*parts).save(str(given.folder / "tokenizer.json"))
    write(given.folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": parts[0][end],
        "chat_template": field(reader, "tokenizer.chat_template"),
    })


def write(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
