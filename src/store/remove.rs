//! Removes what nobody wants any more, in an order that no crash can turn into a conversation that
//! is older than it was, or that lacks a block.

use super::index::{Agent, Ghost, Save};
use super::layout::{self, FolderName};
use super::{BlockName, Collected, ROLLBACK_GENERATIONS, Store, StoreError};
use crate::types::{AgentId, Generation, Line, Namespace};

impl Store {
    /// Removes a line's saves for good. No error if there are none.
    pub fn remove_line(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        line: Line,
    ) -> Result<(), StoreError> {
        self.may_write()?;
        let agent = self.secrets.agent_folder(namespace, agent);
        let namespace = self.secrets.namespace_folder(namespace);
        self.remove_saves_of_line(namespace, agent, line)
    }

    /// Removes all saves of an agent; says whether there were any.
    pub fn remove_agent(&self, namespace: &Namespace, agent: &AgentId) -> Result<bool, StoreError> {
        self.may_write()?;
        let agent = self.secrets.agent_folder(namespace, agent);
        let namespace = self.secrets.namespace_folder(namespace);
        self.remove_transcripts(namespace, agent)?;
        let lines = self.lines_in(namespace, agent);
        for line in &lines {
            self.remove_saves_of_line(namespace, agent, *line)?;
        }
        self.remove_saves(namespace, agent, &[])?;
        Ok(!lines.is_empty())
    }

    /// Removes what no save needs any more.
    pub fn collect(&self) -> Result<Collected, StoreError> {
        self.may_write()?;
        let collected = self.collect_now()?;
        let mut index = self.index();
        for shelf in index.shelves.values_mut() {
            for block in shelf.blocks.values_mut().filter(|block| block.needed_by == 0) {
                if let Some(file) = &mut block.file {
                    file.collects_left = file.collects_left.saturating_sub(1);
                }
            }
        }
        Ok(collected)
    }

