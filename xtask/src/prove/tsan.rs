//! `cargo xtask prove tsan`: the tests of races, under ThreadSanitizer.
//!
//! Source: the Rust unstable book, "sanitizer"; `-Zsanitizer=thread` on a stable toolchain, which has the
//! runtime, by `RUSTC_BOOTSTRAP=1`.
//!
//! The standard library is not instrumented, so the sanitizer knows neither its objects nor their order. The
//! tests use only its threads, whose start and end it sees; what the test harness does for itself is left
//! out. It takes the C library's mutexes for what they are, also those of the dead.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::bounded::{self, Outcome};
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{libtest, show};

/// The tests.
const NAMES: &str = "sync::races::";

/// What makes one of them forget to lock.
const FORGET: (&str, &str) = ("SWITCHBOARD_FORGET_TO_LOCK", "1");
const FORGETFUL: &str = "sync::races::mutex";

const TARGET: &str = "x86_64-unknown-linux-gnu";

const LIMIT: Duration = Duration::from_secs(1800);

/// Parts of the harness that hand results from thread to thread.
const OF_THE_HARNESS: &[&str] = &["std::sync::mpmc::*", "test::run_test*", "test::run_tests*"];

/// How often everything is run: threads meet anew each time.
const TIMES: usize = 10;

/// Runs everything.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) {
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        return tally.skip(format!("prove tsan: only for {TARGET}"));
    }
    let suppressions = match suppressions(workspace) {
        Ok(path) => path,
        Err(error) => return tally.fail("prove tsan", &error.to_string()),
    };
    let cargo = |arguments: &[&str]| {
        let mut command = tests(workspace, &suppressions);
        command.args(arguments);
        command
    };
    show::step("Building the tests with the sanitizer");
    match bounded::run(&mut cargo(&["--no-run"]), LIMIT) {
        Ok(outcome) if outcome.success() => {}
        Ok(outcome) => return tally.fail("build", &outcome.output),
        Err(error) => return tally.fail("build", &error.to_string()),
    }
    show::step(&format!("Running them, {TIMES} times"));
    for time in 1..=TIMES {
        let what = format!("run {time}");
        match bounded::run(&mut cargo(&["--", "--test-threads=1", NAMES]), LIMIT) {
            Ok(outcome) => count(&what, &outcome, tally),
            Err(error) => tally.fail(&what, &error.to_string()),
        }
    }
    show::step("Running one that forgets to lock");
    let mut forgetful = cargo(&["--", "--test-threads=1", "--exact", FORGETFUL]);
    forgetful.env(FORGET.0, FORGET.1);
    match bounded::run(&mut forgetful, LIMIT) {
        Ok(outcome) if is_noticed(&outcome) => tally.pass("the race was noticed"),
        Ok(outcome) => tally.fail("a race", &format!("nobody noticed:\n{}", outcome.output)),
        Err(error) => tally.fail("a race", &error.to_string()),
    }
}

const REPORT: &str = "WARNING: ThreadSanitizer";

fn is_noticed(outcome: &Outcome) -> bool {
    !outcome.success()
        && outcome.output.contains(&format!("{REPORT}: data race"))
        && outcome.output.contains("races::Plain")
}

fn count(what: &str, outcome: &Outcome, tally: &mut Tally) {
    let passed = libtest::total_passed(&outcome.output);
    if outcome.success() && passed > 0 && !outcome.output.contains(REPORT) {
        tally.pass(&format!("{what}: {passed} tests"));
    } else {
        tally.fail(what, &format!("{}\n{}", outcome.output, outcome.ending()));
    }
}

fn tests(workspace: &Workspace, suppressions: &str) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--package", "switchboard-kernel", "--test", "it", "--target", TARGET]);
    cargo.env("CARGO_TARGET_DIR", workspace.target.join("tsan"));
    cargo.env("RUSTC_BOOTSTRAP", "1");
    let flags = "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer";
    cargo.env("RUSTFLAGS", flags);
    cargo.env("TSAN_OPTIONS", format!("suppressions={suppressions}"));
    cargo
}

fn suppressions(workspace: &Workspace) -> std::io::Result<String> {
    let folder = workspace.target.join("tsan");
    fs::create_dir_all(&folder)?;
    let path = folder.join("suppressions");
    let mut text = String::new();
    for function in OF_THE_HARNESS {
        let _ = writeln!(text, "race:{function}");
    }
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}
