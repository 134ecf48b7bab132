//! The memory that `generate --agent` goes on from and adds to.

use std::sync::Arc;

use crate::cli::Context;
use crate::cli::output::{self, Failure};
use crate::cli::store::{self, Access};
use crate::engine::Keeping;
use crate::model::{KvConfig, ModelFiles};
use crate::store::{Store, StoredLine};
use crate::text::Piece;
use crate::types::{AgentId, Namespace, TokenId};

#[derive(Debug, clap::Args)]
pub struct AgentFlags {
    /// Go on with this agent's conversation, and remember this turn
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Whose agents these are; a server without keys has `local` [default: local]
    #[arg(long, env = "SEMANTIC_NAMESPACE")]
    namespace: Option<String>,
    /// Begin with a copy of this agent's conversation
    #[arg(long, value_name = "NAME")]
    fork_from: Option<String>,
    /// Go on from the conversation and remember nothing of this turn
    #[arg(long)]
    ephemeral: bool,
    /// Change nothing on disk, so that a server may run meanwhile; implies --ephemeral
    #[arg(long)]
    read_only: bool,
}

/// An agent of the store.
pub struct Memory {
    store: Arc<Store>,
    pub namespace: Namespace,
    pub agent: AgentId,
    /// Whose copy it is to begin as.
    source: Option<AgentId>,
    pub is_ephemeral: bool,
}

impl Memory {
    /// None if no agent is named: then nothing is kept and nothing is opened.
    pub fn open(flags: &AgentFlags, context: &Context) -> Result<Option<Memory>, Failure> {
        let is_ephemeral = flags.ephemeral || flags.read_only;
        let id = |name: &String| {
            AgentId::new(name).map_err(|error| Failure::Usage(format!("{name:?}: {error}")))
        };
        let agent = flags.agent.as_ref().map(id).transpose()?;
        let source = flags.fork_from.as_ref().map(id).transpose()?;
        let agent = match (agent, &source) {
            (None, None) if is_ephemeral => {
                let message = "--ephemeral and --read-only go with --agent or --fork-from";
                return Err(Failure::Usage(message.to_owned()));
            }
            (None, None) => return Ok(None),
            // Only read, the copy is as good as its original.
            (_, Some(source)) if is_ephemeral => source.clone(),
            (Some(agent), _) => agent,
            (None, Some(_)) => {
                let message = "--fork-from needs an --agent that the copy becomes, or --ephemeral";
                return Err(Failure::Usage(message.to_owned()));
            }
        };
        let namespace = match &flags.namespace {
            Some(name) if name.is_empty() => {
                return Err(Failure::Usage("the namespace is empty".to_owned()));
            }
            Some(name) => Namespace::new(name),
            None => Namespace::local(),
        };
        let access = if is_ephemeral { Access::Read } else { Access::Write };
        let store = store::open(context, access)?;
        let source = source.filter(|_| !is_ephemeral);
        Ok(Some(Memory { store, namespace, agent, source, is_ephemeral }))
    }

    /// Makes the copy, once everything else has turned out well.
    pub fn fork(&self) -> Result<(), Failure> {
        if let Some(source) = &self.source {
            self.store.fork(&self.namespace, source, &self.agent)?;
        }
        Ok(())
    }

    pub fn keeping(
        &self,
        files: &ModelFiles,
        kv: KvConfig,
        model: &str,
        context: &Context,
    ) -> Result<Keeping, Failure> {
        Ok(Keeping {
            store: Arc::clone(&self.store),
            fingerprint: files.fingerprint(kv, &store::digests(context))?,
            model: model.to_owned(),
        })
    }

    /// The conversation that the agent had last with this model.
    pub fn past(&self, keeping: &Keeping) -> Result<Option<Past>, Failure> {
        let agent = self.source.as_ref().unwrap_or(&self.agent);
        let is_own = |line: &StoredLine| line.namespace == self.namespace && line.agent == *agent;
        let past = self.store.lines(&keeping.fingerprint).into_iter().rfind(is_own);
        if past.is_none()
            && let Some(other) = self.store.agent(&self.namespace, agent)?
        {
            output::talk(&format!(
                "agent {:?} has its memory of another model or of other KV settings ({}); it \
                 begins anew with this one",
                agent.as_str(),
                other.saves[0].model
            ));
        }
        Ok(past.map(Past))
    }
}

/// A conversation of the store.
pub struct Past(StoredLine);

impl Past {
    /// All of its tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.0.tokens
    }

    /// From its begin to the end of the last reply, which a further turn can follow.
    pub fn turns(&self) -> Option<Vec<Piece>> {
        let StoredLine { tokens, replies, .. } = &self.0;
        let mut pieces = Vec::new();
        let mut end = 0;
        for reply in replies {
            pieces.push(Piece::Tokens(tokens.get(end..reply.start)?.to_vec()));
            pieces.push(Piece::Reply(vec![tokens.get(reply.clone())?.into()]));
            end = reply.end;
        }
        (!pieces.is_empty()).then_some(pieces)
    }
}
