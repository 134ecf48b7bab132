//! Text among which calls keep to their functions.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::*;
use super::grammar::{BYTE_LEVEL, SENTENCE_PIECE, tokenizer, with_tags};
use crate::types::TokenId;

const TAGGED: &str = "<tool_call>\n{\"name\": \"";
const END: &str = "</tool_call>";
const CALLS_MAX: usize = 2;

fn calls(before: &str, behind: &str, between: &str) -> Format {
    let function = |name: &str, value: Value| Function {
        name: name.to_owned(),
        parameters: Schema { field: "tools".to_owned(), value },
    };
    let wait = json!({
        "properties": { "n": { "type": "integer", "minimum": 1, "maximum": 9 } },
        "required": ["n"],
        "additionalProperties": false,
    });
    Format::TextOrCalls(CallsOf {
        format: CallFormat {
            before: before.to_owned(),
            between: between.to_owned(),
            behind: behind.to_owned(),
        },
        functions: vec![function("wait", wait), function("look", json!({ "type": "object" }))],
        count_max: CALLS_MAX,
    })
}

fn tagged() -> Format {
    calls(TAGGED, "}\n</tool_call>", "\", \"arguments\": ")
}

fn bare() -> Format {
    calls("{\"name\": \"", "}", "\", \"parameters\": ")
}

fn compiled(tokenizer: &Arc<Tokenizer>, format: &Format) -> Arc<Grammar> {
    Grammars::new(Arc::clone(tokenizer)).compile(format).expect("a grammar")
}

/// How far tokens are allowed, and whether the reply may end behind the last.
fn follow(grammar: &Grammar, tokenizer: &Tokenizer, tokens: &[TokenId]) -> (usize, bool) {
    let mut matcher = grammar.matcher();
    for (index, token) in tokens.iter().enumerate() {
        if matcher.is_over() || !matcher.allowed().expect("no limit").has(*token) {
            return (index, false);
        }
        matcher.accept(*token).expect("it was allowed");
    }
    let may_end = matcher.is_over() || {
        let allowed = matcher.allowed().expect("no limit");
        tokenizer.end_tokens().iter().all(|token| allowed.has(*token))
    };
    (tokens.len(), may_end)
}

/// A text as tokens: cut in the tokenizer's way, if it writes no space before it, and byte by byte,
/// which cuts tags anywhere. The end of a call is one token where there is one.
fn cuts(tokenizer: &Tokenizer, text: &str) -> Vec<Vec<TokenId>> {
    let token_of = |byte: u8| {
        let all = (0..tokenizer.vocabulary_size() as u32).map(TokenId);
        let plain = all.filter(|token| !tokenizer.is_special(*token));
        let mut plain = plain.filter(|token| !tokenizer.end_tokens().contains(token));
        plain.find(|token| tokenizer.token_bytes(*token) == Some(&[byte])).expect("all bytes")
    };
    let end = tokenizer.added_token(END);
    let mut bytes = Vec::new();
    for (index, part) in text.split(END).enumerate() {
        if index > 0 {
            bytes.extend(end.map_or_else(|| END.bytes().map(token_of).collect(), |end| vec![end]));
        }
        bytes.extend(part.bytes().map(token_of));
    }
    let whole = tokenizer.encode(text, Special::Parse).expect("it encodes");
    let written = whole.iter().filter_map(|token| tokenizer.token_bytes(*token));
    match written.flatten().eq(text.as_bytes()) {
        true => vec![whole, bytes],
        false => vec![bytes],
    }
}

fn check(tokenizer: &Arc<Tokenizer>, grammar: &Grammar, text: &str, expected: (bool, bool)) {
    for tokens in cuts(tokenizer, text) {
        let (count, may_end) = follow(grammar, tokenizer, &tokens);
        let found = (count == tokens.len(), may_end);
        assert_eq!(found, expected, "{text:?} as {tokens:?}, as far as {count}");
    }
}

const MAY_END: (bool, bool) = (true, true);
const GOES_ON: (bool, bool) = (true, false);
const REFUSED: (bool, bool) = (false, false);

fn tokenizers() -> [Arc<Tokenizer>; 4] {
    [tokenizer(BYTE_LEVEL), tokenizer(SENTENCE_PIECE), with_tags(false), with_tags(true)]
}

