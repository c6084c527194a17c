//! What a thread that polls waits for: arrays and sets of descriptors in its memory, and what an epoll instance watches.
//!
//! Source: `poll(2)`, `select(2)`, `epoll(7)`.

use crate::join::Join;
use crate::model::{Need, Target};
use crate::source::memory::Memory;
use crate::source::system_call::{Inside, Shape};

const IN: u32 = 0x1;
const OUT: u32 = 0x4;
/// The most descriptors of one poll that are looked at.
const MOST: usize = 4096;

/// The targets, whether it ends by itself; none when the set could not be read.
pub(crate) fn targets<'a>(
    join: &Join,
    pid: u32,
    memory: impl FnOnce() -> &'a Memory,
    call: &Inside,
    shape: Shape,
) -> (Option<Vec<Target>>, bool) {
    match shape {
        Shape::Poll(milliseconds) => {
            let timed = if milliseconds { call.small(2) >= 0 } else { call.arguments[2] != 0 };
            (polled(join, pid, memory(), call), timed)
        }
        Shape::Select => (selected(join, pid, memory(), call), call.arguments[4] != 0),
        Shape::Epoll(milliseconds) => {
            let timed = if milliseconds { call.small(3) >= 0 } else { call.arguments[3] != 0 };
            (watched(join, pid, call.small(0)), timed)
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
            // Even for no events a hang-up is reported.
            add(join, pid, fd, u32::from(events) | if events == 0 { IN } else { 0 }, &mut targets);
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

fn watched(join: &Join, pid: u32, epoll: i32) -> Option<Vec<Target>> {
    let at = join.by_descriptor(pid, epoll)?;
    let mut targets = Vec::new();
    for &(fd, inode, events) in join.watched_by(at).iter().take(MOST) {
        let wanted = join.by_descriptor(pid, fd).filter(|&at| leads_to(join, at, inode));
        match wanted.or_else(|| join.by_inode(inode)) {
            Some(at) => of_object(&join.objects[at].id, Some(fd), events, &mut targets),
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
        Some(at) => of_object(&join.objects[at].id, Some(fd), events, targets),
        None => targets.push(Target { fd: Some(fd), ..Target::new(unknown(pid, fd), Need::Data) }),
    }
}

fn of_object(id: &str, fd: Option<i32>, events: u32, targets: &mut Vec<Target>) {
    for (bit, need) in [(IN, Need::Data), (OUT, Need::Room)] {
        if events & bit != 0 {
            targets.push(Target { fd, ..Target::new(id, need) });
        }
    }
}

/// What stands for a descriptor of which nothing is known: it could become ready at any time.
pub(crate) fn unknown(pid: u32, fd: i32) -> String {
    format!("pid:{pid}/fd:{fd}")
}
