//! Joining what the sources say into objects: by device and inode, number, or id and namespace.
//!
//! Source: docs/design/inspect.md, "Kinds and identities".

mod fill;
mod namespaces;

use std::collections::HashMap;

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
    by_id: HashMap<String, usize>,
    /// Sockets by inode.
    sockets: HashMap<u64, usize>,
    /// Objects by process and descriptor.
    descriptors: HashMap<(u32, i32), usize>,
    /// What an epoll instance watches: descriptor, inode, events.
    watched: HashMap<usize, Vec<(i32, u64, u32)>>,
    inet: Vec<Inet>,
    /// Client sockets that wait to be accepted, with the listener.
    pending: HashMap<u64, usize>,
    /// Of each semaphore: its count, and who used it last.
    pub(crate) counts: HashMap<(usize, u16), (u16, Option<u32>)>,
    /// Of each System V queue: who sent last, who received last.
    pub(crate) users: HashMap<usize, (u32, u32)>,
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
    pub(crate) fn new(kinds: Kinds, viewer: Viewer) -> Self {
        Self {
            kinds,
            viewer,
            objects: Vec::new(),
            missing: Vec::new(),
            by_id: HashMap::new(),
            sockets: HashMap::new(),
            descriptors: HashMap::new(),
            watched: HashMap::new(),
            inet: Vec::new(),
            pending: HashMap::new(),
            counts: HashMap::new(),
            users: HashMap::new(),
        }
    }

    /// The object of this id, new if it was not there.
    pub(crate) fn object(&mut self, kind: Kind, id: String) -> usize {
        if let Some(&at) = self.by_id.get(&id) {
            return at;
        }
        let at = self.objects.len();
        self.objects.push(Object::new(kind, id.clone()));
        self.by_id.insert(id, at);
        at
    }

    /// The object that a descriptor of a process leads to.
    pub(crate) fn by_descriptor(&self, pid: u32, fd: i32) -> Option<usize> {
        self.descriptors.get(&(pid, fd)).copied()
    }

    /// What an epoll instance watches.
    pub(crate) fn watched_by(&self, epoll: usize) -> &[(i32, u64, u32)] {
        self.watched.get(&epoll).map_or(&[], Vec::as_slice)
    }

    /// The object of this id, if it is there.
    pub(crate) fn by_id(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The socket or pipe of this inode.
    pub(crate) fn by_inode(&self, inode: u64) -> Option<usize> {
        let socket = self.sockets.get(&inode).copied();
        socket.or_else(|| self.by_id(&format!("pipe:{inode}")))
    }

    /// The id of an object of a file.
    pub(crate) fn file_id(kind: Kind, device: u64, inode: u64) -> String {
        if kind == Kind::Memfd || kind == Kind::Anonymous {
            return format!("{kind}:{inode}");
        }
        let (major, minor) = numbers::device(device);
        format!("{kind}:{major}:{minor}:{inode}")
    }

    /// An id in an IPC namespace.
    pub(crate) fn ipc_id(
        &self,
        kind: Kind,
        id: impl std::fmt::Display,
        ipc: Option<u64>,
    ) -> String {
        match ipc {
            Some(ipc) if Some(ipc) != self.viewer.ipc => format!("{kind}:{id}@{ipc}"),
            _ => format!("{kind}:{id}"),
        }
    }

    /// Takes what processes have open and mapped, and the locks on files.
    pub(crate) fn processes(&mut self, found: &[Found], lines: &[locks::Line]) {
        for line in lines {
            self.lock(line);
        }
        for one in found {
            let pid = one.process.pid;
            for descriptor in &one.descriptors {
                if let Some(at) = self.descriptor(pid, descriptor) {
                    self.descriptors.insert((pid, descriptor.fd), at);
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
        }
    }

    fn descriptor(&mut self, pid: u32, descriptor: &Descriptor) -> Option<usize> {
        let fd = descriptor.fd;
        let at = match &descriptor.what {
            What::Pipe(inode) => self.object(Kind::Pipe, format!("pipe:{inode}")),
            What::Socket(inode) => {
                if let Some(&at) = self.sockets.get(inode) {
                    return Some(at);
                }
                // Which family it is, its namespace's tables say later.
                let at = self.object(Kind::Socket, format!("socket:{inode}"));
                self.sockets.insert(*inode, at);
                at
            }
            What::File(file) => return self.file(pid, fd, file),
            What::Eventfd(number, count) => {
                let at = self.object(Kind::Eventfd, format!("eventfd:{number}"));
                self.objects[at].fill = Some(*count);
                at
            }
            What::Epoll(targets) => {
                let at = self.object(Kind::Epoll, format!("epoll:{pid}/{fd}"));
                self.objects[at].details.insert("watches".into(), targets.len().to_string());
                self.watched.insert(at, targets.clone());
                at
            }
            What::Signalfd(mask) => {
                let at = self.object(Kind::Signalfd, format!("signalfd:{pid}/{fd}"));
                self.objects[at].details.insert("signals".into(), signals(*mask));
                at
            }
            What::Timerfd(armed) => {
                let at = self.object(Kind::Timerfd, format!("timerfd:{pid}/{fd}"));
                self.objects[at].state = Some(if *armed { "armed" } else { "not armed" }.into());
                at
            }
            What::Inotify(count) => {
                let at = self.object(Kind::Inotify, format!("inotify:{pid}/{fd}"));
                self.objects[at].details.insert("watches".into(), count.to_string());
                at
            }
            What::Pidfd(inode, of) => {
                let at = self.object(Kind::Pidfd, format!("pidfd:{inode}"));
                let state = of.map_or_else(|| "ended".to_owned(), |pid| format!("process {pid}"));
                self.objects[at].state = Some(state);
                at
            }
            What::Master(index) => {
                let at = self.object(Kind::Pty, format!("pty:{index}"));
                let masters = self.objects[at].details.entry("masters".into()).or_default();
                if !masters.is_empty() {
                    masters.push(' ');
                }
                masters.push_str(&format!("pid:{pid}/fd:{fd}"));
                at
            }
            What::Slave(index) => {
                let at = self.object(Kind::Pty, format!("pty:{index}"));
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
        if let (true, None) = (self.kinds.has(Kind::Lock), file.kind) {
            let id = Self::file_id(Kind::Lock, file.device, file.inode);
            if let Some(&at) = self.by_id.get(&id) {
                self.objects[at].add_name(file.name.clone());
            }
        }
        let kind = file.kind?;
        let at = self.object(kind, Self::file_id(kind, file.device, file.inode));
        let object = &mut self.objects[at];
        (object.uid, object.gid, object.mode) = (Some(file.uid), Some(file.gid), Some(file.mode));
        object.add_name(if kind.is_memory() { memory_name(&file.name) } else { file.name.clone() });
        if kind.is_memory() {
            object.size = Some(file.size);
        }
        Some(at)
    }

    fn mapped(&mut self, pid: u32, ipc: Option<u64>, mapped: &Mapped) {
        let id = match mapped.kind {
            Kind::SysvShm => self.ipc_id(Kind::SysvShm, mapped.inode, ipc),
            kind => Self::file_id(kind, mapped.device, mapped.inode),
        };
        let at = self.object(mapped.kind, id);
        let object = &mut self.objects[at];
        if mapped.kind != Kind::SysvShm {
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
        let id = Self::file_id(Kind::Lock, line.device, line.inode);
        let at = self.object(Kind::Lock, id);
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

    /// Connects sockets with their peers.
    pub(crate) fn peers(&mut self) {
        let mut by_place = HashMap::new();
        for one in &self.inet {
            let s = &one.socket;
            let key = (one.net, one.protocol, canonical(s.local), canonical(s.remote));
            by_place.insert(key, one.at);
        }
        let mut found = Vec::new();
        for one in &self.inet {
            let s = &one.socket;
            if s.is_listening() || s.remote.port() == 0 {
                continue;
            }
            let key = (one.net, one.protocol, canonical(s.remote), canonical(s.local));
            if let Some(&peer) = by_place.get(&key).filter(|&&peer| peer != one.at) {
                found.push((one.at, peer));
            }
        }
        for (at, peer) in found {
            self.objects[at].peer = Some(self.objects[peer].id.clone());
        }
        self.accepted_by();
    }

    /// A connection that nobody has accepted is in the hands of those who listen.
    fn accepted_by(&mut self) {
        let mut listeners = HashMap::new();
        for one in self.inet.iter().filter(|one| one.socket.is_listening()) {
            listeners.insert((one.net, one.socket.local.port()), one.at);
        }
        let mut waiting = Vec::new();
        for one in self.inet.iter().filter(|one| one.protocol == Kind::Tcp) {
            let s = &one.socket;
            let unaccepted = s.inode == 0 && matches!(s.state, 1 | 8);
            if unaccepted && let Some(&listener) = listeners.get(&(one.net, s.local.port())) {
                waiting.push((one.at, listener));
            }
        }
        for (&inode, &listener) in &self.pending {
            if let Some(&client) = self.sockets.get(&inode) {
                let peer = self.objects[client].peer.clone();
                if let Some(&peer) = peer.and_then(|peer| self.by_id.get(&peer)) {
                    waiting.push((peer, listener));
                } else {
                    // Its peer is in no table: the listener stands for it.
                    self.objects[client].peer = Some(self.objects[listener].id.clone());
                    self.objects[client].state = Some("not yet accepted".to_owned());
                }
            }
        }
        for (at, listener) in waiting {
            let id = self.objects[listener].id.clone();
            self.objects[at].state = Some("to be accepted".to_owned());
            self.objects[at].details.insert("listener".to_owned(), id);
        }
    }

    /// The objects that were asked for, in order.
    pub(crate) fn finish(mut self) -> Vec<Object> {
        let kinds = self.kinds;
        self.objects.retain(|object| kinds.has(object.kind));
        for object in &mut self.objects {
            object.ends.sort_unstable();
            object.ends.dedup();
        }
        self.objects.sort_by(|a, b| (a.kind, natural(&a.id)).cmp(&(b.kind, natural(&b.id))));
        self.objects
    }
}

/// Ids in the order of their numbers.
fn natural(id: &str) -> (usize, &str) {
    (id.len(), id)
}

fn is_same(lock: &Lock, line: &locks::Line) -> bool {
    lock.kind == line.kind
        && lock.taker == line.pid
        && lock.exclusive == line.exclusive
        && (lock.start, lock.end) == (line.start, line.end)
        && lock.waiting == line.waiting
}

/// An address so that IPv4 in IPv6 is IPv4.
fn canonical(place: std::net::SocketAddr) -> (std::net::IpAddr, u16) {
    (place.ip().to_canonical(), place.port())
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
