//! Servers of ours as their clients see them: each a real process on a free port, with a data
//! folder that is gone at the end, asked over the network.

use std::future::Future;

use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use super::plan::PERCENT_ALL;
use super::scratch::Scratch;
use super::server_process::Server;
use super::setup::Setup;
use crate::cli::output::Failure;

/// Without the limits of requests per minute.
pub const UNLIMITED: [&str; 2] = ["--rate-limit-agent=0", "--rate-limit-global=0"];

/// What whoever measures servers needs.
pub struct Host<'a> {
    pub setup: &'a Setup<'a>,
    pub scratch: Scratch,
    runtime: Runtime,
}

impl Host<'_> {
    pub fn new<'a>(setup: &'a Setup<'a>) -> Result<Host<'a>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Host { setup, scratch: Scratch::new(setup)?, runtime })
    }

    /// So many of so many as the user wants to see, at least one.
    pub fn share(&self, count: usize) -> usize {
        (count * self.setup.sizes.server_percent / PERCENT_ALL as usize).max(1)
    }

    /// A server with these flags and a data folder of this name that takes requests.
    pub fn serving(&self, name: &str, flags: &[&str]) -> Result<Server, Failure> {
        self.ready(Server::start(self, name, flags)?)
    }

    pub fn ready(&self, server: Server) -> Result<Server, Failure> {
        self.block_on(server.wait_ready(&self.setup.interrupt))?;
        Ok(server)
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// A chat request that is answered with the likeliest tokens.
pub fn chat(text: &str, tokens: usize) -> Json {
    json!({
        "messages": [{ "role": "user", "content": text }],
        "max_tokens": tokens,
        "temperature": 0,
    })
}
