//! Models on the Hugging Face hub, in the cache that all of the hub's tools share.
//!
//! ```text
//! models--org--name/refs/main            the commit
//!                   snapshots/<commit>/  links named like the repository's files
//!                   blobs/<etag>         the bytes; <etag>.incomplete while they arrive
//! .locks/models--org--name/<etag>.lock   held while one blob is fetched
//! ```
//!
//! A blob gets its name after its digest was checked, and the reference is written after the
//! last link, so what `find` finds is whole.

use super::catalogue::HubFile;
use super::choose::{self, Needed};
use super::download::{self, CopyError, check, copy_hashed, hex, io_error, write_error};
use super::hub_client::{Client, RemoteFile, TRIES_MAX};
use super::local::note_choice;
use super::name::is_gguf;
use super::{Error, HubName, HubSettings, Progress, ResolvedModel, Settings};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How deep below a snapshot GGUF files are looked for: `Q4_K_M/model.gguf`.
const DEPTH_MAX: usize = 3;

/// The model as it lies in the cache. Asks nobody.
pub(super) fn find(
    name: &HubName,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<Option<ResolvedModel>, Error> {
    let Some(snapshot) = snapshot(name, &settings.hub) else {
        return Ok(None);
    };
    let files = files_below(&snapshot);
    // A cache holds what was asked for once: what it lacks the hub may have.
    match choose::choose(&name.to_string(), &files, name.choice.as_deref()) {
        Ok(Some(Needed::Folder(needed))) if is_whole(&snapshot, &needed) => {
            Ok(Some(ResolvedModel::unmeasured(name.to_string(), snapshot)))
        }
        Ok(Some(Needed::Gguf { file, others })) => {
            note_choice(&name.to_string(), &file, &others, progress);
            Ok(Some(resolved_file(name, &snapshot, &file)))
        }
        _ => Ok(None),
    }
}

/// Asks the hub, and fetches what the cache lacks.
pub(super) fn fetch(
    name: &HubName,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<ResolvedModel, Error> {
    fetch_checked(name, None, &settings.hub, progress)
}

/// Like `fetch`, for a file whose digest the catalogue may know already.
pub(super) fn fetch_pinned(
    file: &HubFile,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<ResolvedModel, Error> {
    fetch_checked(&file.name(), file.sha256, &settings.hub, progress)
}

fn fetch_checked(
    name: &HubName,
    sha256: Option<&str>,
    settings: &HubSettings,
    progress: &mut dyn Progress,
) -> Result<ResolvedModel, Error> {
    if settings.offline {
        let cache_dir = settings.cache_dir.clone();
        return Err(Error::Offline { name: name.to_string(), cache_dir });
    }
    let info = Client::new(name, name.revision(), settings)?.info()?;
    let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
    let needed = choose::choose(&name.to_string(), &files, name.choice.as_deref())?;
    let (files, model) = match needed {
        Some(Needed::Folder(files)) => (files, None),
        Some(Needed::Gguf { file, others }) => {
            note_choice(&name.to_string(), &file, &others, progress);
            (vec![file.clone()], Some(file))
        }
        None => {
            let reason = "it holds neither config.json with *.safetensors nor a .gguf file".into();
            return Err(Error::NotAModel { path: name.to_string().into(), reason });
        }
    };
    // From here on the commit is asked for: the branch may move while we download.
    let client = Client::new(name, &info.sha, settings)?;
    let files: Result<Vec<RemoteFile>, Error> =
        files.iter().map(|file| client.metadata(file)).collect();
    let files = files?;
    // A small text file has git's digest: its length is checked, and whoever parses it says what
    // is wrong. Weights that are wrong nobody would notice.
    if let Some(file) = files.iter().find(|file| is_weights(&file.file) && file.sha256().is_none())
    {
        return Err(Error::NoDigest { name: name.to_string(), file: file.file.clone() });
    }
    if let (Some(sha256), [file]) = (sha256, files.as_slice()) {
        check(&file.file, sha256, file.etag.clone())?;
    }
    let target = Target::new(name, &info.sha, settings);
    target.download(&client, &files, progress)?;
    match model {
        Some(file) => Ok(resolved_file(name, &target.snapshot, &file)),
        None => Ok(ResolvedModel::unmeasured(name.to_string(), target.snapshot)),
    }
}

fn resolved_file(name: &HubName, snapshot: &Path, file: &str) -> ResolvedModel {
    let label = choose::quantisation(file).unwrap_or_else(|| file.to_string());
    ResolvedModel::unmeasured(name.with_choice(&label).to_string(), snapshot.join(file))
}

/// One commit of one repository in the cache, to be filled.
struct Target {
    name: HubName,
    commit: String,
    cache: CacheRepo,
    snapshot: PathBuf,
    locks: PathBuf,
}

impl Target {
    fn new(name: &HubName, commit: &str, settings: &HubSettings) -> Target {
        let cache = cache_repo(name, settings);
        let repo = Repo::new(name.repo(), RepoType::Model);
        Target {
            name: name.clone(),
            commit: commit.to_string(),
            snapshot: cache.pointer_path(commit),
            cache,
            locks: settings.cache_dir.join(".locks").join(repo.folder_name()),
        }
    }

    fn download(
        &self,
        client: &Client<'_>,
        files: &[RemoteFile],
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let blobs = self.cache.blob_path("");
        download::make_folder(&blobs)?;
        download::make_folder(&self.locks)?;
        let lacking: Vec<&RemoteFile> = files.iter().filter(|file| !self.has_blob(file)).collect();
        let total_bytes: u64 = lacking.iter().map(|file| file.size_bytes).sum();
        let partial_bytes: u64 = lacking.iter().map(|file| length(&self.partial(file))).sum();
        let what = self.name.to_string();
        download::require_space(&what, &blobs, total_bytes.saturating_sub(partial_bytes))?;
        if !lacking.is_empty() {
            progress.start(&what, Some(total_bytes));
            let fetched =
                lacking.iter().try_for_each(|file| self.download_file(client, file, progress));
            progress.finish();
            fetched?;
        }
        for file in files {
            self.link(file)?;
        }
        if self.name.revision() == self.commit {
            return Ok(());
        }
        self.cache.create_ref(&self.commit).map_err(io_error("write a reference in", &blobs))
    }

    fn has_blob(&self, file: &RemoteFile) -> bool {
        let metadata = std::fs::metadata(self.cache.blob_path(&file.etag));
        metadata.is_ok_and(|metadata| metadata.len() == file.size_bytes)
    }

    fn partial(&self, file: &RemoteFile) -> PathBuf {
        self.cache.blob_path(&format!("{}.incomplete", file.etag))
    }

    /// One blob, with as many tries as the network needs. What has arrived stays for the next
    /// try, or the next start; what is wrong, or fills the disk, goes.
    fn download_file(
        &self,
        client: &Client<'_>,
        file: &RemoteFile,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let lock = self.locks.join(format!("{}.lock", file.etag));
        let _lock = download::lock(&lock, &file.file, progress)?;
        let mut progress = HighWater { progress, at_bytes: 0, told_bytes: 0 };
        if self.has_blob(file) {
            progress.advance(file.size_bytes);
            return Ok(());
        }
        let partial = self.partial(file);
        let mut tried = 0;
        loop {
            let is_resumed = length(&partial) > 0;
            tried += 1;
            progress.at_bytes = 0;
            let error = match attempt(client, file, &partial, &mut progress) {
                Ok(done) => {
                    return download::place(&done, &partial, &self.cache.blob_path(&file.etag));
                }
                Err(error) => error,
            };
            match error {
                Error::Interrupted { .. } | Error::HubUnreachable { .. } if tried < TRIES_MAX => {
                    std::thread::sleep(client.pause(tried, None));
                }
                // It went on from bytes of an earlier start, which may be what is wrong.
                Error::Checksum { .. } if is_resumed && tried < TRIES_MAX => remove(&partial)?,
                Error::Checksum { .. } | Error::DiskFull { .. } | Error::Io { .. } => {
                    remove(&partial)?;
                    return Err(error);
                }
                error => return Err(error),
            }
        }
    }

    /// The file's name in the snapshot, as a link to its blob; replaced in one step if it is
    /// there and something else.
    fn link(&self, file: &RemoteFile) -> Result<(), Error> {
        let link = self.snapshot.join(&file.file);
        if std::fs::metadata(&link).is_ok_and(|metadata| metadata.len() == file.size_bytes) {
            return Ok(());
        }
        let folder = link.parent().unwrap_or(&self.snapshot);
        download::make_folder(folder)?;
        let up = "../".repeat(2 + file.file.matches('/').count());
        let work = tempfile::Builder::new().prefix(".link-").tempdir_in(folder);
        let work = work.map_err(io_error("make a folder in", folder))?;
        let new = work.path().join("link");
        std::os::unix::fs::symlink(format!("{up}blobs/{}", file.etag), &new)
            .map_err(io_error("make a link in", folder))?;
        std::fs::rename(&new, &link).map_err(io_error("rename a link to", &link))?;
        download::sync_folder(&link)
    }
}

/// Goes on where the partial file ends, and checks the whole. The handle is the checked file.
fn attempt(
    client: &Client<'_>,
    file: &RemoteFile,
    partial: &Path,
    progress: &mut HighWater<'_>,
) -> Result<File, Error> {
    let options = File::options().read(true).append(true).create(true).open(partial);
    let mut output = options.map_err(io_error("open", partial))?;
    let mut hasher = Sha256::new();
    let mut received_bytes = output.metadata().map_err(io_error("read", partial))?.len();
    if received_bytes > file.size_bytes {
        output.set_len(0).map_err(io_error("shorten", partial))?;
        received_bytes = 0;
    }
    let broken = |received_bytes, reason| Error::Interrupted {
        file: file.file.clone(),
        received_bytes,
        size_bytes: file.size_bytes,
        reason,
    };
    if received_bytes < file.size_bytes {
        let (offset, body) = client.read(&file.file, received_bytes)?;
        if offset < received_bytes {
            output.set_len(0).map_err(io_error("shorten", partial))?;
            received_bytes = 0;
        }
        hash_start(&mut output, received_bytes, partial, &mut hasher, progress)?;
        // No more than promised: a server gone wrong must not fill the disk.
        let mut body = body.take(file.size_bytes - received_bytes);
        match copy_hashed(&mut body, &mut output, &mut hasher, progress) {
            Ok(copied_bytes) => received_bytes += copied_bytes,
            Err(CopyError::Read(error)) => {
                return Err(broken(length(partial), error.to_string()));
            }
            Err(CopyError::Write(error)) => {
                return Err(write_error(&file.file, partial, file.size_bytes, error));
            }
        }
    } else {
        hash_start(&mut output, received_bytes, partial, &mut hasher, progress)?;
    }
    if received_bytes < file.size_bytes {
        return Err(broken(received_bytes, "the connection was closed".into()));
    }
    match file.sha256() {
        Some(expected) => check(&file.file, expected, hex(hasher))?,
        None => assert!(!is_weights(&file.file)),
    }
    Ok(output)
}

fn hash_start(
    file: &mut File,
    bytes: u64,
    path: &Path,
    hasher: &mut Sha256,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    match copy_hashed(&mut file.take(bytes), &mut io::sink(), hasher, progress) {
        Ok(_) => Ok(()),
        Err(CopyError::Read(error) | CopyError::Write(error)) => Err(io_error("read", path)(error)),
    }
}

/// Tells each byte once, however often it has to be fetched.
struct HighWater<'a> {
    progress: &'a mut dyn Progress,
    at_bytes: u64,
    told_bytes: u64,
}

impl Progress for HighWater<'_> {
    fn note(&mut self, message: &str) {
        self.progress.note(message);
    }
    fn start(&mut self, what: &str, bytes: Option<u64>) {
        self.progress.start(what, bytes);
    }
    fn advance(&mut self, bytes: u64) {
        self.at_bytes += bytes;
        if self.at_bytes > self.told_bytes {
            self.progress.advance(self.at_bytes - self.told_bytes);
            self.told_bytes = self.at_bytes;
        }
    }
    fn finish(&mut self) {
        self.progress.finish();
    }
}

fn cache_repo(name: &HubName, settings: &HubSettings) -> CacheRepo {
    let revision = name.revision().to_string();
    let repo = Repo::with_revision(name.repo(), RepoType::Model, revision);
    Cache::new(settings.cache_dir.clone()).repo(repo)
}

/// The folder of this revision, if it was ever fetched.
fn snapshot(name: &HubName, settings: &HubSettings) -> Option<PathBuf> {
    let repo = Repo::new(name.repo(), RepoType::Model).folder_name();
    let reference = settings.cache_dir.join(repo).join("refs").join(name.revision());
    let commit = std::fs::read_to_string(reference).unwrap_or_else(|_| name.revision().into());
    let snapshot = cache_repo(name, settings).pointer_path(commit.trim());
    snapshot.is_dir().then_some(snapshot)
}

/// Whether everything is there that the configuration, the index and the files' names speak of.
pub(super) fn is_whole(folder: &Path, files: &[String]) -> bool {
    let weights: Vec<&String> = files.iter().filter(|f| f.ends_with(".safetensors")).collect();
    let shards = weights.iter().find_map(|file| choose::shard_count(file));
    files.iter().any(|file| file == "tokenizer.json")
        && shards.is_none_or(|count| weights.len() >= count)
        && indexed(folder).iter().all(|file| weights.contains(&file))
}

/// The files that `model.safetensors.index.json` names; none without one.
fn indexed(folder: &Path) -> Vec<String> {
    let text = std::fs::read(folder.join(choose::INDEX)).unwrap_or_default();
    let index: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let map = index["weight_map"].as_object().into_iter().flatten();
    map.filter_map(|(_, file)| file.as_str().map(str::to_string)).collect()
}

/// The names of the files in a snapshot, relative to it. A link whose blob is gone is no file.
pub(super) fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    collect(folder, "", DEPTH_MAX, &mut files);
    files
}

fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) {
    let Ok(items) = std::fs::read_dir(folder) else {
        return;
    };
    for item in items.flatten() {
        let Some(name) = item.file_name().to_str().map(|name| format!("{prefix}{name}")) else {
            continue;
        };
        match std::fs::metadata(item.path()) {
            Ok(metadata) if metadata.is_file() => files.push(name),
            Ok(metadata) if metadata.is_dir() && depth > 1 => {
                collect(&item.path(), &format!("{name}/"), depth - 1, files);
            }
            _ => {}
        }
    }
}

fn is_weights(file: &str) -> bool {
    is_gguf(file) || file.ends_with(".safetensors")
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}
