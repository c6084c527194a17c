//! A system call's arguments as objects.
//!
//! Source: docs/design/inspect.md, "Waits".

use std::borrow::Cow;

use super::{Inside as Opened, Mappers};
use crate::collect::Found;
use crate::futex::{Futex, Use};
use crate::join::{Join, Key};
use crate::kind::Kind;
use crate::model::{End, Need, Process, Target, Via, WaitOn};
use crate::poll_sets;
use crate::source::process;
use crate::source::system_call::{Inside, Shape};
use crate::text::escaped;

/// One thread's call, and what is needed to understand it.
pub(super) struct Resolve<'a> {
    pub(super) join: &'a mut Join,
    pub(super) found: &'a [Found],
    pub(super) mappers: &'a Mappers,
    /// The process's place in `found`.
    pub(super) at: usize,
    pub(super) process: &'a mut Opened,
    /// The kernel's function it sleeps in, or nothing.
    pub(super) channel: &'a str,
}

impl Resolve<'_> {
    /// What the call waits for, and whether it ends by itself.
    pub(super) fn wait(&mut self, call: &Inside, shape: Shape) -> (WaitOn, bool) {
        let fd = call.small(0);
        match shape {
            Shape::Read => (self.of_descriptor(fd, Need::Data), false),
            Shape::Write => (self.of_descriptor(fd, Need::Room), false),
            Shape::SendTo => (self.send_to(fd, call), false),
            Shape::SendMessage => (self.send_message(fd, call), false),
            Shape::Move(to) => (self.moving(fd, call.small(to)), false),
            Shape::SendFile => (self.moving(call.small(1), fd), false),
            Shape::Accept => (self.of_descriptor(fd, Need::Client), false),
            Shape::Connect => (self.connect(fd, call), false),
            Shape::Open(path, folder) => self.open(call, path, folder),
            Shape::Poll(_) | Shape::Select | Shape::Epoll(_) => self.poll(call, shape),
            Shape::Futex => self.futex(call),
            Shape::FutexWaitv => self.futexes(call),
            Shape::SemOp(timed) => (self.semaphore(call), timed && call.arguments[3] != 0),
            Shape::MsgSend => (self.message(fd, Need::Room), false),
            Shape::MsgReceive => (self.message_of_type(fd, call), false),
            Shape::MqSend => (self.of_descriptor(fd, Need::Room), call.arguments[4] != 0),
            Shape::MqReceive => (self.of_descriptor(fd, Need::Data), call.arguments[4] != 0),
            Shape::Flock => (self.flock(fd, call.small(1)), false),
            Shape::Fcntl => (self.record_lock(fd, call), false),
            Shape::Wait4 => (self.children(call.small(0), call.small(2)), false),
            Shape::WaitId => {
                let by_id = call.small(0) == 1;
                (self.children(if by_id { call.small(1) } else { -1 }, call.small(3)), false)
            }
            Shape::Vfork => (self.newest_child(), false),
            Shape::Signal(timeout) => {
                (WaitOn::Signal, timeout.is_some_and(|at| call.arguments[at] != 0))
            }
            Shape::Sleep => (WaitOn::Time, true),
            Shape::Hidden => (WaitOn::Other("io_uring, which cannot be seen into".into()), false),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.found[self.at].process.pid
    }

    pub(super) fn of_descriptor(&mut self, fd: i32, need: Need) -> WaitOn {
        match self.join.by_descriptor(self.pid(), fd) {
            Some(at) => {
                let id = self.join.objects[at].id.clone();
                WaitOn::Objects(vec![Target { fd: Some(fd), ..Target::new(id, need) }])
            }
            None => self.elsewhere(fd),
        }
    }

    /// A descriptor that leads to no object.
    pub(super) fn elsewhere(&mut self, fd: i32) -> WaitOn {
        let link = self.process.folder().and_then(|folder| folder.link(format!("fd/{fd}")).ok());
        let link = link.map_or_else(|| "what cannot be read".to_owned(), |link| escaped(&link));
        WaitOn::Other(format!("descriptor {fd}, {link}"))
    }

    /// From one to another: an empty source or a full sink.
    fn moving(&mut self, from: i32, to: i32) -> WaitOn {
        let source = self.join.by_descriptor(self.pid(), from);
        let empty = source.is_some_and(|at| self.join.objects[at].fill == Some(0));
        let sink = self.join.by_descriptor(self.pid(), to);
        if source.is_none() || (!empty && sink.is_some()) {
            self.of_descriptor(to, Need::Room)
        } else {
            self.of_descriptor(from, Need::Data)
        }
    }

    fn poll(&mut self, call: &Inside, shape: Shape) -> (WaitOn, bool) {
        let pid = self.pid();
        let alone = self.found[self.at].process.threads.len() == 1;
        let (targets, timed) =
            poll_sets::targets(self.join, pid, || self.process.memory(), call, shape, alone);
        let on = match targets {
            // Nothing in the set: only a signal or the time ends it.
            Some(targets) if targets.is_empty() => {
                if timed {
                    WaitOn::Time
                } else {
                    WaitOn::Signal
                }
            }
            Some(targets) => WaitOn::Objects(targets),
            None => WaitOn::Other("a set of descriptors that cannot be read".to_owned()),
        };
        (on, timed)
    }

    fn futex(&mut self, call: &Inside) -> (WaitOn, bool) {
        match Futex::of(&call.arguments) {
            Some(futex) => (WaitOn::Objects(vec![self.word(futex)]), futex.timed),
            None => (WaitOn::Other("a futex".to_owned()), false),
        }
    }

    fn futexes(&mut self, call: &Inside) -> (WaitOn, bool) {
        let count = usize::try_from(call.arguments[1]).unwrap_or(0).min(128);
        let timed = call.arguments[3] != 0;
        let Some(entries) = self.process.memory().bytes(call.arguments[0], count * 24) else {
            return (WaitOn::Other("words that cannot be read".to_owned()), timed);
        };
        let words: Vec<Futex> =
            entries.chunks_exact(24).filter_map(|entry| Futex::of_entry(entry, timed)).collect();
        (WaitOn::Objects(words.into_iter().map(|word| self.word(word)).collect()), timed)
    }

    /// The object of a word, with its owner.
    fn word(&mut self, futex: Futex) -> Target {
        let one = &self.found[self.at];
        let shared = one.mapped.iter().find(|mapped| {
            !futex.is_private() && (mapped.start..mapped.end).contains(&futex.address)
        });
        let (place, sharers) = match shared {
            Some(mapped) => {
                let (major, minor) = crate::source::numbers::device(mapped.device);
                let offset = mapped.offset.saturating_add(futex.address - mapped.start);
                let place = format!("{major}:{minor}:{}+{offset:#x}", mapped.inode);
                let key = (mapped.device, mapped.inode);
                (place, self.mappers.get(&key).cloned().unwrap_or_default())
            }
            None => (format!("{}+{:#x}", one.process.pid, futex.address), vec![self.at]),
        };
        let owners = |tid: u32| -> Vec<u32> {
            let threads = sharers.iter().flat_map(|&at| &self.found[at].process.threads);
            let own = threads.filter(|thread| thread.inner_tid.unwrap_or(thread.tid) == tid);
            own.map(|thread| thread.tid).collect()
        };
        let what = futex.what(self.process.memory(), |tid| !owners(tid).is_empty());
        let at = self.join.object(Key::Text(Kind::Futex, place));
        let mut target = Target::new(self.join.objects[at].id.clone(), Need::Change);
        let name = match what {
            Use::Owned { owner, what, proof } => {
                target.owners = owners(owner);
                target.need = Need::Release;
                target.sure = proof && target.owners.len() == 1;
                if target.owners.is_empty() {
                    target.dead_owner = Some(owner);
                    target.sure = proof;
                }
                what.to_owned()
            }
            Use::Join(tid) => {
                target.owners = owners(tid);
                target.need = Need::Release;
                target.sure = target.owners.len() == 1;
                "end of a thread".to_owned()
            }
            Use::Readers(count) => {
                let plural = if count == 1 { "reader" } else { "readers" };
                format!("read-write lock, held by {count} {plural}")
            }
            Use::Semaphore => {
                target.need = Need::Count;
                "semaphore at 0".to_owned()
            }
            Use::Other => "condition, or another lock".to_owned(),
        };
        target.detail = Some(name);
        let pid = self.pid();
        let named = shared.map(|mapped| mapped.name.clone());
        let object = &mut self.join.objects[at];
        object.state = target.detail.clone().map(Cow::Owned);
        if let Some(name) = named {
            object.details.insert("memory", name);
        }
        for &at in &sharers {
            let other = self.found[at].process.pid;
            let via = Via::Map(if other == pid { futex.address } else { 0 });
            object.ends.push(End { pid: other, via, reads: true, writes: true });
        }
        object.ends.push(End { pid, via: Via::Waits, reads: true, writes: true });
        target
    }

    /// The child that was started last: who has just made one waits for that.
    fn newest_child(&self) -> WaitOn {
        let pid = self.pid();
        let children = || {
            let all = self.found.iter().map(|one| &one.process);
            all.filter(|one| one.parent == pid && !one.is_zombie())
        };
        let newest = children().map(|child| child.started_ticks).max();
        let of_then = children().filter(|child| Some(child.started_ticks) == newest);
        WaitOn::Children(of_then.map(|child| child.pid).collect())
    }

    /// Children, and those whom it traces.
    fn children(&self, wanted: i32, options: i32) -> WaitOn {
        // What debuggers ask for, which may trace some threads of a process and not its first one.
        const WALL: i32 = 0x4000_0000;
        let own = &self.found[self.at].process;
        let wanted = u32::try_from(wanted).ok().filter(|&wanted| wanted > 0);
        let is_own = |tid: u32| own.threads.iter().any(|thread| thread.tid == tid);
        // The number is the child's in the waiter's namespace, or in the one that it was put into.
        let of = |child: &Process| {
            wanted.is_none_or(|wanted| {
                child.threads.iter().any(|thread| thread.tid == wanted)
                    || child.pid == wanted
                    || own.inner_pid.is_some()
            })
        };
        let traced = |child: &Process| {
            child.tracer.is_some_and(is_own)
                || options & WALL != 0
                    && child.threads.len() > 1
                    && child.threads.iter().any(|thread| {
                        let status = format!("/proc/{}/task/{}/status", child.pid, thread.tid);
                        let status = std::fs::read(status).ok();
                        let status = status.and_then(|text| process::status(&text));
                        status.and_then(|status| status.tracer).is_some_and(is_own)
                    })
        };
        let all = self.found.iter().map(|one| &one.process);
        let children = all.filter(|one| of(one) && (one.parent == own.pid || traced(one)));
        WaitOn::Children(children.map(|child| child.pid).collect())
    }
}
