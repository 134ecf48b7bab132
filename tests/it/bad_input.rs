//! Bad input of every kind: a message that names the file and the reason, the right exit code, no
//! panic, nothing left behind.

use crate::support::cli::{Machine, Ran, copy_folder};
use crate::support::golden::data;
use crate::support::hub::{Fault, Hub};
use expect_test::{Expect, expect};
use semantic::model::{Batch, Device, LoadOptions, ModelFiles, Row, Wanted};
use semantic::text::{ChatTemplate, Message, RenderOptions, Special, Tokenizer};
use semantic::types::{BlockId, TokenId};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::time::SystemTime;

const OTHER_MODEL: &str = "hint: fetch it again if its files may be damaged, or take another model: \
                           `semantic models --all` lists some\n";

/// One refusal: the program ended with `code`, said `message` and did nothing else.
fn refused(machine: &Machine, ran: &Ran, code: i32, message: &Expect) {
    // The hint is one for all that is wrong with a model.
    message.assert_eq(&machine.anonymous(&ran.stderr).replace(OTHER_MODEL, ""));
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    assert_eq!(machine.stored(), Vec::<String>::new(), "{ran:?}");
}

/// A folder model with this damage.
fn check_folder(damage: impl FnOnce(&Path), message: Expect) {
    let machine = Machine::new();
    let folder = machine.path("model");
    copy_folder(&data("tiny/llama-f16"), &folder);
    damage(&folder);
    let ran = machine.run(&["generate", "--model", "./model", "hi", "-n2"]);
    refused(&machine, &ran, 1, &message);
}

/// A folder model whose JSON file is this one.
fn check_json(file: &str, change: impl FnOnce(&mut Json), message: Expect) {
    let damage = |folder: &Path| {
        let path = folder.join(file);
        let mut json = serde_json::from_slice(&read(&path)).expect("JSON");
        change(&mut json);
        write(&path, json.to_string());
    };
    check_folder(damage, message);
}

/// A GGUF model with this damage.
fn check_gguf(damage: impl FnOnce(&mut Vec<u8>), message: Expect) {
    let machine = Machine::new();
    let mut bytes = read(&data("gguf/llama-f16.gguf"));
    damage(&mut bytes);
    write(&machine.path("model.gguf"), bytes);
    let ran = machine.run(&["generate", "--model", "model.gguf", "hi", "-n2"]);
    refused(&machine, &ran, 1, &message);
}

/// Arguments that a sound model is not started with.
fn check_usage(arguments: &[&str], message: Expect) {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let ran = machine.run(&[&["generate", "--model", &model], arguments].concat());
    refused(&machine, &ran, 64, &message);
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("the file is there")
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).expect("written");
}

