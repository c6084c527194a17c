//! One sentence for a thread that waits: on what, since when, who can wake it, and whether they can.
//!
//! Source: docs/design/inspect.md, "Sentences".

use std::time::Duration;

use super::peers::far_sides;
use super::stuck::{self, Set};
use super::wakers::{Grade, Index, Waker, Wakers};
use crate::kind::Kind;
use crate::model::{Need, Object, Process, Target, Thread, Wait, WaitOn};

/// The sentence.
#[must_use]
pub fn sentence(index: &Index<'_>, set: &Set<'_>, process: &Process, thread: &Thread) -> String {
    let who = name(index, process, thread);
    let Some(wait) = &thread.wait else {
        let state = match thread.state {
            'R' => "runs",
            'D' => "is in the kernel and cannot be interrupted",
            'Z' | 'X' => "has ended, and its parent has not waited for it",
            _ if is_stopped(process, thread) => stop(process, thread),
            _ => "sleeps; what it waits for cannot be read by this user",
        };
        return format!("{who} {state}");
    };
    let stopped = is_stopped(process, thread);
    if let (true, WaitOn::Other(_)) = (stopped, &wait.on) {
        let since = age(wait);
        let since = if since.is_empty() { since } else { format!(" for{since}") };
        let (what, _) = what(index, process, wait);
        return format!("{who} {}{since}, {what}", stop(process, thread));
    }
    let stopped = if stopped { format!(" {}, and", stop(process, thread)) } else { String::new() };
    let wakers = index.wakers(process, thread, wait);
    let timed = if wait.timed { ", until its timeout" } else { "" };
    let (what, role) = what(index, process, wait);
    let culprits = if wait.timed && wakers.open.is_some() {
        String::new()
    } else {
        culprits(index, set, (process, thread), wait, &wakers, role)
    };
    format!("{who}{stopped} has waited{} {what}{timed}{culprits}", age(wait))
}

/// A thread's name: that of the process, and its own where there are several; and who traces it.
fn name(index: &Index<'_>, process: &Process, thread: &Thread) -> String {
    let traced = process.tracer.map_or_else(String::new, |tid| {
        let tracer = index.process_of(tid).unwrap_or(tid);
        format!(" (traced by {})", index.snapshot.label(tracer))
    });
    if process.threads.len() > 1 {
        format!("{} thread {} ({}){traced}", process.label(), thread.tid, thread.name)
    } else {
        process.label() + &traced
    }
}

fn is_stopped(process: &Process, thread: &Thread) -> bool {
    process.is_stopped() || matches!(thread.state, 'T' | 't')
}

/// What stopped it.
fn stop(process: &Process, thread: &Thread) -> &'static str {
    match (process.state, thread.state) {
        ('t', _) | (_, 't') => "is stopped by its debugger",
        _ => "is stopped (SIGSTOP)",
    }
}

/// ` 18 m`, with how far that may be wrong where it matters.
fn age(wait: &Wait) -> String {
    let Some((ms, uncertain)) = wait.since_ms else { return String::new() };
    let text = duration(ms);
    if ms < uncertain.saturating_mul(10) {
        format!(" {text} (±{uncertain} ms)")
    } else {
        format!(" {text}")
    }
}

fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        120_000..7_200_000 => format!("{} m", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// What is waited for, and what those are who can end it: `reader`, `holder`.
fn what(index: &Index<'_>, process: &Process, wait: &Wait) -> (String, &'static str) {
    match &wait.on {
        WaitOn::Objects(targets) if targets.len() == 1 => of_target(index, process, &targets[0]),
        WaitOn::Objects(targets) => {
            const MOST: usize = 6;
            let mut each: Vec<String> = Vec::new();
            for target in targets {
                let object = index.object(&target.object);
                let state = object.map_or_else(String::new, |object| full(object, target.need));
                let text = format!("{}{state}", target.object);
                if !each.contains(&text) {
                    each.push(text);
                }
            }
            let more = each.len().saturating_sub(MOST);
            each.truncate(MOST);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            (format!("for any of {}{more}", each.join(", ")), "other end")
        }
        WaitOn::Children(children) if children.len() == 1 => {
            let child = index.snapshot.label(children[0]);
            let one = index.snapshot.process(children[0]);
            let is_own = |tid: u32| process.threads.iter().any(|thread| thread.tid == tid);
            if one.is_some_and(|one| one.parent != process.pid || one.tracer.is_some_and(is_own)) {
                return (format!("for {child}, which it traces, to stop or end"), "tracee");
            }
            let more = if makes_a_child(wait) { " or to start its program" } else { "" };
            (format!("for its child {child} to end{more}"), "child")
        }
        WaitOn::Children(children)
            if children
                .iter()
                .filter_map(|&pid| index.snapshot.process(pid))
                .any(|one| one.parent != process.pid) =>
        {
            let all: Vec<String> =
                children.iter().take(6).map(|&pid| index.snapshot.label(pid)).collect();
            let more = children.len().saturating_sub(all.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            (format!("for any that it started or traces: {}{more}", all.join(", ")), "child")
        }
        WaitOn::Children(children) => {
            (format!("for any of its {} children to end", children.len()), "child")
        }
        WaitOn::Signal => ("for a signal".to_owned(), "sender"),
        WaitOn::Time => ("for time to pass".to_owned(), "clock"),
        WaitOn::Other(text) if wait.call.is_empty() => (text.clone(), ""),
        WaitOn::Other(text) if text.is_empty() => (format!("in {}", wait.call), ""),
        WaitOn::Other(text) => (format!("in {} on {text}", wait.call), ""),
    }
}

fn makes_a_child(wait: &Wait) -> bool {
    matches!(wait.call.as_str(), "clone" | "vfork")
}

fn of_target(index: &Index<'_>, process: &Process, target: &Target) -> (String, &'static str) {
    let object = index.object(&target.object);
    let shown = match object {
        Some(object) => named(object),
        None => target.object.clone(),
    };
    let state = object.map_or_else(String::new, |object| full(object, target.need));
    let detail = target.detail.as_ref().map_or_else(String::new, |detail| format!(" ({detail})"));
    let socket = object.is_some_and(super::peers::is_connected);
    match target.need {
        Need::Data if object.is_some_and(Object::is_listening) => {
            (format!("for a client at {shown}{state}"), "client")
        }
        Need::Data => (
            format!("to read from {shown}{state}{detail}"),
            if socket { "other end" } else { "writer" },
        ),
        Need::Room => {
            (format!("to write to {shown}{state}"), if socket { "other end" } else { "reader" })
        }
        Need::Delivery => (format!("to send to {shown}{state}"), "receiver"),
        Need::Client => (format!("for a client at {shown}{state}"), "client"),
        Need::Acceptance => (format!("to be accepted at {shown}{state}"), "listener"),
        Need::Reader => (format!("for somebody to open {shown} for reading"), "reader"),
        Need::Writer => (format!("for somebody to open {shown} for writing"), "writer"),
        Need::Release => {
            let own = target
                .owners
                .iter()
                .all(|&owner| owner == process.pid || index.process_of(owner) == Some(process.pid));
            let role = if own && !target.owners.is_empty() { "holder" } else { "owner" };
            let dead = target.dead_owner.map_or_else(String::new, |dead| {
                format!(", locked by thread {dead}, which is no more")
            });
            (format!("for {shown}{detail}{dead}"), role)
        }
        Need::Count | Need::Change => {
            let dead = target.dead_owner.map_or_else(String::new, |dead| {
                format!(", last used by process {dead}, which is no more")
            });
            let role =
                if target.owners.is_empty() { "process that could wake it" } else { "last user" };
            (format!("for {shown}{detail}{dead}"), role)
        }
    }
}

/// An object with a name that people know it by.
fn named(object: &Object) -> String {
    match object.names.last() {
        Some(name) => format!("{} {name}", object.id),
        None => object.id.clone(),
    }
}

/// ` (full, 65536/65536)`.
fn full(object: &Object, need: Need) -> String {
    let amount = match (object.fill, object.size) {
        (Some(fill), Some(size)) => format!("{fill}/{size}"),
        (Some(fill), None) => fill.to_string(),
        _ => String::new(),
    };
    let word = match (need, object.fill) {
        (Need::Room, _) if object.kind == Kind::Unix => {
            return object.details.get("sent and not read").map_or_else(
                || " (full)".to_owned(),
                |unread| format!(" (full, {unread} bytes of memory unread)"),
            );
        }
        // How many datagrams wait, the kernel does not say.
        (Need::Delivery, _) => return " (full)".to_owned(),
        (Need::Room, _) => "full",
        (Need::Acceptance, _) => "backlog full",
        (Need::Data, Some(0)) => "empty",
        _ => return String::new(),
    };
    if amount.is_empty() { format!(" ({word})") } else { format!(" ({word}, {amount})") }
}

/// `; its only reader logger[790] is stopped`.
fn culprits(
    index: &Index<'_>,
    set: &Set<'_>,
    (process, own): (&Process, &Thread),
    wait: &Wait,
    wakers: &Wakers,
    role: &str,
) -> String {
    const MOST: usize = 4;
    if wakers.by.is_empty() {
        return match wakers.open {
            Some(_) if role.is_empty() || role == "clock" || role == "sender" => String::new(),
            Some(open) => format!("; {open} can end that"),
            // There may be others who were not known to.
            None if wakers.grade == Grade::Possible => {
                "; nobody is left who is known to be able to end that".to_owned()
            }
            None => "; nobody who could end that is left".to_owned(),
        };
    }
    let mut shown: Vec<String> = Vec::new();
    let mut pids: Vec<u32> = wakers.by.iter().map(|waker| waker.pid).collect();
    pids.dedup();
    for &pid in pids.iter().take(MOST) {
        let mut of_it = wakers.by.iter().filter(|waker| waker.pid == pid);
        let waker = of_it.next().copied().unwrap_or(Waker { pid, tid: None });
        let exact = of_it.next().is_none();
        let label = if pid == process.pid {
            match waker.tid.filter(|&tid| exact && tid != own.tid) {
                Some(tid) => format!("its own thread {tid}"),
                None => "itself".to_owned(),
            }
        } else {
            index.snapshot.label(pid)
        };
        let able = ability(index, set, if exact { waker } else { Waker { pid, tid: None } });
        let text = format!("{label} {able}");
        let text = text.replacen("itself is stuck itself", "itself is stuck", 1);
        shown.push(text.replacen("itself may be stuck itself", "itself may be stuck", 1));
    }
    let more = pids.len().saturating_sub(MOST);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let unaccepted = match &wait.on {
        WaitOn::Objects(targets) if targets.len() == 1 => {
            index.object(&targets[0].object).is_some_and(|object| {
                far_sides(index.snapshot, object).iter().any(|far| far.is_listening())
            })
        }
        _ => false,
    };
    let role = if unaccepted { "listener" } else { role };
    let only = if pids.len() == 1 && wakers.open.is_none() {
        match role {
            "owner" | "holder" | "listener" | "child" | "last user" => "its ",
            _ => "its only ",
        }
    } else {
        ""
    };
    let others = wakers.open.map_or_else(String::new, |open| format!("; {open} can end that, too"));
    if pids.len() == 1 {
        let role = if role.is_empty() { "other end" } else { role };
        format!("; {only}{role} {}{others}", shown[0])
    } else {
        let quantity = if wakers.each.len() > 1 { "all" } else { "any" };
        format!("; {quantity} of these can end that: {}{more}{others}", shown.join(", "))
    }
}

/// Whether somebody can do it: `is stopped (SIGSTOP)`.
fn ability(index: &Index<'_>, set: &Set<'_>, waker: Waker) -> String {
    let Some(process) = index.snapshot.process(waker.pid) else { return "has ended".to_owned() };
    if process.is_zombie() {
        return "has ended, and its parent has not waited for it".to_owned();
    }
    if process.is_stopped() {
        let by_debugger = process.state == 't';
        let what = if by_debugger { "is stopped by its debugger" } else { "is stopped (SIGSTOP)" };
        return what.to_owned();
    }
    let stuck = match waker.tid {
        Some(tid) => set.contains_key(&tid),
        None => !stuck::process_is_able(index, set, waker.pid),
    };
    let thread = match waker.tid {
        Some(tid) => process.threads.iter().find(|thread| thread.tid == tid),
        None => process.threads.first(),
    };
    let Some(thread) = thread else { return "cannot be looked into".to_owned() };
    let doing = match &thread.wait {
        Some(wait) if wait.timed => format!("sleeps in {} for a time", wait.call),
        Some(wait) if !wait.call.is_empty() => {
            let on = match &wait.on {
                WaitOn::Objects(targets) if targets.len() == 1 => {
                    format!(" on {}", targets[0].object)
                }
                _ => String::new(),
            };
            format!("waits in {}{on}", wait.call)
        }
        Some(_) => "sleeps".to_owned(),
        None if thread.state == 'R' => "runs".to_owned(),
        None => "sleeps, on what cannot be read".to_owned(),
    };
    if !stuck {
        return doing;
    }
    let own = set.values().filter(|stuck| match waker.tid {
        Some(tid) => stuck.thread.tid == tid,
        None => stuck.process.pid == waker.pid,
    });
    let sure = own.map(|stuck| stuck.wakers.grade).min() > Some(Grade::Possible);
    let word = if sure { "is" } else { "may be" };
    format!("{word} stuck itself: it {doing}")
}

/// After so long, a wait for a lock, for room or for somebody at the other end looks as if something were wrong.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a thread looks as if something were wrong, and not as if it merely had nothing to do.
#[must_use]
pub fn looks_stuck(
    index: &Index<'_>,
    set: &Set<'_>,
    process: &Process,
    thread: &Thread,
    patience: Duration,
) -> bool {
    let Some(wait) = &thread.wait else { return false };
    if wait.timed || wait.steady == Some(false) || process.is_stopped() {
        return false;
    }
    let wakers = index.wakers(process, thread, wait);
    if let Some(stuck) = set.get(&thread.tid)
        && stuck.wakers.grade > Grade::Possible
    {
        return true;
    }
    let halted = |waker: &Waker| {
        index
            .snapshot
            .process(waker.pid)
            .is_none_or(|other| other.is_stopped() || other.is_zombie())
    };
    if wakers.open.is_none() && !wakers.by.is_empty() && wakers.by.iter().all(halted) {
        return true;
    }
    let long = wait.since_ms.is_none_or(|(ms, _)| Duration::from_millis(ms) >= patience);
    let wants = |need: Need| {
        use Need::{Acceptance, Delivery, Reader, Release, Room, Writer};
        matches!(need, Room | Delivery | Release | Acceptance | Reader | Writer)
    };
    match &wait.on {
        WaitOn::Objects(targets) => {
            let joins = targets.iter().all(|t| t.detail.as_deref() == Some("end of a thread"));
            long && !joins && targets.iter().all(|target| wants(target.need))
        }
        _ => false,
    }
}
