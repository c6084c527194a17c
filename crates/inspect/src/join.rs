//! Joining what the sources say into objects: by device and inode, number, or id and namespace.
//!
//! Source: docs/design/inspect.md, "Kinds and identities".

mod asks;
mod fill;
mod flight;
mod left;
mod namespaces;
mod peers;
mod rings;

use asks::Ask;
pub(crate) use asks::{Asker, Asks};
pub(crate) use namespaces::Tables;
pub(crate) use peers::ELSEWHERE;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::collect::Found;
use crate::kind::{Kind, Kinds};
use crate::model::{End, Lock, LockKind, Object, Via, Viewer};
use crate::source::descriptors::{Descriptor, File, What};
use crate::source::maps::Mapped;
use crate::source::{inet, locks, numbers};

/// Objects in the making.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) kinds: Kinds,
    pub(crate) viewer: Viewer,
    pub(crate) objects: Vec<Object>,
    /// What could not be seen.
    pub(crate) missing: Vec<String>,
    /// Whether it will be asked what a descriptor leads to.
    keeps_descriptors: bool,
    /// Whether the memory and traffic of sockets are wanted.
    usage: bool,
    known: HashMap<Key, usize>,
    /// Sockets by inode.
    sockets: HashMap<u64, usize>,
    /// Objects by process and descriptor, if waits need them.
    descriptors: HashMap<(u32, i32), usize>,
    /// What an epoll instance watches: descriptor, inode, events.
    watched: HashMap<usize, Vec<(i32, u64, u32)>>,
    inet: Vec<Inet>,
    /// Client sockets that wait to be accepted, with the listener.
    pending: HashMap<u64, usize>,
    /// Objects that turned out to be others.
    strays: Vec<usize>,
    /// Of each semaphore: its count, and who used it last.
    pub(crate) counts: HashMap<(usize, u16), (u16, Option<u32>)>,
    /// Of each System V queue: who sent last, who received last.
    pub(crate) users: HashMap<usize, (u32, u32)>,
}

/// What identifies an object; its id is this in words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Its inode, or the number that the kernel gave it.
    Number(Kind, u64),
    /// A file: device and inode.
    File(Kind, u64, u64),
    /// What has no number: process and descriptor.
    Descriptor(Kind, u32, i32),
    /// An id in an IPC namespace.
    Ipc(Kind, i64, Option<u64>),
    /// Anything else.
    Text(Kind, String),
}

impl Key {
    /// The key of a file; memory without a file system has numbers of its own.
    pub(crate) fn of_file(kind: Kind, device: u64, inode: u64) -> Self {
        if kind == Kind::Memfd || kind == Kind::Anonymous {
            Self::Number(kind, inode)
        } else {
            Self::File(kind, device, inode)
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Number(kind, ..)
            | Self::File(kind, ..)
            | Self::Descriptor(kind, ..)
            | Self::Ipc(kind, ..)
            | Self::Text(kind, _) => *kind,
        }
    }

    /// The id, as somebody in this IPC namespace sees it.
    fn id(&self, own_ipc: Option<u64>) -> String {
        let kind = self.kind().name();
        match self {
            Self::Number(_, number) => format!("{kind}:{number}"),
            Self::File(_, device, inode) => {
                let (major, minor) = numbers::device(*device);
                format!("{kind}:{major}:{minor}:{inode}")
            }
            Self::Descriptor(_, pid, fd) => format!("{kind}:{pid}/{fd}"),
            Self::Ipc(_, id, Some(ipc)) if Some(*ipc) != own_ipc => format!("{kind}:{id}@{ipc}"),
            Self::Ipc(_, id, _) => format!("{kind}:{id}"),
            Self::Text(_, text) => format!("{kind}:{text}"),
        }
    }
}

/// A TCP or UDP socket, to find its peer by.
#[derive(Debug)]
struct Inet {
    at: usize,
    net: Option<u64>,
    protocol: Kind,
    socket: inet::Socket,
}

impl Join {
    pub(crate) fn new(kinds: Kinds, viewer: Viewer, keeps_descriptors: bool, usage: bool) -> Self {
        Self {
            kinds,
            viewer,
            objects: Vec::new(),
            missing: Vec::new(),
            keeps_descriptors,
            usage,
            known: HashMap::new(),
            sockets: HashMap::new(),
            descriptors: HashMap::new(),
            watched: HashMap::new(),
            inet: Vec::new(),
            pending: HashMap::new(),
            strays: Vec::new(),
            counts: HashMap::new(),
            users: HashMap::new(),
        }
    }

