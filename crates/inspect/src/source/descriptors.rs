//! What a process has open: /proc/PID/fd, and fdinfo of the kinds that need it.
//!
//! Source: `proc_pid_fd(5)`, `proc_pid_fdinfo(5)`. Nothing is opened: a link says what a descriptor is, the
//! link's own mode in which direction it was opened, and `stat(2)` through it which file it is.

use std::collections::{HashMap, HashSet};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::folder::{Folder, bracketed};
use super::locks;
use super::numbers::{decimal, field, hexadecimal, octal, signed, small, words};
use crate::kind::{Kind, Kinds};
use crate::text::escaped;

/// An open descriptor of a kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub fd: i32,
    /// It was opened for reading.
    pub reads: bool,
    /// It was opened for writing.
    pub writes: bool,
    /// What it leads to.
    pub what: What,
}

/// What a descriptor leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An anonymous pipe, by its inode.
    Pipe(u64),
    /// A socket, by its inode.
    Socket(u64),
    /// A file of a kind: FIFO, queue, memory, or one with locks.
    File(File),
    /// Its number, and its count.
    Eventfd(u64, u64),
    /// What it watches: descriptors of the process that added them, the file's inode, and for which events.
    Epoll(Vec<(i32, u64, u32)>),
    /// The signals it takes, a bit each.
    Signalfd(u64),
    /// A timer; whether it runs.
    Timerfd(bool),
    /// A watch on files: how many.
    Inotify(usize),
    /// A process: the descriptor's inode, and its id if it lives.
    Pidfd(u64, Option<u32>),
    /// The master's side of a pseudo-terminal.
    Master(u32),
    /// The slave's side.
    Slave(u32),
    /// Whatever may happen through it cannot be seen.
    IoUring,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it is; none: only its locks are of interest.
    pub kind: Option<Kind>,
    /// Its device.
    pub device: u64,
    /// Its number.
    pub inode: u64,
    /// Its path as the process sees it, escaped.
    pub name: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its size.
    pub size: u64,
    /// Locks that this descriptor holds.
    pub locks: Vec<locks::Line>,
}

/// What is looked for, and what was learned on the way; one for each thread that reads.
#[derive(Debug)]
pub struct Search<'a> {
    /// The kinds.
    pub kinds: Kinds,
    /// Files that have locks, by device and inode.
    pub locked: &'a HashSet<(u64, u64)>,
    /// Whether a device is that of POSIX queues.
    queues: HashMap<u64, bool>,
    buffer: Vec<u8>,
}

/// Kinds that have a path, so that each path has to be looked at.
const WITH_PATH: &[Kind] = &[
    Kind::Fifo,
    Kind::Mq,
    Kind::PosixShm,
    Kind::PosixSem,
    Kind::Memfd,
    Kind::Pty,
    Kind::Lock,
    Kind::Futex,
];
const MQUEUE_MAGIC: i64 = 0x1980_0202;
const MOST_TARGETS: usize = 1 << 20;

impl<'a> Search<'a> {
    /// A new one.
    #[must_use]
    pub fn new(kinds: Kinds, locked: &'a HashSet<(u64, u64)>) -> Self {
        Self { kinds, locked, queues: HashMap::new(), buffer: Vec::new() }
    }

    /// Reads the descriptors of a process; gives them and how many there are of any kind.
    ///
    /// # Errors
    /// `EACCES` without the right to; `ESRCH`, `ENOENT` when it ended.
    pub fn read(&mut self, pid: u32, process: &Folder) -> Result<(Vec<Descriptor>, u32), Errno> {
        let links = process.within("fd")?;
        let mut numbers = Vec::new();
        links.numbers(|number| numbers.push(number))?;
        let mut found = Vec::new();
        for &number in &numbers {
            let Ok(fd) = i32::try_from(number) else { continue };
            let name = number.to_string();
            let link = match links.link(&name) {
                Ok(link) => link,
                // The folder can be listed, but nothing in it may be followed.
                Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(error),
                // It was closed meanwhile.
                Err(_) => continue,
            };
            let Some(what) = self.what(pid, process, &links, &name, &link) else { continue };
            let directed = matches!(what, What::Pipe(_) | What::File(_));
            let mode = if directed {
                links.link_status(&name).map_or(0o700, |status| status.st_mode)
            } else {
                0o700
            };
            found.push(Descriptor {
                fd,
                reads: mode & 0o400 != 0,
                writes: mode & 0o200 != 0,
                what,
            });
        }
        Ok((found, u32::try_from(numbers.len()).unwrap_or(u32::MAX)))
    }