/// Where the first `text` in `bytes` ends.
fn after(bytes: &[u8], text: &str) -> usize {
    let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    found.expect("the text is there") + text.len()
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// Writes `new` over the first `old`, which is as long.
fn replace(bytes: &mut [u8], old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    let at = after(bytes, old) - old.len();
    put(bytes, at, new.as_bytes());
}

#[test]
fn a_model_that_is_not_there() {
    for (model, message) in [
        (
            "./nowhere",
            expect![[r#"
            error: no such file or folder: ./nowhere
            hint: give a .gguf file, a model folder, org/name on the Hugging Face hub, or a name that `semantic models` lists
        "#]],
        ),
        (
            "nowhere.gguf",
            expect![[r#"
            error: no such file or folder: nowhere.gguf
            hint: give a .gguf file, a model folder, org/name on the Hugging Face hub, or a name that `semantic models` lists
        "#]],
        ),
        (
            "",
            expect![[r#"
            error: "" is not a model name: it is empty
            hint: give a .gguf file, a model folder, org/name on the Hugging Face hub, or a name that `semantic models` lists
        "#]],
        ),
        (
            "smolm2-135m",
            expect![[r#"
            error: unknown model "smolm2-135m"
            hint: did you mean smollm2-135m or smollm2-1.7b? known names: smollm2-135m, gemma-3-1b, llama-3.2-1b, smollm2-1.7b, llama-3.2-3b, gemma-3-4b, qwen3-4b, mistral-7b, qwen3-8b; or give a path or org/name
        "#]],
        ),
        (
            "xyzzy",
            expect![[r#"
            error: unknown model "xyzzy"
            hint: known names: smollm2-135m, gemma-3-1b, llama-3.2-1b, smollm2-1.7b, llama-3.2-3b, gemma-3-4b, qwen3-4b, mistral-7b, qwen3-8b; or give a path or org/name
        "#]],
        ),
        (
            "org/name",
            expect![[r#"
            error: org/name is not in the cache $HERE/home/cache/huggingface/hub, and the hub is switched off
            hint: to go on offline give a local model with --model PATH, or fetch it where there is a network and copy its folder into $HERE/home/cache/huggingface/hub; HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 switches the hub off
        "#]],
        ),
        (
            "../../x@@y",
            expect![[r#"
            error: no such file or folder: ../../x@@y
            hint: give a .gguf file, a model folder, org/name on the Hugging Face hub, or a name that `semantic models` lists
        "#]],
        ),
        (
            "/dev/null",
            expect![[r#"
            error: /dev/null is not a model: it is neither a folder nor a .gguf file
        "#]],
        ),
        (
            "pipe.gguf",
            expect![[r#"
            error: pipe.gguf is not a usable model: it is neither a file nor a folder
        "#]],
        ),
        (
            "empty",
            expect![[r#"
            error: empty is not a model: it holds neither config.json with *.safetensors nor a .gguf file
        "#]],
        ),
    ] {
        let machine = Machine::new();
        std::fs::create_dir(machine.path("empty")).expect("a folder");
        // Opened, it would wait for a writer for ever.
        let pipe = std::process::Command::new("mkfifo").arg(machine.path("pipe.gguf")).status();
        assert!(pipe.expect("mkfifo").success());
        let code = if model == "org/name" { 69 } else { 1 };
        refused(&machine, &machine.run(&["generate", "-m", model, "hi"]), code, &message);
    }
}

#[test]
fn a_damaged_folder() {
    let edit = |name: &'static str, change: fn(&mut Vec<u8>)| {
        move |folder: &Path| {
            let path = folder.join(name);
            let mut bytes = read(&path);
            change(&mut bytes);
            write(&path, bytes);
        }
    };
    let remove = |name: &'static str| {
        move |folder: &Path| std::fs::remove_file(folder.join(name)).expect("removed")
    };
    let first = "model-00001-of-00002.safetensors";
    check_folder(
        remove("config.json"),
        expect![[r#"
        error: ./model is not a model: it holds neither config.json with *.safetensors nor a .gguf file
    "#]],
    );
    check_folder(
        edit("config.json", Vec::clear),
        expect![[r#"
        error: ./model/config.json is not a usable model: EOF while parsing a value at line 1 column 0
    "#]],
    );
    check_folder(
        edit("config.json", |bytes| bytes.truncate(40)),
        expect![[r#"
        error: ./model/config.json is not a usable model: EOF while parsing a string at line 3 column 15
    "#]],
    );
    check_folder(
        edit("config.json", |bytes| *bytes = b"[1]".to_vec()),
        expect![[r#"
        error: ./model/config.json is not a usable model: invalid type: sequence, expected a map at line 1 column 0
    "#]],
    );
    check_folder(
        edit("config.json", |bytes| *bytes = b"[".repeat(1 << 20)),
        expect![[r#"
        error: ./model/config.json is not a usable model: invalid type: sequence, expected a map at line 1 column 0
    "#]],
    );

    check_folder(
        remove(first),
        expect![[r#"
            error: cannot read ./model/model-00001-of-00002.safetensors: No such file or directory (os error 2)
            hint: it has to be there and readable for this user; or give another model with --model
        "#]],
    );
    check_folder(
        edit(first, Vec::clear),
        expect![[r#"
        error: ./model/model-00001-of-00002.safetensors is not a usable model: it has 0 bytes, too few for a header
    "#]],
    );
    check_folder(
        edit(first, |bytes| bytes.truncate(5)),
        expect![[r#"
        error: ./model/model-00001-of-00002.safetensors is not a usable model: it has 5 bytes, too few for a header
    "#]],
    );
    check_folder(
        edit(first, |bytes| bytes.truncate(bytes.len() - 1)),
        expect![[r#"
        error: ./model/model-00001-of-00002.safetensors is not a usable model: its header describes 123136 bytes of tensors, the file has 123135; it is truncated or damaged
    "#]],
    );
    check_folder(
        edit(first, |bytes| bytes.truncate(500)),
        expect![[r#"
        error: ./model/model-00001-of-00002.safetensors is not a usable model: its header claims 1030 bytes; the file has 500
    "#]],
    );
    check_folder(
        edit(first, |bytes| put(bytes, 0, &(1u64 << 63).to_le_bytes())),
        expect![[r#"
        error: ./model/model-00001-of-00002.safetensors is not a usable model: its header claims 9223372036854775808 bytes; the file has 124174
    "#]],
    );
    check_folder(
        edit(first, |bytes| put(bytes, 8, b"?")),
        expect![[r#"
        error: ./model/model-00001-of-00002.safetensors is not a usable model: its header cannot be read: expected value at line 1 column 1
    "#]],
    );
    check_folder(
        edit(first, |bytes| replace(bytes, "\"F16\"", "\"F61\"")),
        expect![[r#"
        error: ./model/model-00001-of-00002.safetensors is not a usable model: its header cannot be read: unknown variant `F61`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1 column 1030
    "#]],
    );
    check_folder(
        edit(first, |bytes| replace(bytes, "[0,", "[9,")),
        expect![[r#"
        error: ./model/model-00001-of-00002.safetensors is not a usable model: its header cannot be read: invalid offset for tensor `model.layers.0.mlp.up_proj.weight`
    "#]],
    );
    check_folder(
        edit(first, |bytes| replace(bytes, "\"F16\"", "\"I16\"")),
        expect![[r#"
            error: ./model/model-00001-of-00002.safetensors: tensor "model.embed_tokens.weight": has type I16; wanted F32, F16 or BF16
        "#]],
    );
    check_folder(
        edit(first, |bytes| replace(bytes, "embed_tokens", "embed_tokenz")),
        expect![[r#"
            error: ./model: tensor "model.embed_tokens.weight" is missing
        "#]],
    );
    let index = "model.safetensors.index.json";
    check_folder(
        edit(index, |bytes| *bytes = b"{}".to_vec()),
        expect![[r#"
        error: ./model/model.safetensors.index.json is not a usable model: it has no weight_map
    "#]],
    );
    check_json(
        index,
        |json| json["weight_map"]["a"] = json!("../a.safetensors"),
        expect![[r#"
        error: ./model/model.safetensors.index.json is not a usable model: it names a file "../a.safetensors"
    "#]],
    );

    // Every exponent bit set: the weights are NaN.
    let nan = |bytes: &mut Vec<u8>| {
        let length = u64::from_le_bytes(*bytes.first_chunk().expect("a header")) as usize;
        bytes[8 + length..].fill(0xff);
    };
    check_folder(
        edit(first, nan),
        expect![[r#"
            error: ./model: the model computed NaN in its first step
        "#]],
    );
}

#[test]
fn a_configuration_that_makes_no_sense() {
    let check = |key: &'static str, value: Json, message| {
        check_json("config.json", move |json| json[key] = value, message);
    };
    check(
        "model_type",
        json!("frobnicator"),
        expect![[r#"
        error: ./model/config.json: model type "frobnicator" is not supported; supported: llama, mistral, qwen2, qwen3, gemma3, gemma3_text
    "#]],
    );
    check(
        "model_type",
        Json::Null,
        expect![[r#"
        error: ./model/config.json: model type "" is not supported; supported: llama, mistral, qwen2, qwen3, gemma3, gemma3_text
    "#]],
    );
    check(
        "hidden_size",
        Json::Null,
        expect![[r#"
        error: ./model/config.json is not a usable model: hidden_size is missing
    "#]],
    );
    check(
        "hidden_size",
        json!(-64),
        expect![[r#"
        error: ./model/config.json is not a usable model: hidden_size is -64; wanted an integer from 1 to 16777216
    "#]],
    );
    check(
        "hidden_size",
        json!(u64::MAX),
        expect![[r#"
        error: ./model/config.json is not a usable model: hidden_size is 18446744073709551615; wanted an integer from 1 to 16777216
    "#]],
    );
    check(
        "hidden_size",
        json!("64"),
        expect![[r#"
        error: ./model/config.json is not a usable model: hidden_size is "64"; wanted an integer from 1 to 16777216
    "#]],
    );
    check(
        "hidden_size",
        json!(128),
        expect![[r#"
            error: ./model/model-00001-of-00002.safetensors: tensor "model.embed_tokens.weight": has shape [288, 64], the configuration says [288, 128]
        "#]],
    );
    check(
        "vocab_size",
        json!(1 << 24),
        expect![[r#"
            error: ./model/model-00001-of-00002.safetensors: tensor "model.embed_tokens.weight": has shape [288, 64], the configuration says [16777216, 64]
        "#]],
    );
    check(
        "num_hidden_layers",
        json!(1 << 20),
        expect![[r#"
        error: ./model/config.json is not a usable model: num_hidden_layers is 1048576; at most 1024
    "#]],
    );
    check(
        "num_hidden_layers",
        json!(3),
        expect![[r#"
            error: ./model: tensor "model.layers.2.input_layernorm.weight" is missing
        "#]],
    );
    check(
        "num_attention_heads",
        json!(5),
        expect![[r#"
            error: ./model/config.json is not a usable model: 5 attention heads of 32 over 2 KV heads; the KV heads have to divide the others evenly, and a head's size has to be even
        "#]],
    );
    check(
        "head_dim",
        json!(1 << 24),
        expect![[r#"
            error: ./model/model-00001-of-00002.safetensors: tensor "model.layers.0.self_attn.q_proj.weight": has shape [128, 64], the configuration says [67108864, 64]
        "#]],
    );
    check(
        "head_dim",
        json!(31),
        expect![[r#"
            error: ./model/config.json is not a usable model: 4 attention heads of 31 over 2 KV heads; the KV heads have to divide the others evenly, and a head's size has to be even
        "#]],
    );
    check(
        "max_position_embeddings",
        json!(0),
        expect![[r#"
        error: ./model/config.json is not a usable model: max_position_embeddings is 0; wanted an integer from 1 to 16777216
    "#]],
    );
    check(
        "rms_norm_eps",
        json!("small"),
        expect![[r#"
        error: ./model/config.json is not a usable model: rms_norm_eps is "small"; wanted a number
    "#]],
    );
    check(
        "rope_theta",
        json!(0),
        expect![[r#"
        error: ./model/config.json is not a usable model: rope_theta is 0
    "#]],
    );
    check(
        "rope_scaling",
        json!({ "rope_type": "yarn", "factor": 4 }),
        expect![[r#"
        error: ./model/config.json is not a usable model: RoPE scaling "yarn" is not supported; supported: linear, llama3
    "#]],
    );
    check(
        "tie_word_embeddings",
        json!("no"),
        expect![[r#"
        error: ./model/config.json is not a usable model: tie_word_embeddings is "no"; wanted true or false
    "#]],
    );
    check(
        "quantization_config",
        json!({ "quant_method": "gptq" }),
        expect![[r#"
        error: ./model/config.json is not a usable model: quantization method "gptq" is not supported; supported: MLX affine, GGUF
    "#]],
    );
    check(
        "quantization",
        json!(4),
        expect![[r#"
        error: ./model/config.json is not a usable model: quantization is not an object
    "#]],
    );
}

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

#[test]
fn a_damaged_gguf() {
    let absurd = (1u64 << 63).to_le_bytes();
    check_gguf(
        Vec::clear,
        expect![[r#"
        error: model.gguf is not a usable model: the file is empty
    "#]],
    );
    check_gguf(
        |bytes| bytes.truncate(3),
        expect![[r#"
        error: model.gguf is not a usable model: the file ends at byte 3, inside its header
    "#]],
    );
    check_gguf(
        |bytes| bytes.truncate(30),
        expect![[r#"
        error: model.gguf is not a usable model: the file ends at byte 30, inside its header
    "#]],
    );
    check_gguf(
        |bytes| bytes.truncate(bytes.len() / 2),
        expect![[r#"
            error: model.gguf: tensor "blk.0.attn_output.weight": lies outside the file of 126944 bytes; the file is truncated or damaged
        "#]],
    );
    check_gguf(
        |bytes| put(bytes, 0, b"GGML"),
        expect![[r#"
        error: model.gguf is not a usable model: it does not begin with the letters GGUF
    "#]],
    );
    check_gguf(
        |bytes| put(bytes, 4, &[99]),
        expect![[r#"
        error: model.gguf is not a usable model: GGUF version 99 is not supported; supported: 2, 3
    "#]],
    );
    check_gguf(
        |bytes| put(bytes, 8, &absurd),
        expect![[r#"
        error: model.gguf is not a usable model: claims 9223372036854775808 tensors; at most 1048576
    "#]],
    );
    check_gguf(
        |bytes| put(bytes, 16, &absurd),
        expect![[r#"
        error: model.gguf is not a usable model: claims 9223372036854775808 metadata entries; at most 1048576
    "#]],
    );
    check_gguf(
        |bytes| put(bytes, 24, &absurd),
        expect![[r#"
        error: model.gguf is not a usable model: a string of 9223372036854775808 bytes with 253856 bytes of file left
    "#]],
    );
    let array = |bytes: &mut Vec<u8>| {
        let at = after(bytes, "tokenizer.ggml.tokens");
        put(bytes, at + 8, &absurd);
    };
    check_gguf(
        array,
        expect![[r#"
        error: model.gguf is not a usable model: tokenizer.ggml.tokens: an array of 9223372036854775808 elements does not fit the file
    "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "general.architecture", "general.architectura"),
        expect![[r#"
            error: model.gguf is not a usable model: general.architecture is missing
        "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "llama.embedding_length", "llama.embedding_lengtt"),
        expect![[r#"
            error: model.gguf is not a usable model: hidden_size is missing
        "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "blk.1.ffn_up", "blk.1.ffn_zz"),
        expect![[r#"
            error: model.gguf: tensor "blk.1.ffn_up.weight" is missing
        "#]],
    );
    let dimension = |bytes: &mut Vec<u8>, new: u64| {
        let at = after(bytes, "blk.1.ffn_up.weight");
        put(bytes, at + 4, &new.to_le_bytes());
    };
    check_gguf(
        |bytes| dimension(bytes, 32),
        expect![[r#"
            error: model.gguf: tensor "blk.1.ffn_up.weight": has shape [96, 32], the configuration says [96, 64]
        "#]],
    );
    check_gguf(
        |bytes| dimension(bytes, u64::MAX),
        expect![[r#"
        error: model.gguf: tensor "blk.1.ffn_up.weight": absurd shape [96, 18446744073709551615]
    "#]],
    );
    let dimensions = |bytes: &mut Vec<u8>| {
        let at = after(bytes, "blk.1.ffn_up.weight");
        put(bytes, at, &[200]);
    };
    check_gguf(
        dimensions,
        expect![[r#"
        error: model.gguf is not a usable model: tensor "blk.1.ffn_up.weight": has 200 dimensions; at most 4
    "#]],
    );
    let kind = |bytes: &mut Vec<u8>| {
        let at = after(bytes, "blk.1.ffn_up.weight");
        put(bytes, at + 20, &[10]);
    };
    check_gguf(
        kind,
        expect![[r#"
        error: model.gguf: tensor "blk.1.ffn_up.weight" has type Q2_K, which is not supported; supported: F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K
    "#]],
    );
    let architecture = |bytes: &mut Vec<u8>| {
        let at = after(bytes, "general.architecture");
        put(bytes, at + 12, b"gemma");
    };
    check_gguf(
        architecture,
        expect![[r#"
        error: model.gguf: model type "gemma" is not supported; supported: llama, mistral, qwen2, qwen3, gemma3, gemma3_text
    "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "gpt2", "wpm?"),
        expect![[r#"
        error: model.gguf: tokenizer.ggml.model "wpm?" is not supported
    "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "tokenizer.ggml.merges", "tokenizer.ggml.mergez"),
        expect![[r#"
            error: model.gguf: the vocabulary in the GGUF file is not valid: it has no merges
        "#]],
    );
    check_gguf(
        |bytes| *bytes = read(&data("gguf/unsupported.gguf")),
        expect![[r#"
        error: model.gguf: tensor "bad.weight" has type Q2_K, which is not supported; supported: F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K
    "#]],
    );
    check_gguf(
        |bytes| *bytes = read(&data("gguf/types.gguf")),
        expect![[r#"
        error: model.gguf is not a usable model: hidden_size is missing
    "#]],
    );
}

#[test]
fn a_setting_out_of_range() {
    check_usage(
        &["hi", "--temperature", "nan"],
        expect![[r#"
        error: temperature is NaN; it goes from 0 to 100
    "#]],
    );
    check_usage(
        &["hi", "--temperature", "-0.5"],
        expect![[r#"
        error: temperature is -0.5; it goes from 0 to 100
    "#]],
    );
    check_usage(
        &["hi", "--temperature", "inf"],
        expect![[r#"
        error: temperature is inf; it goes from 0 to 100
    "#]],
    );
    check_usage(
        &["hi", "--temperature", "hot"],
        expect![[r#"
        error: invalid value 'hot' for '--temperature <TEMPERATURE>': invalid float literal

        For more information, try '--help'.
    "#]],
    );
    check_usage(
        &["hi", "--top-p", "1.5"],
        expect![[r#"
        error: top_p is 1.5; it goes from 0 to 1
    "#]],
    );
    check_usage(
        &["hi", "--top-p", "nan"],
        expect![[r#"
        error: top_p is NaN; it goes from 0 to 1
    "#]],
    );
    check_usage(
        &["hi", "--min-p", "-1"],
        expect![[r#"
        error: min_p is -1; it goes from 0 to 1
    "#]],
    );
    check_usage(
        &["hi", "--repeat-penalty", "0"],
        expect![[r#"
        error: repeat_penalty is 0; it goes from 0.01 to 100
    "#]],
    );
    check_usage(
        &["hi", "--top-k", "0"],
        expect![[r#"
        error: top_k is 0; it is at least 1
    "#]],
    );
    check_usage(
        &["hi", "--top-k", "-5"],
        expect![[r#"
        error: invalid value '-5' for '--top-k <TOP_K>': invalid digit found in string

        For more information, try '--help'.
    "#]],
    );
    check_usage(
        &["hi", "--max-tokens", "0"],
        expect![[r#"
        error: max_tokens is 0; it is at least 1
    "#]],
    );
    check_usage(
        &["hi", "--max-tokens", "-1"],
        expect![[r#"
        error: invalid value '-1' for '--max-tokens <MAX_TOKENS>': invalid digit found in string

        For more information, try '--help'.
    "#]],
    );
    check_usage(
        &["hi", "--max-tokens", "99999999999999999999"],
        expect![[r#"
        error: invalid value '99999999999999999999' for '--max-tokens <MAX_TOKENS>': number too large to fit in target type

        For more information, try '--help'.
    "#]],
    );
    check_usage(
        &["hi", "--seed", "-1"],
        expect![[r#"
        error: invalid value '-1' for '--seed <SEED>': invalid digit found in string

        For more information, try '--help'.
    "#]],
    );
    check_usage(
        &["hi", "--stop", ""],
        expect![[r#"
        error: a stop text is empty
    "#]],
    );
    check_usage(
        &["hi", "--kv-bits", "3"],
        expect![[r#"
        error: invalid value '3' for '--kv-bits <BITS>': "3" is not one of 4, 8, 16, 32, with or without r

        For more information, try '--help'.
    "#]],
    );
}

/// More tokens than the context has left are no mistake: the reply ends where the context ends.
#[test]
fn an_absurd_max_tokens_ends_with_the_context() {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let most = usize::MAX.to_string();
    let ran = machine.run(&["generate", "-m", &model, "hi", "--json", "-n", &most]);
    let report: Json = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(report["usage"]["completion_tokens"], 512 - 19);
}

#[test]
fn a_setting_of_the_environment_or_the_file_out_of_range() {
    let model = data("tiny/llama-f16").display().to_string();
    let arguments = ["generate", "-m", &model, "hi"];
    for (name, value, message) in [
        (
            "SEMANTIC_TEMPERATURE",
            "nan",
            expect![[r#"
            error: temperature is NaN; it goes from 0 to 100
        "#]],
        ),
        (
            "SEMANTIC_MAX_TOKENS",
            "many",
            expect![[r#"
            error: invalid value 'many' for '--max-tokens <MAX_TOKENS>': invalid digit found in string

            For more information, try '--help'.
        "#]],
        ),
        (
            "SEMANTIC_KV_BITS",
            "",
            expect![[r#"
            error: invalid value '' for '--kv-bits <BITS>': "" is not one of 4, 8, 16, 32, with or without r

            For more information, try '--help'.
        "#]],
        ),
    ] {
        let machine = Machine::new();
        let mut command = machine.command(&arguments);
        command.env(name, value);
        refused(&machine, &machine.finish(command, b""), 64, &message);
    }
    for (text, message) in [
        (
            "[generate]\ntemperature = nan",
            expect![[r#"
                error: the configuration's [generate] is not valid: temperature is NaN; it goes from 0 to 100
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
        (
            "[generate]\ntop_k = 0",
            expect![[r#"
                error: the configuration's [generate] is not valid: top_k is 0; it is at least 1
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
        (
            "[generate]\ntop_k = -1",
            expect![[r#"
                error: the configuration config.toml is not valid: TOML parse error at line 2, column 9
                  |
                2 | top_k = -1
                  |         ^^
                invalid value: integer `-1`, expected usize
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
        (
            "[generate]\nmax_tokens = 0",
            expect![[r#"
                error: the configuration's [generate] is not valid: max_tokens is 0; it is at least 1
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
        (
            "[generate]\nstop = [\"\"]",
            expect![[r#"
                error: the configuration's [generate] is not valid: a stop text is empty
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
        (
            "[generate]\ntemprature = 1",
            expect![[r#"
                error: the configuration config.toml is not valid: TOML parse error at line 2, column 1
                  |
                2 | temprature = 1
                  | ^^^^^^^^^^
                unknown field `temprature`, expected one of `system`, `max_tokens`, `temperature`, `top_p`, `top_k`, `min_p`, `repeat_penalty`, `seed`, `kv_bits`, `device`, `threads`, `stop`
                did you mean `temperature`?
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
        (
            "model = ",
            expect![[r#"
                error: the configuration config.toml is not valid: TOML parse error at line 1, column 9
                  |
                1 | model = 
                  |         ^
                string values must be quoted, expected literal string
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
        (
            "data_dir = \"config.toml\"",
            expect![[r#"
                error: the data folder config.toml is not a folder
                hint: move it away, or give another --data-dir
            "#]],
        ),
    ] {
        let machine = Machine::new();
        write(&machine.path("config.toml"), text);
        let mut command = machine.command(&[&arguments[..], &["--config", "config.toml"]].concat());
        command.env_remove("SEMANTIC_DATA_DIR");
        refused(&machine, &machine.finish(command, b""), 1, &message);
    }
    for (config, message) in [
        (
            "nowhere.toml",
            expect![[r#"
                error: cannot read the configuration nowhere.toml: No such file or directory (os error 2)
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
        (
            ".",
            expect![[r#"
                error: cannot read the configuration .: Is a directory (os error 21)
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
        (
            "/dev/zero",
            expect![[r#"
                error: cannot read the configuration /dev/zero: it has more than 1048576 bytes
                hint: mend it in the configuration file, or name another with --config
            "#]],
        ),
    ] {
        let machine = Machine::new();
        refused(&machine, &machine.run(&["models", "--config", config]), 1, &message);
    }
}

#[test]
fn a_data_folder_that_is_a_file() {
    let machine = Machine::new();
    write(&machine.path("file"), "");
    let ran = machine.run(&["models", "--data-dir", "file"]);
    refused(
        &machine,
        &ran,
        1,
        &expect![[r#"
            error: the data folder file is not a folder
            hint: move it away, or give another --data-dir
        "#]],
    );
}

#[test]
fn a_bad_prompt() {
    check_usage(
        &[""],
        expect![[r#"
        error: the prompt is empty
    "#]],
    );
    check_usage(
        &[" \n"],
        expect![[r#"
        error: the prompt is empty
    "#]],
    );
    check_usage(
        &["-"],
        expect![[r#"
        error: the prompt is empty
    "#]],
    );
    check_usage(
        &[],
        expect![[r#"
        error: the prompt is empty
    "#]],
    );

    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let arguments = ["generate", "-m", &model, "-"];
    let ran = machine.finish(machine.command(&arguments), b"gr\xfc\xdfe");
    refused(
        &machine,
        &ran,
        1,
        &expect![[r#"
            error: stdin is not UTF-8: byte 2 begins no character
            hint: `iconv -f latin1 -t utf-8` makes UTF-8 of Latin-1, for instance
        "#]],
    );
    let ran = machine.finish(machine.command(&arguments), "word ".repeat(1000).as_bytes());
    refused(
        &machine,
        &ran,
        1,
        &expect![[r#"
            error: the prompt has 2019 tokens; the model's context is 512
            hint: shorten it, or take a model with a longer context
        "#]],
    );
}

#[test]
fn a_hub_out_of_reach_or_with_wrong_bytes() {
    let run = |machine: &Machine, endpoint: &str| {
        let mut command = machine.command(&["generate", "-m", "org/name", "hi"]);
        command.env("HF_ENDPOINT", endpoint).env_remove("HF_HUB_OFFLINE");
        machine.finish(command, b"")
    };
    // Nobody listens on port 1. The number of that error differs between systems.
    for endpoint in ["http://127.0.0.1:1", "nonsense"] {
        let machine = Machine::new();
        let ran = run(&machine, endpoint);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(69), ""), "{ran:?}");
        let start = format!("error: cannot reach the hub for org/name: {endpoint}");
        assert!(ran.stderr.starts_with(&start), "{ran:?}");
        assert!(ran.stderr.contains("\nhint: to go on offline give a local model"), "{ran:?}");
        assert_eq!(machine.stored(), Vec::<String>::new());
    }

    let machine = Machine::new();
    let hub = Hub::new(&[("a.gguf", &[7; 5000])]);
    hub.fail("/cdn/", Fault::WrongBytes, 9);
    let ran = run(&machine, &hub.url);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.stderr.contains("error: checksum mismatch: a.gguf should be SHA-256"), "{ran:?}");
    let stored = machine.stored();
    assert!(stored.iter().all(|file| !file.ends_with(".gguf")), "{stored:?}");
}

/// MLX ended the process with a segmentation fault.
#[cfg(target_os = "linux")]
#[test]
fn a_kv_cache_larger_than_the_memory() {
    let machine = Machine::new();
    let folder = machine.path("model");
    copy_folder(&data("tiny/llama-f16"), &folder);
    let config = folder.join("config.json");
    let text = String::from_utf8(read(&config)).expect("UTF-8");
    write(&config, text.replace(": 512,", ": 16777216,"));
    let arguments = ["generate", "-m", "./model", "hi", "-n16000000"];
    let limited = machine.limited("-v 4000000", &arguments);
    refused(
        &machine,
        &machine.finish(limited, b""),
        1,
        &expect![[r#"
            error: ./model: not enough memory for the KV cache of 16000256 tokens, 144 bytes each in 2 layers; hint: a smaller --max-tokens or fewer --kv-bits
        "#]],
    );
}

/// Small numbers whose meaning is fixed by their seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        // Steele, Lea and Flood's SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// Cuts, or changes a few bytes, most of them near the start where the headers are.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        if self.below(8) == 0 {
            let length = self.below(bytes.len());
            bytes.truncate(length);
            return;
        }
        for _ in 0..=self.below(4) {
            let area = [64, 2048, 16_384, bytes.len()][self.below(4)].min(bytes.len());
            let at = self.below(area);
            bytes[at] = match self.below(4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[at] ^ (1 << self.below(8)),
                _ => self.below(256) as u8,
            };
        }
    }

    /// Puts something unlikely in the place of some value.
    fn spoil_json(&mut self, json: &mut Json) {
        let unlikely = [
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(1),
            json!(7),
            json!(1 << 24),
            json!(u32::MAX),
            json!(u64::MAX),
            json!(1e308),
            json!(""),
            json!("▁"),
            json!([]),
            json!({}),
            json!([[]]),
            json!("{% for x in y"),
        ];
        match json {
            Json::Array(items) if !items.is_empty() && self.below(8) > 0 => {
                let index = self.below(items.len());
                self.spoil_json(&mut items[index]);
            }
            Json::Object(map) if !map.is_empty() && self.below(8) > 0 => {
                let index = self.below(map.len());
                let value = map.values_mut().nth(index).expect("within the length");
                self.spoil_json(value);
            }
            other => *other = unlikely[self.below(unlikely.len())].clone(),
        }
    }
}

/// Everything that is done with a model's files, as far as they allow.
fn use_model(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let files = ModelFiles::open(path)?;
    if let Ok(text) = files.text() {
        if let Ok(tokenizer) = Tokenizer::new(&text) {
            let _ = tokenizer.encode("<|im_start|>Grüße, 123!\n", Special::Parse);
            let _ = tokenizer.encode_raw("the end");
            tokenizer.decode(&(0..400).map(TokenId).collect::<Vec<_>>());
        }
        if let Ok(template) = ChatTemplate::new(&text) {
            let options = RenderOptions::new(SystemTime::UNIX_EPOCH);
            let _ = template.render(&[Message::new("user", "hi")], &options);
        }
    }
    for device in [Device::Cpu, Device::Portable] {
        let kv = "8".parse()?;
        let mut model = files.load(LoadOptions { kv, pool_blocks: 1, device, threads: Some(1) })?;
        let tokens = [TokenId(5), TokenId(6)];
        let row = Row { tokens: &tokens, start: 0, blocks: &[BlockId(0)], logits: Wanted::Last };
        // A kernel's panic comes back as an error.
        if let Err(error) = model.step(&Batch { rows: vec![row] }) {
            assert!(!error.to_string().contains("panicked"), "{error}");
            return Err(error.into());
        }
    }
    Ok(())
}

/// `SEMANTIC_TEST_CASES` asks for more; a case is its number, so a failure repeats itself.
fn for_each_case(check: impl Fn(&mut Dice)) {
    let cases = std::env::var("SEMANTIC_TEST_CASES").ok().and_then(|count| count.parse().ok());
    for case in 0..cases.unwrap_or(150) {
        let run = || check(&mut Dice(case));
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            let reason = panic.downcast_ref::<String>().map(String::as_str);
            let reason = reason.or(panic.downcast_ref::<&str>().copied());
            panic!("case {case} panicked: {}", reason.unwrap_or("for no known reason"));
        }
    }
}

#[test]
fn a_spoilt_gguf_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let sources = ["llama-f16", "llama-legacy-quants", "llama3-rope", "qwen3-q4-k-m", "gemma3"];
    let sources = sources.map(|name| read(&data(&format!("gguf/{name}.gguf"))));
    for_each_case(|dice| {
        let mut bytes = sources[dice.below(sources.len())].clone();
        dice.spoil(&mut bytes);
        write(&path, bytes);
        let _ = use_model(&path);
    });
}

#[test]
fn a_spoilt_folder_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = data("tiny/llama-f16");
    let json = ["config.json", "tokenizer.json", "tokenizer_config.json"];
    let others = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"];
    copy_folder(&source, folder.path());
    for_each_case(|dice| {
        let name = [&json[..], &json, &others].concat()[dice.below(8)];
        let mut bytes = read(&source.join(name));
        match json.contains(&name) && dice.below(4) > 0 {
            false => dice.spoil(&mut bytes),
            true => {
                let mut value: Json = serde_json::from_slice(&bytes).expect("JSON");
                dice.spoil_json(&mut value);
                bytes = value.to_string().into_bytes();
            }
        }
        write(&folder.path().join(name), bytes);
        let _ = use_model(folder.path());
        write(&folder.path().join(name), read(&source.join(name)));
    });
}

#[test]
fn a_spoilt_configuration_with_windows_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&data("tiny/gemma3-q4-g32"), folder.path());
    let path = folder.path().join("config.json");
    let source: Json = serde_json::from_slice(&read(&path)).expect("JSON");
    for_each_case(|dice| {
        let mut value = source.clone();
        dice.spoil_json(&mut value);
        write(&path, value.to_string());
        let _ = use_model(folder.path());
    });
}

#[test]
fn a_spoilt_tokenizer_of_the_sentence_piece_kind_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&data("tiny/llama-f16"), folder.path());
    let source = read(&data("text/sentence_piece.tokenizer.json"));
    let source: Json = serde_json::from_slice(&source).expect("JSON");
    for_each_case(|dice| {
        let mut value = source.clone();
        dice.spoil_json(&mut value);
        write(&folder.path().join("tokenizer.json"), value.to_string());
        let files = ModelFiles::open(folder.path()).expect("the rest is sound");
        let text = files.text().expect("it is there");
        if let Ok(tokenizer) = Tokenizer::new(&text) {
            let _ = tokenizer.encode_raw("Grüße, 123!\n");
        }
    });
}
