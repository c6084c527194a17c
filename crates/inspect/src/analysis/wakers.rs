//! Who can end a wait.
//!
//! Source: docs/design/inspect.md, "Who waits for whom". Where not everybody who could is known, the wait is *open*: it is part of
//! no deadlock.

use std::collections::HashMap;

use serde::Serialize;

use crate::kind::Kind;
use crate::model::{
    End, LockKind, Need, Object, Process, Snapshot, Target, Thread, Via, Wait, WaitOn,
};

use super::DESCRIPTORS_IN_FLIGHT;
use super::peers::far_sides;

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// It may be so: who could end the wait is guessed.
    Possible,
    /// It is so unless somebody unseen, or yet to come, helps.
    Probable,
    /// It is so, as long as nobody from outside interferes.
    Certain,
}

impl Grade {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Probable => "probable",
            Self::Certain => "certain",
        }
    }
}

/// A process, or one thread of it, that can end a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Waker {
    /// The process.
    pub pid: u32,
    /// The one thread that can; none: any of its threads.
    pub tid: Option<u32>,
}

/// Who can end a wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wakers {
    /// Why others than these could, too.
    pub open: Option<&'static str>,
    /// Those who are known.
    pub by: Vec<Waker>,
    /// Of several locks, each of which has to go, those who can let go of it; empty: any of those who are known can end the wait.
    pub each: Vec<Vec<Waker>>,
    /// How sure it is that these are all.
    pub grade: Grade,
}

impl Wakers {
    fn open(why: &'static str) -> Self {
        Self { open: Some(why), by: Vec::new(), each: Vec::new(), grade: Grade::Possible }
    }

    fn closed(grade: Grade, by: impl IntoIterator<Item = Waker>) -> Self {
        Self { open: None, by: by.into_iter().collect(), each: Vec::new(), grade }
    }

    /// Sets of which each has to act, by any of those in it.
    pub fn sets(&self) -> impl Iterator<Item = &[Waker]> {
        let all = Some(self.by.as_slice()).filter(|_| self.each.is_empty());
        all.into_iter().chain(self.each.iter().map(Vec::as_slice))
    }

    fn or_open(mut self, why: &'static str) -> Self {
        if self.by.is_empty() {
            self.open = Some(why);
        }
        self
    }
}

/// A snapshot, with what is looked up often at hand.
#[derive(Debug)]
pub struct Index<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    objects: HashMap<&'a str, &'a Object>,
    /// Processes by thread.
    threads: HashMap<u32, u32>,
    /// Sockets in which descriptors wait to be taken.
    flights: Vec<&'a Object>,
}