#[test]
fn text_is_free_and_may_end_anywhere() {
    for tokenizer in tokenizers() {
        for format in [tagged(), bare()] {
            let grammar = compiled(&tokenizer, &format);
            for text in [
                "",
                "Hello, world",
                "{\"city\": \"Paris\"}",
                "a\n\n  b <tool> < tool_call> <tool_cal",
                "{\"x\": [1, 2",
                "naïve é \"quoted\\\"",
                "</tool_call",
            ] {
                check(&tokenizer, &grammar, text, MAY_END);
            }
        }
    }
}

#[test]
fn a_tag_in_a_text_is_followed_by_a_call_that_keeps_to_its_function() {
    for tokenizer in tokenizers() {
        let grammar = compiled(&tokenizer, &tagged());
        let call = |name: &str, arguments: &str| {
            format!("{TAGGED}{name}\", \"arguments\": {arguments}}}\n</tool_call>")
        };
        let check = |text: &str, expected| check(&tokenizer, &grammar, text, expected);
        let good = call("wait", "{\"n\": 3}");
        check(&good, MAY_END);
        check(&format!("I wait.\n{good}"), MAY_END);
        check(&format!("<tool_ca {good} and then\n"), MAY_END);
        check(&format!("<<tool_call <{good}"), MAY_END);
        check(&call("look", "{\"at\": \"</tool>\"}"), MAY_END);
        check("I wait. <tool_call>", GOES_ON);
        check("I wait. <tool_call>\n{\"name\": \"wa", GOES_ON);
        check("I wait. <tool_call> no", REFUSED);
        check(&call("walk", "{\"n\": 3}"), REFUSED);
        check(&call("wait", "{\"n\": 30}"), REFUSED);
        check(&format!("so: {}", call("wait", "{}")), REFUSED);
        // Two calls and no third, with text between and behind.
        check(&format!("{good}{good}"), MAY_END);
        check(&format!("{good}\nthen\n{good} done"), MAY_END);
        check(&format!("{good} {good} <tool_cal"), MAY_END);
        check(&format!("{good} {good} <tool_call>"), REFUSED);
        check(&format!("{good} <tool_call>x"), REFUSED);
    }
}

#[test]
fn a_bare_call_keeps_to_its_function_or_is_no_call() {
    for tokenizer in tokenizers() {
        let grammar = compiled(&tokenizer, &bare());
        let check = |text: &str, expected| check(&tokenizer, &grammar, text, expected);
        check("{\"name\": \"wait\", \"parameters\": {\"n\": 3}}", MAY_END);
        check("{\"name\": \"look\", \"parameters\": {\"at\": 1}}", MAY_END);
        check("{\"name\": \"wait\", \"par", GOES_ON);
        for text in [
            "{\"name\": \"wait\", \"parameters\": {\"n\": 30}}",
            "{\"name\": \"walk\", \"parameters\": {}}",
            " {\"name\": \"walk\"",
            "{ \"name\": \"wait\"",
            "{\"type\": \"function\"",
            "\n{\"arguments\": {}",
            "hm</think>{\"parameters\": 1}",
            "{\"name\": \"wait\", \"parameters\": {\"n\": 3}} and",
        ] {
            check(text, REFUSED);
        }
        check("{\"names\": 1}", MAY_END);
        check("so: {\"name\": \"walk\"}", MAY_END);
        check("{\"city\": {\"name\": \"walk\"}}", MAY_END);
    }
}

#[test]
fn whatever_is_drawn_is_text_and_calls_that_are_known() {
    for (tokenizer, format) in
        tokenizers().into_iter().flat_map(|t| [(Arc::clone(&t), tagged()), (t, bare())])
    {
        let grammar = compiled(&tokenizer, &format);
        let is_tagged = format == tagged();
        for seed in 0..30 {
            let text = tokenizer.decode(&super::grammar::walk(&grammar, &tokenizer, seed));
            let parser = ToolCallParser::new(["wait".to_owned(), "look".to_owned()]);
            let mut parser = if is_tagged { parser.between_tags() } else { parser };
            let mut parts = parser.push(&text);
            parts.extend(parser.finish());
            let calls = parts.iter().filter(|part| matches!(part, ReplyPart::Call(_))).count();
            let texts = parts.iter().filter_map(|part| match part {
                ReplyPart::Text(text) => Some(text.as_str()),
                ReplyPart::Call(_) => None,
            });
            assert!(calls <= CALLS_MAX, "{text}");
            assert!(texts.into_iter().all(|text| !text.contains("<tool_call>")) || !is_tagged);
        }
    }
}
