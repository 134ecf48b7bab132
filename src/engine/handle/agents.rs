//! What can be asked of the engine about agents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{COMMANDS_MAX, Engine, Evicted, Kept};
use crate::engine::about::{Mark, Marked};
use crate::engine::scheduler::Scheduler;
use crate::engine::worker::operations::{OPERATION_WAIT_MAX, Operation, What};
use crate::engine::worker::thread::Command;
use crate::engine::{
    AgentError, AgentPage, AgentState, Error, Page, Past, Recalled, Status, StoreUsage,
    StoredState, Tiers, Warmth,
};
use crate::store::{AgentBrief, RetentionChange, Store, StoredLine};
use crate::types::{AgentId, Fingerprint, Generation, Namespace, TokenId};

/// What an operation waits for, and some more for the disk, which may hang.
const ANSWER_WAIT_MAX: Duration = OPERATION_WAIT_MAX.saturating_add(Duration::from_secs(10));

impl Engine {
    /// Some agents of the namespace, by name. Loads nothing. A step waits for the names, of which
    /// there are few thousand, and for what is told of a page of them; who asks while another does
    /// waits, so that however many ask, it waits for one of them. To be awaited on a tokio runtime, as
    /// what a store has is counted on a thread of its own.
    pub async fn agents(
        &self,
        namespace: &Namespace,
        page: &Page,
    ) -> Result<AgentPage, AgentError> {
        let _turn = self.listing.acquire().await.map_err(|_| Error::Stopped)?;
        let space = namespace.clone();
        let known = self.look(move |scheduler| scheduler.names(&space)).await?;
        let space = namespace.clone();
        let stored = self.inspect(move |store| store.names(&space)).await?;
        let names: BTreeSet<AgentId> =
            known.into_iter().chain(stored.unwrap_or_default()).collect();
        let total = names.len();
        let mut rest = names
            .into_iter()
            .skip_while(|name| page.after.as_deref().is_some_and(|after| name.as_str() <= after));
        let wanted: Arc<[AgentId]> = rest.by_ref().take(page.limit).collect();
        let has_more = rest.next().is_some();
        let (space, names) = (namespace.clone(), Arc::clone(&wanted));
        let mut agents = self.look(move |scheduler| scheduler.agents(&space, &names)).await?;
        let space = namespace.clone();
        let briefs = move |store: &Store| {
            wanted.iter().filter_map(|agent| store.brief(&space, agent)).collect::<Vec<_>>()
        };
        self.add_stored(&mut agents, self.inspect(briefs).await?.unwrap_or_default());
        Ok(AgentPage { agents: agents.into_values().collect(), total, has_more })
    }

    /// One agent; none if it is not there.
    pub async fn agent(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
    ) -> Result<Option<AgentState>, AgentError> {
        let whose = (namespace.clone(), agent.clone());
        let state = self.look(move |scheduler| scheduler.agent(&whose.0, &whose.1)).await?;
        let mut agents: BTreeMap<AgentId, AgentState> =
            state.into_iter().map(|state| (agent.clone(), state)).collect();
        let whose = (namespace.clone(), agent.clone());
        let stored = self.inspect(move |store| store.brief(&whose.0, &whose.1)).await?;
        self.add_stored(&mut agents, stored.flatten());
        Ok(agents.remove(agent))
    }

    /// The conversation that an agent had last with this model, for [`Engine::submit_after`].
    pub async fn recall(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
    ) -> Result<Recalled, AgentError> {
        let whose = (namespace.clone(), agent.clone());
        let recalled = self.look(move |scheduler| scheduler.recall(&whose.0, &whose.1)).await?;
        let (None, Some(kept)) = (&recalled.past, &self.kept) else { return Ok(recalled) };
        // There may be more agents on disk than an engine holds in mind.
        let (fingerprint, whose) = (kept.fingerprint, (namespace.clone(), agent.clone()));
        let read = move |store: &Store| {
            let lines = store.lines_of(&whose.0, &whose.1, &fingerprint);
            lines.into_iter().rev().find(|line| !line.replies.is_empty())
        };
        Ok(match self.inspect(read).await?.flatten() {
            None => recalled,
            Some(StoredLine { tokens, replies, .. }) => {
                Recalled { past: Some(Past { tokens, replies }), mark: Mark(Marked::OnDisk) }
            }
        })
    }

    /// All conversations of an agent with this model, the newest first.
    pub async fn conversations(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
    ) -> Result<Vec<Arc<[TokenId]>>, AgentError> {
        let whose = (namespace.clone(), agent.clone());
        let look = move |scheduler: &Scheduler| scheduler.conversations(&whose.0, &whose.1);
        let mut all = self.look(look).await?;
        if let (true, Some(kept)) = (all.is_empty(), &self.kept) {
            let (fingerprint, whose) = (kept.fingerprint, (namespace.clone(), agent.clone()));
            let read = move |store: &Store| store.lines_of(&whose.0, &whose.1, &fingerprint);
            let lines = self.inspect(read).await?.unwrap_or_default();
            all.extend(lines.into_iter().rev().map(|line| line.tokens));
        }
        Ok(all)
    }

    /// Saves what an agent has and gives its blocks back. What is under way of it goes on.
    pub async fn evict(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
    ) -> Result<Evicted, AgentError> {
        self.operate(namespace, agent, What::Evict).await
    }

