//! Reads everything again: what is damaged is told by `verify`, and taken out by `repair`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::index::Save;
use super::layout::{self, FolderName};
use super::manifest::Head;
use super::save::NewSave;
use super::{BlockName, BlockRef, Damage, Flaw, Repaired, Shortened, Store, StoreError, Verified};
use crate::types::{AgentId, Generation, Namespace};

/// A save, as the index had it when the reading began.
#[derive(Clone)]
struct Known {
    namespace: FolderName,
    agent: FolderName,
    head: Arc<Head>,
    bytes: u64,
}

/// What reading everything has shown.
#[derive(Default)]
struct Survey {
    verified: Verified,
    manifests: Vec<(Known, Flaw)>,
    blocks: Vec<(FolderName, BlockName, Flaw)>,
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
        for (known, flaw) in survey.manifests {
            self.quarantine_save(known.namespace, known.agent, known.head.generation, flaw);
        }
        for (namespace, name, flaw) in survey.blocks {
            match flaw {
                Flaw::Missing => drop(self.index().shelf(namespace).take_file(&name)),
                flaw => self.quarantine_block(namespace, &name, flaw),
            }
        }
        let mut shortened = Vec::new();
        for (namespace, agent) in self.all_agents() {
            shortened.extend(self.repair_agent(namespace, agent)?);
        }
        Ok(Repaired { damage, shortened })
    }

    fn survey(&self) -> Result<Survey, StoreError> {
        let mut survey = Survey::default();
        let mut users: HashMap<(FolderName, BlockName), BTreeSet<(Namespace, AgentId)>> =
            HashMap::new();
        let mut blocks: BTreeMap<(FolderName, BlockName), BlockRef> = BTreeMap::new();
        for known in self.all_saves() {
            let head = &known.head;
            survey.verified.manifests += 1;
            survey.verified.bytes += known.bytes;
            match self.read_manifest(known.namespace, known.agent, head.generation) {
                Ok(_) => (),
                Err(StoreError::Damaged { path, flaw }) => {
                    let agents = vec![(head.namespace.clone(), head.agent.clone())];
                    survey.verified.damage.push(Damage { path, flaw, agents });
                    survey.manifests.push((known, flaw));
                    continue;
                }
                // Beside a process that writes, what was there may be gone.
                Err(StoreError::NotFound(_)) if self.is_read_only() => continue,
                Err(StoreError::NotFound(path)) => {
                    let agents = vec![(head.namespace.clone(), head.agent.clone())];
                    survey.verified.damage.push(Damage { path, flaw: Flaw::Missing, agents });
                    survey.manifests.push((known, Flaw::Missing));
                    continue;
                }
                Err(other) => return Err(other),
            }
            for block in &head.blocks {
                let key = (known.namespace, block.name);
                blocks.entry(key).or_insert_with(|| block.clone());
                let user = (head.namespace.clone(), head.agent.clone());
                users.entry(key).or_default().insert(user);
            }
        }
        for ((namespace, name), block) in blocks {
            survey.verified.blocks += 1;
            survey.verified.bytes += block.file_bytes;
            let flaw = match self.check_block(namespace, &block) {
                Ok(()) => continue,
                Err(StoreError::Damaged { flaw, .. }) => flaw,
                Err(StoreError::Missing(_)) => Flaw::Missing,
                Err(other) => return Err(other),
            };
            let path = layout::block_file(namespace, &name);
            let agents = users.remove(&(namespace, name)).into_iter().flatten().collect();
            survey.verified.damage.push(Damage { path, flaw, agents });
            survey.blocks.push((namespace, name, flaw));
        }
        Ok(survey)
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

/// The newest save of each line, or the others.
#[derive(Clone, Copy)]
enum Which {
    Live,
    Older,
}
