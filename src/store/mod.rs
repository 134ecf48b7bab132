//! Where agents are kept on disk.

pub mod disk;
