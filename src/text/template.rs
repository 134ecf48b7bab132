//! Chat templates: a model's own Jinja text that turns messages into a prompt.
//!
//! A template comes with the model and the messages from a client, so both the steps and the
//! output are bounded.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, json};

use crate::types::{TextSource, TokenId};

use super::error::Error;
use super::grammar::CallFormat;
use super::hugging_face::Config;
use super::python;
use super::reasoning::{THINK, THINK_END};
use super::tools::PastCall;

/// Instructions one rendering may execute. A message takes up to a hundred, so this is enough for
/// three thousand messages. A loop that calls a filter was stopped after 0.4 s (debug build, busy
/// machine). It bounds the number of instructions, not the work of one: `~`, `+`,
/// `join` and `replace` copy their strings, minijinja has no hook for that, and so a template that
/// copies a long string in a loop, or doubles one, is bounded in neither time nor memory. Numbers
/// that ask for room (`indent`, `slice`, `batch`, widths in `format`) are bounded in
/// [`python::add_bounded_filters`].
pub const TEMPLATE_STEPS_MAX: u64 = 300_000;

/// Bytes one rendering may write: four times the largest request body the server accepts.
pub const RENDERED_BYTES_MAX: usize = 8 << 20;

/// A function that no model has, to see what a template makes of it.
const PROBE: &str = "is_this_tool_shown";
const PROBE_ARGUMENT: &str = "is_this_argument_shown";

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// A compiled template with the model's special tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and their like.
    special_tokens: BTreeMap<String, String>,
    renders_tools: bool,
    call_format: Option<CallFormat>,
    /// Whether it looks for the end of thinking.
    closes_thinking: bool,
    opening: String,
}

/// One turn of a conversation as a template sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub role: String,
    /// `None` is null: an assistant's turn that only calls tools.
    pub content: Option<String>,
    /// `tool_calls`, `name`, `reasoning_content` and whatever else the template may read.
    pub extra: Map<String, serde_json::Value>,
}

/// What a rendering needs besides the messages.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// End with the header of the assistant's turn, so that the model writes it.
    pub add_generation_prompt: bool,
    /// JSON schemas of functions; empty is `none` in the template.
    pub tools: Vec<serde_json::Value>,
    /// Further variables such as `enable_thinking`.
    pub variables: Map<String, serde_json::Value>,
    /// What `strftime_now` tells, in UTC.
    pub now: SystemTime,
}

impl Message {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: Some(content.into()), extra: Map::new() }
    }
}

impl RenderOptions {
    /// For the next reply of the assistant, without tools.
    pub fn new(now: SystemTime) -> RenderOptions {
        RenderOptions { add_generation_prompt: true, tools: Vec::new(), variables: Map::new(), now }
    }
}

