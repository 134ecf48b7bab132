//! Ids and text, both ways.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::*;
use super::{fixture, folder};
use crate::types::{GgufVocabulary, TextSource, TokenId};

const BYTE_LEVEL_JSON: &str = include_str!("../../../tests/data/text/byte_level.tokenizer.json");
const SENTENCE_PIECE_JSON: &str =
    include_str!("../../../tests/data/text/sentence_piece.tokenizer.json");

#[derive(Deserialize)]
struct Encoding {
    text: String,
    ids: Vec<u32>,
    #[serde(default)]
    decoded: String,
}

#[derive(Deserialize)]
struct Vocabulary {
    tokens: Vec<String>,
    #[serde(default)]
    scores: Vec<f32>,
    token_types: Vec<i32>,
    #[serde(default)]
    merges: Vec<String>,
}

#[derive(Deserialize)]
struct ByteLevel {
    gguf: Vocabulary,
    by_pre: Map<String, Value>,
}

#[derive(Deserialize)]
struct SentencePiece {
    gguf: Vocabulary,
    hugging_face: Vec<Encoding>,
    sentencepiece: Vec<Encoding>,
    gemma: Gemma,
}

#[derive(Deserialize)]
struct Gemma {
    /// What its `tokenizer.json` has instead.
    steps: Map<String, Value>,
    texts: Vec<Encoding>,
}

fn byte_level() -> ByteLevel {
    fixture(include_str!("../../../tests/data/text/byte_level.json"))
}

fn sentence_piece() -> SentencePiece {
    fixture(include_str!("../../../tests/data/text/sentence_piece.json"))
}

fn gguf(model: &str, pre: Option<&str>, vocabulary: Vocabulary) -> GgufVocabulary {
    GgufVocabulary {
        model: model.to_owned(),
        pre: pre.map(str::to_owned),
        tokens: vocabulary.tokens,
        scores: vocabulary.scores,
        token_types: vocabulary.token_types,
        merges: vocabulary.merges,
        ..GgufVocabulary::default()
    }
}

fn tokenizer(source: TextSource) -> Tokenizer {
    Tokenizer::new(&source).expect("the fixture is a whole tokenizer")
}

