//! `semantic cache` as its users see it, on a store that was made without a model.

use std::path::PathBuf;

use expect_test::{Expect, expect};
use semantic::types::Fingerprint;
use serde_json::Value as Json;

use crate::support::agents::{
    Agents, ODD, files, ids_of, machine_with_agents, model, model_of, tiny,
};
use crate::support::cli::{Machine, Ran, copy_folder};

fn cache(machine: &Machine, arguments: &[&str]) -> Ran {
    machine.run(&[&["cache"], arguments].concat())
}

/// What a command printed, and its exit code if it is not 0.
fn shown(machine: &Machine, arguments: &[&str]) -> String {
    let Ran { code, stdout, stderr } = cache(machine, arguments);
    let mut text = stdout;
    for line in stderr.lines() {
        text += format!("! {line}").trim_end();
        text.push('\n');
    }
    if code != Some(0) {
        text += &format!("exit code {code:?}\n");
    }
    without_names(&machine.anonymous(&text).replace(&tiny().display().to_string(), "$TINY"))
}

/// Names and digests of blocks are others in every store.
fn without_names(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_hex) {
        let end = rest[start..].find(|c| !is_hex(c)).map_or(rest.len(), |end| start + end);
        out += &rest[..start];
        let word = &rest[start..end];
        let is_repeated = word.bytes().all(|byte| byte == b'0' || byte == b'7');
        match word.len() {
            20 | 32 | 64 if !is_repeated => out += &format!("#{}", word.len()),
            2 if out.ends_with("/b/") => out += "#2",
            _ => out += word,
        }
        rest = &rest[end..];
    }
    out + rest
}

fn check(machine: &Machine, arguments: &[&str], expected: Expect) {
    expected.assert_eq(&shown(machine, arguments));
}

