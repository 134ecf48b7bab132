//! `semantic serve --print-config`: what the flags, the environment and the file come to.

use std::process::ExitCode;

use super::settings::Settings;
use crate::cli::output::{self, Failure};
use crate::cli::{Context, store};
use crate::config::Config;

/// As a configuration file that would say the same. Of keys there is their number alone.
pub fn print(settings: &Settings, model: &str, context: &Context) -> Result<ExitCode, Failure> {
    let counts = settings.entrance.counts()?;
    let admin = if settings.admin.is_some() { "set" } else { "not set" };
    let config = Config {
        data_dir: Some(context.data_dir.clone()),
        model: Some(model.to_owned()),
        serve: settings.effective.clone(),
        cache: store::effective(&context.config.cache),
        ..Config::default()
    };
    let text = format!(
        "# API keys: {} in the environment, {} in {}. Admin key: {admin}.\n{}",
        counts.of_environment,
        counts.of_file,
        settings.entrance.file.path().display(),
        config.to_toml()?,
    );
    output::data(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
