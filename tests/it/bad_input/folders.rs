//! Folders of a model that are not there, are damaged, or make no sense.

use super::*;

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
