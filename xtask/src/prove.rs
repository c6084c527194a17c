//! `cargo xtask prove`: what takes longer than `cargo xtask test`. Here `prove kill`: every test of the kill harness, at every boundary.
//!
//! The tests are those that have `killstep` in their names. `cargo xtask test` runs them too, with a
//! victim for each boundary where the world may have changed.

pub(crate) mod models;
pub(crate) mod tsan;

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::executables::{self, Executable};
use crate::kills::Total;
use crate::stage::{Programs, Stage};
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{bounded, libtest, show, test};

/// What the tests are called.
const NAMES: &str = "killstep";

/// After this long, a test executable hangs.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// How often it is looked for something new to show.
const TICK: Duration = Duration::from_secs(1);

/// How `cargo xtask prove kill` was called.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Optimised code.
    pub(crate) release: bool,
    /// Only tests whose names contain it.
    pub(crate) filter: Option<String>,
}

/// Runs everything.
pub(crate) fn run(workspace: &Workspace, options: &Options, tally: &mut Tally) {
    let started = Instant::now();
    show::step("Building the tests");
    let executables = match executables::build_tests(workspace, options.release) {
        Ok(executables) => executables,
        Err(why) => return tally.fail("build", &why),
    };
    show::step("Killing at every boundary");
    let mut total = Total::default();
    for executable in &executables {
        if let Err(error) = prove(workspace, options, executable, &mut total, tally) {
            tally.fail(&executable.name, &error.to_string());
        }
    }
    if total.is_empty() && !tally.has_skipped() {
        tally.fail("prove kill", "nobody was killed");
    }
    println!("\n{total}, in {} s.", started.elapsed().as_secs());
}

fn prove(
    workspace: &Workspace,
    options: &Options,
    executable: &Executable,
    total: &mut Total,
    tally: &mut Tally,
) -> std::io::Result<()> {
    let tests = tests_of(executable, options.filter.as_deref())?;
    if tests.is_empty() {
        return Ok(());
    }
    let mut stage = Stage::new()?;
    let place = stage.place("o")?;
    let programs = Programs::default();
    let mut command = test::as_this_user(workspace, &stage, &place, &programs, executable);
    command.env("SWITCHBOARD_KILLSTEP", "every").arg("--exact").args(tests);
    let running = thread::spawn(move || bounded::run(&mut command, LIMIT));
    loop {
        let is_finished = running.is_finished();
        for kills in stage.new_kills() {
            show::detail(&kills.text);
            total.add(&kills);
        }
        if is_finished {
            break;
        }
        thread::sleep(TICK);
    }
    let outcome = running.join().map_err(|_| std::io::Error::other("the run panicked"))??;
    let mut report = libtest::read(&outcome.output).unwrap_or_default();
    let skips = stage.new_skips();
    libtest::without_skipped(&mut report, &outcome.output, &skips);
    for skip in skips {
        tally.skip(format!("{}: {skip}", executable.name));
    }
    let failed = report.failed.max(usize::from(!outcome.success()));
    let counts = format!("{}: {} passed, {failed} failed", executable.name, report.passed);
    if failed > 0 {
        show::bad(&format!("{counts}: {}", outcome.ending()));
        println!("{}", outcome.output.trim_end());
    } else {
        show::good(&counts);
    }
    tally.add(report.passed, failed, &executable.name);
    Ok(())
}

/// The names of the tests to run.
fn tests_of(executable: &Executable, filter: Option<&str>) -> std::io::Result<Vec<String>> {
    let mut command = Command::new(&executable.path);
    let listed = command.args(["--list", "--format=terse"]).stdin(Stdio::null()).output()?;
    Ok(chosen(&String::from_utf8_lossy(&listed.stdout), filter))
}

fn chosen(list: &str, filter: Option<&str>) -> Vec<String> {
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    names
        .filter(|name| name.contains(NAMES) && filter.is_none_or(|filter| name.contains(filter)))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_of_the_harness_are_chosen() {
        let list = "killstep::toy::passes: test\nkillstep::mutex::lock: test\nfifo::order: test\n";
        assert_eq!(chosen(list, None), ["killstep::toy::passes", "killstep::mutex::lock"]);
        assert_eq!(chosen(list, Some("mutex")), ["killstep::mutex::lock"]);
        assert!(chosen(list, Some("fifo")).is_empty());
    }
}
