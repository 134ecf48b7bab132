//! How much memory the process uses and has used.

/// The most memory that was resident at once, in bytes; `None` where the system does not say.
pub fn peak_rss_bytes() -> Option<u64> {
    // Linux only. macOS has `getrusage`, which is a foreign call and so no business of this crate.
    bytes_of("VmHWM:", &std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The memory that is resident now, in bytes; `None` where the system does not say.
pub fn rss_bytes() -> Option<u64> {
    bytes_of("VmRSS:", &std::fs::read_to_string("/proc/self/status").ok()?)
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
        assert!(peak_rss_bytes() >= rss_bytes());
    }
}
