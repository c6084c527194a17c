//! `cargo xtask ci`: the tests, then formatting, clippy, documentation and the dependency tree.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{bounded, show, test};

/// Crates in the library's tree, itself included, without features, stay below this.
const MOST_CRATES: usize = 40;

const LIMIT: Duration = Duration::from_secs(1800);

/// A check that is one Cargo command.
struct Check {
    name: &'static str,
    arguments: &'static [&'static str],
    /// For rustdoc, which takes its flags from the environment only.
    rustdoc_flags: &'static str,
}

const CHECKS: &[Check] = &[
    Check { name: "formatting", arguments: &["fmt", "--all", "--check"], rustdoc_flags: "" },
    Check {
        name: "clippy",
        arguments: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ],
        rustdoc_flags: "",
    },
    Check {
        name: "documentation",
        arguments: &["doc", "--workspace", "--no-deps", "--all-features"],
        rustdoc_flags: "-D warnings",
    },
];

/// Runs everything.
pub(crate) fn run(workspace: &Workspace, options: &test::Options, tally: &mut Tally) {
    test::run(workspace, options, tally);
    for check in CHECKS {
        show::step(&format!("cargo {}", check.arguments.join(" ")));
        let mut command = workspace.cargo();
        command.args(check.arguments);
        if !check.rustdoc_flags.is_empty() {
            command.env("RUSTDOCFLAGS", check.rustdoc_flags);
        }
        match output_of(&mut command) {
            Ok(_) => tally.pass(check.name),
            Err(why) => tally.fail(check.name, &why),
        }
    }
    dependencies(workspace, tally);
}

fn dependencies(workspace: &Workspace, tally: &mut Tally) {
    const WHAT: &str = "dependency tree";
    show::step("Counting the crates in the library's dependency tree");
    let mut command = workspace.cargo();
    command.args(["tree", "--package", "switchboard", "--edges", "normal", "--prefix", "none"]);
    match output_of(&mut command) {
        Err(why) => tally.fail(WHAT, &why),
        Ok(tree) => {
            let crates = crates(&tree);
            let listed = crates.iter().copied().collect::<Vec<_>>().join("\n");
            match crates.len() {
                0 => tally.fail(WHAT, "the tree is empty"),
                n if n < MOST_CRATES => tally.pass(&format!("{WHAT}: {n} crates")),
                n => tally.fail(WHAT, &format!("{n} crates, not below {MOST_CRATES}:\n{listed}")),
            }
        }
    }
}

/// Each crate once; `cargo tree` marks repetitions with `(*)`. Cargo's own messages are no crates.
fn crates(tree: &str) -> BTreeSet<&str> {
    let lines = tree.lines().map(|line| line.trim_end_matches(" (*)"));
    lines
        .filter(|line| {
            let version = line.split(' ').nth(1).and_then(|word| word.strip_prefix('v'));
            version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect()
}

fn output_of(command: &mut Command) -> Result<String, String> {
    let outcome = bounded::run(command, LIMIT).map_err(|error| format!("{command:?}: {error}"))?;
    if outcome.success() {
        Ok(outcome.output)
    } else {
        Err(format!("{}\n{}", outcome.output.trim_end(), outcome.ending()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_crate_once() {
        let tree = "   Updating index\n\
                    switchboard v0.1.0 (/x)\nlibc v0.2.1\nrustix v1.1.0\nlibc v0.2.1 (*)\n\n";
        assert_eq!(crates(tree).len(), 3);
    }

    #[test]
    fn a_failing_command_fails() {
        let failed = output_of(Command::new("sh").args(["-c", "echo warning: x; exit 1"]));
        assert!(failed.is_err_and(|why| why.contains("warning: x")));
        assert_eq!(output_of(Command::new("echo").arg("x")), Ok("x\n".to_owned()));
    }
}
