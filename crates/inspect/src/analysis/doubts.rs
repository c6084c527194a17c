//! What could still end a wait of which everybody who could end it is stuck: a signal that is handled, a time limit that is not seen.
//!
//! Source: docs/design/inspect.md, "Who waits for ever"; `signal(7)`. A handler interrupts the call, or does what the others wait for.

use std::collections::BTreeSet;

use super::stuck::{Set, Stuck, process_is_able};
use super::wakers::{Grade, Index, is_by_process};
use crate::kind::Kind;
use crate::model::{Need, Object, Process, WaitOn};

/// A reason why somebody may be less stuck than it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// A sentence.
    pub text: String,
    /// How sure it can be at most that it is stuck.
    pub most: Grade,
}

/// All of a thread in the set.
#[must_use]
pub fn of(index: &Index<'_>, set: &Set<'_>, stuck: &Stuck<'_>) -> Vec<Doubt> {
    let mut found = Vec::new();
    if let Some(doubt) = &stuck.wait.doubt {
        let text = format!("{}: {doubt}", stuck.process.label());
        found.push(Doubt { text, most: Grade::Possible });
    }
    found.extend(in_flight(index, stuck));
    found.extend(traced(index, set, stuck.process));
    if is_lock_in_memory(index, stuck) {
        return found;
    }
    let pids: BTreeSet<u32> = stuck.wakers.by.iter().map(|waker| waker.pid).collect();
    let own = stuck.process.pid;
    let others = pids.into_iter().filter(|&pid| pid != own);
    let processes: Vec<&Process> = others.filter_map(|pid| index.snapshot.process(pid)).collect();
    // Who waits for itself alone, as for a pipe to itself, counts on whatever it handles.
    let ignored = if processes.is_empty() { 0 } else { CHILD };
    for process in std::iter::once(stuck.process).chain(processes) {
        found.extend(handlers(index, set, process, ignored));
        found.extend(traced(index, set, process).filter(|_| process.pid != own));
    }
    found
}

/// Descriptors that wait in sockets, if what is waited for is held by descriptors: whoever takes them may have an end.
fn in_flight(index: &Index<'_>, stuck: &Stuck<'_>) -> Option<Doubt> {
    use Kind::{Eventfd, Fifo, Mq, Pipe, Pty, Tcp, Udp, Unix};
    let WaitOn::Objects(targets) = &stuck.wait.on else { return None };
    let is_held = |object: &Object| match object.kind {
        Pipe | Fifo | Unix | Tcp | Udp | Mq | Eventfd | Pty => true,
        Kind::Lock => !is_by_process(object),
        _ => false,
    };
    let target = targets.iter().find(|one| index.object(&one.object).is_some_and(is_held))?;
    let socket = index.flights().first()?;
    let more = match index.flights().len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!(
        "descriptors wait in {}{more} to be taken; whoever takes them may have {}",
        socket.id, target.object
    );
    Some(Doubt { text, most: Grade::Possible })
}

/// A debugger can do with it what it likes, if it is not stuck itself, as one is that waits for nothing but whom it traces.
fn traced(index: &Index<'_>, set: &Set<'_>, process: &Process) -> Option<Doubt> {
    let tracer = index.process_of(process.tracer?)?;
    let text = format!("{} traces {}", index.snapshot.label(tracer), process.label());
    process_is_able(index, set, tracer).then_some(Doubt { text, most: Grade::Probable })
}

/// Whether it waits for a lock in memory, or a thread's end. No signal interrupts that, and no handler can unlock what its thread holds.
fn is_lock_in_memory(index: &Index<'_>, stuck: &Stuck<'_>) -> bool {
    let WaitOn::Objects(targets) = &stuck.wait.on else { return false };
    targets.iter().all(|target| {
        let object = index.object(&target.object);
        target.need == Need::Release && object.is_some_and(|object| object.kind == Kind::Futex)
    })
}

/// What a process handles; of `ignored` signals, only those that some child of it can cause.
fn handlers(index: &Index<'_>, set: &Set<'_>, process: &Process, ignored: u64) -> Option<Doubt> {
    let mut signals = process.caught_signals & !OF_ITS_OWN_DOING;
    if signals & CHILD & ignored != 0 {
        let mut all = index.snapshot.processes.iter();
        if !all.any(|one| one.parent == process.pid && process_is_able(index, set, one.pid)) {
            // Nobody whose end it would tell can end.
            signals &= !CHILD;
        }
    }
    if signals == 0 {
        return None;
    }
    // From the keyboard comes what a person does about it, and nothing that a program counts on.
    let most = if signals & !OF_A_KEYBOARD == 0 { Grade::Probable } else { Grade::Possible };
    let text = format!("{} handles {}, which can end that", process.label(), names(signals));
    Some(Doubt { text, most })
}

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Signals that a thread gets for what it does itself, and so not while it sleeps; and the two that the C library keeps for itself.
const OF_ITS_OWN_DOING: u64 = bit(4)
    | bit(5)
    | bit(6)
    | bit(7)
    | bit(8)
    | bit(11)
    | bit(13)
    | bit(25)
    | bit(31)
    | bit(32)
    | bit(33);

/// SIGCHLD.
const CHILD: u64 = bit(17);

/// SIGINT, SIGQUIT, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH.
const OF_A_KEYBOARD: u64 = bit(2) | bit(3) | bit(18) | bit(20) | bit(21) | bit(22) | bit(28);

/// By number, as on most machines.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

fn names(signals: u64) -> String {
    const MOST: usize = 4;
    let all: Vec<String> = (1..=64)
        .filter(|&signal| signals & bit(signal) != 0)
        .map(|signal| match usize::try_from(signal).ok().and_then(|at| NAMES.get(at - 1)) {
            Some(name) => (*name).to_owned(),
            None => format!("signal {signal}"),
        })
        .collect();
    match all.len().saturating_sub(MOST) {
        0 => all.join(", "),
        more => format!("{} and {more} more signals", all[..MOST].join(", ")),
    }
}
