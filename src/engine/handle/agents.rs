//! What can be asked of the engine about one agent.

use super::{Engine, Evicted};
use crate::engine::{AgentError, AgentState, Error, Past};
use crate::types::{AgentId, Namespace};

impl Engine {
    /// Every agent of the namespace, by name. Loads nothing.
    pub async fn agents(&self, _namespace: &Namespace) -> Result<Vec<AgentState>, AgentError> {
        Err(Error::Starting.into())
    }

    /// One agent; none if it is not there.
    pub async fn agent(
        &self,
        _namespace: &Namespace,
        _agent: &AgentId,
    ) -> Result<Option<AgentState>, AgentError> {
        Err(Error::Starting.into())
    }

    /// The conversation that an agent had last with this model.
    pub async fn past(
        &self,
        _namespace: &Namespace,
        _agent: &AgentId,
    ) -> Result<Option<Past>, AgentError> {
        Err(Error::Starting.into())
    }

    /// Saves what an agent has and gives its blocks back. What is under way of it goes on.
    pub async fn evict(
        &self,
        _namespace: &Namespace,
        _agent: &AgentId,
    ) -> Result<Evicted, AgentError> {
        Err(Error::Starting.into())
    }

    /// The agent is gone, from the disk too, for good when this returns.
    pub async fn forget(&self, _namespace: &Namespace, _agent: &AgentId) -> Result<(), AgentError> {
        Err(Error::Starting.into())
    }

    /// `to`, which must not be there yet, begins with all that `from` has. On disk when this
    /// returns, if the engine keeps anything there.
    pub async fn fork(
        &self,
        _namespace: &Namespace,
        _from: &AgentId,
        _to: &AgentId,
    ) -> Result<(), AgentError> {
        Err(Error::Starting.into())
    }
}
