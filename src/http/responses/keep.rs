//! What was said up to each response, so that a request can go on from it by its id.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::input::Item;
use crate::engine;
use crate::http::error::Error;
use crate::http::prompt::beside;
use crate::http::turn::Settling;
use crate::http::{App, random};
use crate::types::{AgentId, Namespace, TranscriptId};

/// What one transcript may take; a conversation that fits a context is smaller. A larger one is
/// answered and not kept.
const TRANSCRIPT_BYTES_MAX: usize = 8 << 20;
/// What a namespace has in memory, where those are that no disk has taken; the oldest go.
const TRANSCRIPTS_MAX: usize = 1024;
const BYTES_MAX: usize = 32 << 20;
/// Agents of a namespace that were deleted last. A turn under way that may be of an older one is not
/// kept.
const FORGOTTEN_MAX: usize = 1024;
/// What ids of responses begin with.
const ID_PREFIX: &str = "resp_";

/// What was said, word for word, and by whom.
pub struct Transcript {
    pub agent: AgentId,
    /// Without the instructions, which each request brings anew.
    pub items: Vec<Item>,
    /// The answer as its client got it.
    pub response: Value,
}

/// The same as it is written.
#[derive(Deserialize, Serialize)]
struct Written {
    agent: String,
    items: Vec<Item>,
    response: Value,
}

/// Those of all namespaces: in memory, and by the engine on disk.
#[derive(Default)]
pub struct Transcripts(Mutex<Spaces>);

/// Of which there are no more than keys.
#[derive(Default)]
struct Spaces(HashMap<Namespace, Space>);

#[derive(Default)]
struct Space {
    /// Agents that were deleted, the last ones last. What others delete is nothing to this namespace.
    forgotten: VecDeque<AgentId>,
    /// How many there ever were.
    forgets: u64,
    all: HashMap<TranscriptId, InMemory>,
    /// The oldest first.
    by_age: BTreeMap<u64, TranscriptId>,
    bytes: usize,
    last: u64,
}

struct InMemory {
    agent: AgentId,
    age: u64,
    bytes: Arc<[u8]>,
}

/// When a turn began, as far as deletions in its namespace go.
#[derive(Clone, Copy)]
pub struct Begun(u64);

/// Keeps what a turn comes to.
pub struct Keep {
    pub app: Arc<App>,
    pub namespace: Namespace,
    pub begun: Begun,
    /// All that the turn was asked.
    pub items: Vec<Item>,
}

/// What a turn came to.
pub struct Ended {
    pub id: TranscriptId,
    pub agent: AgentId,
    /// Whether the agent has it on disk.
    pub is_durable: bool,
    pub said: Vec<Item>,
    /// The answer.
    pub response: Value,
}

/// Whether a turn has been kept.
#[derive(Clone, Default)]
pub struct Keeping(Arc<AtomicBool>);

