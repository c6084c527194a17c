//! How full things are, and who waits because they are: pipes, sockets, queues, listeners.
//!
//! Source: docs/design/top.md, "Pressure".

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::kind::Kind;
use crate::model::{Need, Object, Snapshot, WaitOn};

/// How full one object is.
#[derive(Clone, Copy, Debug)]
pub struct Pressure<'a> {
    /// The object.
    pub object: &'a Object,
    /// How much of what it holds at most is in it, from 0 to 1; none where the kernel does not say both.
    pub part: Option<f64>,
    /// Threads that wait for room in it, or to be accepted, and for nothing else.
    pub blocked: u32,
    /// Threads that wait for something to be in it, among other things perhaps.
    pub waiting: u32,
}

/// What the fill of an object is counted in.
#[must_use]
pub fn unit(object: &Object) -> &'static str {
    match object.kind {
        Kind::Mq => "messages",
        Kind::Eventfd => "",
        Kind::Unix | Kind::Tcp if object.is_listening() => "connections",
        _ => "bytes",
    }
}

/// Everything that can be full, the most pressing first: where somebody waits for room, then by how full it is.
#[must_use]
pub fn all(snapshot: &Snapshot) -> Vec<Pressure<'_>> {
    let waiters = waiters(snapshot);
    let mut all: Vec<Pressure<'_>> = (snapshot.objects.iter())
        .filter(|object| can_be_full(object.kind))
        .map(|object| {
            let (blocked, waiting) = waiters.get(object.id.as_str()).copied().unwrap_or_default();
            // Whatever its bytes say: who wants to put something in cannot. A pipe is full when all its pages are in use.
            let part = if blocked > 0 { Some(1.0) } else { part(object) };
            Pressure { object, part, blocked, waiting }
        })
        .collect();
    all.sort_by(|a, b| more_pressing(b, a));
    all
}

/// Which of two is more pressing.
fn more_pressing(a: &Pressure<'_>, b: &Pressure<'_>) -> Ordering {
    let part = |one: &Pressure<'_>| one.part.unwrap_or(-1.0);
    (a.blocked > 0)
        .cmp(&(b.blocked > 0))
        .then(part(a).total_cmp(&part(b)))
        .then(a.blocked.cmp(&b.blocked))
        .then(a.object.fill.cmp(&b.object.fill))
        .then(a.waiting.cmp(&b.waiting))
}

fn can_be_full(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Pipe
            | Kind::Fifo
            | Kind::Unix
            | Kind::Tcp
            | Kind::Udp
            | Kind::Mq
            | Kind::SysvMsg
            | Kind::Eventfd
            | Kind::Pty
    )
}

/// The fuller one of both directions.
fn part(object: &Object) -> Option<f64> {
    let of = |used: u64, most: u64| (most > 0).then(|| (used as f64 / most as f64).min(1.0));
    let own = object.fill.zip(object.size).and_then(|(fill, size)| of(fill, size));
    if own.is_some() || object.is_listening() {
        return own;
    }
    let socket = object.socket?;
    // A socket that nothing was sent on has one byte of memory in use.
    let memory = |(used, most): (u32, u32)| of(u64::from(used.saturating_sub(1)), u64::from(most));
    let (received, sent) = (socket.received.and_then(memory), socket.sent.and_then(memory));
    match (received, sent) {
        (Some(received), Some(sent)) => Some(received.max(sent)),
        (one, other) => one.or(other),
    }
}

