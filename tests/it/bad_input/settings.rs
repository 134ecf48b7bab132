//! Settings, prompts and surroundings that no model can be run with.

use super::*;

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
            error: invalid value 'hot' for '--temperature <T>': invalid float literal

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
            error: invalid value '-5' for '--top-k <COUNT>': invalid digit found in string

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
            error: invalid value '-1' for '--max-tokens <TOKENS>': invalid digit found in string

            For more information, try '--help'.
        "#]],
    );
    check_usage(
        &["hi", "--max-tokens", "99999999999999999999"],
        expect![[r#"
            error: invalid value '99999999999999999999' for '--max-tokens <TOKENS>': number too large to fit in target type

            For more information, try '--help'.
        "#]],
    );
    check_usage(
        &["hi", "--seed", "-1"],
        expect![[r#"
            error: invalid value '-1' for '--seed <NUMBER>': invalid digit found in string

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
                error: invalid value 'many' for '--max-tokens <TOKENS>': invalid digit found in string

                For more information, try '--help'.
            "#]],
        ),
        (
            "SEMANTIC_KV_BITS",
            "5",
            expect![[r#"
            error: invalid value '5' for '--kv-bits <BITS>': "5" is not one of 4, 8, 16, 32, with or without r

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
