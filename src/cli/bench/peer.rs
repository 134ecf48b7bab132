//! llama.cpp beside us: runs its `llama-bench` and `llama-batched-bench` and reads what they say.
//!
//! A process per work and round, which loads the model, warms up and times itself.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value as Json, json};

use super::rounds::Work;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;

/// Lies beside `llama-bench` where both were built.
const BATCHED_BENCH: &str = "llama-batched-bench";
/// llama.cpp rounds the context of each sequence up to this.
const CONTEXT_MULTIPLE: usize = 256;
/// Longer than any work that one would repeat.
const TIME_MAX: Duration = Duration::from_secs(3600);
/// Between two looks whether the process has ended or the user has had enough.
const POLL: Duration = Duration::from_millis(20);
/// A few results; more is something else.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct PeerFlags {
    /// Also run this llama-bench of llama.cpp in every round, and a llama-batched-bench beside it
    #[arg(long, value_name = "PATH", requires = "peer_model")]
    peer_llama_bench: Option<PathBuf>,
    /// The GGUF file that the peer runs
    #[arg(long, value_name = "FILE", requires = "peer_llama_bench")]
    peer_model: Option<PathBuf>,
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
        for (flag, path) in [("--peer-llama-bench", bench), ("--peer-model", model)] {
            if !path.is_file() {
                return Err(anyhow!("{flag}: {} is not a file", path.display()).into());
            }
        }
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

    pub fn json(&self) -> Json {
        json!({
            "program": self.bench.display().to_string(),
            "model": self.model.display().to_string(),
            "threads": self.threads,
            "kv_bits": "16/16",
            "about": self.about.get(),
        })
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

/// A bare name would be looked for in `PATH`, though the user meant the file here.
fn runnable(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent == Path::new("") => Path::new(".").join(path),
        _ => path.to_owned(),
    }
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
    let about = ["build_commit", "model_type", "model_filename", "backends"]
        .map(|key| (key.to_owned(), result[key].clone()));
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

/// What a program prints, once it has ended well.
fn output_of(
    program: &Path,
    arguments: &[String],
    interrupt: &Interrupt,
) -> Result<String, Failure> {
    // Files, because a pipe that is not read while the program runs fills up.
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let status = wait(child, interrupt)
        .map_err(|failure| failure.context(&program.display().to_string()))?;
    if !status.success() {
        // A Ctrl-C on the terminal reaches the peer, too.
        interrupt.check()?;
        let said = text_in(stderr)?;
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        let said = last.unwrap_or("it said nothing").to_owned();
        return Err(anyhow!("{} failed ({status}): {said}", program.display()).into());
    }
    Ok(text_in(stdout)?)
}

/// Waits for the process, which ends with us if it has not ended before.
fn wait(mut child: Child, interrupt: &Interrupt) -> Result<ExitStatus, Failure> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let failure = match interrupt.is_set() {
            true => Some(Failure::Interrupted),
            false if started.elapsed() > TIME_MAX => {
                Some(anyhow!("it still runs after {} s", TIME_MAX.as_secs()).into())
            }
            false => None,
        };
        if let Some(failure) = failure {
            child.kill()?;
            child.wait()?;
            return Err(failure);
        }
        std::thread::sleep(POLL);
    }
}

fn text_in(mut file: File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
