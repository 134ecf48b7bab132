//! `show --text` and `explain`.

use super::*;

/// The tiny model with another configuration.
fn other_model(machine: &Machine) -> String {
    let folder = machine.path("other");
    copy_folder(&tiny(), &folder);
    let config = folder.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(config, text.replace(": 512,", ": 1024,")).unwrap();
    folder.display().to_string()
}

/// As the tiny model's template has it.
fn turn(system: &str, user: &str) -> String {
    format!(
        "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n\
         <|im_start|>assistant\n"
    )
}

#[test]
fn the_text_is_shown_on_request() {
    let machine = machine_with_a_conversation(&[&turn("Be brief.\u{7}", "Hi\n\tthere")]);
    check(
        &machine,
        &["show", "poet", "--text"],
        expect![[r#"
        agent poet in namespace local: 1.5 kB, of which 0 B are shared

        GEN  CONVERSATION  STATE  TOKENS  ON DISK    SIZE  SAVED AT
          1             1  live       44       44  1.5 kB  2026-01-02T03:04:05Z

        generation 1
          model        $TINY
          computed by  cpu, semantic 0.1.0
          fingerprint  #64
          replies      33–44

        BLOCK  TOKENS   SIZE  NAME                  DIGEST
            0      44  960 B  #20  #20

        --- prompt, tokens 0–33
        <|im_start|>system
        Be brief.\u{7}<|im_end|>
        <|im_start|>user
        Hi
        	there<|im_end|>

        --- reply, tokens 33–44
        <|im_start|>assistant
    "#]],
    );
    // The save names the model by its path.
    let bytes = format!("\"bytes\": {},", 1418 + tiny().display().to_string().len());
    let text = shown(&machine, &["show", "poet", "--text", "--json"]);
    expect![[r##"
        {
          "agent": "poet",
          "namespace": "local",
          "bytes": $BYTES,
          "shared_bytes": 0,
          "pinned": false,
          "ttl_seconds": null,
          "expires_at": null,
          "saves": [
            {
              "generation": 1,
              "conversation": 1,
              "is_live": true,
              "saved_at": "2026-01-02T03:04:05Z",
              "model": "$TINY",
              "producer": "cpu, semantic 0.1.0",
              "fingerprint": "#64",
              "tokens": 44,
              "restorable_tokens": 44,
              "bytes": $BYTES,
              "replies": [
                [
                  33,
                  44
                ]
              ],
              "blocks": [
                {
                  "name": "#64",
                  "digest": "#64",
                  "tokens": 44,
                  "bytes": 960
                }
              ]
            }
          ],
          "text": {
            "generation": 1,
            "parts": [
              {
                "is_reply": false,
                "tokens": [
                  0,
                  33
                ],
                "text": "<|im_start|>system\nBe brief.\u0007<|im_end|>\n<|im_start|>user\nHi\n\tthere<|im_end|>\n"
              },
              {
                "is_reply": true,
                "tokens": [
                  33,
                  44
                ],
                "text": "<|im_start|>assistant\n"
              }
            ]
          }
        }
    "##]]
    .assert_eq(&text.replace(&bytes, "\"bytes\": $BYTES,"));
    let other = other_model(&machine);
    let ran = cache(&machine, &["show", "poet", "--text", "--model", &other]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("is not the model that this was saved with"), "{ran:?}");
    let machine = machine_with_agents();
    check(
        &machine,
        &["show", "planner", "--text"],
        expect![[r#"
        ! error: the model smollm2-135m is not on this machine
        ! hint: --model says where it is now
        exit code Some(1)
    "#]],
    );
}

#[test]
fn a_miss_is_explained() {
    let whole = turn("Today is 2026-01-02. Be brief.", "Hi");
    let machine = machine_with_a_conversation(&[&(whole.clone() + "Hello, you<|im_end|>\n")]);
    let explain = |arguments: &[&str]| {
        shown(&machine, &[&["explain", "poet", "--prompt"], arguments].concat())
    };
    let today = "Today is 2026-01-02. Be brief.";
    expect![[r#"
        59 of 59 tokens can be used (generation 1 of "poet" has 69)
        nothing differs: all of the prompt is stored
    "#]]
    .assert_eq(&explain(&["Hi", "--system", today]));
    expect![[r#"
        26 of 59 tokens can be used (generation 1 of "poet" has 69)
        token 26 is the first that differs:
          stored  <|im_start|>system\nToday is 2026-01-02. Be brief.<|im_end|>\n<|im_start|>user\n
          given   <|im_start|>system\nToday is 2026-01-05. Be brief.<|im_end|>\n<|im_start|>user\n
                                                        ^
        cause: a date that changes
        advice: put what changes after what stays, at best into the newest message
    "#]]
    .assert_eq(&explain(&["Hi", "--system", "Today is 2026-01-05. Be brief."]));
    expect![[r#"
        8 of 36 tokens can be used (generation 1 of "poet" has 69)
        token 8 is the first that differs:
          stored  <|im_start|>system\nToday is 2026-01-02. Be brief.<|im_end|>
          given   <|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|
                                      ^
        cause: the system message has changed
        advice: keep the system message as it is, and first
    "#]]
    .assert_eq(&explain(&["Hi", "--system", "Be kind."]));
    expect![[r#"
        1 of 19 tokens can be used (generation 1 of "poet" has 69)
        token 1 is the first that differs:
          stored  <|im_start|>system\nToday is 2026-01-02. Be brief.<|i
          given   <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n
                              ^
        cause: the system message is elsewhere, or in one of them only
        advice: keep the system message as it is, and first
    "#]]
    .assert_eq(&explain(&["Hi"]));
    expect![[r#"
        {
          "agent": "poet",
          "namespace": "local",
          "model": "$TINY",
          "generation": 1,
          "stored_tokens": 69,
          "given_tokens": 59,
          "same_tokens": 45,
          "difference": {
            "token": 45,
            "stored_token": 109,
            "given_token": 115,
            "before": ". Be brief.<|im_end|>\n<|im_start|>user\nH",
            "stored": "i<|im_end|>\n<|im_start|>assistant\nHello,",
            "given": "o<|im_end|>\n<|im_start|>assistant\n"
          },
          "cause": "message",
          "explanation": "a message of the user has changed",
          "advice": null
        }
    "#]]
    .assert_eq(&explain(&["Ho", "--system", today, "--json"]));
    expect![[r#"
        0 of 59 tokens can be used (generation 1 of "poet" has 69)
        cause: its KV was saved with 8/8 bits, and 8/4 are asked for
        advice: go on with the model and the --kv-bits it was saved with
    "#]]
    .assert_eq(&explain(&["Hi", "--system", today, "--kv-bits", "8/4"]));
    let other = other_model(&machine);
    let ran = explain(&["Hi", "--model", &other]);
    assert!(ran.contains("cause: another model, or other bits of its KV cache"), "{ran}");
    let longer = format!("{whole}Hello, you<|im_end|>\n<|im_start|>user\nGo on");
    expect![[r#"
        69 of 77 tokens can be used (generation 1 of "poet" has 69)
        nothing differs: the prompt goes on where what is stored ends
    "#]]
    .assert_eq(&explain(&[&longer, "--raw"]));
    let stdin = machine.finish(
        machine.command(&["cache", "explain", "poet", "--prompt", "-", "--raw"]),
        longer.as_bytes(),
    );
    assert_eq!(stdin.code, Some(0), "{stdin:?}");
    assert!(stdin.stdout.contains("nothing differs"), "{stdin:?}");
}

#[test]
fn a_conversation_that_began_anew_is_explained() {
    let machine =
        machine_with_a_conversation(&[&turn("It is 10:30.", "Hi"), &turn("It is 10:45.", "Hi")]);
    check(
        &machine,
        &["explain", "poet"],
        expect![[r#"
            17 of 41 tokens can be used (generation 1 of "poet" has 41)
            token 17 is the first that differs:
              stored  <|im_start|>system\nIt is 10:30.<|im_end|>\n<|im_start|>user\nHi<|im_en
              given   <|im_start|>system\nIt is 10:45.<|im_end|>\n<|im_start|>user\nHi<|im_en
                                                   ^
            cause: a time that changes
            advice: put what changes after what stays, at best into the newest message
        "#]],
    );
    check(
        &machine_with_a_conversation(&["Hi"]),
        &["explain", "poet"],
        expect![[r#"
        ! error: "poet" has one conversation, and nothing to compare it with
        ! hint: --prompt gives a text
        exit code Some(1)
    "#]],
    );
    let machine = machine_with_agents();
    check(
        &machine,
        &["explain", "planner"],
        expect![[r#"
        ! error: the model smollm2-135m is not on this machine
        ! hint: --model says where it is now
        exit code Some(1)
    "#]],
    );
}
