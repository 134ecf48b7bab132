//! `evict`.

use super::*;

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
