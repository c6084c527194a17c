//! `switchboard why [PID|OBJECT…]`: on what a process waits, since when, who can wake it, and whether they can.

use std::time::{Duration, UNIX_EPOCH};

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Value, json};
use switchboard_inspect::analysis::wakers::{Grade, Index};
use switchboard_inspect::analysis::{stuck, why};
use switchboard_inspect::{Process, Request, Snapshot, Thread};
use switchboard_kernel::io::{Deadline, Interest, wait_for};

use super::with_examples;
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::machine::{GAP, Source, say_missing};
use crate::output::{Failure, Outcome, note, print, print_json, system};
use crate::subject::Subject;

#[derive(Args, Debug)]
struct Arguments {
    /// These processes, all their threads; of an object, by any of its names, who waits for it or has it; without, everything that looks stuck
    #[arg(value_name = "PID|OBJECT")]
    words: Vec<String>,
    /// Look again every two seconds, and print what there is at first and whenever it changed, with the time
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
  switchboard why pipe:4471
  switchboard why --watch
  switchboard why 812 --from snapshot.json",
    )
}

/// Between two looks of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let request = Request::everything().twice(GAP);
    if arguments.watch {
        return watch(&arguments, &request);
    }
    let snapshot = arguments.source.snapshot(&request)?;
    let subject = Subject::of(&arguments.words, &snapshot, &arguments.source)?;
    say_missing(&snapshot.coverage);
    let found = sentences(&snapshot, &subject);
    if arguments.source.json {
        print_json(&as_json(&snapshot, &found))?;
    } else if found.is_empty() {
        note(none(&subject));
    } else {
        print(&lines(&found))?;
    }
    Ok(Exit::Done)
}

/// What is said where there is nothing to say.
fn none(subject: &Subject<'_>) -> &'static str {
    if subject.is_empty() {
        "nothing looks stuck"
    } else {
        "nobody who can be seen has it or waits for it"
    }
}

/// Looks again and again, and says what there is at first and whenever that changed, with the time.
fn watch(arguments: &Arguments, request: &Request) -> Outcome {
    let interrupt = Interrupt::watch_output()?;
    let mut before = None;
    loop {
        let snapshot = arguments.source.snapshot(request)?;
        let subject = Subject::of(&arguments.words, &snapshot, &arguments.source)?;
        let found = sentences(&snapshot, &subject);
        // Times go on; who waits on what is what counts.
        let now: Vec<(u32, String)> = found.iter().map(|one| (one.tid, one.on.clone())).collect();
        if before.is_none() {
            say_missing(&snapshot.coverage);
        }
        if before.as_ref() != Some(&now) {
            if arguments.source.json {
                print_json(&as_json(&snapshot, &found))?;
            } else {
                print(&at(&snapshot, &found, none(&subject)))?;
            }
            before = Some(now);
        }
        let ended = wait_for(interrupt.fd(), Interest::Readable, Deadline::after(PAUSE));
        if ended.map_err(|error| system("cannot wait", error))? {
            return Err(Failure::quiet());
        }
    }
}

/// A line with the time, then what was found.
fn at(snapshot: &Snapshot, found: &[Sentence], none: &str) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(snapshot.taken_unix_ms);
    let time = humantime::format_rfc3339_seconds(time);
    if found.is_empty() {
        return format!("{time}  {none}\n");
    }
    found.iter().map(|one| format!("{time}  {}\n", one.text)).collect()
}

struct Sentence {
    pid: u32,
    tid: u32,
    /// What it waits for, and for whom, without times.
    on: String,
    text: String,
    stuck: bool,
}

/// A sentence for each thread: of the processes that were asked for; of those who wait for an object that was, and of the others who have it;
/// or, if nothing was asked for, of all that look stuck.
fn sentences(snapshot: &Snapshot, subject: &Subject<'_>) -> Vec<Sentence> {
    let index = Index::new(snapshot);
    let set = stuck::set(&index);
    let holders = subject.holders();
    let (mut found, mut having) = (Vec::new(), Vec::new());
    for process in &snapshot.processes {
        let sentence = |thread: &Thread| Sentence {
            pid: process.pid,
            tid: thread.tid,
            on: without_times(&index, &set, process, thread),
            text: why::sentence(&index, &set, process, thread),
            stuck: set.get(&thread.tid).is_some_and(|stuck| stuck.wakers.grade > Grade::Possible),
        };
        let threads = process.threads.iter();
        if subject.is_empty() {
            let stuck = threads
                .filter(|thread| why::looks_stuck(&index, &set, process, thread, why::PATIENCE));
            found.extend(stuck.map(sentence));
            continue;
        }
        if subject.pids.contains(&process.pid) {
            found.extend(threads.map(sentence));
            if process.threads.is_empty() {
                found.push(unknown(process));
            }
            continue;
        }
        let before = found.len();
        found.extend(threads.clone().filter(|thread| subject.is_awaited_by(thread)).map(sentence));
        if found.len() == before && holders.contains(&process.pid) {
            having.extend(threads.map(sentence));
            if process.threads.is_empty() {
                having.push(unknown(process));
            }
        }
    }
    found.append(&mut having);
    found
}

/// Of a process of whose threads nothing is known.
fn unknown(process: &Process) -> Sentence {
    let what = if process.kernel {
        "is a thread of the kernel"
    } else if process.is_zombie() {
        "has ended, and its parent has not waited for it"
    } else {
        "cannot be looked into by this user"
    };
    Sentence {
        pid: process.pid,
        tid: process.pid,
        on: String::new(),
        text: format!("{} {what}", process.label()),
        stuck: false,
    }
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
    json!({ "taken_unix_ms": snapshot.taken_unix_ms, "coverage": snapshot.coverage, "waits": waits })
}
