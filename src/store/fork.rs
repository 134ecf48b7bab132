//! Forks and rollbacks: new manifests of blocks that are there already.

use std::sync::Arc;

use super::index::Save;
use super::layout::FolderName;
use super::manifest::Head;
use super::save::NewSave;
use super::{BlockRef, Committed, Store, StoreError, StoredLine};
use crate::types::{AgentId, Fingerprint, Generation, Namespace, TokenId};

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
        let mut copies = Vec::new();
        for head in &live {
            match self.copy(folder, from_folder, head, to) {
                Ok(copy) => copies.push(copy),
                Err(error) => {
                    self.undo_copies(namespace, to, copies);
                    return Err(error);
                }
            }
        }
        merge(copies).ok_or_else(|| StoreError::NotFound(describe(from)))
    }

    /// Half a copy is none; what went to make room for it is still to be told.
    pub(super) fn undo_copies(&self, namespace: &Namespace, to: &AgentId, copies: Vec<Committed>) {
        let removed = copies.into_iter().flat_map(|copy| copy.removed);
        self.index().removed.extend(removed);
        if let Err(error) = self.remove_agent(namespace, to) {
            tracing::warn!(agent = to.as_str(), %error, "a copy that failed could not be removed");
        }
    }

    /// A line of an agent as a new line of another.
    fn copy(
        &self,
        namespace: FolderName,
        from: FolderName,
        head: &Head,
        to: &AgentId,
    ) -> Result<Committed, StoreError> {
        let (_, tokens) = self.read_manifest(namespace, from, head.generation)?;
        let there = self.index().shelf(namespace).leading(&head.blocks);
        let copy = NewSave::of(head, &tokens, &head.blocks[..there]);
        let source = Some(&head.agent);
        self.save(&NewSave { agent: to, source, line: self.new_line(), ..copy })
    }

    /// Makes an older save the newest again, as a new generation: the given one, or the one before
    /// the newest of the same line.
    pub fn rollback(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        generation: Option<Generation>,
    ) -> Result<Committed, StoreError> {
        self.go_back(namespace, agent, generation, |_| true).map(|(committed, _)| committed)
    }

    /// The same among the saves with a fingerprint; with the line as it is then.
    pub fn rollback_of(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        generation: Option<Generation>,
        fingerprint: &Fingerprint,
    ) -> Result<(Committed, StoredLine), StoreError> {
        let fits = |save: &&Save| save.head.fingerprint == *fingerprint;
        self.go_back(namespace, agent, generation, fits)
    }

    fn go_back(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        generation: Option<Generation>,
        fits: impl Fn(&&Save) -> bool,
    ) -> Result<(Committed, StoredLine), StoreError> {
        self.may_write()?;
        let agent_folder = self.secrets.agent_folder(namespace, agent);
        let folder = self.secrets.namespace_folder(namespace);
        let head = {
            let index = self.index();
            let state = index.agent(folder, agent_folder);
            let state = state.filter(|state| !state.saves.is_empty());
            let state = state.ok_or_else(|| StoreError::NotFound(describe(agent)))?;
            let target = match generation {
                Some(generation) => state.saves.get(&generation).filter(fits),
                None => state.before_newest(fits),
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
        let there = self.index().shelf(folder).leading(&head.blocks);
        // Nothing of it could be gone on from.
        if there == 0 && !head.blocks.is_empty() {
            let names = head.blocks.iter().map(|block| block.name);
            return Err(StoreError::Missing(names.collect()));
        }
        let committed = self.save(&NewSave::of(&head, &tokens, &head.blocks[..there]))?;
        let generation = committed.generation;
        let line = StoredLine { generation, ..self.stored_line(folder, &head, tokens) };
        Ok((committed, line))
    }
}

impl<'a> NewSave<'a> {
    /// The same again, with these of its blocks.
    pub fn of(head: &'a Head, tokens: &'a [TokenId], blocks: &'a [BlockRef]) -> NewSave<'a> {
        NewSave {
            namespace: &head.namespace,
            agent: &head.agent,
            source: None,
            line: head.line,
            fingerprint: head.fingerprint,
            model: &head.model,
            producer: &head.producer,
            tokens,
            replies: &head.replies,
            blocks,
        }
    }
}

/// The newest of several saves, telling what went for any of them.
fn merge(copies: Vec<Committed>) -> Option<Committed> {
    let generation = copies.last()?.generation;
    let removed = copies.into_iter().flat_map(|copy| copy.removed).collect();
    Some(Committed { generation, removed })
}

fn describe(agent: &AgentId) -> String {
    format!("agent {:?}", agent.as_str())
}
