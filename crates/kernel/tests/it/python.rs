//! A Python interpreter, as a peer that shares no code with this crate.

use std::process::Command;

/// Runs a program with an interpreter that has this module: the one that `SWITCHBOARD_PYTHON`
/// names, or `python3`. Its output, or `None` after noting that the test was skipped.
pub(crate) fn run(test: &str, module: &str, program: &str, arguments: &[&str]) -> Option<String> {
    let interpreter = std::env::var("SWITCHBOARD_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_module = Command::new(&interpreter).args(["-c", &format!("import {module}")]).output();
    if !has_module.is_ok_and(|output| output.status.success()) {
        switchboard_testkit::skip::skip(test, &format!("{interpreter} has no module {module}"));
        return None;
    }
    let output = Command::new(&interpreter)
        .args(["-c", program])
        .args(arguments)
        .output()
        .expect("an interpreter that ran before");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text").trim().to_owned())
}
