//! What lies on a disk at one moment, for tests to compare and to damage.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Every folder and file by its path. The root has no entry.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Volume(pub BTreeMap<String, Node>);

#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Node {
    Folder,
    File(Arc<Vec<u8>>),
    /// A link, a pipe, a device.
    Other,
}

impl Volume {
    /// The paths of all files that contain this, in order.
    pub fn files(&self, part: &str) -> Vec<String> {
        let is_file =
            |(path, node): &(&String, &Node)| matches!(node, Node::File(_)) && path.contains(part);
        self.0.iter().filter(is_file).map(|(path, _)| path.clone()).collect()
    }

    pub fn bytes(&self, path: &str) -> &[u8] {
        match self.0.get(path) {
            Some(Node::File(bytes)) => bytes,
            _ => panic!("{path} is no file"),
        }
    }

    /// The same with another content of one file, which may be new.
    pub fn with(&self, path: &str, bytes: Vec<u8>) -> Volume {
        let mut changed = self.clone();
        changed.0.insert(path.to_owned(), Node::File(Arc::new(bytes)));
        changed
    }

    pub fn without(&self, path: &str) -> Volume {
        let mut changed = self.clone();
        changed.0.remove(path).unwrap_or_else(|| panic!("{path} is not there"));
        changed
    }

    /// All bytes of all files.
    pub fn size(&self) -> usize {
        let bytes = |node: &Node| match node {
            Node::File(bytes) => bytes.len(),
            Node::Folder | Node::Other => 0,
        };
        self.0.values().map(bytes).sum()
    }
}

/// One line per name: a failed comparison must be readable.
impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, node) in &self.0 {
            match node {
                Node::Folder => writeln!(f, "{path}/")?,
                Node::File(bytes) => writeln!(f, "{path} ({} bytes)", bytes.len())?,
                Node::Other => writeln!(f, "{path} (no file)")?,
            }
        }
        Ok(())
    }
}
