//! How each family of byte-level BPE models cuts text before merging: the table behind
//! `tokenizer.ggml.pre` of a GGUF file.
//!
//! The rules are those in the models' own `tokenizer.json`, which llama.cpp's table in
//! `src/llama-vocab.cpp` restates for its own regex engine; where the two differ (Unicode
//! normalisation, character classes) the model's own file is followed.

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior::Contiguous,
    SplitDelimiterBehavior::Isolated,
};

use super::error::Error;

/// One family's way of cutting text.
#[derive(Debug)]
pub(super) struct Rule {
    names: &'static [&'static str],
    steps: &'static [Step],
    normalises: Nfc,
    /// A piece that is in the vocabulary is taken whole, without merging.
    pub ignores_merges: bool,
    /// Whether BOS is put before raw text where the file does not say.
    pub adds_bos: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Nfc {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Every match is a piece of its own.
    Isolate(&'static str),
    EachDigit,
    DigitRuns,
    PunctuationRuns,
    /// GPT-2's pattern; also turns the text into the byte alphabet.
    Gpt2,
}

use Step::*;

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_3_5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
// Written as numbers: several of these characters have a canonical twin elsewhere, and a tool that
// normalises the source would change the pattern.
const DEEPSEEK_LLM_LETTERS: &str = concat!(
    r"\s?[",
    r"A-Za-z\x{00B5}\x{00C0}-\x{00D6}\x{00D8}-\x{00F6}\x{00F8}-\x{01BA}\x{01BC}-\x{01BF}",
    r"\x{01C4}-\x{0293}\x{0295}-\x{02AF}\x{0370}-\x{0373}\x{0376}\x{0377}\x{037B}-\x{037D}",
    r"\x{037F}\x{0386}\x{0388}-\x{038A}\x{038C}\x{038E}-\x{03A1}\x{03A3}-\x{03F5}",
    r"\x{03F7}-\x{0481}\x{048A}-\x{052F}\x{0531}-\x{0556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}",
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}",
    r"\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}",
    r"\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}",
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}",
    r"\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}",
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}",
    r"\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}",
    r"\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}",
    r"\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}",
    r"\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}",
    r"\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}",
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}",
    r"]+",
);
const DEEPSEEK_LLM_PUNCTUATION: &str =
    r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+";
const CJK: &str = r"[\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+";
const CJK_AND_KANA: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";

/// What most rows share.
const PLAIN: Rule = Rule {
    names: &[],
    steps: &[Gpt2],
    normalises: Nfc::No,
    ignores_merges: false,
    adds_bos: false,
};

/// The first row is what an unknown name falls back to. A new family is one more row.
const RULES: &[Rule] = &[
    Rule {
        names: &["gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "exaone4", "mellum"],
        ..PLAIN
    },
    Rule {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        steps: &[EachDigit, Gpt2],
        ..PLAIN
    },
    Rule {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        steps: &[Isolate(LLAMA_3)],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    Rule { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], steps: &[Isolate(LLAMA_3)], ..PLAIN },
    Rule { names: &["glm4", "glm5"], steps: &[Isolate(LLAMA_3)], ignores_merges: true, ..PLAIN },
    Rule { names: &["qwen2"], steps: &[Isolate(QWEN_2)], normalises: Nfc::Yes, ..PLAIN },
    Rule {
        names: &["deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"],
        steps: &[Isolate(QWEN_2)],
        ..PLAIN
    },
    Rule { names: &["qwen35"], steps: &[Isolate(QWEN_3_5)], normalises: Nfc::Yes, ..PLAIN },
    Rule {
        names: &["tekken"],
        steps: &[Isolate(TEKKEN)],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    Rule { names: &["gpt-4o", "llama4"], steps: &[Isolate(O200K)], ..PLAIN },
    Rule {
        names: &["deepseek-llm"],
        steps: &[
            Isolate(r"[\r\n]"),
            Isolate(DEEPSEEK_LLM_LETTERS),
            Isolate(DEEPSEEK_LLM_PUNCTUATION),
            Isolate(r"\s+$"),
            Isolate(CJK),
            EachDigit,
        ],
        ..PLAIN
    },
    Rule {
        names: &["deepseek-coder"],
        steps: &[
            Isolate(r"[\r\n]"),
            Isolate(r"\s?\p{L}+"),
            Isolate(r"\s?\p{P}+"),
            Isolate(CJK),
            EachDigit,
        ],
        ..PLAIN
    },
    Rule {
        names: &["deepseek-v3", "hunyuan-dense"],
        steps: &[Isolate(r"\p{N}{1,3}"), Isolate(CJK_AND_KANA), Isolate(DEEPSEEK_3)],
        ..PLAIN
    },
    Rule {
        names: &["falcon"],
        steps: &[PunctuationRuns, Gpt2, DigitRuns, Isolate("[0-9][0-9][0-9]")],
        ..PLAIN
    },
];

impl Rule {
    /// The rule that `tokenizer.ggml.pre` names; GPT-2's, with a warning, for a name not in the
    /// table: the ids may then differ a little from those the model was trained on.
    pub fn named(name: Option<&str>) -> &'static Rule {
        let known = RULES.iter().find(|rule| name.is_some_and(|name| rule.names.contains(&name)));
        known.unwrap_or_else(|| {
            tracing::warn!(
                pre = name.unwrap_or("(none)"),
                "unknown tokenizer.ggml.pre, splitting text as GPT-2 does"
            );
            &RULES[0]
        })
    }

    pub fn normalizer(&self) -> Option<NormalizerWrapper> {
        match self.normalises {
            Nfc::Yes => Some(NFC.into()),
            Nfc::No => None,
        }
    }

    pub fn pre_tokenizer(&self) -> Result<PreTokenizerWrapper, Error> {
        let mut steps = Vec::new();
        for step in self.steps {
            steps.push(step.build()?);
        }
        let is_byte_alphabet = self.steps.iter().any(|step| matches!(step, Gpt2));
        if !is_byte_alphabet {
            steps.push(ByteLevel::new(false, true, false).into());
        }
        Ok(Sequence::new(steps).into())
    }
}

impl Step {
    fn build(self) -> Result<PreTokenizerWrapper, Error> {
        Ok(match self {
            Isolate(regex) => Split::new(SplitPattern::Regex(regex.to_owned()), Isolated, false)
                .map_err(|error| Error::broken_vocabulary(error.to_string()))?
                .into(),
            EachDigit => Digits::new(true).into(),
            DigitRuns => Digits::new(false).into(),
            PunctuationRuns => Punctuation::new(Contiguous).into(),
            Gpt2 => ByteLevel::new(false, true, true).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_compiles_and_every_name_is_listed_once() {
        let mut names: Vec<&str> = Vec::new();
        for rule in RULES {
            rule.pre_tokenizer().expect("the table's own patterns compile");
            names.extend(rule.names);
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn an_unknown_name_falls_back_to_gpt_2() {
        assert!(Rule::named(Some("of-tomorrow")).names.contains(&"gpt-2"));
        assert!(Rule::named(None).names.contains(&"gpt-2"));
    }
}
