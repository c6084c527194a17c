//! A Python interpreter, as a peer that shares no code with this crate.

mod ends;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Command;

use switchboard_kernel::unix_socket as unix;
use switchboard_testkit::Child;

use crate::hand_over;

pub(crate) use ends::{Death, both, check};

/// What every program finds defined: how to talk to the test, descriptors, system calls.
const PRELUDE: &str = include_str!("peer.py");

/// Runs a program with an interpreter that has this module: the one that `SWITCHBOARD_PYTHON`
/// names, or `python3`. Its output, or `None` after noting that the test was skipped.
pub(crate) fn run(test: &str, module: &str, program: &str, arguments: &[&str]) -> Option<String> {
    let output = command(test, module, program, arguments)?.output().expect("a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text").trim().to_owned())
}

/// Starts a program, as in [`run`]; every line of its output counts as said.
pub(crate) fn start(test: &str, module: &str, program: &str, arguments: &[&str]) -> Option<Child> {
    command(test, module, program, arguments).map(Child::command)
}

/// Starts a program, as in [`start`], with a socket between it and the test.
pub(crate) fn meet(
    test: &str,
    module: &str,
    program: &str,
    arguments: &[&str],
) -> Option<(Child, OwnedFd)> {
    let mut command = command(test, module, program, &[])?;
    Some(hand_over::meet(|path| {
        command.arg(path).args(arguments);
        Child::command(command)
    }))
}

/// Starts a program, as in [`start`], and gives it copies of descriptors.
pub(crate) fn start_with(
    test: &str,
    module: &str,
    program: &str,
    fds: &[BorrowedFd<'_>],
) -> Option<Child> {
    let (child, connection) = meet(test, module, &format!("fds = take(meet())\n{program}"), &[])?;
    unix::send_with_fds(&connection, b"descriptors", fds).expect("descriptors sent");
    hand_over::ready(&connection);
    Some(child)
}

/// The command that runs a program, as in [`run`].
pub(crate) fn command(
    test: &str,
    module: &str,
    program: &str,
    arguments: &[&str],
) -> Option<Command> {
    let interpreter = std::env::var("SWITCHBOARD_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_module = Command::new(&interpreter).args(["-c", &format!("import {module}")]).output();
    if !has_module.is_ok_and(|output| output.status.success()) {
        switchboard_testkit::skip::skip(test, &format!("{interpreter} has no module {module}"));
        return None;
    }
    let mut command = Command::new(interpreter);
    command.args(["-c", &format!("{PRELUDE}\n{program}")]).args(arguments);
    Some(command)
}
