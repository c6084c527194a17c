//! A C program, as a peer that shares no code with this crate.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use switchboard_testkit::{Child, Scratch};

/// A compiled C program, removed on drop.
pub(crate) struct Program {
    scratch: Scratch,
}

impl Program {
    /// Runs it.
    pub(crate) fn command(&self) -> Command {
        Command::new(self.path())
    }

    /// Starts it; every line of its output counts as said.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command();
        command.args(arguments);
        Child::command(command)
    }

    fn path(&self) -> PathBuf {
        self.scratch.join("program")
    }
}

/// Compiles a program; `None` after noting that the test was skipped.
pub(crate) fn compile(test: &str, source: &str) -> Option<Program> {
    let program = Program { scratch: Scratch::new() };
    let compiler = Command::new("gcc")
        .args(["-D_GNU_SOURCE", "-O1", "-Wall", "-Werror", "-pthread", "-x", "c", "-", "-o"])
        .arg(program.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut compiler) = compiler else {
        switchboard_testkit::skip::skip(test, "no gcc");
        return None;
    };
    let mut input = compiler.stdin.take().expect("piped");
    input.write_all(source.as_bytes()).expect("a compiler that reads");
    drop(input);
    let output = compiler.wait_with_output().expect("its end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}
