//! Sets the run path of everything that is linked, which is where the system finds MLX when it
//! starts, and what `--version --verbose` says of the build.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

/// Set where a package is built: the run path then names nothing of this machine.
const RELOCATABLE: &str = "SEMANTIC_RELOCATABLE";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={RELOCATABLE}");
    let build_folder = env::var("DEP_MLX_LIB").expect("mlx-sys says where MLX's libraries are");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
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
    let mut folders = vec![origin.to_owned(), format!("{origin}/../lib/semantic")];
    if env::var_os(RELOCATABLE).is_none() {
        folders.push(build_folder.clone());
        if is_release {
            folders.extend(kept(Path::new(&build_folder)));
        }
    }
    for folder in folders {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
    println!("cargo::rustc-env=SEMANTIC_MLX_LIB={build_folder}");
    describe(is_release);
}

/// A copy of MLX's libraries in a folder that `cargo clean` leaves alone: `cargo install` copies the
/// binary and nothing else. Without one the binary runs as long as the build folder is there.
fn kept(libraries: &Path) -> Option<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::home_dir()?;
        Some(home.join(".cargo"))
    })?;
    match keep(libraries, &home.join("lib/semantic")) {
        Ok(folder) => {
            // Gone, it is made again by the next build.
            println!("cargo::rerun-if-changed={}", folder.display());
            folder.to_str().map(str::to_owned)
        }
        Err(error) => {
            println!("cargo::warning=no copy of MLX's libraries in {}: {error}", home.display());
            None
        }
    }
}

/// Two builds with the same libraries share a folder, others never do.
fn keep(libraries: &Path, parent: &Path) -> io::Result<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(libraries)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in &files {
        hasher.write(file.file_name().expect("a file of a folder has a name").as_encoded_bytes());
        hasher.write(&fs::read(file)?);
    }
    let version = env::var("DEP_MLX_VERSION").expect("mlx-sys says which MLX it is");
    let folder = parent.join(format!("mlx-{version}-{:016x}", hasher.finish()));
    if folder.is_dir() {
        return Ok(folder);
    }
    // Under another name until it is whole, and another one for each process.
    let partial = folder.with_extension(format!("partial-{}", process::id()));
    fs::create_dir_all(&partial)?;
    for file in &files {
        fs::copy(file, partial.join(file.file_name().expect("it was named above")))?;
    }
    match fs::rename(&partial, &folder) {
        // Another build was quicker.
        Err(_) if folder.is_dir() => fs::remove_dir_all(&partial)?,
        renamed => renamed?,
    }
    Ok(folder)
}

fn describe(is_release: bool) {
    let commit = match is_release {
        true => commit().unwrap_or_else(|| "unknown".to_owned()),
        // Asking would build everything anew after each commit.
        false => "not said in a debug build".to_owned(),
    };
    let rustc = env::var_os("RUSTC").expect("cargo names the compiler");
    let rustc = line(Command::new(rustc).arg("--version")).unwrap_or_else(|| "unknown".to_owned());
    let target = env::var("TARGET").expect("cargo names the target");
    println!("cargo::rustc-env=SEMANTIC_COMMIT={commit}");
    println!("cargo::rustc-env=SEMANTIC_RUSTC={rustc}");
    println!("cargo::rustc-env=SEMANTIC_TARGET={target}");
}

/// None where this is no clone, such as a release's sources in some other project's repository.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| line(Command::new("git").args(arguments));
    let top = fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()?;
    let own = fs::canonicalize(env::var_os("CARGO_MANIFEST_DIR")?).ok()?;
    if top != own {
        return None;
    }
    // Written by each commit and each checkout.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some();
    Some(if is_changed { format!("{commit} with changes") } else { commit })
}

/// The first line that a command prints, if it does.
fn line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty())?;
    output.status.success().then(|| line.to_owned())
}
