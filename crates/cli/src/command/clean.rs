//! `switchboard clean`: removes what nobody uses any more, and keeps what it held.
//!
//! Source: docs/design/clean.md.

mod plan;
mod progress;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Value, json};
use switchboard_clean::error::Reason;
use switchboard_clean::recover::{Recovered, recover};
use switchboard_clean::remove::{Options, effective_user, remove};
use switchboard_clean::{Error, Journal, Limits};
use switchboard_inspect::{Coverage, Snapshot};

use super::leaks::must_be_folders;
use super::with_examples;
use crate::endpoint::{bytes, duration};
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::machine::say_missing;
use crate::output::{Failure, Outcome, counted, note, print, print_json, warn};
use crate::program::for_a_shell;
use crate::standard_streams::require_stdout;
use plan::{Item, Plan};
use progress::Steps;

#[derive(Args, Debug)]
struct Arguments {
    /// Only these, by any of their names; without: all that is certainly or probably left behind
    object: Vec<String>,
    /// Remove; without it: show what would be removed, and why
    #[arg(long)]
    yes: bool,
    /// Look for files of sockets and FIFOs in DIR, too; may be given again
    #[arg(long = "in", value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Also when not everything could be seen
    #[arg(long)]
    partial: bool,
    /// Nothing that was made or used within TIME
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1m")]
    min_age: Duration,
    /// How much the journal may hold of what is removed, in all
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value = "1GiB")]
    journal_limit: u64,
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("clean"));
    with_examples(
        command.about("Remove objects that nobody uses any more; `restore` brings them back").long_about(
            "Remove System V objects, POSIX queues, shared memory and semaphores, files of sockets, and \
             FIFOs that nobody uses any more.\n\nWithout --yes nothing is removed: it is shown what would be, \
             and why, and the exit code is 4 if there is any (0: nothing; 5: what is named in OBJECT stays). With --yes it is 0 when all is done, and 5 \
             when not everything could be seen and --partial is not given. What somebody uses is never removed, nor what belongs to another user, unless this one is root. What an object held is \
             kept under the state directory first ($XDG_STATE_HOME/switchboard/clean), and `switchboard restore` brings it back. Where not \
             everything could be seen, which is nearly always so for an ordinary user, --partial says that this is known. It takes nothing that is doubtful for \
             another reason: what is only possibly left behind (`leaks --all`), by a name that somebody chose, say, goes only if it is named.",
        ),
        "  switchboard clean
  switchboard clean --yes
  switchboard clean --yes --partial sysv-shm:32769 /dev/shm/psm_1f03cc2a
  switchboard clean --json --min-age 1h",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    must_be_folders(&arguments.folders)?;
    // What was done has to be said: it is looked at before anything is.
    require_stdout()?;
    let recovered = if arguments.yes { open_again()? } else { Vec::new() };
    let snapshot = plan::request(&arguments.folders).take();
    let plan = Plan::new(&snapshot, &arguments.object, arguments.min_age)?;
    if !arguments.yes {
        return show(matches, &arguments, &snapshot.coverage, &plan);
    }
    say_missing(&snapshot.coverage);
    let incomplete = !snapshot.coverage.missing.is_empty() || plan.is_unchecked();
    if !plan.items.is_empty() && incomplete && !arguments.partial {
        plan.say_unchecked();
        let what = counted(plan.items.len() as u64, "object");
        let problem = format!("{what} would be removed, but not everything could be seen");
        return Err(Failure::new(Exit::Refused, problem).hint(if effective_user() == 0 {
            "--partial removes them all the same"
        } else {
            "--partial removes them all the same; root sees more"
        }));
    }
    remove_all(&arguments, &snapshot, &plan, &recovered)
}

/// Opens again what an interrupted run has closed.
pub(super) fn open_again() -> Result<Vec<Recovered>, Failure> {
    let journal = Journal::open().map_err(failure)?;
    let recovered = recover(&journal).map_err(failure)?;
    for one in &recovered {
        match &one.outcome {
            Ok(done) => note(&format!("{} {done}: run {} was interrupted", one.object, one.run)),
            Err(error) => {
                warn(&format!("{} was closed by run {}: {error}", one.object, one.run));
            }
        }
    }
    Ok(recovered)
}

fn show(
    matches: &ArgMatches,
    arguments: &Arguments,
    coverage: &Coverage,
    plan: &Plan<'_>,
) -> Outcome {
    let unseen = &coverage.missing;
    for text in unseen {
        note(&format!("not seen: {text}"));
    }
    let complete = unseen.is_empty() && !plan.is_unchecked();
    let command = (!plan.items.is_empty()).then(|| in_earnest(matches, arguments, !complete));
    if arguments.json {
        let items: Vec<Value> = plan.items.iter().map(Item::as_json).collect();
        print_json(&json!({
            "coverage": coverage,
            "not_seen": unseen,
            "would_remove": items,
            "command": command,
            "left": plan.left_as_json(),
        }))?;
    } else {
        print(&plan.items.iter().map(Item::text).collect::<String>())?;
    }
    plan.say_left();
    match &command {
        None => note("nothing would be removed"),
        Some(command) => {
            let what = counted(plan.items.len() as u64, "object");
            note(&format!("{what} would be removed: {command}"));
        }
    }
    let exit = plan.exit();
    Ok(if exit == Exit::Done && command.is_some() { Exit::Found } else { exit })
}

