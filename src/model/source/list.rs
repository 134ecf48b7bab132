//! What is on this machine already, for `semantic models`.

use super::choose::{self, Needed};
use super::{Error, HubName, Settings, hub, local};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A model that can be loaded without a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModel {
    /// What `--model` calls it.
    pub name: String,
    /// Of the files that would be loaded.
    pub size_bytes: u64,
    /// `Q4_K_M`, `4-bit`, `bfloat16`; none if the files do not tell.
    pub quantisation: Option<String>,
    pub path: PathBuf,
}

/// Our own folder first, then the hub's cache, each by name. Folders that are not there, or hold
/// something else, are nothing to complain about.
pub fn local_models(settings: &Settings) -> Result<Vec<LocalModel>, Error> {
    let mut models = Vec::new();
    for (name, folder) in folders(&settings.models_dir) {
        let files = local::file_names(&folder)?;
        models.extend(in_folder(&folder, &files).into_iter().map(|model| LocalModel {
            name: match super::catalogue::find(&name) {
                Ok(entry) if model.path.ends_with(entry.file_name()) => name.clone(),
                // Put there by hand: its path is its name.
                _ => model.path.display().to_string(),
            },
            ..model
        }));
    }
    for (name, folder) in folders(&settings.hub.cache_dir) {
        if let Some((org, name)) = name.strip_prefix("models--").and_then(|n| n.split_once("--")) {
            models.extend(in_repo(org, name, &folder));
        }
    }
    Ok(models)
}

fn in_repo(org: &str, name: &str, repo: &Path) -> Vec<LocalModel> {
    let references: BTreeMap<String, String> = hub::files_below(&repo.join("refs"))
        .into_iter()
        .filter_map(|reference| {
            let commit = std::fs::read_to_string(repo.join("refs").join(&reference)).ok()?;
            Some((commit.trim().to_string(), reference))
        })
        .collect();
    let mut models = Vec::new();
    for (commit, snapshot) in folders(&repo.join("snapshots")) {
        let revision = references.get(&commit).unwrap_or(&commit);
        let hub_name = HubName {
            org: org.to_string(),
            name: name.to_string(),
            revision: (revision != "main").then(|| revision.clone()),
            choice: None,
        };
        for model in in_folder(&snapshot, &hub::files_below(&snapshot)) {
            let file = model.path.strip_prefix(&snapshot).unwrap_or(Path::new(""));
            let name = match file.to_str() {
                None | Some("") => hub_name.to_string(),
                Some(file) => hub_name.with_choice(file).to_string(),
            };
            models.push(LocalModel { name, ..model });
        }
    }
    models
}

/// Every model among these files: the folder itself, and each GGUF. Their names are still empty.
fn in_folder(folder: &Path, files: &[String]) -> Vec<LocalModel> {
    let model = |path: PathBuf, files: &[String], quantisation| LocalModel {
        name: String::new(),
        size_bytes: files.iter().map(|file| size(&folder.join(file))).sum(),
        quantisation,
        path,
    };
    let mut models = Vec::new();
    if let Ok(Some(Needed::Folder(needed))) = choose::choose("", files, None)
        && hub::is_whole(folder, &needed)
    {
        models.push(model(folder.to_path_buf(), &needed, folder_quantisation(folder)));
    }
    let mut sorted: Vec<&String> = files.iter().collect();
    sorted.sort();
    for file in sorted {
        if let Ok(Some(Needed::Gguf { .. })) = choose::choose("", files, Some(file)) {
            let files = std::slice::from_ref(file);
            models.push(model(folder.join(file), files, choose::quantisation(file)));
        }
    }
    models
}

/// From `config.json`: MLX writes `quantization.bits`, others `quantization_config`, and a dense
/// model has a type.
fn folder_quantisation(folder: &Path) -> Option<String> {
    let text = std::fs::read(folder.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let bits = ["quantization", "quantization_config"].iter().find_map(|key| {
        let bits = config[key]["bits"].as_u64();
        bits.map(|bits| format!("{bits}-bit"))
    });
    let method = || config["quantization_config"]["quant_method"].as_str().map(str::to_string);
    let dense = || {
        let keys = ["torch_dtype", "dtype"];
        keys.iter().find_map(|key| config[key].as_str().map(str::to_string))
    };
    bits.or_else(method).or_else(dense)
}

/// The visible folders in a folder, by name.
fn folders(folder: &Path) -> BTreeMap<String, PathBuf> {
    let Ok(items) = std::fs::read_dir(folder) else {
        return BTreeMap::new();
    };
    let folders = items.flatten().filter(|item| item.path().is_dir());
    let named =
        folders.filter_map(|item| Some((item.file_name().into_string().ok()?, item.path())));
    named.filter(|(name, _)| !name.starts_with('.')).collect()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
