//! Generates the Rust bindings from mlx-c's headers and this crate's own.

use crate::fetch::{self, Platform};
use crate::mlx_c::with_extension;
use crate::runtime::announce;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that bindgen parses C with.
pub enum Libclang {
    /// Found by bindgen's own search, and loaded.
    Installed,
    /// PyPI's, in this folder, which may be still to be fetched.
    Wheel(Platform, PathBuf),
}

impl Libclang {
    pub fn find(platform: Platform, out: &Path) -> Libclang {
        println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");
        match clang_sys::load() {
            Ok(()) => Libclang::Installed,
            Err(_) => Libclang::Wheel(platform, out.join("libclang")),
        }
    }

    /// Whether [`generate`] will have to fetch it.
    pub fn is_missing(&self) -> bool {
        match self {
            Libclang::Installed => false,
            Libclang::Wheel(_, folder) => !folder.is_dir(),
        }
    }

    fn load(&self) -> Result<(), String> {
        let Libclang::Wheel(platform, folder) = self else {
            return Ok(());
        };
        let wheel = platform.libclang_wheel();
        announce(&wheel, fetch::provide(&wheel, folder, |_| Ok(()))?);
        // SAFETY: a build script's main thread, and no other has been started.
        unsafe { env::set_var("LIBCLANG_PATH", folder.join("clang/native")) };
        clang_sys::load()
    }
}

/// Writes `bindings.rs` into `out`.
pub fn generate(mlx_c: &Path, libclang: Libclang, out: &Path) -> Result<(), String> {
    libclang.load()?;
    let headers = with_extension(&mlx_c.join("mlx/c"), "h")
        .map_err(|error| format!("cannot list mlx-c's headers: {error}"))?;
    let mut builder = bindgen::Builder::default()
        .clang_arg(format!("-I{}", mlx_c.display()))
        .clang_args(["-include", "cpp/bindgen.h"])
        .clang_args(system_headers())
        // mlx-rs takes `float16_t` to be a tuple struct, as bindgen writes it on Apple's targets.
        .blocklist_type("float16_t")
        .raw_line(
            "#[repr(C)]\n#[derive(Clone, Copy, Debug, Default)]\npub struct float16_t(pub u16);",
        )
        // rustc warns of these two, whose `c_ulong` is not its own `usize`.
        .blocklist_function("malloc")
        .blocklist_function("realloc")
        .layout_tests(false);
    for header in headers {
        builder = builder.header(header.to_string_lossy());
    }
    builder = builder.header("cpp/custom.h");
    builder
        .generate()
        .map_err(|error| format!("bindgen: {error}"))?
        .write_to_file(out.join("bindings.rs"))
        .map_err(|error| format!("cannot write the bindings: {error}"))
}

/// Where libclang finds `stddef.h` and the like: PyPI's libclang comes without the compiler's own
/// headers, and distributions pack them apart. After all others, so that its own win.
fn system_headers() -> Vec<String> {
    let mut arguments = Vec::new();
    if let Some(folder) = first_line("cc", &["-print-file-name=include"]) {
        arguments.extend(["-idirafter".to_owned(), folder]);
    }
    if let Some(sdk) = first_line("xcrun", &["--show-sdk-path"]) {
        arguments.extend(["-isysroot".to_owned(), sdk]);
    }
    arguments
}

fn first_line(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
