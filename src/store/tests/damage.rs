//! Nothing that differs from what was saved is ever used, and nothing else suffers.

use super::*;

/// Two agents: "a" with two saves, "b" with one of other tokens.
fn two_agents(bench: &Bench) -> (Line, Line) {
    let store = bench.open();
    let (a, b) = (store.new_line(), store.new_line());
    bench.save(&store, "a", a, &tokens(1, 3));
    bench.save(&store, "a", a, &tokens(1, 5));
    bench.save(&store, "b", b, &tokens(900, 4));
    (a, b)
}

/// With other bytes in a file: that is seen, and these many tokens of "a" and "b" can be restored.
/// Then all is as it was.
fn with_file(bench: &Bench, file: &str, bytes: &[u8]) -> (Vec<usize>, Vec<usize>) {
    let path = bench.root().join(file);
    let good = fs::read(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let damage = bench.open_read_only().verify().unwrap().damage;
    assert_eq!(damage.len(), 1, "{file}: {damage:?}");
    assert_eq!(damage[0].path, file);
    let left = {
        let store = bench.open();
        let left = |agent| bench.restored(&store, agent).iter().map(|line| line.2).collect();
        (left("a"), left("b"))
    };
    for quarantined in bench.quarantined() {
        assert_eq!(fs::read(bench.root().join(&quarantined)).unwrap(), bytes, "nothing is lost");
        fs::remove_file(bench.root().join(quarantined)).unwrap();
    }
    fs::write(&path, good).unwrap();
    left
}

/// Either agent lost what the file had, and the other lost nothing.
fn assert_one_suffers(file: &str, left: (Vec<usize>, Vec<usize>)) {
    let (a, b) = (&left.0[..], &left.1[..]);
    let older_is_bad = (a, b) == (&[5], &[4]);
    let newer_is_bad = matches!(a, [3] | [0]) && b == [4];
    let other_is_bad = a == [5] && matches!(b, [] | [0]);
    assert!(older_is_bad || newer_is_bad || other_is_bad, "{file}: {left:?}");
}

#[test]
fn a_flipped_byte_is_seen_wherever_it_is_and_costs_one_save_at_most() {
    let bench = Bench::new();
    two_agents(&bench);
    for file in [bench.files_named(".manifest"), bench.files_named(".safetensors")].concat() {
        let good = fs::read(bench.root().join(&file)).unwrap();
        // Each open takes its time on a real disk.
        for at in (0..good.len()).step_by(5) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert_one_suffers(&file, with_file(&bench, &file, &bad));
        }
    }
}

#[test]
fn another_length_of_a_file_is_seen_and_costs_one_save_at_most() {
    let bench = Bench::new();
    two_agents(&bench);
    for file in [bench.files_named(".manifest"), bench.files_named(".safetensors")].concat() {
        let good = fs::read(bench.root().join(&file)).unwrap();
        for length in (0..good.len()).step_by(11) {
            assert_one_suffers(&file, with_file(&bench, &file, &good[..length]));
        }
        let longer = [&good[..], b"x"].concat();
        assert_one_suffers(&file, with_file(&bench, &file, &longer));
    }
}

#[test]
fn a_manifest_counts_only_where_it_was_saved() {
    let bench = Bench::new();
    let (a, _) = two_agents(&bench);
    let manifests = bench.files_named(".manifest");
    let of = |generation: &str, agent: &str| {
        let store = bench.open_read_only();
        let folder = store.secrets.agent_folder(&Namespace::local(), &super::agent(agent));
        let is_it =
            |file: &&String| file.contains(&folder.to_string()) && file.contains(generation);
        bench.root().join(manifests.iter().find(is_it).unwrap())
    };
    let (first, second, other) = (of("01.man", "a"), of("02.man", "a"), of("01.man", "b"));

    // One agent's save over another's.
    let good = fs::read(&other).unwrap();
    fs::copy(&second, &other).unwrap();
    let store = bench.open();
    assert_eq!(bench.restored(&store, "b"), []);
    assert_eq!(bench.restored(&store, "a"), [(a, Generation(2), 5)]);
    drop(store);
    fs::write(&other, good).unwrap();

    // An old save under a new name.
    let newer = second.with_file_name("00000000000000000009.manifest");
    fs::copy(&first, &newer).unwrap();
    let store = bench.open();
    assert_eq!(bench.restored(&store, "a"), [(a, Generation(2), 5)]);
    let next = bench.save(&store, "a", a, &tokens(1, 6));
    assert_eq!(next, Generation(10), "a name that was there is not used again");
    drop(store);
    let store = bench.open();
    assert_eq!(bench.save(&store, "a", a, &tokens(1, 7)), Generation(11));
    let places = |file: &String| file.ends_with(".place");
    assert_eq!(bench.quarantined().iter().filter(|file| places(file)).count(), 2);
}

