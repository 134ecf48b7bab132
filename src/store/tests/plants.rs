//! What others put into the folder: links, files of other programs, what a crash left.

use std::os::unix::fs::symlink;

use super::*;

/// A store with one agent, and a file elsewhere that nothing may touch.
fn with_a_victim() -> (Bench, PathBuf) {
    let bench = Bench::new();
    bench.save(&bench.open(), "a", Line(1), &tokens(1, 4));
    let victim = bench.folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    (bench, victim)
}

/// Puts something else in the place of a file or a folder.
fn replace(bench: &Bench, path: &str, plant: impl FnOnce(&Path)) {
    let path = bench.root().join(path);
    let aside = bench.folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    plant(&path);
}

#[test]
fn a_link_in_the_place_of_a_folder_is_refused() {
    for folder in ["tmp", "quarantine", "n"] {
        let (bench, victim) = with_a_victim();
        let elsewhere = bench.folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("1"), "precious").unwrap();
        replace(&bench, folder, |path| symlink(&elsewhere, path).unwrap());
        assert!(matches!(bench.try_open(), Err(OpenError::Io { .. })), "{folder}");
        assert_eq!(fs::read_to_string(elsewhere.join("1")).unwrap(), "precious");
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }
}

#[test]
fn a_link_in_the_place_of_the_whole_store_is_refused() {
    let (bench, _) = with_a_victim();
    let elsewhere = bench.folder.path().join("elsewhere");
    fs::rename(bench.root(), &elsewhere).unwrap();
    symlink(&elsewhere, bench.root()).unwrap();
    assert!(Folder::make(&bench.root()).is_err());
    assert!(Folder::at(&bench.root()).is_err());
}

#[test]
fn a_link_in_the_place_of_a_manifest_or_a_block_is_no_save() {
    for suffix in [".manifest", ".safetensors"] {
        for is_symbolic in [true, false] {
            let (bench, _) = with_a_victim();
            let file = bench.files_named(suffix).remove(0);
            let aside = bench.folder.path().join("aside");
            let good = fs::read(bench.root().join(&file)).unwrap();
            replace(&bench, &file, |path| match is_symbolic {
                true => symlink(&aside, path).unwrap(),
                false => fs::hard_link(&aside, path).unwrap(),
            });
            let store = bench.open();
            let restored: usize = bench.restored(&store, "a").iter().map(|line| line.2).sum();
            assert_eq!(restored, 0, "{suffix} symbolic: {is_symbolic}");
            bench.save(&store, "a", Line(1), &tokens(1, 4));
            assert_eq!(bench.restored(&store, "a").len(), 1);
            drop(store);
            assert_eq!(bench.restored(&bench.open(), "a")[0].2, 4);
            assert_eq!(fs::read(&aside).unwrap(), good, "what it leads to is as it was");
        }
    }
}

#[test]
fn a_link_in_the_place_of_the_lock_the_key_or_the_format_is_refused() {
    for file in ["LOCK", "KEY", "FORMAT"] {
        let (bench, victim) = with_a_victim();
        replace(&bench, file, |path| symlink(&victim, path).unwrap());
        assert!(matches!(bench.try_open(), Err(OpenError::Io { .. })), "{file}");
        let (bench, victim) = with_a_victim();
        replace(&bench, file, |path| fs::hard_link(&victim, path).unwrap());
        assert!(matches!(bench.try_open(), Err(OpenError::Io { .. })), "{file}");
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }
}

#[test]
fn what_is_not_ours_stays() {
    let (bench, _) = with_a_victim();
    let namespace = bench.files_named(".manifest").remove(0)[..34].to_owned();
    let strangers = [
        "notes.txt".to_owned(),
        "n/readme".to_owned(),
        "quarantine/old.stuff".to_owned(),
        format!("{namespace}/b/zz"),
        format!("{namespace}/a/index"),
        format!("{}.bak", bench.files_named(".manifest").remove(0)),
        format!("{}.bak", bench.files_named(".safetensors").remove(0)),
    ];
    for stranger in &strangers {
        fs::write(bench.root().join(stranger), "mine").unwrap();
    }
    let store = bench.open();
    store.collect().unwrap();
    store.repair().unwrap();
    store.remove_agent(&Namespace::local(), &agent("a")).unwrap();
    store.collect().unwrap();
    for stranger in &strangers {
        assert_eq!(fs::read_to_string(bench.root().join(stranger)).unwrap(), "mine", "{stranger}");
    }
    assert_eq!(bench.save(&store, "a", Line(1), &tokens(1, 4)), Generation(2));
}

#[test]
fn what_a_crash_left_is_cleared() {
    let (bench, _) = with_a_victim();
    fs::write(bench.root().join("tmp/0"), "half a bl").unwrap();
    fs::write(bench.root().join("tmp/17"), "").unwrap();
    drop(bench.open_read_only());
    assert_eq!(bench.files().iter().filter(|file| file.starts_with("tmp/")).count(), 2);
    bench.open();
    assert_eq!(bench.files().iter().filter(|file| file.starts_with("tmp/")).count(), 0);
}

#[test]
fn the_files_of_the_old_program_are_refused_in_one_sentence() {
    let (bench, _) = with_a_victim();
    fs::write(bench.root().join("planner.safetensors"), "old").unwrap();
    let refused = bench.try_open().err().unwrap();
    expect_test::expect![[r#"
        planner.safetensors is a cache of the old program, which says neither what model it is of nor whether it is whole, so it cannot be used
        hint: move such files away, or use another data folder"#]]
    .assert_eq(&refused.to_string());
}

#[test]
fn a_start_that_was_cut_off_can_be_made_again() {
    for keep in [&[][..], &["KEY"], &["KEY", "LOCK"], &["FORMAT", "LOCK"]] {
        let bench = Bench::new();
        drop(bench.open());
        for file in bench.files() {
            if !keep.contains(&file.as_str()) {
                fs::remove_file(bench.root().join(file)).unwrap();
            }
        }
        for folder in ["n", "tmp", "quarantine"] {
            fs::remove_dir(bench.root().join(folder)).unwrap();
        }
        bench.save(&bench.open(), "a", Line(1), &tokens(1, 4));
        assert_eq!(bench.restored(&bench.open(), "a").len(), 1, "{keep:?}");
    }
}
