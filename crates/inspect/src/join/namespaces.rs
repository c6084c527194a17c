//! What each namespace has: sockets, System V objects, queues, files in /dev/shm.
//!
//! Source: `namespaces(7)`, `setns(2)`. Another namespace is entered by a thread of its own, which ends afterwards; that needs
//! CAP_SYS_ADMIN. Where it is refused, the tables of /proc/PID/net are read instead.

use std::collections::{BTreeMap, HashMap};

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Inet, Join, Key};
use crate::collect::Found;
use crate::kind::{Kind, Kinds};
use crate::model::{End, Object, Times, Via};
use crate::source::inet::{self, Protocol};
use crate::source::queues::{self, Queue};
use crate::source::sysv::{self, Count, Row, Table};
use crate::source::{shared_files, unix};
use crate::traffic::SocketUse;

const NETWORK: &[Kind] = &[Kind::Unix, Kind::Tcp, Kind::Udp, Kind::Socket];
const IPC: &[Kind] = &[Kind::SysvMsg, Kind::SysvSem, Kind::SysvShm, Kind::Mq];
const MEMORY_FILES: &[Kind] = &[Kind::PosixShm, Kind::PosixSem];

/// What this process's own namespaces have, of the kinds that were asked for.
#[derive(Default)]
pub(crate) struct Tables {
    sockets: Option<Sockets>,
    ipc: Option<Ipc>,
    shared_files: Vec<shared_files::File>,
}

impl Tables {
    /// Reads them; `usage`: with the memory and traffic of sockets.
    pub(crate) fn of_here(kinds: Kinds, usage: bool) -> Self {
        let (unix, tcp, udp) = protocols(kinds);
        let sockets = || Sockets::of_here(unix, tcp, udp, usage).or_fill(unix, tcp, udp, "self");
        let files = kinds.has_any(MEMORY_FILES);
        Self {
            sockets: kinds.has_any(NETWORK).then(sockets),
            ipc: kinds.has_any(IPC).then(|| Ipc::of_here(kinds.has(Kind::Mq))),
            shared_files: if files { shared_files::all("/dev/shm") } else { Vec::new() },
        }
    }
}

/// Whether Unix, TCP and UDP sockets have to be looked at.
fn protocols(kinds: Kinds) -> (bool, bool, bool) {
    let wants = |kind| kinds.has(kind) || kinds.has(Kind::Socket);
    (wants(Kind::Unix), wants(Kind::Tcp), wants(Kind::Udp))
}

impl Join {
    /// Reads the tables of every namespace that a process is in; those of its own are given.
    pub(crate) fn namespaces(&mut self, found: &[Found], own: Tables) {
        self.network(found, own.sockets);
        self.ipc(found, own.ipc);
        self.add_shared_files(own.shared_files);
        if self.kinds.has_any(MEMORY_FILES) {
            for pid in representatives(found, |one| one.process.namespaces.mnt).values() {
                self.add_shared_files(shared_files::all(&format!("/proc/{pid}/root/dev/shm")));
            }
        }
    }

    fn network(&mut self, found: &[Found], own_sockets: Option<Sockets>) {
        let Some(sockets) = own_sockets else { return };
        let (unix, tcp, udp) = protocols(self.kinds);
        let (own, usage) = (self.viewer.net, self.usage);
        self.add_sockets(own, sockets);
        for (net, pid) in representatives(found, |one| one.process.namespaces.net) {
            if Some(net) == own {
                continue;
            }
            let inside = within(pid, "net", LinkNameSpaceType::Network, || {
                Sockets::of_here(unix, tcp, udp, usage)
            });
            let sockets = inside.unwrap_or_default().or_fill(unix, tcp, udp, &pid.to_string());
            if sockets.unix.is_none() && unix {
                self.missing.push(format!("sockets of network namespace {net}: root sees them"));
            }
            self.add_sockets(Some(net), sockets);
        }
    }

    fn add_sockets(&mut self, net: Option<u64>, sockets: Sockets) {
        if sockets.unix_without_peers {
            self.missing
                .push("peers and fill of Unix sockets: the kernel refused sock_diag".into());
        }
        for socket in sockets.unix.unwrap_or_default() {
            self.unix(net, socket);
        }
        for (protocol, list) in [(Kind::Tcp, sockets.tcp), (Kind::Udp, sockets.udp)] {
            for socket in list.unwrap_or_default() {
                self.inet(net, protocol, socket);
            }
        }
    }

