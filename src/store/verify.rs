//! Reads everything again: what is damaged is told by `verify`, and taken out by `repair`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::index::{FileNumber, Save};
use super::layout::{self, FolderName};
use super::manifest::Head;
use super::save::NewSave;
use super::{BlockName, BlockRef, Damage, Flaw, Repaired, Shortened, Store, StoreError, Verified};
use crate::types::{AgentId, Generation, Namespace};

/// A save, as the index had it when the reading began.
struct Known {
    namespace: FolderName,
    agent: FolderName,
    head: Arc<Head>,
    bytes: u64,
}

/// A block, and the saves that name it.
struct Needed<'a> {
    block: &'a BlockRef,
    saves: Vec<&'a Known>,
}

/// What reading everything has shown.
#[derive(Default)]
struct Survey {
    verified: Verified,
    manifests: Vec<(Known, Flaw)>,
    blocks: Vec<BadBlock>,
}

struct BadBlock {
    namespace: FolderName,
    name: BlockName,
    /// Of the file that was read.
    number: Option<FileNumber>,
    flaw: Flaw,
}

impl Store {
    /// Reads every byte that some save needs and says what is damaged. Changes nothing.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut verified = self.survey()?.verified;
        if self.is_read_only() {
            verified.damage.extend(self.found.iter().cloned());
        }
        Ok(verified)
    }

    /// Puts bad files into the quarantine, and saves the longest good prefix of each line that
    /// loses some.
    pub fn repair(&self) -> Result<Repaired, StoreError> {
        self.may_write()?;
        let survey = self.survey()?;
        let mut damage = self.found.clone();
        damage.extend(survey.verified.damage);
        for (save, flaw) in survey.manifests {
            self.quarantine_save(save.namespace, save.agent, save.head.generation, flaw);
        }
        for BadBlock { namespace, name, number, flaw } in survey.blocks {
            self.give_up_block(namespace, &name, number, flaw);
        }
        let mut shortened = Vec::new();
        for (namespace, agent) in self.all_agents() {
            shortened.extend(self.repair_agent(namespace, agent)?);
        }
        Ok(Repaired { damage, shortened })
    }

    fn survey(&self) -> Result<Survey, StoreError> {
        let mut survey = Survey::default();
        let mut good = Vec::new();
        for save in self.all_saves() {
            survey.verified.manifests += 1;
            survey.verified.bytes += save.bytes;
            match self.check_manifest(&save)? {
                None => good.push(save),
                Some(flaw) => {
                    survey.verified.damage.push(Damage {
                        path: save.path(),
                        flaw,
                        agents: vec![save.agent_id()],
                    });
                    survey.manifests.push((save, flaw));
                }
            }
        }
        let mut blocks: BTreeMap<(FolderName, BlockName), Needed<'_>> = BTreeMap::new();
        for save in &good {
            for block in &save.head.blocks {
                let needed = blocks.entry((save.namespace, block.name));
                needed.or_insert(Needed { block, saves: Vec::new() }).saves.push(save);
            }
        }
        for ((namespace, name), needed) in blocks {
            survey.verified.blocks += 1;
            survey.verified.bytes += needed.block.file_bytes;
            let number = self.index().shelf(namespace).file_number(&name);
            let Some(flaw) = self.check_needed(namespace, &needed)? else { continue };
            let agents: BTreeSet<_> = needed.saves.iter().map(|save| save.agent_id()).collect();
            survey.verified.damage.push(Damage {
                path: layout::block_file(namespace, &name),
                flaw,
                agents: agents.into_iter().collect(),
            });
            survey.blocks.push(BadBlock { namespace, name, number, flaw });
        }
        Ok(survey)
    }

    fn check_manifest(&self, save: &Known) -> Result<Option<Flaw>, StoreError> {
        match self.read_manifest(save.namespace, save.agent, save.head.generation) {
            Ok(_) => Ok(None),
            Err(StoreError::Damaged { flaw, .. }) => Ok(Some(flaw)),
            // The process that writes beside this one has removed it.
            Err(StoreError::NotFound(_)) if self.is_read_only() => Ok(None),
            Err(StoreError::NotFound(_)) => Ok(Some(Flaw::Missing)),
            Err(other) => Err(other),
        }
    }

    fn check_needed(
        &self,
        namespace: FolderName,
        needed: &Needed<'_>,
    ) -> Result<Option<Flaw>, StoreError> {
        match self.check_block(namespace, needed.block) {
            Ok(()) => Ok(None),
            Err(StoreError::Damaged { flaw, .. }) => Ok(Some(flaw)),
            Err(StoreError::Missing(_)) => {
                // The process that writes beside this one may have removed them together.
                let is_there = |save: &&Known| self.files.disk.open(&save.path()).is_ok();
                let is_needed = !self.is_read_only() || needed.saves.iter().any(is_there);
                Ok(is_needed.then_some(Flaw::Missing))
            }
            Err(other) => Err(other),
        }
    }

    /// Every line of an agent that cannot be restored whole gets a new save with the blocks that
    /// can; its tokens are all kept. Older saves that lack a block go.
    fn repair_agent(
        &self,
        namespace: FolderName,
        agent: FolderName,
    ) -> Result<Vec<Shortened>, StoreError> {
        let mut shortened = Vec::new();
        for head in self.broken(namespace, agent, Which::Live) {
            let (_, tokens) = self.read_manifest(namespace, agent, head.generation)?;
            let there = self.index().shelf(namespace).leading(&head.blocks);
            let held = |blocks: &[BlockRef]| blocks.iter().map(|block| block.tokens).sum();
            let committed = self.save(&NewSave::of(&head, &tokens, &head.blocks[..there]))?;
            shortened.push(Shortened {
                namespace: head.namespace.clone(),
                agent: head.agent.clone(),
                line: head.line,
                generation: committed.generation,
                tokens_before: held(&head.blocks),
                tokens: held(&head.blocks[..there]),
            });
        }
        let useless: Vec<Generation> = self
            .broken(namespace, agent, Which::Older)
            .iter()
            .map(|head| head.generation)
            .collect();
        for Generation(generation) in &useless {
            tracing::info!(%agent, generation, "an older save that lacks a block was removed");
        }
        if !useless.is_empty() {
            self.remove_saves(namespace, agent, &useless)?;
        }
        Ok(shortened)
    }

    /// Saves that lack a block.
    fn broken(&self, namespace: FolderName, agent: FolderName, which: Which) -> Vec<Arc<Head>> {
        let index = self.index();
        let Some(shelf) = index.shelves.get(&namespace) else { return Vec::new() };
        let Some(state) = shelf.agents.get(&agent) else { return Vec::new() };
        let live: BTreeSet<Generation> =
            state.live().iter().map(|save| save.head.generation).collect();
        let is_meant = |head: &Head| match which {
            Which::Live => live.contains(&head.generation),
            Which::Older => !live.contains(&head.generation),
        };
        let is_broken = |head: &Head| shelf.leading(&head.blocks) < head.blocks.len();
        let heads = state.saves.values().map(|save| &save.head);
        heads.filter(|head| is_meant(head) && is_broken(head)).cloned().collect()
    }

    fn all_saves(&self) -> Vec<Known> {
        let mut all = Vec::new();
        for (namespace, shelf) in &self.index().shelves {
            for (agent, state) in &shelf.agents {
                let known = |save: &Save| Known {
                    namespace: *namespace,
                    agent: *agent,
                    head: save.head.clone(),
                    bytes: save.bytes,
                };
                all.extend(state.saves.values().map(known));
            }
        }
        all
    }
}

impl Known {
    fn path(&self) -> String {
        layout::manifest_file(self.namespace, self.agent, self.head.generation)
    }

    fn agent_id(&self) -> (Namespace, AgentId) {
        (self.head.namespace.clone(), self.head.agent.clone())
    }
}

/// The newest save of each line, or the others.
#[derive(Clone, Copy)]
enum Which {
    Live,
    Older,
}
