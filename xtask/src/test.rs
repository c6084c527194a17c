//! `cargo xtask test`: prepares this machine, builds once, runs every check, and looks at what is
//! left behind.
//!
//! Test executables run one after another, so that they share this machine's small limits on queues;
//! the tests in each run in parallel.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::executables::{self, Built, Executable};
use crate::kills::Total;
use crate::ordinary_user::OrdinaryUser;
use crate::stage::{Place, Programs, Stage};
use crate::tally::Tally;
use crate::tidy::{self, Tree};
use crate::workspace::Workspace;
use crate::{bounded, leftovers, libtest, prepare, show};

/// After this long, a test executable hangs.
const EXECUTABLE_LIMIT: Duration = Duration::from_secs(600);

/// How `cargo xtask test` was called.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Install nothing.
    pub(crate) no_install: bool,
    /// Only tests whose names contain it.
    pub(crate) filter: Option<String>,
}

/// Runs everything.
pub(crate) fn run(workspace: &Workspace, options: &Options, tally: &mut Tally) {
    let started = Instant::now();
    let python = prepare::prepare(workspace, !options.no_install);
    let tree = match Tree::read(&workspace.root) {
        Ok(tree) => tree,
        Err(error) => return tally.fail("reading the files", &error.to_string()),
    };
    if options.filter.is_none() {
        tidy_at_once(&tree, tally);
    }
    show::step("Building the workspace and its tests");
    let built = match executables::build(workspace) {
        Ok(built) => built,
        Err(why) => return tally.fail("build", &why),
    };
    show::good(&format!("{} test executables after {} s", built.tests.len(), seconds(started)));
    if let Err(error) = in_stage(workspace, options, &tree, &built, python.as_deref(), tally) {
        tally.fail("setting up", &error.to_string());
    }
    println!("\nTook {} s.", seconds(started));
}

fn in_stage(
    workspace: &Workspace,
    options: &Options,
    tree: &Tree,
    built: &Built,
    python: Option<&Path>,
    tally: &mut Tally,
) -> std::io::Result<()> {
    let mut stage = Stage::new()?;
    let place = stage.place("o")?;
    let programs = Programs {
        command: built.command.clone(),
        examples: built
            .examples
            .first()
            .and_then(|example| example.parent())
            .map(Path::to_path_buf),
        python: python.map(Path::to_path_buf),
    };
    let before = leftovers::things(&stage);
    let (filter, kills) = (options.filter.as_deref(), Total::default());
    let mut runner = Runner { stage: &mut stage, tally, filter, kills };

    let root = rustix::process::geteuid().is_root();
    let who = if root { "root" } else { "an ordinary user" };
    let is_twice = root && prepare::find_program("setpriv").is_some();
    // Of all tests, two users' runs divide the longest series of kills: `switchboard_testkit::share`.
    let is_divided = is_twice && options.filter.is_none();
    let share = |part: &str| is_divided.then(|| ("SWITCHBOARD_SHARE", format!("{part}/2")));
    show::step(&format!("Running as {who}"));
    for test in &built.tests {
        let mut command = as_this_user(workspace, runner.stage, &place, &programs, test);
        command.envs(share("0"));
        runner.run(&mut command, test, who);
    }
    if !root {
        runner.tally.skip("root run: not root".to_owned());
    } else if !is_twice {
        runner.tally.skip("ordinary user's run: no setpriv (package util-linux)".to_owned());
    } else {
        let user = OrdinaryUser::new(runner.stage, built, tree, &workspace.root, python)?;
        show::step(&format!("Running as {}", user.name()));
        // Models ask the system for nothing, so they are the same for everybody.
        for test in built.tests.iter().filter(|test| !test.is_models()) {
            let mut command = user.command(runner.stage, test);
            command.envs(share("1"));
            runner.run(&mut command, test, user.name());
        }
    }
    if !runner.kills.is_empty() {
        show::note(&format!("killstep: {}", runner.kills));
    }
    if let Some(filter) = &options.filter
        && runner.tally.is_empty()
    {
        runner.tally.fail("the filter", &format!("no test that ran has `{filter}` in its name"));
    }
    if options.filter.is_none() {
        show::step("Running the documentation's examples");
        let mut command = workspace.cargo();
        command.args(["test", "--doc", "--workspace", "--all-features"]);
        set_environment(&mut command, runner.stage, &place, &programs);
        documentation(&mut command, runner.tally);
    }
    show::step("Looking for what was left behind");
    nothing_left(&before, &stage, tally);
    Ok(())
}

/// The house rules, counted as one check.
fn tidy_at_once(tree: &Tree, tally: &mut Tally) {
    show::step("Checking the house rules");
    let findings: Vec<String> = tidy::TABLE
        .iter()
        .flat_map(|check| (check.find)(tree))
        .map(|finding| finding.to_string())
        .collect();
    tidy_notes(tree);
    if findings.is_empty() {
        tally.pass(&format!("tidy: {} rules", tidy::TABLE.len()));
    } else {
        tally.fail("tidy", &findings.join("\n"));
    }
}

