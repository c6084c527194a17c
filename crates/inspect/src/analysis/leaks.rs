//! What was left behind: objects that outlived everybody who used them.
//!
//! Source: docs/design/leaks.md. What goes with its last holder cannot leak, so this is about what has a name or a number of its own: System V
//! objects, POSIX queues, memory and semaphores, the files of sockets, and FIFOs. A name that was chosen is an appointment that somebody may
//! keep later; one that was generated is known only to those that were told.

mod files;
mod names;
mod people;
mod sysv;

use std::time::Duration;

use serde::Serialize;

use super::wakers::Grade;
use crate::kind::Kind;
use crate::model::{Object, Snapshot};

pub(crate) use files::{ASKED, NO_SOCKET};
use people::People;
pub(crate) use people::{IN_FLIGHT, UNKNOWN_IN_FLIGHT};

/// How sure it is that something was left behind: as sure as a deadlock.
pub type Certainty = Grade;

/// Kinds that can be left behind.
pub const KINDS: &[Kind] = &[
    Kind::Fifo,
    Kind::Unix,
    Kind::Mq,
    Kind::SysvMsg,
    Kind::SysvSem,
    Kind::SysvShm,
    Kind::PosixShm,
    Kind::PosixSem,
];

/// What was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// The object's id.
    pub object: String,
    /// What it is.
    pub kind: Kind,
    /// How sure it is.
    pub certainty: Certainty,
    /// Why it looks left behind, a sentence each.
    pub reasons: Vec<String>,
    /// Why it may not be, a sentence each.
    pub doubts: Vec<String>,
    /// What could not be checked, a sentence each.
    pub not_checked: Vec<String>,
    /// How long ago something was last done with it, where the kernel says.
    pub idle_ms: Option<u64>,
}

/// How leaks are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeakOptions {
    /// What was made or used within this time is at most possibly left behind: perhaps it is being set up.
    pub young: Duration,
}

impl LeakOptions {
    /// The time that things have to be set up, unless told otherwise.
    pub const YOUNG: Duration = Duration::from_secs(10);
}

impl Default for LeakOptions {
    fn default() -> Self {
        Self { young: Self::YOUNG }
    }
}

/// All of a snapshot, the surest first. Objects that somebody has are none.
#[must_use]
pub fn leaks(snapshot: &Snapshot, options: &LeakOptions) -> Vec<Leak> {
    let people = People::new(snapshot);
    let judge = |object: &Object| {
        let judged = match object.kind {
            Kind::SysvShm => sysv::memory(&people, object),
            Kind::SysvSem => sysv::semaphores(&people, object),
            Kind::SysvMsg => sysv::queue(&people, object),
            Kind::Mq | Kind::PosixShm | Kind::PosixSem | Kind::Fifo => {
                files::named(&people, object)
            }
            Kind::Unix => files::socket(object),
            _ => None,
        };
        judged.map(|case| case.closed(snapshot, object, options))
    };
    let mut found: Vec<Leak> = snapshot.objects.iter().filter_map(judge).collect();
    // Objects are in the order of their ids, which stays among equals.
    found.sort_by_key(|leak| std::cmp::Reverse(leak.certainty));
    found
}

/// What is known of one object: it begins as certain, and each doubt takes from that.
#[derive(Debug)]
struct Case {
    most: Grade,
    reasons: Vec<String>,
    doubts: Vec<String>,
    not_checked: Vec<String>,
}

impl Case {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            most: Grade::Certain,
            reasons: vec![reason.into()],
            doubts: Vec::new(),
            not_checked: Vec::new(),
        }
    }

    fn because(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }

    /// It is at most so sure, because of this.
    fn but(&mut self, most: Grade, doubt: impl Into<String>) {
        self.most = self.most.min(most);
        self.doubts.push(doubt.into());
    }

    /// It is at most so sure, because this is not known.
    fn unknown(&mut self, most: Grade, what: impl Into<String>) {
        self.most = self.most.min(most);
        self.not_checked.push(what.into());
    }

    fn closed(mut self, snapshot: &Snapshot, object: &Object, options: &LeakOptions) -> Leak {
        let idle_ms = object.times.latest_ms().map(|at| snapshot.taken_unix_ms.saturating_sub(at));
        let young = u64::try_from(options.young.as_millis()).unwrap_or(u64::MAX);
        match idle_ms {
            Some(idle) if idle < young => self.but(
                Grade::Possible,
                format!("made or used {} ago: perhaps it is being set up", ago(idle)),
            ),
            Some(idle) => self.because(format!("nothing was done with it for {}", ago(idle))),
            None => self.unknown(Grade::Certain, "when it was made and used"),
        }
        Leak {
            object: object.id.clone(),
            kind: object.kind,
            certainty: self.most,
            reasons: self.reasons,
            doubts: self.doubts,
            not_checked: self.not_checked,
            idle_ms,
        }
    }
}

/// A time in one or two units: `3 h 12 m`.
fn ago(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} m"),
        (0, _, _) => format!("{hours} h {minutes} m"),
        _ => format!("{days} d {hours} h"),
    }
}