impl Keeping {
    pub fn is_kept(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

pub fn new_id() -> TranscriptId {
    TranscriptId((u128::from(random::number()) << 64) | u128::from(random::number()))
}

pub fn response_id(id: TranscriptId) -> String {
    format!("{ID_PREFIX}{id}")
}

pub fn parse_id(id: &str) -> Option<TranscriptId> {
    TranscriptId::parse(id.strip_prefix(ID_PREFIX)?)
}

impl Keep {
    /// Keeps a turn with what it came to. Nothing is told of a failure but that it is not kept.
    pub fn keep(self, ended: Ended, keeping: Keeping) -> Settling {
        Box::pin(async move {
            let Keep { app, namespace, begun, mut items } = self;
            let Ended { id, agent, is_durable, said, response } = ended;
            items.extend(said);
            let bytes = items.iter().map(Item::bytes).sum();
            let name = agent.to_string();
            let write = move || {
                let written = Written { agent: name, items, response };
                serde_json::to_vec(&written).expect("texts are JSON")
            };
            let said = match beside(&app, &namespace, bytes, write).await {
                Ok(bytes) => bytes.into(),
                Err(error) => {
                    let agent = agent.as_str();
                    tracing::warn!(%error, agent, "an answer was not kept: nobody could write it down");
                    return;
                }
            };
            let transcript = engine::Transcript { namespace, agent, id, said };
            let is_kept = app.transcripts.keep(&app, transcript, begun, is_durable).await;
            keeping.0.store(is_kept, Ordering::Release);
        })
    }
}

impl Transcripts {
    /// To be asked before anything of a turn is read.
    pub fn begin(&self, namespace: &Namespace) -> Begun {
        Begun(self.spaces().0.get(namespace).map_or(0, |space| space.forgets))
    }

    /// On disk if the turn is there, else in memory. Says whether it is anywhere.
    async fn keep(
        &self,
        app: &App,
        transcript: engine::Transcript,
        begun: Begun,
        is_durable: bool,
    ) -> bool {
        let is_forgotten = self.spaces().is_forgotten(&transcript, begun);
        if transcript.said.len() > TRANSCRIPT_BYTES_MAX || is_forgotten {
            return false;
        }
        if is_durable
            && let Some(serving) = app.serving.get()
            && serving.engine.keep_transcript(transcript.clone()).await
        {
            return true;
        }
        let mut spaces = self.spaces();
        // Its agent may have been deleted meanwhile.
        let is_forgotten = spaces.is_forgotten(&transcript, begun);
        if !is_forgotten {
            let engine::Transcript { namespace, agent, id, said } = transcript;
            spaces.of(namespace).insert(id, agent, said.into());
        }
        !is_forgotten
    }

    /// None if there is none, or none of this namespace.
    pub async fn find(
        &self,
        app: &App,
        namespace: &Namespace,
        id: TranscriptId,
    ) -> Result<Option<Transcript>, Error> {
        let in_memory = {
            let spaces = self.spaces();
            let found = spaces.0.get(namespace).and_then(|space| space.all.get(&id));
            found.map(|found| Arc::clone(&found.bytes))
        };
        if let Some(bytes) = in_memory {
            return beside(app, namespace, bytes.len(), move || read(&bytes)).await;
        }
        let Some(stored) = app.serving()?.engine.find_transcript(namespace, id)? else {
            return Ok(None);
        };
        // However short it is, the disk may take its time.
        let bytes = usize::try_from(stored.bytes()).unwrap_or(usize::MAX);
        let read = move || Ok(stored.read()?.and_then(|said| read(&said)));
        app.workers.line(namespace).work(bytes, 0, read).await?
    }

    /// Says whether there was one.
    pub async fn remove(
        &self,
        app: &App,
        namespace: &Namespace,
        id: TranscriptId,
    ) -> Result<bool, Error> {
        let was_in_memory =
            self.spaces().0.get_mut(namespace).is_some_and(|space| space.remove(id));
        let was_on_disk = app.serving()?.engine.remove_transcript(namespace, id).await?;
        Ok(was_in_memory || was_on_disk)
    }

    /// The agent was deleted: nobody goes on from what it has said. Says whether anything of it was
    /// in memory.
    pub fn forget(&self, namespace: &Namespace, agent: &AgentId) -> bool {
        self.spaces().of(namespace.clone()).forget(agent)
    }

    fn spaces(&self) -> MutexGuard<'_, Spaces> {
        self.0.lock().expect("nobody panics with it")
    }
}

/// None if it is not what we wrote.
fn read(bytes: &[u8]) -> Option<Transcript> {
    let Written { agent, items, response } = serde_json::from_slice(bytes).ok()?;
    Some(Transcript { agent: AgentId::new(&agent).ok()?, items, response })
}

impl Spaces {
    fn of(&mut self, namespace: Namespace) -> &mut Space {
        self.0.entry(namespace).or_default()
    }

    /// Whether an agent has been deleted since, as far as one can know.
    fn is_forgotten(&self, transcript: &engine::Transcript, begun: Begun) -> bool {
        let Some(space) = self.0.get(&transcript.namespace) else { return false };
        let since = usize::try_from(space.forgets - begun.0).unwrap_or(usize::MAX);
        let mut newest = space.forgotten.iter().rev().take(since);
        since > FORGOTTEN_MAX || newest.any(|agent| *agent == transcript.agent)
    }
}

impl Space {
    fn forget(&mut self, agent: &AgentId) -> bool {
        self.forgets += 1;
        self.forgotten.push_back(agent.clone());
        if self.forgotten.len() > FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
        let of_agent = self.all.iter().filter(|(_, it)| it.agent == *agent);
        let of_agent: Vec<TranscriptId> = of_agent.map(|(id, _)| *id).collect();
        for id in &of_agent {
            self.remove(*id);
        }
        !of_agent.is_empty()
    }

