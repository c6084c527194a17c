//! `switchboard deadlocks`: processes that wait for each other for ever.

use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use serde_json::json;
use switchboard_inspect::analysis::deadlocks::{Deadlock, find};
use switchboard_inspect::analysis::wakers::Grade;
use switchboard_inspect::{Request, Snapshot};

use super::with_examples;
use crate::exit_code::Exit;
use crate::machine::{GAP, Source, say_missing};
use crate::output::{Outcome, note, print, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// Only what is at least so sure
    #[arg(long, value_enum, default_value_t = Sure::Probable)]
    at_least: Sure,
    #[command(flatten)]
    source: Source,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sure {
    Certain,
    Probable,
    Possible,
}

impl From<Sure> for Grade {
    fn from(sure: Sure) -> Self {
        match sure {
            Sure::Certain => Self::Certain,
            Sure::Probable => Self::Probable,
            Sure::Possible => Self::Possible,
        }
    }
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("deadlocks"));
    with_examples(
        command
            .about("Find processes that wait for each other for ever; exit 4 when there are any"),
        "  switchboard deadlocks
  switchboard deadlocks --at-least possible
  switchboard deadlocks --from snapshot.json --json",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let snapshot = arguments.source.snapshot(&Request::everything().twice(GAP))?;
    say_missing(&snapshot.coverage);
    let least = Grade::from(arguments.at_least);
    let (found, weaker): (Vec<_>, Vec<_>) =
        find(&snapshot).into_iter().partition(|deadlock| deadlock.grade >= least);
    if !weaker.is_empty() {
        note(&format!("{} less sure: --at-least possible shows all", weaker.len()));
    }
    if arguments.source.json {
        print_json(&json!({ "coverage": snapshot.coverage, "deadlocks": found }))?;
    } else if found.is_empty() {
        note("no deadlock");
    } else {
        let texts: Vec<String> = found.iter().map(|deadlock| text(&snapshot, deadlock)).collect();
        print(&texts.join("\n"))?;
    }
    Ok(if found.is_empty() { Exit::Done } else { Exit::Found })
}

fn text(snapshot: &Snapshot, deadlock: &Deadlock) -> String {
    let labels: Vec<String> = deadlock.processes.iter().map(|&pid| snapshot.label(pid)).collect();
    let mut text =
        format!("{} {}: {}\n", deadlock.grade.word(), deadlock.shape.words(), labels.join(", "));
    for sentence in &deadlock.evidence {
        text += &format!("  {sentence}\n");
    }
    for doubt in &deadlock.doubts {
        text += &format!("  but: {doubt}\n");
    }
    for sentence in &deadlock.consequences {
        text += &format!("  behind it: {sentence}\n");
    }
    text += &format!("  way out: {}\n", deadlock.way_out);
    text
}
