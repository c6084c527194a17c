//! What a thread that polls waits for: arrays and sets of descriptors in its memory, and what an epoll instance watches.
//!
//! Source: `poll(2)`, `select(2)`, `epoll(7)`.

use crate::join::Join;
use crate::model::{Need, Target, Via};
use crate::source::memory::Memory;
use crate::source::system_call::{Inside, Shape};

/// `POLLIN`, `POLLPRI`, `POLLRDNORM`, `POLLRDBAND`, `POLLRDHUP`: something comes from the other end.
const IN: u32 = 0x1 | 0x2 | 0x40 | 0x80 | 0x2000;
/// `POLLOUT`, `POLLWRNORM`, `POLLWRBAND`: the other end takes something.
const OUT: u32 = 0x4 | 0x100 | 0x200;
const ONE_SHOT: u32 = 1 << 30;
/// `EPOLLEXCLUSIVE`, `EPOLLWAKEUP`, `EPOLLONESHOT`, `EPOLLET`: how it is told, not what.
const WAYS: u32 = 0xf << 28;
/// The most descriptors of one poll that are looked at.
const MOST: usize = 4096;

/// The targets, whether it ends by itself; none when the set could not be read. `alone`: no other thread of the process could change what an
/// epoll instance watches.
pub(crate) fn targets<'a>(
    join: &Join,
    pid: u32,
    memory: impl FnOnce() -> &'a Memory,
    call: &Inside,
    shape: Shape,
    alone: bool,
) -> (Option<Vec<Target>>, bool) {
    match shape {
        Shape::Poll(milliseconds) => {
            let timed = if milliseconds { call.small(2) >= 0 } else { call.arguments[2] != 0 };
            (polled(join, pid, memory(), call), timed)
        }
        Shape::Select => (selected(join, pid, memory(), call), call.arguments[4] != 0),
        Shape::Epoll(milliseconds) => {
            let timed = if milliseconds { call.small(3) >= 0 } else { call.arguments[3] != 0 };
            (watched(join, pid, call.small(0), alone), timed)
        }
        _ => (None, false),
    }
}

fn polled(join: &Join, pid: u32, memory: &Memory, call: &Inside) -> Option<Vec<Target>> {
    let count = usize::try_from(call.arguments[1]).ok()?;
    if count > MOST {
        return None;
    }
    if count == 0 {
        return Some(Vec::new());
    }
    let bytes = memory.bytes(call.arguments[0], count * 8)?;
    let mut targets = Vec::new();
    for entry in bytes.chunks_exact(8) {
        let fd = i32::from_ne_bytes(entry[..4].try_into().ok()?);
        let events = u16::from_ne_bytes(entry[4..6].try_into().ok()?);
        if fd >= 0 {
            add(join, pid, fd, u32::from(events), &mut targets);
        }
    }
    Some(targets)
}

fn selected(join: &Join, pid: u32, memory: &Memory, call: &Inside) -> Option<Vec<Target>> {
    let count = usize::try_from(call.small(0)).ok()?;
    if count > MOST {
        return None;
    }
    let mut targets = Vec::new();
    for (at, events) in [(1, IN), (2, OUT), (3, IN)] {
        if call.arguments[at] == 0 || count == 0 {
            continue;
        }
        let bytes = memory.bytes(call.arguments[at], count.div_ceil(64) * 8)?;
        for fd in 0..count {
            if bytes[fd / 8] >> (fd % 8) & 1 == 1 {
                add(join, pid, i32::try_from(fd).ok()?, events, &mut targets);
            }
        }
    }
    Some(targets)
}

fn watched(join: &Join, pid: u32, epoll: i32, alone: bool) -> Option<Vec<Target>> {
    let at = join.by_descriptor(pid, epoll)?;
    let all = join.watched_by(at);
    if all.len() > MOST {
        return None;
    }
    let mut targets = Vec::new();
    for &(fd, inode, events) in all {
        let fired = events & ONE_SHOT != 0 && events & !WAYS == 0;
        if fired && alone {
            // Nobody is left who could arm it again.
            continue;
        }
        let wanted = join.by_descriptor(pid, fd).filter(|&at| leads_to(join, at, inode));
        match wanted.or_else(|| join.by_inode(inode)).filter(|_| !fired) {
            Some(at) => of_object(join, at, (pid, fd), events, &mut targets),
            None => {
                targets.push(Target { fd: Some(fd), ..Target::new(unknown(pid, fd), Need::Data) })
            }
        }
    }
    Some(targets)
}

/// Whether an object can be what epoll watches under this inode; those without a file share one inode.
fn leads_to(join: &Join, at: usize, inode: u64) -> bool {
    let object = &join.objects[at];
    let by_inode = matches!(
        object.kind,
        crate::Kind::Pipe | crate::Kind::Unix | crate::Kind::Tcp | crate::Kind::Udp
    );
    !by_inode || object.id.ends_with(&format!(":{inode}"))
}

fn add(join: &Join, pid: u32, fd: i32, events: u32, targets: &mut Vec<Target>) {
    match join.by_descriptor(pid, fd) {
        Some(at) => of_object(join, at, (pid, fd), events, targets),
        None => targets.push(Target { fd: Some(fd), ..Target::new(unknown(pid, fd), Need::Data) }),
    }
}

