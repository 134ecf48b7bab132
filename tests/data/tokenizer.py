"""Tokenizers: the tiny one that the fixtures carry, and Hugging Face's from GGUF metadata."""

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers

NORMAL, CONTROL = 1, 3  # gguf token types

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|pad|>"]
BOS, EOS, UNKNOWN, PADDING = range(4)
MERGES = (
    "Ġ t|h e|Ġ a|Ġt he|i n|r e|o n|e r|Ġ s|Ġ w|o r|l l|Ġ c|e s|a t|Ġ o|o u|Ġ m|i t|Ġ p|Ġa n|"
    "Ġan d|in g|l o|he ll|hell o|u s|Ġw or"
).split("|")


def byte_characters():
    """GPT-2's printable stand-in for each of the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def tiny():
    """(tokens, token types) of 4 control tokens, 256 bytes and 28 merges: 288 in all."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = SPECIAL + byte_characters() + merged
    assert len(set(tokens)) == 288
    return tokens, [CONTROL] * len(SPECIAL) + [NORMAL] * (len(tokens) - len(SPECIAL))


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {"llama-bpe": LLAMA3, "qwen2": LLAMA3.replace("{1,3}", "")}


def split(pre):
    """What `tokenizer.ggml.pre` stands for, as the models' own tokenizer.json spell it."""
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    regex = pre_tokenizers.Split(Regex(SPLITS[pre]), "isolated")
    return [regex, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def hugging_face(tokens, types, merges, pre):
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(models.BPE(ids, [tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split(pre))
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types) if kind == CONTROL]
    tokenizer.add_special_tokens(control)
    return tokenizer
