//! How loud the log is, while the server runs.

use std::sync::Arc;

/// Changes what is logged. The log itself belongs to whoever started the server.
#[derive(Clone)]
pub struct LogControl(Arc<Set>);

type Set = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl LogControl {
    /// `set` takes a filter such as `info` or `info,semantic::engine=debug`, or says what is wrong
    /// with it.
    pub fn new(set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> LogControl {
        LogControl(Arc::new(set))
    }

    pub fn set_level(&self, filter: &str) -> Result<(), String> {
        (self.0)(filter)
    }
}

impl Default for LogControl {
    /// Nobody logs.
    fn default() -> LogControl {
        LogControl::new(|_| Err("this server's log cannot be changed".to_owned()))
    }
}
