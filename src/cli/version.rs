//! What `--version` says: one line, and with `--verbose` all that a report of a fault should have.

use std::sync::OnceLock;

use crate::model::{machine, mlx_version};

/// Ours, and that of the MLX we run on.
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{} (MLX {})", env!("CARGO_PKG_VERSION"), mlx_version()))
}

/// Whether a command line that has `--version` also asks for the rest. clap answers `--version` as
/// soon as it reads it, and says nothing of what follows.
pub fn is_verbose(arguments: impl Iterator<Item = String>) -> bool {
    let is_asked = |argument: String| match argument.strip_prefix('-') {
        Some("-verbose") => true,
        Some(letters) => !letters.starts_with('-') && letters.contains('v'),
        None => false,
    };
    arguments.skip(1).any(is_asked)
}

pub fn verbose_text() -> String {
    let features = features().join(" ");
    let lines = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", env!("SEMANTIC_COMMIT")),
        ("MLX", &mlx_version()),
        ("target", env!("SEMANTIC_TARGET")),
        ("kernels", machine::instruction_set()),
        ("CPU", if features.is_empty() { "no feature that is asked for" } else { &features }),
        ("rustc", env!("SEMANTIC_RUSTC").trim_start_matches("rustc ")),
    ];
    let line = |(name, value): &(&str, &str)| format!("{name:8} {value}\n");
    format!("semantic\n{}", lines.iter().map(line).collect::<String>())
}

/// What this processor has of what a kernel could use.
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($test:ident: $($name:tt)*) => {
            [$(($name, std::arch::$test!($name))),*]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let all = detected!(is_x86_feature_detected:
        "avx" "avx2" "fma" "f16c" "avxvnni" "avx512f" "avx512bw" "avx512vl" "avx512vnni" "avx512bf16");
    #[cfg(target_arch = "aarch64")]
    let all = detected!(is_aarch64_feature_detected: "neon" "dotprod" "i8mm" "bf16" "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all: [(&str, bool); 0] = [];
    all.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbose_is_asked_for_in_any_order() {
        let is_asked = |line: &str| is_verbose(line.split(' ').map(str::to_owned));
        for line in ["semantic --version --verbose", "s -V -v", "s -Vv", "s --verbose --version"] {
            assert!(is_asked(line), "{line}");
        }
        for line in ["semantic --version", "-v --version", "s -V", "s --version verbose"] {
            assert!(!is_asked(line), "{line}");
        }
    }
}
