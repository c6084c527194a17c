//! What a thread that polls waits for: arrays and sets of descriptors in its memory, and what an epoll instance watches.
//!
//! Source: `poll(2)`, `select(2)`, `epoll(7)`.

use crate::join::Join;
use crate::kind::Kind;
use crate::model::{Need, Target, Via};
use crate::source::memory::Memory;
use crate::source::system_call::arguments::{poll_entries, select_set};
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
/// The most epoll instances in each other that are looked into; the kernel allows five.
const DEEPEST: usize = 8;

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
            (polled(join, pid, memory(), call, alone), timed)
        }
        Shape::Select => (selected(join, pid, memory(), call, alone), call.arguments[4] != 0),
        Shape::Epoll(milliseconds) => {
            let timed = if milliseconds { call.small(3) >= 0 } else { call.arguments[3] != 0 };
            (watched(join, pid, call.small(0), alone), timed)
        }
        _ => (None, false),
    }
}

fn polled(
    join: &Join,
    pid: u32,
    memory: &Memory,
    call: &Inside,
    alone: bool,
) -> Option<Vec<Target>> {
    let count = usize::try_from(call.arguments[1]).ok()?;
    if count > MOST {
        return None;
    }
    if count == 0 {
        return Some(Vec::new());
    }
    let bytes = memory.bytes(call.arguments[0], count * 8)?;
    let mut targets = Vec::new();
    for (fd, events) in poll_entries(&bytes) {
        if fd >= 0 {
            add(join, (pid, fd), u32::from(events), alone, &mut targets);
        }
    }
    Some(targets)
}

fn selected(
    join: &Join,
    pid: u32,
    memory: &Memory,
    call: &Inside,
    alone: bool,
) -> Option<Vec<Target>> {
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
        for fd in select_set(&bytes, count) {
            add(join, (pid, fd), events, alone, &mut targets);
        }
    }
    Some(targets)
}

fn watched(join: &Join, pid: u32, epoll: i32, alone: bool) -> Option<Vec<Target>> {
    let mut targets = Vec::new();
    inside(join, join.by_descriptor(pid, epoll)?, pid, alone, (0, &mut 0), &mut targets)?;
    Some(targets)
}

/// What an epoll instance watches; of an instance among that, what it watches in turn. None if that is too much.
fn inside(
    join: &Join,
    at: usize,
    pid: u32,
    alone: bool,
    (depth, seen): (usize, &mut usize),
    targets: &mut Vec<Target>,
) -> Option<()> {
    let all = join.watched_by(at);
    *seen = seen.saturating_add(all.len());
    if *seen > MOST || depth > DEEPEST {
        return None;
    }
    for &(fd, inode, events) in all {
        let fired = events & ONE_SHOT != 0 && events & !WAYS == 0;
        if fired && alone {
            // Nobody is left who could arm it again.
            continue;
        }
        let wanted = join.by_descriptor(pid, fd).filter(|&at| leads_to(join, at, inode));
        match wanted.or_else(|| join.by_inode(inode)).filter(|_| !fired) {
            Some(at) if join.objects[at].kind == Kind::Epoll => {
                inside(join, at, pid, alone, (depth + 1, seen), targets)?;
            }
            Some(at) => of_object(join, at, (pid, fd), events, targets),
            None => targets.push(not_known(pid, fd)),
        }
    }
    Some(())
}

/// Whether an object can be what epoll watches under this inode; those without a file share one inode.
fn leads_to(join: &Join, at: usize, inode: u64) -> bool {
    let object = &join.objects[at];
    let by_inode = matches!(object.kind, Kind::Pipe | Kind::Unix | Kind::Tcp | Kind::Udp);
    !by_inode || object.id.ends_with(&format!(":{inode}"))
}

fn add(join: &Join, (pid, fd): (u32, i32), events: u32, alone: bool, targets: &mut Vec<Target>) {
    match join.by_descriptor(pid, fd) {
        Some(at) if join.objects[at].kind == Kind::Epoll => {
            let mut more = Vec::new();
            match inside(join, at, pid, alone, (1, &mut 0), &mut more) {
                Some(()) => targets.append(&mut more),
                None => targets.push(not_known(pid, fd)),
            }
        }
        Some(at) => of_object(join, at, (pid, fd), events, targets),
        None => targets.push(not_known(pid, fd)),
    }
}

fn not_known(pid: u32, fd: i32) -> Target {
    Target { fd: Some(fd), ..Target::new(unknown(pid, fd), Need::Data) }
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

    /// Descriptor, inode, events.
    type Watches = Vec<(i32, u64, u32)>;

    /// Of a process with the ends of a pipe at 3 and 4, a socket at 5, and an epoll instance at 6 that watches so.
    fn join(watches: Watches) -> Join {
        join_of(vec![(6, watches)])
    }

    /// The same with several instances.
    fn join_of(epolls: Vec<(i32, Watches)>) -> Join {
        let pipe = || What::Pipe { inode: 30, owner: (0, 0, 0o600) };
        let one = |fd, reads, writes, what| Descriptor { fd, reads, writes, what };
        let process = Process { pid: PID, readable: true, ..Process::default() };
        let descriptors = vec![
            one(3, true, false, pipe()),
            one(4, false, true, pipe()),
            one(5, true, true, What::Socket(50)),
        ];
        let epolls = epolls.into_iter();
        let epolls = epolls.map(|(fd, all)| one(fd, true, true, What::Epoll(Some(all))));
        let descriptors = descriptors.into_iter().chain(epolls).collect();
        let mut join = Join::new(Kinds::ALL, Viewer::default(), true, false);
        join.processes(&[Found { process, descriptors, ..Found::default() }], &[], None);
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
            let found = polled(&join(Vec::new()), PID, &Memory::of(&own), &call, true);
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
    fn an_instance_in_an_instance_waits_for_what_that_one_watches() {
        let all = |join: &Join| in_words(watched(join, PID, 6, true));
        let join = join_of(vec![(6, vec![(7, 1, 1), (3, 30, 1)]), (7, vec![(5, 50, 1)])]);
        let expected = ["Data socket:50", "Data pipe:30"].map(str::to_owned).to_vec();
        assert_eq!(all(&join), Some(expected));
        // A loop, which the kernel refuses, and one that is deeper than it allows.
        assert_eq!(all(&join_of(vec![(6, vec![(7, 1, 1)]), (7, vec![(6, 1, 1)])])), None);
        let chain = |count| {
            let one = |fd| (fd, vec![(if fd == 5 + count { 3 } else { fd + 1 }, 30, 1)]);
            join_of((6..6 + count).map(one).collect())
        };
        assert_eq!(all(&chain(5)), Some(vec!["Data pipe:30".to_owned()]));
        assert_eq!(all(&chain(100)), None);
        // Together they watch more than is looked at.
        let many = vec![(3, 30, 1); MOST / 2];
        let both = join_of(vec![(6, [&many[..], &[(7, 1, 1)]].concat()), (7, many)]);
        assert_eq!(all(&both), None);
        // Who polls an instance waits for the same.
        let mut targets = Vec::new();
        add(&join, (PID, 7), 1, true, &mut targets);
        assert_eq!(in_words(Some(targets)), Some(vec!["Data socket:50".to_owned()]));
    }

    #[test]
    fn a_set_that_is_too_large_is_not_known() {
        let many = |count| join(vec![(3, 30, 1); count]);
        assert_eq!(watched(&many(MOST), PID, 6, true).map(|all| all.len()), Some(MOST));
        assert_eq!(watched(&many(MOST + 1), PID, 6, true), None);
    }
}
