//! Holds a reply to a grammar: which tokens may come next, so that what comes is valid JSON or a call.
//!
//! [`Grammars::compile`] makes a [`Grammar`] of a [`Format`], with the model's vocabulary; a reply
//! has a [`Matcher`] of it, which is asked before each token and told afterwards. This folder alone
//! names `llguidance` and `toktrie`.
//!
//! The model chooses how a text is cut into tokens: whatever is a beginning of what may be written
//! is allowed, and nothing is put into its mouth.

mod calls;
mod limits;
mod matcher;
mod place;
mod shape;
mod vocabulary;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::{ParserFactory, earley::SlicedBiasComputer};
use serde_json::{Value, json};
use toktrie::InferenceCapabilities;

use super::tokenizer::Tokenizer;

pub use calls::{CallFormat, CallsOf, Function};
pub use matcher::{Lost, Matcher};

/// Of all schemas of a request as they are written: OpenAI takes 120,000 characters.
pub const SCHEMAS_BYTES_MAX: usize = 256 << 10;
/// Objects and lists in them: each may lead to the next, and the library follows them by calling itself.
pub const SCHEMA_PARTS_MAX: usize = 6_000;
/// Names and values in their lists, and properties that are only `true` or `false`.
pub const SCHEMA_VALUES_MAX: usize = 10_000;
/// What a thread needs for the parts. The longest chains that are allowed take less than a quarter of it.
pub const STACK_BYTES: usize = 256 << 20;
/// Grammars that are remembered. A client that uses one again and again has the next reply sooner.
pub const REMEMBERED_MAX: usize = 32;
/// And the bytes of what they were made of: a byte becomes up to 200, or a short grammar 5 MB (the
/// library does not tell), so all of them are no more than about 300 MB.
const REMEMBERED_BYTES_MAX: usize = 1 << 20;

/// Symbols of a grammar. The largest schemas in use have 200,000.
const GRAMMAR_SYMBOLS_MAX: usize = 200_000;
/// Work for a grammar's regular expressions, once: 50,000 take about a millisecond.
const COMPILE_FUEL: u64 = 1_000_000;
/// Work for them at each token: 14,000 take about a millisecond, on the engine's thread.
const STEP_FUEL: u64 = 200_000;
/// Items of the parser that a token may make: 20,000 take about a millisecond.
const STEP_ITEMS_MAX: usize = 50_000;
/// Ways in which a text so far can be read: a grammar that has more is ambiguous without end.
const ROW_ITEMS_MAX: usize = 2_000;
/// States of a reply's regular expressions, which come as they are needed: 1 to 2 kB each.
const STATES_MAX: usize = 10_000;

/// Between two parts of a value a model may put a space or a line with its indentation, once: small
/// models write white space without end where they may.
const WHITE_SPACE: &str = r" |\n[ \t]{0,40}";

/// Tokens that are told at once where any text may stand that has no tags.
const PLAIN_TEXT: &str = r#"[^"\\<\x00-\x1F\x7F]{1,30}"#;

/// What a reply is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// JSON that this schema allows.
    Json(Schema),
    /// Calls of functions.
    Calls(CallsOf),
    /// The one or the other.
    JsonOrCalls(Schema, CallsOf),
    /// Text, with or without calls.
    TextOrCalls(CallsOf),
}

/// A schema, and the field of a request that it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    pub field: String,
    pub value: Value,
}

impl Schema {
    /// Any object.
    pub fn object(field: &str) -> Schema {
        Schema { field: field.to_owned(), value: json!({ "type": "object" }) }
    }
}

/// Why there is no grammar of a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// `place` leads from the schema to what is wrong, as a JSON pointer.
    #[error("{field}{place} cannot be held to: {reason}")]
    Schema { field: String, place: String, reason: String },
    #[error("{field} has {bytes} bytes of schemas; at most {SCHEMAS_BYTES_MAX}")]
    TooLarge { field: String, bytes: usize },
    #[error("{field} has {parts} objects and lists in schemas; at most {SCHEMA_PARTS_MAX}")]
    TooManyParts { field: String, parts: usize },
    #[error(
        "{field} has {values} names and values in lists of schemas; at most {SCHEMA_VALUES_MAX}"
    )]
    TooManyValues { field: String, values: usize },
    /// Not the client's doing.
    #[error("the vocabulary cannot be held to a grammar: {0}")]
    Vocabulary(String),
}

impl GrammarError {
    /// The field of the request that is wrong, if it is the request.
    pub fn field(&self) -> Option<&str> {
        match self {
            GrammarError::Schema { field, .. }
            | GrammarError::TooLarge { field, .. }
            | GrammarError::TooManyParts { field, .. }
            | GrammarError::TooManyValues { field, .. } => Some(field),
            GrammarError::Vocabulary(_) => None,
        }
    }
}

