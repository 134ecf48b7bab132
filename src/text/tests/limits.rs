//! Schemas that would cost the grammar library gigabytes or hours, or that it gets wrong. Each is
//! refused before it is asked: the tests would not end otherwise.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::grammar::{SCHEMA_VALUES_MAX, SCHEMAS_BYTES_MAX};
use super::super::*;
use super::folder;

const BYTE_LEVEL: &str = include_str!("../../../tests/data/text/byte_level.tokenizer.json");

fn grammars() -> Grammars {
    let tokenizer = Tokenizer::new(&folder(BYTE_LEVEL, None)).expect("the fixture is a tokenizer");
    Grammars::new(Arc::new(tokenizer))
}

fn format(value: Value) -> Format {
    Format::Json(Schema { field: "schema".to_owned(), value })
}

fn object(count: usize, member: impl Fn(usize) -> (String, Value)) -> Value {
    Value::Object((0..count).map(member).collect::<Map<_, _>>())
}

fn list(count: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..count).map(item).collect()
}

/// Properties that may have any value.
fn properties(count: usize) -> Value {
    object(count, |index| (format!("p{index:05}"), json!(true)))
}

fn patterns(count: usize) -> Value {
    object(count, |index| (format!("^p{index:05}$"), json!(true)))
}

/// The errors for these schemas, one a line.
fn refused(schemas: impl IntoIterator<Item = Value>) -> String {
    let grammars = grammars();
    let errors = schemas.into_iter().map(|value| {
        assert!(value.to_string().len() < SCHEMAS_BYTES_MAX);
        let error = grammars.compile(&format(value)).expect_err("it is too much");
        assert_eq!(error.field(), Some("schema"));
        format!("{error}\n")
    });
    errors.collect()
}

#[test]
fn what_would_take_gigabytes_is_refused() {
    let long = || "x".repeat(110_000);
    let tree = |name: &str, leaf: Value| {
        let child = json!({ "$ref": format!("#/$defs/{name}") });
        json!({ "properties": { "l": child, "r": child, "x": leaf } })
    };
    expect_test::expect![[r#"
        schema cannot be held to: 9999 properties that are not required; at most 500
        schema/properties/a cannot be held to: 50 properties that are not required; at most 40 beside minProperties
        schema cannot be held to: 400 properties that are not required; at most 200 beside maxProperties
        schema cannot be held to: 60 properties that are not required; at most 40 beside minProperties
        schema cannot be held to: too much is combined with each other
        schema cannot be held to: too much is combined with each other
        schema cannot be held to: too many schemas are combined with each other
        schema cannot be held to: too many schemas are combined with each other
        schema cannot be held to: too much is combined with each other
        schema/type cannot be held to: each type may be named once
        schema has 10001 names and values in lists of schemas; at most 10000
        schema has 10001 names and values in lists of schemas; at most 10000
    "#]].assert_eq(&refused([
        json!({ "type": "object", "properties": properties(9_999), "minProperties": 1, "additionalProperties": false }),
        json!({ "properties": { "a": { "type": "object", "properties": properties(50), "minProperties": 1 } } }),
        json!({ "type": "object", "properties": properties(400), "maxProperties": 1, "additionalProperties": false }),
        // Each of the two alone would do.
        json!({ "allOf": [
            { "properties": properties(30), "minProperties": 1 },
            { "properties": object(30, |index| (format!("q{index}"), json!(true))) },
        ] }),
        json!({
            "$defs": { "long": { "const": long() } }, "type": "string",
            "anyOf": list(5_900, |_| json!({ "$ref": "#/$defs/long" })),
        }),
        json!({ "const": long(), "anyOf": list(5_900, |_| json!({ "type": "string" })) }),
        json!({ "allOf": list(9, |_| json!({ "enum": list(9, |index| json!(index)) })) }),
        json!({
            "$defs": { "a": tree("a", json!({ "const": long() })), "b": tree("b", json!(true)) },
            "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/b" }],
        }),
        json!({ "type": "object", "required": list(5_000, |index| json!(format!("r{index}"))), "additionalProperties": { "const": long() } }),
        json!({ "type": list(9_000, |_| json!("object")), "required": list(900, |index| json!(index.to_string())) }),
        json!({ "enum": list(SCHEMA_VALUES_MAX + 1, |index| json!(index)) }),
        json!({ "properties": properties(SCHEMA_VALUES_MAX + 1) }),
    ]));
}

