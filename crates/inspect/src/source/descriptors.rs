//! What a process has open: /proc/PID/fd, and fdinfo of the kinds that need it.
//!
//! Source: `proc_pid_fd(5)`, `proc_pid_fdinfo(5)`. Nothing is opened: `statx(2)` through a link says which file a descriptor leads
//! to, the link's own mode in which direction it was opened, and the link itself is read only where that does not say what it is.

mod devices;
mod fdinfo;
mod links;

use std::collections::HashMap;
use std::ffi::CStr;

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::folder::Folder;
use super::locks;
use super::numbers::small;
use crate::kind::{Kind, Kinds};
use crate::text::escaped;

use devices::{Device, of_file_system};
pub use fdinfo::{anonymous, direction, in_flight, inode, position, terminal};
pub use links::{Nameless, named_by_link, nameless};

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
    /// An anonymous pipe.
    Pipe {
        /// Its number.
        inode: u64,
        /// Its user, its group, and its permission bits.
        owner: (u32, u32, u32),
    },
    /// A socket, by its inode.
    Socket(u64),
    /// A file of a kind: FIFO, queue, memory, or one with locks.
    File(Box<File>),
    /// Its number, and its count.
    Eventfd(u64, u64),
    /// What it watches, if that was asked for: descriptors of the process that added them, the file's inode, and for which
    /// events.
    Epoll(Option<Vec<(i32, u64, u32)>>),
    /// The signals it takes, a bit each, if that was asked for.
    Signalfd(Option<u64>),
    /// A timer; whether it runs.
    Timerfd(bool),
    /// A watch on files: how many, if that was asked for.
    Inotify(Option<usize>),
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

/// A file that may have locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The descriptor.
    pub fd: i32,
    /// The file's device.
    pub device: u64,
    /// The file's number.
    pub inode: u64,
}

/// What is looked for, and what was learned on the way; one for each thread that reads.
#[derive(Debug)]
pub struct Search {
    /// The kinds.
    pub kinds: Kinds,
    /// Whether what epoll, signalfd and inotify look out for is wanted, too.
    pub details: bool,
    /// What was found in the process that was read last.
    pub found: Vec<Descriptor>,
    /// The files of that process that may have locks, if locks are wanted.
    pub files: Vec<Plain>,
    /// Unix sockets of that process in which descriptors are in flight, if those are wanted: descriptor, inode, how many.
    pub in_flight: Vec<(i32, u64, u32)>,
    flights: bool,
    /// What the files of a device are.
    devices: HashMap<u64, Device>,
    link: Vec<u8>,
    buffer: Vec<u8>,
}

/// Kinds of which `stat(2)` says more than the link.
const BY_STATUS: &[Kind] = &[
    Kind::Pipe,
    Kind::Unix,
    Kind::Tcp,
    Kind::Udp,
    Kind::Socket,
    Kind::Fifo,
    Kind::Mq,
    Kind::PosixShm,
    Kind::PosixSem,
    Kind::Memfd,
    Kind::Pty,
    Kind::Lock,
    Kind::Futex,
];
const ANONYMOUS: &[Kind] =
    &[Kind::Eventfd, Kind::Epoll, Kind::Signalfd, Kind::Timerfd, Kind::Pidfd, Kind::Inotify];
const SOCKETS: &[Kind] = &[Kind::Unix, Kind::Tcp, Kind::Udp, Kind::Socket];

/// One process whose descriptors are read.
struct Lister<'a> {
    pid: u32,
    process: &'a Folder,
    links: &'a Folder,
    /// How many there are, as the kernel says; 0 if it does not.
    all: u64,
    /// `fdinfo`, once it is needed.
    infos: Option<Folder>,
}

impl Lister<'_> {
    fn info(&mut self, name: &CStr, into: &mut Vec<u8>) -> Result<(), Errno> {
        if self.infos.is_none() {
            self.infos = Some(self.process.within(c"fdinfo")?);
        }
        self.infos.as_ref().map_or(Err(Errno::NOENT), |infos| infos.read_record(name, into))
    }
}