    /// The object of this key, new if it was not there.
    pub(crate) fn object(&mut self, key: Key) -> usize {
        let at = self.objects.len();
        match self.known.entry(key) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let object = Object::new(new.key().kind(), new.key().id(self.viewer.ipc));
                self.objects.push(object);
                new.insert(at);
                at
            }
        }
    }

    /// The object of this key, if it is there.
    pub(crate) fn find(&self, key: &Key) -> Option<usize> {
        self.known.get(key).copied()
    }

    /// The id of what has this key.
    pub(crate) fn id(&self, key: &Key) -> String {
        key.id(self.viewer.ipc)
    }

    /// The object that a descriptor of a process leads to.
    pub(crate) fn by_descriptor(&self, pid: u32, fd: i32) -> Option<usize> {
        self.descriptors.get(&(pid, fd)).copied()
    }

    /// What an epoll instance watches.
    pub(crate) fn watched_by(&self, epoll: usize) -> &[(i32, u64, u32)] {
        self.watched.get(&epoll).map_or(&[], Vec::as_slice)
    }

    /// The socket or pipe of this inode.
    pub(crate) fn by_inode(&self, inode: u64) -> Option<usize> {
        let socket = self.sockets.get(&inode).copied();
        socket.or_else(|| self.find(&Key::Number(Kind::Pipe, inode)))
    }

    /// The key of an id in an IPC namespace; one whose namespace is unknown is taken for the viewer's.
    pub(crate) fn ipc_key(&self, kind: Kind, id: i64, ipc: Option<u64>) -> Key {
        Key::Ipc(kind, id, ipc.or(self.viewer.ipc))
    }

    /// Takes what processes have open and mapped, and the locks on files; has pipes and FIFOs asked as soon as one of their ends is known.
    pub(crate) fn processes(
        &mut self,
        found: &[Found],
        lines: &[locks::Line],
        asker: Option<&Asker<'_>>,
    ) {
        for line in lines {
            self.lock(line);
        }
        let most = found.iter().map(|one| one.descriptors.len() + one.mapped.len()).sum();
        self.objects.reserve(most);
        self.known.reserve(most / 2);
        self.sockets.reserve(most / 2);
        let mut asks = Vec::new();
        for one in found {
            let pid = one.process.pid;
            for descriptor in &one.descriptors {
                let known = self.objects.len();
                if let Some(at) = self.descriptor(pid, descriptor) {
                    if at >= known && asker.is_some() {
                        asks.extend(self.ask(at, pid, descriptor));
                    }
                    if self.keeps_descriptors {
                        self.descriptors.insert((pid, descriptor.fd), at);
                    }
                    self.objects[at].ends.push(End {
                        pid,
                        via: Via::Fd(descriptor.fd),
                        reads: descriptor.reads,
                        writes: descriptor.writes,
                    });
                }
            }
            for mapped in &one.mapped {
                self.mapped(pid, one.process.namespaces.ipc, mapped);
            }
            if let Some(asker) = asker {
                asker.add(&mut asks);
            }
        }
    }

    /// What to ask of a pipe or a FIFO.
    fn ask(&self, at: usize, pid: u32, descriptor: &Descriptor) -> Option<Ask> {
        let (kind, inode) = match &descriptor.what {
            What::Pipe { inode, .. } => (Kind::Pipe, *inode),
            What::File(file) if file.kind == Some(Kind::Fifo) => (Kind::Fifo, file.inode),
            _ => return None,
        };
        self.kinds.has(kind).then_some(Ask { at, inode, pid, fd: descriptor.fd })
    }

    fn descriptor(&mut self, pid: u32, descriptor: &Descriptor) -> Option<usize> {
        let fd = descriptor.fd;
        let at = match &descriptor.what {
            &What::Pipe { inode, owner: (uid, gid, mode) } => {
                let at = self.object(Key::Number(Kind::Pipe, inode));
                let pipe = &mut self.objects[at];
                (pipe.uid, pipe.gid, pipe.mode) = (Some(uid), Some(gid), Some(mode));
                at
            }
            What::Socket(inode) => {
                if let Some(&at) = self.sockets.get(inode) {
                    return Some(at);
                }
                // Which family it is, its namespace's tables say later.
                let at = self.object(Key::Number(Kind::Socket, *inode));
                self.sockets.insert(*inode, at);
                at
            }
            What::File(file) => return self.file(pid, fd, file),
            What::Eventfd(number, count) => {
                let at = self.object(Key::Number(Kind::Eventfd, *number));
                self.objects[at].fill = Some(*count);
                at
            }
            What::Epoll(targets) => {
                let at = self.object(Key::Descriptor(Kind::Epoll, pid, fd));
                if let Some(targets) = targets {
                    self.objects[at].details.insert("watches", targets.len().to_string());
                    self.watched.insert(at, targets.clone());
                }
                at
            }
            What::Signalfd(mask) => {
                let at = self.object(Key::Descriptor(Kind::Signalfd, pid, fd));
                if let Some(mask) = mask {
                    self.objects[at].details.insert("signals", signals(*mask));
                }
                at
            }
            What::Timerfd(armed) => {
                let at = self.object(Key::Descriptor(Kind::Timerfd, pid, fd));
                self.objects[at].state = Some(if *armed { "armed" } else { "not armed" }.into());
                at
            }
            What::Inotify(count) => {
                let at = self.object(Key::Descriptor(Kind::Inotify, pid, fd));
                if let Some(count) = count {
                    self.objects[at].details.insert("watches", count.to_string());
                }
                at
            }
            What::Pidfd(inode, of) => {
                let at = self.object(Key::Number(Kind::Pidfd, *inode));
                self.objects[at].state = Some(match of {
                    Some(pid) => format!("process {pid}").into(),
                    None => "ended".into(),
                });
                at
            }
            What::Master(index) => {
                let at = self.object(master(*index));
                self.objects[at].state = Some("master".into());
                at
            }
            What::Slave(index) => {
                let at = self.object(Key::Number(Kind::Pty, u64::from(*index)));
                self.objects[at].add_name(format!("/dev/pts/{index}"));
                at
            }
            What::IoUring => return None,
        };
        Some(at)
    }

    fn file(&mut self, pid: u32, fd: i32, file: &File) -> Option<usize> {
        for line in &file.locks {
            let at = self.lock(line);
            let locks = &mut self.objects[at].locks;
            if let Some(lock) = locks.iter_mut().find(|lock| is_same(lock, line))
                && !lock.holders.contains(&pid)
            {
                lock.holders.push(pid);
            }
            let end = End { pid, via: Via::Fd(fd), reads: true, writes: line.exclusive };
            if !self.objects[at].ends.contains(&end) {
                self.objects[at].ends.push(end);
            }
        }
        if let (true, None) = (self.kinds.has(Kind::Lock), file.kind)
            && let Some(at) = self.find(&Key::of_file(Kind::Lock, file.device, file.inode))
        {
            self.objects[at].add_name(file.name.clone());
        }
        let kind = file.kind?;
        let at = self.object(Key::of_file(kind, file.device, file.inode));
        let object = &mut self.objects[at];
        (object.uid, object.gid, object.mode) = (Some(file.uid), Some(file.gid), Some(file.mode));
        object.add_name(if kind.is_memory() { memory_name(&file.name) } else { file.name.clone() });
        if kind.is_memory() {
            object.size = Some(file.size);
        }
        Some(at)
    }

    fn mapped(&mut self, pid: u32, ipc: Option<u64>, mapped: &Mapped) {
        let at = self.object(match mapped.kind {
            Kind::SysvShm => self.ipc_key(Kind::SysvShm, mapped.inode.cast_signed(), ipc),
            kind => Key::of_file(kind, mapped.device, mapped.inode),
        });
        let own = self.viewer.ipc;
        let object = &mut self.objects[at];
        if mapped.kind == Kind::SysvShm {
            object.namespace = ipc.filter(|_| ipc != own);
        } else {
            object.add_name(memory_name(&mapped.name));
        }
        let reaches = mapped.offset.saturating_add(mapped.end.saturating_sub(mapped.start));
        object.size = Some(object.size.unwrap_or(0).max(reaches));
        object.ends.push(End {
            pid,
            via: Via::Map(mapped.start),
            reads: mapped.reads,
            writes: mapped.writes,
        });
    }

    /// The object of a file with locks, with this lock among them.
    pub(crate) fn lock(&mut self, line: &locks::Line) -> usize {
        let at = self.object(Key::of_file(Kind::Lock, line.device, line.inode));
        let object = &mut self.objects[at];
        if !object.locks.iter().any(|lock| is_same(lock, line)) {
            // The taker holds it, unless descriptors say more; a forked child may have it as well.
            object.locks.push(Lock {
                kind: line.kind,
                exclusive: line.exclusive,
                taker: line.pid,
                holders: line.pid.into_iter().filter(|_| line.kind == LockKind::Posix).collect(),
                start: line.start,
                end: line.end,
                waiting: line.waiting,
            });
        }
        at
    }

    /// The objects that were asked for, in order.
    pub(crate) fn finish(mut self) -> Vec<Object> {
        let kinds = self.kinds;
        let strays: HashSet<String> =
            self.strays.iter().map(|&at| self.objects[at].id.clone()).collect();
        self.objects.retain(|object| kinds.has(object.kind) && !strays.contains(&object.id));
        for object in &mut self.objects {
            if !object.ends.is_sorted_by(|a, b| a < b) {
                object.ends.sort_unstable();
                object.ends.dedup();
            }
        }
        in_order(&mut self.objects);
        self.objects
    }
}