    fn what(
        &mut self,
        pid: u32,
        process: &Folder,
        links: &Folder,
        name: &str,
        link: &[u8],
    ) -> Option<What> {
        if link.starts_with(b"/") {
            if !self.kinds.has_any(WITH_PATH) {
                return None;
            }
            let status = links.status(name).ok()?;
            return self.file(pid, process, name, link, &status);
        }
        if let Some(inode) = bracketed(link, b"pipe") {
            return self.kinds.has(Kind::Pipe).then_some(What::Pipe(inode));
        }
        if let Some(inode) = bracketed(link, b"socket") {
            let wanted = [Kind::Unix, Kind::Tcp, Kind::Udp, Kind::Socket];
            return self.kinds.has_any(&wanted).then_some(What::Socket(inode));
        }
        let kind = match link.strip_prefix(b"anon_inode:")? {
            b"[eventfd]" => Kind::Eventfd,
            b"[eventpoll]" => Kind::Epoll,
            b"[signalfd]" => Kind::Signalfd,
            b"[timerfd]" => Kind::Timerfd,
            b"[pidfd]" => Kind::Pidfd,
            b"inotify" | b"[fanotify]" => Kind::Inotify,
            b"[io_uring]" => return Some(What::IoUring),
            _ => return None,
        };
        if !self.kinds.has(kind) {
            return None;
        }
        process.read(&format!("fdinfo/{name}"), &mut self.buffer).ok()?;
        anonymous(kind, &self.buffer)
    }

    fn file(
        &mut self,
        pid: u32,
        process: &Folder,
        name: &str,
        link: &[u8],
        status: &Stat,
    ) -> Option<What> {
        let device = status.st_dev;
        let kind = match FileType::from_raw_mode(status.st_mode) {
            FileType::Fifo => Some(Kind::Fifo),
            FileType::CharacterDevice => return self.terminal(process, name, status),
            FileType::RegularFile => self.regular(pid, name, link, device),
            FileType::Directory => None,
            _ => return None,
        };
        let kind = kind.filter(|&kind| self.kinds.has(kind) || self.kinds.has(Kind::Futex));
        let inode = status.st_ino;
        let mut held = Vec::new();
        if self.locked.contains(&(device, inode))
            && process.read(&format!("fdinfo/{name}"), &mut self.buffer).is_ok()
        {
            held = locks::of_descriptor(&self.buffer);
        }
        if kind.is_none() && !self.kinds.has(Kind::Lock) {
            return None;
        }
        // A file without locks is of interest only where somebody may be waiting for one.
        if kind.is_none() && !self.locked.contains(&(device, inode)) {
            return None;
        }
        Some(What::File(File {
            kind,
            device,
            inode,
            name: escaped(link),
            uid: status.st_uid,
            gid: status.st_gid,
            mode: status.st_mode & 0o7777,
            size: u64::try_from(status.st_size).unwrap_or(0),
            locks: held,
        }))
    }

    fn regular(&mut self, pid: u32, name: &str, link: &[u8], device: u64) -> Option<Kind> {
        if rustix::fs::major(device) != 0 {
            return None;
        }
        match super::maps::kind(link, false) {
            Kind::Mapping => {}
            kind => return Some(kind),
        }
        let is_queue = *self.queues.entry(device).or_insert_with(|| {
            rustix::fs::statfs(format!("/proc/{pid}/fd/{name}"))
                .is_ok_and(|found| found.f_type == MQUEUE_MAGIC)
        });
        is_queue.then_some(Kind::Mq)
    }

