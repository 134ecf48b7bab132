//! How much memory the process uses and has used, and how much there is.

use std::process::Command;

/// What of the memory a KV pool takes if nobody says; weights and the rest need theirs.
const POOL_SHARE: u64 = 4;
/// Where the system does not tell its memory.
const POOL_BYTES_UNKNOWN: u64 = 1_000_000_000;

/// Memory for the KV of all agents if nobody says how much.
pub fn default_pool_bytes() -> u64 {
    total_bytes().map_or(POOL_BYTES_UNKNOWN, |bytes| bytes / POOL_SHARE)
}

/// The most memory that was resident at once, in bytes; `None` where the system does not say.
pub fn peak_rss_bytes() -> Option<u64> {
    // Linux only. macOS has `getrusage`, which is a foreign call and so no business of this crate.
    bytes_of("VmHWM:", &std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The memory that is resident now, in bytes; `None` where the system does not say.
pub fn rss_bytes() -> Option<u64> {
    bytes_of("VmRSS:", &std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The same of another process.
pub fn rss_bytes_of(process: u32) -> Option<u64> {
    bytes_of("VmRSS:", &std::fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

/// The memory that this process may use: the machine's, or less in a container. `None` where the
/// system does not say.
pub fn total_bytes() -> Option<u64> {
    let machine = match cfg!(target_os = "macos") {
        true => {
            let sysctl = Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
            String::from_utf8(sysctl.stdout).ok()?.trim().parse().ok()?
        }
        false => bytes_of("MemTotal:", &std::fs::read_to_string("/proc/meminfo").ok()?)?,
    };
    // Linux, control groups version 2; "max" is no limit.
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit: Option<u64> = limit.and_then(|limit| limit.trim().parse().ok());
    Some(limit.map_or(machine, |limit| limit.min(machine)))
}

/// What of it is free, or would be given up by who has it; `None` where the system does not say.
pub fn available_bytes() -> Option<u64> {
    let machine = bytes_of("MemAvailable:", &std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = |file: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?;
        text.trim().parse().ok()
    };
    let left = match (group("memory.max"), group("memory.current")) {
        (Some(limit), Some(used)) => limit.saturating_sub(used),
        _ => machine,
    };
    Some(left.min(machine))
}

/// A line such as `VmHWM: 123456 kB`, where a kB is 1,024 bytes (proc_pid_status(5)).
fn bytes_of(field: &str, status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_status_file() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(bytes_of("VmHWM:", status), Some(2 << 20));
        assert_eq!(bytes_of("VmRSS:", status), Some(1 << 10));
        assert_eq!(bytes_of("VmHWM:", "VmHWM:\t2048 MB\n"), None);
        assert_eq!(bytes_of("VmHWM:", ""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_the_peak() {
        assert!(rss_bytes().unwrap() > 1 << 20);
        // Asked for in this order: other tests may make the process grow meanwhile.
        let now = rss_bytes();
        assert!(peak_rss_bytes() >= now);
        assert!(total_bytes() > rss_bytes());
        assert!(available_bytes() < total_bytes());
        assert!(rss_bytes_of(std::process::id()).unwrap() > 1 << 20);
    }
}
