//! The pane of processes: the blocked ones first, with the sentence of `why`, and how much each reads and writes.
//!
//! Source: docs/design/top.md; docs/design/inspect.md, "Sentences".

use serde_json::{Value, json};
use switchboard_inspect::analysis::stuck::{self, Set};
use switchboard_inspect::analysis::wakers::Index;
use switchboard_inspect::analysis::why;
use switchboard_inspect::{Process, Thread};

use super::rows::{Cell, Column, Key, Mark, Row};
use super::sample::Sample;
use crate::machine::Users;

pub(super) const COLUMNS: &[Column] = &[
    Column { title: "PID", width: 7, right: true, spare: 0 },
    Column { title: "NAME", width: 15, right: false, spare: 0 },
    Column { title: "USER", width: 8, right: false, spare: 4 },
    Column { title: "S", width: 1, right: false, spare: 3 },
    Column { title: "BLOCKED", width: 7, right: true, spare: 1 },
    Column { title: "READ/s", width: 7, right: true, spare: 2 },
    Column { title: "WRITE/s", width: 7, right: true, spare: 2 },
    Column { title: "DOES", width: 12, right: false, spare: 1 },
];

/// What of a process is shown.
pub(super) struct Doing<'a> {
    pub(super) process: &'a Process,
    /// For how long it has been blocked, in milliseconds, if it looks so and that is known.
    pub(super) blocked: Option<Option<u64>>,
    /// What it waits for.
    pub(super) sentence: String,
}

/// Every process but the kernel's: who looks stuck first, the longest of them before the others.
pub(super) fn all<'a>(index: &Index<'a>) -> Vec<Doing<'a>> {
    let set = stuck::set(index);
    let processes = index.snapshot.processes.iter().filter(|process| !process.kernel);
    let mut all: Vec<Doing<'a>> = processes.map(|process| doing(index, &set, process)).collect();
    // Who is blocked for how long nobody knows comes after those of whom it is known.
    all.sort_by_key(|one| std::cmp::Reverse(one.blocked));
    all
}

fn doing<'a>(index: &Index<'a>, set: &Set<'a>, process: &'a Process) -> Doing<'a> {
    let since =
        |thread: &Thread| thread.wait.as_ref().and_then(|wait| wait.since_ms).map(|of| of.0);
    let stuck = process
        .threads
        .iter()
        .filter(|thread| why::looks_stuck(index, set, process, thread, why::PATIENCE));
    let longest = stuck.max_by_key(|thread| since(thread));
    let thread = longest.or_else(|| process.threads.first());
    let sentence = match thread {
        Some(thread) => {
            let sentence = why::sentence(index, set, process, thread);
            let rest = sentence.strip_prefix(&process.label()).map(str::trim_start);
            rest.unwrap_or(&sentence).to_owned()
        }
        None if process.is_zombie() => "has ended, and its parent has not waited for it".to_owned(),
        None => "cannot be looked into by this user".to_owned(),
    };
    Doing { process, blocked: longest.map(since), sentence }
}

/// `3.2s`, `18m`.
fn age(ms: u64) -> String {
    match ms {
        0..100_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        100_000..7_200_000 => format!("{}m", ms / 60_000),
        7_200_000..172_800_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

pub(super) fn rows(sample: &Sample, users: &Users) -> Vec<Row> {
    let (index, rates) = (Index::new(&sample.now), sample.rates());
    let row = |one: Doing<'_>| {
        let Doing { process, blocked, sentence } = one;
        let blocked_cell = match blocked {
            None => Cell { text: String::new(), number: Some(-1.0) },
            Some(None) => Cell { text: "yes".to_owned(), number: Some(0.0) },
            Some(Some(ms)) => Cell { text: age(ms), number: Some(ms as f64) },
        };
        let rate = rates.process(process.pid);
        let pid = Cell { text: process.pid.to_string(), number: Some(-f64::from(process.pid)) };
        let mark = match blocked {
            Some(_) => Mark::Bad,
            None if process.is_stopped() || process.is_zombie() => Mark::Near,
            None => Mark::Plain,
        };
        Row {
            key: Key::Process(process.pid, process.started_ticks),
            mark,
            cells: vec![
                pid,
                Cell::text(process.name.clone()),
                Cell::text(users.name(process.uid)),
                Cell::text(process.state.to_string()),
                blocked_cell,
                Cell::number(rate.map(|rate| rate.received_bytes_per_s)),
                Cell::number(rate.map(|rate| rate.sent_bytes_per_s)),
                Cell::text(sentence),
            ],
        }
    };
    let mut rows: Vec<Row> = all(&index).into_iter().map(row).collect();
    // Of those that are not blocked, who moves most.
    let moved = |row: &Row| {
        let number = |at: usize| row.cells[at].number.unwrap_or(0.0).max(0.0);
        number(5) + number(6)
    };
    let blocked = rows.iter().take_while(|row| row.mark == Mark::Bad).count();
    rows[blocked..].sort_by(|a, b| moved(b).total_cmp(&moved(a)));
    rows
}

pub(super) fn json(sample: &Sample, most: usize) -> Value {
    let (index, rates) = (Index::new(&sample.now), sample.rates());
    let row = |one: Doing<'_>| {
        let (process, rate) = (one.process, rates.process(one.process.pid));
        json!({
            "pid": process.pid, "process": process.label(), "uid": process.uid,
            "state": process.state, "readable": process.readable,
            "blocked": one.blocked.is_some(), "blocked_ms": one.blocked.flatten(),
            "read_bytes_per_s": rate.map(|rate| rate.received_bytes_per_s),
            "written_bytes_per_s": rate.map(|rate| rate.sent_bytes_per_s),
            "does": one.sentence,
        })
    };
    all(&index).into_iter().take(most).map(row).collect()
}