/// The command line that removes what was shown, for a shell.
fn in_earnest(matches: &ArgMatches, arguments: &Arguments, partial: bool) -> String {
    let mut words: Vec<OsString> = ["switchboard", "clean", "--yes"].map(OsString::from).into();
    words.extend(partial.then(|| "--partial".into()));
    // As they were given: a time and a size can be written in many ways.
    for (id, option) in [("min_age", "--min-age"), ("journal_limit", "--journal-limit")] {
        if matches.value_source(id) == Some(ValueSource::CommandLine) {
            let value = matches.get_raw(id).into_iter().flatten().last();
            words.extend([option.into(), value.unwrap_or_default().to_owned()]);
        }
    }
    for folder in &arguments.folders {
        let mut word = OsString::from("--in=");
        word.push(folder);
        words.push(word);
    }
    if arguments.object.iter().any(|word| word.starts_with('-')) {
        words.push("--".into());
    }
    words.extend(arguments.object.iter().map(OsString::from));
    let words: Vec<String> = words.iter().map(|word| for_a_shell(word)).collect();
    words.join(" ")
}

fn remove_all(
    arguments: &Arguments,
    snapshot: &Snapshot,
    plan: &Plan<'_>,
    recovered: &[Recovered],
) -> Outcome {
    let options = Options { min_age: arguments.min_age, partial: arguments.partial };
    let limits = Limits { most_bytes: arguments.journal_limit };
    let interrupt = Interrupt::watch(None)?;
    let mut exit = plan.exit();
    let (mut removed, mut kept, mut run_name) = (Vec::new(), Vec::new(), None);
    if !plan.items.is_empty() {
        let journal = Journal::open().map_err(failure)?;
        let mut run = journal.begin(limits).map_err(failure)?;
        let steps = Steps::new(plan.items.len() as u64);
        for item in &plan.items {
            if interrupt.is_signalled() {
                break;
            }
            steps.at(&item.object.id);
            match remove(&mut run, &item.target, &item.leak.reasons, options) {
                Ok(done) => {
                    if let Some(text) = &done.note {
                        steps.aside(|| warn(&format!("{}: {text}", item.object.id)));
                    }
                    removed.push((item, done));
                }
                Err(error) => {
                    let text = format!("{} stays: {error}", item.title());
                    steps.aside(|| note(&text));
                    worst(&mut exit, exit_of(&error, item.is_named));
                    kept.push((item, error));
                }
            }
        }
        steps.end();
        run_name = Some(run.name().to_owned()).filter(|_| !removed.is_empty());
        run.end().map_err(failure)?;
    }
    if arguments.json {
        let removed: Vec<Value> = removed
            .iter()
            .map(|(item, done)| {
                json!({ "object": item.object.id, "kind": item.object.kind, "name": item.name(),
                        "number": done.number, "kept_bytes": done.kept_bytes, "note": done.note })
            })
            .collect();
        let kept: Vec<Value> = kept
            .iter()
            .map(|(item, error)| json!({ "object": item.object.id, "name": item.name(), "why": error.to_string() }))
            .collect();
        let opened: Vec<&str> = recovered.iter().map(|one| one.object.as_str()).collect();
        print_json(&json!({
            "coverage": snapshot.coverage, "run": run_name, "removed": removed, "kept": kept,
            "left": plan.left_as_json(), "opened_again": opened,
        }))?;
    } else {
        let lines = removed.iter().map(|(item, _)| format!("removed {}\n", item.title()));
        print(&lines.collect::<String>())?;
    }
    plan.say_left();
    match &run_name {
        Some(run) => {
            let what = counted(removed.len() as u64, "object");
            note(&format!("{what} removed; switchboard restore {run} brings back what can be"));
        }
        None => note("nothing was removed"),
    }
    if interrupt.is_signalled() {
        let problem = format!("interrupted: {} of {} removed", removed.len(), plan.items.len());
        return Err(Failure::new(Exit::Failed, problem));
    }
    Ok(exit)
}

/// How a command ends that met this. What others began to use meanwhile is no failure, unless it was asked for by name.
fn exit_of(error: &Error, is_named: bool) -> Exit {
    match error.reason() {
        Reason::InUse | Reason::Young | Reason::Changed | Reason::Unseen if is_named => {
            Exit::Refused
        }
        Reason::Gone if is_named => Exit::Nothing,
        Reason::InUse | Reason::Young | Reason::Changed | Reason::Unseen | Reason::Gone => {
            Exit::Done
        }
        Reason::Refused | Reason::Elsewhere | Reason::Exists => Exit::Refused,
        Reason::TooLarge | Reason::Damaged | Reason::Failed => Exit::Failed,
    }
}

fn worst(exit: &mut Exit, next: Exit) {
    if *exit == Exit::Done || next == Exit::Failed {
        *exit = next;
    }
}

/// A failure of the journal as a whole.
pub(super) fn failure(error: Error) -> Failure {
    let exit = match error.reason() {
        Reason::Gone => Exit::Nothing,
        Reason::Refused | Reason::Exists | Reason::InUse => Exit::Refused,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}