impl ChatTemplate {
    /// Compiles the model's template. [`Error::NoTemplate`] if it has none.
    pub fn new(source: &TextSource) -> Result<ChatTemplate, Error> {
        let (templates, special_tokens) = match source {
            TextSource::Folder { tokenizer_config_json, chat_template_jinja, .. } => {
                let config = Config::parse(tokenizer_config_json.as_deref())?;
                let templates = match chat_template_jinja {
                    Some(template) => vec![(DEFAULT, template.clone())],
                    None => templates_in(&config),
                };
                let tokens = config.special_tokens().map(|(name, text)| (name.to_owned(), text));
                (templates, tokens.collect())
            }
            TextSource::Gguf(vocabulary) => {
                let template = vocabulary.chat_template.clone();
                let text = |id: Option<TokenId>| vocabulary.tokens.get(id?.0 as usize).cloned();
                let tokens = [
                    ("bos_token", text(vocabulary.bos)),
                    ("eos_token", text(vocabulary.eos)),
                    ("unk_token", text(vocabulary.unknown)),
                    ("pad_token", text(vocabulary.padding)),
                ];
                let tokens =
                    tokens.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?)));
                (template.map(|text| (DEFAULT, text)).into_iter().collect(), tokens.collect())
            }
        };
        ChatTemplate::compile(templates, special_tokens)
    }

    fn compile(
        templates: Vec<(&'static str, String)>,
        special_tokens: BTreeMap<String, String>,
    ) -> Result<ChatTemplate, Error> {
        if !templates.iter().any(|(name, _)| *name == DEFAULT) {
            return Err(Error::NoTemplate);
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(broken)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(TEMPLATE_STEPS_MAX));
        environment.set_unknown_method_callback(python::unknown_method);
        environment.add_filter("tojson", python::tojson);
        python::add_bounded_filters(&mut environment);
        environment.add_test("iterable", python::is_iterable);
        environment.add_test("sequence", python::is_sequence);
        environment.add_function("raise_exception", raise_exception);
        let closes_thinking = templates.iter().any(|(_, template)| template.contains(THINK_END));
        for (name, template) in templates {
            let template = python::without_generation_tags(&template).into_owned();
            environment.add_template_owned(name, template).map_err(broken)?;
        }
        let mut template = ChatTemplate {
            environment,
            special_tokens,
            renders_tools: false,
            call_format: None,
            closes_thinking,
            opening: String::new(),
        };
        template.renders_tools = template.shows_a_tool();
        template.call_format = template.shown_call();
        template.opening = template.opened_thinking();
        Ok(template)
    }

    /// Whether it knows of thinking that ends before a reply.
    pub(super) fn closes_thinking(&self) -> bool {
        self.closes_thinking
    }

    /// `<think>` and the white space behind it, if the model is asked to go on from there; else
    /// empty.
    pub(super) fn opening(&self) -> &str {
        &self.opening
    }

    fn opened_thinking(&self) -> String {
        let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
        let rendered = self.render(&[Message::new("user", "Hello")], &options).unwrap_or_default();
        match rendered.trim_end().strip_suffix(THINK) {
            Some(before) => rendered[before.len()..].to_owned(),
            None => String::new(),
        }
    }

    /// Whether the model hears of tools at all: most templates leave out what they do not know.
    pub fn renders_tools(&self) -> bool {
        self.renders_tools
    }

    /// How the model writes calls, as far as the template shows it in a way that is read back.
    pub fn call_format(&self) -> Option<&CallFormat> {
        self.call_format.as_ref()
    }

    fn shows_a_tool(&self) -> bool {
        let rendered = self.render(&[Message::new("user", "Hello")], &with_probe());
        rendered.is_ok_and(|text| text.contains(PROBE))
    }

    fn shown_call(&self) -> Option<CallFormat> {
        let arguments = Map::from_iter([(PROBE_ARGUMENT.to_owned(), 1.into())]);
        let id = "call_000000000".to_owned();
        let call = PastCall { id, name: PROBE.to_owned(), arguments };
        let messages = [Message::new("user", "Hello"), Message::calling(None, vec![call])];
        let options = RenderOptions { add_generation_prompt: false, ..with_probe() };
        CallFormat::of(&self.render(&messages, &options).ok()?, PROBE)
    }

    /// The prompt for these messages. It contains BOS if the template writes it.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, Error> {
        let tool_use = match options.tools.is_empty() {
            true => None,
            false => self.environment.get_template(TOOL_USE).ok(),
        };
        let template = match tool_use {
            Some(template) => template,
            None => self.environment.get_template(DEFAULT).map_err(failed)?,
        };
        let mut output = Capped(Vec::new());
        // A template comes with a model: what it makes minijinja do must not end the program. The
        // environment is only read, and the output of a rendering that failed is not.
        catch_unwind(AssertUnwindSafe(|| {
            template.render_captured_to(self.context(messages, options), &mut output)
        }))
        .map_err(|_| Error::TemplateFailed { line: 0, reason: "the renderer panicked".into() })?
        .map_err(failed)?;
        Ok(String::from_utf8_lossy(&output.0).into_owned())
    }

    fn context(&self, messages: &[Message], options: &RenderOptions) -> Value {
        let mut context: BTreeMap<String, Value> = BTreeMap::new();
        for (name, value) in &options.variables {
            context.insert(name.clone(), Value::from(Serde(value)));
        }
        for (name, text) in &self.special_tokens {
            context.insert(name.clone(), Value::from(text.as_str()));
        }
        let messages: Vec<Value> = messages.iter().map(Message::value).collect();
        let tools = match options.tools.is_empty() {
            true => Value::from(()),
            false => Value::from(Serde(&options.tools)),
        };
        let now = options.now;
        let strftime_now = Value::from_function(move |format: &str| python::strftime(now, format));
        let add_generation_prompt = Value::from(options.add_generation_prompt);
        context.extend([
            ("messages".to_owned(), Value::from(messages)),
            ("tools".to_owned(), tools),
            ("documents".to_owned(), Value::from(())),
            ("add_generation_prompt".to_owned(), add_generation_prompt),
            ("strftime_now".to_owned(), strftime_now),
        ]);
        Value::from(context)
    }
}

fn with_probe() -> RenderOptions {
    let schema = json!({
        "type": "function",
        "function": {
            "name": PROBE,
            "description": "",
            "parameters": { "type": "object", "properties": {} },
        },
    });
    RenderOptions { tools: vec![schema], ..RenderOptions::new(SystemTime::UNIX_EPOCH) }
}

impl Message {
    fn value(&self) -> Value {
        let mut map = Map::new();
        map.insert("role".to_owned(), self.role.as_str().into());
        map.insert("content".to_owned(), self.content.as_deref().into());
        for (name, value) in &self.extra {
            map.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        Value::from(Serde(&map))
    }
}

/// `chat_template` is a template, or a list of named ones of which we know two.
fn templates_in(config: &Config) -> Vec<(&'static str, String)> {
    let Some(value) = config.chat_template() else {
        return Vec::new();
    };
    if let Some(template) = value.as_str() {
        return vec![(DEFAULT, template.to_owned())];
    }
    let mut templates = Vec::new();
    for entry in value.as_array().into_iter().flatten() {
        let text = entry.get("template").and_then(serde_json::Value::as_str);
        let name = entry.get("name").and_then(serde_json::Value::as_str);
        let name = [DEFAULT, TOOL_USE].into_iter().find(|known| name == Some(*known));
        templates.extend(name.zip(text.map(str::to_owned)));
    }
    templates
}

/// Travels inside minijinja's error, to be told from an error of the template's own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    let error = minijinja::Error::new(ErrorKind::InvalidOperation, message.clone());
    Err(error.with_source(Raised(message)))
}

/// A writer that refuses to grow beyond [`RENDERED_BYTES_MAX`].
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_BYTES_MAX {
            return Err(io::Error::other("too much output"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken(error: minijinja::Error) -> Error {
    Error::TemplateBroken { line: error.line().unwrap_or(0), reason: reason(&error) }
}

fn failed(error: minijinja::Error) -> Error {
    let line = error.line().unwrap_or(0);
    match error.kind() {
        ErrorKind::OutOfFuel => {
            return Error::TemplateOutOfFuel { line, steps: TEMPLATE_STEPS_MAX };
        }
        ErrorKind::WriteFailure => {
            return Error::TemplateTooLarge { bytes_max: RENDERED_BYTES_MAX };
        }
        _ => (),
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return Error::TemplateRaised { line, message: message.clone() };
        }
        source = cause.source();
    }
    Error::TemplateFailed { line, reason: reason(&error) }
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
