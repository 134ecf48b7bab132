//! Open files: as many as the system lets a process have, and some of them kept back for the disk.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Many systems let a process have 1,024, or 256, until it asks for more. macOS takes no more than
/// this for an answer.
const WANTED: u64 = 10_240;
/// For the model, the store's threads and the folders they sync, the runtime, probes' connections
/// and the log: what agents say is saved however many connections idle.
const KEPT_BACK: u64 = 128;

/// Of so many connections, those that there are files for.
pub fn connections(wanted: usize) -> usize {
    let before = getrlimit(Resource::Nofile);
    let most = before.maximum.unwrap_or(u64::MAX);
    if let Some(current) = before.current.filter(|current| *current < WANTED.min(most)) {
        let raised = Rlimit { current: Some(WANTED.min(most)), ..before };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, files = current, "the limit of open files stays as it is");
        }
    }
    within(wanted, getrlimit(Resource::Nofile).current)
}

fn within(wanted: usize, files: Option<u64>) -> usize {
    let room = files.map_or(u64::MAX, |files| files.saturating_sub(KEPT_BACK));
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let connections = wanted.min(room).max(1);
    if connections < wanted {
        tracing::warn!(connections, wanted, "the limit of open files allows fewer connections");
    }
    connections
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn some_files_are_kept_back() {
        assert_eq!(within(1024, None), 1024);
        assert_eq!(within(1024, Some(10_240)), 1024);
        assert_eq!(within(1024, Some(256)), 128);
        assert_eq!(within(1024, Some(64)), 1);
    }
}
