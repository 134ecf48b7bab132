//! Forks and rollbacks: new manifests of blocks that are there already.

use std::sync::Arc;

use super::manifest::Head;
use super::save::NewSave;
use super::{BlockRef, Committed, Store, StoreError};
use crate::types::{AgentId, Generation, Line, Namespace, TokenId};

impl Store {
    /// Gives another agent, which must not be there yet, the live saves of this one.
    pub fn fork(
        &self,
        namespace: &Namespace,
        from: &AgentId,
        to: &AgentId,
    ) -> Result<Committed, StoreError> {
        self.may_write()?;
        let folder = self.secrets.namespace_folder(namespace);
        if self.is_known(folder, self.secrets.agent_folder(namespace, to)) {
            return Err(StoreError::Exists(describe(to)));
        }
        let from_folder = self.secrets.agent_folder(namespace, from);
        let mut live: Vec<Arc<Head>> = {
            let index = self.index();
            let live = index.agent(folder, from_folder).map_or(Vec::new(), |state| state.live());
            live.into_iter().map(|save| save.head.clone()).collect()
        };
        // What was used last stays what was used last.
        live.sort_by_key(|head| head.serial);
        let mut committed: Option<Committed> = None;
        for head in live {
            let (_, tokens) = self.read_manifest(folder, from_folder, head.generation)?;
            let there = self.index().shelf(folder).leading(&head.blocks);
            let copy = NewSave::of(&head, &tokens, &head.blocks[..there]);
            let copy = NewSave { agent: to, line: self.new_line(), ..copy };
            let mut newest = self.save(&copy)?;
            if let Some(before) = committed {
                newest.removed.splice(0..0, before.removed);
            }
            committed = Some(newest);
        }
        committed.ok_or_else(|| StoreError::NotFound(describe(from)))
    }

    /// Makes an older save the newest again, as a new generation: the given one, or the one before
    /// the newest of the same line.
    pub fn rollback(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        generation: Option<Generation>,
    ) -> Result<Committed, StoreError> {
        self.may_write()?;
        let agent_folder = self.secrets.agent_folder(namespace, agent);
        let folder = self.secrets.namespace_folder(namespace);
        let head = {
            let index = self.index();
            let state = index.agent(folder, agent_folder);
            let state = state.filter(|state| !state.saves.is_empty());
            let state = state.ok_or_else(|| StoreError::NotFound(describe(agent)))?;
            let target = match generation {
                Some(generation) => state.saves.get(&generation),
                None => state.before_newest(),
            };
            let which = || match generation {
                Some(Generation(number)) => {
                    format!("generation {number} of {}", describe(agent))
                }
                None => format!("an older save of {}", describe(agent)),
            };
            target.ok_or_else(|| StoreError::NotFound(which()))?.head.clone()
        };
        let (_, tokens) = self.read_manifest(folder, agent_folder, head.generation)?;
        self.save(&NewSave::of(&head, &tokens, &head.blocks))
    }
}

impl<'a> NewSave<'a> {
    /// The same again, with these of its blocks.
    pub fn of(head: &'a Head, tokens: &'a [TokenId], blocks: &'a [BlockRef]) -> NewSave<'a> {
        let line: Line = head.line;
        NewSave {
            namespace: &head.namespace,
            agent: &head.agent,
            line,
            fingerprint: head.fingerprint,
            model: &head.model,
            producer: &head.producer,
            tokens,
            replies: &head.replies,
            blocks,
        }
    }
}

fn describe(agent: &AgentId) -> String {
    format!("agent {:?}", agent.as_str())
}
