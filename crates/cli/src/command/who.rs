//! `switchboard who OBJECT`: who is at the other end.

use std::collections::BTreeMap;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Value, json};
use switchboard_inspect::analysis::peers::{Holder, far_sides, is_connected, others, via};
use switchboard_inspect::name::{Named, find};
use switchboard_inspect::{Object, Snapshot};

use super::show::way;
use super::with_examples;
use crate::exit_code::Exit;
use crate::machine::{Source, kinds_of, say_missing};
use crate::output::{Outcome, note, print, print_json};
use crate::subject::{hidden, id_in, nothing, of_the_kernel, there};

#[derive(Args, Debug)]
struct Arguments {
    /// Path, address, id, pid:N/fd:M, or a process or thread: pid:812
    object: String,
    #[command(flatten)]
    source: Source,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("who"));
    with_examples(
        command.about("Show who is at the other end of an object, or of all that a process has"),
        "  switchboard who tcp:8080
  switchboard who pid:812
  switchboard who pid:812/fd:1
  switchboard who /dev/shm/engine --json",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let word = &arguments.object;
    let snapshot = arguments.source.snapshot(&kinds_of(word))?;
    let (process, objects) = match find(&snapshot, word, arguments.source.place(word)) {
        Named::Objects(found) => (None, found),
        Named::Process(_) => {
            let pid = there(&snapshot, id_in(word))?;
            (Some(pid), snapshot.objects_of(pid).collect())
        }
    };
    say_missing(&snapshot.coverage);
    if objects.is_empty() {
        match process.and_then(|pid| snapshot.process(pid)) {
            None => return Err(nothing(&snapshot, &arguments.source, word)),
            Some(process) if process.kernel => note(&of_the_kernel(process)),
            Some(process) if !process.readable => return Err(hidden(process)),
            Some(process) => note(&format!("{} holds nothing to talk through", process.label())),
        }
    }
    if arguments.source.json {
        let objects: Vec<Value> =
            objects.iter().map(|object| as_json(&snapshot, object, process)).collect();
        print_json(&json!({ "coverage": snapshot.coverage, "objects": objects }))?;
    } else {
        let texts = objects.iter().map(|object| match process {
            Some(pid) => of_process(&snapshot, object, pid),
            None => of_object(&snapshot, object),
        });
        print(&texts.collect::<String>())?;
    }
    Ok(Exit::Done)
}

fn title(object: &Object) -> String {
    let name = object.names.last().map_or_else(String::new, |name| format!(" {name}"));
    let state = object.state.as_ref().map_or_else(String::new, |state| format!(", {state}"));
    format!("{}{name}{state}\n", object.id)
}

fn of_object(snapshot: &Snapshot, object: &Object) -> String {
    let mut text = title(object);
    for end in &object.ends {
        let way = if is_connected(object) { "here" } else { way(end.reads, end.writes) };
        text += &format!("  {way:<8}  {} {}\n", snapshot.label(end.pid), via(end));
    }
    if object.ends.is_empty() {
        text += "  nobody that can be seen\n";
    }
    for far in far_sides(snapshot, object) {
        for end in &far.ends {
            let label = snapshot.label(end.pid);
            text += &format!("  there     {label} {} ({})\n", via(end), far.id);
        }
        if far.ends.is_empty() {
            text += &format!("  there     nobody that can be seen ({})\n", far.id);
        }
    }
    if let Some(remote) = object.details.get("remote").filter(|_| object.peer.is_none()) {
        text += &format!("  there     {remote}, which is not on this machine or was closed\n");
    }
    text
}

fn of_process(snapshot: &Snapshot, object: &Object, pid: u32) -> String {
    let own = object.ends.iter().filter(|end| end.pid == pid);
    let own: Vec<String> = own.map(via).collect();
    let mut text = format!("{}  {}", own.join(" "), title(object));
    // One that has it twice is one.
    let mut by_process: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for Holder { end, .. } in others(snapshot, object, pid) {
        by_process.entry(end.pid).or_default().push(via(end));
    }
    for (other, ways) in &by_process {
        text += &format!("  with {} {}\n", snapshot.label(*other), ways.join(" "));
    }
    text
}

fn as_json(snapshot: &Snapshot, object: &Object, process: Option<u32>) -> Value {
    let holder = |pid: u32, id: &str, how: String| json!({ "pid": pid, "process": snapshot.label(pid), "object": id, "via": how });
    let here = object.ends.iter().filter(|end| process.is_none_or(|pid| pid == end.pid));
    let here: Vec<Value> = here.map(|end| holder(end.pid, &object.id, via(end))).collect();
    let there: Vec<Value> = match process {
        Some(pid) => others(snapshot, object, pid)
            .iter()
            .map(|other| holder(other.end.pid, &other.object.id, via(other.end)))
            .collect(),
        None => far_sides(snapshot, object)
            .iter()
            .flat_map(|far| far.ends.iter().map(|end| holder(end.pid, &far.id, via(end))))
            .collect(),
    };
    json!({ "id": object.id, "kind": object.kind, "names": object.names, "here": here, "there": there })
}
