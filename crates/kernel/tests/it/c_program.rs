//! A C program, as a peer that knows the C library's objects and nothing of this crate.

use std::path::PathBuf;
use std::process::Command;

use switchboard_testkit::{Child, Scratch};

/// A compiled program; gone on drop.
pub(crate) struct CProgram {
    _scratch: Scratch,
    path: PathBuf,
}

/// Compiles a program, or returns `None` after noting that the test was skipped.
pub(crate) fn compile(test: &str, source: &str) -> Option<CProgram> {
    let scratch = Scratch::new();
    let (file, path) = (scratch.join("peer.c"), scratch.join("peer"));
    std::fs::write(&file, source).expect("a source");
    let mut compiler = Command::new("gcc");
    compiler.args(["-std=gnu11", "-O2", "-Wall", "-Werror", "-pthread", "-o"]);
    match compiler.arg(&path).arg(&file).output() {
        Err(error) => {
            switchboard_testkit::skip::skip(test, &format!("gcc: {error}"));
            return None;
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Some(CProgram { _scratch: scratch, path })
}

impl CProgram {
    /// Starts it.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(&self.path);
        command.args(arguments);
        Child::command(command)
    }
}
