//! What a grammar allows, against what may be written: by brute force, and at random.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::*;
use super::folder;
use crate::types::TokenId;

const BYTE_LEVEL: &str = include_str!("../../../tests/data/text/byte_level.tokenizer.json");
const SENTENCE_PIECE: &str = include_str!("../../../tests/data/text/sentence_piece.tokenizer.json");
const TAGGED: &str = include_str!("../../../tests/data/text/templates/tagged_calls.jinja");
const BARE: &str = include_str!("../../../tests/data/text/templates/json_calls.jinja");
const CHATML: &str = include_str!("../../../tests/data/text/templates/chatml.jinja");

fn tokenizer(json: &str) -> Arc<Tokenizer> {
    Arc::new(Tokenizer::new(&folder(json, None)).expect("the fixture is a tokenizer"))
}

/// The same with the tags of calls as tokens of their own.
fn with_tags(is_special: bool) -> Arc<Tokenizer> {
    let mut json: Value = serde_json::from_str(BYTE_LEVEL).expect("JSON");
    for (tag, id) in [("<tool_call>", 902), ("</tool_call>", 903)] {
        let token = json!({
            "id": id, "content": tag, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": is_special,
        });
        json["added_tokens"].as_array_mut().expect("a list").push(token);
    }
    tokenizer(&json.to_string())
}

fn schema(value: Value) -> Schema {
    Schema { field: "schema".to_owned(), value }
}

fn grammar(tokenizer: &Arc<Tokenizer>, value: Value) -> Arc<Grammar> {
    let grammars = Grammars::new(Arc::clone(tokenizer));
    grammars.compile(&Format::Json(schema(value))).expect("a schema")
}

fn refusal(value: Value) -> String {
    let grammars = Grammars::new(tokenizer(BYTE_LEVEL));
    grammars.compile(&Format::Json(schema(value))).expect_err("it cannot be held to").to_string()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % most
    }
}

/// A reply of tokens that are allowed, drawn at random; an end is taken as soon as it may come.
fn walk(grammar: &Grammar, tokenizer: &Tokenizer, seed: u64) -> Vec<TokenId> {
    const TOKENS_MAX: usize = 2_000;
    let mut random = Random(seed);
    let mut matcher = grammar.matcher();
    let mut tokens = Vec::new();
    while !matcher.is_over() {
        assert!(tokens.len() < TOKENS_MAX, "{:?}", tokenizer.decode(&tokens));
        let allowed: Vec<TokenId> = matcher.allowed().expect("no limit").iter().collect();
        assert!(!allowed.is_empty());
        if allowed.iter().any(|token| tokenizer.end_tokens().contains(token)) {
            break;
        }
        let token = allowed[random.below(allowed.len())];
        matcher.accept(token).expect("it was allowed");
        tokens.push(token);
    }
    tokens
}

#[test]
fn what_is_allowed_is_what_brute_force_finds() {
    let texts = [r#""red""#, r#""reddish""#, r#""green é""#, "12", "1234", "true", "null"];
    let values: Vec<Value> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    for tokenizer in [tokenizer(BYTE_LEVEL), tokenizer(SENTENCE_PIECE), with_tags(true)] {
        let grammar = grammar(&tokenizer, json!({ "enum": values }));
        let is_beginning =
            |text: &[u8]| texts.iter().any(|whole| whole.as_bytes().starts_with(text));
        let mut pending = vec![(Vec::new(), grammar.matcher())];
        let mut seen = 0;
        while let Some((text, matcher)) = pending.pop() {
            let is_whole = texts.iter().any(|whole| whole.as_bytes() == text);
            seen += usize::from(is_whole);
            let is_final = is_whole && text != b"12";
            assert_eq!(matcher.is_over(), is_final, "{:?}", String::from_utf8_lossy(&text));
            if is_final {
                continue;
            }
            let allowed = matcher.clone().allowed().expect("no limit");
            for id in 0..tokenizer.vocabulary_size() as u32 + 64 {
                let token = TokenId(id);
                let is_end = tokenizer.end_tokens().contains(&token);
                let bytes = match tokenizer.is_special(token) {
                    true => &[],
                    false => tokenizer.token_bytes(token).unwrap_or_default(),
                };
                let longer = [&text, bytes].concat();
                let expected = match is_end {
                    true => is_whole,
                    false => !bytes.is_empty() && is_beginning(&longer),
                };
                assert_eq!(allowed.has(token), expected, "{token:?} {longer:?}");
                if expected && !is_end {
                    let mut next = matcher.clone();
                    next.accept(token).expect("it is allowed");
                    pending.push((longer, next));
                }
            }
        }
        assert!(seen >= texts.len());
    }
}

#[test]
fn whatever_is_drawn_is_valid() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "age": { "type": "integer", "minimum": 0, "maximum": 130 },
            "mood": { "enum": ["good", "bad", null] },
            "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" }, "maxItems": 3 },
        },
        "required": ["name", "age", "mood", "tags"],
        "additionalProperties": false,
        "$defs": { "tag": { "type": "string", "pattern": "^[a-z]{1,5}$" } },
    });
    for tokenizer in [tokenizer(BYTE_LEVEL), tokenizer(SENTENCE_PIECE)] {
        let grammar = grammar(&tokenizer, schema.clone());
        for seed in 0..100 {
            let text = tokenizer.decode(&walk(&grammar, &tokenizer, seed));
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert!(value["name"].as_str().expect("a text").chars().count() <= 12, "{text}");
            assert!((0..=130).contains(&value["age"].as_i64().expect("a number")), "{text}");
            assert!(["good", "bad"].contains(&value["mood"].as_str().unwrap_or("bad")), "{text}");
            assert!(value["tags"].as_array().expect("a list").len() <= 3, "{text}");
            assert_eq!(value.as_object().expect("an object").len(), 4, "{text}");
        }
    }
}

