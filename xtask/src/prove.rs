//! `cargo xtask prove`: what `cargo xtask test` does in short, at full length.
//!
//! | | the tests with this in their names | in short |
//! |---|---|---|
//! | `prove kill` | `killstep`: a victim for each instruction boundary | for each where the world may have changed |
//! | `prove torture` | `torture`: processes that are killed at random, for minutes | for seconds |
//! | `prove hostile` | `hostile`: peers that lie in each way; at random, for a minute each | for a second |
//! | `prove fuzz-inspect` | `fuzz_inspect`: every parser of the inspector on text made at random, for a minute each, as many at once as there are processors | for seconds |
//! | `prove event` | `proof_event`: two processes that wake each other, for a minute | for a second |
//! | `prove clean` | `proof_clean`: rounds in which `clean` runs against processes at random, 1,000 of them | 12 rounds |
//! | `prove state` | `proof_state`: reads of what is set all the time, for a minute | for a second |
//! | `prove top` | `proof_top`: what the live view costs, in ten minutes | in ten seconds |
//!
//! [`asan`], [`models`] and [`tsan`] have ways of their own.

pub(crate) mod asan;
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
use crate::{bounded, leftovers, libtest, show, test};

/// After this long, a test executable hangs.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// How often it is looked for something new to show.
const TICK: Duration = Duration::from_secs(1);

/// What to prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum What {
    /// That a death at any instruction hinders nobody.
    #[default]
    Kill,
    /// That deaths at random do not, for so long.
    Torture { seconds: u32 },
    /// That lies of peers do not, at random for so long each.
    Hostile { seconds: u32 },
    /// That no text hurts the inspector, made at random for so long each parser, or all of them together.
    FuzzInspect { seconds: u32, together: bool },
    /// That no wake-up of an event is lost, in so long.
    Event { seconds: u32 },
    /// That no value of a state is torn, in so long.
    State { seconds: u32 },
    /// That the live view costs little and does not grow, in so long.
    Top { seconds: u32 },
    /// That nothing in use is removed, in so many rounds.
    Clean { rounds: u32 },
}

impl What {
    /// What its tests are called.
    fn names(self) -> &'static str {
        match self {
            Self::Kill => "killstep",
            Self::Torture { .. } => "torture",
            Self::Hostile { .. } => "hostile",
            Self::FuzzInspect { .. } => "fuzz_inspect",
            Self::Event { .. } => "proof_event",
            Self::State { .. } => "proof_state",
            Self::Top { .. } => "proof_top",
            Self::Clean { .. } => "proof_clean",
        }
    }

    /// What asks the tests for it.
    fn environment(self) -> (&'static str, String) {
        match self {
            Self::Kill => ("SWITCHBOARD_KILLSTEP", "every".to_owned()),
            Self::Torture { seconds } => ("SWITCHBOARD_TORTURE_SECONDS", seconds.to_string()),
            Self::Hostile { seconds } => ("SWITCHBOARD_HOSTILE_SECONDS", seconds.to_string()),
            Self::Clean { rounds } => ("SWITCHBOARD_CLEAN_ROUNDS", rounds.to_string()),
            Self::FuzzInspect { seconds, together: false } => {
                ("SWITCHBOARD_FUZZ_SECONDS", seconds.to_string())
            }
            Self::FuzzInspect { seconds, together: true } => {
                ("SWITCHBOARD_FUZZ_TOTAL_SECONDS", seconds.to_string())
            }
            Self::Event { seconds } | Self::State { seconds } | Self::Top { seconds } => {
                ("SWITCHBOARD_PROOF_SECONDS", seconds.to_string())
            }
        }
    }
}

