//! What `docs/deploy` gives to the server is what it takes.

use crate::support::cli::Machine;
use std::collections::BTreeSet;

const KUBERNETES: &str = include_str!("../../docs/deploy/kubernetes.yaml");
const SYSTEMD: &str = include_str!("../../docs/deploy/semantic.service");
const CADDY: &str = include_str!("../../docs/deploy/Caddyfile");
const SETTINGS: &str = include_str!("../../config.example.toml");

/// The settings that a server comes to with these arguments.
fn printed(arguments: &[&str]) -> String {
    let machine = Machine::new();
    let ran = machine.run(&[arguments, &["--print-config"]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    ran.stdout
}

/// It keeps the request of a client that has left.
#[test]
fn caddy_lets_go_of_who_has_left() {
    let settings = CADDY.lines().filter(|line| !line.trim_start().starts_with('#'));
    assert!(settings.clone().any(|line| line.contains("reverse_proxy")));
    assert!(!settings.clone().any(|line| line.contains("flush_interval")));
}

#[test]
fn the_manifest_has_arguments_and_variables_that_exist_and_time_to_end() {
    let after = KUBERNETES.split_once("args:\n").expect("arguments").1;
    let arguments: Vec<&str> =
        after.lines().map_while(|line| line.trim().strip_prefix("- ")).collect();
    assert_eq!(arguments.first(), Some(&"serve"));
    let settings = printed(&arguments);
    for line in ["host = \"0.0.0.0\"", "lame_duck_s = 5.0", "drain_timeout_s = 30.0"] {
        assert!(settings.contains(line), "{line}: {settings}");
    }
    // Prometheus asks by the pod's address.
    assert!(KUBERNETES.contains("fieldPath: status.podIP"));
    assert!(KUBERNETES.contains("value: $(POD_IP),semantic,"));
    // Else each mount opens the keys to the group, and the next start refuses them.
    assert!(KUBERNETES.contains("fsGroupChangePolicy: OnRootMismatch"));
    // 5 s, 30 s and the 8 s for saving.
    assert!(KUBERNETES.contains("terminationGracePeriodSeconds: 60"));
    assert!(!KUBERNETES.contains("preStop:"));
    for probe in ["startup", "ready", "live"] {
        assert!(KUBERNETES.contains(&format!("path: /health/{probe},")), "{probe}");
    }
    let variables: BTreeSet<&str> = [KUBERNETES, SYSTEMD]
        .iter()
        .flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
        .filter(|word| word.starts_with("SEMANTIC_"))
        .collect();
    assert!(variables.len() >= 4, "{variables:?}");
    for variable in variables {
        let key = variable["SEMANTIC_".len()..].to_ascii_lowercase();
        let is_secret = ["api_keys", "admin_key"].contains(&key.as_str());
        assert!(is_secret || SETTINGS.contains(&format!("\n# {key} = ")), "{variable}");
    }
}

#[test]
fn the_unit_starts_a_server_and_waits_for_its_end() {
    let line = |name: &str| {
        let found = SYSTEMD.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{name}"))
    };
    let command: Vec<&str> = line("ExecStart").split(' ').collect();
    assert!(command[0].ends_with("/semantic"), "{command:?}");
    printed(&command[1..]);
    assert_eq!((line("Type"), line("TimeoutStopSec")), ("exec", "60"));
    assert!(line("EnvironmentFile").ends_with("/etc/semantic/environment"));
}
