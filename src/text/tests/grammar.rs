//! What a grammar allows, against what may be written: by brute force, and at random.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::grammar::{REMEMBERED_MAX, SCHEMAS_BYTES_MAX};
use super::super::*;
use super::folder;
use crate::types::TokenId;

pub(super) const BYTE_LEVEL: &str =
    include_str!("../../../tests/data/text/byte_level.tokenizer.json");
pub(super) const SENTENCE_PIECE: &str =
    include_str!("../../../tests/data/text/sentence_piece.tokenizer.json");
const TAGGED: &str = include_str!("../../../tests/data/text/templates/tagged_calls.jinja");
const BARE: &str = include_str!("../../../tests/data/text/templates/json_calls.jinja");
const CHATML: &str = include_str!("../../../tests/data/text/templates/chatml.jinja");

pub(super) fn tokenizer(json: &str) -> Arc<Tokenizer> {
    Arc::new(Tokenizer::new(&folder(json, None)).expect("the fixture is a tokenizer"))
}

/// The same with the tags of calls as tokens of their own.
pub(super) fn with_tags(is_special: bool) -> Arc<Tokenizer> {
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
pub(super) fn walk(grammar: &Grammar, tokenizer: &Tokenizer, seed: u64) -> Vec<TokenId> {
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
    let grammars = Grammars::new(tokenizer(BYTE_LEVEL));
    let mut found = String::new();
    for value in [
        property(json!({ "type": "string", "format": "colour" })),
        property(json!({ "type": "array", "items": { "type": "strin" } })),
        property(json!({ "$ref": "https://example.com/schema" })),
        property(json!({ "$ref": "#/$defs/missing" })),
        property(json!({ "type": "string", "pattern": "(" })),
        property(json!({ "type": "string", "pattern": "(?=a)b" })),
        property(json!({ "not": { "type": "string" } })),
        property(json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] })),
        property(json!(7)),
        json!({ "properties": 7 }),
        json!({ "type": "object", "required": ["x"], "properties": { "x": false } }),
        json!({ "enum": [] }),
        json!(false),
        json!({ "$defs": { "a": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" }),
        json!({ "type": "string", "minLength": 5, "maxLength": 2 }),
        json!({ "enum": ["a".repeat(SCHEMAS_BYTES_MAX)] }),
    ] {
        let refused = grammars.compile(&Format::Json(schema(value.clone())));
        let error = refused.expect_err("it cannot be held to");
        assert_eq!(error.field(), Some("schema"));
        found += &format!("{error}\n");
    }
    expect_test::expect![[r#"
        schema/properties/a~1b cannot be held to: Unknown format: colour
        schema/properties/a~1b/items cannot be held to: Invalid type: strin
        schema/properties/a~1b cannot be held to: a $ref is supported that begins with #/
        schema/properties/a~1b cannot be held to: Reference segment '$defs' not found in '#/$defs/missing'.
        schema/properties/a~1b cannot be held to: regex parse error: unclosed group
        schema/properties/a~1b cannot be held to: regex parse error: look-around, including look-ahead and look-behind, is not supported
        schema/properties/a~1b cannot be held to: not supported: ["not"]
        schema/properties/a~1b cannot be held to: oneOf is supported where no value fits two of its schemas; else anyOf
        schema/properties/a~1b cannot be held to: schema must be an object or boolean
        schema cannot be held to: properties must be an object
        schema cannot be held to: Unsatisfiable schema: required property 'x' is unsatisfiable: Unsatisfiable schema: schema is false
        schema cannot be held to: Unsatisfiable schema: anyOf is empty
        schema cannot be held to: Unsatisfiable schema: anyOf is empty
        schema/$defs/a cannot be held to: nothing fits it
        schema cannot be held to: Unsatisfiable schema: minLength (5) is greater than maxLength (2)
        schema has 262162 bytes of schemas; at most 262144
    "#]].assert_eq(&found);
}

#[test]
fn a_grammar_that_was_asked_for_is_remembered_until_many_others_were() {
    let grammars = Grammars::new(tokenizer(BYTE_LEVEL));
    let compile = |number: usize| {
        grammars.compile(&Format::Json(schema(json!({ "enum": [number] })))).expect("a schema")
    };
    let first = compile(0);
    for number in 1..REMEMBERED_MAX {
        compile(number);
    }
    assert!(Arc::ptr_eq(&first, &compile(0)));
    for number in 1..=REMEMBERED_MAX {
        compile(number);
    }
    assert!(!Arc::ptr_eq(&first, &compile(0)));
    // The order of properties is the order in which they come.
    let order = |names: [&str; 2]| {
        let fields = names.map(|name| (name.to_owned(), json!({ "type": "null" })));
        let value = json!({ "properties": serde_json::Map::from_iter(fields) });
        grammars.compile(&Format::Json(schema(value))).expect("a schema")
    };
    assert!(!Arc::ptr_eq(&order(["a", "b"]), &order(["b", "a"])));
}

#[test]
fn a_template_shows_how_its_model_calls_or_that_it_does_not() {
    let format = |text: &str| template(text).call_format().cloned();
    let tagged = format(TAGGED).expect("calls are shown");
    assert_eq!(tagged.before, "<tool_call>\n{\"name\": \"");
    assert_eq!(tagged.between, "\", \"arguments\": ");
    assert_eq!(tagged.behind, "}\n</tool_call>");
    let bare = format(BARE).expect("calls are shown");
    assert_eq!(bare.before, "{\"name\": \"");
    assert_eq!(bare.between, "\", \"parameters\": ");
    assert_eq!(bare.behind, "}");
    assert_eq!(format(CHATML), None);
    // Shown, and not as any reply is read.
    assert_eq!(format("{% for m in messages %}{{ m.tool_calls }}{% endfor %}"), None);
}

fn template(text: &str) -> ChatTemplate {
    let source = crate::types::TextSource::Folder {
        tokenizer_json: Vec::new(),
        tokenizer_config_json: None,
        chat_template_jinja: Some(text.to_owned()),
        end_tokens: Vec::new(),
    };
    ChatTemplate::new(&source).expect("a template")
}

#[test]
fn calls_are_in_the_models_own_format_and_read_back() {
    for (text, tokenizer) in [
        (TAGGED, tokenizer(BYTE_LEVEL)),
        (TAGGED, with_tags(false)),
        (TAGGED, with_tags(true)),
        (BARE, tokenizer(BYTE_LEVEL)),
        (BARE, tokenizer(SENTENCE_PIECE)),
    ] {
        let format = template(text).call_format().expect("calls are shown").clone();
        let function = |name: &str, parameters| Function {
            name: name.to_owned(),
            parameters: schema(parameters),
        };
        let look = json!({
            "type": "object",
            "properties": { "at": { "$ref": "#/$defs/place" } },
            "required": ["at"],
            "additionalProperties": false,
            "$defs": { "place": { "enum": ["<tool_call>", "b"] } },
        });
        let wait = json!({
            "properties": { "n": { "type": "integer", "minimum": 1, "maximum": 9 } },
            "required": ["n"],
            "additionalProperties": false,
        });
        let functions = vec![function("look", look), function("wait", wait)];
        let calls = CallsOf { format, functions, count_max: 3 };
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        let grammar = grammars.compile(&Format::Calls(calls)).expect("calls");
        for seed in 0..50 {
            let tokens = walk(&grammar, &tokenizer, seed);
            if let Some(tag) = tokenizer.added_token("<tool_call>").filter(|_| text == TAGGED) {
                assert_eq!(tokens[0], tag, "a tag that is a token is written as it");
            }
            let text = tokenizer.decode(&tokens);
            let mut parser = ToolCallParser::new(["look".to_owned(), "wait".to_owned()]);
            let mut parts = parser.push(&text);
            parts.extend(parser.finish());
            assert!((1..=3).contains(&parts.len()), "{text}");
            for part in parts {
                let ReplyPart::Call(call) = part else { panic!("{text}") };
                let at = call.arguments.get("at").and_then(Value::as_str);
                let n = call.arguments.get("n").and_then(Value::as_i64);
                let is_valid = match call.name.as_str() {
                    "look" => matches!(at, Some("<tool_call>" | "b")) && n.is_none(),
                    _ => matches!(n, Some(1..=9)) && at.is_none(),
                };
                assert!(is_valid, "{text}");
            }
        }
    }
}
