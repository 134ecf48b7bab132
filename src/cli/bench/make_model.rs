//! `--make-model`: writes a model with random weights in the shape of a known one.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::cli::interrupt::Interrupt;
use crate::cli::output::{self, Failure, human_bytes};
use crate::model::synthetic::{Existing, Quantisation, Shape, Synthetic};

#[derive(Debug, clap::Args)]
pub struct MakeModelFlags {
    /// Write a GGUF file with random weights instead: smollm2-135m, llama-3.2-1b or llama-3.1-8b
    #[arg(long, value_name = "SHAPE", requires = "out",
          conflicts_with_all = ["suite", "quick", "json", "html", "text", "peer_program",
                                "from", "against", "check"])]
    make_model: Option<&'static Shape>,
    /// The file that --make-model writes
    #[arg(long, value_name = "FILE", requires = "make_model")]
    out: Option<PathBuf>,
    /// How --make-model stores the layers' weights: q4_0 or q4_1; embedding and head are Q8_0
    #[arg(long, value_name = "TYPE", default_value = "q4_0", requires = "make_model")]
    quantisation: Quantisation,
    /// The same seed gives the same weights
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "make_model")]
    seed: u64,
    /// Let --make-model replace a file
    #[arg(long, requires = "make_model")]
    force: bool,
}

impl MakeModelFlags {
    /// The shape of the model to write, if one is to be written.
    pub fn shape(&self) -> Option<&'static Shape> {
        self.make_model
    }
}

/// Writes the file and prints its name.
pub fn run(
    shape: &'static Shape,
    flags: &MakeModelFlags,
    interrupt: &Interrupt,
    is_quiet: bool,
) -> Result<(), Failure> {
    let path = flags.out.as_deref().expect("clap requires it with the shape");
    let synthetic = Synthetic::new(shape, flags.quantisation, flags.seed);
    let existing = if flags.force { Existing::Replaced } else { Existing::Kept };
    let bytes = synthetic.file_bytes();
    let bar = match is_quiet {
        true => None,
        false => output::bar(Some(bytes), "{bytes}/{total_bytes} at {binary_bytes_per_sec}"),
    };
    let done = synthetic.write(path, existing, &mut |bytes| {
        if let Some(bar) = &bar {
            bar.inc(bytes);
        }
        match interrupt.is_set() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let hint = (!flags.force && path.exists()).then(|| "--force replaces it".to_owned());
    let done = done.map_err(|error| match hint {
        Some(_) => Failure::with_hint(anyhow::Error::new(error), hint),
        None => error.into(),
    })?;
    if done.is_break() {
        return Err(Failure::Interrupted);
    }
    if !is_quiet {
        output::talk(&format!("{}: {}, random weights", shape.name, human_bytes(bytes)));
    }
    output::data(format!("{}\n", path.display()).as_bytes())
}
