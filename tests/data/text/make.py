"""Makes the fixtures of the text room, and what other implementations say about them.

    pip install tokenizers==0.23.* transformers==5.* sentencepiece==0.2.* gguf==0.19.* jinja2==3.1.*
    python make.py [SmolLM2-135M-Instruct.Q4_1.gguf]

With the GGUF file it also writes `smollm2.json`: ids of the same texts under the real SmolLM2
vocabulary, for the test that has the model. The templates beside it are ours; they use the
constructs that the templates of real models use.
"""

import io
import json
import pathlib
import sys

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import trainers
from transformers.convert_slow_tokenizer import generate_merges
from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).parent

TEXTS = [
    "",
    " ",
    "Hello",
    "Hello, world!",
    " leading and trailing ",
    "  two   three    four     five",
    "tabs\tand\t\ttabs",
    "line\nline\n\nline\r\nline\r\n\r\nend\n",
    "   \n   indented\n        more\n",
    "I'm you're we've they'd he'll it's don't I'M YOU'RE CAN'T",
    "1 12 123 1234 12345 3.14159 1,000,000 2024-12-31 0x1F ½ Ⅷ ٣٤٥",
    "def f(x):\n    return {'a': [1, 2, x ** 2], \"b\": x != None}  # comment\n",
    "fn main() -> Result<(), Box<dyn Error>> { println!(\"{:?}\", &v[..n]); Ok(()) }",
    "<div class=\"a b\">&nbsp;&amp;</div><!-- x -->",
    "https://example.org/path?q=1&r=%20#frag user@example.org",
    "Übergrößenträger, naïve café, Ærøskøbing, İstanbul, Ελληνικά, Привет мир",
    "e\u0301 cafe\u0301 n\u0303 A\u030a \u1e9b\u0323",
    "日本語のテキストと漢字。中文文本，没有空格！한국어 텍스트",
    "नमस्ते दुनिया สวัสดีชาวโลก مرحبا بالعالم שלום עולם",
    "😀👍🏽👩‍👩‍👧‍👦🇩🇪 ✓ ∑∫≠ … “quotes” ‘single’ – — «»",
    "\u00a0non\u2003breaking\u200bzero\ufeffwidth\u3000ideographic",
    "control \x00\x01\x1f\x7f bytes",
    "snake_case camelCase PascalCase SCREAMING_CASE kebab-case HTTPServer2Go",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "!!!???...---===+++***///\\\\\\|||~~~```",
    "a ▁ b ▁▁ c Ġ Ċ <0x0A> <0xZZ>",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "before<|im_end|>after <|im_end|> spaced",
    "<think>\nhm\n</think>\n\nanswer",
    "</s> <s> <unk> [INST] x [/INST]",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐷 \U0010ffff",
    "The quick brown fox jumps over the lazy dog. The end of the beginning.",
]

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<think>", "</think>"]

LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN_3_5 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LEAD = r"[^\r\n\p{L}\p{N}]?"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{LEAD}{UPPER}*{LOWER}+|{LEAD}{UPPER}+{LOWER}*|\p{{N}}|{REST}"
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = rf"{LEAD}{UPPER}*{LOWER}+{SUFFIX}|{LEAD}{UPPER}+{LOWER}*{SUFFIX}|\p{{N}}{{1,3}}|{REST}"
DEEPSEEK_3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
CJK = "[一-龥ࠀ-一가-퟿]+"
# Numbers, because a tool that normalises this file would change the characters.
DEEPSEEK_LLM_LETTERS = "A-Za-z" + "".join(
    "-".join(chr(int(end, 16)) for end in part.split("-"))
    for part in """
    00B5 00C0-00D6 00D8-00F6 00F8-01BA 01BC-01BF 01C4-0293 0295-02AF 0370-0373 0376
    0377 037B-037D 037F 0386 0388-038A 038C 038E-03A1 03A3-03F5 03F7-0481
    048A-052F 0531-0556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77
    1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D
    1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC
    1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126
    2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184
    2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787
    A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB
    10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943
    """.split()
)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(use_regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


# What the models' own tokenizer.json files declare, by the name GGUF files give them.
PRE = {
    "gpt-2": ([byte_level(True)], None, False),
    "smollm": ([pre_tokenizers.Digits(individual_digits=True), byte_level(True)], None, False),
    "llama-bpe": ([split(LLAMA_3), byte_level()], None, True),
    "qwen2": ([split(QWEN_2), byte_level()], normalizers.NFC(), False),
    "qwen35": ([split(QWEN_3_5), byte_level()], normalizers.NFC(), False),
    "tekken": ([split(TEKKEN), byte_level()], None, True),
    "gpt-4o": ([split(O200K), byte_level()], None, False),
    "deepseek-coder": (
        [split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CJK)]
        + [pre_tokenizers.Digits(individual_digits=True), byte_level()],
        None,
        False,
    ),
    "deepseek-llm": (
        [split(r"[\r\n]"), split(rf"\s?[{DEEPSEEK_LLM_LETTERS}]+")]
        + [split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"), split(CJK)]
        + [pre_tokenizers.Digits(individual_digits=True), byte_level()],
        None,
        False,
    ),
    "deepseek-v3": (
        [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_3), byte_level()],
        None,
        False,
    ),
    "falcon": (
        [pre_tokenizers.Punctuation("contiguous"), byte_level(True), pre_tokenizers.Digits()]
        + [split("[0-9][0-9][0-9]")],
        None,
        False,
    ),
}


def add_tokens(tokenizer):
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ADDED])


def encodings(tokenizer, decoder=None):
    """Ids with special tokens parsed, and what they decode to without them."""
    out = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        out.append({"text": text, "ids": ids, "decoded": (decoder or tokenizer).decode(ids)})
    return out


def make_byte_level():
    base = tokenizers.Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.Sequence([split(LLAMA_3), byte_level()])
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    base.train_from_iterator(TEXTS * 4, trainer)
    trained = json.loads(base.to_str())["model"]
    vocabulary = dict(trained["vocab"])
    for text in ADDED:
        vocabulary[text] = len(vocabulary)
    merges = [tuple(merge) for merge in trained["merges"]]
    tokens = sorted(vocabulary, key=vocabulary.get)
    types = [3 if text in SPECIAL else 4 if text in ADDED else 1 for text in tokens]

    by_pre = {}
    for name, (steps, normalizer, ignore_merges) in PRE.items():
        model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges)
        tokenizer = tokenizers.Tokenizer(model)
        if normalizer:
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        tokenizer.decoder = decoders.ByteLevel()
        add_tokens(tokenizer)
        by_pre[name] = encodings(tokenizer)
        if name == "llama-bpe":
            tokenizer.post_processor = processors.TemplateProcessing(
                single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
            )
            write("byte_level.tokenizer.json", json.loads(tokenizer.to_str()))
    gguf = {"tokens": tokens, "token_types": types, "merges": [" ".join(m) for m in merges]}
    write("byte_level.json", {"gguf": gguf, "by_pre": by_pre})


def make_sentence_piece():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for text in TEXTS if text.strip()] * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=0.98,
        control_symbols=SPECIAL[1:],
        user_defined_symbols=ADDED,
        minloglevel=2,
    )
    spm = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    tokens, scores, types = [], [], []
    for id in range(spm.vocab_size()):
        tokens.append(spm.id_to_piece(id))
        scores.append(spm.get_score(id))
        user = tokens[-1] in ADDED
        kinds = [(spm.is_unknown, 2), (spm.is_control, 3), (lambda _: user, 4), (spm.is_byte, 6)]
        types.append(next((kind for test, kind in kinds if test(id)), 1))

    # As LlamaConverter of transformers builds it.
    vocabulary = {text: id for id, text in enumerate(tokens)}
    normal = {text: score for text, score, kind in zip(tokens, scores, types) if kind == 1}
    skipped = [text for text, kind in zip(tokens, types) if kind != 1]
    merges = generate_merges(vocabulary, normal, skipped)
    bpe = models.BPE(
        vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + [decoders.Strip(" ", 1, 0)]
    )
    specials = [text for text, kind in zip(tokens, types) if kind in (2, 3)]
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ADDED])
    hugging_face = encodings(tokenizer)
    # SentencePiece itself knows no special tokens in text, and splits user-defined ones.
    plain = [text for text in TEXTS if "<" not in text and "▁" not in text]
    own = [{"text": text, "ids": spm.encode(text)} for text in plain]
    gguf = {"tokens": tokens, "scores": scores, "token_types": types}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", spm.bos_id())]
    )
    write("sentence_piece.tokenizer.json", json.loads(tokenizer.to_str()))
    data = {"gguf": gguf, "hugging_face": hugging_face, "sentencepiece": own}
    data["gemma"] = as_gemma(tokenizer)
    write("sentence_piece.json", data)


