//! Checks what the build needs before anything is fetched, and says what is missing in one sentence.

use crate::fetch::Platform;
use std::env;
use std::process::Command;

/// The wheels are built against this glibc and this macOS.
const GLIBC_MIN: Version = Version(2, 35);
const MACOS_MIN: Version = Version(14, 0);

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// The platform that cargo builds for, if MLX has a wheel for it.
pub fn target_platform() -> Result<Platform, String> {
    let of = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    platform(&of("OS"), &of("ARCH"), &of("ENV"))
}

/// Whether this machine can build, and fetch if it has to.
pub fn check(platform: Platform, must_fetch: bool) -> Result<(), String> {
    match platform {
        Platform::LinuxX86 | Platform::LinuxArm => {
            check_glibc(&output_of("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_default())?;
        }
        Platform::MacArm => {
            check_macos(&output_of("sw_vers", &["-productVersion"]).unwrap_or_default())?;
        }
    }
    check_compiler()?;
    if must_fetch && output_of("python3", &["-m", "pip", "--version"]).is_none() {
        return Err(
            "fetching the prebuilt MLX needs `python3 -m pip`, which does not run here \
                    (install python3 and pip, or set SEMANTIC_MLX_DIR and LIBCLANG_PATH)"
                .to_owned(),
        );
    }
    Ok(())
}

pub fn platform(os: &str, arch: &str, env: &str) -> Result<Platform, String> {
    match (os, arch, env) {
        ("linux", "x86_64", "gnu") => Ok(Platform::LinuxX86),
        ("linux", "aarch64", "gnu") => Ok(Platform::LinuxArm),
        ("macos", "aarch64", _) => Ok(Platform::MacArm),
        _ => Err(format!(
            "there is no prebuilt MLX for {os} {arch} {env}, only for Linux with glibc on x86-64 \
             and aarch64 and for macOS on Apple silicon"
        )),
    }
}

/// `text` is what `getconf GNU_LIBC_VERSION` prints: `glibc 2.36`.
pub fn check_glibc(text: &str) -> Result<(), String> {
    check_version("glibc", text, GLIBC_MIN)
}

/// `text` is what `sw_vers -productVersion` prints: `14.5` or `14.5.1`.
pub fn check_macos(text: &str) -> Result<(), String> {
    check_version("macOS", text, MACOS_MIN)
}

/// A version that cannot be read is let through: the build may yet succeed.
fn check_version(what: &str, text: &str, min: Version) -> Result<(), String> {
    match version(text) {
        Some(found) if found < min => Err(format!(
            "the prebuilt MLX needs {what} {}.{} or later, and this is {}.{}",
            min.0, min.1, found.0, found.1
        )),
        Some(_) | None => Ok(()),
    }
}

/// The version in the last word of `text`.
fn version(text: &str) -> Option<Version> {
    let mut parts = text.split_whitespace().next_back()?.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next().map_or(Some(0), |minor| minor.parse().ok())?;
    Some(Version(major, minor))
}

fn check_compiler() -> Result<(), String> {
    let tool = crate::mlx_c::compiler()
        .try_get_compiler()
        .map_err(|error| format!("no C++ compiler was found: {error}"))?;
    let name = tool.path().to_string_lossy();
    if output_of(&name, &["--version"]).is_none() {
        return Err(format!(
            "compiling mlx-c needs a C++20 compiler, and `{name}` does not run here (install g++ or \
             clang++, or name one in CXX)"
        ));
    }
    Ok(())
}

/// What a command prints, or `None` if it does not run or fails.
fn output_of(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}
