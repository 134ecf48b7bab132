//! What removing agents gives back, when they share blocks. Pure.

use std::collections::{BTreeSet, HashMap};

use crate::store::{AgentInfo, BlockName};

/// What the agents of one namespace need on disk.
pub struct Room {
    /// Of everything they need, each block counted once.
    bytes: u64,
    blocks: HashMap<BlockName, Need>,
}

struct Need {
    agents: usize,
    bytes: u64,
}

impl Room {
    pub fn new(agents: &[AgentInfo]) -> Room {
        let mut room = Room { bytes: 0, blocks: HashMap::new() };
        for agent in agents {
            room.bytes += manifest_bytes(agent);
            for (name, bytes) in blocks(agent) {
                let need = room.blocks.entry(name).or_insert(Need { agents: 0, bytes });
                need.agents += 1;
                if need.agents == 1 {
                    room.bytes += bytes;
                }
            }
        }
        room
    }

    /// Removes one of the agents; says how many bytes nobody needs any more.
    pub fn remove(&mut self, agent: &AgentInfo) -> u64 {
        let mut freed = manifest_bytes(agent);
        for (name, _) in blocks(agent) {
            if let Some(need) = self.blocks.get_mut(&name) {
                need.agents -= 1;
                if need.agents == 0 {
                    freed += need.bytes;
                    self.blocks.remove(&name);
                }
            }
        }
        self.bytes -= freed;
        freed
    }

    /// The least recently used agents that are not pinned, until the others need at most so many
    /// bytes.
    pub fn least_used_above(mut self, agents: &[AgentInfo], bytes: u64) -> Vec<&AgentInfo> {
        let mut oldest_first: Vec<&AgentInfo> =
            agents.iter().filter(|it| !it.retention.is_pinned).collect();
        oldest_first.sort_by_key(|it| it.newest().saved_at);
        let mut removed = Vec::new();
        for agent in oldest_first {
            if self.bytes <= bytes {
                break;
            }
            self.remove(agent);
            removed.push(agent);
        }
        removed
    }
}

/// Each once, however many saves name it.
fn blocks(agent: &AgentInfo) -> BTreeSet<(BlockName, u64)> {
    let all = agent.saves.iter().flat_map(|save| &save.blocks);
    all.map(|block| (block.name, block.file_bytes)).collect()
}

fn manifest_bytes(agent: &AgentInfo) -> u64 {
    let of_blocks = |save: &crate::store::SaveInfo| -> u64 {
        save.blocks.iter().map(|block| block.file_bytes).sum()
    };
    agent.saves.iter().map(|save| save.bytes.saturating_sub(of_blocks(save))).sum()
}
