//! `pin`, `unpin` and `ttl`.

use super::*;

#[test]
fn a_pinned_agent_is_not_among_those_that_make_room() {
    let machine = machine_with_agents();
    check(
        &machine,
        &["pin", "planner"],
        expect![[r#"
        "planner" stays when others need room, while at most half of it is pinned
    "#]],
    );
    check(
        &machine,
        &["pin", "planner", "--json"],
        expect![[r#"
        {
          "agent": "planner",
          "namespace": "local",
          "pinned": true,
          "ttl_seconds": null,
          "expires_at": null
        }
    "#]],
    );
    check(
        &machine,
        &["evict", "--older-than", "1s", "--yes"],
        expect![[r#"
        removed 2 agents: 5.5 kB
    "#]],
    );
    assert_eq!(agents(&machine), ["planner", "writer"]);
    check(
        &machine,
        &["evict", "--to-size", "1B", "--yes"],
        expect![[r#"
        nothing to remove
    "#]],
    );
    check(
        &machine,
        &["unpin", "planner"],
        expect![[r#"
        "planner" may go to make room for others
    "#]],
    );
    check(
        &machine,
        &["evict", "--to-size", "1B", "--yes"],
        expect![[r#"
        removed "planner": 16.8 kB
    "#]],
    );
    assert_eq!(agents(&machine), ["writer"]);
}

/// From its last turn on, which was on the second of January 2026.
#[test]
fn a_time_to_live_is_shown_with_its_end() {
    let machine = machine_with_agents();
    check(
        &machine,
        &["ttl", "planner", "520w"],
        expect![[r#"
        "planner" goes at 2035-12-21T05:04:05Z, unless it has a turn before
    "#]],
    );
    let planner = &json(&machine, &["list"])["agents"][1];
    assert_eq!(planner["ttl_seconds"], 520 * 7 * 86_400);
    assert_eq!(planner["expires_at"], "2035-12-21T05:04:05Z");
    check(
        &machine,
        &["ttl", "writer", "3650d", "--namespace", "team", "--json"],
        expect![[r#"
        {
          "agent": "writer",
          "namespace": "team",
          "pinned": false,
          "ttl_seconds": 315360000,
          "expires_at": "2035-12-31T08:04:05Z"
        }
    "#]],
    );
    check(
        &machine,
        &["ttl", "planner", "never"],
        expect![[r#"
        "planner" stays however long it has no turn
    "#]],
    );
    let planner = &json(&machine, &["list"])["agents"][1];
    assert_eq!(planner["expires_at"], Json::Null);
}

#[test]
fn what_cannot_be_kept_is_named() {
    let machine = machine_with_agents();
    let before = files(&machine);
    check(
        &machine,
        &["pin", "planer"],
        expect![[r#"
        ! error: no agent "planer" in namespace local
        ! hint: did you mean "planner"?
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["unpin", "writer"],
        expect![[r#"
        ! error: no agent "writer" in namespace local
        ! hint: it is in another namespace: --namespace team
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["ttl", "nobody", "1d"],
        expect![[r#"
        ! error: no agent "nobody" in namespace local
        ! hint: `semantic cache list` shows those that there are
        exit code Some(1)
    "#]],
    );
    check(
        &machine,
        &["ttl", "planner"],
        expect![[r#"
        ! error: the following required arguments were not provided:
        !   <TTL>
        !
        ! Usage: semantic cache ttl --data-dir <FOLDER> --log-format <FORMAT> <AGENT> <TTL>
        !
        ! For more information, try '--help'.
        exit code Some(64)
    "#]],
    );
    check(
        &machine,
        &["ttl", "planner", "11y"],
        expect![[r#"
        ! error: invalid value '11y' for '<TTL>': "11y" is not a number with s, m, h, d or w, as in 30d
        !
        ! For more information, try '--help'.
        exit code Some(64)
    "#]],
    );
    assert_eq!(files(&machine).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
}

#[test]
fn at_most_half_of_the_room_is_pinned() {
    let machine = machine_with_agents();
    let config = machine.path("config.toml");
    std::fs::write(&config, "[cache]\nbudget_gb = 0.00003\n").unwrap();
    let config = config.display().to_string();
    check(
        &machine,
        &["pin", "planner", "--config", &config],
        expect![[r#"
        ! error: namespace "local" may not have 16697 bytes that are pinned; the limit is 15000
        ! hint: unpin another agent first, or give the cache more room
        exit code Some(1)
    "#]],
    );
    assert_eq!(json(&machine, &["list"])["agents"][1]["pinned"], false);
}
