//! The log of the servers in this process, for tests that look for their own lines in it.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value as Json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What is kept: lines about requests, of which each has its span.
const FILTER: &str = "off,semantic::http=info";

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the text").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Kept;

    fn make_writer(&self) -> Kept {
        self.clone()
    }
}

static KEPT: OnceLock<Kept> = OnceLock::new();

/// From here on lines are kept. To be called before the first request whose lines are wanted.
pub fn keep() {
    KEPT.get_or_init(|| {
        let kept = Kept::default();
        let log = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false);
        let log = log.with_env_filter(EnvFilter::new(FILTER)).with_writer(kept.clone());
        log.try_init().expect("nobody else keeps the log");
        kept
    });
}

/// The lines of the request with this id.
pub fn lines_of(id: &str) -> Vec<Json> {
    let kept = KEPT.get().expect("lines are kept").0.lock().expect("the text");
    let text = std::str::from_utf8(&kept).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    lines.filter(|line: &Json| line["spans"][0]["id"] == id).collect()
}