fn ids(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

fn check(tokenizer: &Tokenizer, expected: &[Encoding]) {
    assert!(!expected.is_empty());
    for case in expected {
        let found = tokenizer.encode(&case.text, Special::Parse).expect("encodes");
        assert_eq!(found, ids(&case.ids), "ids of {:?}", case.text);
        assert_eq!(tokenizer.decode(&found), case.decoded, "text of {:?}", case.text);
    }
}

#[test]
fn a_byte_level_gguf_vocabulary_gives_the_ids_of_hugging_face_for_every_family() {
    let by_pre = byte_level().by_pre;
    assert!(by_pre.len() >= 10);
    for (pre, expected) in by_pre {
        let expected: Vec<Encoding> = serde_json::from_value(expected).expect("a list");
        let source = gguf("gpt2", Some(&pre), byte_level().gguf);
        check(&tokenizer(TextSource::Gguf(source)), &expected);
    }
}

#[test]
fn a_tokenizer_json_gives_the_ids_of_hugging_face() {
    let expected = byte_level().by_pre["llama-bpe"].clone();
    let expected: Vec<Encoding> = serde_json::from_value(expected).expect("a list");
    check(&tokenizer(folder(BYTE_LEVEL_JSON, None)), &expected);
    let expected = sentence_piece().hugging_face;
    check(&tokenizer(folder(SENTENCE_PIECE_JSON, None)), &expected);
}

#[test]
fn a_tokenizer_json_in_the_form_of_gemma_gives_the_ids_of_hugging_face() {
    let mut json: Value = fixture(SENTENCE_PIECE_JSON);
    let Gemma { steps, texts } = sentence_piece().gemma;
    assert_eq!(steps.len(), 3);
    for (name, step) in steps {
        json[name] = step;
    }
    let end = "<end_of_turn>";
    let json = json.to_string().replace("<|im_end|>", end);
    let tokenizer = tokenizer(folder(&json, None));
    let plain: Vec<Encoding> =
        texts.into_iter().filter(|case| !case.text.contains("<|im_end|>")).collect();
    check(&tokenizer, &plain);
    let found = tokenizer.encode(end, Special::Parse).expect("encodes");
    assert!(found.len() == 1 && tokenizer.end_tokens().contains(&found[0]));
}

#[test]
fn a_sentence_piece_gguf_vocabulary_gives_the_ids_of_hugging_face_and_of_sentencepiece() {
    let source = gguf("llama", None, sentence_piece().gguf);
    let tokenizer = tokenizer(TextSource::Gguf(source));
    check(&tokenizer, &sentence_piece().hugging_face);
    for case in sentence_piece().sentencepiece {
        let found = tokenizer.encode(&case.text, Special::Parse).expect("encodes");
        assert_eq!(found, ids(&case.ids), "ids of {:?}", case.text);
    }
}

#[test]
fn special_tokens_in_a_text_are_text_when_ignored() {
    let tokenizer = tokenizer(folder(BYTE_LEVEL_JSON, None));
    let end = tokenizer.added_token("<|im_end|>").expect("it is special");
    let think = tokenizer.added_token("<think>").expect("it is added");
    let text = "<think>stop<|im_end|>";

    let parsed = tokenizer.encode(text, Special::Parse).expect("encodes");
    assert_eq!(parsed.last(), Some(&end));
    assert_eq!(tokenizer.decode(&parsed), "<think>stop");

    let ignored = tokenizer.encode(text, Special::Ignore).expect("encodes");
    assert!(!ignored.contains(&end));
    assert_eq!(ignored.first(), Some(&think));
    assert_eq!(tokenizer.decode(&ignored), text);
}

#[test]
fn raw_text_gets_one_bos_where_the_model_wants_it() {
    let config = |adds_bos| json!({"add_bos_token": adds_bos, "bos_token": {"content": "<s>"}});
    let with = tokenizer(folder(SENTENCE_PIECE_JSON, None));
    let without = tokenizer(folder(SENTENCE_PIECE_JSON, Some(config(false))));
    let bos = with.added_token("<s>").expect("it is special");

    let plain = with.encode("Hello", Special::Parse).expect("encodes");
    let raw = with.encode_raw("Hello").expect("encodes");
    assert_eq!(raw, [vec![bos], plain.clone()].concat());
    assert_eq!(with.encode_raw("<s>Hello").expect("encodes"), raw);
    assert_eq!(without.encode_raw("Hello").expect("encodes"), plain);

    let mut source = gguf("llama", None, sentence_piece().gguf);
    source.bos = Some(bos);
    assert_eq!(
        tokenizer(TextSource::Gguf(source.clone())).encode_raw("Hello").expect("encodes"),
        raw
    );
    source.add_bos = Some(false);
    assert_eq!(tokenizer(TextSource::Gguf(source)).encode_raw("Hello").expect("encodes"), plain);
}

#[test]
fn every_token_that_ends_a_turn_is_known() {
    let named = tokenizer(folder(BYTE_LEVEL_JSON, Some(json!({"eos_token": "<think>"}))));
    let names = |names: &[&str]| {
        let mut ids: Vec<_> = names.iter().filter_map(|name| named.added_token(name)).collect();
        ids.sort_unstable();
        assert_eq!(ids.len(), names.len());
        ids
    };
    let expected = names(&["<|endoftext|>", "<|im_end|>", "<think>"]);
    assert_eq!(named.end_tokens(), expected);
    assert!(named.is_special(expected[0]));

    let mut source = gguf("gpt2", Some("llama-bpe"), byte_level().gguf);
    source.other_ends = vec![TokenId(300)];
    let ends = tokenizer(TextSource::Gguf(source));
    assert!(ends.end_tokens().contains(&TokenId(300)));
    assert!(ends.is_special(TokenId(300)));
}

#[test]
fn a_plain_piece_that_reads_like_an_end_token_ends_nothing() {
    let vocabulary = GgufVocabulary {
        model: "llama".to_owned(),
        tokens: ["<unk>", "<s>", "</s>", "<|return|>", "<|end|>"].map(str::to_owned).to_vec(),
        token_types: vec![2, 3, 1, 3, 3],
        scores: vec![0.0; 5],
        ..GgufVocabulary::default()
    };
    // `<|end|>` ends a message within a reply of gpt-oss, which has `<|return|>`.
    assert_eq!(tokenizer(TextSource::Gguf(vocabulary)).end_tokens(), [TokenId(3)]);
}

#[test]
fn a_reply_loses_the_space_that_sentence_piece_puts_first_and_a_continuation_keeps_it() {
    let tokenizer = tokenizer(folder(SENTENCE_PIECE_JSON, None));
    let reply = tokenizer.encode("Hello", Special::Parse).expect("encodes");
    assert_eq!(tokenizer.decode(&reply), "Hello");
    let mut continuing = tokenizer.continuing_detokenizer();
    let text: String =
        reply.iter().filter_map(|id| continuing.push(*id).map(str::to_owned)).collect();
    assert_eq!(text, " Hello");
}

#[test]
fn ids_beyond_the_vocabulary_are_silent() {
    let tokenizer = tokenizer(folder(BYTE_LEVEL_JSON, None));
    let beyond = TokenId(tokenizer.vocabulary_size() as u32);
    assert_eq!(tokenizer.decode(&[beyond, TokenId(u32::MAX)]), "");
    assert_eq!(tokenizer.token_bytes(beyond), None);
}

/// What a stream of ids must come to: the bytes of the visible tokens, read as UTF-8 at once.
fn decoded_at_once(tokenizer: &Tokenizer, ids: &[TokenId], is_space_dropped: bool) -> String {
    let bytes: Vec<u8> = ids
        .iter()
        .filter(|id| !tokenizer.is_special(**id))
        .flat_map(|id| tokenizer.token_bytes(*id).unwrap_or_default().to_vec())
        .collect();
    let bytes = match bytes.strip_prefix(b" ") {
        Some(rest) if is_space_dropped => rest,
        _ => bytes.as_slice(),
    };
    String::from_utf8_lossy(bytes).into_owned()
}

proptest! {
    #[test]
    fn streamed_text_is_the_text_decoded_at_once(
        choices in prop::collection::vec(0u32..1000, 0..200),
        is_byte_level in any::<bool>(),
    ) {
        static BYTE_LEVEL: LazyLock<Tokenizer> =
            LazyLock::new(|| tokenizer(folder(BYTE_LEVEL_JSON, None)));
        static SENTENCE_PIECE: LazyLock<Tokenizer> =
            LazyLock::new(|| tokenizer(folder(SENTENCE_PIECE_JSON, None)));
        let tokenizer = if is_byte_level { &*BYTE_LEVEL } else { &*SENTENCE_PIECE };
        // Half of the ids are single bytes, so that many characters come in parts.
        let ids: Vec<TokenId> = choices
            .iter()
            .map(|id| TokenId(if id % 2 == 0 { id % 270 } else { *id }))
            .collect();

        let mut detokenizer = tokenizer.detokenizer();
        let mut streamed = String::new();
        for id in &ids {
            streamed.extend(detokenizer.push(*id));
        }
        streamed.extend(detokenizer.finish());
        prop_assert_eq!(&streamed, &decoded_at_once(tokenizer, &ids, !is_byte_level));
        prop_assert_eq!(streamed, tokenizer.decode(&ids));
    }

    #[test]
    fn any_text_survives_encoding_and_decoding(text in any::<String>()) {
        static BYTE_LEVEL: LazyLock<Tokenizer> =
            LazyLock::new(|| tokenizer(folder(BYTE_LEVEL_JSON, None)));
        let ids = BYTE_LEVEL.encode(&text, Special::Ignore).expect("encodes");
        prop_assert_eq!(BYTE_LEVEL.decode(&ids), text);
    }
}

fn error(source: TextSource) -> String {
    Tokenizer::new(&source).expect_err("it is broken").to_string()
}

#[test]
fn a_broken_tokenizer_json_is_refused_with_its_reason() {
    let changed = |pointer: &str, value: Value| {
        let mut json: Value = serde_json::from_str(BYTE_LEVEL_JSON).expect("it is JSON");
        *json.pointer_mut(pointer).expect("the file has it") = value;
        error(folder(&json.to_string(), None))
    };
    let found = [
        error(folder("\u{0}\u{1}garbage", None)),
        error(folder("{}", None)),
        error(folder(&BYTE_LEVEL_JSON[..4999], None)),
        changed("/model/type", json!("WordPiece")),
        changed("/model/vocab", json!({"a": -1})),
        changed("/model/vocab/a", json!(4_000_000_000_u32)),
        changed("/model/merges/0", json!(["nowhere", "else"])),
        changed("/model/merges/0", json!("alone")),
        changed("/added_tokens/0/id", json!(77)),
        changed("/decoder", Value::Null),
        changed("/decoder", json!({"type": "CTC"})),
        changed("/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("(unclosed")),
    ];
    expect_test::expect![[r#"
        tokenizer.json is not valid: expected value at line 1 column 1
        tokenizer.json is not valid: missing field `model` at line 1 column 2
        tokenizer.json is not valid: EOF while parsing a string at line 1 column 4999
        the tokenizer model "WordPiece" is not supported
        tokenizer.json is not valid: invalid value: integer `-1`, expected u32 at line 1 column 1620
        tokenizer.json is not valid: the token "a" has id 4000000000, not below 1048576
        tokenizer.json is not valid: the merge "nowhere" "else" names "nowhere", which is not a token
        tokenizer.json is not valid: the merge "alone" is not a pair
        tokenizer.json is not valid: the added token "<|endoftext|>" has id 77, but the vocabulary gives it 0
        the decoder "null" is not supported
        tokenizer.json is not valid: missing field `pad_token` at line 1 column 1364
        tokenizer.json is not valid: Parsing error at position 9: Opening parenthesis without closing parenthesis at line 1 column 894"#]].assert_eq(&found.join("\n"));
}

#[test]
fn a_merge_whose_whole_is_no_token_is_refused_and_not_a_panic() {
    let json = json!({
        "added_tokens": [], "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"ab": 0, "cd": 1}, "merges": [["ab", "cd"]]},
    });
    expect_test::expect![[
        r#"tokenizer.json is not valid: the merge "ab" "cd" names "abcd", which is not a token"#
    ]]
    .assert_eq(&error(folder(&json.to_string(), None)));
}

#[test]
fn a_broken_gguf_vocabulary_is_refused_with_its_reason() {
    let changed = |change: fn(&mut GgufVocabulary)| {
        let mut source = gguf("gpt2", Some("smollm"), byte_level().gguf);
        change(&mut source);
        error(TextSource::Gguf(source))
    };
    let found = [
        changed(|v| v.model = "rwkv".to_owned()),
        changed(|v| v.tokens.clear()),
        changed(|v| v.token_types.truncate(3)),
        changed(|v| v.scores = vec![1.0]),
        changed(|v| v.merges.clear()),
        changed(|v| v.merges[0] = "alone".to_owned()),
        changed(|v| v.merges[0] = "no where".to_owned()),
        changed(|v| v.eos = Some(TokenId(u32::MAX))),
        changed(|v| {
            v.model = "llama".to_owned();
            v.merges.clear();
        }),
    ];
    expect_test::expect![[r#"
        tokenizer.ggml.model "rwkv" is not supported
        the vocabulary in the GGUF file is not valid: it has no tokens
        the vocabulary in the GGUF file is not valid: 902 tokens, but 3 entries in token_type
        the vocabulary in the GGUF file is not valid: 902 tokens, but 1 entries in scores
        the vocabulary in the GGUF file is not valid: it has no merges
        the vocabulary in the GGUF file is not valid: the merge "alone" is not a pair
        the vocabulary in the GGUF file is not valid: the merge "no" "where" names "no", which is not a token
        the vocabulary in the GGUF file is not valid: the eos token is 4294967295, but there are 902 tokens
        the vocabulary in the GGUF file is not valid: it has neither scores nor merges"#]].assert_eq(&found.join("\n"));
}

/// A special token that the template names and its list does not, by one space.
#[test]
fn a_file_whose_parts_do_not_fit_is_broken() {
    let mut json = BYTE_LEVEL_JSON.as_bytes().to_vec();
    json[1263] = b' ';
    let broken = Tokenizer::new(&TextSource::Folder {
        tokenizer_json: json,
        tokenizer_config_json: None,
        chat_template_jinja: None,
        end_tokens: Vec::new(),
    });
    let message = broken.err().map(|error| error.to_string());
    let expected = "tokenizer.json is not valid: the tokenizers library panicked on it";
    assert_eq!(message.as_deref(), Some(expected));
}

proptest! {
    #[test]
    fn no_bytes_make_the_tokenizer_panic(
        at in 0..BYTE_LEVEL_JSON.len(),
        bytes in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut json = BYTE_LEVEL_JSON.as_bytes().to_vec();
        let end = (at + bytes.len()).min(json.len());
        json.splice(at..end, bytes);
        let _ = Tokenizer::new(&TextSource::Folder {
            tokenizer_json: json,
            tokenizer_config_json: None,
            chat_template_jinja: None,
            end_tokens: Vec::new(),
        });
    }
}
