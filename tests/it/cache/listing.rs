//! `list` and `show`.

use super::*;

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
                  "last_used": "2026-01-02T08:04:05Z",
                  "pinned": false,
                  "ttl_seconds": null,
                  "expires_at": null
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
            ! error: invalid value '' for '--namespace <NAME>': the namespace is empty
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
              "pinned": false,
              "ttl_seconds": null,
              "expires_at": null,
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