fn json(machine: &Machine, arguments: &[&str]) -> Json {
    let ran = cache(machine, &[arguments, &["--json"]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("one JSON object")
}

fn agents(machine: &Machine) -> Vec<String> {
    let list = json(machine, &["list", "--all-namespaces"]);
    let all = list["agents"].as_array().expect("a list").iter();
    all.map(|it| it["agent"].as_str().expect("a name").to_owned()).collect()
}

/// The file that ends so and has so many bytes.
fn file(machine: &Machine, ends: &str, bytes: u64) -> PathBuf {
    let paths = machine.stored().into_iter().filter(|path| path.ends_with(ends));
    let mut found = paths
        .map(|path| machine.path(&path))
        .filter(|path| std::fs::metadata(path).unwrap().len() == bytes);
    let path = found.next().expect("such a file");
    assert_eq!(found.next(), None, "only one is so");
    path
}

fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().expect("it has some") ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn list_shows_what_agents_take() {
    let machine = machine_with_agents();
    check(
        &machine,
        &["list"],
        expect![[r#"
            AGENT               MODEL         TOKENS     SIZE  SHARED  GEN  LAST USED (UTC)
            od\u{1b}[2Jd\nname  smollm2-135m       9    738 B     0 B    1  2026-01-02 07:04
            planner             smollm2-135m      20  16.7 kB  8.7 kB    3  2026-01-02 05:04
            reviewer            smollm2-135m     612  13.5 kB  8.7 kB    1  2026-01-02 06:04
        "#]],
    );
    check(
        &machine,
        &["list", "--all-namespaces"],
        expect![[r#"
            AGENT               NAMESPACE  MODEL         TOKENS     SIZE  SHARED  GEN  LAST USED (UTC)
            od\u{1b}[2Jd\nname  local      smollm2-135m       9    738 B     0 B    1  2026-01-02 07:04
            planner             local      smollm2-135m      20  16.7 kB  8.7 kB    3  2026-01-02 05:04
            reviewer            local      smollm2-135m     612  13.5 kB  8.7 kB    1  2026-01-02 06:04
            writer              team       smollm2-135m     300   6.9 kB     0 B    1  2026-01-02 08:04
        "#]],
    );
    check(
        &machine,
        &["list", "--namespace", "team", "--json"],
        expect![[r#"
        {
          "agents": [
            {
              "agent": "writer",
              "namespace": "team",
              "model": "smollm2-135m",
              "tokens": 300,
              "bytes": 6881,
              "shared_bytes": 0,
              "generation": 1,
              "conversations": 1,
              "last_used": "2026-01-02T08:04:05Z"
            }
          ]
        }
    "#]],
    );
    check(
        &machine,
        &["list", "--namespace", "nobody"],
        expect![[r#"
        ! no agent is stored in namespace nobody; --all-namespaces lists the 4 of others
    "#]],
    );
    check(
        &machine,
        &["list", "--namespace", ""],
        expect![[r#"
            ! error: invalid value '' for '--namespace <NAMESPACE>': the namespace is empty
            !
            ! For more information, try '--help'.
            exit code Some(64)
        "#]],
    );
    check(
        &Machine::new(),
        &["list"],
        expect![[r#"
        ! no agent is stored yet
    "#]],
    );
    check(
        &Machine::new(),
        &["list", "--json"],
        expect![[r#"
        {
          "agents": []
        }
    "#]],
    );
}

#[test]
fn show_has_saves_and_blocks() {
    let machine = machine_with_agents();
    check(
        &machine,
        &["show", "planner"],
        expect![[r#"
        agent planner in namespace local: 16.7 kB, of which 8.7 kB are shared

        GEN  CONVERSATION  STATE  TOKENS  ON DISK     SIZE  SAVED AT
          3             2  live       20       20    953 B  2026-01-02T05:04:05Z
          2             1  live      600      600  13.2 kB  2026-01-02T04:04:05Z
          1             1  older     300      300   6.9 kB  2026-01-02T03:04:05Z

        generation 3
          model        smollm2-135m
          computed by  cpu, semantic 0.1.0
          fingerprint  0707070707070707070707070707070707070707070707070707070707070707
          replies      15–20

        BLOCK  TOKENS   SIZE  NAME                  DIGEST
            0      20  576 B  #20  #20
    "#]],
    );
    check(
        &machine,
        &["show", "planner", "--generation", "2"],
        expect![[r#"
        agent planner in namespace local: 16.7 kB, of which 8.7 kB are shared

        GEN  CONVERSATION  STATE  TOKENS  ON DISK     SIZE  SAVED AT
          3             2  live       20       20    953 B  2026-01-02T05:04:05Z
          2             1  live      600      600  13.2 kB  2026-01-02T04:04:05Z
          1             1  older     300      300   6.9 kB  2026-01-02T03:04:05Z

        generation 2
          model        smollm2-135m
          computed by  cpu, semantic 0.1.0
          fingerprint  0707070707070707070707070707070707070707070707070707070707070707
          replies      450–600

        BLOCK  TOKENS    SIZE  NAME                  DIGEST
            0     256  4.4 kB  #20  #20
            1     256  4.4 kB  #20  #20
            2      88  1.7 kB  #20  #20
    "#]],
    );
    check(
        &machine,
        &["show", "planner", "--generation", "9"],
        expect![[r#"
            ! error: "planner" has no save with generation 9
            ! hint: there are generations 3, 2, 1
            exit code Some(1)
        "#]],
    );
    check(
        &machine,
        &["show", "reviewer", "--json"],
        expect![[r##"
        {
          "agent": "reviewer",
          "namespace": "local",
          "bytes": 13454,
          "shared_bytes": 8704,
          "saves": [
            {
              "generation": 1,
              "conversation": 3,
              "is_live": true,
              "saved_at": "2026-01-02T06:04:05Z",
              "model": "smollm2-135m",
              "producer": "cpu, semantic 0.1.0",
              "fingerprint": "0707070707070707070707070707070707070707070707070707070707070707",
              "tokens": 612,
              "restorable_tokens": 612,
              "bytes": 13454,
              "replies": [
                [
                  459,
                  612
                ]
              ],
              "blocks": [
                {
                  "name": "#64",
                  "digest": "#64",
                  "tokens": 256,
                  "bytes": 4352
                },
                {
                  "name": "#64",
                  "digest": "#64",
                  "tokens": 256,
                  "bytes": 4352
                },
                {
                  "name": "#64",
                  "digest": "#64",
                  "tokens": 100,
                  "bytes": 1856
                }
              ]
            }
          ]
        }
    "##]],
    );
    check(
        &machine,
        &["show", ODD],
        expect![[r#"
            agent od\u{1b}[2Jd\nname in namespace local: 738 B, of which 0 B are shared

            GEN  CONVERSATION  STATE  TOKENS  ON DISK   SIZE  SAVED AT
              1             4  live        9        9  738 B  2026-01-02T07:04:05Z

            generation 1
              model        smollm2-135m
              computed by  cpu, semantic 0.1.0
              fingerprint  0707070707070707070707070707070707070707070707070707070707070707
              replies      7–9

            BLOCK  TOKENS   SIZE  NAME                  DIGEST
                0       9  400 B  #20  #20
        "#]],
    );
}

#[test]
fn an_unknown_agent_is_told_with_the_nearest_name() {
    let machine = machine_with_agents();
    check(
        &machine,
        &["show", "planer"],
        expect![[r#"
        ! error: no agent "planer" in namespace local
        ! hint: did you mean "planner"?
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["show", "writer"],
        expect![[r#"
        ! error: no agent "writer" in namespace local
        ! hint: it is in another namespace: --namespace team
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["rollback", "zzz"],
        expect![[r#"
        ! error: no agent "zzz" in namespace local
        ! hint: `semantic cache list` shows those that there are
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["evict", "reviewer", "planners", "--yes"],
        expect![[r#"
        ! error: no agent "planners" in namespace local
        ! hint: did you mean "planner"?
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["show", ""],
        expect![[r#"
            ! error: invalid value '' for '<AGENT>': the agent id is empty
            !
            ! For more information, try '--help'.
            exit code Some(64)
        "#]],
    );
    assert_eq!(agents(&machine).len(), 4);
}

#[test]
fn evict_needs_a_yes() {
    let machine = machine_with_agents();
    let before = files(&machine);
    check(
        &machine,
        &["evict", "planner"],
        expect![[r#"
        ! error: this removes 1 agent (8.0 kB) from disk; --yes says that it is meant
        exit code Some(64)
    "#]],
    );
    check(
        &machine,
        &["evict"],
        expect![[r#"
            ! error: the following required arguments were not provided:
            !   <AGENT|--all|--older-than <DURATION>|--to-size <BYTES>>
            !
            ! Usage: semantic cache evict --data-dir <FOLDER> --log-format <FORMAT> <AGENT|--all|--older-than <DURATION>|--to-size <BYTES>>
            !
            ! For more information, try '--help'.
            exit code Some(64)
        "#]],
    );
    check(
        &machine,
        &["evict", "planner", "--all", "--yes"],
        expect![[r#"
            ! error: the argument '[AGENT]...' cannot be used with '--all'
            !
            ! Usage: semantic cache evict --yes --data-dir <FOLDER> --log-format <FORMAT> <AGENT|--all|--older-than <DURATION>|--to-size <BYTES>>
            !
            ! For more information, try '--help'.
            exit code Some(64)
        "#]],
    );
    check(
        &machine,
        &["evict", "--older-than", "soon", "--yes"],
        expect![[r#"
            ! error: invalid value 'soon' for '--older-than <DURATION>': "soon" is not a number with s, m, h, d or w, as in 30d
            !
            ! For more information, try '--help'.
            exit code Some(64)
        "#]],
    );
    check(
        &machine,
        &["evict", "--to-size", "some", "--yes"],
        expect![[r#"
            ! error: invalid value 'some' for '--to-size <BYTES>': "some" is not a number of bytes, as in 500MB or 10GB
            !
            ! For more information, try '--help'.
            exit code Some(64)
        "#]],
    );
    let after = files(&machine);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    check(
        &machine,
        &["evict", "planner", "planner", "--yes"],
        expect![[r#"
        removed "planner": 8.0 kB
    "#]],
    );
    assert!(!agents(&machine).contains(&"planner".to_owned()));
    check(
        &machine,
        &["evict", "--all", "--yes", "--json"],
        expect![[r#"
            {
              "namespace": "local",
              "removed": [
                "od\u001b[2Jd\nname",
                "reviewer"
              ],
              "freed_bytes": 14192
            }
        "#]],
    );
    assert_eq!(agents(&machine), ["writer"]);
    check(
        &machine,
        &["evict", "--all", "--yes"],
        expect![[r#"
        nothing to remove
    "#]],
    );
    check(
        &machine,
        &["evict", "--all", "--yes", "--namespace", "team"],
        expect![[r#"
        removed "writer": 6.9 kB
    "#]],
    );
    assert_eq!(agents(&machine), Vec::<String>::new());
    let blocks = machine.stored().into_iter().filter(|path| path.ends_with(".safetensors"));
    assert_eq!(blocks.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn evict_takes_the_least_recently_used() {
    let machine = machine_with_agents();
    check(
        &machine,
        &["evict", "--older-than", "9999w", "--yes"],
        expect![[r#"
        nothing to remove
    "#]],
    );
    // Agents share, so the first to go give back less than they take.
    check(
        &machine,
        &["evict", "--to-size", "16kB", "--yes"],
        expect![[r#"
        removed "planner": 8.0 kB
    "#]],
    );
    check(
        &machine,
        &["evict", "--to-size", "1GB", "--yes"],
        expect![[r#"
        nothing to remove
    "#]],
    );
    check(
        &machine,
        &["evict", "--to-size", "5 kB", "--yes"],
        expect![[r#"
        removed "reviewer": 13.5 kB
    "#]],
    );
    check(
        &machine,
        &["list"],
        expect![[r#"
            AGENT               MODEL         TOKENS   SIZE  SHARED  GEN  LAST USED (UTC)
            od\u{1b}[2Jd\nname  smollm2-135m       9  738 B     0 B    1  2026-01-02 07:04
        "#]],
    );
    check(
        &machine,
        &["evict", "--older-than", "1s", "--yes"],
        expect![[r#"
            removed "od\u{1b}[2Jd\nname": 738 B
        "#]],
    );
}

#[test]
fn a_damaged_file_is_found_and_repaired() {
    let machine = machine_with_agents();
    check(
        &machine,
        &["verify"],
        expect![[r#"
        6 saves and 9 blocks were read, 29.1 kB: all are whole
    "#]],
    );
    // The last block of planner's long conversation, and the odd one's only save.
    let block = &json(&machine, &["show", "planner"])["saves"][1]["blocks"][2]["bytes"];
    damage(&file(&machine, ".safetensors", block.as_u64().expect("a number")));
    let save = &json(&machine, &["show", ODD])["saves"][0];
    let [save, block] =
        [&save["bytes"], &save["blocks"][0]["bytes"]].map(|it| it.as_u64().expect("a number"));
    damage(&file(&machine, ".manifest", save - block));
    check(
        &machine,
        &["verify"],
        expect![[r#"
        FLAW    AGENTS              FILE
        seal    od\u{1b}[2Jd\nname  n/#32/a/#32/#20.manifest
        digest  planner             n/#32/b/#2/#64.safetensors

        6 saves and 8 blocks were read, 28.7 kB: 2 files are damaged
        ! hint: `semantic cache repair` keeps the longest good part of each conversation
        exit code Some(1)
    "#]],
    );
    let ran = cache(&machine, &["verify", "--json"]);
    let report: Json = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!((ran.code, report["damage"][0]["flaw"].as_str()), (Some(1), Some("seal")));
    assert_eq!(report["damage"][1]["agents"][0]["agent"], "planner");
    // The log says the same with the time.
    check(
        &machine,
        &["repair", "--log", "error"],
        expect![[r#"
        FLAW    AGENTS              FILE
        seal    od\u{1b}[2Jd\nname  n/#32/a/#32/#20.manifest
        digest  planner             n/#32/b/#2/#64.safetensors

        "planner" keeps the KV of 512 of 600 tokens, as generation 4; the rest is computed again
    "#]],
    );
    check(
        &machine,
        &["repair", "--json"],
        expect![[r#"
        {
          "damage": [],
          "shortened": []
        }
    "#]],
    );
    assert_eq!(cache(&machine, &["verify"]).code, Some(0));
    assert_eq!(agents(&machine), ["planner", "reviewer", "writer"]);
    let save = &json(&machine, &["show", "planner"])["saves"][0];
    assert_eq!(
        (save["tokens"].as_u64(), save["restorable_tokens"].as_u64()),
        (Some(600), Some(512))
    );
    check(
        &machine,
        &["du"],
        expect![[r#"
        NAMESPACE  AGENTS  LOGICAL  SHARED ONCE  ON DISK
        local           2  25.9 kB      17.2 kB  20.1 kB
        team            1   6.9 kB       6.9 kB   6.9 kB
        (all)           3  32.8 kB      24.1 kB  29.0 kB

        29.0 kB of a budget of 34.4 GB are used
        2.0 kB in 2 damaged files are in quarantine
    "#]],
    );
}

#[test]
fn what_nobody_needs_is_counted_and_removed() {
    let machine = machine_with_agents();
    check(
        &machine,
        &["du"],
        expect![[r#"
        NAMESPACE  AGENTS  LOGICAL  SHARED ONCE  ON DISK
        local           3  28.4 kB      19.7 kB  22.2 kB
        team            1   6.9 kB       6.9 kB   6.9 kB
        (all)           4  35.2 kB      26.5 kB  29.1 kB

        29.1 kB of a budget of 34.4 GB are used
    "#]],
    );
    check(
        &machine,
        &["du", "--json"],
        expect![[r#"
            {
              "budget_bytes": 34359738368,
              "logical_bytes": 35239,
              "unique_bytes": 26535,
              "disk_bytes": 29066,
              "quarantine_bytes": 0,
              "quarantine_files": 0,
              "namespaces": [
                {
                  "namespace": "local",
                  "agents": 3,
                  "logical_bytes": 28358,
                  "unique_bytes": 19654,
                  "disk_bytes": 22185
                },
                {
                  "namespace": "team",
                  "agents": 1,
                  "logical_bytes": 6881,
                  "unique_bytes": 6881,
                  "disk_bytes": 6881
                }
              ]
            }
        "#]],
    );
    check(
        &machine,
        &["gc"],
        expect![[r#"
        removed 0 old saves and 0 blocks: 0 B
    "#]],
    );
    check(
        &machine,
        &["gc", "--json"],
        expect![[r#"
        {
          "manifests": 0,
          "blocks": 0,
          "bytes": 0
        }
    "#]],
    );
    check(
        &Machine::new(),
        &["du"],
        expect![[r#"
        NAMESPACE  AGENTS  LOGICAL  SHARED ONCE  ON DISK
        (all)           0      0 B          0 B      0 B

        0 B of a budget of 34.4 GB are used
    "#]],
    );
    check(
        &Machine::new(),
        &["gc"],
        expect![[r#"
        removed 0 old saves and 0 blocks: 0 B
    "#]],
    );
}

#[test]
fn a_fork_and_a_rollback_are_new_saves() {
    let machine = machine_with_agents();
    check(
        &machine,
        &["fork", "reviewer", "critic"],
        expect![[r#"
        "critic" has the memory of "reviewer": 612 tokens, generation 1
    "#]],
    );
    check(
        &machine,
        &["fork", "reviewer", "critic"],
        expect![[r#"
        ! error: there is an agent "critic" already
        ! hint: take another name, or evict that one first
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["fork", "reviewer", "other", "--json"],
        expect![[r#"
        {
          "namespace": "local",
          "from": "reviewer",
          "to": "other",
          "generation": 1,
          "tokens": 612
        }
    "#]],
    );
    check(
        &machine,
        &["rollback", "planner", "1"],
        expect![[r#"
        "planner" goes on from 300 tokens instead of 20, as generation 4
    "#]],
    );
    check(
        &machine,
        &["rollback", "planner", "77"],
        expect![[r#"
        ! error: "planner" has no save with generation 77
        ! hint: there are generations 4, 3, 2, 1
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["rollback", "reviewer"],
        expect![[r#"
        ! error: "reviewer" has no older save to go back to
        ! hint: there are generations 1
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["rollback", "planner", "2", "--json"],
        expect![[r#"
        {
          "namespace": "local",
          "agent": "planner",
          "generation": 5,
          "tokens_before": 300,
          "tokens": 600
        }
    "#]],
    );
}

#[test]
fn a_live_process_is_named_and_reading_goes_on_beside_it() {
    let machine = machine_with_agents();
    let agents = Agents::open(&machine, model("m", Fingerprint([7; 32])));
    for arguments in [
        &["evict", "planner", "--yes"][..],
        &["repair"],
        &["gc"],
        &["fork", "planner", "copy"],
        &["rollback", "planner"],
    ] {
        let ran = cache(&machine, arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(75), ""), "{arguments:?}: {ran:?}");
        let pid = format!("(process {})", std::process::id());
        assert!(ran.stderr.contains(&pid), "{ran:?}");
    }
    let text = shown(&machine, &["gc"]).replace(&std::process::id().to_string(), "$PID");
    expect![[r#"
        ! error: $HERE/data/cache: another process uses this cache (process $PID)
        ! hint: stop that process first; list, show, verify, du and explain only read and work beside it
        exit code Some(75)
    "#]].assert_eq(&text);
    for arguments in [&["list"][..], &["show", "planner"], &["verify"], &["du"]] {
        assert_eq!(cache(&machine, arguments).code, Some(0), "{arguments:?}");
    }
    drop(agents);
    assert_eq!(cache(&machine, &["gc"]).code, Some(0));
}

#[test]
fn reading_changes_no_file() {
    let machine = machine_with_agents();
    let before = files(&machine);
    for arguments in
        [&["list"][..], &["show", "planner"], &["show", "nobody"], &["verify"], &["du"]]
    {
        cache(&machine, arguments);
        assert_eq!(files(&machine), before, "{arguments:?}");
    }
    let machine = machine_with_a_conversation(&["Hi"]);
    let of_cache = || {
        let mut files = files(&machine);
        files.retain(|path, _| path.starts_with("data/cache/"));
        files
    };
    let before = of_cache();
    for arguments in [&["show", "poet", "--text"][..], &["explain", "poet", "--prompt", "Hi"]] {
        assert_eq!(cache(&machine, arguments).code, Some(0));
        assert_eq!(of_cache(), before, "{arguments:?}");
    }
    // Where there is nothing, nothing is made.
    let machine = Machine::new();
    for arguments in [&["list"][..], &["verify"], &["gc"], &["repair"], &["evict", "--all", "-y"]] {
        assert_eq!(cache(&machine, arguments).code, Some(0), "{arguments:?}");
        assert_eq!(machine.stored(), Vec::<String>::new(), "{arguments:?}");
    }
}

#[test]
fn a_store_that_cannot_be_opened_is_explained() {
    let broken = |change: &dyn Fn(PathBuf)| {
        let machine = machine_with_agents();
        change(machine.path("data/cache"));
        [shown(&machine, &["list"]), shown(&machine, &["gc"])].join("")
    };
    expect![[r#"
        ! error: $HERE/data/cache: the file KEY is missing beside saved agents, which nobody can read without it
        ! hint: bring KEY back from a backup, or move the folder away to begin anew
        exit code Some(78)
        ! error: $HERE/data/cache: the file KEY is missing beside saved agents, which nobody can read without it
        ! hint: bring KEY back from a backup, or move the folder away to begin anew
        exit code Some(78)
    "#]].assert_eq(&broken(&|path| std::fs::remove_file(path.join("KEY")).unwrap()));
    expect![[r#"
        ! error: $HERE/data/cache: the file KEY is damaged, and nobody can read the saved agents without it
        ! hint: bring KEY back from a backup, or move the folder away to begin anew
        exit code Some(78)
        ! error: $HERE/data/cache: the file KEY is damaged, and nobody can read the saved agents without it
        ! hint: bring KEY back from a backup, or move the folder away to begin anew
        exit code Some(78)
    "#]].assert_eq(&broken(&|path| std::fs::write(path.join("KEY"), "x").unwrap()));
    expect![[r#"
        ! error: $HERE/data/cache: the cache has format "semantic-cache 2", which a newer release made; it was left untouched
        ! hint: use that release, or another data folder
        exit code Some(78)
        ! error: $HERE/data/cache: the cache has format "semantic-cache 2", which a newer release made; it was left untouched
        ! hint: use that release, or another data folder
        exit code Some(78)
    "#]].assert_eq(&broken(&|path| {
        std::fs::write(path.join("FORMAT"), "semantic-cache 2\n").unwrap()
    }));
    expect![[r#"
        ! error: $HERE/data/cache: the cache has no format that semantic knows ("else"); it was left untouched
        ! hint: use another data folder
        exit code Some(78)
        ! error: $HERE/data/cache: the cache has no format that semantic knows ("else"); it was left untouched
        ! hint: use another data folder
        exit code Some(78)
    "#]]
        .assert_eq(&broken(&|path| std::fs::write(path.join("FORMAT"), "else\n").unwrap()));
    expect![[r#"
        ! error: $HERE/data/cache: planner.safetensors is a cache of the old program, which says neither what model it is of nor whether it is whole, so it cannot be used
        ! hint: move such files away, or use another data folder
        exit code Some(78)
        ! error: $HERE/data/cache: planner.safetensors is a cache of the old program, which says neither what model it is of nor whether it is whole, so it cannot be used
        ! hint: move such files away, or use another data folder
        exit code Some(78)
    "#]]
        .assert_eq(&broken(&|path| std::fs::write(path.join("planner.safetensors"), "x").unwrap()));
    expect![[r#"
        AGENT               MODEL         TOKENS     SIZE  SHARED  GEN  LAST USED (UTC)
        od\u{1b}[2Jd\nname  smollm2-135m       9    738 B     0 B    1  2026-01-02 07:04
        planner             smollm2-135m      20  16.7 kB  8.7 kB    3  2026-01-02 05:04
        reviewer            smollm2-135m     612  13.5 kB  8.7 kB    1  2026-01-02 06:04
        ! error: $HERE/data/cache: cannot make "tmp" of the cache: Not a directory (os error 20)
        ! hint: look at who may write there; list, show, verify, du and explain only read
        exit code Some(73)
    "#]]
    .assert_eq(&broken(&|path| {
        std::fs::remove_dir_all(path.join("tmp")).unwrap();
        std::fs::write(path.join("tmp"), "x").unwrap();
    }));
}

#[test]
fn limits_out_of_range_are_refused() {
    let machine = Machine::new();
    for (text, reason) in [
        ("budget_gb = 0", "budget_gb is 0; it is above 0 and at most 1000000000"),
        ("namespace_gb = -1.5", "namespace_gb is -1.5; it is above 0 and at most 1000000000"),
        ("budget_gb = nan", "budget_gb is NaN; it is above 0 and at most 1000000000"),
        ("namespace_agents = 0", "namespace_agents is 0; it is at least 1"),
    ] {
        let config = machine.path("config.toml");
        std::fs::write(&config, format!("[cache]\n{text}\n")).unwrap();
        let ran = cache(&machine, &["list", "--config", &config.display().to_string()]);
        let expected = format!(
            "error: the configuration's [cache] is not valid: {reason}\n\
             hint: mend it in the configuration file, or name another with --config\n"
        );
        assert_eq!((ran.code, ran.stderr), (Some(1), expected));
    }
}

/// A machine with one agent of the tiny model, whose conversation is this prompt and a reply.
fn machine_with_a_conversation(texts: &[&str]) -> Machine {
    let machine = Machine::new();
    let agents = Agents::open(&machine, model_of(&tiny(), "8"));
    for text in texts {
        agents.save("local", "poet", agents.store.new_line(), &ids_of(text));
    }
    machine
}

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
