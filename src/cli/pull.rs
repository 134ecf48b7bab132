//! `semantic pull`: fetches a model and says where it is.

use std::process::ExitCode;

use super::Context;
use super::model::{settings, source_failure};
use super::output::{self, Downloads, Failure};
use crate::model::source::{self, ModelName};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A short name (see `semantic models --all`) or org/name[@revision][:FILE] on the hub
    name: String,
    /// Say nothing on stderr unless something fails
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(arguments: &Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let mut progress = Downloads::new(arguments.quiet);
    let model = ModelName::parse(&arguments.name)
        .and_then(|name| source::pull(&name, &settings(&context.data_dir), &mut progress))
        .map_err(source_failure)?;
    output::data(format!("{}\n", model.path.display()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