    /// The object of a socket that is in a table: what descriptors led to, or new.
    fn socket(&mut self, kind: Kind, inode: u64) -> usize {
        if let Some(&at) = self.sockets.get(&inode) {
            if self.objects[at].kind != kind {
                self.objects[at].kind = kind;
                self.objects[at].id = self.id(&Key::Number(kind, inode));
            }
            return at;
        }
        let at = self.object(Key::Number(kind, inode));
        self.sockets.insert(inode, at);
        at
    }

    fn foreign(&self, net: Option<u64>) -> Option<u64> {
        net.filter(|_| net != self.viewer.net)
    }

    fn unix(&mut self, net: Option<u64>, socket: unix::Socket) {
        if socket.inode == 0 {
            // The server's half of a connection that nobody has accepted yet.
            return;
        }
        let at = self.socket(Kind::Unix, socket.inode);
        for &client in &socket.clients {
            self.pending.insert(client, at);
        }
        let namespace = self.foreign(net);
        let usage = self.usage;
        let object = &mut self.objects[at];
        object.namespace = namespace;
        object.uid = socket.uid;
        let kind = match socket.kind {
            1 => "stream",
            2 => "datagram",
            5 => "seqpacket",
            _ => "other",
        };
        object.details.insert("type", kind);
        if let Some(name) = socket.name {
            object.add_name(name);
        }
        if let Some(((major, minor), inode)) = socket.file {
            object.details.insert("file", format!("{major}:{minor}:{inode}"));
        }
        object.fill = Some(socket.waiting.into());
        if socket.listening {
            object.state = Some("listening".into());
            object.size = socket.backlog.map(u64::from);
        } else if let Some(peer) = socket.peer {
            object.state = Some("connected".into());
            object.peer = Some(format!("unix:{peer}"));
        } else if socket.connected {
            object.state = Some("peer closed".into());
        }
        if let (true, Some(_)) = (usage, socket.unread) {
            object.socket = Some(SocketUse { sent: socket.unread, ..SocketUse::default() });
        }
        if let Some((unread, limit)) = socket.unread.filter(|&(unread, _)| unread > 1) {
            object.details.insert("sent and not read", format!("{unread} of {limit}"));
        }
        if socket.shut != 0 {
            let shut = ["", "reading", "writing", "both ways"][usize::from(socket.shut & 3)];
            object.details.insert("shut down", shut);
        }
    }

    fn inet(&mut self, net: Option<u64>, protocol: Kind, socket: inet::Socket) {
        let at = if socket.inode == 0 {
            let addresses = format!("{}-{}", socket.local, socket.remote);
            self.object(Key::Text(protocol, addresses))
        } else {
            self.socket(protocol, socket.inode)
        };
        let namespace = self.foreign(net);
        let object = &mut self.objects[at];
        object.namespace = namespace;
        object.uid = Some(socket.uid).filter(|_| socket.inode != 0);
        object.add_name(socket.local.to_string());
        object.fill = Some(socket.receive.into());
        object.socket = socket.usage;
        if protocol == Kind::Tcp {
            object.state = Some(inet::state_name(socket.state).into());
            if socket.is_listening() {
                object.size = socket.backlog_known.then_some(socket.send.into());
            }
        }
        if socket.remote.port() != 0 {
            object.add_name(format!("{} -> {}", socket.local, socket.remote));
            object.details.insert("remote", socket.remote.to_string());
        }
        if !socket.is_listening() && socket.send > 0 {
            object.details.insert("sent and not acknowledged", socket.send.to_string());
        }
        self.inet.push(Inet { at, net, protocol, socket });
    }

    fn ipc(&mut self, found: &[Found], own_tables: Option<Ipc>) {
        let Some(tables) = own_tables else { return };
        let queues = self.kinds.has(Kind::Mq);
        let own = self.viewer.ipc;
        self.add_ipc(own, tables);
        let mut read = vec![own];
        for (ipc, pid) in representatives(found, |one| one.process.namespaces.ipc) {
            if Some(ipc) == own {
                continue;
            }
            match within(pid, "ipc", LinkNameSpaceType::InterProcessCommunication, || {
                Ipc::of_here(queues)
            }) {
                Some(inside) => {
                    self.add_ipc(Some(ipc), inside);
                    read.push(Some(ipc));
                }
                None => {
                    let what = format!("System V objects and queues of IPC namespace {ipc}");
                    self.missing.push(format!("{what}: root sees them"));
                }
            }
        }
        self.taken_along(&read);
    }

