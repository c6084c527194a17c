//! `switchboard ps [PID|OBJECT…]`: the process tree, with what each holds, talks to and waits for.

use std::collections::{BTreeMap, BTreeSet};

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Value, json};
use switchboard_inspect::analysis::peers::others;
use switchboard_inspect::{Kind, Object, Process, Request, Snapshot, Via, WaitOn};

use super::with_examples;
use crate::exit_code::Exit;
use crate::machine::{Source, Users, say_missing};
use crate::output::{Outcome, print, print_json};
use crate::subject::Subject;

#[derive(Args, Debug)]
struct Arguments {
    /// Only these processes and what descends from them; of an object, by any of its names, who has it or waits for it
    #[arg(value_name = "PID|OBJECT")]
    words: Vec<String>,
    /// The kernel's own threads, too
    #[arg(long)]
    kernel: bool,
    #[command(flatten)]
    source: Source,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("ps"));
    with_examples(
        command.about("Show the process tree: what each holds, talks to and waits for"),
        "  switchboard ps
  switchboard ps 812
  switchboard ps pipe:4471
  switchboard ps --json | jq -r '.processes[] | select(.orphan) | .process'",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let snapshot = arguments.source.snapshot(&Request::everything())?;
    let subject = Subject::of(&arguments.words, &snapshot, &arguments.source)?;
    say_missing(&snapshot.coverage);
    let mut tree = Tree::new(&snapshot, arguments.kernel);
    if subject.is_empty() {
        tree.add_all();
    }
    for &pid in &subject.pids {
        // Whoever asks for one of the kernel's threads wants to see it.
        tree.kernel |= snapshot.process(pid).is_some_and(|process| process.kernel);
        tree.add(pid, 0);
    }
    for pid in subject.holders() {
        tree.add_alone(pid);
    }
    if arguments.source.json {
        let rows: Vec<Value> =
            tree.rows.iter().map(|&(pid, depth)| tree.as_json(pid, depth)).collect();
        print_json(&json!({ "coverage": snapshot.coverage, "processes": rows }))?;
    } else {
        let users = Users::of(&arguments.source);
        print(
            &tree
                .rows
                .iter()
                .map(|&(pid, depth)| tree.text(pid, depth, &users))
                .collect::<String>(),
        )?;
    }
    Ok(Exit::Done)
}

