//! Tells which agents there are and what they take. From the index: no file is opened.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use super::index::{self, Save, Shelf, time};
use super::layout::FolderName;
use super::{
    AgentBrief, AgentInfo, BlockName, LineBrief, NamespaceUsage, Retention, SaveInfo, Store,
    StoreError, Usage,
};
use crate::types::{AgentId, Namespace};

/// How many agents need each block.
type Sharers = HashMap<BlockName, usize>;

impl Store {
    /// All agents, by namespace and name.
    pub fn agents(&self) -> Result<Vec<AgentInfo>, StoreError> {
        let index = self.index();
        let mut all = Vec::new();
        for shelf in index.shelves.values() {
            let sharers = sharers(shelf);
            let agents = shelf.agents.values();
            all.extend(agents.filter_map(|agent| agent_info(shelf, agent, &sharers)));
        }
        drop(index);
        all.sort_by(|a, b| (&a.namespace, &a.agent).cmp(&(&b.namespace, &b.agent)));
        Ok(all)
    }

    pub fn agent(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
    ) -> Result<Option<AgentInfo>, StoreError> {
        let agent = self.secrets.agent_folder(namespace, agent);
        let namespace = self.secrets.namespace_folder(namespace);
        let index = self.index();
        let Some(shelf) = index.shelves.get(&namespace) else { return Ok(None) };
        let state = shelf.agents.get(&agent);
        Ok(state.and_then(|state| agent_info(shelf, state, &sharers(shelf))))
    }

    /// The agents of a namespace, in no order.
    pub fn names(&self, namespace: &Namespace) -> Vec<AgentId> {
        let folder = self.secrets.namespace_folder(namespace);
        let index = self.index();
        let agents = index.shelves.get(&folder).into_iter().flat_map(|shelf| shelf.agents.values());
        let newest = agents.filter_map(|agent| agent.saves.values().next_back());
        newest.map(|save| save.head.agent.clone()).collect()
    }

    /// One of them. What is counted is counted without the index, which others wait for.
    pub fn brief(&self, namespace: &Namespace, agent: &AgentId) -> Option<AgentBrief> {
        let agent = self.secrets.agent_folder(namespace, agent);
        let namespace = self.secrets.namespace_folder(namespace);
        let saves = Saves::of(self.index().agent(namespace, agent)?);
        saves.brief()
    }

    /// Whether there is anything of an agent: a save, or what is left of one that was damaged.
    pub fn has_agent(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        let agent = self.secrets.agent_folder(namespace, agent);
        let namespace = self.secrets.namespace_folder(namespace);
        let has_said = || {
            let index = self.index();
            let shelf = index.shelves.get(&namespace);
            shelf.is_some_and(|shelf| shelf.transcripts.values().any(|file| file.agent == agent))
        };
        self.is_known(namespace, agent) || has_said()
    }

    pub fn usage(&self) -> Result<Usage, StoreError> {
        // As above: the index is held for a list of what there is, one namespace after the other.
        let folders: Vec<FolderName> = self.index().shelves.keys().copied().collect();
        let live = |folder: &FolderName| self.index().shelves.get(folder).map(LiveSaves::of);
        let live: Vec<LiveSaves> = folders.iter().filter_map(live).collect();
        let mut namespaces: Vec<NamespaceUsage> =
            live.iter().filter_map(LiveSaves::usage).collect();
        namespaces.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        let sum = |of: fn(&NamespaceUsage) -> u64| namespaces.iter().map(of).sum();
        let index = self.index();
        Ok(Usage {
            budget_bytes: self.settings.budget_bytes,
            logical_bytes: sum(|usage| usage.logical_bytes),
            unique_bytes: sum(|usage| usage.unique_bytes),
            disk_bytes: index.bytes(),
            quarantine_bytes: index.quarantine_bytes(),
            quarantine_files: index.quarantine.len(),
            namespaces,
        })
    }

    /// Whether an agent has a save.
    pub(super) fn is_known(&self, namespace: FolderName, agent: FolderName) -> bool {
        let index = self.index();
        index.agent(namespace, agent).is_some_and(|state| !state.saves.is_empty())
    }
}

/// The saves of an agent as they were at one moment.
struct Saves {
    all: Vec<Save>,
    /// Of these the newest of each line.
    live: Vec<Save>,
    retention: Retention,
    expires_at: Option<SystemTime>,
}

