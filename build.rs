//! Sets the run path of everything that is linked: where the system finds MLX when it starts.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let build_folder = env::var("DEP_MLX_LIB").expect("mlx-sys says where MLX's libraries are");
    let origin = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "@executable_path",
        _ => {
            // An old-style run path also serves the libraries that libmlx.so itself needs, which
            // it would otherwise expect in the folders of the wheel.
            println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
            "$ORIGIN"
        }
    };
    // Beside the binary, then where a package puts it, then where it was built.
    for folder in [origin, &format!("{origin}/../lib/semantic"), &build_folder] {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
    println!("cargo::rustc-env=SEMANTIC_MLX_LIB={build_folder}");
}