    fn insert(&mut self, id: TranscriptId, agent: AgentId, bytes: Arc<[u8]>) {
        self.last += 1;
        self.bytes += bytes.len();
        self.by_age.insert(self.last, id);
        self.all.insert(id, InMemory { agent, age: self.last, bytes });
        while self.all.len() > TRANSCRIPTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.by_age.first_key_value().map(|(_, id)| *id) else { return };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, id: TranscriptId) -> bool {
        let Some(InMemory { age, bytes, .. }) = self.all.remove(&id) else { return false };
        self.by_age.remove(&age);
        self.bytes -= bytes.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(agent: &str, id: u128, bytes: usize) -> engine::Transcript {
        engine::Transcript {
            namespace: Namespace::local(),
            agent: AgentId::new(agent).unwrap(),
            id: TranscriptId(id),
            said: vec![b'x'; bytes].into(),
        }
    }

    fn insert(spaces: &mut Spaces, transcript: engine::Transcript) {
        let engine::Transcript { namespace, agent, id, said } = transcript;
        spaces.of(namespace).insert(id, agent, said.into());
    }

    fn ids(spaces: &Spaces) -> Vec<u128> {
        let space = &spaces.0[&Namespace::local()];
        assert_eq!(space.all.len(), space.by_age.len());
        assert_eq!(space.bytes, space.all.values().map(|it| it.bytes.len()).sum::<usize>());
        space.by_age.values().map(|id| id.0).collect()
    }

    #[test]
    fn what_an_agent_said_before_it_was_deleted_is_kept_by_no_turn_that_ends_later() {
        let transcripts = Transcripts::default();
        let local = Namespace::local();
        let [gone, other] = ["gone", "other"].map(|name| transcript(name, 1, 1));
        let is_forgotten =
            |whose: &engine::Transcript, begun| transcripts.spaces().is_forgotten(whose, begun);
        let before = transcripts.begin(&local);
        assert!(!transcripts.forget(&Namespace::new("another"), &other.agent));
        assert!(!transcripts.forget(&local, &gone.agent));
        let after = transcripts.begin(&local);
        assert!(is_forgotten(&gone, before));
        assert!(!is_forgotten(&gone, after));
        assert!(!is_forgotten(&other, before));
        // So many later one cannot know.
        for _ in 0..FORGOTTEN_MAX {
            transcripts.forget(&local, &transcript("third", 1, 1).agent);
        }
        assert!(is_forgotten(&other, before));
        assert!(!is_forgotten(&other, after));
        assert_eq!(transcripts.spaces().0[&local].forgotten.len(), FORGOTTEN_MAX);
    }

    #[test]
    fn what_one_namespace_deletes_leaves_anothers_turns_as_they_are() {
        let transcripts = Transcripts::default();
        let own = transcript("own", 1, 1);
        let begun = transcripts.begin(&own.namespace);
        for _ in 0..2 * FORGOTTEN_MAX {
            transcripts.forget(&Namespace::new("another"), &own.agent);
        }
        assert!(!transcripts.spaces().is_forgotten(&own, begun));
    }

    #[test]
    fn the_oldest_in_memory_go_when_there_are_too_many() {
        let mut spaces = Spaces::default();
        for id in 0..TRANSCRIPTS_MAX as u128 + 2 {
            insert(&mut spaces, transcript("a", id, 1));
        }
        assert_eq!(ids(&spaces), (2..TRANSCRIPTS_MAX as u128 + 2).collect::<Vec<_>>());
        insert(&mut spaces, transcript("b", 9_999, BYTES_MAX - 2));
        assert_eq!(ids(&spaces), [TRANSCRIPTS_MAX as u128, TRANSCRIPTS_MAX as u128 + 1, 9_999]);
        assert!(spaces.of(Namespace::local()).forget(&transcript("b", 0, 1).agent));
        assert!(!spaces.of(Namespace::local()).forget(&transcript("b", 0, 1).agent));
        assert_eq!(ids(&spaces).len(), 2);
        assert!(spaces.of(Namespace::local()).remove(TranscriptId(1024)));
        assert_eq!(ids(&spaces).len(), 1);
    }

    #[test]
    fn a_transcript_is_read_as_it_was_written_and_nothing_else_is() {
        let items = vec![
            Item::Message { role: super::super::input::Role::User, text: "Hi".to_owned() },
            Item::Call {
                call_id: "c".to_owned(),
                name: "f".to_owned(),
                arguments: "{\"x\": 0.1}".to_owned(),
            },
            Item::Output { call_id: "c".to_owned(), output: String::new() },
        ];
        let response = serde_json::json!({ "id": "resp_1" });
        let agent = "a".to_owned();
        let written = Written { agent, items: items.clone(), response: response.clone() };
        let bytes = serde_json::to_vec(&written).unwrap();
        let found = read(&bytes).unwrap();
        assert_eq!((found.agent.as_str(), found.items, found.response), ("a", items, response));
        assert!(read(&bytes[1..]).is_none());
        assert!(read(b"").is_none());
    }
}
