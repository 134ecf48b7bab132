//! Models that are already here: a path the user gave, and our own folder.

use super::catalogue::Entry;
use super::choose::{self, Needed};
use super::download::{check, hash_file, io_error};
use super::name::is_gguf;
use super::{Error, Progress, ResolvedModel, Settings};
use std::path::{Path, PathBuf};

/// A path as the user gave it. A folder of several GGUF files is chosen from like a repository.
pub(super) fn open(
    given: &Path,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<ResolvedModel, Error> {
    let path = expand(given, settings);
    let name = given.display().to_string();
    let Ok(metadata) = std::fs::metadata(&path) else {
        return Err(Error::NoSuchPath { path });
    };
    if metadata.is_dir() {
        return open_folder(&name, &path, progress);
    }
    if !path.to_str().is_some_and(is_gguf) {
        let reason = "it is neither a folder nor a .gguf file".to_string();
        return Err(Error::NotAModel { path, reason });
    }
    match choose::is_split(&path.to_string_lossy()) {
        true => Err(Error::SplitGguf { file: name.clone(), name }),
        false => Ok(ResolvedModel::unmeasured(name, path)),
    }
}

fn open_folder(
    name: &str,
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<ResolvedModel, Error> {
    let files = file_names(folder)?;
    let path = match choose::choose(name, &files, None)? {
        Some(Needed::Folder(_)) => folder.to_path_buf(),
        Some(Needed::Gguf { file, others }) => {
            note_choice(name, &file, &others, progress);
            folder.join(file)
        }
        None => {
            let reason = "it holds neither config.json with *.safetensors nor a .gguf file";
            return Err(Error::NotAModel { path: folder.into(), reason: reason.into() });
        }
    };
    Ok(ResolvedModel::unmeasured(name.to_string(), path))
}

/// Says what was taken where the user left it open.
pub(super) fn note_choice(name: &str, file: &str, others: &[String], progress: &mut dyn Progress) {
    if !others.is_empty() {
        let others = others.join(", ");
        progress.note(&format!("{name} has several GGUF files; taking {file}, not {others}"));
    }
}

/// The model of the catalogue in our own folder. A file of a pinned model has been hashed before
/// it got its name, so its size is enough here; `verify` reads it all.
pub(super) fn find(entry: &Entry, settings: &Settings) -> Result<Option<PathBuf>, Error> {
    let path = folder(entry, settings).join(entry.file_name());
    let Ok(metadata) = std::fs::metadata(&path) else {
        return Ok(None);
    };
    match entry.pin() {
        // Not ours, then: ours are never half there. The user's file is neither used nor touched.
        Some((expected_bytes, _)) if metadata.len() != expected_bytes => {
            Err(Error::OtherFile { path, size_bytes: metadata.len(), expected_bytes })
        }
        _ => Ok(Some(path)),
    }
}

/// Like `find`, and the pinned digest holds.
pub(super) fn verify(
    entry: &Entry,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<Option<PathBuf>, Error> {
    let Some(path) = find(entry, settings)? else {
        return Ok(None);
    };
    let Some((bytes, sha256)) = entry.pin() else {
        return Ok(Some(path));
    };
    progress.start(&format!("checking {}", entry.name), Some(bytes));
    let digest = hash_file(&path, progress);
    progress.finish();
    check(&path.display().to_string(), sha256, digest?)?;
    Ok(Some(path))
}

pub(super) fn folder(entry: &Entry, settings: &Settings) -> PathBuf {
    settings.models_dir.join(entry.name)
}

/// The files at the top of a folder; a link counts as what it points to.
pub(super) fn file_names(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for item in std::fs::read_dir(folder).map_err(io_error("read the folder", folder))? {
        let item = item.map_err(io_error("read the folder", folder))?;
        if item.path().is_file()
            && let Some(name) = item.file_name().to_str()
        {
            names.push(name.to_string());
        }
    }
    Ok(names)
}

fn expand(path: &Path, settings: &Settings) -> PathBuf {
    match (path.strip_prefix("~"), &settings.home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_path_buf(),
    }
}
