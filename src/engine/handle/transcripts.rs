//! What was said up to an answer, on disk beside its agent: kept, found and removed.

use tokio::sync::oneshot::{self, Receiver};

use super::Engine;
use crate::engine::scheduler::DURABLE_WAIT_MAX;
use crate::engine::worker::io::{Failed, Write};
use crate::engine::worker::thread::Command;
use crate::engine::{AgentError, Error, Transcript};
use crate::types::{Namespace, TranscriptId};

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

    /// What was said; none if it is not on disk, or not in this namespace.
    pub async fn transcript(
        &self,
        namespace: &Namespace,
        id: TranscriptId,
    ) -> Result<Option<Box<[u8]>>, AgentError> {
        let namespace = namespace.clone();
        let found = self.inspect(move |store| store.transcript(&namespace, id)).await?;
        found.transpose().map(Option::flatten).map_err(|error| {
            tracing::error!(%error, "an answer cannot be read");
            AgentError::Disk
        })
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
