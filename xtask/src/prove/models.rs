//! `cargo xtask prove models`: the loom models with wide bounds, and each mistake that they have to notice.
//!
//! A mistake is made in a copy of the workspace, in the file that the models include. The models that are
//! named for it have to fail then, with the narrow bounds of `cargo xtask test`: so they can fail.

mod mistakes;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::tally::Tally;
use crate::tidy::Tree;
use crate::workspace::Workspace;
use crate::{bounded, show};

use mistakes::{Mistake, SUITES, Suite};

/// After this long, a run of all models hangs.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// After this long, the models that should notice a mistake have not.
const MISTAKE_LIMIT: Duration = Duration::from_secs(600);

/// How `cargo xtask prove models` was called.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Only the mistakes.
    pub(crate) mistakes: bool,
    /// Only models whose names contain it.
    pub(crate) filter: Option<String>,
}

/// Runs everything.
pub(crate) fn run(workspace: &Workspace, options: &Options, tally: &mut Tally) {
    let filter = options.filter.as_deref();
    if !options.mistakes {
        SUITES.iter().for_each(|suite| all_bounds(workspace, suite, filter, tally));
    }
    show::step("Making each mistake in a copy, and running the models that have to notice");
    let copy = workspace.target.join("mistakes");
    if let Err(error) = copy_workspace(workspace, &copy) {
        return tally.fail("a copy of the workspace", &error.to_string());
    }
    for suite in SUITES {
        let asked = |one: &&Mistake| filter.is_none_or(|part| one.models.contains(part));
        for mistake in suite.mistakes.iter().filter(asked) {
            let what = format!("{}/{}: {}", suite.sources, mistake.file, mistake.what);
            match is_noticed(workspace, &copy, suite, mistake) {
                Ok(by) => tally.pass(&format!("{what}: noticed by {by}")),
                Err(why) => tally.fail(&what, &why),
            }
        }
    }
}

fn all_bounds(workspace: &Workspace, suite: &Suite, filter: Option<&str>, tally: &mut Tally) {
    show::step(&format!("Running all models of {}", suite.package));
    let mut command = models(workspace.cargo(), suite);
    command.args(["--", "--nocapture", "--test-threads=2"]).args(filter);
    command.env("SWITCHBOARD_MODELS", "all");
    match bounded::run(&mut command, LIMIT) {
        Err(error) => tally.fail("the models", &error.to_string()),
        Ok(outcome) if !outcome.success() => {
            tally.fail("the models", &format!("{}\n{}", outcome.output, outcome.ending()));
        }
        Ok(outcome) => {
            for line in outcome.output.lines().filter(|line| line.contains(" runs, ")) {
                tally.pass(line);
            }
        }
    }
}

/// The models that noticed, or why that is not known.
fn is_noticed(
    workspace: &Workspace,
    copy: &Path,
    suite: &Suite,
    mistake: &Mistake,
) -> Result<String, String> {
    let path = copy.join(suite.sources).join(mistake.file);
    let right = fs::read_to_string(workspace.root.join(suite.sources).join(mistake.file))
        .map_err(|error| format!("{}: {error}", mistake.file))?;
    if right.matches(mistake.right).count() != 1 {
        return Err(format!("the file has not, or more than once:\n{}", mistake.right));
    }
    let write = |text: &str| fs::write(&path, text).map_err(|error| error.to_string());
    write(&right.replace(mistake.right, mistake.wrong))?;
    let found = failures(workspace, copy, suite, mistake.models);
    write(&right)?;
    let failed = found?;
    if failed.is_empty() { Err("nobody noticed".to_owned()) } else { Ok(failed.join(", ")) }
}

fn failures(
    workspace: &Workspace,
    copy: &Path,
    suite: &Suite,
    filter: &str,
) -> Result<Vec<String>, String> {
    let run = |last: &[&str]| {
        let mut command = models(workspace.cargo(), suite);
        command.current_dir(copy).args(last);
        command.env("CARGO_TARGET_DIR", copy.join("target"));
        command.env("RUSTFLAGS", "--cap-lints allow");
        bounded::run(&mut command, MISTAKE_LIMIT).map_err(|error| error.to_string())
    };
    let built = run(&["--no-run"])?;
    if !built.success() {
        return Err(format!("it does not even build:\n{}", built.output));
    }
    let outcome = run(&["--no-fail-fast", "--", "--test-threads=2", filter])?;
    let failed = outcome.output.lines().filter_map(|line| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(name.trim_start_matches("sync::cases::").to_owned())
    });
    let failed: Vec<String> = failed.collect();
    // Loom may end the whole process, when it cannot go on after a failure.
    let ended = !outcome.success() && failed.is_empty();
    Ok(if ended { vec![format!("a model, {}", outcome.ending())] } else { failed })
}

fn models(mut cargo: Command, suite: &Suite) -> Command {
    cargo.args(["test", "--package", suite.package, "--test", "models"]);
    cargo.env_remove("RUST_BACKTRACE");
    cargo
}

/// All files, except what has not changed: so that Cargo builds little.
fn copy_workspace(workspace: &Workspace, copy: &Path) -> std::io::Result<()> {
    let tree = Tree::read(&workspace.root)?;
    for path in tree.paths() {
        let (from, to) = (workspace.root.join(path), copy.join(path));
        let new = fs::read(&from)?;
        if fs::read(&to).is_ok_and(|old| old == new) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&to, new)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_can_be_made() {
        let folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("set for tests");
        let root = Path::new(&folder).parent().expect("the root");
        for suite in SUITES {
            for mistake in suite.mistakes {
                let path = root.join(suite.sources).join(mistake.file);
                let count =
                    fs::read_to_string(path).expect("a file").matches(mistake.right).count();
                assert_eq!(count, 1, "{}: {}", mistake.file, mistake.what);
                assert_ne!(mistake.right, mistake.wrong);
            }
        }
    }
}