pub(super) struct Tree<'a> {
    snapshot: &'a Snapshot,
    kernel: bool,
    children: BTreeMap<u32, Vec<u32>>,
    /// Objects by process.
    objects: BTreeMap<u32, Vec<&'a Object>>,
    seen: BTreeSet<u32>,
    /// Processes with their depth, in the order of the tree.
    rows: Vec<(u32, usize)>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, kernel: bool) -> Self {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for process in &snapshot.processes {
            children.entry(process.parent).or_default().push(process.pid);
        }
        let mut objects: BTreeMap<u32, Vec<&Object>> = BTreeMap::new();
        for object in &snapshot.objects {
            let pids: BTreeSet<u32> =
                object.ends.iter().filter(|end| end.via != Via::Used).map(|end| end.pid).collect();
            for pid in pids {
                objects.entry(pid).or_default().push(object);
            }
        }
        Self { snapshot, kernel, children, objects, seen: BTreeSet::new(), rows: Vec::new() }
    }

    /// Every tree. A process whose parent is not there is a root.
    fn add_all(&mut self) {
        for process in &self.snapshot.processes {
            if self.snapshot.process(process.parent).is_none() {
                self.add(process.pid, 0);
            }
        }
        // A saved snapshot may have loops.
        for process in &self.snapshot.processes {
            self.add(process.pid, 0);
        }
    }

    fn add(&mut self, pid: u32, depth: usize) {
        // Not by recursion: how deep it goes, others decide.
        let mut next = vec![(pid, depth)];
        while let Some((pid, depth)) = next.pop() {
            let Some(process) = self.snapshot.process(pid) else { continue };
            if !self.seen.insert(pid) {
                continue;
            }
            if !process.kernel || self.kernel {
                self.rows.push((pid, depth));
            }
            for &child in self.children.get(&pid).into_iter().flatten().rev() {
                next.push((child, depth + 1));
            }
        }
    }

    /// A process without what descends from it.
    fn add_alone(&mut self, pid: u32) {
        if self.snapshot.process(pid).is_some() && self.seen.insert(pid) {
            self.rows.push((pid, 0));
        }
    }

    pub(super) fn text(&self, pid: u32, depth: usize, users: &Users) -> String {
        let Some(process) = self.snapshot.process(pid) else { return String::new() };
        let indent = "  ".repeat(depth.min(40));
        let mut text = format!("{indent}{} {}", process.label(), users.name(process.uid));
        for mark in marks(process, self.snapshot.is_orphan(process)) {
            text += &format!(", {mark}");
        }
        text.push('\n');
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                text += &format!("{indent}    {name} {value}\n");
            }
        };
        if process.command.len() > 1 {
            line("runs", cut(&process.command.join(" ")));
        }
        let holds = self.holds(pid);
        line(
            "holds",
            holds.iter().map(|(kind, n)| format!("{n} {kind}")).collect::<Vec<_>>().join(", "),
        );
        line("talks to", self.talks_to(pid).join(", "));
        for (call, on) in waits(process) {
            line("waits in", format!("{call}{}{on}", if on.is_empty() { "" } else { " for " }));
        }
        text
    }

    fn holds(&self, pid: u32) -> BTreeMap<Kind, usize> {
        let mut holds = BTreeMap::new();
        for object in self.objects.get(&pid).into_iter().flatten() {
            *holds.entry(object.kind).or_insert(0) += 1;
        }
        holds
    }

    fn talks_to(&self, pid: u32) -> Vec<String> {
        let mut with: BTreeMap<u32, BTreeSet<Kind>> = BTreeMap::new();
        for object in self.objects.get(&pid).into_iter().flatten() {
            // Who merely reads the same file as many others talks to nobody.
            if object.kind == Kind::Mapping && !object.ends.iter().any(|end| end.writes) {
                continue;
            }
            for other in others(self.snapshot, object, pid) {
                if other.end.pid != pid && other.end.via != Via::Used {
                    with.entry(other.end.pid).or_default().insert(object.kind);
                }
            }
        }
        const MOST: usize = 12;
        let more = with.len().saturating_sub(MOST);
        let mut all: Vec<String> = with
            .iter()
            .take(MOST)
            .map(|(pid, kinds)| {
                let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                format!("{} ({})", self.snapshot.label(*pid), kinds.join(" "))
            })
            .collect();
        if more > 0 {
            all.push(format!("{more} more"));
        }
        all
    }

    fn as_json(&self, pid: u32, depth: usize) -> Value {
        let Some(process) = self.snapshot.process(pid) else { return Value::Null };
        let objects = self.objects.get(&pid).into_iter().flatten();
        json!({
            "process": process.label(),
            "pid": pid,
            "parent": process.parent,
            "depth": depth,
            "uid": process.uid,
            "state": process.state,
            "command": process.command,
            "orphan": self.snapshot.is_orphan(process),
            "zombie": process.is_zombie(),
            "stopped": process.is_stopped(),
            "readable": process.readable,
            "inner_pid": process.inner_pid,
            "objects": objects.map(|object| object.id.as_str()).collect::<Vec<_>>(),
            "talks_to": self.talks_to(pid),
            "threads": process.threads,
        })
    }
}

fn marks(process: &Process, orphan: bool) -> Vec<String> {
    let mut marks = Vec::new();
    if process.is_zombie() {
        marks.push("zombie: ended, not waited for by its parent".to_owned());
    }
    if process.is_stopped() {
        marks.push("stopped".to_owned());
    }
    if orphan {
        marks.push("orphan: its parent has ended".to_owned());
    }
    if let Some(inner) = process.inner_pid {
        marks.push(format!("{inner} in its own PID namespace"));
    }
    if !process.kernel && !process.readable {
        marks.push("what it holds cannot be seen".to_owned());
    }
    marks
}

/// What its threads wait in, each once, with how many.
fn waits(process: &Process) -> Vec<(String, String)> {
    let mut all: BTreeMap<(String, String), usize> = BTreeMap::new();
    for thread in &process.threads {
        let Some(wait) = &thread.wait else { continue };
        let on = match &wait.on {
            WaitOn::Objects(targets) => {
                const MOST: usize = 4;
                let mut ids: Vec<&str> =
                    targets.iter().map(|target| target.object.as_str()).collect();
                ids.dedup();
                let more = ids.len().saturating_sub(MOST);
                ids.truncate(MOST);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("{}{more}", ids.join(" "))
            }
            WaitOn::Children(children) => format!("a child of {}", children.len()),
            WaitOn::Signal => "a signal".to_owned(),
            WaitOn::Time => "time to pass".to_owned(),
            WaitOn::Other(what) => what.clone(),
        };
        *all.entry((wait.call.clone(), on)).or_insert(0) += 1;
    }
    all.into_iter()
        .map(|((call, on), count)| {
            let times = if count > 1 { format!("{count} threads: ") } else { String::new() };
            (format!("{times}{call}"), on)
        })
        .collect()
}

fn cut(text: &str) -> String {
    const MOST: usize = 160;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain(['…']).collect()
}
