//! `verify`, `repair`, `gc`, `du`, `fork` and `rollback`.

use super::*;

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
