//! Stores that another process has, that only are read, that cannot be opened.

use super::*;

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
        ! hint: stop that process first; list, show, verify, du, explain and export only read and work beside it
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
        ! hint: look at who may write there; list, show, verify, du, explain and export only read
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
