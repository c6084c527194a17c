//! Reading, writing and waiting: the one place where `EINTR`, short transfers, deadlines and
//! `SIGPIPE` are dealt with.
//!
//! Source: `read(2)`, `write(2)`, `readv(2)`, `pwrite(2)`, `poll(2)`, `signal(7)` ("Interruption of system calls"),
//! `flock(2)`.
//!
//! *SIGPIPE.* Sockets are written with `MSG_NOSIGNAL`. Pipes have no such flag: a program whose
//! `SIGPIPE` is not ignored (Rust's runtime ignores it) calls [`ignore_sigpipe`] first, or dies
//! when nobody reads the pipe.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, OfCall, Result};
use crate::mmap::check_file_limit;

/// `O_NONBLOCK`, for the standard library's `OpenOptionsExt::custom_flags`.
pub const NONBLOCK: i32 = libc::O_NONBLOCK;

/// Repeats a call for as long as a signal interrupts it.
#[inline]
pub(crate) fn retry<T>(
    call: &'static str,
    mut f: impl FnMut() -> core::result::Result<T, Errno>,
) -> Result<T> {
    loop {
        match f() {
            Err(Errno::INTR) => {}
            result => return result.of(call),
        }
    }
}

/// `clock_gettime(CLOCK_REALTIME_COARSE)`: nanoseconds since 1970, to the last tick of the kernel's
/// clock (1 to 10 ms ago). No system call. It follows the system's time, so it can jump.
#[must_use]
pub fn coarse_time_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// `read(fd, buffer)`: takes what is there, up to the buffer's length.
///
/// Blocks while nothing is there, unless the descriptor is non-blocking. Returns 0 at end of file:
/// every writer closed.
///
/// # Errors
/// `EAGAIN` on a non-blocking descriptor with nothing to read; `ECONNRESET` when a socket's peer
/// went away with data unread.
#[inline]
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    let fd = fd.as_fd();
    retry("read", || rustix::io::read(fd, &mut *buffer))
}

/// `readv(fd, buffers)`: as [`read()`], into several buffers in order.
///
/// # Errors
/// As [`read()`].
#[inline]
pub fn readv(fd: impl AsFd, buffers: &mut [IoSliceMut<'_>]) -> Result<usize> {
    let fd = fd.as_fd();
    retry("readv", || rustix::io::readv(fd, buffers))
}

/// `write(fd, bytes)`: gives as much as fits now, and says how much that was.
///
/// # Errors
/// `EAGAIN` on a full non-blocking descriptor; `EPIPE` when nobody reads the other end; `ENOSPC`,
/// `EFBIG` on files.
#[inline]
pub fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize> {
    let fd = fd.as_fd();
    retry("write", || rustix::io::write(fd, bytes))
}

/// `writev(fd, buffers)`: as [`write()`], from several buffers in order.
///
/// # Errors
/// As [`write()`].
#[inline]
pub fn writev(fd: impl AsFd, buffers: &[IoSlice<'_>]) -> Result<usize> {
    let fd = fd.as_fd();
    retry("writev", || rustix::io::writev(fd, buffers))
}

/// Reads until the buffer is full or the writers are gone; returns how much was read.
///
/// # Errors
/// As [`read()`]; what was read before the error stays in the buffer.
pub fn read_full(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    let fd = fd.as_fd();
    let mut filled = 0;
    while filled < buffer.len() {
        match read(fd, &mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Writes everything, however many calls that takes.
///
/// # Errors
/// As [`write()`].
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<()> {
    let fd = fd.as_fd();
    while !bytes.is_empty() {
        let n = write(fd, bytes)?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// `pwrite(fd, bytes, offset)`: writes all of it to a place in a file, however many calls that takes.
///
/// Whoever has the file mapped shared sees it, part by part and in any order: store to an atomic word of a
/// [`Mapping`](crate::mmap::Mapping) with `Release` afterwards to say that it is all there. For many pages
/// this is cheaper than [`Memory::write_at`](crate::mmap::Memory::write_at), which takes a page fault for
/// each page that was written to the disk since it was stored to.
///
/// # Errors
/// `EFBIG`: over `RLIMIT_FSIZE` (no `SIGXFSZ` is sent, and nothing is written), or more than the file system
/// can; `ENOSPC`, `EDQUOT`: no room; `EIO`. A part may be there then. `EBADF`: not open for writing; `EPERM`:
/// sealed; `ESPIPE`: not a file.
pub fn write_all_at(fd: impl AsFd, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    let fd = fd.as_fd();
    check_file_limit("pwrite", offset.saturating_add(bytes.len() as u64))?;
    while !bytes.is_empty() {
        match retry("pwrite", || rustix::io::pwrite(fd, bytes, offset))? {
            // No file system does this; it would be for ever.
            0 => return Err(Error::new("pwrite", Errno::IO)),
            n => (bytes, offset) = (&bytes[n..], offset + n as u64),
        }
    }
    Ok(())
}

/// Sets or clears `O_NONBLOCK` on the open file description, which copies of the descriptor share.
///
/// # Errors
/// `EBADF` only.
pub fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> Result<()> {
    rustix::io::ioctl_fionbio(fd, nonblocking).of("ioctl FIONBIO")
}

/// How many bytes a read would find now (`FIONREAD`).
///
/// # Errors
/// `ENOTTY`, `EINVAL` where the object has no such count.
pub fn bytes_waiting(fd: impl AsFd) -> Result<u64> {
    rustix::io::ioctl_fionread(fd).of("ioctl FIONREAD")
}

/// Another descriptor for the same open file, close-on-exec.
///
/// # Errors
/// `EMFILE` when `RLIMIT_NOFILE` is reached.
pub fn duplicate(fd: impl AsFd) -> Result<std::os::fd::OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).of("fcntl F_DUPFD_CLOEXEC")
}

/// `flock(fd, LOCK_EX | LOCK_NB)`: locks a file or a folder, for others that lock it too. `false` when
/// somebody else has it.
///
/// The lock belongs to the open file, which copies of the descriptor share, and goes with the last of
/// them: so the kernel releases it however a process ends.
///
/// # Errors
/// `ENOLCK`: no memory for locks; over NFS, `EBADF` when the file is not open for writing.
pub fn try_lock(fd: impl AsFd) -> Result<bool> {
    let fd = fd.as_fd();
    let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    match retry("flock", || rustix::fs::flock(fd, lock)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// When a wait ends at the latest.
///
/// One that is over from the start asks no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Ends);

/// The earlier comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ends {
    AtOnce,
    At(Instant),
    Never,
}

impl Deadline {
    /// Waits for as long as it takes.
    pub const NEVER: Self = Self(Ends::Never);

    /// Does not wait.
    pub const AT_ONCE: Self = Self(Ends::AtOnce);

    /// `timeout` from now, by the monotonic clock; never, if that is beyond what the clock holds.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        if timeout.is_zero() {
            return Self::AT_ONCE;
        }
        Self(Instant::now().checked_add(timeout).map_or(Ends::Never, Ends::At))
    }

    /// From an optional timeout; none is [`Deadline::NEVER`].
    #[must_use]
    pub fn from_timeout(timeout: Option<Duration>) -> Self {
        timeout.map_or(Self::NEVER, Self::after)
    }

    /// What is left: `None` for ever, zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        match self.0 {
            Ends::AtOnce => Some(Duration::ZERO),
            Ends::At(at) => Some(at.saturating_duration_since(Instant::now())),
            Ends::Never => None,
        }
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        match self.0 {
            Ends::AtOnce => true,
            Ends::At(at) => Instant::now() >= at,
            Ends::Never => false,
        }
    }

    /// The earlier of two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Ord::min(self, other)
    }
}

/// What to wait for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, end of file, or a connection to accept.
    Readable,
    /// Room to write.
    Writable,
    /// Either.
    Both,
    /// Nothing but what is always told: that the other end closed, or an error.
    HangUp,
}