/// Puts objects in order: by kind, and within one by the numbers of their ids. There may be a hundred thousand, which are large: what is
/// compared stands by itself, and each is moved once.
fn in_order(objects: &mut [Object]) {
    let key = |object: &Object| {
        let mut first = [0; 16];
        // The kind is the same in all that are compared by this.
        let rest = object.id.as_bytes().get(object.kind.name().len()..).unwrap_or_default();
        let count = rest.len().min(first.len());
        first[..count].copy_from_slice(&rest[..count]);
        (object.kind, object.id.len(), u128::from_be_bytes(first))
    };
    let mut order: Vec<_> = objects.iter().map(key).zip(0..).collect();
    order.sort_unstable_by(|(a, at), (b, other)| {
        a.cmp(b).then_with(|| objects[*at].id.cmp(&objects[*other].id))
    });
    let mut from: Vec<usize> = order.into_iter().map(|(_, at)| at).collect();
    for start in 0..from.len() {
        // Around each circle of those that take each other's place.
        let mut to = start;
        while from[to] != start {
            let next = from[to];
            objects.swap(to, next);
            (from[to], to) = (to, next);
        }
        from[to] = to;
    }
}

/// The key of a pseudo-terminal's side that a terminal emulator has.
fn master(number: u32) -> Key {
    Key::Text(Kind::Pty, format!("{number}/master"))
}

