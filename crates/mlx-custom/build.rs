//! Sets the run path of this crate's own tests and examples, as the root package does for its.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var("DEP_MLX_LIB").expect("mlx-sys says where MLX's libraries are");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // An old-style run path also serves the libraries that libmlx.so itself needs.
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
    }
}
