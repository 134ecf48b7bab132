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

/// Whether this machine can build with this C++ compiler, and fetch if it has to.
pub fn check(platform: Platform, compiler: &str, must_fetch: bool) -> Result<(), String> {
    match platform {
        Platform::LinuxX86 | Platform::LinuxArm => {
            check_glibc(&output_of("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_default())?;
        }
        Platform::MacArm => {
            check_macos(&output_of("sw_vers", &["-productVersion"]).unwrap_or_default())?;
        }
    }
    check_compiler(compiler)?;
    if must_fetch && output_of("python3", &["-m", "pip", "--version"]).is_none() {
        return Err("fetching the prebuilt MLX needs `python3 -m pip`, which does not run here \
                    (install python3 and pip, or set SEMANTIC_MLX_DIR and LIBCLANG_PATH)"
            .to_owned());
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

fn check_compiler(compiler: &str) -> Result<(), String> {
    if output_of(compiler, &["--version"]).is_none() {
        return Err(format!(
            "compiling mlx-c needs a C++20 compiler, and `{compiler}` does not run here (install \
             g++ or clang++, or name one in CXX)"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_platforms_with_a_wheel_are_known() {
        assert_eq!(platform("linux", "x86_64", "gnu"), Ok(Platform::LinuxX86));
        assert_eq!(platform("linux", "aarch64", "gnu"), Ok(Platform::LinuxArm));
        assert_eq!(platform("macos", "aarch64", ""), Ok(Platform::MacArm));
    }

    #[test]
    fn a_platform_without_a_wheel_is_named() {
        for (os, arch, env) in [
            ("linux", "x86_64", "musl"),
            ("linux", "riscv64", "gnu"),
            ("macos", "x86_64", ""),
            ("windows", "x86_64", "msvc"),
        ] {
            let sentence = platform(os, arch, env).expect_err("has no wheel");
            assert!(sentence.contains(&format!("{os} {arch}")), "{sentence}");
        }
    }

    #[test]
    fn an_old_system_is_named_with_what_is_needed() {
        let sentence = check_glibc("glibc 2.31\n").expect_err("too old");
        assert!(sentence.contains("glibc 2.35 or later"), "{sentence}");
        assert!(sentence.contains("this is 2.31"), "{sentence}");
        let sentence = check_macos("13.6.7\n").expect_err("too old");
        assert!(sentence.contains("macOS 14.0 or later"), "{sentence}");
        assert!(sentence.contains("this is 13.6"), "{sentence}");
    }

    #[test]
    fn a_system_that_is_new_enough_or_unreadable_is_let_through() {
        for text in ["glibc 2.35\n", "glibc 2.36", "glibc 3.0", "", "glibc x.y"] {
            assert_eq!(check_glibc(text), Ok(()), "{text:?}");
        }
        for text in ["14\n", "14.0", "15.1.1", "26.0", ""] {
            assert_eq!(check_macos(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn a_missing_compiler_is_named() {
        let sentence = check_compiler("no-such-c++").expect_err("does not exist");
        assert!(sentence.contains("`no-such-c++` does not run"), "{sentence}");
    }
}