    fn terminal(&mut self, process: &Folder, name: &str, status: &Stat) -> Option<What> {
        if !self.kinds.has(Kind::Pty) {
            return None;
        }
        let (major, minor) = super::numbers::device(status.st_rdev);
        match (major, minor) {
            (5, 2) => {
                process.read(&format!("fdinfo/{name}"), &mut self.buffer).ok()?;
                let index = field(&self.buffer, "tty-index").and_then(small)?;
                Some(What::Master(index))
            }
            (136..=143, minor) => Some(What::Slave((major - 136) * 256 + minor)),
            _ => None,
        }
    }
}

/// What the fdinfo of something without a file says.
#[must_use]
pub fn anonymous(kind: Kind, fdinfo: &[u8]) -> Option<What> {
    let number = |name| field(fdinfo, name).and_then(decimal);
    Some(match kind {
        Kind::Eventfd => {
            let count = field(fdinfo, "eventfd-count").and_then(hexadecimal).unwrap_or(0);
            What::Eventfd(number("eventfd-id")?, count)
        }
        Kind::Epoll => What::Epoll(watched(fdinfo)),
        Kind::Signalfd => What::Signalfd(field(fdinfo, "sigmask").and_then(hexadecimal)?),
        Kind::Timerfd => {
            let value = field(fdinfo, "it_value").unwrap_or(b"(0, 0)");
            What::Timerfd(value.iter().any(|byte| (b'1'..=b'9').contains(byte)))
        }
        Kind::Inotify => {
            let lines = fdinfo.split(|&byte| byte == b'\n');
            What::Inotify(lines.filter(|line| line.starts_with(b"inotify wd:")).count())
        }
        Kind::Pidfd => {
            let pid = field(fdinfo, "Pid").and_then(signed);
            let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0);
            What::Pidfd(number("ino")?, pid)
        }
        _ => return None,
    })
}

/// The `tfd:` lines of an epoll instance.
fn watched(fdinfo: &[u8]) -> Vec<(i32, u64, u32)> {
    let lines = fdinfo.split(|&byte| byte == b'\n');
    let found = lines.filter_map(|line| {
        let mut parts = words(line.strip_prefix(b"tfd:")?);
        let fd = i32::try_from(small(parts.next()?)?).ok()?;
        let events = hexadecimal(parts.nth(1)?)?;
        let inode = parts.find_map(|word| word.strip_prefix(b"ino:")).and_then(hexadecimal)?;
        Some((fd, inode, u32::try_from(events & 0xffff_ffff).ok()?))
    });
    found.take(MOST_TARGETS).collect()
}

/// The direction in which a descriptor was opened, by `flags:` in its fdinfo: whether for reading, whether for writing.
#[must_use]
pub fn direction(fdinfo: &[u8]) -> Option<(bool, bool)> {
    Some(match field(fdinfo, "flags").and_then(octal)? & 3 {
        0 => (true, false),
        1 => (false, true),
        _ => (true, true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file() {
        let eventfd = b"pos:\t0\neventfd-count:               1f\neventfd-id: 9\n";
        assert_eq!(anonymous(Kind::Eventfd, eventfd), Some(What::Eventfd(9, 31)));
        let epoll = b"pos:\t0\ntfd:        4 events:       1f data:                4  pos:0 ino:41234df sdev:f\ntfd: x\n";
        assert_eq!(anonymous(Kind::Epoll, epoll), Some(What::Epoll(vec![(4, 0x0412_34df, 0x1f)])));
        let pidfd = b"ino:\t77\nPid:\t-1\n";
        assert_eq!(anonymous(Kind::Pidfd, pidfd), Some(What::Pidfd(77, None)));
        assert_eq!(anonymous(Kind::Timerfd, b"it_value: (0, 90)\n"), Some(What::Timerfd(true)));
        assert_eq!(anonymous(Kind::Timerfd, b"it_value: (0, 0)\n"), Some(What::Timerfd(false)));
        assert_eq!(anonymous(Kind::Eventfd, b""), None);
        assert_eq!(direction(b"flags:\t02000001\n"), Some((false, true)));
    }
}
