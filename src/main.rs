//! The process: hands the arguments to the command line and its exit code to the system.

use std::io::Write;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        let version = env!("CARGO_PKG_VERSION");
        let mlx = semantic::model::mlx_version();
        let _ = writeln!(std::io::stdout(), "semantic {version} (MLX {mlx})");
    }
}
