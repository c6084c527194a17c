//! `switchboard diff A [B]`: what changed between two snapshots.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard_inspect::analysis::difference::{Difference, between};
use switchboard_inspect::{Object, Request, Snapshot};

use super::with_examples;
use crate::exit_code::Exit;
use crate::machine::{load, say_missing};
use crate::output::{Outcome, note, print, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// The earlier snapshot
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The later one; this machine as it is now, without
    #[arg(value_name = "B")]
    after: Option<PathBuf>,
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("diff"));
    with_examples(
        command.about("Show what changed between two snapshots: objects, their ends, processes"),
        "  switchboard diff before.json after.json
  switchboard diff before.json
  switchboard diff before.json --json | jq -r '.difference.appeared[].id'",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let before = load(&arguments.before)?;
    let after = match &arguments.after {
        Some(path) => load(path)?,
        None => Request::everything().leaks(&[]).take(),
    };
    if before.machine != after.machine {
        note(&format!("different machines: {}, {}", before.machine, after.machine));
    }
    if before.viewer.uid != after.viewer.uid {
        note("different users looked: what only one of them may see has not changed");
    }
    say_missing(&after.coverage);
    let found = between(&before, &after);
    if arguments.json {
        print_json(&json!({ "coverage": after.coverage, "difference": found }))?;
    } else if found.is_empty() {
        note("nothing changed");
    } else {
        print(&text(&found, &before, &after))?;
    }
    Ok(Exit::Done)
}

fn text(found: &Difference, before: &Snapshot, after: &Snapshot) -> String {
    let mut text = String::new();
    for label in &found.ended {
        text += &format!("- {label}\n");
    }
    for label in &found.started {
        text += &format!("+ {label}\n");
    }
    let mut object = |mark: char, object: &Object, of: &Snapshot| {
        let mut pids: Vec<u32> = object.ends.iter().map(|end| end.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        let who: Vec<String> = pids.iter().map(|&pid| of.label(pid)).collect();
        let name = object.names.last().map_or_else(String::new, |name| format!(" {name}"));
        let who = if who.is_empty() { String::new() } else { format!("  {}", who.join(", ")) };
        text += &format!("{mark} {}{name}{who}\n", object.id);
    };
    for one in &found.vanished {
        object('-', one, before);
    }
    for one in &found.appeared {
        object('+', one, after);
    }
    for changed in &found.changed {
        text += &format!("~ {}  {}\n", changed.id, changed.how.join(", "));
    }
    text
}
