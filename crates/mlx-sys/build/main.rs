//! Brings the prebuilt MLX, compiles mlx-c against it and generates the bindings.
//!
//! Upstream's build script lets CMake download and build MLX and works on macOS only. This one
//! links the official wheels instead, the same way on every target.

mod bindings;
mod fetch;
mod mlx_c;
mod requirements;
mod runtime;

use std::env;
use std::path::PathBuf;
use std::process::exit;

fn main() {
    if let Err(sentence) = build() {
        // Not a panic: a backtrace would hide the one line that helps.
        eprintln!("error: {sentence}");
        exit(1);
    }
}

fn build() -> Result<(), String> {
    for input in ["build", "cpp", "upstream"] {
        println!("cargo::rerun-if-changed={input}");
    }

    let platform = requirements::target_platform()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let libclang = bindings::Libclang::find(platform, &out);
    let must_fetch = runtime::is_missing(&out) || libclang.is_missing();
    requirements::check(platform, &mlx_c::compiler_name()?, must_fetch)?;

    let mlx = runtime::provide(platform, &out)?;
    let mlx_c = mlx_c::sources()?;
    mlx_c::compile(&mlx_c, &mlx)?;
    bindings::generate(&mlx_c, libclang, &out)?;
    link(&mlx);
    Ok(())
}

fn link(mlx: &runtime::Mlx) {
    let lib = mlx.lib.display();
    println!("cargo::rustc-link-search=native={lib}");
    println!("cargo::rustc-link-lib=dylib=mlx");
    // Reaches this crate's own tests only; the root package sets the run path of its binary from
    // the metadata below.
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
    }
    println!("cargo::metadata=lib={lib}");
    println!("cargo::metadata=include={}", mlx.include.display());
    println!("cargo::metadata=version={}", fetch::MLX_VERSION);
}
