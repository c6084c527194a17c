//! Which threads nobody can wake: those that wait only for such threads.
//!
//! Source: docs/design/inspect.md, "Who waits for ever". The largest set is found by beginning with all that could be
//! stuck and taking out who can be woken by somebody outside the set, until nobody more goes.

use std::collections::{BTreeMap, BTreeSet};

use super::doubts::{self, Doubt};
use super::wakers::{Index, Wakers};
use crate::model::{Process, Thread, Wait};

/// A thread in the set.
#[derive(Clone, Debug)]
pub struct Stuck<'a> {
    /// Its process.
    pub process: &'a Process,
    /// The thread.
    pub thread: &'a Thread,
    /// What it waits in.
    pub wait: &'a Wait,
    /// Who could wake it: all of them in the set, or gone. Its grade takes the doubts into account.
    pub wakers: Wakers,
    /// What could wake it all the same.
    pub doubts: Vec<Doubt>,
}

/// The set, by thread id.
pub type Set<'a> = BTreeMap<u32, Stuck<'a>>;

/// The threads that nobody outside the set can wake.
#[must_use]
pub fn set<'a>(index: &Index<'a>) -> Set<'a> {
    let mut set = Set::new();
    for process in &index.snapshot.processes {
        // One that is stopped can be continued.
        if process.is_stopped() {
            continue;
        }
        for thread in &process.threads {
            let Some(wait) = &thread.wait else { continue };
            if wait.timed || wait.steady == Some(false) || matches!(thread.state, 'R' | 'T' | 't') {
                continue;
            }
            let wakers = index.wakers(process, thread, wait);
            if wakers.open.is_none() {
                set.insert(thread.tid, Stuck { process, thread, wait, wakers, doubts: Vec::new() });
            }
        }
    }
    loop {
        let free: Vec<u32> = set
            .iter()
            .filter(|(_, stuck)| can_be_woken(index, &set, &stuck.wakers))
            .map(|(tid, _)| *tid)
            .collect();
        if free.is_empty() {
            break;
        }
        for tid in free {
            set.remove(&tid);
        }
    }
    let all: Vec<(u32, Vec<Doubt>)> =
        set.iter().map(|(&tid, stuck)| (tid, doubts::of(index, &set, stuck))).collect();
    for (tid, doubts) in all {
        let Some(stuck) = set.get_mut(&tid) else { continue };
        let most = doubts.iter().map(|doubt| doubt.most).min();
        stuck.wakers.grade = most.map_or(stuck.wakers.grade, |most| most.min(stuck.wakers.grade));
        stuck.doubts = doubts;
    }
    set
}

fn can_be_woken(index: &Index<'_>, set: &Set<'_>, wakers: &Wakers) -> bool {
    let mut able = wakers.by.iter().map(|waker| match waker.tid {
        Some(tid) => thread_is_able(index, set, waker.pid, tid),
        None => process_is_able(index, set, waker.pid),
    });
    if wakers.every {
        !wakers.by.is_empty() && able.all(|able| able)
    } else {
        able.any(|able| able)
    }
}

fn thread_is_able(index: &Index<'_>, set: &Set<'_>, pid: u32, tid: u32) -> bool {
    let process = index.snapshot.process(pid);
    process.is_some_and(|process| !process.is_zombie()) && !set.contains_key(&tid)
}

/// Whether a thread of a process is outside the set.
#[must_use]
pub fn process_is_able(index: &Index<'_>, set: &Set<'_>, pid: u32) -> bool {
    let Some(process) = index.snapshot.process(pid) else { return false };
    if process.is_zombie() {
        return false;
    }
    // Nothing is known of its threads: it may do anything.
    process.threads.is_empty()
        || process.threads.iter().any(|thread| !set.contains_key(&thread.tid))
}

/// The threads in the set that a thread waits for.
#[must_use]
pub fn waits_for(index: &Index<'_>, set: &Set<'_>, stuck: &Stuck<'_>) -> BTreeSet<u32> {
    let mut threads = BTreeSet::new();
    for waker in &stuck.wakers.by {
        match waker.tid {
            Some(tid) => {
                threads.extend(Some(tid).filter(|tid| set.contains_key(tid)));
            }
            None => {
                if stuck.wakers.every && process_is_able(index, set, waker.pid) {
                    continue;
                }
                let process = index.snapshot.process(waker.pid);
                let all = process.into_iter().flat_map(|process| &process.threads);
                threads.extend(all.map(|thread| thread.tid).filter(|tid| set.contains_key(tid)));
            }
        }
    }
    threads
}
