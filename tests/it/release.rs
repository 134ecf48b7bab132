//! What people and scripts see of the program itself: its version, and what it sends to a terminal.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::cli::{Machine, Ran};
use crate::support::golden::data;

/// Begins every code that moves a cursor or turns a colour on.
const ESCAPE: char = '\u{1b}';
/// Python's own pseudo-terminal, so that the tests need nothing that the build does not.
const TERMINAL: &str = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";

/// Runs the program on a terminal of its own, which stdout and stderr then both are.
fn on_a_terminal(machine: &Machine, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let program = machine.command(arguments);
    let mut terminal = machine.command(&[]);
    let mut python = Command::new("python3");
    python.args(["-c", TERMINAL]).arg(program.get_program()).args(program.get_args());
    python.current_dir(machine.path(""));
    for (name, value) in terminal.env("TERM", "xterm-256color").get_envs() {
        match value {
            Some(value) => python.env(name, value),
            None => python.env_remove(name),
        };
    }
    // In a CI's log colours are shown whatever `TERM` says, so `CI` is asked for too.
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        python.env_remove(name);
    }
    python.envs(environment.iter().copied());
    let piped = std::process::Stdio::piped;
    python.stdin(piped()).stdout(piped()).stderr(piped());
    machine.finish(python, b"")
}

#[test]
fn no_escape_codes_where_nobody_wants_them() {
    let machine = Machine::new();
    let shown = |arguments: &[&str], environment: &[(&str, &str)]| {
        let ran = on_a_terminal(&machine, arguments, environment);
        assert!(ran.stdout.len() > 40, "{arguments:?}: {ran:?}");
        ran.stdout
    };
    let model = data("tiny/llama-f16").display().to_string();
    let logged = ["generate", "-m", &model, "hi", "-n1", "-q", "--log-level", "debug"];
    for arguments in [&["--help"][..], &["serve", "--help-all"], &["frobnicate"]] {
        // Else nothing is shown by what follows.
        assert!(shown(arguments, &[]).contains(ESCAPE), "{arguments:?}");
        for environment in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
            let shown = shown(arguments, &[environment]);
            assert!(!shown.contains(ESCAPE), "{environment:?} {arguments:?}: {shown:?}");
        }
        let ran = machine.run(arguments);
        assert!(!ran.stdout.contains(ESCAPE) && !ran.stderr.contains(ESCAPE), "{ran:?}");
    }
    for arguments in [&["cache", "show", "nobody", "--json"][..], &logged] {
        let shown = shown(arguments, &[]);
        assert!(!shown.contains(ESCAPE), "{arguments:?}: {shown:?}");
    }
}

#[test]
fn a_bar_is_shown_on_a_terminal_that_can_move_its_cursor() {
    let machine = Machine::new();
    let model = data("tiny/llama-f16").display().to_string();
    let arguments = ["bench", "--suite", "load", "--runs=300", "--threads=1", "-m", &model];
    let shown = on_a_terminal(&machine, &arguments, &[]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains(ESCAPE), "{shown:?}");
    for ran in [on_a_terminal(&machine, &arguments, &[("TERM", "dumb")]), machine.run(&arguments)] {
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(!ran.stdout.contains(ESCAPE) && !ran.stderr.contains(ESCAPE), "{ran:?}");
    }
}

#[test]
fn the_version_is_one_line_and_more_when_asked() {
    let machine = Machine::new();
    let version = env!("CARGO_PKG_VERSION");
    let short = machine.run(&["--version"]);
    assert_eq!((short.code, short.stderr.as_str()), (Some(0), ""));
    assert_eq!(short.stdout, format!("semantic {version} (MLX 0.32.2)\n"));
    assert_eq!(machine.run(&["-V"]).stdout, short.stdout);
    let long = machine.run(&["--version", "--verbose"]);
    assert_eq!((long.code, long.stderr.as_str()), (Some(0), ""));
    let names: Vec<&str> =
        long.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let expected = ["semantic", "version", "commit", "MLX", "target", "kernels", "CPU", "rustc"];
    assert_eq!(names, expected);
    for line in long.stdout.lines().skip(1) {
        assert!(line.split_whitespace().count() > 1, "{line}");
    }
    for arguments in [["-V", "-v"], ["--verbose", "--version"]] {
        assert_eq!(machine.run(&arguments).stdout, long.stdout);
    }
    // By itself it asks for nothing.
    let alone = machine.run(&["--verbose", "models"]);
    assert_eq!((alone.code, alone.stdout.as_str()), (Some(64), ""));
    assert!(alone.stderr.contains("--version"), "{alone:?}");
}

