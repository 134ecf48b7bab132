//! The binary finds MLX's libraries beside itself, in `../lib/semantic`, and where it was built.
//!
//! The run path holds those three places in that order (a release build's also a copy that
//! `cargo clean` leaves alone). A copied binary therefore never gets as
//! far as the build folder, and the loader's own list of what it loaded proves that it did not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_semantic");
/// Where the build put every file that is needed at run time.
const MLX_LIB: &str = env!("SEMANTIC_MLX_LIB");

#[test]
fn a_copied_binary_runs_with_the_libraries_beside_it() {
    check_copied("bin", "bin");
}

#[test]
fn a_copied_binary_runs_with_the_libraries_in_lib_semantic() {
    check_copied("bin", "lib/semantic");
}

#[test]
fn a_fresh_build_runs_with_the_libraries_in_the_build_folder() {
    check_loaded_from(Path::new(BINARY), Path::new(MLX_LIB));
}

fn check_copied(binary_folder: &str, library_folder: &str) {
    let place = tempfile::tempdir().expect("a temporary folder can be made");
    let binary_folder = place.path().join(binary_folder);
    let library_folder = place.path().join(library_folder);
    fs::create_dir_all(&binary_folder).expect("folder can be made");
    fs::create_dir_all(&library_folder).expect("folder can be made");

    let binary = binary_folder.join("semantic");
    fs::copy(BINARY, &binary).expect("binary can be copied");
    for file in files_in(Path::new(MLX_LIB)) {
        let name = file.file_name().expect("a file in a folder has a name");
        fs::copy(&file, library_folder.join(name)).expect("library can be copied");
    }
    check_loaded_from(&binary, &library_folder);
}

/// Runs the binary, and holds that each library of `folder` was loaded, and from nowhere else.
fn check_loaded_from(binary: &Path, folder: &Path) {
    let output = command(binary).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");

    let loaded = loaded_libraries(binary);
    let libraries = files_in(folder).into_iter().filter(|file| is_library(file));
    let mut library_count = 0;
    for library in libraries {
        library_count += 1;
        let found: Vec<&PathBuf> =
            loaded.iter().filter(|path| path.file_name() == library.file_name()).collect();
        assert_eq!(found, [&library], "of all that was loaded: {loaded:#?}");
    }
    assert!(library_count > 0, "no library in {}", folder.display());
}

/// Every library that the system's loader resolves for the binary, as absolute paths.
fn loaded_libraries(binary: &Path) -> Vec<PathBuf> {
    let output = command(binary)
        // What `ldd` does: the loader lists what it loads instead of starting the program.
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        // The same on macOS, where the program does start: `dyld[123]: <uuid> /path`.
        .env("DYLD_PRINT_LIBRARIES", "1")
        .output()
        .expect("the binary starts");
    let listing = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&listing)
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect()
}

fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .arg("--version")
        // Cargo points these at the build folder while tests run.
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("DYLD_LIBRARY_PATH")
        .env_remove("DYLD_FALLBACK_LIBRARY_PATH");
    command
}

fn is_library(file: &Path) -> bool {
    let name = file.to_string_lossy();
    name.contains(".so") || name.ends_with(".dylib")
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .expect("folder can be read")
        .map(|entry| entry.expect("entry can be read").path())
        .map(|path| fs::canonicalize(path).expect("file is there"))
        .collect()
}