#[test]
fn a_clone_goes_on_as_the_first_does() {
    let tokenizer = tokenizer(BYTE_LEVEL);
    let schema = json!({ "type": "object", "maxProperties": 2, "additionalProperties": { "type": "integer" } });
    let grammar = grammar(&tokenizer, schema);
    let tokens = walk(&grammar, &tokenizer, 3);
    let mut matcher = grammar.matcher();
    for (index, token) in tokens.iter().enumerate() {
        let mut clone = matcher.clone();
        let mut replayed = grammar.matcher();
        tokens[..index].iter().for_each(|token| replayed.accept(*token).expect("it was allowed"));
        let allowed = matcher.allowed().expect("no limit");
        assert_eq!(clone.allowed().expect("no limit"), allowed);
        assert_eq!(replayed.allowed().expect("no limit"), allowed);
        matcher.accept(*token).expect("it was allowed");
    }
    assert!(matcher.is_over());
}

#[test]
fn what_cannot_be_held_to_is_refused_with_its_place() {
    let property = |schema: Value| json!({ "type": "object", "properties": { "a/b": schema } });
    for schema in [
        property(json!({ "type": "string", "format": "colour" })),
        property(json!({ "type": "array", "items": { "type": "strin" } })),
        property(json!({ "$ref": "https://example.com/schema" })),
        property(json!({ "$ref": "#/$defs/missing" })),
        property(json!({ "type": "string", "pattern": "(" })),
        property(json!({ "type": "string", "pattern": "(?=a)b" })),
        property(json!({ "not": { "type": "string" } })),
        property(json!({ "uniqueItems": true })),
        property(json!({ "type": "array", "contains": {} })),
        property(json!({ "anyOf": [] })),
        property(json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] })),
        property(json!({ "type": "integer", "minimum": 3, "maximum": 1 })),
        property(json!(7)),
        json!({ "properties": 7 }),
        json!({ "type": "object", "required": ["x"], "properties": { "x": false } }),
        json!({ "enum": [] }),
        json!(false),
        json!({ "$defs": { "a": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" }),
        json!({ "type": "string", "minLength": 5, "maxLength": 2 }),
        json!({ "type": "string", "maxLength": 100_000_000 }),
        json!({ "type": "array", "items": {}, "minItems": 100_000_000 }),
        json!({ "type": "string", "pattern": "(a{1,1000}){1,1000}" }),
    ] {
        let started = std::time::Instant::now();
        let grammars = Grammars::new(tokenizer(BYTE_LEVEL));
        let r = grammars.compile(&Format::Json(super::grammar::schema(schema.clone())));
        println!(
            "{:?} {schema}\n    {}",
            started.elapsed(),
            match r {
                Ok(_) => "OK".to_owned(),
                Err(e) => e.to_string(),
            }
        );
    }
    println!("{}", refusal(json!({ "type": 3 })));
}

#[test]
fn calls_are_in_the_models_own_format_and_read_back() {
    for (template, tokenizer) in [
        (TAGGED, tokenizer(BYTE_LEVEL)),
        (TAGGED, with_tags(false)),
        (TAGGED, with_tags(true)),
        (BARE, tokenizer(BYTE_LEVEL)),
        (BARE, tokenizer(SENTENCE_PIECE)),
    ] {
        let template = ChatTemplate::new(&crate::types::TextSource::Folder {
            tokenizer_json: Vec::new(),
            tokenizer_config_json: None,
            chat_template_jinja: Some(template.to_owned()),
            end_tokens: Vec::new(),
        })
        .expect("a template");
        let format = template.call_format().expect("calls are shown").clone();
        println!("{format:?}");
        let function = |name: &str, parameters| Function {
            name: name.to_owned(),
            parameters: schema(parameters),
        };
        let functions = vec![
            function(
                "look",
                json!({ "type": "object", "properties": { "at": { "$ref": "#/$defs/p" } }, "required": ["at"], "additionalProperties": false, "$defs": { "p": { "enum": ["<tool_call>", "b"] } } }),
            ),
            function(
                "wait",
                json!({ "properties": { "n": { "type": "integer", "minimum": 1, "maximum": 9 } }, "required": ["n"], "additionalProperties": false }),
            ),
        ];
        let calls = CallsOf { format, functions, count_max: 3 };
        let started = std::time::Instant::now();
        let grammar =
            Grammars::new(Arc::clone(&tokenizer)).compile(&Format::Calls(calls)).expect("calls");
        println!("{:?}", started.elapsed());
        for seed in 0..50 {
            let tokens = walk(&grammar, &tokenizer, seed);
            let text = tokenizer.decode(&tokens);
            let mut parser = ToolCallParser::new(["look".to_owned(), "wait".to_owned()]);
            let mut parts = parser.push(&text);
            parts.extend(parser.finish());
            assert!(!parts.is_empty(), "{text}");
            for part in parts {
                let ReplyPart::Call(call) = part else { panic!("{text}") };
                match call.name.as_str() {
                    "look" => assert!(
                        ["<tool_call>", "b"]
                            .contains(&call.arguments["at"].as_str().expect("a text"))
                    ),
                    _ => {
                        assert!((1..10).contains(&call.arguments["n"].as_i64().expect("a number")))
                    }
                }
            }
        }
    }
    let _ = CHATML;
}