#[test]
fn headers_that_no_block_of_ours_has_are_refused() {
    let bench = Bench::new();
    let store = bench.open();
    let line = store.new_line();
    bench.save(&store, "a", line, &tokens(1, 4));
    let [file] = &bench.files_named(".safetensors")[..] else { panic!("one block") };
    let path = bench.root().join(file);
    let good = fs::read(&path).unwrap();
    let [stored] = &store.lines(&bench.model.fingerprint)[..] else { panic!("one line") };
    let json = [
        r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}"#,
        r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4194305,4194305,211106198978564],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
        "[[[[[[[[",
        "",
    ];
    let with_length =
        |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let mut headers: Vec<Vec<u8>> = json.iter().map(|json| with_length(json)).collect();
    headers.push((1u64 << 63).to_le_bytes().to_vec());
    headers.push(u64::MAX.to_le_bytes().to_vec());
    for header in headers {
        // As long as it should be, so that only the contents can tell.
        let mut bad = good.clone();
        bad[..header.len()].copy_from_slice(&header);
        fs::write(&path, &bad).unwrap();
        let read = store.read_block(&stored.namespace, &bench.model, &stored.blocks[0], Vec::new());
        assert!(matches!(read, Err(StoreError::Damaged { flaw: Flaw::Digest, .. })));
        assert!(!store.is_stored(&stored.namespace, &stored.blocks[0].name));
        assert!(!path.exists(), "it is in the quarantine");
        bench.save(&store, "a", line, &tokens(1, 4));
        assert_eq!(fs::read(&path).unwrap(), good, "what was computed again takes its place");
    }
}

#[test]
fn a_block_of_another_model_is_not_read_and_stays() {
    let bench = Bench::new();
    let store = bench.open();
    bench.save(&store, "a", store.new_line(), &tokens(1, 4));
    let [stored] = &store.lines(&bench.model.fingerprint)[..] else { panic!("one line") };
    let mut wider = (*bench.model).clone();
    wider.tensors[0].shape[1] = KvAxis::Fixed(17);
    let mut renamed = (*bench.model).clone();
    renamed.tensors[0].name.push('x');
    renamed.tensors[1].name.pop();
    let finetuned = KvModel { fingerprint: Fingerprint([3; 32]), ..(*bench.model).clone() };
    for model in [wider, renamed, finetuned] {
        let read = store.read_block(&stored.namespace, &model, &stored.blocks[0], Vec::new());
        assert!(matches!(read, Err(StoreError::OtherModel(_))));
    }
    let other = Namespace::new("other");
    let read = store.read_block(&other, &bench.model, &stored.blocks[0], Vec::new());
    assert!(matches!(read, Err(StoreError::Missing(_))), "what another namespace has is not there");
    assert_eq!(bench.restored(&store, "a"), [(Line(1), Generation(1), 4)]);
}

#[test]
fn a_repair_keeps_the_longest_good_prefix_and_every_token() {
    let bench = Bench::new();
    let store = bench.open();
    let line = store.new_line();
    bench.save(&store, "a", line, &tokens(1, 700));
    bench.save(&store, "a", line, &tokens(1, 800));
    bench.save(&store, "b", store.new_line(), &tokens(9000, 300));
    assert_eq!(store.verify().unwrap().damage, []);
    assert_eq!(store.verify().unwrap().blocks, 7);
    assert_eq!(store.repair().unwrap().shortened, []);

    let info = store.agent(&Namespace::local(), &agent("a")).unwrap().unwrap();
    let second = info.newest().blocks[1].name;
    let is_it = |file: &String| file.contains(&second.to_string());
    let file = bench.files().into_iter().find(is_it).unwrap();
    let path = bench.root().join(&file);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();

    let before = bench.files();
    let verified = store.verify().unwrap();
    let damage =
        Damage { path: file, flaw: Flaw::Digest, agents: vec![(Namespace::local(), agent("a"))] };
    assert_eq!(verified.damage, std::slice::from_ref(&damage));
    assert_eq!(bench.files(), before, "verifying changes nothing");

    let repaired = store.repair().unwrap();
    assert_eq!(repaired.damage, [damage]);
    let shortened = Shortened {
        namespace: Namespace::local(),
        agent: agent("a"),
        line,
        generation: Generation(3),
        tokens_before: 800,
        tokens: 256,
    };
    assert_eq!(repaired.shortened, [shortened]);
    assert_eq!(bench.restored(&store, "a"), [(line, Generation(3), 256)]);
    let kept = store.tokens(&Namespace::local(), &agent("a"), Generation(3)).unwrap();
    assert_eq!(kept, tokens(1, 800));
    assert_eq!(store.verify().unwrap().damage, []);
    assert_eq!(store.repair().unwrap().damage, []);
    assert_eq!(bench.restored(&store, "b").len(), 1);
    store.collect().unwrap();
    drop(store);
    let store = bench.open();
    assert_eq!(bench.restored(&store, "a"), [(line, Generation(3), 256)]);
    assert_eq!(bench.quarantined().len(), 1);
    assert_eq!(store.usage().unwrap().quarantine_files, 1);
}

