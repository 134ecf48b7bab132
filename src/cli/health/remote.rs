//! Asks a server for one of its probes.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::cli::output::{self, Failure, printable};

/// An answer of ours has a hundred.
const BODY_BYTES_MAX: u64 = 64 << 10;
const TIMEOUT_S_MAX: f64 = 3600.0;

#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Ask the server there, such as http://localhost:8000, instead of looking at this machine
    #[arg(long)]
    url: Option<String>,
    /// What to ask the server
    #[arg(long, value_enum, default_value_t = Probe::Ready, requires = "url")]
    probe: Probe,
    /// How long to wait for its answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, requires = "url")]
    timeout: f64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Probe {
    /// Whether it is alive
    Live,
    /// Whether it takes requests
    Ready,
    /// Whether its model is loaded
    Startup,
}

impl Probe {
    fn name(self) -> &'static str {
        match self {
            Probe::Live => "live",
            Probe::Ready => "ready",
            Probe::Startup => "startup",
        }
    }
}

/// Whom to ask what.
pub struct Question {
    probe: Probe,
    url: String,
    timeout: Duration,
}

impl Flags {
    /// The question that the flags put, if they do.
    pub fn question(&self) -> Result<Option<Question>, Failure> {
        let Some(base) = &self.url else { return Ok(None) };
        if !(self.timeout > 0.0 && self.timeout <= TIMEOUT_S_MAX) {
            return Err(Failure::Usage(format!(
                "--timeout is {}; it is above 0 and at most {TIMEOUT_S_MAX}",
                self.timeout
            )));
        }
        let base = base.trim_end_matches('/');
        let url = format!("{base}/health/{}", self.probe.name());
        let parsed: Result<ureq::http::Uri, _> = url.parse();
        let is_web = |uri: &ureq::http::Uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()
        };
        if !parsed.is_ok_and(|uri| is_web(&uri)) {
            return Err(Failure::Usage(format!(
                "--url is {:?}; it is like http://localhost:8000",
                printable(base)
            )));
        }
        Ok(Some(Question {
            probe: self.probe,
            url,
            timeout: Duration::from_secs_f64(self.timeout),
        }))
    }
}

/// Healthy is a 200, as for every probe; all else is exit code 1.
pub fn run(question: &Question, as_json: bool) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let answer = ask(question);
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let probe = question.probe.name();
    let (is_ok, text, json) = match answer {
        Ok((status, body)) => {
            // Why not, else how it is.
            let said = body["reason"].as_str().or(body["status"].as_str()).unwrap_or("no reason");
            let text = format!("{probe}: {status}, {}, after {ms:.1} ms\n", printable(said));
            let json = json!({ "http_status": status, "said": said });
            (status == 200, text, json)
        }
        Err(error) => {
            let text = format!("{probe}: no answer from {}: {error}\n", question.url);
            (false, text, json!({ "error": error.to_string() }))
        }
    };
    let text = match as_json {
        true => {
            let mut whole = json!({
                "status": if is_ok { "ok" } else { "fail" },
                "probe": probe,
                "url": question.url,
                "ms": ms,
            });
            for (name, value) in json.as_object().into_iter().flatten() {
                whole[name] = value.clone();
            }
            format!("{whole}\n")
        }
        false => text,
    };
    output::data(text.as_bytes())?;
    Ok(match is_ok {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The status, and the body as far as it is JSON.
fn ask(question: &Question) -> Result<(u16, Json), ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(question.timeout))
        .http_status_as_error(false)
        // A probe asks the server itself, and takes no other's word for it.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .build()
        .into();
    let mut response = agent.get(&question.url).call()?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec()?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