/// Makes grammars for one vocabulary, and remembers the last.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    /// Made when the first grammar is: most servers never need it.
    factory: OnceLock<Result<ParserFactory, String>>,
    /// The last used comes last.
    remembered: Mutex<Vec<(String, Arc<Grammar>)>>,
}

/// A format as it is for a vocabulary. Shared by all replies that are held to it.
pub struct Grammar {
    /// At the beginning of a reply.
    fresh: llguidance::Matcher,
}

impl Grammars {
    pub fn new(tokenizer: Arc<Tokenizer>) -> Grammars {
        Grammars { tokenizer, factory: OnceLock::new(), remembered: Mutex::default() }
    }

    /// May take tens of milliseconds, the first time hundreds, on a thread with a stack of
    /// [`STACK_BYTES`].
    pub fn compile(&self, format: &Format) -> Result<Arc<Grammar>, GrammarError> {
        let key = format.key();
        if key.len() > SCHEMAS_BYTES_MAX {
            return Err(GrammarError::TooLarge { field: format.field(), bytes: key.len() });
        }
        if let Some(grammar) = self.recall(&key) {
            return Ok(grammar);
        }
        let sizes = format.schemas().map(|schema| size(&schema.value));
        let Size { parts, values } = sizes.fold(Size::default(), Size::and);
        if parts > SCHEMA_PARTS_MAX {
            return Err(GrammarError::TooManyParts { field: format.field(), parts });
        }
        if values > SCHEMA_VALUES_MAX {
            return Err(GrammarError::TooManyValues { field: format.field(), values });
        }
        limits::check(format.schemas())?;
        let factory = self.factory.get_or_init(|| factory(&self.tokenizer));
        let factory =
            factory.as_ref().map_err(|reason| GrammarError::Vocabulary(reason.clone()))?;
        let compiled = matcher(factory, format.grammar(&self.tokenizer));
        let fresh = compiled.map_err(|reason| {
            format.refused(reason, |schema| matcher(factory, json_grammar(schema)).err())
        })?;
        let grammar = Arc::new(Grammar { fresh });
        self.remember(key, &grammar);
        Ok(grammar)
    }

    /// One that was compiled, if it is remembered.
    pub fn remembered(&self, format: &Format) -> Option<Arc<Grammar>> {
        self.recall(&format.key())
    }

    fn recall(&self, key: &str) -> Option<Arc<Grammar>> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let index = remembered.iter().position(|(known, _)| known == key)?;
        let last = remembered.remove(index);
        let grammar = Arc::clone(&last.1);
        remembered.push(last);
        Some(grammar)
    }

    fn remember(&self, key: String, grammar: &Arc<Grammar>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|(known, _)| *known != key);
        remembered.push((key, Arc::clone(grammar)));
        let bytes = |all: &[(String, _)]| all.iter().map(|(key, _)| key.len()).sum::<usize>();
        while remembered.len() > REMEMBERED_MAX || bytes(&remembered) > REMEMBERED_BYTES_MAX {
            remembered.remove(0);
        }
    }
}

impl Format {
    fn schemas(&self) -> impl Iterator<Item = &Schema> {
        let (json, calls) = match self {
            Format::Json(schema) => (Some(schema), None),
            Format::Calls(calls) | Format::TextOrCalls(calls) => (None, Some(calls)),
            Format::JsonOrCalls(schema, calls) => (Some(schema), Some(calls)),
        };
        let functions = calls.into_iter().flat_map(|calls| &calls.functions);
        json.into_iter().chain(functions.map(|function| &function.parameters))
    }

    /// Of two formats that are not the same the keys are not.
    fn key(&self) -> String {
        match self {
            Format::Json(schema) => format!("json {}", schema.value),
            Format::Calls(calls) => format!("calls {}", calls.key()),
            Format::JsonOrCalls(schema, calls) => {
                format!("json {}\nor calls {}", schema.value, calls.key())
            }
            Format::TextOrCalls(calls) => format!("text or calls {}", calls.key()),
        }
    }

    /// In the library's language.
    fn grammar(&self, tokenizer: &Tokenizer) -> GrammarWithLexer {
        match self {
            Format::Json(schema) => json_grammar(&schema.value),
            Format::Calls(calls) => GrammarWithLexer::from_lark(calls::grammar(calls, tokenizer)),
            Format::JsonOrCalls(schema, calls) => {
                GrammarWithLexer::from_lark(calls::grammar_or_json(&schema.value, calls, tokenizer))
            }
            Format::TextOrCalls(calls) => {
                GrammarWithLexer::from_lark(calls::grammar_among_text(calls, tokenizer))
            }
        }
    }

