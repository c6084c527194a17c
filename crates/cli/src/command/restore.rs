//! `switchboard restore`: brings back what `clean` removed.
//!
//! Source: docs/design/clean.md.

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Value, json};
use switchboard_clean::Journal;
use switchboard_clean::error::Reason;
use switchboard_clean::journal::{Kept, SavedRun, State};
use switchboard_clean::restore::{never, restore};

use super::clean::{failure, open_again};
use super::with_examples;
use crate::exit_code::Exit;
use crate::output::{Failure, Outcome, counted, note, print, print_json};
use crate::standard_streams::require_stdout;

#[derive(Args, Debug)]
struct Arguments {
    /// A run, as the list shows it, or `last`; without: list what there is
    run: Option<String>,
    /// Only these: the number in the run, the id, or the name; without: all of the run
    #[arg(requires = "run")]
    object: Vec<String>,
    /// Forget the run, with all that is kept of it
    #[arg(long, requires = "run", conflicts_with = "object")]
    forget: bool,
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("restore"));
    with_examples(
        command.about("Bring back what `clean` removed: contents, messages, owner and mode").long_about(
            "Bring back what `clean` removed: contents of memory, messages in their order, counts of semaphores, names and keys, \
             owner and mode.\n\nWithout a run: list what can be brought back. What exists is never overwritten. Ids, times and who used \
             it last cannot be brought back, nor can the file of a socket: a server makes its own.",
        ),
        "  switchboard restore
  switchboard restore last
  switchboard restore 20261122T101500Z-4-1f03cc2a 3
  switchboard restore last /dev/shm/psm_1f03cc2a
  switchboard restore --forget 20261122T101500Z-4-1f03cc2a",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let journal = Journal::open().map_err(failure)?;
    let Some(word) = &arguments.run else { return list(&journal, arguments.json) };
    let name = match word.as_str() {
        "last" => journal.runs().map_err(failure)?.pop().ok_or_else(|| {
            Failure::new(Exit::Nothing, "nothing was removed yet: the journal is empty")
        })?,
        name => name.to_owned(),
    };
    if arguments.forget {
        journal.forget(&name).map_err(failure)?;
        note(&format!("run {name} is forgotten"));
        return Ok(Exit::Done);
    }
    require_stdout()?;
    open_again()?;
    let run = journal
        .read(&name)
        .map_err(|error| failure(error).hint("`switchboard restore` lists the runs"))?;
    run.lock().map_err(failure)?;
    let numbers = chosen(&run, &arguments.object)?;
    bring_back(&run, &numbers, arguments.json, arguments.object.is_empty())
}

/// The numbers of what was asked for.
fn chosen(run: &SavedRun, words: &[String]) -> Result<Vec<u32>, Failure> {
    if words.is_empty() {
        let gone = |kept: &&Kept| matches!(kept.state, State::Removed | State::Restoring);
        return Ok(run.objects.values().filter(gone).map(|kept| kept.entry.number).collect());
    }
    let mut numbers = Vec::new();
    for word in words {
        let is_meant = |kept: &&Kept| {
            let entry = &kept.entry;
            word.parse() == Ok(entry.number)
                || *word == entry.object
                || *word == entry.place.words()
                || word.parse::<i64>().is_err() && *word == key(kept)
        };
        let found = run.objects.values().find(is_meant).ok_or_else(|| {
            Failure::new(Exit::Nothing, format!("run {} has no {word}", run.name))
        })?;
        numbers.push(found.entry.number);
    }
    Ok(numbers)
}

