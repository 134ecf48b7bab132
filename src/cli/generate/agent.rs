//! The memory that `generate --agent` goes on from and adds to.

use std::sync::Arc;

use crate::cli::Context;
use crate::cli::output::{self, Failure, printable};
use crate::cli::store::{self, Access, failed, not_found, quoted};
use crate::engine::Keeping;
use crate::model::{KvConfig, ModelFiles};
use crate::store::{Store, StoredLine};
use crate::text::{self, Piece};
use crate::types::{AgentId, Generation, Namespace, TokenId};

const NAMESPACE_VARIABLE: &str = "SEMANTIC_NAMESPACE";

#[derive(Debug, clap::Args)]
pub struct AgentFlags {
    /// Go on with this agent's conversation, and remember this turn
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Whose agents these are [default: local]
    ///
    /// A server without keys has `local`.
    #[arg(long, value_name = "NAME", env = NAMESPACE_VARIABLE)]
    namespace: Option<String>,
    /// Begin with a copy of this agent's conversation
    #[arg(long, value_name = "NAME")]
    fork_from: Option<String>,
    /// Go on from the conversation and remember nothing of this turn
    #[arg(long)]
    ephemeral: bool,
    /// Change nothing on disk, so that a server may run; implies --ephemeral
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

/// Whom the flags name.
struct Named {
    agent: AgentId,
    source: Option<AgentId>,
}

impl Memory {
    /// None if no agent is named: then nothing is kept and nothing is opened.
    pub fn open(flags: &AgentFlags, context: &Context) -> Result<Option<Memory>, Failure> {
        let is_ephemeral = flags.ephemeral || flags.read_only;
        let Some(Named { agent, source }) = flags.named(is_ephemeral)? else { return Ok(None) };
        let namespace = match &flags.namespace {
            Some(name) if name.is_empty() => {
                return Err(Failure::Usage("the namespace is empty".to_owned()));
            }
            Some(name) => Namespace::new(name),
            None => Namespace::local(),
        };
        let store = match is_ephemeral {
            true => store::open(context, Access::Read),
            false => store::open(context, Access::Write).map_err(or_only_read),
        }?;
        // One that remembers may be new; where nothing is kept, a name without memory is a slip.
        let begun = source.as_ref().or(is_ephemeral.then_some(&agent));
        if let Some(begun) = begun
            && store.agent(&namespace, begun).map_err(failed)?.is_none()
        {
            return Err(not_found(&store, &namespace, begun));
        }
        Ok(Some(Memory { store, namespace, agent, source, is_ephemeral }))
    }

    /// Makes the copy, once everything else has turned out well.
    pub fn fork(&self) -> Result<(), Failure> {
        if let Some(source) = &self.source {
            store::fork(&self.store, &self.namespace, source, &self.agent)?;
        }
        Ok(())
    }

    /// Of the agent's last save.
    pub fn generation(&self) -> Result<Option<Generation>, Failure> {
        let info = self.store.agent(&self.namespace, &self.agent).map_err(failed)?;
        Ok(info.map(|info| info.newest().generation))
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

    /// The conversation that the agent had last with this model, or with `is_raw` the text.
    pub fn past(
        &self,
        keeping: &Keeping,
        is_raw: bool,
        is_quiet: bool,
    ) -> Result<Option<Past>, Failure> {
        let agent = self.source.as_ref().unwrap_or(&self.agent);
        let mut lines = self.store.lines_of(&self.namespace, agent, &keeping.fingerprint);
        // Where nothing was said there is nothing to answer to.
        let spoken = lines.iter().rposition(|line| !line.replies.is_empty());
        let past = match spoken.filter(|_| !is_raw) {
            Some(index) => Some(lines.swap_remove(index)),
            None => lines.pop(),
        };
        if past.is_none()
            && !is_quiet
            && let Some(other) = self.store.agent(&self.namespace, agent).map_err(failed)?
        {
            output::talk(&format!(
                "agent {} has its memory of another model or of other KV settings ({}); it begins \
                 anew with this one",
                quoted(agent.as_str()),
                printable(&other.newest().model)
            ));
        }
        Ok(past.map(Past))
    }
}

impl AgentFlags {
    fn named(&self, is_ephemeral: bool) -> Result<Option<Named>, Failure> {
        let id = |name: &String| {
            AgentId::new(name).map_err(|error| Failure::Usage(format!("{name:?}: {error}")))
        };
        let agent = self.agent.as_ref().map(id).transpose()?;
        let source = self.fork_from.as_ref().map(id).transpose()?;
        let misuse = |message: &str| Err(Failure::Usage(message.to_owned()));
        match (agent, source) {
            (None, None) if is_ephemeral => {
                misuse("--ephemeral and --read-only go with --agent or --fork-from")
            }
            (None, None) if self.has_namespace_flag() => {
                misuse("--namespace goes with --agent or --fork-from")
            }
            (None, None) => Ok(None),
            // Only read, the copy is as good as its original.
            (_, Some(source)) if is_ephemeral => Ok(Some(Named { agent: source, source: None })),
            (Some(agent), source) => Ok(Some(Named { agent, source })),
            (None, Some(_)) => {
                misuse("--fork-from needs an --agent that the copy becomes, or --ephemeral")
            }
        }
    }

    /// The environment is for all commands, also for those that have no use for it.
    fn has_namespace_flag(&self) -> bool {
        self.namespace.is_some() && std::env::var(NAMESPACE_VARIABLE).ok() != self.namespace
    }
}

fn or_only_read(failure: Failure) -> Failure {
    match failure {
        Failure::Busy { message, .. } => {
            let hint = "stop that process, ask it over HTTP if it is a server, or only read with \
                        --read-only";
            Failure::Busy { message, hint: hint.to_owned() }
        }
        Failure::CannotWrite { message, .. } => {
            let hint = "make the folder writable for this user, use another --data-dir, or only \
                        read with --read-only";
            Failure::CannotWrite { message, hint: hint.to_owned() }
        }
        other => other,
    }
}

/// A conversation of the store.
pub struct Past(StoredLine);

impl Past {
    /// All of its tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.0.tokens
    }

    /// All before the first reply: what it was told at the beginning.
    pub fn beginning(&self) -> &[TokenId] {
        let StoredLine { tokens, replies, .. } = &self.0;
        let end = replies.first().map_or(tokens.len(), |reply| reply.start);
        tokens.get(..end).unwrap_or(tokens)
    }

    /// From its begin to the end of the last reply, which a further turn can follow.
    pub fn turns(&self) -> Option<Vec<Piece>> {
        text::turns(&self.0.tokens, &self.0.replies)
    }
}