/// What was found on a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A read would not block.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
    /// The other end closed, or the object is in error; a read or write says which.
    pub hung_up: bool,
}

impl Ready {
    /// Whether anything at all was found.
    #[must_use]
    pub fn any(self) -> bool {
        self.readable || self.writable || self.hung_up
    }
}

/// `poll(2)` on several descriptors until one is ready or the deadline passes.
///
/// Returns one [`Ready`] per descriptor, in order; none of them is set when the deadline passed.
/// A signal does not end the wait.
///
/// # Errors
/// `EINVAL` for more descriptors than `RLIMIT_NOFILE`; `ENOMEM`.
pub fn poll<const N: usize>(
    fds: [(BorrowedFd<'_>, Interest); N],
    deadline: Deadline,
) -> Result<[Ready; N]> {
    let mut polled = fds.map(|(fd, interest)| {
        let flags = match interest {
            Interest::Readable => PollFlags::IN,
            Interest::Writable => PollFlags::OUT,
            Interest::Both => PollFlags::IN | PollFlags::OUT,
            Interest::HangUp => PollFlags::empty(),
        };
        rustix::event::PollFd::from_borrowed_fd(fd, flags)
    });
    loop {
        let timeout = deadline.remaining().map(timespec);
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("poll", errno)),
            Ok(_) => break,
        }
    }
    Ok(polled.map(|fd| {
        let found = fd.revents();
        Ready {
            readable: found.contains(PollFlags::IN),
            writable: found.contains(PollFlags::OUT),
            hung_up: found.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
        }
    }))
}

/// Waits until one descriptor is ready. `false` when the deadline passed.
///
/// # Errors
/// As [`poll`].
pub fn wait_for(fd: impl AsFd, interest: Interest, deadline: Deadline) -> Result<bool> {
    Ok(poll([(fd.as_fd(), interest)], deadline)?[0].any())
}

/// A duration as the kernel takes it; what does not fit becomes the longest that does.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Makes a write to a pipe that nobody reads an `EPIPE` error instead of a `SIGPIPE` signal, for
/// the whole process. Rust programs start that way; programs that load this library may not.
#[allow(unsafe_code)]
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN is a valid disposition for SIGPIPE and runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Makes a write beyond `RLIMIT_FSIZE` an `EFBIG` error instead of a `SIGXFSZ` signal, for the whole
/// process. Children of [`Spawn`](crate::process::Spawn) have it at its default again.
#[allow(unsafe_code)]
pub fn ignore_sigxfsz() {
    // SAFETY: SIG_IGN is a valid disposition for SIGXFSZ and runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
