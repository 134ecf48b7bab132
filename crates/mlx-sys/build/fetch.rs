//! Fetches wheels from PyPI and lays out what is needed of them. Also used by the tests.
//!
//! pip does the fetching, told for which platform, so any `python3` will do on any machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release whose C API mlx-c 0.7.0 was made for.
pub const MLX_VERSION: &str = "0.32.2";

/// A target that MLX has a wheel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    LinuxX86,
    LinuxArm,
    MacArm,
}

/// One file on PyPI.
pub struct Wheel {
    pub package: &'static str,
    pub version: &'static str,
    pub platform_tag: &'static str,
    /// Of the file, so that nobody can put another in its place.
    pub sha256: &'static str,
}

impl Platform {
    pub fn mlx_wheel(self) -> Wheel {
        let (package, platform_tag, sha256) = match self {
            Platform::LinuxX86 => (
                "mlx-cpu",
                "manylinux_2_35_x86_64",
                "fc5d31b90fc4f457b2f9614ed45651a567d22a6a11a03d114a90a4e10bdd8878",
            ),
            Platform::LinuxArm => (
                "mlx-cpu",
                "manylinux_2_35_aarch64",
                "d0f94625588b51a878786dd51cec5617894ce586cf3c94645ce1b64e24c27c0b",
            ),
            Platform::MacArm => (
                "mlx-metal",
                "macosx_14_0_arm64",
                "3825fff379dbc107dd3413e564a06caeaa24819910ec49c0439e454c06a1b9b8",
            ),
        };
        Wheel { package, version: MLX_VERSION, platform_tag, sha256 }
    }

    pub fn libclang_wheel(self) -> Wheel {
        let (platform_tag, sha256) = match self {
            Platform::LinuxX86 => (
                "manylinux2010_x86_64",
                "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b",
            ),
            Platform::LinuxArm => (
                "manylinux2014_aarch64",
                "54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592",
            ),
            Platform::MacArm => (
                "macosx_11_0_arm64",
                "0b2e143f0fac830156feb56f9231ff8338c20aecfe72b4ffe96f19e5a1dbb69a",
            ),
        };
        Wheel { package: "libclang", version: "18.1.1", platform_tag, sha256 }
    }
}

/// Makes `destination` hold what the wheel unpacks to, arranged by `arrange`; returns the size in
/// bytes if it had to be fetched, `None` if it was there.
pub fn provide(
    wheel: &Wheel,
    destination: &Path,
    arrange: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<Option<u64>, String> {
    if destination.is_dir() {
        return Ok(None);
    }
    let mut unpacked_bytes = 0;
    complete(destination, |partial| {
        pip_install(wheel, partial)?;
        unpacked_bytes = folder_bytes(partial).map_err(|error| error.to_string())?;
        arrange(partial).map_err(|error| {
            let Wheel { package, version, .. } = wheel;
            format!("the wheel {package} {version} is not laid out as expected: {error}")
        })
    })?;
    Ok(Some(unpacked_bytes))
}

/// Lets `fill` make a folder under another name and renames it to `destination` when it is done,
/// so that an interrupted download is never taken for a complete one.
pub fn complete(
    destination: &Path,
    fill: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let mut partial = destination.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file_error = |error: io::Error| format!("cannot write {}: {error}", partial.display());
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(file_error)?;
    }
    fill(&partial)?;
    fs::rename(&partial, destination).map_err(file_error)
}

/// Moves the run-time files of MLX's wheel into `lib` and its headers into `include`.
///
/// Everything that the binary needs at run time then lies in one flat folder, which can be
/// copied as it is.
pub fn arrange_mlx(folder: &Path) -> io::Result<()> {
    let lib = folder.join("lib");
    fs::create_dir(&lib)?;
    for file in runtime_files(folder)? {
        let name = file.file_name().expect("a file in a folder has a name");
        fs::rename(&file, lib.join(name))?;
    }
    fs::rename(folder.join("mlx/include"), folder.join("include"))?;
    fs::remove_dir_all(folder.join("mlx"))
}

/// What the binary needs at run time, in a folder laid out as MLX's wheel is: all of `mlx/lib`
/// and, on Linux, the libraries that the wheel brings along.
pub fn runtime_files(wheel_root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = files_in(&wheel_root.join("mlx/lib"))?;
    for entry in fs::read_dir(wheel_root)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // `mlx_cpu.libs`, named by auditwheel. Other packages may lie in the same folder.
        if name.starts_with("mlx") && name.ends_with(".libs") {
            files.extend(files_in(&entry.path())?);
        }
    }
    Ok(files)
}

fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn pip_install(wheel: &Wheel, target: &Path) -> Result<(), String> {
    let requirement = format!("{}=={}", wheel.package, wheel.version);
    // pip takes a digest in a file only.
    let list = target.with_extension("requirement");
    fs::write(&list, format!("{requirement} --hash=sha256:{}\n", wheel.sha256))
        .map_err(|error| format!("cannot write {}: {error}", list.display()))?;
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--no-deps", "--no-compile"])
        .args(["--only-binary=:all:", "--python-version", "3.12"])
        .args(["--platform", wheel.platform_tag])
        .arg("--target")
        .arg(target)
        .arg("--requirement")
        .arg(&list)
        // Settings that people have in pip.conf and that `--target` cannot be combined with.
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .output()
        .map_err(|error| format!("cannot run python3: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let reason = stderr.lines().rfind(|line| line.starts_with("ERROR"));
    Err(format!(
        "pip could not fetch {requirement} for {}: {}",
        wheel.platform_tag,
        reason.unwrap_or_else(|| stderr.trim())
    ))
}

fn folder_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
