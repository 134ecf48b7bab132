//! A machine whose store has agents, made without a model.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use semantic::model::{KvConfig, ModelFiles};
use semantic::store::{Draft, Folder, KvModel, Settings, Store};
use semantic::text::Tokenizer;
use semantic::types::{
    AgentId, BLOCK_TOKENS, Fingerprint, KvAxis, KvElement, KvTensor, Line, Namespace, TokenId,
};

use super::cli::Machine;
use super::golden::data;

/// The name of an agent that would clear a terminal.
pub const ODD: &str = "od\u{1b}[2Jd\nname";

thread_local! {
    /// Seconds since 1970, of the test that asks.
    static NOW_S: Cell<u64> = const { Cell::new(1_767_323_045) };
}

/// 16 bytes per token.
pub fn model(name: &str, fingerprint: Fingerprint) -> Arc<KvModel> {
    let tensor = KvTensor {
        name: "layer.0.key".to_owned(),
        element: KvElement::U8,
        shape: vec![KvAxis::Tokens, KvAxis::Fixed(16)],
    };
    Arc::new(KvModel {
        fingerprint,
        name: name.to_owned(),
        producer: "cpu, semantic 0.1.0".to_owned(),
        tensors: vec![tensor],
    })
}

/// A model of `tests/data` by its path, with its own fingerprint.
pub fn model_of(path: &Path, kv: &str) -> Arc<KvModel> {
    let files = ModelFiles::open(path).unwrap();
    let digests = tempfile::tempdir().unwrap();
    let kv: KvConfig = kv.parse().unwrap();
    let fingerprint = files.fingerprint(kv, digests.path()).unwrap();
    model(&path.display().to_string(), fingerprint)
}

pub fn tiny() -> PathBuf {
    data("tiny/llama-f16")
}

/// The ids of a text that has special tokens.
pub fn ids_of(text: &str) -> Vec<TokenId> {
    let source = ModelFiles::open(&tiny()).unwrap().text().unwrap();
    Tokenizer::new(&source).unwrap().encode(text, semantic::text::Special::Parse).unwrap()
}

pub fn ids(seed: u32, count: u32) -> Vec<TokenId> {
    (0..count).map(|i| TokenId(i.wrapping_mul(seed) % 251)).collect()
}

/// The store of a machine, open for writing.
pub struct Agents {
    pub store: Store,
    pub model: Arc<KvModel>,
}

impl Agents {
    pub fn open(machine: &Machine, model: Arc<KvModel>) -> Agents {
        let folder = Folder::make(&machine.path("data/cache")).unwrap();
        let now = || SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S.get());
        let settings = Settings { now, ..Settings::default() };
        Agents { store: Store::open(Arc::new(folder), settings).unwrap(), model }
    }

    pub fn wait(&self, time: Duration) {
        NOW_S.set(NOW_S.get() + time.as_secs());
    }

    /// Saves a conversation of whose tokens the last quarter is a reply.
    pub fn save(&self, namespace: &str, agent: &str, line: Line, tokens: &[TokenId]) {
        let reply = tokens.len() - tokens.len() / 4..tokens.len();
        let namespace = Namespace::new(namespace);
        let agent = AgentId::new(agent).unwrap();
        let mut parent = None;
        let mut blocks = Vec::new();
        for (index, tokens) in tokens.chunks(BLOCK_TOKENS).enumerate() {
            let kv = tokens.iter().flat_map(|token| [(token.0 as usize + index) as u8; 16]);
            let sealed =
                self.store.seal(&namespace, &self.model, parent.as_ref(), tokens, kv.collect());
            self.store.write_block(&agent, &sealed).unwrap();
            parent = Some(sealed.block.name);
            blocks.push(sealed.block.clone());
        }
        let draft = Draft {
            namespace,
            agent,
            line,
            model: Arc::clone(&self.model),
            tokens: tokens.into(),
            replies: vec![reply],
            blocks,
        };
        self.store.commit(&draft).unwrap();
    }
}

/// A machine with agents that share, have older saves, two conversations, odd names.
pub fn machine_with_agents() -> Machine {
    let machine = Machine::new();
    NOW_S.set(1_767_323_045);
    let agents = Agents::open(&machine, model("smollm2-135m", Fingerprint([7; 32])));
    let hour = Duration::from_secs(3_600);
    let long = ids(3, 600);
    let planner = agents.store.new_line();
    agents.save("local", "planner", planner, &long[..300]);
    agents.wait(hour);
    agents.save("local", "planner", planner, &long);
    agents.wait(hour);
    agents.save("local", "planner", agents.store.new_line(), &ids(5, 20));
    agents.wait(hour);
    let reviewer = [&long[..512], &ids(7, 100)].concat();
    agents.save("local", "reviewer", agents.store.new_line(), &reviewer);
    agents.wait(hour);
    agents.save("local", ODD, agents.store.new_line(), &ids(11, 9));
    agents.wait(hour);
    agents.save("team", "writer", agents.store.new_line(), &ids(3, 300));
    machine
}

/// Every file of the machine with its bytes.
pub fn files(machine: &Machine) -> BTreeMap<String, Vec<u8>> {
    let paths = machine.stored();
    paths
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(machine.path(&path)).unwrap()))
        .collect()
}
