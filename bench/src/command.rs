//! Finds the command `switchboard`: `$SWITCHBOARD_BIN`, or what a release build of it gives.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Failure;

/// The command's path, after building it if need be.
pub(crate) fn switchboard() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os("SWITCHBOARD_BIN") {
        return Ok(path.into());
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    eprintln!("building the command in {root}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--bin", "switchboard"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo build --release in {root} failed: {}", output.status).into());
    }
    String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .ok_or_else(|| "cargo built no command".into())
}
