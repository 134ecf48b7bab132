//! The store on a real folder, as its users see it.

mod damage;
mod plants;
mod retention;
mod room;
mod saves;
mod transcripts;
mod transfer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::types::{
    AgentId, BLOCK_TOKENS, Fingerprint, Generation, KvAxis, KvElement, KvTensor, Line, TokenId,
};

/// A folder with a store in it, and a model whose KV is told by the tokens: 24 bytes for each.
struct Bench {
    folder: tempfile::TempDir,
    settings: Settings,
    model: Arc<KvModel>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Settings::default())
    }

    fn with(settings: Settings) -> Bench {
        let tensor = |name: &str, element, width| KvTensor {
            name: name.to_owned(),
            element,
            shape: vec![KvAxis::Tokens, KvAxis::Fixed(width)],
        };
        let model = KvModel {
            fingerprint: Fingerprint([1; 32]),
            name: "tiny".to_owned(),
            producer: "a test".to_owned(),
            tensors: vec![
                tensor("layer.0.key", KvElement::U8, 16),
                tensor("layer.0.value", KvElement::F16, 4),
            ],
        };
        let settings =
            Settings { now: || SystemTime::UNIX_EPOCH + Duration::from_secs(7), ..settings };
        Bench { folder: tempfile::tempdir().unwrap(), settings, model: Arc::new(model) }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn try_open(&self) -> Result<Store, OpenError> {
        let disk = Folder::make(&self.root()).unwrap();
        Store::open(Arc::new(disk), self.settings.clone())
    }

    fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    fn open_read_only(&self) -> Store {
        let disk = Folder::at(&self.root()).unwrap();
        Store::open_read_only(Arc::new(disk), self.settings.clone()).unwrap()
    }

    fn kv(&self, tokens: &[TokenId]) -> Vec<u8> {
        let bytes = self.model.kv_bytes(tokens.len());
        let mut state = tokens.iter().fold(7u64, |state, token| {
            (state ^ u64::from(token.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        let next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            // No exponent is all ones: every number is finite.
            (state >> 56) as u8 & 0xbf
        };
        std::iter::repeat_with(next).take(bytes).collect()
    }

    fn sealed(&self, store: &Store, namespace: &Namespace, tokens: &[TokenId]) -> Vec<SealedBlock> {
        let mut parent = None;
        let blocks = tokens.chunks(BLOCK_TOKENS);
        let seal = |tokens: &[TokenId]| {
            let kv = self.kv(tokens);
            let sealed = store.seal(namespace, &self.model, parent.as_ref(), tokens, kv);
            parent = Some(sealed.block.name);
            sealed
        };
        blocks.map(seal).collect()
    }

    fn draft(&self, store: &Store, agent: &str, line: Line, tokens: &[TokenId]) -> Draft {
        let namespace = Namespace::local();
        let blocks = self.sealed(store, &namespace, tokens);
        let second_half = tokens.len() / 2..tokens.len();
        Draft {
            namespace,
            agent: AgentId::new(agent).unwrap(),
            line,
            model: self.model.clone(),
            tokens: tokens.into(),
            replies: vec![second_half],
            blocks: blocks.into_iter().map(|sealed| sealed.block).collect(),
        }
    }

    fn try_save(
        &self,
        store: &Store,
        name: &str,
        line: Line,
        tokens: &[TokenId],
    ) -> Result<Committed, StoreError> {
        for sealed in self.sealed(store, &Namespace::local(), tokens) {
            store.write_block(&agent(name), &sealed)?;
        }
        store.commit(&self.draft(store, name, line, tokens))
    }

    fn save(&self, store: &Store, agent: &str, line: Line, tokens: &[TokenId]) -> Generation {
        self.try_save(store, agent, line, tokens).unwrap().generation
    }

    /// The agent's live lines, with how many tokens can be restored; each byte is compared.
    fn restored(&self, store: &Store, agent: &str) -> Vec<(Line, Generation, usize)> {
        let lines = store.lines(&self.model.fingerprint);
        let of_agent = lines.into_iter().filter(|line| line.agent.as_str() == agent);
        let restore = |line: StoredLine| {
            let mut tokens = 0;
            let mut buffer = Vec::new();
            for block in &line.blocks {
                let own = &line.tokens[tokens..tokens + block.tokens];
                let read = store.read_block(&line.namespace, &self.model, block, buffer);
                let Ok(kv) = read else { break };
                assert_eq!(&*kv, self.kv(own));
                buffer = kv.into_buffer();
                tokens += block.tokens;
            }
            (line.line, line.generation, tokens)
        };
        of_agent.map(restore).collect()
    }

    /// Every file, as a path in the root.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.root()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() && !path.is_symlink() {
                    true => folders.push(path),
                    false => files.push(self.relative(&path)),
                }
            }
        }
        files.sort();
        files
    }

    fn files_named(&self, suffix: &str) -> Vec<String> {
        let mut files = self.files();
        files.retain(|file| file.ends_with(suffix));
        files
    }

    fn quarantined(&self) -> Vec<String> {
        let mut files = self.files();
        files.retain(|file| file.starts_with("quarantine/"));
        files
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.root()).unwrap().to_str().unwrap().to_owned()
    }

    fn bytes(&self) -> u64 {
        let length = |file: &String| fs::metadata(self.root().join(file)).unwrap().len();
        let is_counted = |file: &&String| file.starts_with("n/") || file.starts_with("quarantine/");
        self.files().iter().filter(is_counted).map(length).sum()
    }
}

fn tokens(first: u32, count: usize) -> Vec<TokenId> {
    (first..).take(count).map(TokenId).collect()
}

fn agent(id: &str) -> AgentId {
    AgentId::new(id).unwrap()
}