    /// Who goes to another IPC namespace takes attached segments along: what is mapped, and not in that namespace's table, is of another one.
    fn taken_along(&mut self, read: &[Option<u64>]) {
        let is_listed = |one: &Object| one.details.get("key").is_some();
        let mut listed: HashMap<i64, Vec<usize>> = HashMap::new();
        let mut strays = Vec::new();
        for (key, &at) in &self.known {
            match *key {
                Key::Ipc(Kind::SysvShm, id, _) if is_listed(&self.objects[at]) => {
                    listed.entry(id).or_default().push(at);
                }
                Key::Ipc(Kind::SysvShm, id, ipc) if read.contains(&ipc) => strays.push((id, at)),
                _ => {}
            }
        }
        for (id, stray) in strays {
            if let Some(&[home]) = listed.get(&id).map(Vec::as_slice) {
                let ends = std::mem::take(&mut self.objects[stray].ends);
                self.objects[home].ends.extend(ends);
                self.strays.push(stray);
            }
        }
    }

    fn add_ipc(&mut self, ipc: Option<u64>, found: Ipc) {
        for (row, limit) in found.messages {
            let at = self.sysv(Kind::SysvMsg, ipc, &row);
            self.used(at, [row.first, row.last]);
            self.users.insert(at, (row.first, row.last));
            let object = &mut self.objects[at];
            (object.size, object.fill) = (limit, Some(row.size));
            object.details.insert("messages", row.count.to_string());
            object.details.insert("last sender", row.first.to_string());
            object.details.insert("last receiver", row.last.to_string());
        }
        for (row, counts) in found.semaphores {
            let at = self.sysv(Kind::SysvSem, ipc, &row);
            let counts = counts.unwrap_or_default();
            for (index, count) in counts.iter().enumerate() {
                self.used(at, count.last);
                let number = u16::try_from(index).unwrap_or(u16::MAX);
                self.counts.insert((at, number), (count.value, count.last));
                let (more, zero) = count.waiting;
                let last = count.last.map_or_else(|| "nobody".into(), |pid| pid.to_string());
                let text = format!(
                    "count {}, last used by {last}, {more} wait for more, {zero} for zero",
                    count.value
                );
                self.objects[at].details.insert(format!("semaphore {index}"), text);
            }
            let waiting = |count: &Count| u64::from(count.waiting.0) + u64::from(count.waiting.1);
            let waiting: u64 = counts.iter().map(waiting).sum();
            if waiting > 0 {
                self.objects[at].details.insert("waiting", waiting.to_string());
            }
            self.objects[at].details.insert("semaphores", row.size.to_string());
            let left = row.size.saturating_sub(counts.len() as u64);
            if left > 0 && !counts.is_empty() {
                self.objects[at].details.insert("semaphores not looked at", left.to_string());
            }
        }
        for row in found.memory {
            let at = self.sysv(Kind::SysvShm, ipc, &row);
            let object = &mut self.objects[at];
            object.size = Some(row.size);
            object.details.insert("attachments", row.count.to_string());
            object.details.insert("made by", row.first.to_string());
            object.details.insert("last attached or detached by", row.last.to_string());
            if row.mode & 0o1000 != 0 {
                object.state = Some("removed when its last user detaches".into());
            }
        }
        match found.queues {
            Ok(queues) => {
                for queue in queues {
                    self.queue(ipc, queue);
                }
            }
            Err(error) => self.missing.push(format!(
                "POSIX queues that nobody has open ({error}): root sees them, and everybody once `mount -t mqueue none \
                 /dev/mqueue` was done"
            )),
        }
    }

    fn sysv(&mut self, kind: Kind, ipc: Option<u64>, row: &Row) -> usize {
        let at = self.object(self.ipc_key(kind, row.id.into(), ipc));
        let own = self.viewer.ipc;
        let object = &mut self.objects[at];
        object.namespace = ipc.filter(|_| ipc != own);
        (object.uid, object.gid) = (Some(row.uid), Some(row.gid));
        object.mode = Some(row.mode & 0o777);
        object.times = Times::of_seconds(row.changed, row.used);
        if row.maker_uid != row.uid {
            object.details.insert("made by user", row.maker_uid.to_string());
        }
        let key = if row.key == 0 { "private".to_owned() } else { format!("0x{:08x}", row.key) };
        object.details.insert("key", key.clone());
        if row.key != 0 {
            object.add_name(key);
        }
        at
    }

    fn used(&mut self, at: usize, pids: impl IntoIterator<Item = u32>) {
        for pid in pids.into_iter().filter(|&pid| pid != 0) {
            self.objects[at].ends.push(End { pid, via: Via::Used, reads: true, writes: true });
        }
    }