/// How `cargo xtask prove` was called.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) what: What,
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
    show::step(match options.what {
        What::Kill => "Killing at every boundary",
        What::Torture { .. } => "Killing at random",
        What::Hostile { .. } => "Lying",
        What::FuzzInspect { .. } => "Reading what nobody meant",
        What::Event { .. } => "Waking each other",
        What::State { .. } => "Reading while it is written",
        What::Top { .. } => "Watching",
        What::Clean { .. } => "Cleaning while it is used",
    });
    let mut total = Total::default();
    for executable in &executables {
        if let Err(error) = prove(workspace, options, executable, &mut total, tally) {
            tally.fail(&executable.name, &error.to_string());
        }
    }
    let seconds = started.elapsed().as_secs();
    match options.what {
        What::Kill if total.is_empty() && !tally.has_skipped() => {
            tally.fail("prove kill", "nobody was killed");
        }
        What::Torture { .. }
        | What::FuzzInspect { .. }
        | What::Event { .. }
        | What::State { .. }
        | What::Top { .. }
        | What::Clean { .. }
            if tally.is_empty() && !tally.has_skipped() =>
        {
            tally.fail("prove", "there is no such test");
        }
        What::Kill => println!("\n{total}, in {seconds} s."),
        _ => println!("\nTook {seconds} s."),
    }
}

fn prove(
    workspace: &Workspace,
    options: &Options,
    executable: &Executable,
    total: &mut Total,
    tally: &mut Tally,
) -> std::io::Result<()> {
    let tests = tests_of(executable, options)?;
    if tests.is_empty() {
        return Ok(());
    }
    let mut stage = Stage::new()?;
    let place = stage.place("o")?;
    let programs = Programs::default();
    let before = leftovers::things(&stage);
    let mut command = test::as_this_user(workspace, &stage, &place, &programs, executable);
    let (variable, value) = options.what.environment();
    command.env(variable, value).arg("--exact").args(tests);
    if !matches!(options.what, What::Kill | What::Hostile { .. }) {
        // Each has the machine for itself: what they measure is time.
        command.arg("--test-threads=1");
    }
    if matches!(options.what, What::FuzzInspect { .. } | What::Top { .. } | What::Clean { .. }) {
        command.arg("--nocapture");
    }
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
        if matches!(options.what, What::Event { .. } | What::State { .. } | What::Top { .. }) {
            // What they counted.
            println!("{}", outcome.output.trim_end());
        }
    }
    if matches!(options.what, What::FuzzInspect { .. }) {
        // How many texts each parser read.
        outcome.output.lines().filter(|line| line.contains(" texts, ")).for_each(show::detail);
    }
    if matches!(options.what, What::Clean { .. }) {
        // The seed, and what was counted.
        let counted =
            |line: &&str| line.contains("SWITCHBOARD_CLEAN_SEED") || line.contains(" removed");
        outcome.output.lines().filter(counted).for_each(show::detail);
    }
    tally.add(report.passed, failed, &executable.name);
    // What reads makes nothing.
    if !matches!(options.what, What::Kill | What::FuzzInspect { .. }) {
        test::nothing_left(&before, &stage, tally);
    }
    Ok(())
}

/// The names of the tests to run.
fn tests_of(executable: &Executable, options: &Options) -> std::io::Result<Vec<String>> {
    let mut command = Command::new(&executable.path);
    let listed = command.args(["--list", "--format=terse"]).stdin(Stdio::null()).output()?;
    let list = String::from_utf8_lossy(&listed.stdout);
    Ok(chosen(&list, options.what, options.filter.as_deref()))
}

fn chosen(list: &str, what: What, filter: Option<&str>) -> Vec<String> {
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    names
        .filter(|name| {
            name.contains(what.names()) && filter.is_none_or(|filter| name.contains(filter))
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_of_the_harness_are_chosen() {
        let list = "killstep::toy::passes: test\nkillstep::mutex::lock: test\nfifo::order: test\n\
                    torture::all: test\nhostile::control::floods: test\n";
        let (kill, torture) = (What::Kill, What::Torture { seconds: 1 });
        assert_eq!(chosen(list, kill, None), ["killstep::toy::passes", "killstep::mutex::lock"]);
        assert_eq!(chosen(list, kill, Some("mutex")), ["killstep::mutex::lock"]);
        assert!(chosen(list, kill, Some("fifo")).is_empty());
        assert_eq!(chosen(list, torture, None), ["torture::all"]);
        let hostile = What::Hostile { seconds: 1 };
        assert_eq!(chosen(list, hostile, None), ["hostile::control::floods"]);
        assert!(chosen(list, torture, Some("shm")).is_empty());
    }
}
