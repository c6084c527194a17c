//! Where a victim is: the boundary between two instructions; and what it did to shared memory.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A boundary between two instructions of the operation.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// Which: 0 is before the first instruction.
    pub number: usize,
    /// Who is there: `victim` or `survivor`.
    pub who: &'static str,
    /// The next instruction.
    pub place: Place,
    /// Whether the instruction before changed shared bytes.
    pub changed: bool,
    /// The system call that the instruction before was.
    pub ended: Option<Call>,
    /// The system call that the next instruction is.
    pub begins: Option<Call>,
    /// The system call that it sleeps in. This counts as a boundary too.
    pub blocked: Option<Call>,
    /// Of a survivor: where the victim was killed before.
    pub after: Option<Arc<Boundary>>,
    pub(super) end: bool,
}

impl Boundary {
    /// Whether the operation is over: nobody was killed.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.end
    }

    /// Whether the world may differ from what it was at the boundary before.
    #[must_use]
    pub fn is_event(&self) -> bool {
        let call = self.ended.or(self.begins).or(self.blocked);
        self.number == 0 || self.changed || call.is_some()
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.end {
            write!(f, "the {}'s end, after {} boundaries", self.who, self.number)?;
        } else {
            write!(f, "{} at boundary {}, {}", self.who, self.number, self.place)?;
        }
        if self.changed {
            write!(f, ", shared bytes changed")?;
        }
        for (what, call) in
            [("ended", self.ended), ("begins", self.begins), ("sleeps in", self.blocked)]
        {
            if let Some(call) = call {
                write!(f, ", {what} {call}")?;
            }
        }
        match &self.after {
            Some(after) => write!(f, " (after {after})"),
            None => Ok(()),
        }
    }
}

/// A load or a store in shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which of [`super::Plan::shared`]; without those, which of the shared mappings, by address.
    pub object: usize,
    /// From the object's start.
    pub offset_bytes: u64,
    /// How many bytes. Of a repeated string instruction, those of one round.
    pub len_bytes: usize,
    /// What it does.
    pub kind: Kind,
    /// Whether the bytes differ after it.
    pub changed: bool,
    /// The instruction.
    pub place: Place,
}

impl Access {
    /// Whether all of it is within these bytes of the object.
    #[must_use]
    pub fn is_within(&self, bytes: std::ops::Range<u64>) -> bool {
        let end = self.offset_bytes + self.len_bytes as u64;
        self.offset_bytes >= bytes.start && end <= bytes.end
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Load => "load",
            Kind::Store => "store",
            Kind::Update => "read-modify-write",
        };
        let changed = if self.changed { ", changed" } else { "" };
        let (object, offset, len) = (self.object, self.offset_bytes, self.len_bytes);
        write!(f, "{kind} of {len} bytes at {offset} of object {object}{changed}, {}", self.place)
    }
}

/// What an instruction does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Load,
    /// Writes.
    Store,
    /// Reads and writes: an atomic operation, or `add` to memory.
    Update,
}

impl Kind {
    /// Whether it may write.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Self::Load
    }
}

/// An address in a program or library. Shown as `NAME+0x1c`, or by its offset where no symbol is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub module: Arc<Path>,
    /// Its byte there.
    pub offset: u64,
}

/// A system call, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(pub u64);

impl Call {
    /// Whether it may change what is mapped where.
    pub(super) fn maps(self) -> bool {
        use nix::libc;
        let calls =
            [libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_shmat, libc::SYS_shmdt];
        i64::try_from(self.0).is_ok_and(|number| calls.contains(&number))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CALLS.iter().find(|(number, _)| u64::try_from(*number) == Ok(self.0)) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "system call {}", self.0),
        }
    }
}

/// Those that operations of this project make.
const CALLS: &[(nix::libc::c_long, &str)] = {
    use nix::libc;
    &[
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_pread64, "pread"),
        (libc::SYS_pwrite64, "pwrite"),
        (libc::SYS_readv, "readv"),
        (libc::SYS_writev, "writev"),
        (libc::SYS_open, "open"),
        (libc::SYS_openat, "openat"),
        (libc::SYS_close, "close"),
        (libc::SYS_fstat, "fstat"),
        (libc::SYS_newfstatat, "newfstatat"),
        (libc::SYS_statx, "statx"),
        (libc::SYS_lseek, "lseek"),
        (libc::SYS_poll, "poll"),
        (libc::SYS_ppoll, "ppoll"),
        (libc::SYS_mmap, "mmap"),
        (libc::SYS_munmap, "munmap"),
        (libc::SYS_mremap, "mremap"),
        (libc::SYS_mprotect, "mprotect"),
        (libc::SYS_madvise, "madvise"),
        (libc::SYS_msync, "msync"),
        (libc::SYS_brk, "brk"),
        (libc::SYS_fcntl, "fcntl"),
        (libc::SYS_flock, "flock"),
        (libc::SYS_fsync, "fsync"),
        (libc::SYS_fdatasync, "fdatasync"),
        (libc::SYS_ftruncate, "ftruncate"),
        (libc::SYS_fallocate, "fallocate"),
        (libc::SYS_rename, "rename"),
        (libc::SYS_renameat2, "renameat2"),
        (libc::SYS_link, "link"),
        (libc::SYS_linkat, "linkat"),
        (libc::SYS_unlink, "unlink"),
        (libc::SYS_unlinkat, "unlinkat"),
        (libc::SYS_mkdir, "mkdir"),
        (libc::SYS_getpid, "getpid"),
        (libc::SYS_gettid, "gettid"),
        (libc::SYS_tgkill, "tgkill"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_futex_waitv, "futex_waitv"),
        (libc::SYS_sched_yield, "sched_yield"),
        (libc::SYS_nanosleep, "nanosleep"),
        (libc::SYS_clock_nanosleep, "clock_nanosleep"),
        (libc::SYS_clock_gettime, "clock_gettime"),
        (libc::SYS_rt_sigprocmask, "rt_sigprocmask"),
        (libc::SYS_rt_sigreturn, "rt_sigreturn"),
        (libc::SYS_prctl, "prctl"),
        (libc::SYS_getrandom, "getrandom"),
        (libc::SYS_memfd_create, "memfd_create"),
        (libc::SYS_pidfd_open, "pidfd_open"),
        (libc::SYS_pidfd_getfd, "pidfd_getfd"),
        (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
        (libc::SYS_eventfd2, "eventfd"),
        (libc::SYS_epoll_wait, "epoll_wait"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_epoll_ctl, "epoll_ctl"),
        (libc::SYS_socket, "socket"),
        (libc::SYS_connect, "connect"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_sendmsg, "sendmsg"),
        (libc::SYS_recvmsg, "recvmsg"),
        (libc::SYS_exit, "exit"),
        (libc::SYS_exit_group, "exit_group"),
    ]
};
