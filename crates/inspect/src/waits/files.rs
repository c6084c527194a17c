//! Waits for locks on files, for the other end of a FIFO, and for System V objects.
//!
//! Source: `flock(2)`, `fcntl_locking(2)`, `fifo(7)`, `semop(2)`, `msgop(2)`.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::resolve::Resolve;
use crate::join::Key;
use crate::kind::Kind;
use crate::model::{End, Lock, LockKind, Need, Target, Via, WaitOn};
use crate::source::descriptors::position;
use crate::source::folder::device;
use crate::source::locks;
use crate::source::system_call::Inside;
use crate::source::system_call::arguments::{record_lock, semaphore_operations};
use crate::text::escaped;

const F_SETLKW: i32 = 7;
const F_OFD_SETLKW: i32 = 38;

/// A lock that is wanted.
struct Wanted {
    kind: LockKind,
    exclusive: bool,
    start: u64,
    /// The last byte; none: to the end.
    end: Option<u64>,
    /// Whether these bytes are sure.
    known: bool,
}

impl Resolve<'_> {
    pub(super) fn flock(&mut self, fd: i32, operation: i32) -> WaitOn {
        const LOCK_EX: i32 = 2;
        let exclusive = operation & LOCK_EX != 0;
        let kind = LockKind::Flock;
        self.locked(fd, &Wanted { kind, exclusive, start: 0, end: None, known: true })
    }

    pub(super) fn record_lock(&mut self, fd: i32, call: &Inside) -> WaitOn {
        let kind = match call.small(1) {
            F_SETLKW => LockKind::Posix,
            F_OFD_SETLKW => LockKind::OpenFile,
            command => return WaitOn::Other(format!("fcntl command {command}")),
        };
        let bytes = self.process.memory().bytes(call.arguments[2], 24).unwrap_or_default();
        let lock = record_lock(&bytes);
        let exclusive = lock.is_none_or(|lock| lock.exclusive);
        let (mut start, mut end, mut known) = (0, None, false);
        if let Some(lock) = lock
            && let Some(base) = self.base(fd, lock.whence)
            // A length below 0 is what lies before, which nobody asks for.
            && let Ok(len) = u64::try_from(lock.len)
        {
            start = base.checked_add_signed(lock.start).unwrap_or(0);
            end = len.checked_sub(1).map(|more| start.saturating_add(more));
            known = true;
        }
        self.locked(fd, &Wanted { kind, exclusive, start, end, known })
    }

    /// What the beginning of a lock counts from: the file's, its position, or its end.
    fn base(&mut self, fd: i32, whence: i16) -> Option<u64> {
        match whence {
            0 => Some(0),
            1 => {
                let text = self.fdinfo(fd)?;
                position(&text)
            }
            2 => Some(self.process.folder()?.status(format!("fd/{fd}")).ok()?.stx_size),
            _ => None,
        }
    }

    fn fdinfo(&self, fd: i32) -> Option<Vec<u8>> {
        std::fs::read(format!("/proc/{}/fdinfo/{fd}", self.pid())).ok()
    }

    fn locked(&mut self, fd: i32, wanted: &Wanted) -> WaitOn {
        let place = format!("fd/{fd}");
        let folder = self.process.folder();
        let looked =
            folder.and_then(|folder| Some((folder.status(&place).ok()?, folder.link(&place))));
        let Some((status, link)) = looked else { return self.elsewhere(fd) };
        let at = self.join.object(Key::of_file(Kind::Lock, device(&status), status.stx_ino));
        let id = self.join.objects[at].id.clone();
        if let Ok(link) = link {
            self.join.objects[at].add_name(escaped(&link));
        }
        let pid = self.pid();
        // Those that this open file has already, which do not conflict with what it wants.
        let had = match wanted.kind {
            LockKind::OpenFile => self.fdinfo(fd).map(|text| locks::of_descriptor(&text)),
            _ => None,
        };
        let had = had.unwrap_or_default();
        let is_had = |lock: &Lock| {
            let same = |line: &locks::Line| {
                (line.kind, line.start, line.end) == (lock.kind, lock.start, lock.end)
            };
            lock.kind == LockKind::OpenFile && lock.holders.contains(&pid) && had.iter().any(same)
        };
        let in_the_way: Vec<&Lock> = self.join.objects[at]
            .locks
            .iter()
            .filter(|lock| conflicts(lock, wanted, pid) && !is_had(lock))
            .collect();
        let (mut owners, mut each) = (Vec::new(), Vec::new());
        // Every lock in the way has to go; but of a lock that several processes have, each can let go.
        let every = in_the_way.len() > 1;
        let mut sure = wanted.known && !in_the_way.is_empty();
        let mut dead_owner = None;
        for lock in &in_the_way {
            let lives = |pid: &u32| self.found.iter().any(|one| one.process.pid == *pid);
            let mut holders = lock.holders.clone();
            holders.extend(lock.taker.filter(|pid| holders.is_empty() && lives(pid)));
            if holders.is_empty() {
                dead_owner = dead_owner.or(lock.taker);
                sure = false;
            }
            if !holders.is_empty() {
                owners.extend(&holders);
                each.push(holders);
            }
        }
        owners.sort_unstable();
        owners.dedup();
        let end = wanted.end.map_or_else(|| "the end".to_owned(), |end| end.to_string());
        let way = if wanted.exclusive { "exclusive" } else { "shared" };
        let kind = match wanted.kind {
            LockKind::Flock => format!("flock, {way}"),
            LockKind::Posix => format!("record lock, {way}, bytes {} to {end}", wanted.start),
            _ => format!("open-file lock, {way}, bytes {} to {end}", wanted.start),
        };
        let end = End { pid, via: Via::Waits, reads: true, writes: wanted.exclusive };
        self.join.objects[at].ends.push(end);
        WaitOn::Objects(vec![Target {
            fd: Some(fd),
            owners,
            sure,
            every,
            locks: if every { each } else { Vec::new() },
            dead_owner,
            detail: Some(kind),
            ..Target::new(id, Need::Release)
        }])
    }

    /// A FIFO that is opened waits for its other end; a file with a lease, for whoever has that, for a time. Whether it ends by itself, too.
    pub(super) fn open(&mut self, call: &Inside, path: usize, folder: bool) -> (WaitOn, bool) {
        let Some(text) = self.process.memory().text(call.arguments[path]) else {
            return (WaitOn::Other("a path that cannot be read".to_owned()), false);
        };
        let shown = escaped(&text);
        let opening = (WaitOn::Other(shown.clone()), false);
        let sleeps_in = |names: &[&str]| names.iter().any(|name| self.channel.contains(name));
        let leased = sleeps_in(&["break_lease"]);
        if !self.channel.is_empty() && !leased && !sleeps_in(&["wait_for_partner", "fifo_open"]) {
            return opening;
        }
        let pid = self.pid();
        let base = match (text.first(), folder.then(|| call.small(0))) {
            (Some(b'/'), _) => "root".to_owned(),
            (_, Some(fd)) if fd >= 0 => format!("fd/{fd}"),
            _ => "cwd".to_owned(),
        };
        let mut full = format!("/proc/{pid}/{base}/").into_bytes();
        full.extend(text);
        let full = std::path::PathBuf::from(
            <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(full),
        );
        let Ok(status) = std::fs::metadata(full) else { return opening };
        if leased {
            return (self.leased((status.dev(), status.ino()), shown), true);
        }
        if !status.file_type().is_fifo() {
            return opening;
        }
        let at = self.join.object(Key::of_file(Kind::Fifo, status.dev(), status.ino()));
        // The kernel waits in this call for the one end that the caller does not open.
        let reads = call.arguments[path + 1] & 3 == 0;
        let object = &mut self.join.objects[at];
        object.add_name(shown);
        (object.uid, object.gid) = (Some(status.uid()), Some(status.gid()));
        object.mode = Some(status.mode() & 0o7777);
        object.ends.push(End { pid, via: Via::Waits, reads, writes: !reads });
        let need = if reads { Need::Writer } else { Need::Reader };
        (WaitOn::Objects(vec![Target::new(object.id.clone(), need)]), false)
    }

    /// Until whoever has a lease gives it back; the kernel takes it after `fs.lease-break-time`.
    fn leased(&mut self, (device, inode): (u64, u64), name: String) -> WaitOn {
        let at = self.join.object(Key::of_file(Kind::Lock, device, inode));
        let pid = self.pid();
        let object = &mut self.join.objects[at];
        object.add_name(name);
        let leases = object.locks.iter().filter(|lock| lock.kind == LockKind::Lease);
        let mut owners: Vec<u32> =
            leases.flat_map(|lock| lock.holders.iter().copied().chain(lock.taker)).collect();
        owners.sort_unstable();
        owners.dedup();
        object.ends.push(End { pid, via: Via::Waits, reads: true, writes: true });
        let target = Target::new(object.id.clone(), Need::Release);
        let detail = Some("a lease, which the kernel takes back after a while".to_owned());
        WaitOn::Objects(vec![Target { owners, detail, ..target }])
    }

    pub(super) fn semaphore(&mut self, call: &Inside) -> WaitOn {
        let ipc = self.found[self.at].process.namespaces.ipc;
        let key = self.join.ipc_key(Kind::SysvSem, call.small(0).into(), ipc);
        let id = self.join.id(&key);
        let mut target = Target::new(id.clone(), Need::Count);
        let count = usize::try_from(call.arguments[2]).unwrap_or(0).min(500);
        let bytes = self.process.memory().bytes(call.arguments[1], count * 6).unwrap_or_default();
        let all = semaphore_operations(&bytes);
        let operations: Vec<(u16, i16)> = all.iter().map(|one| (one.index, one.change)).collect();
        let at = self.join.find(&key);
        let counts = |index: u16| at.and_then(|at| self.join.counts.get(&(at, index)).copied());
        let blocks = |&&(index, operation): &&(u16, i16)| match counts(index) {
            Some((value, _)) if operation == 0 => value != 0,
            Some((value, _)) => i32::from(value) + i32::from(operation) < 0,
            None => operation <= 0,
        };
        if let Some(&(index, operation)) = operations.iter().find(blocks) {
            let wants = if operation == 0 { "zero".to_owned() } else { format!("{}", -operation) };
            let value =
                counts(index).map_or_else(|| "unknown".to_owned(), |(value, _)| value.to_string());
            target.detail = Some(format!("semaphore {index}, wants {wants}, count {value}"));
            let last = counts(index).and_then(|(_, last)| last).filter(|&last| last != self.pid());
            if let Some(last) = last {
                if self.found.iter().any(|one| one.process.pid == last) {
                    target.owners = vec![last];
                } else {
                    target.dead_owner = Some(last);
                }
            }
        }
        WaitOn::Objects(vec![target])
    }

    /// A message of a type, while there may be others.
    pub(super) fn message_of_type(&mut self, id: i32, call: &Inside) -> WaitOn {
        const MSG_EXCEPT: i32 = 0o20000;
        let wanted = call.arguments[3].cast_signed();
        let wants = match wanted {
            0 => String::new(),
            1.. if call.small(4) & MSG_EXCEPT != 0 => format!("wants any type but {wanted}"),
            1.. => format!("wants type {wanted}"),
            _ => format!("wants type {} or below", wanted.unsigned_abs()),
        };
        let mut on = self.message(id, Need::Data);
        if let WaitOn::Objects(targets) = &mut on
            && let [target] = &mut targets[..]
        {
            let ipc = self.found[self.at].process.namespaces.ipc;
            let key = self.join.ipc_key(Kind::SysvMsg, id.into(), ipc);
            let queue = self.join.find(&key).map(|at| &self.join.objects[at]);
            let others = queue.and_then(|queue| queue.details.get("messages"));
            let others = others.filter(|&count| count != "0");
            let bytes = queue.and_then(|queue| queue.fill).unwrap_or(0);
            let others = others.map(|count| format!("messages there: {count}, with {bytes} bytes"));
            let said: Vec<String> = [Some(wants).filter(|wants| !wants.is_empty()), others]
                .into_iter()
                .flatten()
                .collect();
            target.detail = Some(said.join("; ")).filter(|said| !said.is_empty());
        }
        on
    }

    pub(super) fn message(&mut self, id: i32, need: Need) -> WaitOn {
        let ipc = self.found[self.at].process.namespaces.ipc;
        let key = self.join.ipc_key(Kind::SysvMsg, id.into(), ipc);
        let id = self.join.id(&key);
        let mut target = Target::new(id.clone(), need);
        let users = self.join.find(&key).and_then(|at| self.join.users.get(&at).copied());
        if let Some((sender, receiver)) = users {
            let other = if need == Need::Data { sender } else { receiver };
            let lives = self.found.iter().any(|one| one.process.pid == other);
            if lives && other != self.pid() {
                target.owners = vec![other];
            }
        }
        WaitOn::Objects(vec![target])
    }
}

fn conflicts(lock: &Lock, wanted: &Wanted, pid: u32) -> bool {
    let record = |kind| matches!(kind, LockKind::Posix | LockKind::OpenFile);
    let same_family = lock.kind == wanted.kind || (record(lock.kind) && record(wanted.kind));
    let own =
        lock.kind == LockKind::Posix && wanted.kind == LockKind::Posix && lock.taker == Some(pid);
    let apart = wanted.end.is_some_and(|end| end < lock.start)
        || lock.end.is_some_and(|end| end < wanted.start);
    same_family && !lock.waiting && !own && !apart && (lock.exclusive || wanted.exclusive)
}