/// The unit names places in the folder that is given to others.
#[test]
fn a_release_has_what_the_unit_names() {
    let script = include_str!("../../.ci/release");
    let unit = include_str!("../../docs/deploy/semantic.service");
    assert!(unit.contains("ExecStart=/opt/semantic/bin/semantic serve\n"));
    assert!(script.contains("install -m 755 \"$built/semantic\" \"$folder/bin/semantic\"\n"));
    assert!(unit.contains("MLX's libraries in /opt/semantic/lib/semantic.\n"));
    assert!(script.contains("install -m 644 \"$mlx\"/* \"$folder/lib/semantic\"\n"));
    let documents = "Documentation=file:///opt/semantic/share/doc/semantic/";
    assert!(script.contains("documents=$folder/share/doc/semantic\n"));
    let copied = script.lines().find_map(|line| line.strip_prefix("cp -R ")).expect("documents");
    let mut count = 0;
    for path in unit.lines().filter_map(|line| line.strip_prefix(documents)) {
        let top = path.split('/').next().expect("a name");
        assert!(copied.split(' ').any(|name| name == top), "{path}");
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).is_file(), "{path}");
        count += 1;
    }
    assert_eq!(count, 2);
}

/// What becomes of the unit in the package leads to files that the package has.
#[test]
fn a_package_has_what_its_unit_names() {
    let script = include_str!("../../.ci/debian/build");
    let edit = script.split_once("sed '").and_then(|(_, rest)| rest.split_once("' \\\n"));
    let (edit, rest) = edit.expect("the unit is edited");
    assert!(rest.trim_start().starts_with("docs/deploy/semantic.service >"), "{rest}");
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy/semantic.service");
    let edited = Command::new("sed").arg(edit).arg(unit).output().expect("sed runs");
    let unit = String::from_utf8(edited.stdout).expect("text");
    assert!(unit.starts_with("[Unit]\n"), "{unit}");
    for line in [
        "ExecStart=/usr/bin/semantic serve",
        "Environment=SEMANTIC_CONFIG=/etc/semantic/config.toml",
        "Environment=SEMANTIC_DATA_DIR=/var/lib/semantic",
        "User=semantic",
        "Documentation=file:///usr/share/doc/semantic/README.md",
    ] {
        assert_eq!(unit.lines().filter(|other| *other == line).count(), 1, "{line}: {unit}");
    }
    assert!(!unit.contains("/opt/") && !unit.contains("DynamicUser"), "{unit}");
    for copied in [
        "cp -R \"$folder\"/{bin,share} \"$package/usr\"\n",
        "cp -R \"$folder/lib/semantic\" \"$package/usr/lib\"\n",
        "install -m 644 config.example.toml \"$package/etc/semantic/config.toml\"\n",
    ] {
        assert!(script.contains(copied), "{copied}");
    }
}

/// As dpkg calls them, with another root than the machine's.
#[test]
fn only_purging_the_package_removes_what_agents_remember() {
    let root = tempfile::tempdir().expect("a folder");
    let folders = ["var/lib/semantic", "var/cache/semantic"].map(|name| root.path().join(name));
    for folder in &folders {
        fs::create_dir_all(folder).expect("a folder");
        fs::write(folder.join("kept"), "what was said").expect("a file");
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/debian");
    let run = |action: &str| {
        let mut command = Command::new("sh");
        command.arg(scripts.join("postrm")).arg(action).env("DPKG_ROOT", root.path());
        let ran = Ran::of(command.output().expect("sh runs"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{action}: {ran:?}");
        (ran.stdout, folders.each_ref().map(|folder| folder.join("kept").is_file()))
    };
    for action in ["remove", "upgrade", "failed-upgrade", "abort-install", "disappear"] {
        let (said, are_there) = run(action);
        assert_eq!(are_there, [true; 2], "{action}");
        assert_eq!(said.contains("purging the package removes both"), action == "remove");
    }
    let (said, are_there) = run("purge");
    assert_eq!(are_there, [false; 2]);
    for folder in &folders {
        assert!(!folder.exists());
        assert!(said.contains(&format!("removing {}", folder.display())), "{said}");
    }
    // Nothing else of the machine's.
    assert!(root.path().join("var/lib").is_dir());
    assert_eq!(run("purge").0, "");
    for script in ["postinst", "prerm", "postrm"] {
        let checked = Command::new("sh").arg("-n").arg(scripts.join(script)).status();
        assert!(checked.expect("sh runs").success(), "{script}");
    }
}
