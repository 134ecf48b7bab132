//! What the system says of this process, as far as it says it: Linux does.

use std::fs;
use std::time::SystemTime;

use prometheus::IntGauge;

use super::family::{Families, level};

pub struct Process {
    /// Not there where the system has no `/proc`: no number is better than a wrong one.
    seen: Option<Seen>,
}

struct Seen {
    resident_bytes: IntGauge,
    open_files: IntGauge,
}

impl Process {
    pub(super) fn new(families: &Families<'_>) -> Process {
        let started = families
            .gauge("process_start_time_seconds", "When the server began, in seconds since 1970.");
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        started.set(level(since.as_secs()));
        let seen = resident_bytes().map(|_| Seen {
            resident_bytes: families
                .gauge("process_resident_memory_bytes", "Memory that the process has in RAM."),
            open_files: families.gauge("process_open_fds", "Open files and sockets."),
        });
        Process { seen }
    }

    /// Before each scrape.
    pub(super) fn look(&self) {
        let Some(seen) = &self.seen else { return };
        if let Some(bytes) = resident_bytes() {
            seen.resident_bytes.set(level(bytes));
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the folder itself, which is being read.
            seen.open_files.set(level(entries.count().saturating_sub(1) as u64));
        }
    }
}

/// Memory that the process has in RAM.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
