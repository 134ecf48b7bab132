//! Calls among text: what a reply may say whose calls are held to their functions.

use std::sync::Arc;

use serde_json::json;

use super::super::*;
use super::chat::BYTE_LEVEL;
use super::folder;
use crate::types::TokenId;

const TAGGED: [&str; 3] = ["<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>"];
const BARE: [&str; 3] = ["{\"name\": \"", "\", \"parameters\": ", "}"];

fn grammar([before, between, behind]: [&str; 3], count_max: usize) -> Arc<Grammar> {
    let function = |name: &str, value| {
        let parameters = Schema { field: "parameters".to_owned(), value };
        Function { name: name.to_owned(), parameters }
    };
    let schema = json!({
        "type": "object",
        "properties": { "town": { "enum": ["Graz", "Linz"] } },
        "required": ["town"],
        "additionalProperties": false,
    });
    let format = CallFormat {
        before: before.to_owned(),
        between: between.to_owned(),
        behind: behind.to_owned(),
    };
    let functions = vec![function("weather", schema), function("now", json!({}))];
    let json = include_str!("../../../tests/data/text/byte_level.tokenizer.json");
    let tokenizer = Tokenizer::new(&folder(json, None)).expect("the fixture is a tokenizer");
    let grammars = Grammars::new(Arc::new(tokenizer));
    let calls = CallsOf { format, functions, count_max };
    grammars.compile(&Format::TextOrCalls(calls)).expect("it is one")
}

/// How much of these tokens may be said, and whether the reply may end there.
fn said(grammar: &Grammar, tokens: &[TokenId]) -> (String, bool) {
    let mut matcher = grammar.matcher();
    let mut read: Vec<TokenId> = Vec::new();
    for token in tokens {
        if matcher.is_over() || !matcher.allowed().expect("no limit").has(*token) {
            break;
        }
        matcher.accept(*token).expect("it was allowed");
        read.push(*token);
    }
    if matcher.is_over() {
        return (BYTE_LEVEL.tokenizer.decode(&read), true);
    }
    let allowed = matcher.allowed().expect("no limit");
    let may_end = BYTE_LEVEL.tokenizer.end_tokens().iter().any(|end| allowed.has(*end));
    (BYTE_LEVEL.tokenizer.decode(&read), may_end)
}

#[track_caller]
fn check(grammar: &Grammar, text: &str, expected: &str, may_end: bool) {
    let expected = (expected.to_owned(), may_end);
    assert_eq!(said(grammar, &BYTE_LEVEL.spelled(text)), expected);
    // Whole words are as free, where nothing in them is wrong.
    if text == expected.0 {
        let encoded = BYTE_LEVEL.tokenizer.encode(text, Special::Parse).expect("it encodes");
        assert_eq!(said(grammar, &encoded), expected, "{encoded:?}");
    }
}

#[test]
fn text_is_free_and_a_call_keeps_to_its_function() {
    let grammar = grammar(TAGGED, 2);
    for text in
        ["", "Hello", "  \n", "{\"name\": \"weather\"}", "<tool>", "a < b <tool_cal", "é🇦🇹\u{0}"]
    {
        check(&grammar, text, text, true);
    }
    let call =
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Graz\"}}\n</tool_call>";
    for text in
        [call, &format!("I look.\n{call}"), &format!("{call}\n{call}"), &format!("a{call}b{call}c")]
    {
        check(&grammar, text, text, true);
    }
    let wrong = "I look.<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Paris\"}}";
    check(&grammar, wrong, &wrong[..wrong.find("Paris").expect("it is there")], false);
    check(&grammar, "<tool_call> {}", "<tool_call>", false);
    check(&grammar, "<tool_call>\n{\"name\": \"later\"", "<tool_call>\n{\"name\": \"", false);
    // As many as there may be, and no more.
    let three = format!("{call}{call} and {call}");
    check(&grammar, &three, &three[..2 * call.len() + " and <tool_call".len()], true);
}

#[test]
fn without_tags_a_reply_that_begins_as_a_call_is_one() {
    let grammar = grammar(BARE, 1);
    for text in ["", "Hello {\"name\": 1}", "{\"town\": 1}", " {", "[{\"name\": 1}]"] {
        check(&grammar, text, text, true);
    }
    let call = "{\"name\": \"weather\", \"parameters\": {\"town\": \"Graz\"}}";
    check(&grammar, call, call, true);
    check(&grammar, "{\"name\": \"Ada\"", "{\"name\": \"", false);
    check(&grammar, " {\"name\": \"weather\"", " {\"name", true);
    check(&grammar, "{\"arguments\": {}", "{\"arguments", true);
    check(&grammar, "<think>Hm.</think>\n{\"name\"", "<think>Hm.</think>\n{\"name", true);
    check(&grammar, "A <tool_call>", "A <tool_call", true);
}