fn is_same(lock: &Lock, line: &locks::Line) -> bool {
    lock.kind == line.kind
        && lock.taker == line.pid
        && lock.exclusive == line.exclusive
        && (lock.start, lock.end) == (line.start, line.end)
        && lock.waiting == line.waiting
}

/// What memory is called: `jobs` of `/memfd:jobs (deleted)`.
fn memory_name(name: &str) -> String {
    match name.strip_prefix("/memfd:") {
        Some(rest) => rest.strip_suffix(" (deleted)").unwrap_or(rest).to_owned(),
        None if name.starts_with("/dev/zero") => String::new(),
        None => name.to_owned(),
    }
}

/// The signals of a mask, by number; names differ from machine to machine above 31.
fn signals(mask: u64) -> String {
    let numbers = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| (bit + 1).to_string());
    numbers.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_in_the_order_of_their_numbers() {
        let id = |number: u64| match number % 4 {
            0 => (Kind::Pipe, format!("pipe:{}", number % 1000)),
            1 => (Kind::Unix, format!("unix:{number}")),
            2 => (Kind::Pipe, format!("pipe:12345678901234567{}", number % 100)),
            _ => (Kind::PosixShm, format!("posix-shm:0:27:{number}")),
        };
        let numbers = (0..2000_u64).map(|n| n.wrapping_mul(2_654_435_761) % 100_003);
        let mut objects: Vec<Object> =
            numbers.map(id).map(|(kind, id)| Object::new(kind, id)).collect();
        let mut wanted: Vec<_> =
            objects.iter().map(|one| (one.kind, one.id.len(), one.id.clone())).collect();
        wanted.sort();
        in_order(&mut objects);
        let all: Vec<_> = objects.into_iter().map(|one| (one.kind, one.id.len(), one.id)).collect();
        assert_eq!(all, wanted);
        in_order(&mut []);
    }
}
