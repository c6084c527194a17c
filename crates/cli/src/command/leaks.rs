//! `switchboard leaks`: what was left behind on this machine; `leaks -- COMMAND`: what a command leaves.

mod run;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Value, json};
use switchboard_inspect::analysis::leaks::{KINDS, Leak, LeakOptions, leaks};
use switchboard_inspect::analysis::wakers::Grade;
use switchboard_inspect::source::places;
use switchboard_inspect::{Coverage, Kind, Object, Request, Snapshot};

use super::with_examples;
use crate::endpoint;
use crate::exit_code::Exit;
use crate::machine::{Source, Users, say_missing};
use crate::output::{Failure, Outcome, counted, note, print, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// Only these kinds: sysv-shm, posix-shm, unix, fifo, …
    #[arg(value_name = "KIND", value_parser = kind_named)]
    kinds: Vec<Kind>,
    /// Show what is only possibly left behind, too
    #[arg(long, conflicts_with = "command")]
    all: bool,
    /// Only what this user owns, by name or number
    #[arg(long)]
    user: Option<String>,
    /// Only what has this in its name or id
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Look for files of sockets and FIFOs in this folder, too
    #[arg(long = "in", value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// What was made or used so shortly ago is only possibly left behind
    #[arg(long, value_name = "TIME", value_parser = endpoint::duration,
          default_value = "10s", conflicts_with = "command")]
    young: Duration,
    /// With COMMAND: how long its children may take to end after it
    #[arg(long, value_name = "TIME", value_parser = endpoint::duration, default_value = "1s", requires = "command")]
    wait: Duration,
    #[command(flatten)]
    source: Source,
    /// Run this, and report what it and its children leave behind
    #[arg(last = true)]
    command: Vec<OsString>,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("leaks"));
    with_examples(
        command
            .about("Find what was left behind, or what a command leaves; exit 4 when there is any")
            .long_about(
                "Find what was left behind: objects that outlived everybody who used them, with the reasons, and \
                 what could not be checked. Nothing is removed.\n\nWith COMMAND, run it, and report on standard error which \
                 objects and running children it left; KIND, --name and --user choose among the objects. With --json the report alone is on standard output, \
                 and what COMMAND prints on standard error. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to it. \
                 The exit code is 4 if it left something, else that of COMMAND, 128 and the signal's number if a \
                 signal ended it.",
            ),
        "  switchboard leaks
  switchboard leaks --all sysv-shm sysv-sem
  switchboard leaks --in ./sockets --json
  switchboard leaks --from snapshot.json
  switchboard leaks -- cargo test
  switchboard leaks posix-shm --name psm_ --json -- ./worker",
    )
}

fn kind_named(word: &str) -> Result<Kind, String> {
    let names = || KINDS.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    match Kind::named(word) {
        Some(kind) if KINDS.contains(&kind) => Ok(kind),
        Some(_) => Err(format!("{word} goes with its last holder; what can leak: {}", names())),
        None => Err(format!("no kind {word}; what can leak: {}", names())),
    }
}

/// What is given to be looked in is there.
pub(super) fn must_be_folders(folders: &[PathBuf]) -> Result<(), Failure> {
    for folder in folders {
        if let Err(error) = std::fs::read_dir(folder) {
            let problem = format!("cannot look in {}: {error}", folder.display());
            return Err(Failure::new(Exit::Usage, problem));
        }
    }
    Ok(())
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    if !arguments.command.is_empty() {
        return run::run(&arguments);
    }
    must_be_folders(&arguments.folders)?;
    let request = Request::everything().leaks(&arguments.folders);
    let snapshot = arguments.source.snapshot(&request)?;
    let users = Users::of(&arguments.source);
    let wanted = Wanted::new(&arguments, &users)?;
    let mut found = leaks(&snapshot, &LeakOptions { young: arguments.young });
    found.retain(|leak| wanted.has(&snapshot, leak.kind, &leak.object));
    let (shown, weaker): (Vec<&Leak>, Vec<&Leak>) =
        found.iter().partition(|leak| arguments.all || leak.certainty > Grade::Possible);
    say_missing(&snapshot.coverage);
    say_places(&snapshot.coverage, arguments.source.is_live());
    if !weaker.is_empty() {
        note(&format!("{} only possibly left behind: --all shows them", weaker.len()));
    }
    if arguments.source.json {
        let all: Vec<Value> = shown.iter().map(|leak| as_json(&snapshot, leak)).collect();
        print_json(&json!({
            "coverage": snapshot.coverage,
            "looked_in": looked_in_as_json(&snapshot.coverage),
            "leaks": all,
        }))?;
    } else if shown.is_empty() {
        note("nothing was left behind, as far as can be told");
    } else {
        let texts: Vec<String> = shown.iter().map(|leak| text(&snapshot, leak, &users)).collect();
        print(&texts.join("\n"))?;
    }
    let serious = shown.iter().any(|leak| leak.certainty > Grade::Possible);
    Ok(if serious { Exit::Found } else { Exit::Done })
}

