//! The parts of the build script that can be tried on any machine, and their own unit tests.

#[allow(dead_code)]
#[path = "../build/fetch.rs"]
mod fetch;
#[allow(dead_code)]
#[path = "../build/requirements.rs"]
mod requirements;

use fetch::Platform;
use std::fs;
use std::path::{Path, PathBuf};

/// Fetched once and kept: the folder unpacks to more than 140 MB.
#[test]
fn the_macos_wheel_is_laid_out_for_the_binary() {
    let lib = arranged(Platform::MacArm).join("lib");
    for name in ["libmlx.dylib", "libjaccl.dylib", "mlx.metallib"] {
        assert!(lib.join(name).is_file(), "{name} in {}", lib.display());
    }
}

#[test]
fn the_wheel_of_linux_on_arm_is_laid_out_for_the_binary() {
    let lib = arranged(Platform::LinuxArm).join("lib");
    let names: Vec<String> = fs::read_dir(&lib)
        .expect("lib can be read")
        .map(|entry| entry.expect("entry can be read").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|name| name == "libmlx.so"), "{names:?}");
    let blas = names.iter().any(|name| name.contains("blas"));
    assert!(blas, "{names:?}");
}

#[test]
fn a_failed_fetch_leaves_nothing_that_looks_complete() {
    let place = tempfile::tempdir().expect("a temporary folder can be made");
    let destination = place.path().join("mlx");
    let wheel = fetch::Wheel {
        // Not a valid name, so that pip refuses it without asking the network.
        package: "-",
        version: "0",
        platform_tag: "any",
        sha256: "",
    };
    let error = fetch::provide(&wheel, &destination, |_| Ok(())).expect_err("pip fails");
    assert!(error.contains("could not fetch"), "{error}");
    assert!(!destination.exists());
}

#[test]
fn a_wheel_with_another_digest_is_refused() {
    let place = tempfile::tempdir().expect("a temporary folder can be made");
    let destination = place.path().join("mlx");
    let wheel = fetch::Wheel {
        sha256: "0000000000000000000000000000000000000000000000000000000000000000",
        ..Platform::LinuxArm.mlx_wheel()
    };
    // Offline pip has another reason, so that only this is said of it.
    let error = fetch::provide(&wheel, &destination, fetch::arrange_mlx).expect_err("refused");
    assert!(error.contains("could not fetch"), "{error}");
    assert!(!destination.exists());
}

#[test]
fn an_interrupted_fetch_is_begun_anew() {
    let place = tempfile::tempdir().expect("a temporary folder can be made");
    let destination = place.path().join("mlx");
    let fetched = fetch::complete(&destination, |partial| {
        make_file(partial, "half");
        Err("the power went".to_owned())
    });
    fetched.expect_err("interrupted");
    assert!(!destination.exists());

    fetch::complete(&destination, |partial| {
        make_file(partial, "whole");
        Ok(())
    })
    .expect("nothing in the way");
    assert!(destination.join("whole").is_file());
    assert!(!destination.join("half").exists());
}

fn make_file(folder: &Path, name: &str) {
    fs::create_dir(folder).expect("nothing was left in the way");
    fs::write(folder.join(name), "").expect("file can be written");
}

fn arranged(platform: Platform) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("mlx-{}-{platform:?}", fetch::MLX_VERSION));
    let fetched = fetch::provide(&platform.mlx_wheel(), &folder, fetch::arrange_mlx);
    fetched.expect("the wheel can be fetched");
    folder
}
