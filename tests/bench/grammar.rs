//! What holding a reply to a schema costs: `cargo bench --bench grammar`.
//!
//! For two vocabularies: that of SmolLM2, and one of 152,000 tokens as Qwen has it, made of the first
//! and of pairs of its tokens. The time before a first grammar, before a further one, and for each
//! token: what may come, the draw among that, and the step behind it, beside a draw among all tokens.
//! Then the same for a reply that is text and may have calls in it.
//! The logits are random. Without `--bench`, as `cargo test --benches` runs it, there is one reply.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../it/support/model.rs"]
mod model;

use std::sync::Arc;
use std::time::Instant;

use semantic::model::ModelFiles;
use semantic::model::sample::{History, Sampling, sample};
use semantic::text::{CallFormat, CallsOf, Format, Function, Grammar, Grammars, Schema, Tokenizer};
use semantic::types::TextSource;
use serde_json::{Value, json};

const REPLIES: u64 = 200;
const QWEN_TOKENS: usize = 151_936;
/// Of a reply that is text: it ends where the draw ends it.
const TEXT_TOKENS: usize = 200;

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let replies = if is_bench { REPLIES } else { 1 };
    let text = || ModelFiles::open(model::smollm2()).unwrap().text().unwrap();
    for text in [text(), widened(text())] {
        let tokenizer = Arc::new(Tokenizer::new(&text).unwrap());
        println!("{} tokens", tokenizer.vocabulary_size());
        measure(&tokenizer, replies);
    }
}

fn measure(tokenizer: &Arc<Tokenizer>, replies: u64) {
    let grammars = Grammars::new(Arc::clone(tokenizer));
    let compile = |value: Value| {
        let schema = Schema { field: "schema".to_owned(), value };
        grammars.compile(&Format::Json(schema)).unwrap()
    };
    let started = Instant::now();
    compile(json!({ "type": "object" }));
    println!("  {:44} {:9.1} ms", "a first grammar, with the vocabulary", ms(started));
    let started = Instant::now();
    let grammar = compile(ticket());
    println!("  {:44} {:9.1} ms", "a further grammar", ms(started));
    let started = Instant::now();
    compile(ticket());
    println!("  {:44} {:9.1} us", "one that is remembered", us(started));

    replies_of(tokenizer, &grammar, replies, usize::MAX);
    let started = Instant::now();
    let grammar = grammars.compile(&Format::TextOrCalls(calls())).unwrap();
    println!("  {:44} {:9.1} ms", "text that may have calls", ms(started));
    replies_of(tokenizer, &grammar, replies.div_ceil(10), TEXT_TOKENS);
}

fn replies_of(tokenizer: &Tokenizer, grammar: &Grammar, replies: u64, tokens_max: usize) {
    let mut begins = Vec::new();
    let [mut masks, mut draws, mut accepts, mut totals, mut free] = [const { Vec::new() }; 5];
    let mut random = 1u64;
    let mut logits = vec![0.0f32; tokenizer.vocabulary_size()];
    for seed in 0..replies {
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::GREEDY };
        let started = Instant::now();
        let mut matcher = grammar.matcher();
        begins.push(us(started));
        let mut draw = 0;
        while !matcher.is_over() && draw < tokens_max as u64 {
            for logit in &mut logits {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *logit = (random >> 40) as f32 / (1 << 20) as f32;
            }
            let started = Instant::now();
            let allowed = matcher.allowed().unwrap();
            masks.push(us(started));
            let history = History { tokens: &[], prompt_tokens: 0, allowed: Some(&allowed) };
            let drawn = Instant::now();
            let token = sample(&logits, &sampling, history, draw).unwrap();
            draws.push(us(drawn));
            if tokenizer.end_tokens().contains(&token) {
                break;
            }
            let accepted = Instant::now();
            matcher.accept(token).unwrap();
            accepts.push(us(accepted));
            totals.push(us(started));
            let drawn = Instant::now();
            sample(&logits, &sampling, History { allowed: None, ..history }, draw).unwrap();
            free.push(us(drawn));
            draw += 1;
        }
    }
    println!("  {} replies, {} tokens; median, 99th of 100, and longest:", replies, totals.len());
    for (name, times) in [
        ("a reply begins", begins),
        ("what may come", masks),
        ("a draw among it", draws),
        ("the step behind it", accepts),
        ("all of a token", totals),
        ("beside it: a draw among all tokens", free),
    ] {
        let mut times = times;
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!("  {name:44} {:9.1} {:9.1} {:9.1} us", at(0.5), at(0.99), at(1.0));
    }
}

/// A call as Qwen writes it, of a function that takes a ticket.
fn calls() -> CallsOf {
    let parameters = Schema { field: "tools".to_owned(), value: ticket() };
    CallsOf {
        format: CallFormat {
            before: "<tool_call>\n{\"name\": \"".to_owned(),
            between: "\", \"arguments\": ".to_owned(),
            behind: "}\n</tool_call>".to_owned(),
        },
        functions: vec![Function { name: "file".to_owned(), parameters }],
        count_max: 16,
    }
}

/// A schema as programs have them.
fn ticket() -> Value {
    json!({
        "type": "object",
        "properties": {
            "title": { "type": "string", "maxLength": 80 },
            "priority": { "enum": ["low", "normal", "high", "urgent"] },
            "estimate_hours": { "type": "number", "minimum": 0, "maximum": 400 },
            "due": { "type": "string", "format": "date" },
            "is_blocked": { "type": "boolean" },
            "labels": { "type": "array", "items": { "type": "string", "pattern": "^[a-z-]{1,20}$" }, "maxItems": 5 },
            "assignee": { "anyOf": [{ "$ref": "#/$defs/person" }, { "type": "null" }] },
            "notes": { "type": "array", "items": { "$ref": "#/$defs/note" }, "maxItems": 3 },
        },
        "required": ["title", "priority", "estimate_hours", "due", "is_blocked", "labels", "assignee", "notes"],
        "additionalProperties": false,
        "$defs": {
            "person": {
                "type": "object",
                "properties": { "name": { "type": "string", "maxLength": 40 }, "id": { "type": "integer" } },
                "required": ["name", "id"],
                "additionalProperties": false,
            },
            "note": {
                "type": "object",
                "properties": { "by": { "$ref": "#/$defs/person" }, "text": { "type": "string", "maxLength": 120 } },
                "required": ["by", "text"],
                "additionalProperties": false,
            },
        },
    })
}

/// With pairs of its tokens, up to the size of Qwen's.
fn widened(text: TextSource) -> TextSource {
    let TextSource::Gguf(mut vocabulary) = text else { panic!("SmolLM2 is a GGUF file") };
    let plain: Vec<String> = vocabulary.tokens[300..5_000].to_vec();
    for (index, first) in plain.iter().enumerate() {
        for second in plain.iter().skip(index % 7).step_by(197) {
            if vocabulary.tokens.len() < QWEN_TOKENS {
                vocabulary.tokens.push(format!("{first}{second}"));
            }
        }
    }
    vocabulary.token_types.resize(vocabulary.tokens.len(), 1);
    assert_eq!(vocabulary.tokens.len(), QWEN_TOKENS);
    TextSource::Gguf(vocabulary)
}

fn ms(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}

fn us(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e6
}