impl Search {
    /// A new one.
    #[must_use]
    pub fn new(kinds: Kinds, details: bool) -> Self {
        Self {
            kinds,
            details,
            found: Vec::new(),
            files: Vec::new(),
            in_flight: Vec::new(),
            flights: false,
            devices: HashMap::new(),
            link: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Looks for descriptors in flight, too.
    #[must_use]
    pub fn with_flights(mut self) -> Self {
        self.flights = true;
        self
    }

    /// One descriptor of a process.
    #[must_use]
    pub fn one(&mut self, pid: u32, process: &Folder, fd: i32) -> Option<Descriptor> {
        let links = process.within(c"fd").ok()?;
        let mut lister = Lister { pid, process, links: &links, all: 0, infos: None };
        let name = DecInt::new(fd);
        let (what, reads, writes) = self.what(&mut lister, fd, name.as_c_str()).ok()??;
        Some(Descriptor { fd, reads, writes, what })
    }

    /// Reads the descriptors of a process; gives how many there are of any kind.
    ///
    /// # Errors
    /// `EACCES` without the right to; `ESRCH`, `ENOENT` when it ended.
    pub fn read(&mut self, pid: u32, process: &Folder) -> Result<u32, Errno> {
        self.found.clear();
        self.files.clear();
        self.in_flight.clear();
        let links = process.within(c"fd")?;
        let all = links.size()?;
        let mut lister = Lister { pid, process, links: &links, all, infos: None };
        let (mut count, next) = self.walk(&mut lister)?;
        let before = (self.found.len(), self.files.len(), self.in_flight.len());
        // The others, even if there seem to be none: what was opened meanwhile was counted in the place of what has long been open further up.
        // In this folder the place of a descriptor is its number, after two for the dots.
        for place in [u64::from(next.unsigned_abs()) + 2, 0] {
            self.found.truncate(before.0);
            self.files.truncate(before.1);
            self.in_flight.truncate(before.2);
            let more = self.list(&mut lister, place, next)?;
            if u64::from(count + more) >= all || place == 0 {
                count += more;
                break;
            }
        }
        Ok(count)
    }

    /// Reads those from a number on by a list of them, which begins at a place; how many there are.
    fn list(&mut self, lister: &mut Lister<'_>, place: u64, from: i32) -> Result<u32, Errno> {
        let (mut count, mut refused) = (0, None);
        lister.links.names_from(place, |name| {
            let Some(fd) = small(name.to_bytes()).and_then(|fd| i32::try_from(fd).ok()) else {
                return;
            };
            if fd >= from && refused.is_none() {
                count += 1;
                refused = self.add(lister, fd, name).err();
            }
        })?;
        refused.map_or(Ok(count), Err)
    }

    /// Goes through the numbers from 0 on, as long as nearly all of them are open: that costs less than listing them. Linux says how many
    /// there are, since 6.2. Gives how many there were, and from which number on the others have to be listed.
    fn walk(&mut self, lister: &mut Lister<'_>) -> Result<(u32, i32), Errno> {
        const MOST_GAPS: u32 = 8;
        let all = lister.all;
        let (mut count, mut gaps, mut fd) = (0_u32, 0, 0_i32);
        while u64::from(count) < all && gaps < MOST_GAPS {
            if self.add(lister, fd, DecInt::new(fd).as_c_str())? {
                count += 1;
            } else {
                gaps += 1;
            }
            fd = fd.saturating_add(1);
        }
        Ok((count, fd))
    }

    /// Looks at a descriptor; whether it is there.
    fn add(&mut self, lister: &mut Lister<'_>, fd: i32, name: &CStr) -> Result<bool, Errno> {
        match self.what(lister, fd, name) {
            Ok(Some((what, reads, writes))) => {
                self.found.push(Descriptor { fd, reads, writes, what });
            }
            Ok(None) => {}
            // The folder can be listed, but nothing in it may be followed.
            Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(error),
            // It is not open, or not any more.
            Err(Errno::NOENT | Errno::SRCH) => return Ok(false),
            Err(_) => {}
        }
        Ok(true)
    }

    /// What a descriptor leads to, whether it reads, whether it writes.
    fn what(
        &mut self,
        lister: &mut Lister<'_>,
        fd: i32,
        name: &CStr,
    ) -> Result<Option<(What, bool, bool)>, Errno> {
        let both = |what: Option<What>| Ok(what.map(|what| (what, true, true)));
        if !self.kinds.has_any(BY_STATUS) {
            if !self.kinds.has_any(ANONYMOUS) {
                // Nothing is wanted; whether it could be read is.
                return lister.links.status(name).map(|_| None);
            }
            lister.links.link_into(name, &mut self.link)?;
            return both(self.anonymous(lister, name));
        }
        let status = lister.links.status(name)?;
        let found = match self.device(lister, name, &status) {
            Device::Pipes => {
                let inode = status.stx_ino;
                let owner = (status.stx_uid, status.stx_gid, u32::from(status.stx_mode) & 0o7777);
                self.kinds.has(Kind::Pipe).then_some(What::Pipe { inode, owner })
            }
            Device::Sockets => {
                let wanted = self.kinds.has_any(SOCKETS);
                if self.flights && lister.info(name, &mut self.buffer).is_ok() {
                    let count = in_flight(&self.buffer).unwrap_or(0);
                    if count > 0 {
                        self.in_flight.push((fd, status.stx_ino, count));
                    }
                }
                return both(wanted.then_some(What::Socket(status.stx_ino)));
            }
            Device::Anonymous => {
                if !self.kinds.has_any(ANONYMOUS) {
                    return Ok(None);
                }
                lister.links.link_into(name, &mut self.link)?;
                return both(self.anonymous(lister, name));
            }
            device => self.file(lister, fd, name, device, &status)?,
        };
        let Some(what) = found else { return Ok(None) };
        let directed = matches!(what, What::Pipe { .. } | What::File(_));
        let mode = if directed {
            lister.links.link_status(name).map_or(0o700, |status| status.stx_mode)
        } else {
            0o700
        };
        Ok(Some((what, mode & 0o400 != 0, mode & 0o200 != 0)))
    }

    /// What lies on the file's device; learned from the first file of it.
    fn device(&mut self, lister: &Lister<'_>, name: &CStr, status: &Statx) -> Device {
        let device = super::folder::device(status);
        if let Some(&known) = self.devices.get(&device) {
            return known;
        }
        if status.stx_dev_major != 0 {
            return Device::Files;
        }
        if lister.links.link_into(name, &mut self.link).is_err() {
            return Device::Memory;
        }
        let found = match self.link.as_slice() {
            link if link.starts_with(b"pipe:") => Device::Pipes,
            link if link.starts_with(b"socket:") => Device::Sockets,
            link if !link.starts_with(b"/") => Device::Anonymous,
            _ => of_file_system(&format!("/proc/{}/fd/{}", lister.pid, name.to_string_lossy())),
        };
        self.devices.insert(device, found);
        found
    }

    /// What has no path and no inode of its own, by its link.
    fn anonymous(&mut self, lister: &mut Lister<'_>, name: &CStr) -> Option<What> {
        let kind = match nameless(&self.link)? {
            Nameless::Object(kind) => kind,
            Nameless::IoUring => return Some(What::IoUring),
        };
        if !self.kinds.has(kind) {
            return None;
        }
        let plain = matches!(kind, Kind::Epoll | Kind::Signalfd | Kind::Inotify);
        if plain && !self.details {
            return Some(match kind {
                Kind::Epoll => What::Epoll(None),
                Kind::Signalfd => What::Signalfd(None),
                _ => What::Inotify(None),
            });
        }
        lister.info(name, &mut self.buffer).ok()?;
        anonymous(kind, &self.buffer)
    }

    fn file(
        &mut self,
        lister: &mut Lister<'_>,
        fd: i32,
        name: &CStr,
        place: Device,
        status: &Statx,
    ) -> Result<Option<What>, Errno> {
        let kind = match FileType::from_raw_mode(status.stx_mode.into()) {
            FileType::Fifo => Some(Kind::Fifo),
            FileType::CharacterDevice => return Ok(self.terminal(lister, name, status)),
            FileType::RegularFile if place == Device::Queues => Some(Kind::Mq),
            FileType::RegularFile if place == Device::Memory => {
                lister.links.link_into(name, &mut self.link)?;
                Some(super::maps::kind(&self.link, false)).filter(|&kind| kind != Kind::Mapping)
            }
            FileType::RegularFile | FileType::Directory => None,
            _ => return Ok(None),
        };
        let kind = kind.filter(|&kind| self.kinds.has(kind) || self.kinds.has(Kind::Futex));
        let (device, inode) = (super::folder::device(status), status.stx_ino);
        if self.kinds.has(Kind::Lock) {
            self.files.push(Plain { fd, device, inode });
        }
        if kind.is_none() {
            return Ok(None);
        }
        // Of what may be memory it has been read.
        if !(place == Device::Memory && kind != Some(Kind::Fifo)) {
            lister.links.link_into(name, &mut self.link)?;
        }
        Ok(Some(What::File(Box::new(file(kind, &self.link, status)))))
    }

    fn terminal(&mut self, lister: &mut Lister<'_>, name: &CStr, status: &Statx) -> Option<What> {
        if !self.kinds.has(Kind::Pty) {
            return None;
        }
        match (status.stx_rdev_major, status.stx_rdev_minor) {
            (5, 2) => {
                lister.info(name, &mut self.buffer).ok()?;
                let index = terminal(&self.buffer)?;
                Some(What::Master(index))
            }
            // Whatever the process's own terminal is.
            (5, 0) => {
                lister.process.read_record(c"stat", &mut self.buffer).ok()?;
                slave(super::process::stat(&self.buffer)?.terminal)
            }
            place => slave(place),
        }
    }
}

/// The slave's side of a pseudo-terminal, by its device.
fn slave((major, minor): (u32, u32)) -> Option<What> {
    (136..=143).contains(&major).then(|| What::Slave((major - 136) * 256 + minor))
}

fn file(kind: Option<Kind>, link: &[u8], status: &Statx) -> File {
    File {
        kind,
        device: super::folder::device(status),
        inode: status.stx_ino,
        name: escaped(link),
        uid: status.stx_uid,
        gid: status.stx_gid,
        mode: u32::from(status.stx_mode) & 0o7777,
        size: status.stx_size,
        locks: Vec::new(),
    }
}

/// What an open descriptor of a process leads to, in the kernel's words: `/dev/null`, `anon_inode:[fanotify]`.
///
/// # Errors
///
/// What the kernel says: [`Errno::NOENT`] where the process has no such descriptor.
pub fn leads_to(pid: u32, fd: i32) -> Result<String, Errno> {
    Folder::open(&format!("/proc/{pid}/fd"))?.link(fd.to_string()).map(|link| escaped(&link))
}

/// A file that turned out to have locks, with those that this descriptor has.
#[must_use]
pub fn locked(process: &Folder, plain: Plain, buffer: &mut Vec<u8>) -> Option<Descriptor> {
    let Plain { fd, device, inode } = plain;
    let place = format!("fd/{fd}");
    let status = process.status(&place).ok()?;
    if (super::folder::device(&status), status.stx_ino) != (device, inode) {
        return None;
    }
    let mut file = file(None, &process.link(&place).ok()?, &status);
    process.read_record(format!("fdinfo/{fd}"), buffer).ok()?;
    file.locks = locks::of_descriptor(buffer);
    let mode = process.link_status(&place).map_or(0o700, |status| status.stx_mode);
    let (reads, writes) = (mode & 0o400 != 0, mode & 0o200 != 0);
    Some(Descriptor { fd, reads, writes, what: What::File(Box::new(file)) })
}
