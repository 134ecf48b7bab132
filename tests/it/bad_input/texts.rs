//! Tokenizers and chat templates that are broken, or made to harm.

use super::*;

#[test]
fn a_broken_tokenizer() {
    let file = "tokenizer.json";
    let text = |text: &'static str| move |folder: &Path| write(&folder.join(file), text);
    check_folder(
        |folder| std::fs::remove_file(folder.join(file)).expect("removed"),
        expect![[r#"
            error: cannot read ./model/tokenizer.json: the file is missing
            hint: it has to be there and readable for this user; or give another model with --model
        "#]],
    );
    check_folder(
        text(""),
        expect![[r#"
        error: ./model: tokenizer.json is not valid: EOF while parsing a value at line 1 column 0
    "#]],
    );
    check_folder(
        text("{}"),
        expect![[r#"
        error: ./model: tokenizer.json is not valid: missing field `model` at line 1 column 2
    "#]],
    );
    check_folder(
        text("\u{0}PNG"),
        expect![[r#"
        error: ./model: tokenizer.json is not valid: expected value at line 1 column 1
    "#]],
    );
    check_json(
        file,
        |json| json["model"]["type"] = json!("Unigram"),
        expect![[r#"
        error: ./model: the tokenizer model "Unigram" is not supported
    "#]],
    );
    check_json(
        file,
        |json| json["model"]["vocab"]["zz"] = json!(u32::MAX),
        expect![[r#"
        error: ./model: tokenizer.json is not valid: the token "zz" has id 4294967295, not below 1048576
    "#]],
    );
    check_json(
        file,
        |json| json["model"]["merges"][0] = json!(["no", "pe"]),
        expect![[r#"
        error: ./model: tokenizer.json is not valid: the merge "no" "pe" names "no", which is not a token
    "#]],
    );
    check_json(
        file,
        |json| json["added_tokens"][0]["id"] = json!(200),
        expect![[r#"
        error: ./model: tokenizer.json is not valid: the added token "<|im_start|>" has id 200, but the vocabulary gives it 0
    "#]],
    );
    check_json(
        file,
        |json| json["decoder"] = json!({ "type": "WordPiece" }),
        expect![[r#"
        error: ./model: tokenizer.json is not valid: missing field `prefix` at line 1 column 783
    "#]],
    );
    let split = json!({ "type": "Split", "pattern": { "Regex": "(" }, "behavior": "Isolated", "invert": false });
    check_json(
        file,
        move |json| json["pre_tokenizer"] = split,
        expect![[r#"
        error: ./model: tokenizer.json is not valid: Parsing error at position 1: Opening parenthesis without closing parenthesis at line 1 column 644
    "#]],
    );
    check_folder(
        |folder| write(&folder.join("tokenizer_config.json"), "{"),
        expect![[r#"
        error: ./model: tokenizer_config.json is not valid: EOF while parsing an object at line 1 column 1
    "#]],
    );
    let as_folder = |folder: &Path| {
        std::fs::remove_file(folder.join(file)).expect("removed");
        std::fs::create_dir(folder.join(file)).expect("a folder");
    };
    check_folder(
        as_folder,
        expect![[r#"
        error: ./model/tokenizer.json is not a usable model: it is not a file
    "#]],
    );
}

/// The template which loops is stopped after so many steps, as its message says. Nothing here
/// measures how soon: the watchdog of [`Machine`] only ends a run that would never end.
#[test]
fn a_broken_chat_template() {
    let check = |template: &'static str, message| {
        check_json(
            "tokenizer_config.json",
            |json| json["chat_template"] = json!(template),
            message,
        );
    };
    check(
        "{% for %}",
        expect![[r#"
        error: ./model: the chat template does not compile, line 1: syntax error: unexpected end of block, expected in
    "#]],
    );
    check(
        "{{ messages[0].nothing.at_all }}",
        expect![[r#"
            error: ./model: the chat template failed, line 1: undefined value
            hint: a chat_template.jinja beside the model takes the place of its own
        "#]],
    );
    check(
        "{{ raise_exception('only in French') }}",
        expect![[r#"
            error: ./model: the chat template refuses this conversation: only in French (line 1)
            hint: a chat_template.jinja beside the model takes the place of its own
        "#]],
    );
    check(
        "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}",
        expect![[r#"
            error: ./model: the chat template was stopped after 300000 steps, line 1: it may loop for ever
            hint: a chat_template.jinja beside the model takes the place of its own
        "#]],
    );
    check(
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        expect![[r#"
            error: ./model: the chat template failed, line 1: invalid operation: recursion limit exceeded
            hint: a chat_template.jinja beside the model takes the place of its own
        "#]],
    );
    check(
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
        expect![[r#"
            error: ./model: the chat template wrote more than 8388608 bytes
            hint: a chat_template.jinja beside the model takes the place of its own
        "#]],
    );
    check(
        "{{ 'a' * 10 ** 15 }}",
        expect![[r#"
            error: ./model: the chat template failed, line 1: invalid operation: repeated string is too large
            hint: a chat_template.jinja beside the model takes the place of its own
        "#]],
    );
    check(
        "{{ 'x'|indent(18446744073709551615) }}",
        expect![[r#"
            error: ./model: the chat template failed, line 1: invalid operation: a width, indent or count is above 10000
            hint: a chat_template.jinja beside the model takes the place of its own
        "#]],
    );
    check(
        "{{ messages|tojson(indent=10**14) }}",
        expect![[r#"
            error: ./model: the chat template failed, line 1: invalid operation: a width, indent or count is above 10000
            hint: a chat_template.jinja beside the model takes the place of its own
        "#]],
    );
    check(
        "{{ '' }}",
        expect![[r#"
        error: the prompt is empty
    "#]],
    );
    check_json(
        "tokenizer_config.json",
        |json| json["chat_template"] = Json::Null,
        expect![[r#"
        error: ./model: the model has no chat template
        hint: put a chat_template.jinja beside the model, or send the text as it is with --raw
    "#]],
    );
    let not_text = |folder: &Path| write(&folder.join("chat_template.jinja"), b"\xff");
    check_folder(
        not_text,
        expect![[r#"
        error: ./model/chat_template.jinja is not a usable model: it is not UTF-8
    "#]],
    );
}
