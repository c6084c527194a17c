//! What goes through objects and processes in a second, by two looks at the same machine.
//!
//! Source: docs/design/top.md, "Rates". Where the kernel counts nothing there is no rate, and none is made up: what is in a pipe may be the
//! same although a gigabyte went through.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use crate::model::{Object, Process, Snapshot, Traffic};

/// Bytes in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrafficRate {
    /// Received, or read.
    pub received_bytes_per_s: u64,
    /// Sent, or written.
    pub sent_bytes_per_s: u64,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObjectRate {
    /// What goes through it; none where the kernel counts nothing.
    pub traffic: Option<TrafficRate>,
    /// By how much its fill grows or shrinks in a second, in its unit: the difference between what is put in and taken out.
    pub fill_per_s: Option<i64>,
    /// Datagrams that find no room, in a second; none where the kernel counts none.
    pub dropped_per_s: Option<u64>,
    /// Something was put in or taken out for sure. If not, that need not mean anything.
    pub moved: bool,
}

/// What happened between two looks.
#[derive(Clone, Debug, Default)]
pub struct Rates<'a> {
    /// How far they are apart; none: unknown, or not in this order, and then there are no rates.
    pub elapsed: Option<Duration>,
    objects: HashMap<&'a str, ObjectRate>,
    processes: HashMap<u32, TrafficRate>,
}

impl Rates<'_> {
    /// Of an object, by id; nothing of one that was not there at both looks.
    #[must_use]
    pub fn object(&self, id: &str) -> ObjectRate {
        self.objects.get(id).copied().unwrap_or_default()
    }

    /// Of a process: what it reads and writes by `read`, `write` and their like, files included.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<TrafficRate> {
        self.processes.get(&pid).copied()
    }
}

/// From the first look to the second.
#[must_use]
pub fn between<'a>(before: &Snapshot, after: &'a Snapshot) -> Rates<'a> {
    let Some(elapsed) = elapsed(before, after) else { return Rates::default() };
    let old: HashMap<&str, &Object> =
        before.objects.iter().map(|object| (object.id.as_str(), object)).collect();
    let objects = after.objects.iter().filter_map(|is| {
        let was = old.get(is.id.as_str()).filter(|was| is_same(was, is))?;
        let rate = of_object(was, is, elapsed);
        (rate != ObjectRate::default()).then_some((is.id.as_str(), rate))
    });
    let processes = after.processes.iter().filter_map(|is| {
        let was = before.process(is.pid).filter(|was| was.started_ticks == is.started_ticks)?;
        Some((is.pid, of_process(was, is, elapsed)?))
    });
    Rates { elapsed: Some(elapsed), objects: objects.collect(), processes: processes.collect() }
}

/// By the clock that nobody sets; by the time of day only where that is unknown.
fn elapsed(before: &Snapshot, after: &Snapshot) -> Option<Duration> {
    if before.machine != after.machine {
        return None;
    }
    let ms = match (before.since_boot_ms, after.since_boot_ms) {
        (0, _) | (_, 0) => after.taken_unix_ms.checked_sub(before.taken_unix_ms)?,
        (before, after) => after.checked_sub(before)?,
    };
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// Numbers of sockets are given again, some day: then it is at other addresses.
fn is_same(was: &Object, is: &Object) -> bool {
    let connected = |object: &Object| object.details.get("remote").is_some();
    was.kind == is.kind && !(connected(was) && connected(is) && was.names != is.names)
}

fn of_object(was: &Object, is: &Object, elapsed: Duration) -> ObjectRate {
    // Through a listener goes nothing: connections do.
    let counted = |object: &Object| {
        object.socket.and_then(|socket| socket.traffic).filter(|_| !object.is_listening())
    };
    let traffic = traffic(counted(was), counted(is), elapsed);
    let fill_per_s = was.fill.zip(is.fill).map(|(was, is)| change_per_s(was, is, elapsed));
    let drops = |object: &Object| object.socket.map(|socket| u64::from(socket.dropped));
    let dropped_per_s =
        drops(was).zip(drops(is)).and_then(|(was, is)| per_s(was, is, elapsed)).filter(|n| *n > 0);
    let moved = was.fill != is.fill
        || traffic.is_some_and(|rate| rate != TrafficRate::default())
        || was.times.used_ms < is.times.used_ms;
    ObjectRate { traffic, fill_per_s, dropped_per_s, moved }
}

fn of_process(was: &Process, is: &Process, elapsed: Duration) -> Option<TrafficRate> {
    traffic(was.io, is.io, elapsed)
}

/// A counter that went back is another one's, and says nothing.
fn traffic(was: Option<Traffic>, is: Option<Traffic>, elapsed: Duration) -> Option<TrafficRate> {
    let (was, is) = was.zip(is)?;
    Some(TrafficRate {
        received_bytes_per_s: per_s(was.received_bytes, is.received_bytes, elapsed)?,
        sent_bytes_per_s: per_s(was.sent_bytes, is.sent_bytes, elapsed)?,
    })
}

/// How fast a counter grows, rounded to the nearest; none if it went back.
#[must_use]
pub fn per_s(was: u64, is: u64, elapsed: Duration) -> Option<u64> {
    let grown = u128::from(is.checked_sub(was)?);
    let ms = elapsed.as_millis().max(1);
    Some(u64::try_from((grown * 1000 + ms / 2) / ms).unwrap_or(u64::MAX))
}

fn change_per_s(was: u64, is: u64, elapsed: Duration) -> i64 {
    let size = per_s(was.min(is), was.max(is), elapsed).unwrap_or(0);
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    if is < was { -size } else { size }
}

#[cfg(test)]
mod tests;
