//! Where the prebuilt MLX of this build lies: the wheel's, or the folder that the user names.

use crate::fetch::{self, Platform};
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A folder laid out as MLX's wheel is: `mlx/lib`, `mlx/include` and, on Linux, `mlx_cpu.libs`.
const LOCAL_FOLDER: &str = "SEMANTIC_MLX_DIR";

/// The prebuilt MLX.
pub struct Mlx {
    /// Every file that is needed at run time, in one flat folder.
    pub lib: PathBuf,
    pub include: PathBuf,
}

/// Whether [`provide`] will have to fetch.
pub fn is_missing(out: &Path) -> bool {
    env::var_os(LOCAL_FOLDER).is_none() && !fetched_folder(out).is_dir()
}

pub fn provide(platform: Platform, out: &Path) -> Result<Mlx, String> {
    println!("cargo::rerun-if-env-changed={LOCAL_FOLDER}");
    if let Some(folder) = env::var_os(LOCAL_FOLDER) {
        let folder = PathBuf::from(folder);
        return copy_local(&folder, out)
            .map_err(|error| format!("{LOCAL_FOLDER}={} is of no use: {error}", folder.display()));
    }
    let wheel = platform.mlx_wheel();
    let folder = fetched_folder(out);
    let fetched = fetch::provide(&wheel, &folder, fetch::arrange_mlx)?;
    announce(&wheel, fetched);
    Ok(Mlx { lib: folder.join("lib"), include: folder.join("include") })
}

/// Tells the user what came over the network, and nothing when nothing did.
pub fn announce(wheel: &fetch::Wheel, fetched_bytes: Option<u64>) {
    if let Some(bytes) = fetched_bytes {
        println!(
            "cargo::warning={} {}: fetched from PyPI, {:.1} MB unpacked",
            wheel.package,
            wheel.version,
            bytes as f64 / 1e6
        );
    }
}

fn fetched_folder(out: &Path) -> PathBuf {
    out.join(format!("mlx-{}", fetch::MLX_VERSION))
}

/// The run-time files are copied, so that they lie together as those of the wheel do.
fn copy_local(folder: &Path, out: &Path) -> io::Result<Mlx> {
    println!("cargo::rerun-if-changed={}", folder.join("mlx").display());
    let include = folder.join("mlx/include");
    fs::metadata(include.join("mlx/mlx.h"))?;
    let lib = out.join("mlx-local");
    if lib.exists() {
        fs::remove_dir_all(&lib)?;
    }
    fs::create_dir(&lib)?;
    for file in fetch::runtime_files(folder)? {
        let name = file.file_name().expect("a file in a folder has a name");
        fs::copy(&file, lib.join(name))?;
    }
    Ok(Mlx { lib, include })
}
