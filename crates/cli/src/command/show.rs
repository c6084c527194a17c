//! `switchboard show OBJECT`: all about one object or process, by any of its names; of a channel of `shm:`, its counters.

mod channel;
mod process;
mod prometheus;

use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard::counters::Channel;
use switchboard_inspect::analysis::peers::{self, via};
use switchboard_inspect::model::{Lock, LockKind};
use switchboard_inspect::name::{Named, find};
use switchboard_inspect::{Object, Snapshot};

use super::with_examples;
use crate::exit_code::Exit;
use crate::machine::{Source, Users, fill, kinds_of, say_missing};
use crate::output::{Failure, Outcome, print, print_json};
use crate::subject::{id_in, nothing, there};

#[derive(Args, Debug)]
struct Arguments {
    /// Path, key, address, id, inode, pid:N/fd:M, or a process: pid:N; or channels: shm:NAME
    #[arg(required = true)]
    object: Vec<String>,
    /// Counters of channels as Prometheus reads them
    #[arg(long, conflicts_with_all = ["json", "from"])]
    prometheus: bool,
    /// How long the ends of channels have to answer
    #[arg(long, value_name = "TIME", value_parser = crate::endpoint::duration, default_value = "1s")]
    timeout: Duration,
    #[command(flatten)]
    source: Source,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("show"));
    with_examples(
        command.about(
            "Show all about one object or process, by any of its names, or counters of channels",
        ),
        "  switchboard show /run/x.sock
  switchboard show pid:812/fd:3
  switchboard show pid:812
  switchboard show tcp:8080
  switchboard show 0xbeef
  switchboard show pipe:4471 --json
  switchboard show shm:engine
  switchboard show --prometheus shm:engine shm:jobs",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    if arguments.object.iter().all(|word| word.starts_with("shm:")) && arguments.source.is_live() {
        let form = match (arguments.prometheus, arguments.source.json) {
            (true, _) => channel::Form::Prometheus,
            (_, true) => channel::Form::Json,
            _ => channel::Form::Table,
        };
        let users = Users::of(&arguments.source);
        return channel::show(&arguments.object, arguments.timeout, form, &users);
    }
    let [word] = &arguments.object[..] else {
        let problem = "several at a time can only be channels: shm:NAME";
        return Err(Failure::new(Exit::Usage, problem));
    };
    if arguments.prometheus {
        let problem = format!("{word} has no counters; channels of shm: have");
        return Err(Failure::new(Exit::Usage, problem));
    }
    let snapshot = arguments.source.snapshot(&kinds_of(word))?;
    let found = match find(&snapshot, word, arguments.source.place(word)) {
        Named::Objects(found) => found,
        Named::Process(_) => {
            let pid = there(&snapshot, id_in(word))?;
            say_missing(&snapshot.coverage);
            return process::show(&snapshot, pid, &arguments.source);
        }
    };
    if found.is_empty() {
        say_missing(&snapshot.coverage);
        return Err(nothing(&snapshot, &arguments.source, word));
    }
    if arguments.source.json {
        print_json(&json!({ "coverage": snapshot.coverage, "objects": found }))?;
    } else {
        let users = Users::of(&arguments.source);
        let texts: Vec<String> =
            found.iter().map(|object| text(&snapshot, object, &users)).collect();
        print(&texts.join("\n"))?;
    }
    Ok(Exit::Done)
}

/// All about a channel.
pub(super) fn channel_text(address: &str, channel: &Channel, users: &Users) -> String {
    channel::text(address, channel, users)
}

/// All about an object.
pub(super) fn text(snapshot: &Snapshot, object: &Object, users: &Users) -> String {
    let mut text = format!("{}: {}\n", object.id, object.kind.row().what);
    let mut line = |name: &str, value: String| text += &format!("  {name:<14}  {value}\n");
    for name in &object.names {
        line("name", name.clone());
    }
    if let Some(uid) = object.uid {
        let group = object.gid.map_or_else(String::new, |gid| format!(", group {gid}"));
        let mode = object.mode.map_or_else(String::new, |mode| format!(", mode {mode:04o}"));
        line("owner", format!("{}{group}{mode}", users.name(uid)));
    }
    if let Some(state) = &object.state {
        line("state", state.to_string());
    }
    if object.fill.is_some() {
        line("fill", fill(object));
    } else if let Some(size) = object.size {
        line("size", size.to_string());
    }
    if let Some(peer) = &object.peer {
        line("peer", peer.clone());
    }
    if let Some(namespace) = object.namespace {
        line("namespace", namespace.to_string());
    }
    for (name, value) in object.details.iter() {
        line(name, value.to_owned());
    }
    for lock in &object.locks {
        line(if lock.waiting { "waits for" } else { "lock" }, lock_in_words(snapshot, lock));
    }
    for end in &object.ends {
        line(way(end.reads, end.writes), format!("{} {}", snapshot.label(end.pid), via(end)));
    }
    for far in peers::far_sides(snapshot, object) {
        for end in &far.ends {
            line("other end", format!("{} {}", snapshot.label(end.pid), via(end)));
        }
    }
    if object.ends.is_empty() {
        line("held by", "nobody that can be seen".to_owned());
    }
    text
}

/// In which direction.
pub(super) fn way(reads: bool, writes: bool) -> &'static str {
    match (reads, writes) {
        (true, false) => "reads",
        (false, true) => "writes",
        _ => "held by",
    }
}

fn lock_in_words(snapshot: &Snapshot, lock: &Lock) -> String {
    let kind = match lock.kind {
        LockKind::Flock => "flock",
        LockKind::Posix => "record lock",
        LockKind::OpenFile => "open-file lock",
        LockKind::Lease => "lease",
    };
    let way = if lock.exclusive { "exclusive" } else { "shared" };
    let end = lock.end.map_or_else(|| "the end".to_owned(), |end| end.to_string());
    let holders: Vec<String> = lock.holders.iter().map(|&pid| snapshot.label(pid)).collect();
    let who = if holders.is_empty() {
        lock.taker.map_or_else(|| "holder not seen".to_owned(), |pid| snapshot.label(pid))
    } else {
        holders.join(", ")
    };
    format!("{kind}, {way}, bytes {} to {end}: {who}", lock.start)
}