/// The house rules, each counted.
pub(crate) fn tidy_each(tree: &Tree, tally: &mut Tally) {
    for check in tidy::TABLE {
        let findings: Vec<String> = (check.find)(tree).iter().map(ToString::to_string).collect();
        if findings.is_empty() {
            tally.pass(check.name);
        } else {
            tally.fail(check.name, &findings.join("\n"));
        }
    }
    tidy_notes(tree);
}

fn tidy_notes(tree: &Tree) {
    for note in tidy::notes(tree) {
        show::note(&note.to_string());
    }
}

pub(crate) fn as_this_user(
    workspace: &Workspace,
    stage: &Stage,
    place: &Place,
    programs: &Programs,
    test: &Executable,
) -> Command {
    let folder = workspace.root.join(&test.folder);
    // Interrupting this program ends the test too, although it is in a process group of its own.
    let mut command = if prepare::find_program("setpriv").is_some() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig=KILL", "--"]).arg(&test.path);
        command
    } else {
        Command::new(&test.path)
    };
    set_environment(&mut command, stage, place, programs);
    command.env("CARGO_MANIFEST_DIR", &folder).current_dir(folder);
    command
}

fn set_environment(command: &mut Command, stage: &Stage, place: &Place, programs: &Programs) {
    for (name, value) in stage.environment(place, programs) {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// Runs test executables and counts their results.
struct Runner<'a> {
    stage: &'a mut Stage,
    tally: &'a mut Tally,
    filter: Option<&'a str>,
    /// What the kill harness did.
    kills: Total,
}

impl Runner<'_> {
    fn run(&mut self, command: &mut Command, test: &Executable, who: &str) {
        command.args(self.filter);
        let what = format!("{} as {who}", test.name);
        let outcome = match bounded::run(command, EXECUTABLE_LIMIT) {
            Ok(outcome) => outcome,
            Err(error) => return self.tally.fail(&what, &format!("{command:?}: {error}")),
        };
        let skips = self.stage.new_skips();
        let mut report = libtest::read(&outcome.output).unwrap_or_default();
        libtest::without_skipped(&mut report, &outcome.output, &skips);
        if !outcome.success() {
            report.failed = report.failed.max(1);
        }
        let time = format!("{:.1} s", outcome.elapsed.as_secs_f64());
        let skipped = skips.len() + report.ignored.len();
        let counts =
            format!("{} passed, {} failed, {skipped} skipped", report.passed, report.failed);
        if report.failed > 0 {
            show::bad(&format!("{what}: {counts}, {time}: {}", outcome.ending()));
            println!("{}", outcome.output.trim_end());
        } else if report.passed + skipped > 0 {
            show::good(&format!("{}: {counts}, {time}", test.name));
        }
        for kills in self.stage.new_kills().iter().filter(|kills| kills.is_result()) {
            show::detail(&kills.text);
            self.kills.add(kills);
        }
        self.tally.add(report.passed, report.failed, &what);
        for skip in skips.into_iter().chain(report.ignored) {
            self.tally.skip(format!("{} as {who}: {skip}", test.name));
        }
    }
}

/// Counted as one check; an example that is not compiled counts as skipped.
fn documentation(command: &mut Command, tally: &mut Tally) {
    const WHAT: &str = "the documentation's examples";
    match bounded::run(command, EXECUTABLE_LIMIT) {
        Err(error) => tally.fail(WHAT, &error.to_string()),
        Ok(outcome) if !outcome.success() => {
            tally.fail(WHAT, &format!("{}\n{}", outcome.output, outcome.ending()));
        }
        Ok(outcome) => {
            let time = outcome.elapsed.as_secs_f64();
            tally.pass(&format!("{WHAT}: {}, {time:.1} s", libtest::total_passed(&outcome.output)));
            for ignored in libtest::ignored(&outcome.output) {
                tally.skip(format!("{ignored} (mark it `text` if it is no Rust)"));
            }
        }
    }
}

/// Looks, counted as one check.
pub(crate) fn nothing_left(before: &leftovers::Things, stage: &Stage, tally: &mut Tally) {
    const WHAT: &str = "nothing left behind";
    let left = leftovers::since(before, stage, leftovers::GRACE);
    leftovers::end_processes(stage);
    if let Some(blind_spot) = leftovers::blind_spot(stage) {
        show::note(blind_spot);
    }
    if left.is_empty() {
        tally.pass(WHAT);
    } else {
        let left: Vec<String> = left.into_iter().collect();
        tally.fail(WHAT, &format!("new since the tests began:\n{}", left.join("\n")));
    }
}

fn seconds(since: Instant) -> u64 {
    since.elapsed().as_secs()
}
