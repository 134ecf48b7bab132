//! Makes room for what is to be written: what nobody needs goes first, then what was used least
//! recently, always whole lines.

use super::budget::{self, Need, Place, Scarce, Shortage, Victim};
use super::files::read_error;
use super::layout::{self, FolderName};
use super::{Store, StoreError};
use crate::types::Namespace;

impl Store {
    /// Returns when so much may be written.
    pub(super) fn make_room(&self, need: &Need, namespace: &Namespace) -> Result<(), StoreError> {
        while let Some(shortage) = self.shortage(need)? {
            let is_some_gone = self.remove_unneeded()? || self.remove_quarantined(shortage)?;
            if !is_some_gone && !self.remove_victim(need, shortage)? {
                return Err(self.no_room(need, shortage, namespace));
            }
        }
        Ok(())
    }

    /// Returns when the namespace may have this agent.
    pub(super) fn make_room_for_agent(
        &self,
        need: &Need,
        agent: FolderName,
        name: &Namespace,
    ) -> Result<(), StoreError> {
        let Some(limit) = self.settings.namespace_agents else { return Ok(()) };
        let namespace = need.namespace;
        loop {
            let coldest = {
                let mut index = self.index();
                let shelf = index.shelf(namespace);
                let is_known =
                    |agent| shelf.agents.get(agent).is_some_and(|agent| !agent.saves.is_empty());
                let others = shelf.agent_count() - usize::from(is_known(&agent));
                if others < limit {
                    return Ok(());
                }
                budget::coldest_agent(&index, need).filter(|_| limit > 0)
            };
            let Some(coldest) = coldest else {
                let what = format!("more than {limit} agents");
                return Err(StoreError::Quota { namespace: name.to_string(), what });
            };
            for line in self.lines_in(namespace, coldest) {
                self.remove_for_room(Place { namespace, agent: coldest, line })?;
            }
        }
    }

    fn shortage(&self, need: &Need) -> Result<Option<Shortage>, StoreError> {
        let space =
            self.files.disk.space().map_err(|error| read_error("measure", layout::ROOT, error))?;
        Ok(budget::shortage(&self.index(), need, &self.settings, space))
    }

    /// Says whether anything went.
    fn remove_unneeded(&self) -> Result<bool, StoreError> {
        let collected = self.collect_now()?;
        Ok(collected.bytes > 0)
    }

    /// The oldest file of the quarantine, which is in nobody's quota. Says whether there was one.
    fn remove_quarantined(&self, shortage: Shortage) -> Result<bool, StoreError> {
        if shortage.of == Scarce::Namespace {
            return Ok(false);
        }
        let Some((_, oldest)) = self.index().quarantine.pop_first() else { return Ok(false) };
        let (file, bytes) = (oldest.file, oldest.bytes);
        self.files.remove(&file)?;
        tracing::warn!(file, bytes, "a damaged file was removed to make room");
        Ok(true)
    }

    /// Says whether there was anything that may go.
    fn remove_victim(&self, need: &Need, shortage: Shortage) -> Result<bool, StoreError> {
        let victim = budget::victim(&self.index(), need, shortage, &self.settings);
        match victim {
            None => Ok(false),
            Some(Victim::Line(line)) => self.remove_for_room(line).map(|()| true),
            Some(Victim::Transcripts(oldest)) => {
                self.remove_files(need.namespace, &oldest).map(|()| true)
            }
        }
    }

    fn remove_for_room(&self, place: Place) -> Result<(), StoreError> {
        let Place { namespace, agent, line } = place;
        let Some(save) = self.newest_of(namespace, agent, line) else { return Ok(()) };
        let removed = self.remove_saves_of_line(namespace, agent, line);
        if self.newest_of(namespace, agent, line).is_some() {
            return removed;
        }
        let head = &save.head;
        tracing::info!(
            namespace = %head.namespace, agent = head.agent.as_str(), line = line.0, tokens = head.tokens,
            "a saved conversation was removed to make room"
        );
        let told = (head.namespace.clone(), head.agent.clone(), line);
        self.index().removed.push(told);
        removed
    }

    fn no_room(&self, need: &Need, shortage: Shortage, namespace: &Namespace) -> StoreError {
        match shortage.of {
            Scarce::All(reason) => StoreError::Full { needed_bytes: need.bytes, reason },
            Scarce::Namespace => {
                let quota = self.settings.namespace_bytes.unwrap_or(u64::MAX);
                let what = format!("more than {quota} bytes");
                StoreError::Quota { namespace: namespace.to_string(), what }
            }
        }
    }
}