impl<'a> Index<'a> {
    /// Of a snapshot.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let objects = snapshot.objects.iter().map(|object| (object.id.as_str(), object)).collect();
        let mut threads = HashMap::new();
        for process in &snapshot.processes {
            threads.extend(process.threads.iter().map(|thread| (thread.tid, process.pid)));
        }
        let holds = |object: &&Object| object.details.get(DESCRIPTORS_IN_FLIGHT).is_some();
        let flights = snapshot.objects.iter().filter(holds).collect();
        Self { snapshot, objects, threads, flights }
    }

    /// Sockets in which descriptors wait to be taken: what they lead to is not seen.
    #[must_use]
    pub fn flights(&self) -> &[&'a Object] {
        &self.flights
    }

    /// The object of this id.
    #[must_use]
    pub fn object(&self, id: &str) -> Option<&'a Object> {
        self.objects.get(id).copied()
    }

    /// The process of a thread.
    #[must_use]
    pub fn process_of(&self, tid: u32) -> Option<u32> {
        self.threads.get(&tid).copied()
    }

    /// Who can end what a thread of a process waits in.
    #[must_use]
    pub fn wakers(&self, process: &Process, thread: &Thread, wait: &Wait) -> Wakers {
        let mut found = match &wait.on {
            WaitOn::Objects(targets) => {
                let each = targets.iter().map(|target| self.of_target(process, thread, target));
                each.reduce(either).unwrap_or_else(|| Wakers::open("a signal"))
            }
            WaitOn::Children(children) => {
                let each = children.iter().map(|&pid| Waker { pid, tid: None });
                Wakers::closed(Grade::Certain, each).or_open("a child that is not seen")
            }
            WaitOn::Signal => Wakers::open("a signal, which anybody may send"),
            WaitOn::Time => Wakers::open("time"),
            WaitOn::Other(_) => Wakers::open("something that cannot be seen"),
        };
        if process.io_uring {
            found.open = Some("its io_uring, which cannot be seen into");
        }
        found.by.sort_unstable();
        found.by.dedup();
        if wait.steady.is_none() {
            found.grade = found.grade.min(Grade::Probable);
        }
        found
    }

    fn of_target(&self, process: &Process, thread: &Thread, target: &Target) -> Wakers {
        let Some(object) = self.object(&target.object) else {
            return Wakers::open("a descriptor of which nothing is known");
        };
        // An end may be with a process that could not be looked into.
        let seen = if self.snapshot.coverage.is_whole() { Grade::Certain } else { Grade::Probable };
        match object.kind {
            Kind::Pipe => self.of_pipe(object, target.need, seen),
            Kind::Fifo => match target.need {
                Need::Reader | Need::Writer => Wakers::open("anybody who opens it"),
                need => served(
                    object,
                    need,
                    named(process, self.of_pipe(object, need, Grade::Probable)),
                ),
            },
            Kind::Mq => {
                let found = self.of_pipe(object, target.need, Grade::Probable);
                served(object, target.need, named(process, found))
            }
            Kind::Unix => self.of_unix(object, target.need, seen),
            Kind::Tcp => self.of_tcp(object, target.need, seen),
            Kind::Udp if target.need == Need::Data => {
                // Another socket may have the peer's address, too.
                self.of_far_side(object, Grade::Probable, "anybody who sends to it")
            }
            // Others may open the slave's side by its name.
            Kind::Pty => self.of_far_side(object, Grade::Probable, "a terminal that is not seen"),
            Kind::Eventfd => named(process, ends(object, Grade::Probable, |_| true)),
            Kind::Pidfd => {
                let pid = object.state.as_deref().and_then(|state| state.strip_prefix("process "));
                let pid = pid.and_then(|pid| pid.parse().ok());
                let by = pid.map(|pid| Waker { pid, tid: None });
                Wakers::closed(Grade::Certain, by).or_open("the end of a process")
            }
            Kind::SysvSem => {
                let by = target.owners.iter().map(|&pid| Waker { pid, tid: None });
                // Others may have taken from it before.
                let found = Wakers::closed(Grade::Possible, by);
                match target.dead_owner {
                    Some(_) => found,
                    None => found.or_open("anybody who may use it"),
                }
            }
            Kind::SysvMsg => {
                let by = target.owners.iter().map(|&pid| Waker { pid, tid: None });
                Wakers::closed(Grade::Possible, by).or_open("anybody who may use it")
            }
            Kind::Lock => {
                let by = target.owners.iter().map(|&pid| Waker { pid, tid: None });
                let grade = match target.sure {
                    true if is_by_process(object) => Grade::Certain,
                    true => seen,
                    false => Grade::Probable,
                };
                let found = Wakers::closed(grade, by).or_open("a holder that is not seen");
                let of =
                    |owners: &[u32]| owners.iter().map(|&pid| Waker { pid, tid: None }).collect();
                let each = match (target.every, target.locks.is_empty()) {
                    (false, _) => Vec::new(),
                    (true, false) => target.locks.iter().map(|owners| of(owners)).collect(),
                    (true, true) => target.owners.iter().map(|&pid| of(&[pid])).collect(),
                };
                Wakers { each, ..found }
            }
            Kind::Futex => self.of_futex(process, thread, object, target),
            Kind::Timerfd => Wakers::open(match object.state.as_deref() {
                Some("armed") => "its timer",
                _ => "whoever sets its timer, which is not armed,",
            }),
            Kind::Signalfd => Wakers::open("a signal, which anybody may send,"),
            Kind::Inotify => Wakers::open("a change to what it watches"),
            _ => Wakers::open("somebody who is not seen"),
        }
    }

    fn of_pipe(&self, object: &Object, need: Need, grade: Grade) -> Wakers {
        let found = match need {
            Need::Room => ends(object, grade, |(reads, _)| reads),
            _ => ends(object, grade, |(_, writes)| writes),
        };
        found.or_open("an end that is not seen")
    }

    fn of_unix(&self, object: &Object, need: Need, grade: Grade) -> Wakers {
        if need == Need::Delivery {
            return ends(object, grade, |_| true).or_open("its receiver");
        }
        if object.is_listening() {
            return match need {
                Need::Acceptance | Need::Room => {
                    ends(object, grade, |_| true).or_open("its listener")
                }
                _ => Wakers::open("anybody who connects"),
            };
        }
        self.of_far_side(object, grade, "anybody who sends to it")
    }

    fn of_far_side(&self, object: &Object, grade: Grade, why: &'static str) -> Wakers {
        let far = far_sides(self.snapshot, object);
        let each = far.iter().flat_map(|far| ends(far, grade, |_| true).by);
        Wakers::closed(grade, each).or_open(why)
    }

    fn of_tcp(&self, object: &Object, need: Need, grade: Grade) -> Wakers {
        if object.is_listening() {
            return Wakers::open("anybody who connects");
        }
        if need == Need::Acceptance
            && let Some(remote) = object.details.get("remote")
            && let Some((_, port)) = remote.rsplit_once(':')
        {
            let everywhere = [format!("0.0.0.0:{port}"), format!("[::]:{port}")];
            let named = |name: &String| name == remote || everywhere.contains(name);
            let local = remote.starts_with("127.") || remote.starts_with("[::1]");
            let listener = self.snapshot.objects.iter().find(|other| {
                other.kind == Kind::Tcp && other.is_listening() && other.names.iter().any(named)
            });
            if let Some(listener) = listener.filter(|_| local) {
                return ends(listener, grade, |_| true).or_open("its listener");
            }
        }
        // Addresses mean something in one namespace only.
        let guessed = object.details.get(crate::join::ELSEWHERE).is_some();
        let grade = if guessed { grade.min(Grade::Probable) } else { grade };
        self.of_far_side(object, grade, "another machine, or a socket that is not seen")
    }

    fn of_futex(
        &self,
        process: &Process,
        thread: &Thread,
        object: &Object,
        target: &Target,
    ) -> Wakers {
        if target.need == Need::Release {
            let by = target
                .owners
                .iter()
                .map(|&tid| Waker { pid: self.process_of(tid).unwrap_or(tid), tid: Some(tid) });
            let grade = match (target.dead_owner, target.sure) {
                (None, true) => Grade::Certain,
                // The lock is one; which of those who have that number owns it is not known.
                (None, false) if target.owners.len() > 1 => Grade::Probable,
                (Some(_), true) => Grade::Probable,
                // Only a number, which may be something else.
                (_, false) => Grade::Possible,
            };
            return Wakers::closed(grade, by);
        }
        // Everybody who can reach the word and does not sleep on it.
        let mut by = Vec::new();
        for end in object.ends.iter().filter(|end| matches!(end.via, Via::Map(_))) {
            let Some(other) = self.snapshot.process(end.pid) else { continue };
            if other.threads.is_empty() {
                by.push(Waker { pid: end.pid, tid: None });
            }
            let awake = other.threads.iter().filter(|other| {
                other.tid != thread.tid && !sleeps_on(other, &target.object, target.need)
            });
            by.extend(awake.map(|other| Waker { pid: end.pid, tid: Some(other.tid) }));
        }
        let held = target.detail.as_deref().is_some_and(|detail| detail.contains("held by"));
        let orphan = by.iter().all(|waker| waker.pid == process.pid) && held;
        Wakers::closed(if orphan { Grade::Probable } else { Grade::Possible }, by)
    }
}