/// By object: how many threads wait for room in it, and how many for something in it.
fn waiters(snapshot: &Snapshot) -> HashMap<&str, (u32, u32)> {
    let mut waiters: HashMap<&str, (u32, u32)> = HashMap::new();
    let threads = snapshot.processes.iter().flat_map(|process| &process.threads);
    for wait in threads.filter_map(|thread| thread.wait.as_ref()) {
        let WaitOn::Objects(targets) = &wait.on else { continue };
        let for_room = |need| matches!(need, Need::Room | Need::Delivery | Need::Acceptance);
        let blocked = targets.iter().all(|target| for_room(target.need));
        for target in targets {
            let (room, data) = waiters.entry(&target.object).or_default();
            if blocked {
                *room = room.saturating_add(1);
            } else if matches!(target.need, Need::Data | Need::Client) {
                *data = data.saturating_add(1);
            }
        }
    }
    waiters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Process, SocketUse, Target, Thread, Wait};

    fn object(kind: Kind, id: &str, fill: Option<u64>, size: Option<u64>) -> Object {
        Object { fill, size, ..Object::new(kind, id) }
    }

    #[test]
    fn parts() {
        let socket = |received, sent| {
            let usage = SocketUse { received, sent, ..SocketUse::default() };
            Object { socket: Some(usage), ..object(Kind::Tcp, "tcp:1", Some(0), None) }
        };
        for (object, expected) in [
            (object(Kind::Pipe, "pipe:1", Some(32768), Some(65536)), Some(0.5)),
            (object(Kind::Pipe, "pipe:1", Some(0), Some(65536)), Some(0.0)),
            (object(Kind::Pipe, "pipe:1", Some(9), Some(3)), Some(1.0)),
            (object(Kind::Pipe, "pipe:1", Some(9), Some(0)), None),
            (object(Kind::Pipe, "pipe:1", None, Some(65536)), None),
            (object(Kind::Eventfd, "eventfd:1", Some(u64::MAX), None), None),
            (socket(Some((26, 100)), Some((51, 100))), Some(0.5)),
            (socket(None, Some((1, 100))), Some(0.0)),
            (socket(Some((9, 0)), None), None),
            (socket(None, None), None),
        ] {
            assert_eq!(part(&object), expected, "{object:?}");
        }
        let mut listener = socket(Some((26, 100)), None);
        listener.state = Some("listening".into());
        assert_eq!(part(&listener), None, "how many may wait is not known");
    }

    #[test]
    fn who_waits_for_room_comes_first() {
        let mut snapshot = Snapshot::default();
        for (kind, id, fill, size) in [
            (Kind::Pipe, "pipe:1", 0, 65536),
            (Kind::Pipe, "pipe:2", 60000, 65536),
            (Kind::Pipe, "pipe:3", 100, 65536),
            (Kind::SysvShm, "sysv-shm:1", 1, 1),
        ] {
            snapshot.objects.push(object(kind, id, Some(fill), Some(size)));
        }
        let thread = |tid, targets: &[(&str, Need)]| {
            let targets = targets.iter().map(|(id, need)| Target::new(*id, *need)).collect();
            let wait = Wait {
                call: "x".to_owned(),
                channel: None,
                on: WaitOn::Objects(targets),
                timed: false,
                doubt: None,
                steady: None,
                since_ms: None,
            };
            Thread { tid, wait: Some(wait), ..Thread::default() }
        };
        let threads = vec![
            thread(1, &[("pipe:3", Need::Room)]),
            thread(2, &[("pipe:1", Need::Data)]),
            // Whoever waits for any of several is not blocked by one of them.
            thread(3, &[("pipe:2", Need::Room), ("pipe:1", Need::Data)]),
        ];
        snapshot.processes.push(Process { pid: 1, threads, ..Process::default() });
        let found = all(&snapshot);
        let shown: Vec<_> =
            found.iter().map(|one| (&*one.object.id, one.blocked, one.waiting)).collect();
        assert_eq!(shown, [("pipe:3", 1, 0), ("pipe:2", 0, 0), ("pipe:1", 0, 2)]);
        assert_eq!(found[0].part, Some(1.0));
    }

    #[test]
    fn units() {
        for (kind, state, expected) in [
            (Kind::Pipe, None, "bytes"),
            (Kind::Unix, None, "bytes"),
            (Kind::Unix, Some("listening"), "connections"),
            (Kind::Mq, None, "messages"),
            (Kind::Eventfd, None, ""),
        ] {
            let state = state.map(Into::into);
            assert_eq!(unit(&Object { state, ..Object::new(kind, "x") }), expected);
        }
    }
}