/// What was asked for, by kind, owner and name.
#[derive(Debug)]
struct Wanted<'a> {
    kinds: &'a [Kind],
    uid: Option<u32>,
    name: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn new(arguments: &'a Arguments, users: &Users) -> Result<Self, Failure> {
        let unknown = |user: &String| Failure::new(Exit::Usage, format!("no user {user}"));
        let number = |user: &String| users.number(user).ok_or_else(|| unknown(user));
        let uid = arguments.user.as_ref().map(number).transpose()?;
        Ok(Self { kinds: &arguments.kinds, uid, name: arguments.name.as_deref() })
    }

    fn has(&self, snapshot: &Snapshot, kind: Kind, id: &str) -> bool {
        let object = snapshot.object(id);
        let names = object.map_or(&[][..], |object| &object.names);
        let is_called = |text: &str| id.contains(text) || names.iter().any(|n| n.contains(text));
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self.uid.is_none_or(|uid| object.and_then(|object| object.uid) == Some(uid))
            && self.name.is_none_or(is_called)
    }
}

/// Says where files of sockets and FIFOs were looked for.
fn say_places(coverage: &Coverage, is_live: bool) {
    if !coverage.places.is_empty() {
        note(&looked_in(coverage));
    } else if !is_live {
        note(
            "not seen: sockets' files and FIFOs: nobody looked for them when this snapshot was made",
        );
    }
}

/// Where files were looked for, and how far.
fn looked_in(coverage: &Coverage) -> String {
    format!(
        "sockets' files and FIFOs were looked for in {}; {} folders deep (the current folder: itself only), no other files, no file systems of other machines",
        coverage.places.join(", "),
        places::DEPTH
    )
}

/// As [`looked_in`], and of which kinds all there is was looked at, wherever it is.
fn looked_in_as_json(coverage: &Coverage) -> Value {
    json!({
        "folders": coverage.places,
        "folders_deep": places::DEPTH,
        "most_names": places::MOST_NAMES,
        "most_ms": u64::try_from(places::MOST_TIME.as_millis()).unwrap_or(u64::MAX),
        "kinds_in_folders": [Kind::Unix, Kind::Fifo],
        "kinds_everywhere": KINDS.iter().filter(|kind| !matches!(kind, Kind::Unix | Kind::Fifo)).collect::<Vec<_>>(),
    })
}

fn as_json(snapshot: &Snapshot, leak: &Leak) -> Value {
    let mut value = json!(leak);
    if let Some(object) = snapshot.object(&leak.object) {
        value["names"] = json!(object.names);
        value["uid"] = json!(object.uid);
        value["size"] = json!(object.size);
        value["namespace"] = json!(object.namespace);
    }
    value
}

/// `probable sysv-shm:5: 0x0000beef, of root, 4096 bytes`, and a line for each sentence.
fn text(snapshot: &Snapshot, leak: &Leak, users: &Users) -> String {
    let mut text = format!("{} {}", leak.certainty.word(), leak.object);
    if let Some(object) = snapshot.object(&leak.object) {
        text += &title(object, users);
    }
    text.push('\n');
    for reason in &leak.reasons {
        text += &format!("  {reason}\n");
    }
    for doubt in &leak.doubts {
        text += &format!("  but: {doubt}\n");
    }
    for what in &leak.not_checked {
        text += &format!("  not checked: {what}\n");
    }
    text
}

fn title(object: &Object, users: &Users) -> String {
    let mut parts = object.names.clone();
    parts.extend(object.uid.map(|uid| format!("of {}", users.name(uid))));
    if object.kind.is_memory() {
        parts.extend(object.size.map(|size| counted(size, "byte")));
    }
    parts.extend(object.namespace.map(|namespace| format!("in namespace {namespace}")));
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
}