impl Saves {
    fn of(agent: &index::Agent) -> Saves {
        Saves {
            all: agent.saves.values().cloned().collect(),
            live: agent.live().into_iter().cloned().collect(),
            retention: agent.retention(),
            expires_at: agent.expires_at(),
        }
    }

    fn brief(&self) -> Option<AgentBrief> {
        let line = |save: &Save| LineBrief {
            generation: save.head.generation,
            fingerprint: save.head.fingerprint,
            model: save.head.model.clone(),
            tokens: save.head.tokens,
            saved_at: time(save.head.saved_at_ms),
        };
        let manifests: u64 = self.all.iter().map(|save| save.bytes).sum();
        Some(AgentBrief {
            agent: self.live.first()?.head.agent.clone(),
            live: self.live.iter().map(line).collect(),
            saves: self.all.len(),
            bytes: manifests + blocks_of(self.all.iter()).values().sum::<u64>(),
            retention: self.retention,
            expires_at: self.expires_at,
        })
    }
}

fn sharers(shelf: &Shelf) -> Sharers {
    let mut sharers = Sharers::with_capacity(shelf.blocks.len());
    for agent in shelf.agents.values() {
        for name in blocks_of(agent.saves.values()).into_keys() {
            *sharers.entry(name).or_default() += 1;
        }
    }
    sharers
}

/// With their bytes, each once.
fn blocks_of<'a>(saves: impl Iterator<Item = &'a Save>) -> HashMap<BlockName, u64> {
    let blocks = saves.flat_map(|save| &save.head.blocks);
    blocks.map(|block| (block.name, block.file_bytes)).collect()
}

fn agent_info(shelf: &Shelf, agent: &index::Agent, sharers: &Sharers) -> Option<AgentInfo> {
    let newest = agent.saves.values().next_back()?;
    let live: HashSet<_> = agent.live().iter().map(|save| save.head.generation).collect();
    let info = |save: &Save| SaveInfo {
        line: save.head.line,
        generation: save.head.generation,
        is_live: live.contains(&save.head.generation),
        saved_at: time(save.head.saved_at_ms),
        fingerprint: save.head.fingerprint,
        model: save.head.model.clone(),
        producer: save.head.producer.clone(),
        tokens: save.head.tokens,
        replies: save.head.replies.clone(),
        blocks: save.head.blocks.clone(),
        blocks_there: shelf.leading(&save.head.blocks),
        bytes: save.bytes + save.head.blocks.iter().map(|block| block.file_bytes).sum::<u64>(),
    };
    let blocks = blocks_of(agent.saves.values());
    let is_shared = |name: &BlockName| sharers.get(name).is_some_and(|sharers| *sharers > 1);
    let shared = blocks.iter().filter(|(name, _)| is_shared(name));
    let manifests: u64 = agent.saves.values().map(|save| save.bytes).sum();
    Some(AgentInfo {
        namespace: newest.head.namespace.clone(),
        agent: newest.head.agent.clone(),
        saves: agent.saves.values().rev().map(info).collect(),
        bytes: manifests + blocks.values().sum::<u64>(),
        shared_bytes: shared.map(|(_, bytes)| bytes).sum(),
        retention: agent.retention(),
        expires_at: agent.expires_at(),
    })
}

/// The newest saves of a namespace's lines as they were at one moment.
struct LiveSaves {
    saves: Vec<Save>,
    agents: usize,
    disk_bytes: u64,
}

impl LiveSaves {
    fn of(shelf: &Shelf) -> LiveSaves {
        let live = shelf.agents.values().flat_map(|agent| agent.live());
        LiveSaves {
            saves: live.cloned().collect(),
            agents: shelf.agent_count(),
            disk_bytes: shelf.bytes,
        }
    }

    /// `None` for a namespace without agents, whose name nobody knows.
    fn usage(&self) -> Option<NamespaceUsage> {
        let manifests: u64 = self.saves.iter().map(|save| save.bytes).sum();
        let all_blocks = self.saves.iter().flat_map(|save| &save.head.blocks);
        Some(NamespaceUsage {
            namespace: self.saves.first()?.head.namespace.clone(),
            agents: self.agents,
            logical_bytes: manifests + all_blocks.map(|block| block.file_bytes).sum::<u64>(),
            unique_bytes: manifests + blocks_of(self.saves.iter()).values().sum::<u64>(),
            disk_bytes: self.disk_bytes,
        })
    }
}
