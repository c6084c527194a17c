//! What only matters to those who look for leaks: files of sockets and FIFOs, and what is in flight in sockets.
//!
//! Source: docs/design/leaks.md; `unix(7)` (`SCM_RIGHTS`), `proc_pid_fdinfo(5)` (`scm_fds`).

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{Join, Key};
use crate::analysis::leaks::{ASKED, IN_FLIGHT, NO_SOCKET, UNKNOWN_IN_FLIGHT};
use crate::collect::Found;
use crate::kind::{Kind, Kinds};
use crate::source::borrowed::Lender;
use crate::source::descriptors::{Descriptor, Search, What};
use crate::source::folder::Folder;
use crate::source::numbers;
use crate::source::places::{self, Place};
use crate::text::escaped;
use switchboard_kernel::unix_socket;

/// Sockets that are in flight have descriptors in flight in turn: so deep is looked, and at so many sockets.
const DEEPEST: u32 = 4;
const MOST_SOCKETS: u32 = 256;

impl Join {
    /// Looks for files of sockets and FIFOs in these folders; says which it looked into.
    pub(crate) fn places(&mut self, wanted: &[Place]) -> Vec<String> {
        let found = places::all(wanted);
        let bound: HashSet<String> = self
            .objects
            .iter()
            .filter_map(|one| one.details.get("file"))
            .map(str::to_owned)
            .collect();
        for file in found.files {
            let kind = if file.is_fifo { Kind::Fifo } else { Kind::Unix };
            if !self.kinds.has(kind) {
                continue;
            }
            let (major, minor) = numbers::device(file.device);
            let place = format!("{major}:{minor}:{}", file.inode & u64::from(u32::MAX));
            if !file.is_fifo && bound.contains(&place) {
                continue;
            }
            let asked = if file.is_fifo { None } else { Some(is_bound(&file)) };
            if asked == Some(Asked::Bound) {
                continue;
            }
            let at = self.object(Key::of_file(kind, file.device, file.inode));
            let object = &mut self.objects[at];
            object.add_name(escaped(file.path.as_os_str().as_encoded_bytes()));
            (object.uid, object.gid) = (Some(file.uid), Some(file.gid));
            (object.mode, object.times) = (Some(file.mode), file.times);
            if let Some(asked) = asked {
                object.state = Some(NO_SOCKET.into());
                object.details.insert("file", place);
                object.details.insert(ASKED, asked.word());
            }
        }
        found.looked
    }

    /// Finds out what is in flight in sockets.
    pub(crate) fn in_flight(&mut self, found: &[Found]) {
        let Ok(own) = Folder::open("/proc/self") else { return };
        let mut flight = Flight { join: self, own, lender: Lender::default(), left: MOST_SOCKETS };
        let mut seen = HashSet::new();
        for one in found {
            for &(fd, inode, count) in &one.in_flight {
                if !seen.insert(inode) {
                    continue;
                }
                let borrowed = flight.borrow(one.process.pid, fd, inode);
                flight.socket(inode, count, borrowed.as_ref(), DEEPEST);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Bound,
    Refused,
    NotPermitted,
    Unknown,
}

impl Asked {
    fn word(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Refused => "refused",
            Self::NotPermitted => "not permitted",
            Self::Unknown => "no answer",
        }
    }
}

/// Whether a socket of any namespace is bound to a file.
fn is_bound(file: &places::File) -> Asked {
    let Some(handle) = file.handle() else { return Asked::Unknown };
    match unix_socket::is_bound(&handle) {
        Ok(true) => Asked::Bound,
        Ok(false) => Asked::Refused,
        Err(error) if error.kind() == switchboard_kernel::ErrorKind::PermissionDenied => {
            Asked::NotPermitted
        }
        Err(_) => Asked::Unknown,
    }
}

/// Looks into sockets, one after the other.
struct Flight<'a> {
    join: &'a mut Join,
    own: Folder,
    lender: Lender,
    left: u32,
}

impl Flight<'_> {
    fn borrow(&mut self, pid: u32, fd: i32, inode: u64) -> Option<OwnedFd> {
        let socket = self.lender.borrow(pid, fd).ok()?;
        // It may be another one by now.
        (rustix::fs::fstat(&socket).ok()?.st_ino == inode).then_some(socket)
    }

    /// Notes what is in flight in a socket, and in what is in flight there.
    fn socket(&mut self, inode: u64, count: u32, socket: Option<&OwnedFd>, depth: u32) {
        let copies = match socket {
            Some(socket) if self.left > 0 => {
                self.left -= 1;
                unix_socket::peek_descriptors(socket).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let known = u32::try_from(copies.len()).unwrap_or(u32::MAX);
        if let Some(&at) = self.join.sockets.get(&inode) {
            let details = &mut self.join.objects[at].details;
            details.insert("descriptors in flight", count.to_string());
            if known < count {
                details.insert(UNKNOWN_IN_FLIGHT, (count - known).to_string());
            }
        }
        let pid = std::process::id();
        for copy in &copies {
            let mut search = Search::new(Kinds::ALL, false).with_flights();
            let Some(one) = search.one(pid, &self.own, copy.as_fd().as_raw_fd()) else { continue };
            let nested = search.in_flight.first().copied();
            self.hold(inode, &one);
            if let (What::Socket(inner), Some((_, _, count)), true) = (&one.what, nested, depth > 0)
            {
                self.socket(*inner, count, Some(copy), depth - 1);
            }
        }
    }

    /// Marks an object as held in flight.
    fn hold(&mut self, socket: u64, one: &Descriptor) {
        // What has no number of its own would be taken for this process's.
        let by_descriptor = matches!(
            one.what,
            What::Epoll(_)
                | What::Signalfd(_)
                | What::Timerfd(_)
                | What::Inotify(_)
                | What::IoUring
        );
        if by_descriptor {
            return;
        }
        if let Some(at) = self.join.descriptor(std::process::id(), one) {
            self.join.objects[at].details.insert(IN_FLIGHT, format!("in unix:{socket}"));
        }
    }
}