/// Whether a file's locks are processes' own, and go with no descriptor.
pub(super) fn is_by_process(object: &Object) -> bool {
    let mut had = object.locks.iter().filter(|lock| !lock.waiting);
    had.all(|lock| lock.kind == LockKind::Posix)
}

/// The holders of an object's ends of some direction, by descriptor or mapping.
fn ends(object: &Object, grade: Grade, wanted: impl Fn((bool, bool)) -> bool) -> Wakers {
    let holds = |via| matches!(via, Via::Fd(_) | Via::Map(_) | Via::Ring(_));
    let each = object.ends.iter().filter(|end| holds(end.via) && wanted((end.reads, end.writes)));
    Wakers::closed(grade, each.map(|end| Waker { pid: end.pid, tid: None }))
}

/// Of an object that who waits holds both ways, as servers do that wait for somebody to come: whoever knows its name may.
fn named(process: &Process, found: Wakers) -> Wakers {
    let alone = found.by.iter().all(|waker| waker.pid == process.pid);
    let grade = if alone { Grade::Possible } else { found.grade };
    Wakers { grade, ..found }
}

/// Of an object with a name: where nobody has just the other end, those who have both are the server's side, a shell and the program that it
/// started; whoever opens it by its name is the other.
fn served(object: &Object, need: Need, found: Wakers) -> Wakers {
    let is_other = |end: &End| match need {
        Need::Room => end.reads && !end.writes,
        _ => end.writes && !end.reads,
    };
    let is_open = |end: &End| matches!(end.via, Via::Fd(_));
    let mut names = object.names.iter();
    let is_gone = names.len() > 0 && names.all(|name| name.ends_with(" (deleted)"));
    if is_gone || object.ends.iter().any(|end| is_open(end) && is_other(end)) {
        return found;
    }
    Wakers { grade: Grade::Possible, ..found }
}

fn sleeps_on(thread: &Thread, object: &str, need: Need) -> bool {
    thread.wait.as_ref().is_some_and(|wait| match &wait.on {
        WaitOn::Objects(targets) => {
            targets.iter().any(|target| target.object == object && target.need == need)
        }
        _ => false,
    })
}

/// Any of two: whoever can do one of them.
fn either(a: Wakers, b: Wakers) -> Wakers {
    let mut by = a.by;
    by.extend(b.by);
    Wakers { open: a.open.or(b.open), by, each: Vec::new(), grade: a.grade.min(b.grade) }
}
