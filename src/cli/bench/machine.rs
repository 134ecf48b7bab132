//! What the system says of the machine: the processor's name, and whether others use it.

/// As Linux knows it; elsewhere the architecture.
pub fn cpu_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| name_in(&text))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn name_in(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// How many threads were ready to run, on average over the last minute; where the system says.
pub fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_read_from_cpuinfo() {
        let text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(name_in(text).as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(name_in("processor : 0\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_its_load() {
        assert!(load_average() >= Some(0.0));
    }
}