/// What is asked for; and a hang-up and an error, which are always told: to who only writes by who reads, and the other way round.
fn of_object(
    join: &Join,
    at: usize,
    (pid, fd): (u32, i32),
    events: u32,
    targets: &mut Vec<Target>,
) {
    let object = &join.objects[at];
    let end = object.ends.iter().find(|end| end.pid == pid && end.via == Via::Fd(fd));
    let (reads, writes) = end.map_or((true, true), |end| (end.reads, end.writes));
    let room = events & OUT != 0 || !reads;
    let data = events & IN != 0 || !writes || !room;
    for (wanted, need) in [(data, Need::Data), (room, Need::Room)] {
        if wanted {
            targets.push(Target { fd: Some(fd), ..Target::new(&*object.id, need) });
        }
    }
}

/// What stands for a descriptor of which nothing is known: it could become ready at any time.
pub(crate) fn unknown(pid: u32, fd: i32) -> String {
    format!("pid:{pid}/fd:{fd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Found;
    use crate::kind::Kinds;
    use crate::model::{Process, Viewer};
    use crate::source::descriptors::{Descriptor, What};
    use crate::source::folder::Folder;

    const PID: u32 = 7;

    /// Of a process with the ends of a pipe at 3 and 4, a socket at 5, and an epoll instance at 6 that watches so.
    fn join(watches: Vec<(i32, u64, u32)>) -> Join {
        let pipe = || What::Pipe { inode: 30, owner: (0, 0, 0o600) };
        let one = |fd, reads, writes, what| Descriptor { fd, reads, writes, what };
        let process = Process { pid: PID, readable: true, ..Process::default() };
        let descriptors = vec![
            one(3, true, false, pipe()),
            one(4, false, true, pipe()),
            one(5, true, true, What::Socket(50)),
            one(6, true, true, What::Epoll(Some(watches))),
        ];
        let mut join = Join::new(Kinds::ALL, Viewer::default(), true, false);
        join.processes(&[Found { process, descriptors, ..Found::default() }], &[]);
        join
    }

    fn in_words(targets: Option<Vec<Target>>) -> Option<Vec<String>> {
        let each = |target: &Target| format!("{:?} {}", target.need, target.object);
        Some(targets?.iter().map(each).collect())
    }

    #[test]
    fn whatever_is_asked_for_a_hang_up_is_told() {
        const RDHUP: u32 = 0x2000;
        const HUP_AND_ERR: u32 = 0x18;
        for (fd, inode, events, expected) in [
            (3, 30, 0x1, &["Data pipe:30"][..]),
            (3, 30, 0, &["Data pipe:30"]),
            (3, 30, 0x2, &["Data pipe:30"]),
            (3, 30, HUP_AND_ERR, &["Data pipe:30"]),
            (3, 30, 0x4, &["Data pipe:30", "Room pipe:30"]),
            (4, 30, 0x4, &["Room pipe:30"]),
            (4, 30, 0, &["Room pipe:30"]),
            (5, 50, RDHUP, &["Data socket:50"]),
            (5, 50, 0, &["Data socket:50"]),
            (5, 50, 0x4, &["Room socket:50"]),
            (5, 50, 0x1 | 0x4, &["Data socket:50", "Room socket:50"]),
            (9, 90, RDHUP, &["Data pid:7/fd:9"]),
        ] {
            let expected: Vec<String> = expected.iter().map(|&text| text.to_owned()).collect();
            // An entry that is left out, and this one.
            let entries = [[u32::MAX, 1], [u32::try_from(fd).expect("small"), events]];
            let own = Folder::open("/proc/self").expect("this process");
            let address = entries.as_ptr().addr() as u64;
            let call = Inside { number: 0, arguments: [address, 2, 0, 0, 0, 0], stack: u64::MAX };
            let found = polled(&join(Vec::new()), PID, &Memory::of(&own), &call);
            assert_eq!(in_words(found).as_ref(), Some(&expected), "poll {fd} {events:#x}");
            let found = watched(&join(vec![(fd, inode, events)]), PID, 6, true);
            assert_eq!(in_words(found), Some(expected), "epoll {fd} {events:#x}");
        }
    }

    #[test]
    fn one_that_has_fired_waits_for_who_arms_it() {
        let join = join(vec![(3, 30, 0x1), (5, 50, ONE_SHOT)]);
        assert_eq!(in_words(watched(&join, PID, 6, true)), Some(vec!["Data pipe:30".to_owned()]));
        let among_others = in_words(watched(&join, PID, 6, false)).expect("a set");
        assert_eq!(among_others, ["Data pipe:30", "Data pid:7/fd:5"]);
    }

    #[test]
    fn a_set_that_is_too_large_is_not_known() {
        let many = |count| join(vec![(3, 30, 1); count]);
        assert_eq!(watched(&many(MOST), PID, 6, true).map(|all| all.len()), Some(MOST));
        assert_eq!(watched(&many(MOST + 1), PID, 6, true), None);
    }
}
