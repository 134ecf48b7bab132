//! A store with many small agents: how long it takes to open and to list, and how much memory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::child::{Listed, Task};
use super::figure::Figure;
use super::report::{Cell, Row};
use super::scratch::{Scratch, drop_from_page_cache};
use super::setup::Setup;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Failure;
use crate::store::disk::{Entry, Lock, LockError, NewFile, Space, StoredFile};
use crate::store::{Disk, Draft, Folder, KvModel, Settings, Store};
use crate::types::{
    AgentId, BLOCK_TOKENS, Fingerprint, KvAxis, KvElement, KvTensor, Namespace, TokenId,
};

/// Of each agent: a full block and a part of one.
const TOKENS: usize = 300;
/// Nothing that is measured reads a block.
const TOKEN_BYTES: usize = 16;

/// The promises.
const OPEN_MS_MAX: f64 = 2_000.0;
const LIST_MS_MAX: f64 = 500.0;
const RSS_BYTES_MAX: u64 = 200_000_000;

/// Opens and lists them in new processes, as often as there are rounds.
pub fn rows(setup: &Setup<'_>, scratch: &Scratch, advance: &dyn Fn()) -> Result<Vec<Row>, Failure> {
    let folder = scratch.path("crowd");
    write(&folder, setup.sizes.agents, &setup.interrupt)?;
    advance();
    let task = Task::List { store: folder.clone() };
    let list = || task.run::<Listed>(scratch, &setup.interrupt);
    let (mut cached, mut dropped) = (Vec::new(), Vec::new());
    for _ in 0..setup.sizes.runs {
        cached.push(list()?);
        if drop_from_page_cache(&folder)? {
            dropped.push(list()?);
        }
        advance();
    }
    let mut rows = vec![row("files in the page cache", &cached)];
    if !dropped.is_empty() {
        rows.push(row("files dropped", &dropped));
    }
    Ok(rows)
}

/// What was listed.
pub fn note() -> String {
    format!(
        "the many agents have {TOKENS} tokens each of {TOKEN_BYTES} bytes of KV, which nothing \
         here reads"
    )
}

fn row(name: &str, listed: &[Listed]) -> Row {
    let agents = listed[0].agents;
    let figure = |value: fn(&Listed) -> f64| Figure::new(listed.iter().map(value).collect());
    let (open, list) = (figure(|it| it.open_ms), figure(|it| it.list_ms));
    let rss_bytes = listed.iter().filter_map(|it| it.rss_bytes).max();
    let holds = open.median() <= OPEN_MS_MAX
        && list.median() <= LIST_MS_MAX
        && rss_bytes.is_none_or(|bytes| bytes <= RSS_BYTES_MAX);
    let mut row = Row::new(format!("{agents} agents, {name}"))
        .with("open_ms", Cell::Figure(open))
        .with("open_at_most", Cell::Number(OPEN_MS_MAX, 0))
        .with("list_ms", Cell::Figure(list))
        .with("list_at_most", Cell::Number(LIST_MS_MAX, 0));
    if let Some(bytes) = rss_bytes {
        row = row
            .with("rss_bytes", Cell::Count(bytes))
            .with("rss_at_most", Cell::Count(RSS_BYTES_MAX));
    }
    row.with("promise", Cell::Verdict(holds))
}

/// Writes so many agents. They share nothing.
fn write(folder: &Path, agents: usize, interrupt: &Interrupt) -> Result<(), Failure> {
    let disk = Hasty(Folder::make(folder)?);
    let store = Store::open(Arc::new(disk), Settings::default())?;
    let namespace = Namespace::local();
    let model = Arc::new(KvModel {
        fingerprint: Fingerprint([0; 32]),
        name: "bench".to_owned(),
        producer: "bench".to_owned(),
        tensors: vec![KvTensor {
            name: "layer.0.key".to_owned(),
            element: KvElement::U8,
            shape: vec![KvAxis::Tokens, KvAxis::Fixed(TOKEN_BYTES)],
        }],
    });
    for number in 0..agents as u32 {
        interrupt.check()?;
        let agent = AgentId::new(&format!("agent {number}"))?;
        let tokens: Arc<[TokenId]> =
            (0..TOKENS as u32).map(|index| TokenId(number.wrapping_add(index))).collect();
        let mut blocks = Vec::new();
        let mut parent = None;
        for tokens in tokens.chunks(BLOCK_TOKENS) {
            let kv = vec![0; model.kv_bytes(tokens.len())];
            let sealed = store.seal(&namespace, &model, parent.as_ref(), tokens, kv);
            store.write_block(&agent, &sealed)?;
            parent = Some(sealed.block.name);
            blocks.push(sealed.block);
        }
        store.commit(&Draft {
            namespace: namespace.clone(),
            agent,
            line: store.new_line(),
            model: Arc::clone(&model),
            tokens,
            replies: Vec::new(),
            blocks,
        })?;
    }
    Ok(())
}

/// A folder that survives no power cut: what takes minutes otherwise is not what is measured.
struct Hasty(Folder);

struct HastyFile(Box<dyn NewFile>);

impl NewFile for HastyFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for Hasty {
    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.0.make_folder(folder)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        self.0.list(folder)
    }

    fn open(&self, file: &str) -> io::Result<Box<dyn StoredFile>> {
        self.0.open(file)
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(HastyFile(self.0.create(file)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, file: &str) -> io::Result<()> {
        self.0.remove_file(file)
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        self.0.remove_folder(folder)
    }

    fn sync_folder(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }

    fn lock(&self, file: &str) -> Result<Box<dyn Lock>, LockError> {
        self.0.lock(file)
    }
}