#[test]
fn what_opening_the_store_has_quarantined_a_repair_tells() {
    let bench = Bench::new();
    two_agents(&bench);
    let manifest = bench.files_named("2.manifest").remove(0);
    fs::write(bench.root().join(&manifest), b"torn").unwrap();
    let damage = [Damage { path: manifest, flaw: Flaw::Length, agents: Vec::new() }];
    assert_eq!(bench.open_read_only().verify().unwrap().damage, damage);
    let store = bench.open();
    assert_eq!(store.repair().unwrap().damage, damage);
    assert_eq!(bench.restored(&store, "a"), [(Line(1), Generation(1), 3)]);
    assert_eq!(bench.quarantined().len(), 1);
}

#[test]
fn a_block_that_is_gone_heals_when_it_is_computed_again() {
    let bench = Bench::new();
    let line = {
        let store = bench.open();
        let line = store.new_line();
        bench.save(&store, "a", line, &tokens(1, 600));
        line
    };
    let full = |file: &String| fs::metadata(bench.root().join(file)).unwrap().len() > 24 * 256;
    let file = bench.files_named(".safetensors").into_iter().find(full).unwrap();
    fs::remove_file(bench.root().join(file)).unwrap();
    let store = bench.open();
    assert!(bench.restored(&store, "a")[0].2 < 600);
    let draft = bench.draft(&store, "a", line, &tokens(1, 601));
    let Err(StoreError::Missing(missing)) = store.commit(&draft) else { panic!("one is gone") };
    assert_eq!(missing.len(), 2, "that one and the new tail");
    bench.save(&store, "a", line, &tokens(1, 601));
    let info = store.agent(&Namespace::local(), &agent("a")).unwrap().unwrap();
    assert!(info.saves.iter().all(|save| save.blocks_there == save.blocks.len()));
}

#[test]
fn without_its_key_a_store_is_left_as_it_is() {
    let bench = Bench::new();
    two_agents(&bench);
    let files = bench.files();
    let key = bench.root().join("KEY");
    let good = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(matches!(bench.try_open(), Err(OpenError::KeyMissing)));
    fs::write(&key, &good[..40]).unwrap();
    assert!(matches!(bench.try_open(), Err(OpenError::KeyDamaged)));
    let mut flipped = good.clone();
    flipped[3] ^= 4;
    fs::write(&key, flipped).unwrap();
    assert!(matches!(bench.try_open(), Err(OpenError::KeyDamaged)));
    fs::write(&key, good).unwrap();
    assert_eq!(bench.files(), files);
    assert_eq!(bench.restored(&bench.open(), "a").len(), 1);
}

#[test]
fn another_format_is_left_as_it_is() {
    let bench = Bench::new();
    two_agents(&bench);
    let before = bench.files();
    let format = bench.root().join("FORMAT");
    let good = fs::read_to_string(&format).unwrap();
    assert!(good.starts_with("semantic-cache 1\nkey "), "{good}");
    for newer in ["semantic-cache 2\n", "semantic-cache 10\nwith more\n"] {
        fs::write(&format, newer).unwrap();
        assert!(matches!(bench.try_open(), Err(OpenError::NewerFormat { .. })), "{newer}");
    }
    for unknown in ["", "semantic-cache 0\n", "semantic-cache x\n", "other 1\n", "semantic-cache 1"]
    {
        fs::write(&format, unknown).unwrap();
        assert!(matches!(bench.try_open(), Err(OpenError::UnknownFormat { .. })), "{unknown}");
    }
    fs::remove_file(&format).unwrap();
    assert!(matches!(bench.try_open(), Err(OpenError::UnknownFormat { .. })));
    fs::write(&format, good).unwrap();
    assert_eq!(bench.files(), before);
}