    fn queue(&mut self, ipc: Option<u64>, queue: Queue) {
        let at = self.object(Key::of_file(Kind::Mq, queue.device, queue.inode));
        let own = self.viewer.ipc;
        let object = &mut self.objects[at];
        object.namespace = ipc.filter(|_| ipc != own);
        object.add_name(queue.name);
        (object.uid, object.gid) = (Some(queue.uid), Some(queue.gid));
        object.mode = Some(queue.mode);
        object.times = queue.times;
        if let Some(attributes) = queue.attributes {
            object.size = Some(attributes.max_messages.into());
            object.fill = Some(attributes.waiting_messages.into());
            let each = attributes.message_size_bytes.to_string();
            object.details.insert("bytes per message", each);
        }
    }

    fn add_shared_files(&mut self, files: Vec<shared_files::File>) {
        for file in files {
            if !self.kinds.has(file.kind) {
                continue;
            }
            let at = self.object(Key::of_file(file.kind, file.device, file.inode));
            let object = &mut self.objects[at];
            object.add_name(file.name);
            (object.uid, object.gid) = (Some(file.uid), Some(file.gid));
            (object.mode, object.size) = (Some(file.mode), Some(file.size));
            object.times = file.times;
        }
    }
}

/// One process of each namespace.
fn representatives(
    found: &[Found],
    namespace: impl Fn(&Found) -> Option<u64>,
) -> BTreeMap<u64, u32> {
    let all = found.iter().rev().filter_map(|one| Some((namespace(one)?, one.process.pid)));
    all.collect::<HashMap<_, _>>().into_iter().collect()
}

/// Runs something in a namespace of another process, on a thread of its own, which stays there and ends.
fn within<T: Send>(
    pid: u32,
    name: &str,
    kind: LinkNameSpaceType,
    read: impl FnOnce() -> T + Send,
) -> Option<T> {
    let link = std::fs::File::open(format!("/proc/{pid}/ns/{name}")).ok()?;
    std::thread::scope(|scope| {
        let enter = std::thread::Builder::new().spawn_scoped(scope, || {
            use std::os::fd::AsFd;
            move_into_link_name_space(link.as_fd(), Some(kind)).ok().map(|()| read())
        });
        // Where a user may have no more threads, the other namespace is not seen.
        enter.ok()?.join().ok().flatten()
    })
}

/// The sockets of a namespace; none where they could not be read.
#[derive(Default)]
struct Sockets {
    unix: Option<Vec<unix::Socket>>,
    unix_without_peers: bool,
    tcp: Option<Vec<inet::Socket>>,
    udp: Option<Vec<inet::Socket>>,
}

impl Sockets {
    fn of_here(unix: bool, tcp: bool, udp: bool, usage: bool) -> Self {
        Self {
            unix: if unix { unix::all().ok() } else { None },
            unix_without_peers: false,
            tcp: if tcp { inet::all(Protocol::Tcp, usage).ok() } else { None },
            udp: if udp { inet::all(Protocol::Udp, usage).ok() } else { None },
        }
    }

    /// With the tables of /proc where the kernel did not answer.
    fn or_fill(mut self, unix: bool, tcp: bool, udp: bool, process: &str) -> Self {
        let read = |name| std::fs::read(format!("/proc/{process}/net/{name}")).ok();
        if unix && self.unix.is_none() {
            self.unix = read("unix").map(|text| unix::table(&text));
            self.unix_without_peers = self.unix.is_some();
        }
        for (wanted, list, names) in
            [(tcp, &mut self.tcp, ["tcp", "tcp6"]), (udp, &mut self.udp, ["udp", "udp6"])]
        {
            if wanted && list.is_none() {
                let tables = names.into_iter().filter_map(read);
                *list = Some(tables.flat_map(|text| inet::table(&text)).collect());
            }
        }
        self
    }
}

/// What an IPC namespace has.
struct Ipc {
    messages: Vec<(Row, Option<u64>)>,
    semaphores: Vec<(Row, Option<Vec<Count>>)>,
    memory: Vec<Row>,
    queues: Result<Vec<Queue>, Errno>,
}

impl Ipc {
    fn of_here(queues: bool) -> Self {
        let rows = |table: Table| {
            std::fs::read(table.path()).map(|text| sysv::table(table, &text)).unwrap_or_default()
        };
        let with = |row: Row| (sysv::queue_limit(&row), row);
        Self {
            messages: rows(Table::Messages)
                .into_iter()
                .map(|row| {
                    let (limit, row) = with(row);
                    (row, limit)
                })
                .collect(),
            semaphores: rows(Table::Semaphores)
                .into_iter()
                .map(|row| {
                    let counts = sysv::counts(&row);
                    (row, counts)
                })
                .collect(),
            memory: rows(Table::Memory),
            queues: if queues { queues::all() } else { Ok(Vec::new()) },
        }
    }
}
