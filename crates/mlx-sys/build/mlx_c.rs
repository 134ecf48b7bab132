//! Finds mlx-c's sources, which the published mlx-sys crate carries, and compiles them.

use crate::runtime::Mlx;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that holds `mlx/c/*.cpp`.
const LOCAL_FOLDER: &str = "SEMANTIC_MLX_C_DIR";

/// The folder that holds `mlx/c/*.cpp` and `mlx/c/*.h`.
pub fn sources() -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed={LOCAL_FOLDER}");
    if let Some(folder) = env::var_os(LOCAL_FOLDER) {
        let folder = PathBuf::from(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        if !folder.join("mlx/c/array.cpp").is_file() {
            return Err(format!("{LOCAL_FOLDER}={} holds no mlx/c/array.cpp", folder.display()));
        }
        return Ok(folder);
    }
    nested_cargo("fetch", &[])?;
    let metadata = nested_cargo("metadata", &["--format-version=1"])?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == "mlx-sys"))
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata does not name the upstream mlx-sys crate")?;
    Ok(Path::new(manifest).with_file_name("src").join("mlx-c"))
}

/// Compiles mlx-c, and this crate's own C++ in `cpp`, into one static library.
pub fn compile(mlx_c: &Path, mlx: &Mlx) -> Result<(), String> {
    let unreadable = |error: io::Error| format!("cannot list the C++ sources: {error}");
    let mut files = with_extension(&mlx_c.join("mlx/c"), "cpp").map_err(unreadable)?;
    files.extend(with_extension(Path::new("cpp"), "cpp").map_err(unreadable)?);
    compiler()
        .include(mlx_c)
        .include(&mlx.include)
        .flag("-include")
        .flag("cpp/mlx_c.h")
        .files(files)
        .try_compile("mlxc")
        .map_err(|error| format!("mlx-c does not compile: {error}"))
}

/// The C++ compiler as this crate uses it.
fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        // The same for every profile: this is glue, and its debug information is large.
        .opt_level(2)
        .debug(false)
        .warnings(false)
        // MLX's headers use what macOS has had since 13.3, the wheel what it has since 14.
        .env("MACOSX_DEPLOYMENT_TARGET", "14.0");
    build
}

/// What `CXX` or the platform's habit calls the C++ compiler.
pub fn compiler_name() -> Result<String, String> {
    let tool = compiler()
        // Nothing but our own sentence if it does not run.
        .cargo_output(false)
        .try_get_compiler()
        .map_err(|error| format!("there is no C++ compiler: {error}"))?;
    Ok(tool.path().to_string_lossy().into_owned())
}

/// Files of one kind in a folder, sorted, so that a build is the same each time.
pub fn with_extension(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs cargo on the manifest in `upstream`, whose lock file pins the sources by digest.
fn nested_cargo(command: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo.arg(command).args(["--locked", "--manifest-path", "upstream/Cargo.toml"]).args(arguments);
    // What the outer cargo set for this build script is not meant for the inner one. Its homes,
    // registries and network settings are.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let outer = ["CARGO_TARGET_DIR", "CARGO_MAKEFLAGS", "MAKEFLAGS"].contains(&&*name)
            || ["CARGO_BUILD_", "CARGO_ENCODED_", "CARGO_CFG_", "RUSTC"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
        if outer {
            cargo.env_remove(&*name);
        }
    }
    let output = cargo.output().map_err(|error| format!("cannot run cargo {command}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "mlx-c's sources cannot be fetched: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(output.stdout)
}