#[test]
fn what_would_take_hours_is_refused() {
    let pattern = |index: usize| json!({ "pattern": format!("a{index}") });
    expect_test::expect![[r#"
        schema/properties/a~1b/patternProperties cannot be held to: at most 32 patterns of properties in an object, and 64 in a request
        schema/properties/a2/patternProperties cannot be held to: at most 32 patterns of properties in an object, and 64 in a request
        schema/anyOf/7 cannot be held to: too much is combined with each other
        schema cannot be held to: at most 6 patterns, formats and lengths for the same text
        schema cannot be held to: too much is combined with each other
        schema cannot be held to: too much is combined with each other
        schema cannot be held to: 501 properties that are not required; at most 500
    "#]].assert_eq(&refused([
        json!({ "properties": { "a/b": { "patternProperties": patterns(33) } } }),
        json!({ "properties": object(3, |index| (format!("a{index}"), json!({ "patternProperties": patterns(30) }))) }),
        json!({
            "$defs": { "p": { "type": "object", "patternProperties": patterns(32) } },
            "anyOf": list(1_000, |_| json!({ "type": "object", "$ref": "#/$defs/p" })),
        }),
        json!({ "type": "string", "allOf": list(30, pattern) }),
        json!({ "allOf": list(4, |_| json!({ "anyOf": list(14, pattern) })) }),
        json!({ "anyOf": [{ "oneOf": list(200, |index| json!({ "const": index.to_string() })) }], "allOf": [{ "oneOf": list(200, |_| json!({ "type": "string" })) }] }),
        json!({ "type": "object", "properties": properties(501) }),
    ]));
}

#[test]
fn numbers_that_would_not_be_kept_to_exactly_are_refused() {
    expect_test::expect![[r#"
        schema/enum/1 cannot be held to: a number beyond 2^53 would not be kept to exactly
        schema/properties/a/const/b/0 cannot be held to: a number beyond 2^53 would not be kept to exactly
        schema/items/minimum cannot be held to: a number beyond 2^53 would not be kept to exactly
        schema/$defs/a/exclusiveMaximum cannot be held to: a number beyond 2^53 would not be kept to exactly
        schema/allOf/0/multipleOf cannot be held to: a multiple is supported of at most 10000, without its point, or a power of ten
        schema cannot be held to: a multiple is supported of at most 10000, without its point, or a power of ten
        schema cannot be held to: a multiple is supported of at most 10000, without its point, or a power of ten
        schema/multipleOf cannot be held to: a multiple is supported of at most 10000, without its point, or a power of ten
    "#]].assert_eq(&refused([
        json!({ "enum": [1, 1_234_567_890_123_456_789_u64] }),
        json!({ "properties": { "a": { "const": { "b": [-9_007_199_254_740_993_i64] } } } }),
        json!({ "items": { "type": "integer", "minimum": 9_007_199_254_740_993_u64 } }),
        json!({ "$defs": { "a": { "exclusiveMaximum": 1e20 } }, "$ref": "#/$defs/a" }),
        json!({ "allOf": [{ "multipleOf": 65_537 }, { "multipleOf": 65_539 }] }),
        json!({ "allOf": [{ "multipleOf": 9_973 }, { "multipleOf": 9_967 }] }),
        json!({ "allOf": [{ "multipleOf": 10_000_000 }, { "multipleOf": 1_000_000 }] }),
        json!({ "multipleOf": 1e-12 }),
    ]));
}

#[test]
fn what_programs_ask_for_is_not_refused() {
    let grammars = grammars();
    let names = |count| list(count, |index| json!(format!("p{index:05}")));
    let node = json!({ "type": "object", "properties": {
        "value": { "type": "integer", "minimum": -9_007_199_254_740_991_i64 },
        "children": { "type": "array", "items": { "$ref": "#/$defs/a node" } },
    } });
    for schema in [
        // As OpenAI's strict schemas are.
        json!({ "type": "object", "properties": object(2_900, |index| (format!("p{index:05}"), json!({ "type": "string" }))), "required": names(2_900), "additionalProperties": false }),
        json!({ "enum": list(1_000, |index| json!(format!("value {index}"))), "type": "string", "minLength": 1 }),
        json!({ "oneOf": list(300, |index| json!({ "type": "object", "properties": { "kind": { "const": index.to_string() } }, "required": ["kind"] })) }),
        json!({ "allOf": list(10, |index| json!({ "type": "object", "properties": { (format!("p{index}")): { "enum": list(20, |value| json!(value)) } } })) }),
        json!({ "$defs": { "a node": node }, "allOf": [{ "$ref": "#/$defs/a node" }], "type": "object" }),
        json!({ "$id": "https://example.com/tree", "properties": { "more": { "$ref": "#" } } }),
        json!({ "type": "object", "properties": properties(40), "minProperties": 1, "additionalProperties": false }),
        json!({ "type": "object", "properties": properties(200), "maxProperties": 1, "additionalProperties": false }),
        json!({ "type": "object", "patternProperties": patterns(32) }),
        json!({ "type": "string", "pattern": "^[a-z]+$", "minLength": 2, "allOf": [{ "pattern": "e" }] }),
        json!({ "type": "array", "items": { "multipleOf": 0.01 }, "minItems": 1_000_000_000 }),
        json!({ "allOf": [{ "type": "integer", "multipleOf": 1_000_000 }, { "multipleOf": 25 }] }),
        json!({ "type": "integer", "maximum": 9_007_199_254_740_991_u64, "default": u64::MAX }),
    ] {
        let compiled = grammars.compile(&format(schema.clone()));
        assert!(compiled.is_ok(), "{:?}: {:.200}", compiled.err(), schema.to_string());
    }
}