fn bring_back(run: &SavedRun, numbers: &[u32], as_json: bool, all: bool) -> Outcome {
    let mut exit = Exit::Done;
    let (mut back, mut failed) = (Vec::new(), Vec::new());
    for &number in numbers {
        let Some(kept) = run.objects.get(&number) else { continue };
        match restore(run, number) {
            Ok(restored) => back.push((kept, restored)),
            Err(error) => {
                note(&format!("{} stays away: {error}", title(kept)));
                let next = match error.reason() {
                    // Of a whole run, what never comes back is no surprise.
                    Reason::Refused
                        if all && kept.entry.kind == switchboard_inspect::Kind::Unix =>
                    {
                        Exit::Done
                    }
                    Reason::Refused | Reason::Exists => Exit::Refused,
                    Reason::Gone => Exit::Nothing,
                    _ => Exit::Failed,
                };
                if exit == Exit::Done || next == Exit::Failed {
                    exit = next;
                }
                failed.push((kept, error));
            }
        }
    }
    if as_json {
        let back: Vec<Value> = back
            .iter()
            .map(|(kept, restored)| {
                json!({ "number": kept.entry.number, "was": kept.entry.object, "object": restored.object,
                        "lost": restored.lost, "never": never(kept.entry.kind) })
            })
            .collect();
        let failed: Vec<Value> = failed
            .iter()
            .map(|(kept, error)| {
                json!({ "number": kept.entry.number, "was": kept.entry.object,
                        "name": kept.entry.place.words(), "why": error.to_string() })
            })
            .collect();
        print_json(&json!({ "run": run.name, "restored": back, "not_restored": failed }))?;
    } else {
        let lines = back.iter().map(|(kept, restored)| {
            let mut text = format!("restored {} as {}\n", title(kept), restored.object);
            for lost in &restored.lost {
                text += &format!("  not brought back: {lost}\n");
            }
            text + &format!("  never brought back: {}\n", never(kept.entry.kind))
        });
        print(&lines.collect::<String>())?;
    }
    if numbers.is_empty() {
        note("everything of this run is there again, or was never removed");
    }
    Ok(exit)
}

fn list(journal: &Journal, as_json: bool) -> Outcome {
    let mut runs = Vec::new();
    for name in journal.runs().map_err(failure)? {
        match journal.read(&name) {
            Ok(run) => runs.push(run),
            Err(error) => note(&format!("{error}: switchboard restore --forget {name}")),
        }
    }
    for run in runs.iter().filter(|run| run.is_torn) {
        note(&format!("run {}: its log is damaged from some place on", run.name));
    }
    if as_json {
        let all: Vec<Value> = runs.iter().map(run_as_json).collect();
        print_json(
            &json!({ "journal": journal.path(), "bytes": journal.held_bytes(), "runs": all }),
        )?;
    } else if runs.is_empty() {
        note("nothing was removed yet: the journal is empty");
    } else {
        print(&runs.iter().map(run_text).collect::<String>())?;
        let bytes = counted(journal.held_bytes(), "byte");
        note(&format!("{bytes} in {}", journal.path().display()));
    }
    Ok(Exit::Done)
}

fn run_as_json(run: &SavedRun) -> Value {
    let objects: Vec<Value> = run
        .objects
        .values()
        .map(|kept| {
            json!({ "entry": kept.entry, "state": state(&kept.state), "bytes": kept.body.map(|(bytes, _)| bytes) })
        })
        .collect();
    json!({ "run": run.name, "unix_ms": run.unix_ms, "damaged": run.is_torn, "objects": objects })
}

fn run_text(run: &SavedRun) -> String {
    let mut text = format!("{}: {}\n", run.name, counted(run.objects.len() as u64, "object"));
    for kept in run.objects.values() {
        let bytes = kept.body.map_or(0, |(bytes, _)| bytes);
        let bytes = if bytes > 0 { format!(", {}", counted(bytes, "byte")) } else { String::new() };
        text +=
            &format!("  {}  {}{bytes}, {}\n", kept.entry.number, title(kept), state(&kept.state));
    }
    text
}

fn state(state: &State) -> String {
    match state {
        State::Closed | State::Removing | State::Returning => "interrupted".to_owned(),
        State::Removed => "removed".to_owned(),
        State::Opened => "not removed".to_owned(),
        State::Restoring => "being restored".to_owned(),
        State::Restored(object) => format!("restored as {object}"),
    }
}

fn key(kept: &Kept) -> String {
    format!("0x{:08x}", kept.entry.key)
}

/// What it was called; text of the journal is not believed to be harmless.
fn title(kept: &Kept) -> String {
    let entry = &kept.entry;
    let name = match &entry.place {
        switchboard_clean::target::Place::Id(_) if entry.key == 0 => "private".to_owned(),
        switchboard_clean::target::Place::Id(_) => key(kept),
        place => place.words(),
    };
    switchboard_inspect::text::tamed(format!("{} {name}", entry.object))
}
