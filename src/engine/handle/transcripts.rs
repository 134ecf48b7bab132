//! What was said up to an answer, on disk beside its agent: kept, found, read and removed.

use std::sync::Weak;

use tokio::sync::oneshot::{self, Receiver};

use super::{Engine, Kept};
use crate::engine::scheduler::DURABLE_WAIT_MAX;
use crate::engine::worker::io::{Failed, Write};
use crate::engine::worker::thread::Command;
use crate::engine::{AgentError, Error, Transcript};
use crate::store::Store;
use crate::types::{Namespace, TranscriptId};

/// What was said up to an answer, still to be read.
pub struct StoredTranscript {
    store: Weak<Store>,
    namespace: Namespace,
    id: TranscriptId,
    bytes: u64,
}

impl StoredTranscript {
    /// Of its file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// For a thread that may take its time. None if it has gone since, or is damaged.
    pub fn read(self) -> Result<Option<Box<[u8]>>, AgentError> {
        let store = self.store.upgrade().ok_or(Error::Stopped)?;
        store.transcript(&self.namespace, self.id).map_err(|error| {
            tracing::error!(%error, "an answer cannot be read");
            AgentError::Disk
        })
    }
}

impl Engine {
    /// Keeps a transcript of an agent that is on disk. Says whether it is safe there; an answer
    /// waits for it, so the disk has as long as for the turn itself.
    pub async fn keep_transcript(&self, transcript: Transcript) -> bool {
        let (reply, answer) = oneshot::channel();
        let agent = transcript.agent.clone();
        let write = Write::KeepTranscript { transcript: Box::new(transcript), reply };
        let problem = match self.write(write, answer).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(problem, agent = agent.as_str(), "an answer was not kept on disk");
        false
    }

    /// None if it is not on disk, or not in this namespace. Nothing is read yet.
    pub fn find_transcript(
        &self,
        namespace: &Namespace,
        id: TranscriptId,
    ) -> Result<Option<StoredTranscript>, Error> {
        let Some(Kept { store, .. }) = &self.kept else { return Ok(None) };
        let bytes = store.upgrade().ok_or(Error::Stopped)?.transcript_bytes(namespace, id);
        let (store, namespace) = (Weak::clone(store), namespace.clone());
        Ok(bytes.map(|bytes| StoredTranscript { store, namespace, id, bytes }))
    }

    /// Gone for good when this returns; says whether it was there.
    pub async fn remove_transcript(
        &self,
        namespace: &Namespace,
        id: TranscriptId,
    ) -> Result<bool, AgentError> {
        if self.kept.is_none() {
            return Ok(false);
        }
        let (reply, answer) = oneshot::channel();
        let namespace = namespace.clone();
        let removed = self.write(Write::RemoveTranscript { namespace, id, reply }, answer).await?;
        removed.map_err(|error| {
            tracing::error!(%error, "an answer was not removed");
            AgentError::Disk
        })
    }

    async fn write<T>(
        &self,
        job: Write,
        answer: Receiver<Result<T, Failed>>,
    ) -> Result<Result<T, Failed>, AgentError> {
        self.ask(Command::Write(job))?;
        match tokio::time::timeout(DURABLE_WAIT_MAX, answer).await {
            Ok(answer) => Ok(answer.map_err(|_| Error::Stopped)?),
            Err(_) => Err(AgentError::Disk),
        }
    }
}