    /// The error if it was refused for this reason. `refusal` says why a schema is, if it is.
    fn refused(&self, reason: String, refusal: impl Fn(&Value) -> Option<String>) -> GrammarError {
        match self {
            Format::Json(schema) => place::error(schema, reason, refusal),
            Format::Calls(calls) | Format::TextOrCalls(calls) => {
                calls::error(calls, reason, refusal)
            }
            Format::JsonOrCalls(schema, calls) => match refusal(&schema.value) {
                Some(reason) => place::error(schema, reason, refusal),
                None => calls::error(calls, reason, refusal),
            },
        }
    }

    /// The field of a request that asks for it.
    fn field(&self) -> String {
        match self {
            Format::Json(schema) => schema.field.clone(),
            Format::Calls(_) | Format::JsonOrCalls(..) | Format::TextOrCalls(_) => {
                "tools".to_owned()
            }
        }
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Default)]
struct Size {
    /// Objects and lists, the outermost included.
    parts: usize,
    /// What is neither, in lists, and whether any or no value is allowed.
    values: usize,
}

impl Size {
    fn and(self, other: Size) -> Size {
        Size { parts: self.parts + other.parts, values: self.values + other.values }
    }
}

fn size(value: &Value) -> Size {
    let is_value = |value: &&Value| !value.is_array() && !value.is_object();
    let (within, values): (Size, usize) = match value {
        Value::Array(items) => (
            items.iter().map(size).fold(Size::default(), Size::and),
            items.iter().filter(is_value).count(),
        ),
        Value::Object(fields) => (
            fields.values().map(size).fold(Size::default(), Size::and),
            fields.values().filter(|value| value.is_boolean()).count(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Size::default();
        }
    };
    within.and(Size { parts: 1, values })
}

fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, String> {
    let environment = vocabulary::environment(tokenizer)?;
    let slices = [vec![PLAIN_TEXT.to_owned()], SlicedBiasComputer::json_slices()].concat();
    let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices);
    let mut factory = factory.map_err(said)?;
    factory.quiet();
    *factory.limits_mut() = ParserLimits {
        max_items_in_row: ROW_ITEMS_MAX,
        initial_lexer_fuel: COMPILE_FUEL,
        step_lexer_fuel: STEP_FUEL,
        step_max_items: STEP_ITEMS_MAX,
        max_lexer_states: STATES_MAX,
        max_grammar_size: GRAMMAR_SYMBOLS_MAX,
        precompute_large_lexemes: true,
        // They would repeat what the client and the model have written.
        verbose_errors: false,
    };
    Ok(factory)
}

fn matcher(
    factory: &ParserFactory,
    grammar: GrammarWithLexer,
) -> Result<llguidance::Matcher, String> {
    let parser = factory.create_parser(TopLevelGrammar::from_grammar(grammar));
    let mut matcher = llguidance::Matcher::new(Ok(parser.map_err(said)?));
    // A grammar without a first token is none.
    matcher.compute_mask().map_err(said)?;
    Ok(matcher)
}

fn json_grammar(schema: &Value) -> GrammarWithLexer {
    GrammarWithLexer::from_json_schema(with_options(schema))
}

/// The schema with how its values are written, which the library reads there. What a client wrote
/// in its place is not heard.
fn with_options(schema: &Value) -> Value {
    let mut schema = match schema {
        // All of it, and none, as an object.
        Value::Bool(true) => json!({}),
        Value::Bool(false) => json!({ "enum": [] }),
        schema => schema.clone(),
    };
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("x-guidance".to_owned(), json!({ "whitespace_pattern": WHITE_SPACE }));
    }
    schema
}

fn lost(error: impl std::fmt::Display) -> Lost {
    Lost(said(error))
}

/// What the library says, without its state, and where its words mean nothing here in ours.
fn said(error: impl std::fmt::Display) -> String {
    const OURS: &[(&str, &str)] = &[
        ("NoExtensionBias", "nothing fits it"),
        ("Unimplemented keys", "not supported"),
        (
            "oneOf constraints",
            "oneOf is supported where no value fits two of its schemas; else anyOf",
        ),
        ("Only absolute $ref's", "a $ref is supported that begins with #/"),
        ("panic:", "the library panicked on it"),
    ];
    let error = format!("{error:#}");
    let mut lines = error.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    // Below it a regular expression is repeated, and then comes what is wrong with it.
    let cause = lines.filter_map(|line| line.strip_prefix("error: ")).next_back();
    match OURS.iter().find(|(theirs, _)| first.contains(theirs)) {
        Some((theirs @ "Unimplemented keys", ours)) => first.replace(theirs, ours),
        Some((_, ours)) => (*ours).to_owned(),
        None => [first, cause.unwrap_or_default()].join(" ").trim().to_owned(),
    }
}
