//! How many agents a gigabyte holds, in memory and on disk, by the bits of the KV cache.

use crate::cli::bench::live::{Live, Start, request};
use crate::cli::bench::report::{Cell, Row};
use crate::cli::bench::scratch::{Place, Scratch};
use crate::cli::bench::setup::{Setup, blocks};
use crate::cli::bench::text;
use crate::cli::output::Failure;
use crate::engine::Request;
use crate::model::KvConfig;
use crate::types::AgentId;

const SETTINGS: [&str; 4] = ["16/16", "8/8", "8/4", "4/4"];
const GIBIBYTE: f64 = (1_u64 << 30) as f64;

/// A row for each setting that the model can have.
pub fn rows(setup: &Setup<'_>, scratch: &Scratch, tokens: usize) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for setting in SETTINGS {
        let kv: KvConfig = setting.parse().map_err(anyhow::Error::msg)?;
        // A model whose heads do not fit the quantisation goes without.
        let Ok(block_bytes) = setup.files.block_bytes(kv) else { continue };
        let pool_bytes = (blocks(tokens) * block_bytes) as u64;
        let stored_bytes = stored_bytes(setup, scratch, kv, tokens)?;
        let agents = |bytes: u64| Cell::Number(GIBIBYTE / bytes as f64, 1);
        rows.push(
            Row::new(format!("an agent of {tokens} tokens, KV {setting}"))
                .with("pool_bytes", Cell::Count(pool_bytes))
                .with("stored_bytes", Cell::Count(stored_bytes))
                .with("agents_per_gib_of_memory", agents(pool_bytes))
                .with("agents_per_gib_of_disk", agents(stored_bytes)),
        );
    }
    Ok(rows)
}

/// Of an agent's save, manifest and blocks.
fn stored_bytes(
    setup: &Setup<'_>,
    scratch: &Scratch,
    kv: KvConfig,
    tokens: usize,
) -> Result<u64, Failure> {
    // A slash would be a folder.
    let name = format!("weight-{kv}").replace('/', "-");
    let (store, digests) = (scratch.path(&name), scratch.path("digests"));
    let keeping = Place { store: &store, digests: &digests }.keeping(&setup.files, kv)?;
    let mut options = setup.options(blocks(tokens + 1) + 2);
    options.kv = kv;
    let start = Start {
        model: setup.model_path.clone(),
        options,
        running_max: 1,
        keeping: Some(keeping.clone()),
    };
    let live = Live::begin(start, &setup.interrupt)?;
    let mut prompt = text::all_tokens(setup)?;
    // The reply's one token is part of the agent.
    prompt.truncate(tokens - 1);
    live.answer(Request { agent: Some(AgentId::new("bench")?), ..request(prompt, 1) })?;
    let agents = keeping.store.agents()?;
    Ok(agents.iter().map(|agent| agent.newest().bytes).sum())
}