    /// The same, and blocks that wait for a save wait on.
    pub(super) fn collect_now(&self) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        for (namespace, agent, superseded) in self.superseded() {
            let removed = self.remove_saves(namespace, agent, &superseded)?;
            self.remove_folder_if_empty(namespace, agent);
            collected.manifests += removed.len();
            collected.bytes += removed.iter().map(|save| save.bytes).sum::<u64>();
        }
        let unneeded: Vec<(FolderName, Vec<BlockName>)> = {
            let index = self.index();
            index.shelves.iter().map(|(name, shelf)| (*name, shelf.unneeded())).collect()
        };
        for (namespace, names) in unneeded {
            self.remove_blocks(namespace, &names, &mut collected)?;
        }
        Ok(collected)
    }

    /// Agents with saves that are too old to go back to, or that should be gone by now.
    fn superseded(&self) -> Vec<(FolderName, FolderName, Vec<Generation>)> {
        let mut all = Vec::new();
        for (namespace, shelf) in &self.index().shelves {
            for (agent, state) in &shelf.agents {
                let superseded = state.superseded(ROLLBACK_GENERATIONS);
                if !superseded.is_empty() || !state.ghosts.is_empty() {
                    all.push((*namespace, *agent, superseded));
                }
            }
        }
        all
    }

    pub(super) fn remove_saves_of_line(
        &self,
        namespace: FolderName,
        agent: FolderName,
        line: Line,
    ) -> Result<(), StoreError> {
        let generations = {
            let index = self.index();
            index.agent(namespace, agent).map_or(Vec::new(), |state| state.line(line))
        };
        let Some((newest, older)) = generations.split_last() else {
            // It may be gone, but not for sure.
            self.remove_saves(namespace, agent, &[])?;
            self.remove_folder_if_empty(namespace, agent);
            return Ok(());
        };
        // The older are gone for sure before the newest goes: otherwise one of them would count
        // after a power cut, and the agent would have forgotten its last turns.
        let mut removed = self.remove_saves(namespace, agent, older)?;
        removed.extend(self.remove_saves(namespace, agent, &[*newest])?);
        self.remove_folder_if_empty(namespace, agent);
        // Nobody could name an agent any more whose words were left.
        if !self.is_known(namespace, agent) {
            self.remove_transcripts(namespace, agent)?;
        }
        let blocks: Vec<BlockName> = removed
            .iter()
            .flat_map(|save| save.head.blocks.iter().map(|block| block.name))
            .collect();
        self.remove_blocks(namespace, &blocks, &mut Collected::default())
    }

    /// Returns when no power cut brings them back, and those removed before.
    pub(super) fn remove_saves(
        &self,
        namespace: FolderName,
        agent: FolderName,
        generations: &[Generation],
    ) -> Result<Vec<Save>, StoreError> {
        let folder = layout::agent_folder(namespace, agent);
        let mut removed = Vec::new();
        for generation in generations {
            let path = layout::manifest_file(namespace, agent, *generation);
            self.files.remove(&path)?;
            let mut index = self.index();
            let shelf = index.shelf(namespace);
            let Some(save) = shelf.take_save(agent, *generation) else { continue };
            let ghost = Ghost { head: save.head.clone(), is_removed: true };
            shelf.agents.entry(agent).or_default().ghosts.push(ghost);
            removed.push(save);
        }
        self.remove_ghosts(namespace, agent)?;
        if self.has_ghosts(namespace, agent) {
            self.files.changed(&folder, None);
            self.sync_path(&folder)?;
            self.index().shelf(namespace).release_ghosts(agent);
        }
        Ok(removed)
    }

    /// Saves that could not be removed when they should have been.
    pub(super) fn remove_ghosts(
        &self,
        namespace: FolderName,
        agent: FolderName,
    ) -> Result<(), StoreError> {
        let left: Vec<Generation> = {
            let index = self.index();
            let state = index.agent(namespace, agent);
            let ghosts = state.into_iter().flat_map(|state| &state.ghosts);
            ghosts.filter(|ghost| !ghost.is_removed).map(|ghost| ghost.head.generation).collect()
        };
        for generation in left {
            self.files.remove(&layout::manifest_file(namespace, agent, generation))?;
            let mut index = self.index();
            let state = index.shelf(namespace).agents.entry(agent).or_default();
            for ghost in &mut state.ghosts {
                ghost.is_removed |= ghost.head.generation == generation;
            }
        }
        Ok(())
    }

    fn has_ghosts(&self, namespace: FolderName, agent: FolderName) -> bool {
        let index = self.index();
        index.agent(namespace, agent).is_some_and(|state| !state.ghosts.is_empty())
    }

    /// An agent that is gone leaves no folder. One that does not go has something else in it.
    fn remove_folder_if_empty(&self, namespace: FolderName, agent: FolderName) {
        self.forget_retention(namespace, agent);
        let is_empty = |state: &Agent| state.saves.is_empty() && state.ghosts.is_empty();
        if !self.index().agent(namespace, agent).is_some_and(is_empty) {
            return;
        }
        let folder = layout::agent_folder(namespace, agent);
        if self.files.disk.remove_folder(&folder).is_ok() {
            self.files.forget_folder(&folder);
            self.index().shelf(namespace).agents.remove(&agent);
        }
    }

    /// Removes those of the blocks that no save needs.
    fn remove_blocks(
        &self,
        namespace: FolderName,
        names: &[BlockName],
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        for name in names {
            let file = {
                let mut index = self.index();
                let shelf = index.shelf(namespace);
                match shelf.is_unneeded(name) {
                    true => shelf.take_file(name),
                    false => None,
                }
            };
            let Some(file) = file else { continue };
            let bytes = file.bytes;
            if let Err(error) = self.files.remove(&layout::block_file(namespace, name)) {
                self.index().shelf(namespace).put_file(*name, file);
                return Err(error);
            }
            collected.blocks += 1;
            collected.bytes += bytes;
        }
        Ok(())
    }

    pub(super) fn lines_in(&self, namespace: FolderName, agent: FolderName) -> Vec<Line> {
        let index = self.index();
        let live = index.agent(namespace, agent).map_or(Vec::new(), |state| state.live());
        live.into_iter().map(|save| save.head.line).collect()
    }

    pub(super) fn newest_of(
        &self,
        namespace: FolderName,
        agent: FolderName,
        line: Line,
    ) -> Option<Save> {
        let index = self.index();
        let live = index.agent(namespace, agent)?.live();
        live.into_iter().find(|save| save.head.line == line).cloned()
    }
}