    /// The agent is gone, from the disk too, for good when this returns.
    pub async fn forget(&self, namespace: &Namespace, agent: &AgentId) -> Result<(), AgentError> {
        self.operate(namespace, agent, What::Forget).await
    }

    /// `to`, which must not be there yet, begins with all that `from` has. On disk when this
    /// returns, if the engine keeps anything there.
    pub async fn fork(
        &self,
        namespace: &Namespace,
        from: &AgentId,
        to: &AgentId,
    ) -> Result<(), AgentError> {
        let to = to.clone();
        self.operate(namespace, from, |reply| What::Fork { to, reply }).await
    }

    /// The agent goes on from an older save, the one before the newest if none is named. That is a new
    /// save, equal to the older one, so that what was newer can be gone back to as well. On disk when
    /// this returns.
    pub async fn rollback(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        to: Option<Generation>,
    ) -> Result<(), AgentError> {
        self.operate(namespace, agent, |reply| What::Rollback { to, reply }).await
    }

    /// Changes how long an agent is kept on disk. Safe there when this returns.
    pub async fn retain(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        change: RetentionChange,
    ) -> Result<(), AgentError> {
        self.operate(namespace, agent, |reply| What::Retain { change, reply }).await
    }

    /// Begins to bring back the conversation that an agent had last, so that a turn that comes soon need
    /// not wait for the disk. A hint: nobody else's request waits for it, and nothing unsaved goes.
    pub async fn warm(&self, namespace: &Namespace, agent: &AgentId) -> Result<Warmth, AgentError> {
        let (reply, answer) = oneshot::channel();
        let (namespace, agent) = (namespace.clone(), agent.clone());
        self.ask(Command::Warm { namespace, agent, reply })?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// How many agents there are in all, and where.
    pub async fn tiers(&self) -> Result<Tiers, AgentError> {
        Ok(self.look(Scheduler::tiers).await?)
    }

    /// What the store takes; none if nothing is kept.
    pub async fn store_usage(&self) -> Result<Option<StoreUsage>, AgentError> {
        match self.inspect(Store::usage).await? {
            None => Ok(None),
            Some(Ok(usage)) => Ok(Some(usage)),
            Some(Err(_)) => Err(AgentError::Disk),
        }
    }

    fn add_stored(
        &self,
        agents: &mut BTreeMap<AgentId, AgentState>,
        stored: impl IntoIterator<Item = AgentBrief>,
    ) {
        let Some(Kept { fingerprint, .. }) = &self.kept else { return };
        for brief in stored {
            let agent = brief.agent.clone();
            let state = agents.entry(agent.clone()).or_insert_with(|| AgentState::new(agent));
            state.stored = stored_state(brief, fingerprint);
        }
    }

    /// Asks the engine's thread, which answers before its next step.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Scheduler) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        // Who asked may have gone away.
        let look = move |scheduler: &Scheduler| drop(reply.send(look(scheduler)));
        self.ask(Command::Look(Box::new(look)))?;
        answer.await.map_err(|_| Error::Stopped)
    }

    async fn operate<T>(
        &self,
        namespace: &Namespace,
        agent: &AgentId,
        what: impl FnOnce(oneshot::Sender<Result<T, AgentError>>) -> What,
    ) -> Result<T, AgentError> {
        let (reply, answer) = oneshot::channel();
        let (namespace, agent) = (namespace.clone(), agent.clone());
        let late = AgentError::Late(agent.clone());
        self.ask(Command::Operate(Operation { namespace, agent, what: what(reply) }))?;
        match tokio::time::timeout(ANSWER_WAIT_MAX, answer).await {
            Ok(answer) => answer.map_err(|_| Error::Stopped)?,
            Err(_) => Err(late),
        }
    }

    pub(super) fn ask(&self, command: Command) -> Result<(), Error> {
        match self.status() {
            Status::Starting => Err(Error::Starting),
            Status::Failed(_) | Status::Stopped => Err(Error::Stopped),
            // Whoever asks is on a thread that others need.
            Status::Serving | Status::Draining => match self.commands.0.try_send(command) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(_)) => Err(Error::QueueFull { waiting: COMMANDS_MAX }),
                Err(TrySendError::Disconnected(_)) => Err(Error::Stopped),
            },
        }
    }

    /// Asks the store on a thread that may take its time; none if nothing is kept.
    pub(super) async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let Some(Kept { store, .. }) = &self.kept else { return Ok(None) };
        let store: Arc<Store> = store.upgrade().ok_or(Error::Stopped)?;
        let looking = tokio::task::spawn_blocking(move || look(&store));
        looking.await.map(Some).map_err(|_| Error::Stopped)
    }
}

/// Of the model that is served if there is anything of it, else of another.
fn stored_state(brief: AgentBrief, fingerprint: &Fingerprint) -> Option<StoredState> {
    let usable = brief.live.iter().find(|line| line.fingerprint == *fingerprint);
    let newest = usable.or(brief.live.first())?;
    Some(StoredState {
        model: newest.model.clone(),
        is_usable: usable.is_some(),
        tokens: newest.tokens,
        generation: newest.generation,
        saves: brief.saves,
        bytes: brief.bytes,
        saved_at: newest.saved_at,
        retention: brief.retention,
        expires_at: brief.expires_at,
    })
}
