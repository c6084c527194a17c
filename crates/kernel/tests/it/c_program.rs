//! A C program, as a peer that shares no code with this crate.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use switchboard_testkit::Scratch;

/// Compiles a program into the folder: its path, or `None` after noting that the test was skipped.
pub(crate) fn compile(test: &str, scratch: &Scratch, source: &str) -> Option<PathBuf> {
    let path = scratch.join("program");
    let compiler = Command::new("gcc")
        .args(["-D_GNU_SOURCE", "-O1", "-Wall", "-Werror", "-pthread", "-x", "c", "-", "-o"])
        .arg(&path)
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
    Some(path)
}
