//! llama.cpp beside us: runs its `llama-bench` and `llama-batched-bench` and reads what they say.
//!
//! A process per work and round, which loads the model, warms up and times itself.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::ArgGroup;
use serde_json::{Value as Json, json};

use super::process::{output_of, runnable};
use super::report::{Facts, facts};
use super::rounds::Work;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;

/// Lies beside `llama-bench` where both were built.
const BATCHED_BENCH: &str = "llama-batched-bench";
/// llama.cpp rounds the context of each sequence up to this.
pub const CONTEXT_MULTIPLE: usize = 256;

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("peer_program").multiple(true)))]
pub struct PeerFlags {
    /// Also run this llama-bench, and llama-batched-bench beside it
    #[arg(long, value_name = "PATH", requires = "peer_model", group = "peer_program")]
    peer_llama_bench: Option<PathBuf>,
    /// Let this llama-server take part in `restore` and `agents`
    #[arg(long, value_name = "PATH", requires = "peer_model", group = "peer_program")]
    pub peer_server: Option<PathBuf>,
    /// The GGUF file that the peer runs
    #[arg(long, value_name = "FILE", requires = "peer_program")]
    pub peer_model: Option<PathBuf>,
    /// Let mlx-lm's server, run by this Python, have a short race in `agents`
    #[arg(long, value_name = "PYTHON", requires = "peer_mlx_model")]
    pub peer_mlx: Option<PathBuf>,
    /// The folder of the model that mlx-lm runs
    #[arg(long, value_name = "FOLDER", requires = "peer_mlx")]
    pub peer_mlx_model: Option<PathBuf>,
}

pub struct Peer {
    bench: PathBuf,
    batched_bench: Option<PathBuf>,
    model: PathBuf,
    threads: usize,
    /// What it says of itself and its model, once it has run.
    about: OnceCell<Json>,
}

impl Peer {
    /// The peer that the flags name, if they do; its files are there.
    pub fn new(flags: &PeerFlags, threads: usize) -> Result<Option<Peer>, Failure> {
        let (Some(bench), Some(model)) = (&flags.peer_llama_bench, &flags.peer_model) else {
            return Ok(None);
        };
        check_files([("--peer-llama-bench", bench), ("--peer-model", model)])?;
        let batched_bench = bench.with_file_name(BATCHED_BENCH);
        Ok(Some(Peer {
            bench: runnable(bench),
            batched_bench: batched_bench.is_file().then(|| runnable(&batched_bench)),
            model: model.clone(),
            threads,
            about: OnceCell::new(),
        }))
    }

    pub fn headline(&self) -> String {
        format!(
            "{} on {}, {} threads, flash attention, KV bits 16/16",
            self.bench.display(),
            self.model.display(),
            self.threads
        )
    }

    pub fn facts(&self) -> Facts {
        facts([
            ("program", json!(file_name(&self.bench))),
            ("model", json!(file_name(&self.model))),
            ("threads", json!(self.threads)),
            ("kv_bits", json!("16/16")),
            ("about", json!(self.about.get())),
        ])
    }

    /// Why it cannot do a work, if it cannot.
    pub fn cannot(&self, work: &Work) -> Option<String> {
        let is_batch = matches!(work, Work::Batch { .. });
        (is_batch && self.batched_bench.is_none())
            .then(|| format!("no ratio: there is no {BATCHED_BENCH} beside the peer's llama-bench"))
    }

    /// Lets it do the work once: the tokens per second that it reports; `None` if it cannot.
    pub fn tokens_per_s(&self, work: &Work, interrupt: &Interrupt) -> Result<Option<f64>, Failure> {
        let (program, parse): (_, fn(&str) -> anyhow::Result<Sample>) = match work {
            Work::Prefill { .. } | Work::Decode { .. } => (&self.bench, parse_bench),
            Work::Batch { .. } => match &self.batched_bench {
                Some(program) => (program, parse_batched_bench),
                None => return Ok(None),
            },
        };
        let output = output_of(program, &self.arguments(work), interrupt)?;
        let sample = parse(&output)
            .with_context(|| format!("cannot read the output of {}", program.display()))?;
        if let Some(about) = sample.about {
            self.about.get_or_init(|| about);
        }
        Ok(Some(sample.tokens_per_s))
    }

    fn arguments(&self, work: &Work) -> Vec<String> {
        let (model, threads) = (self.model.display(), self.threads);
        let line = match *work {
            Work::Prefill { tokens } => {
                format!("-t {threads} -fa 1 -r 1 -o json -p {tokens} -n 0")
            }
            Work::Decode { context, tokens } => {
                format!("-t {threads} -fa 1 -r 1 -o json -p 0 -n {tokens} -d {context}")
            }
            Work::Batch { sequences, context, tokens } => {
                let room = sequences * (context + tokens).next_multiple_of(CONTEXT_MULTIPLE);
                format!(
                    "-t {threads} -fa on -npl {sequences} -npp {context} -ntg {tokens} -c {room} \
                     --output-format jsonl"
                )
            }
        };
        let options = line.split(' ').map(str::to_owned);
        ["-m".to_owned(), model.to_string()].into_iter().chain(options).collect()
    }
}

