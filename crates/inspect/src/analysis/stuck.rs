//! Which threads nobody can wake: those that wait only for such threads.
//!
//! Source: docs/design/inspect.md, "Who waits for ever". The largest set is found by beginning with all that could be
//! stuck and taking out who can be woken by somebody outside the set, until nobody more goes.

use std::collections::{BTreeMap, BTreeSet};

use super::doubts::{self, Doubt};
use super::wakers::{Grade, Index, Waker, Wakers};
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
    /// Who could wake it: all of them in the set, or gone. Its grade takes the doubts into account, and those of all on whom it rests.
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
    rest_on_others(index, &mut set);
    set
}

fn can_be_woken(index: &Index<'_>, set: &Set<'_>, wakers: &Wakers) -> bool {
    wakers.sets().all(|one| one.iter().any(|waker| is_able(index, set, waker)))
}

fn is_able(index: &Index<'_>, set: &Set<'_>, waker: &Waker) -> bool {
    match waker.tid {
        Some(tid) => thread_is_able(index, set, waker.pid, tid),
        None => process_is_able(index, set, waker.pid),
    }
}

/// Nobody is surer to wait for ever than those are on whom that rests.
fn rest_on_others(index: &Index<'_>, set: &mut Set<'_>) {
    loop {
        let lower: Vec<(u32, Grade)> = set
            .iter()
            .map(|(&tid, stuck)| (tid, rests_on(index, set, &stuck.wakers)))
            .filter(|(tid, most)| *most < set[tid].wakers.grade)
            .collect();
        if lower.is_empty() {
            return;
        }
        for (tid, most) in lower {
            if let Some(stuck) = set.get_mut(&tid) {
                stuck.wakers.grade = most;
            }
        }
    }
}

/// How sure it is that none of these acts: of several locks, one that stays is enough.
fn rests_on(index: &Index<'_>, set: &Set<'_>, wakers: &Wakers) -> Grade {
    let grade = |waker: &Waker| {
        let threads = threads_of(index, waker);
        threads.filter_map(|tid| set.get(&tid)).map(|stuck| stuck.wakers.grade).min()
    };
    wakers
        .sets()
        .filter(|one| !one.iter().any(|waker| is_able(index, set, waker)))
        // Who has ended does nothing more.
        .map(|one| one.iter().filter_map(grade).min().unwrap_or(Grade::Certain))
        .max()
        .unwrap_or(Grade::Certain)
}

/// The threads of which any will do.
fn threads_of(index: &Index<'_>, waker: &Waker) -> impl Iterator<Item = u32> {
    let process = index.snapshot.process(waker.pid).filter(|_| waker.tid.is_none());
    let all = process.map_or(&[][..], |process| &process.threads);
    waker.tid.into_iter().chain(all.iter().map(|thread| thread.tid))
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
    for one in stuck.wakers.sets() {
        // That lock will go.
        if one.iter().any(|waker| is_able(index, set, waker)) {
            continue;
        }
        let all = one.iter().flat_map(|waker| threads_of(index, waker));
        threads.extend(all.filter(|tid| set.contains_key(tid)));
    }
    threads
}