def as_gemma(tokenizer):
    """The steps around the model as Gemma's tokenizer.json has them, and what comes out."""
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    steps = json.loads(tokenizer.to_str())
    names = ["normalizer", "pre_tokenizer", "decoder"]
    return {"steps": {name: steps[name] for name in names}, "texts": encodings(tokenizer)}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a city, <b>now</b> & 'then'",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
            "required": ["city"],
        },
    },
}


def say(role, content, **extra):
    return {"role": role, "content": content, **extra}


CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2.0, "x": [True, None]}},
}
CONVERSATIONS = {
    "one_turn": [say("user", "Hi there")],
    "system": [say("system", "  Be brief. "), say("user", "What is 2+2?\n")],
    "many_turns": [
        say("system", "You are a pirate."),
        say("user", "Hello <|im_end|> & \"quotes\" {{ 7*7 }}"),
        say("assistant", "<think>\nhe greets\n</think>\n\nAhoy!"),
        say("user", "日本語 👍🏽"),
    ],
    "tools": [
        say("system", "Use tools."),
        say("user", "Weather in Zürich?"),
        say("assistant", None, tool_calls=[CALL]),
        say("tool", "{\"temp\": 21}", tool_call_id="call00001", name="get_weather"),
        say("tool", "second", tool_call_id="call00002", name="get_weather"),
        say("assistant", "21 degrees.", reasoning_content="\nlooked it up\n"),
        say("user", "Thanks"),
    ],
    "wrong_order": [say("user", "a"), say("user", "b")],
}
OPTIONS = {
    "plain": {},
    "no_prompt": {"add_generation_prompt": False},
    "no_thinking": {"variables": {"enable_thinking": False}},
    "with_tools": {"tools": [WEATHER]},
}
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
NOW = "2024-07-04"


def make_templates():
    from datetime import datetime
    import transformers.utils.chat_template_utils as utils

    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(NOW + "T09:08:07")

    utils.datetime = Frozen
    cases = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        for conversation, messages in CONVERSATIONS.items():
            for name, options in OPTIONS.items():
                case = {"template": path.name, "conversation": conversation, "options": name}
                try:
                    (rendered,), _ = render_jinja_template(
                        conversations=[messages],
                        tools=options.get("tools"),
                        chat_template=path.read_text(),
                        add_generation_prompt=options.get("add_generation_prompt", True),
                        **options.get("variables", {}),
                        **SPECIAL_TOKENS,
                    )
                    case["rendered"] = rendered
                except Exception as error:
                    case["error"] = str(error)
                cases.append(case)
    data = {
        "now": f"{NOW}T09:08:07Z",
        "special_tokens": SPECIAL_TOKENS,
        "conversations": CONVERSATIONS,
        "options": OPTIONS,
        "cases": cases,
    }
    write("rendered.json", data)


def smollm2(path):
    """The tokenizer of the real model, from the file's metadata, built with the Python package."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    vocabulary = {text: id for id, text in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(PRE["smollm"][0])
    tokenizer.decoder = decoders.ByteLevel()
    specials = [text for text, kind in zip(tokens, types) if kind == 3]
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return tokenizer


def write(name, data):
    lines = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    (HERE / name).write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    make_byte_level()
    make_sentence_piece()
    make_templates()
    if len(sys.argv) > 1:
        write("smollm2.json", encodings(smollm2(sys.argv[1])))
