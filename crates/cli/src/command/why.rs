//! `switchboard why [PID…]`: on what a process waits, since when, who can wake it, and whether they can.

use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Value, json};
use switchboard_inspect::analysis::wakers::{Grade, Index};
use switchboard_inspect::analysis::{stuck, why};
use switchboard_inspect::{Process, Request, Snapshot, Thread};
use switchboard_kernel::io::{Deadline, Interest, wait_for};

use super::with_examples;
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::machine::{GAP, Source, process_id, say_missing};
use crate::output::{Failure, Outcome, note, print, print_json, system};

#[derive(Args, Debug)]
struct Arguments {
    /// These processes, all their threads; without, everything that looks stuck
    #[arg(value_parser = process_id)]
    pids: Vec<u32>,
    /// Look again every two seconds, and print when something changed
    #[arg(long, conflicts_with = "from")]
    watch: bool,
    #[command(flatten)]
    source: Source,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("why"));
    with_examples(
        command.about("Say why a process waits: on what, since when, and who can wake it"),
        "  switchboard why
  switchboard why 812
  switchboard why --watch
  switchboard why 812 --from snapshot.json",
    )
}

/// Between two looks of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let request = Request::everything().twice(GAP);
    if !arguments.watch {
        let snapshot = arguments.source.snapshot(&request)?;
        say_missing(&snapshot.coverage);
        let found = sentences(&snapshot, &arguments.pids)?;
        if arguments.source.json {
            print_json(&as_json(&snapshot, &found))?;
        } else if found.is_empty() {
            note("nothing looks stuck");
        } else {
            print(&lines(&found))?;
        }
        return Ok(Exit::Done);
    }
    let interrupt = Interrupt::watch_output()?;
    let mut before = Vec::new();
    loop {
        let snapshot = arguments.source.snapshot(&request)?;
        let found = sentences(&snapshot, &arguments.pids)?;
        // Times go on; who waits on what is what counts.
        let now: Vec<(u32, String)> = found.iter().map(|one| (one.tid, one.on.clone())).collect();
        if now != before {
            if arguments.source.json {
                print_json(&as_json(&snapshot, &found))?;
            } else {
                print(&format!("{}\n", lines(&found)))?;
            }
            before = now;
        }
        let ended = wait_for(interrupt.fd(), Interest::Readable, Deadline::after(PAUSE));
        if ended.map_err(|error| system("cannot wait", error))? {
            return Err(Failure::quiet());
        }
    }
}

struct Sentence {
    pid: u32,
    tid: u32,
    /// What it waits for, and for whom, without times.
    on: String,
    text: String,
    stuck: bool,
}

fn sentences(snapshot: &Snapshot, pids: &[u32]) -> Result<Vec<Sentence>, Failure> {
    if let Some(gone) = pids.iter().find(|&&pid| snapshot.process(pid).is_none()) {
        return Err(Failure::new(Exit::Nothing, format!("no process {gone}")));
    }
    let index = Index::new(snapshot);
    let set = stuck::set(&index);
    let mut found = Vec::new();
    for process in &snapshot.processes {
        if !pids.is_empty() && !pids.contains(&process.pid) {
            continue;
        }
        for thread in &process.threads {
            if pids.is_empty() && !why::looks_stuck(&index, &set, process, thread, why::PATIENCE) {
                continue;
            }
            found.push(Sentence {
                pid: process.pid,
                tid: thread.tid,
                on: without_times(&index, &set, process, thread),
                text: why::sentence(&index, &set, process, thread),
                stuck: set
                    .get(&thread.tid)
                    .is_some_and(|stuck| stuck.wakers.grade > Grade::Possible),
            });
        }
        if process.threads.is_empty() && pids.contains(&process.pid) {
            let what = if process.kernel {
                "is a thread of the kernel"
            } else if process.is_zombie() {
                "has ended, and its parent has not waited for it"
            } else {
                "cannot be looked into by this user"
            };
            found.push(Sentence {
                pid: process.pid,
                tid: process.pid,
                on: String::new(),
                text: format!("{} {what}", process.label()),
                stuck: false,
            });
        }
    }
    Ok(found)
}

/// What a thread waits for, and which of those who can end that are stopped, gone, or stuck themselves.
fn without_times(
    index: &Index<'_>,
    set: &stuck::Set<'_>,
    process: &Process,
    thread: &Thread,
) -> String {
    let Some(wait) = &thread.wait else { return String::new() };
    let wakers = index.wakers(process, thread, wait).by;
    let states = wakers.iter().map(|waker| {
        let halted =
            index.snapshot.process(waker.pid).map(|other| (other.is_stopped(), other.is_zombie()));
        (waker.pid, halted, stuck::process_is_able(index, set, waker.pid))
    });
    format!("{:?} {:?}", wait.on, states.collect::<Vec<_>>())
}

fn lines(found: &[Sentence]) -> String {
    found.iter().map(|one| format!("{}\n", one.text)).collect()
}

fn as_json(snapshot: &Snapshot, found: &[Sentence]) -> Value {
    let waits: Vec<Value> = found
        .iter()
        .map(|one| {
            let process = snapshot.process(one.pid);
            let threads = process.map_or(&[][..], |process| &process.threads);
            let wait = threads.iter().find(|thread| thread.tid == one.tid).map(|t| &t.wait);
            json!({
                "pid": one.pid, "thread": one.tid, "sentence": one.text, "stuck": one.stuck, "wait": wait,
            })
        })
        .collect();
    json!({ "coverage": snapshot.coverage, "waits": waits })
}
