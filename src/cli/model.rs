//! The `--model` flag: from a name to opened files.

use std::path::Path;

use super::Context;
use super::output::{Downloads, Failure};
use crate::model::ModelFiles;
use crate::model::source::{self, DEFAULT_MODEL, ModelName, Progress, ResolvedModel, Settings};
use crate::text::{self, ChatTemplate};
use crate::types::TextSource;

/// The flag as commands share it.
#[derive(Debug, clap::Args)]
pub struct ModelFlag {
    /// A short name, org/name[@revision][:FILE] on the hub, or a path
    ///
    /// `semantic models` lists the short names.
    #[arg(long, short, value_name = "MODEL", env = "SEMANTIC_MODEL")]
    model: Option<String>,
}

impl ModelFlag {
    /// The flag, else the configuration's model, else the default.
    pub fn name<'a>(&'a self, context: &'a Context) -> &'a str {
        self.model.as_deref().or(context.config.model.as_deref()).unwrap_or(DEFAULT_MODEL)
    }
}

/// Where models are kept and how the hub is reached.
pub fn settings(data_dir: &Path) -> Settings {
    Settings::from_env(data_dir.join("models"), |name| std::env::var(name).ok())
}

/// Finds a model, fetching it if it is not on this machine.
pub fn resolve(name: &str, context: &Context, is_quiet: bool) -> Result<ResolvedModel, Failure> {
    resolve_heard(name, context, &mut Downloads::new(is_quiet))
}

/// The same for who hears it otherwise than on a terminal.
pub fn resolve_heard(
    name: &str,
    context: &Context,
    progress: &mut dyn Progress,
) -> Result<ResolvedModel, Failure> {
    let settings = settings(&context.data_dir);
    ModelName::parse(name)
        .and_then(|name| source::resolve(&name, &settings, progress))
        .map_err(source_failure)
}

/// Opens a model's files and checks what can be checked without reading the weights.
pub fn open(model: &ResolvedModel) -> Result<ModelFiles, Failure> {
    Ok(ModelFiles::open(&model.path)?)
}

/// The model's chat template. `instead` is what the command can do without one.
pub fn chat_template(
    text: &TextSource,
    path: &Path,
    instead: Option<&str>,
) -> Result<ChatTemplate, Failure> {
    ChatTemplate::new(text).map_err(|error| {
        let hint = matches!(error, text::Error::NoTemplate).then(|| {
            let instead = instead.map(|instead| format!(", or {instead}")).unwrap_or_default();
            format!("put a chat_template.jinja beside the model{instead}")
        });
        Failure::with_hint(name_model(error, path), hint)
    })
}

/// The size of a model's weights on disk: a file, or the safetensors of a folder.
pub fn file_bytes(path: &Path) -> Result<u64, Failure> {
    if path.is_file() {
        return Ok(path.metadata()?.len());
    }
    let mut bytes = 0;
    for entry in path.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            bytes += path.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Puts the model's path before a failure that does not name it.
pub fn name_model<E>(error: E, path: &Path) -> anyhow::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let path = path.display().to_string();
    match error.to_string().starts_with(&path) {
        true => anyhow::Error::new(error),
        false => anyhow::Error::new(error).context(path),
    }
}

/// A source's error with what the user can do about it.
pub fn source_failure(error: source::Error) -> Failure {
    use source::Error as E;
    let hint = error.hint();
    match error {
        E::HubUnreachable { .. }
        | E::Offline { .. }
        | E::NotOnHub { .. }
        | E::Denied { .. }
        | E::HubAnswer { .. }
        | E::Interrupted { .. }
        | E::Pip { .. }
        | E::NoSource { .. } => Failure::Unavailable { error: error.into(), hint },
        _ => Failure::with_hint(error, hint),
    }
}
