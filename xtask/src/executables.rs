//! Builds the workspace with its tests, and finds what came out.
//!
//! Source: the Cargo book, "External tools" (JSON messages).
//!
//! One build gives the test executables, the command that they drive and the examples that they run.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::workspace::Workspace;

/// A test executable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// Its source from the root: `crates/kernel/tests/it/main.rs`.
    pub(crate) name: String,
    /// The file to run.
    pub(crate) path: PathBuf,
    /// Its package's folder from the root; tests run there, as under `cargo test`.
    pub(crate) folder: PathBuf,
}

impl Executable {
    /// Whether these are loom models.
    pub(crate) fn is_models(&self) -> bool {
        self.name.ends_with("/tests/models/main.rs")
    }
}

/// What a build made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Built {
    pub(crate) tests: Vec<Executable>,
    /// The `switchboard` command.
    pub(crate) command: Option<PathBuf>,
    /// The programs of each package's `examples`.
    pub(crate) examples: Vec<PathBuf>,
}

/// Builds; Cargo's own messages go to the terminal as they come.
pub(crate) fn build(workspace: &Workspace) -> Result<Built, String> {
    let tests = ["test", "--workspace", "--all-features", "--no-run"];
    let mut built = artifacts(workspace, &tests)?;
    if built.command.is_none() {
        // Cargo builds a package's commands along with its tests only if it has integration tests.
        let all = ["build", "--workspace", "--all-features"];
        built.command = artifacts(workspace, &all)?.command;
    }
    Ok(built)
}

/// Builds only the `switchboard` command.
pub(crate) fn command(workspace: &Workspace) -> Result<PathBuf, String> {
    let built = artifacts(workspace, &["build", "--package", "switchboard-cli"])?;
    built.command.ok_or_else(|| "cargo built no `switchboard`".to_owned())
}

/// Builds only the test executables, optimised or not.
pub(crate) fn build_tests(workspace: &Workspace, release: bool) -> Result<Vec<Executable>, String> {
    let tests = ["test", "--workspace", "--all-features", "--no-run", "--tests"];
    let release = if release { &["--release"][..] } else { &[] };
    Ok(artifacts(workspace, &[&tests, release].concat())?.tests)
}

fn artifacts(workspace: &Workspace, arguments: &[&str]) -> Result<Built, String> {
    let mut command = workspace.cargo();
    command.args(arguments).arg("--message-format=json-render-diagnostics");
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", arguments.join(" "), output.status));
    }
    Ok(read(&String::from_utf8_lossy(&output.stdout), &workspace.root))
}

fn read(messages: &str, root: &Path) -> Built {
    let mut built = Built::default();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for message in messages.filter(|message| message["reason"] == "compiler-artifact") {
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else { continue };
        let from_root = |name: &Value| {
            let path = PathBuf::from(name.as_str().unwrap_or_default());
            path.strip_prefix(root).map(Path::to_path_buf).unwrap_or(path)
        };
        if message["profile"]["test"] == true {
            let manifest = from_root(&message["manifest_path"]);
            built.tests.push(Executable {
                name: from_root(&message["target"]["src_path"]).display().to_string(),
                path,
                folder: manifest.parent().unwrap_or(Path::new("")).to_path_buf(),
            });
        } else if is_of_kind(&message, "example") {
            built.examples.push(path);
        } else if message["target"]["name"] == "switchboard" && is_of_kind(&message, "bin") {
            built.command = Some(path);
        }
    }
    built.tests.sort_by(|a, b| a.name.cmp(&b.name));
    built
}

fn is_of_kind(message: &Value, kind: &str) -> bool {
    message["target"]["kind"].as_array().is_some_and(|kinds| kinds.contains(&kind.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_executables_in_messages() {
        let messages = r#"
{"reason":"compiler-artifact","manifest_path":"/w/crates/kernel/Cargo.toml","target":{"kind":["test"],"name":"it","src_path":"/w/crates/kernel/tests/it/main.rs"},"profile":{"test":true},"executable":"/t/it-1"}
{"reason":"compiler-artifact","manifest_path":"/w/crates/cli/Cargo.toml","target":{"kind":["bin"],"name":"switchboard","src_path":"/w/crates/cli/src/main.rs"},"profile":{"test":false},"executable":"/t/switchboard"}
{"reason":"compiler-artifact","manifest_path":"/w/crates/kernel/Cargo.toml","target":{"kind":["lib"],"name":"switchboard","src_path":"/w/crates/switchboard/src/lib.rs"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/crates/kernel/Cargo.toml","target":{"kind":["example"],"name":"fifo","src_path":"/w/crates/kernel/examples/fifo.rs"},"profile":{"test":false},"executable":"/t/examples/fifo"}
{"reason":"compiler-artifact","manifest_path":"/w/xtask/Cargo.toml","target":{"kind":["bin"],"name":"xtask","src_path":"/w/xtask/src/main.rs"},"profile":{"test":false},"executable":"/t/xtask"}
not a message
{"reason":"build-finished","success":true}"#;
        let it = Executable {
            name: "crates/kernel/tests/it/main.rs".to_owned(),
            path: "/t/it-1".into(),
            folder: "crates/kernel".into(),
        };
        let expected = Built {
            tests: vec![it],
            command: Some("/t/switchboard".into()),
            examples: vec!["/t/examples/fifo".into()],
        };
        assert_eq!(read(messages, Path::new("/w")), expected);
    }
}
