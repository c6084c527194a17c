//! `cargo xtask prove asan`: peers that lie, and all that queues and topics promise, under AddressSanitizer.
//!
//! Source: the Rust unstable book, "sanitizer"; `-Zsanitizer=address` on a stable toolchain, which has the
//! runtime, by `RUSTC_BOOTSTRAP=1`.
//!
//! The sanitizer knows the heap, the stack and what is not mapped; the words of shared memory themselves it
//! knows only as mapped. A process of a test that it ends says so on the standard error of all.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::bounded::{self, Outcome};
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{libtest, show};

/// Tests to run: of which package, which executable, with what in their names, and without what.
const RUNS: &[(&str, &[&str], &str, &[&str])] = &[
    ("switchboard-shm", &["--test", "ring"], "", &[]),
    // A tracer is nothing for a process that is watched already.
    ("switchboard", &["--lib"], "transport::shm::", &["killstep"]),
    ("switchboard", &["--test", "it"], "conformance::", &[]),
    ("switchboard", &["--test", "it"], "loans::", &[]),
];

/// What reads beyond its memory when it is asked to.
const MISTAKE: (&str, &[&str]) = ("switchboard-shm", &["--test", "beyond"]);
const READ_ON: (&str, &str) = ("SWITCHBOARD_READ_ON", "1");

const TARGET: &str = "x86_64-unknown-linux-gnu";

const LIMIT: Duration = Duration::from_secs(1800);

/// What was freed is kept for a while, to be noticed when it is used; not much of it, since tests look how much
/// memory a process takes.
const OPTIONS: &str = "quarantine_size_mb=1:thread_local_quarantine_size_kb=64";

/// Memory that is kept on purpose for as long as the process lives.
const KEPT: &str = "leak:switchboard_kernel::mmap::guard::install\n";

/// Runs everything.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) {
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        return tally.skip(format!("prove asan: only for {TARGET}"));
    }
    let suppressions = match suppressions(workspace) {
        Ok(path) => path,
        Err(error) => return tally.fail("prove asan", &error.to_string()),
    };
    let cargo = |package: &str, executable: &[&str]| {
        let mut command = tests(workspace, package, &suppressions);
        command.args(executable);
        command
    };
    for (package, executable, filter, skipped) in RUNS {
        let what = format!("{package} {} {filter}", executable.join(" ")).trim_end().to_owned();
        show::step(&format!("Running {what} with the sanitizer"));
        let mut command = cargo(package, executable);
        command.arg("--").args((!filter.is_empty()).then_some(filter));
        command.args(skipped.iter().flat_map(|name| ["--skip", name]));
        match bounded::run(&mut command, LIMIT) {
            Ok(outcome) => count(&what, &outcome, tally),
            Err(error) => tally.fail(&what, &error.to_string()),
        }
    }
    show::step("Running one that reads beyond its memory");
    let mut mistaken = cargo(MISTAKE.0, MISTAKE.1);
    mistaken.env(READ_ON.0, READ_ON.1);
    match bounded::run(&mut mistaken, LIMIT) {
        Ok(outcome) if is_noticed(&outcome) => tally.pass("the mistake was noticed"),
        Ok(outcome) => tally.fail("a mistake", &format!("nobody noticed:\n{}", outcome.output)),
        Err(error) => tally.fail("a mistake", &error.to_string()),
    }
}

/// In the report of any process.
const REPORTS: &[&str] = &["ERROR: AddressSanitizer", "ERROR: LeakSanitizer"];

fn is_noticed(outcome: &Outcome) -> bool {
    !outcome.success() && outcome.output.contains("AddressSanitizer: heap-buffer-overflow")
}

fn count(what: &str, outcome: &Outcome, tally: &mut Tally) {
    let passed = libtest::total_passed(&outcome.output);
    let is_silent = REPORTS.iter().all(|report| !outcome.output.contains(report));
    if outcome.success() && passed > 0 && is_silent {
        tally.pass(&format!("{what}: {passed} tests, {:.0} s", outcome.elapsed.as_secs_f64()));
    } else {
        tally.fail(what, &format!("{}\n{}", outcome.output, outcome.ending()));
    }
}

fn tests(workspace: &Workspace, package: &str, suppressions: &str) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--package", package, "--target", TARGET]);
    cargo.env("CARGO_TARGET_DIR", workspace.target.join("asan"));
    cargo.env("RUSTC_BOOTSTRAP", "1");
    let flags = "-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer";
    cargo.env("RUSTFLAGS", flags);
    cargo.env("ASAN_OPTIONS", OPTIONS);
    cargo.env("LSAN_OPTIONS", format!("suppressions={suppressions}:print_suppressions=0"));
    cargo
}

fn suppressions(workspace: &Workspace) -> std::io::Result<String> {
    let folder = workspace.target.join("asan");
    fs::create_dir_all(&folder)?;
    let path = folder.join("suppressions");
    fs::write(&path, KEPT)?;
    Ok(path.display().to_string())
}
