//! Disks for the store: one in memory, one that fails when it is told to, and one that shows what a
//! power cut may leave.

mod crash;
mod fault;
mod memory;
mod volume;

pub use crash::{CrashDisk, Moment};
pub use fault::{Fault, FaultDisk};
pub use memory::MemoryDisk;
pub use volume::{Node, Volume};
