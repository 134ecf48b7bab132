//! `export` and `import`.

use super::*;

#[test]
fn an_agent_moves_to_another_machine() {
    let texts = ["<|im_start|>user\nWrite of rain.<|im_end|>", "<|im_start|>user\nOf snow."];
    let here = machine_with_a_conversation(&texts);
    let told = shown(&here, &["export", "poet", "poet.agent"]);
    assert!(told.starts_with("\"poet\" is in poet.agent: "), "{told}");
    assert!(told.contains(" tokens in 2 conversations, "), "{told}");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(here.path("poet.agent")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    check(
        &here,
        &["export", "poet", "poet.agent"],
        expect![[r#"
            ! error: poet.agent is there already
            ! hint: --force replaces it
            exit code Some(1)
        "#]],
    );
    assert_eq!(cache(&here, &["export", "poet", "poet.agent", "--force"]).code, Some(0));

    let there = Machine::new();
    std::fs::copy(here.path("poet.agent"), there.path("poet.agent")).unwrap();
    let moved = json(&there, &["import", "poet.agent", "--as", "../bard"]);
    assert_eq!((&moved["agent"], &moved["conversations"]), (&"../bard".into(), &2.into()));
    assert_eq!(agents(&there), ["../bard"]);
    let saves = |machine: &Machine, agent: &str| {
        let agent = json(machine, &["show", agent, "--text"]);
        let saves = agent["saves"].as_array().expect("saves").clone();
        saves.iter().map(|save| (save["tokens"].clone(), save["text"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(saves(&there, "../bard"), saves(&here, "poet"));
    assert_eq!(cache(&there, &["verify"]).code, Some(0));
    check(
        &there,
        &["import", "poet.agent", "--as", "../bard"],
        expect![[r#"
            ! error: there is an agent "../bard" already
            ! hint: --as gives this one another name
            exit code Some(1)
        "#]],
    );
}

#[test]
fn what_another_model_computed_is_refused() {
    let here = Machine::new();
    let other = Agents::open(&here, model(&tiny().display().to_string(), Fingerprint([9; 32])));
    other.save("local", "poet", other.store.new_line(), &ids_of("Of rain."));
    drop(other);
    assert_eq!(cache(&here, &["export", "poet", "poet.agent"]).code, Some(0));
    check(
        &here,
        &["import", "poet.agent", "--as", "bard"],
        expect![[r#"
            ! error: $TINY is not the model that it was saved with, $TINY
            ! hint: nothing was imported; --model says where that one is
            exit code Some(1)
        "#]],
    );
    assert_eq!(agents(&here), ["poet"]);
}

#[test]
fn what_cannot_be_moved_is_named() {
    let machine = machine_with_a_conversation(&["Of rain."]);
    check(
        &machine,
        &["export", "poet", "no/such/poet.agent"],
        expect![[r#"
            ! error: cannot write no/such/poet.agent: there is no folder no/such
            ! hint: name a file in a folder that is yours
            exit code Some(73)
        "#]],
    );
    check(
        &machine,
        &["export", "pet", "pet.agent"],
        expect![[r#"
            ! error: no agent "pet" in namespace local
            ! hint: did you mean "poet"?
            exit code Some(1)
        "#]],
    );
    std::fs::write(machine.path("note.txt"), "no agent").unwrap();
    check(
        &machine,
        &["import", "note.txt"],
        expect![[r#"
            ! error: cannot read note.txt: it is not a whole file of an agent: it does not begin as one
            exit code Some(1)
        "#]],
    );
    check(
        &machine,
        &["import", "absent"],
        expect![[r#"
            ! error: cannot read absent: No such file or directory (os error 2)
            exit code Some(1)
        "#]],
    );
    assert!(!machine.path("pet.agent").exists());
}
