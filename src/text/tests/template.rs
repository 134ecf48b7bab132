//! Rendering, and the bounds on it.

use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::*;
use super::{fixture, folder};
use crate::types::{GgufVocabulary, TextSource};

macro_rules! templates {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../../tests/data/text/templates/", $name)))),*]
    };
}

const TEMPLATES: &[(&str, &str)] = templates![
    "chatml.jinja",
    "corners.jinja",
    "headers.jinja",
    "inst.jinja",
    "thinking.jinja",
    "turns.jinja"
];

#[derive(Deserialize)]
struct Rendered {
    special_tokens: Map<String, Value>,
    conversations: Map<String, Value>,
    options: Map<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    options: String,
    rendered: Option<String>,
    error: Option<String>,
}

/// 2024-07-04 09:08:07 UTC, as in `make.py`.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_720_084_087)
}

fn template(text: &str) -> Result<ChatTemplate, Error> {
    ChatTemplate::new(&TextSource::Gguf(GgufVocabulary {
        chat_template: Some(text.to_owned()),
        ..GgufVocabulary::default()
    }))
}

fn template_with_config(name: &str, mut config: Map<String, Value>) -> ChatTemplate {
    let (_, text) =
        TEMPLATES.iter().find(|(known, _)| *known == name).expect("the template is in the table");
    config.insert("chat_template".to_owned(), (*text).into());
    let source = folder("", Some(Value::Object(config)));
    ChatTemplate::new(&source).expect("the template compiles")
}

fn messages(conversation: &Value) -> Vec<Message> {
    let messages = conversation.as_array().expect("a list of messages");
    messages
        .iter()
        .map(|message| {
            let mut extra = message.as_object().expect("a message").clone();
            let role = extra.remove("role").expect("a role");
            let content = extra.remove("content").expect("a content");
            Message {
                role: role.as_str().expect("text").to_owned(),
                content: content.as_str().map(str::to_owned),
                extra,
            }
        })
        .collect()
}

fn options(value: &Value) -> RenderOptions {
    let mut options = RenderOptions::new(now());
    if let Some(add) = value["add_generation_prompt"].as_bool() {
        options.add_generation_prompt = add;
    }
    options.tools = value["tools"].as_array().cloned().unwrap_or_default();
    options.variables = value["variables"].as_object().cloned().unwrap_or_default();
    options
}

#[test]
fn templates_render_as_hugging_face_renders_them() {
    let file: Rendered = fixture(include_str!("../../../tests/data/text/rendered.json"));
    assert!(file.cases.len() >= 100);
    for case in &file.cases {
        let template = template_with_config(&case.template, file.special_tokens.clone());
        let messages = messages(&file.conversations[&case.conversation]);
        let found = template.render(&messages, &options(&file.options[&case.options]));
        let name = format!("{} {} {}", case.template, case.conversation, case.options);
        match (&case.rendered, &case.error) {
            (Some(expected), None) => assert_eq!(&found.expect(&name), expected, "{name}"),
            (None, Some(expected)) => match found.expect_err(&name) {
                Error::TemplateRaised { message, .. } => assert_eq!(&message, expected, "{name}"),
                other => panic!("{name}: {other}"),
            },
            _ => panic!("{name} has one outcome"),
        }
    }
}

fn render_error(text: &str) -> String {
    let render = |template: ChatTemplate| {
        template.render(&[Message::new("user", "Hi")], &RenderOptions::new(now()))
    };
    template(text).and_then(render).expect_err("it fails").to_string()
}