/// What a report says of a file: it may be shown to others, whom our folders do not concern.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What flags name is there.
pub fn check_files<'a>(
    flags: impl IntoIterator<Item = (&'static str, &'a PathBuf)>,
) -> Result<(), Failure> {
    for (flag, path) in flags {
        if !path.is_file() {
            return Err(anyhow!("{flag}: {} is not a file", path.display()).into());
        }
    }
    Ok(())
}

/// A figure of the peer's, and what it says about itself with it.
#[derive(Debug, PartialEq)]
struct Sample {
    tokens_per_s: f64,
    about: Option<Json>,
}

/// `-o json`: a list with one result per test, here one.
fn parse_bench(output: &str) -> anyhow::Result<Sample> {
    let results: Json = serde_json::from_str(output).with_context(|| shown(output))?;
    let result = match results.as_array().map(Vec::as_slice) {
        Some([result]) => result,
        _ => bail!("wanted a list with one result: {}", shown(output)),
    };
    let about =
        ["build_commit", "model_type", "backends"].map(|key| (key.to_owned(), result[key].clone()));
    Ok(Sample {
        tokens_per_s: speed(&result["avg_ts"], "avg_ts")?,
        about: Some(Json::Object(about.into_iter().collect())),
    })
}

/// `--output-format jsonl`: a line per test, here one, among others that are no JSON.
fn parse_batched_bench(output: &str) -> anyhow::Result<Sample> {
    let lines = output.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let mut results = lines.filter(Json::is_object);
    let Some(result) = results.next() else {
        bail!("wanted a line with a result: {}", shown(output));
    };
    Ok(Sample { tokens_per_s: speed(&result["speed_tg"], "speed_tg")?, about: None })
}

fn speed(value: &Json, name: &str) -> anyhow::Result<f64> {
    match value.as_f64() {
        Some(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => bail!("{name} is {value}; wanted a positive number"),
    }
}

/// The beginning of an output, for a message.
fn shown(output: &str) -> String {
    const CHARACTERS: usize = 80;
    match output.trim() {
        "" => "it printed nothing".to_owned(),
        text => format!("it printed {:?}", text.chars().take(CHARACTERS).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What llama.cpp's programs print, shortened to the fields of interest and their neighbours.
    const BENCH: &str = r#"[
      {
        "build_commit": "0c1e570",
        "backends": "CPU",
        "model_filename": "q4_0.gguf",
        "model_type": "llama 256M Q4_0",
        "n_prompt": 0,
        "n_gen": 8,
        "n_depth": 16,
        "avg_ns": 38570846,
        "avg_ts": 207.410540,
        "samples_ts": [ 207.411 ]
      }
    ]"#;
    const BATCHED: &str = "\nllama_context: a line of the log\n{\"n_kv_max\": 4096, \"pp\": 32, \
        \"tg\": 8, \"pl\": 2, \"speed_pp\": 987.334412, \"t_tg\": 0.067259, \
        \"speed_tg\": 237.886383}\n\n";

    fn peer() -> Peer {
        Peer {
            bench: "llama-bench".into(),
            batched_bench: None,
            model: "m.gguf".into(),
            threads: 2,
            about: OnceCell::new(),
        }
    }

    #[test]
    fn their_output_is_read() {
        let sample = parse_bench(BENCH).expect("a result");
        assert_eq!(sample.tokens_per_s, 207.410_54);
        assert_eq!(sample.about.expect("it says")["model_type"], "llama 256M Q4_0");
        let sample = parse_batched_bench(BATCHED).expect("a result");
        assert_eq!(sample, Sample { tokens_per_s: 237.886_383, about: None });
    }

    #[test]
    fn what_is_no_result_is_refused_with_what_was_printed() {
        for (output, message) in [
            ("", "it printed nothing"),
            ("Segmentation fault", "it printed \"Segmentation fault\""),
            ("[]", "wanted a list with one result: it printed \"[]\""),
            (r#"[{"avg_ts": 0}]"#, "avg_ts is 0; wanted a positive number"),
            (r#"[{}]"#, "avg_ts is null; wanted a positive number"),
        ] {
            let error = parse_bench(output).expect_err("it is no result");
            assert_eq!(error.to_string(), message);
        }
        let error = parse_batched_bench("| PP |\n").expect_err("it is no result");
        assert_eq!(error.to_string(), "wanted a line with a result: it printed \"| PP |\"");
    }

    #[test]
    fn each_work_is_asked_for_in_their_words() {
        let line = |work: Work| peer().arguments(&work).join(" ");
        assert_eq!(
            line(Work::Prefill { tokens: 512 }),
            "-m m.gguf -t 2 -fa 1 -r 1 -o json -p 512 -n 0"
        );
        assert_eq!(
            line(Work::Decode { context: 128, tokens: 64 }),
            "-m m.gguf -t 2 -fa 1 -r 1 -o json -p 0 -n 64 -d 128"
        );
        assert_eq!(
            line(Work::Batch { sequences: 4, context: 128, tokens: 64 }),
            "-m m.gguf -t 2 -fa on -npl 4 -npp 128 -ntg 64 -c 1024 --output-format jsonl"
        );
    }
}