#[test]
fn a_template_that_fails_says_where_and_why() {
    let found = [
        render_error("{% for m in messages %}"),
        render_error("line\n{% nonsense %}"),
        render_error("line\n\n{{ raise_exception('only ' ~ messages|length ~ ' turn') }}"),
        render_error("{{ a }}\n{{ a.b.c }}"),
        render_error("{{ 'x' | unheard_of }}"),
        render_error("{{ strftime_now('%Q') }}"),
        render_error("{{ nothing | tojson }}"),
        render_error("{% macro f() %}{{ raise_exception('inside') }}{% endmacro %}\n{{ f() }}"),
        render_error("{% for i in range(9999999) %}{% endfor %}"),
    ];
    expect_test::expect![[r#"
        the chat template does not compile, line 1: syntax error: unexpected end of input, expected end of block
        the chat template does not compile, line 2: syntax error: unknown statement nonsense
        the chat template refuses this conversation: only 1 turn (line 3)
        the chat template failed, line 2: undefined value
        the chat template failed, line 1: unknown filter: filter unheard_of is unknown
        the chat template failed, line 1: invalid operation: strftime does not know %Q
        the chat template failed, line 1: invalid operation: an undefined value cannot be written as JSON
        the chat template refuses this conversation: inside (line 1)
        the chat template failed, line 1: invalid operation: range has too many elements"#]].assert_eq(&found.join("\n"));
}

#[test]
fn a_template_that_loops_is_stopped_within_a_second() {
    let loops = [
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for i in range(99999) %}{% for j in range(99999) %}\
         {% set ns.n = ns.n + (messages[0].content | length) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    ];
    let mut found = Vec::new();
    for template in loops {
        let started = Instant::now();
        found.push(render_error(template));
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?} for {template}");
    }
    expect_test::expect![[r#"
        the chat template was stopped after 300000 steps, line 1: it may loop for ever
        the chat template was stopped after 300000 steps, line 1: it may loop for ever
        the chat template failed, line 1: invalid operation: recursion limit exceeded"#]]
    .assert_eq(&found.join("\n"));
}

#[test]
fn a_template_that_asks_for_much_room_at_once_is_refused() {
    let greedy = [
        "{{ 'x'|indent(18446744073709551615) }}",
        "{{ 'x'|indent(99999999999999999) }}",
        "{{ 'x'|indent(width=99999999999999999) }}",
        "{{ messages|tojson(indent=10**14) }}",
        "{{ '%999999999999d'|format(1) }}",
        "{{ '%.*f'|format(999999999999, 1.5) }}",
        "{{ '{:999999999999}'.format(1) }}",
        "{{ [1]|slice(10**15)|list }}",
        "{{ [1]|batch(10**15, 0)|list }}",
    ];
    for template in greedy {
        assert_eq!(
            render_error(template),
            "the chat template failed, line 1: invalid operation: \
             a width, indent or count is above 10000",
            "{template}"
        );
    }
    let modest = concat!(
        "{{ 'a\\nb'|indent(2) }} {{ '%03d 99999'|format(7) }} {{ '{:>3}'.format(1) }} ",
        "{{ [1, 2]|batch(2)|list }}"
    );
    let found = template(modest).and_then(|it| it.render(&[], &RenderOptions::new(now())));
    assert_eq!(found.expect("it renders"), "a\n  b 007 99999   1 [[1, 2]]");
}

#[test]
fn a_template_that_writes_without_end_is_stopped() {
    let found = render_error("{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}");
    assert_eq!(found, "the chat template wrote more than 8388608 bytes");
}

#[test]
fn a_model_without_a_template_is_told_apart_and_names_the_way_out() {
    let error = ChatTemplate::new(&folder("", None)).expect_err("there is none");
    assert!(matches!(error, Error::NoTemplate));
}

#[test]
fn of_named_templates_the_one_for_tools_is_used_with_tools() {
    let named = json!([
        {"name": "default", "template": "default"},
        {"name": "tool_use", "template": "tools"},
        {"name": "rag", "template": "{{ broken"},
    ]);
    let source = folder("", Some(json!({"chat_template": named})));
    let template = ChatTemplate::new(&source).expect("the known ones compile");
    let mut options = RenderOptions::new(now());
    assert_eq!(template.render(&[], &options).expect("renders"), "default");
    options.tools = vec![json!({"name": "f"})];
    assert_eq!(template.render(&[], &options).expect("renders"), "tools");
}

#[test]
fn a_template_file_wins_over_the_one_in_the_config() {
    let source = TextSource::Folder {
        tokenizer_json: Vec::new(),
        tokenizer_config_json: Some(br#"{"chat_template": "config"}"#.to_vec()),
        chat_template_jinja: Some("file".to_owned()),
        end_tokens: Vec::new(),
    };
    let template = ChatTemplate::new(&source).expect("it compiles");
    assert_eq!(template.render(&[], &RenderOptions::new(now())).expect("renders"), "file");
}
