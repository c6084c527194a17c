//! POSIX message queues: named, bounded, ordered by priority, kept by the kernel.
//!
//! Source: `mq_overview(7)`, `mq_open(3)`, `mq_send(3)`, `mq_receive(3)`, `mq_notify(3)`; limits
//! and error numbers as measured on Linux 6.18.
//!
//! A queue outlives the processes that use it, until [`unlink`] or a reboot. A message is taken
//! whole, by one receiver: the highest priority first, the oldest first within a priority. The
//! death of a sender or receiver changes nothing in the queue and nobody is told: what was sent
//! stays, what was received is gone with its receiver.
//!
//! On Linux a queue is a descriptor: it can be polled, passed over Unix sockets and inherited.

#![allow(unsafe_code)]

mod create;
mod into_memory;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, c_long, c_uint, mq_attr};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result, checked, last_errno};
use crate::io::{Deadline, Interest, retry, wait_for};
use create::c_name;

pub use create::{CreateOptions, Limits, limits, validate_name};

/// The highest priority a message can have; 0 is the lowest.
pub const PRIORITY_MAX: u32 = 32_767;

/// What a descriptor of a queue may do. Each asks for its own permission: write, read or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `O_WRONLY`.
    Send,
    /// `O_RDONLY`.
    Receive,
    /// `O_RDWR`.
    Both,
}

/// Which notification [`MessageQueue::notify`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// `SIGEV_SIGNAL`: this signal, by number.
    Signal(i32),
    /// `SIGEV_NONE`: none; only takes the place, so that nobody else can register.
    None,
}

/// A queue's geometry and state, from `mq_getattr(3)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Messages the queue holds.
    pub max_messages: u32,
    /// The largest message, in bytes.
    pub message_size_bytes: u32,
    /// Messages waiting now.
    pub waiting_messages: u32,
    /// Whether this descriptor is non-blocking.
    pub nonblocking: bool,
}

/// An open queue. Closing it (dropping) leaves the queue and its messages in place.
///
/// ```
/// use switchboard_kernel::posix_mq::{Access, CreateOptions, MessageQueue, unlink};
///
/// let name = format!("/example-{}", std::process::id());
/// let options = CreateOptions::new().max_messages(4).message_size_bytes(64);
/// let queue = MessageQueue::create(&name, Access::Both, &options)?;
/// queue.send(b"later", 0)?;
/// queue.send(b"first", 9)?;
///
/// let mut buffer = [0; 64];
/// let (len_bytes, priority) = queue.recv(&mut buffer)?;
/// assert_eq!((&buffer[..len_bytes], priority), (&b"first"[..], 9));
/// unlink(&name)?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// | what | set by | beyond it |
/// |---|---|---|
/// | messages per queue | `/proc/sys/fs/mqueue/msg_max`; 65 536 with `CAP_SYS_RESOURCE` | `EINVAL` |
/// | bytes per message | `/proc/sys/fs/mqueue/msgsize_max`; 16 MiB with `CAP_SYS_RESOURCE` | `EINVAL` |
/// | bytes of all queues of one user | `RLIMIT_MSGQUEUE` | `EMFILE` |
/// | queues on the system | `/proc/sys/fs/mqueue/queues_max`; not with `CAP_SYS_RESOURCE` | `ENOSPC` |
///
/// A queue counts against `RLIMIT_MSGQUEUE` from creation on, full or empty: its messages times
/// their largest size, and about 100 bytes more for each message. The usual 819 200 bytes are nine
/// queues of the default size.
#[derive(Debug)]
pub struct MessageQueue(OwnedFd);

impl MessageQueue {
    /// `mq_open(name)`: opens an existing queue, close-on-exec and blocking.
    ///
    /// # Errors
    /// `ENOENT` when there is none; `EACCES` when its mode does not allow this access; `EINVAL`,
    /// `ENAMETOOLONG` for a bad name; `EMFILE` at `RLIMIT_NOFILE`; `ENFILE`; `ENOMEM`.
    pub fn open(name: &str, access: Access) -> Result<Self> {
        open_call(&c_name(name)?, flags(access), 0, None)
    }

    /// `mq_timedsend(priority, no time limit)`: blocks while the queue is full.
    ///
    /// An empty message is a message. Priorities reach from 0 to [`PRIORITY_MAX`].
    ///
    /// # Errors
    /// `EMSGSIZE` when larger than the queue's messages; `EINVAL` for a priority that is too high;
    /// `EBADF` when opened for receiving only; `EAGAIN` instead of blocking on a non-blocking
    /// descriptor; `ENOMEM`.
    #[inline]
    pub fn send(&self, message: &[u8], priority: u32) -> Result<()> {
        retry("mq_timedsend", || self.send_call(message, priority, None))
    }

    /// `mq_timedsend(priority, a time long past)`: as [`MessageQueue::send`], but never blocks.
    ///
    /// # Errors
    /// `EAGAIN` when the queue is full; else as [`MessageQueue::send`].
    #[inline]
    pub fn try_send(&self, message: &[u8], priority: u32) -> Result<()> {
        retry("mq_timedsend", || {
            self.send_call(message, priority, Some(&LONG_PAST)).map_err(timed_out_means_again)
        })
    }

    /// `mq_timedsend(priority, now + timeout)`: as [`MessageQueue::send`], for at most `timeout`.
    ///
    /// The system call counts time by the real-time clock. Setting that forward does not end the
    /// wait early (by more than 20 ms); setting it back lengthens the wait by as much. [`MessageQueue::send_until`] is
    /// free of this, for two more system calls when it has to wait.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the queue stayed full; else as [`MessageQueue::send`].
    #[inline]
    pub fn send_timeout(&self, message: &[u8], priority: u32, timeout: Duration) -> Result<()> {
        within(timeout, |until| {
            retry("mq_timedsend", || self.send_call(message, priority, Some(until)))
        })
    }

    /// `mq_timedsend()`, and `poll(2)` while the queue is full: as [`MessageQueue::send`], until a
    /// deadline of the monotonic clock.
    ///
    /// Senders that wait in [`MessageQueue::send`] go first.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the deadline passed; else as [`MessageQueue::send`].
    pub fn send_until(&self, message: &[u8], priority: u32, deadline: Deadline) -> Result<()> {
        self.until(Interest::Writable, deadline, "mq_timedsend", || {
            self.try_send(message, priority)
        })
    }

    /// `mq_timedreceive(buffer, no time limit)`: blocks while the queue is empty. Returns the
    /// message's length in bytes and its priority.
    ///
    /// # Errors
    /// `EMSGSIZE` when the buffer is smaller than the queue's largest message may be, whatever the
    /// size of the one waiting, which stays; `EBADF` when opened for sending only; `EAGAIN` instead
    /// of blocking on a non-blocking descriptor.
    #[inline]
    pub fn recv(&self, buffer: &mut [u8]) -> Result<(usize, u32)> {
        retry("mq_timedreceive", || self.recv_call(buffer, None))
    }

    /// `mq_timedreceive(buffer, a time long past)`: as [`MessageQueue::recv`], but never blocks.
    ///
    /// # Errors
    /// `EAGAIN` when the queue is empty; else as [`MessageQueue::recv`].
    #[inline]
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<(usize, u32)> {
        retry("mq_timedreceive", || {
            self.recv_call(buffer, Some(&LONG_PAST)).map_err(timed_out_means_again)
        })
    }

    /// `mq_timedreceive(buffer, now + timeout)`: as [`MessageQueue::recv`], for at most `timeout`.
    ///
    /// What [`MessageQueue::send_timeout`] says about clocks holds here.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the queue stayed empty; else as [`MessageQueue::recv`].
    #[inline]
    pub fn recv_timeout(&self, buffer: &mut [u8], timeout: Duration) -> Result<(usize, u32)> {
        within(timeout, |until| retry("mq_timedreceive", || self.recv_call(buffer, Some(until))))
    }

    /// `mq_timedreceive()`, and `poll(2)` while the queue is empty: as [`MessageQueue::recv`],
    /// until a deadline of the monotonic clock.
    ///
    /// Receivers that wait in [`MessageQueue::recv`] go first.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the deadline passed; else as [`MessageQueue::recv`].
    pub fn recv_until(&self, buffer: &mut [u8], deadline: Deadline) -> Result<(usize, u32)> {
        self.until(Interest::Readable, deadline, "mq_timedreceive", || self.try_recv(buffer))
    }

    fn until<T>(
        &self,
        interest: Interest,
        deadline: Deadline,
        call: &'static str,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        loop {
            match attempt() {
                Err(error) if error.errno() == libc::EAGAIN => {}
                done => return done,
            }
            if !wait_for(&self.0, interest, deadline)? {
                return Err(Error::new(call, Errno::TIMEDOUT));
            }
        }
    }

    /// `mq_getattr()`: the queue's geometry, and how many messages wait.
    ///
    /// # Errors
    /// `EBADF` when the descriptor is no message queue.
    pub fn attributes(&self) -> Result<Attributes> {
        // SAFETY: mq_attr is integers only; all zeroes is a valid value.
        let mut found: mq_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open and `found` is a whole mq_attr to write to.
        let result = unsafe { libc::mq_getattr(self.raw(), &raw mut found) };
        checked(result).of("mq_getattr")?;
        let size = |value: c_long| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Attributes {
            max_messages: size(found.mq_maxmsg),
            message_size_bytes: size(found.mq_msgsize),
            waiting_messages: size(found.mq_curmsgs),
            nonblocking: found.mq_flags & c_long::from(libc::O_NONBLOCK) != 0,
        })
    }

    /// `mq_setattr(O_NONBLOCK)`: sets or clears it on the open queue description, which copies of
    /// the descriptor share. While set, no send or receive waits, timed or not.
    ///
    /// # Errors
    /// `EBADF` when the descriptor is no message queue.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        // SAFETY: mq_attr is integers only; all zeroes is a valid value.
        let mut wanted: mq_attr = unsafe { std::mem::zeroed() };
        wanted.mq_flags = if nonblocking { c_long::from(libc::O_NONBLOCK) } else { 0 };
        // SAFETY: the descriptor is open, `wanted` is a whole mq_attr, no old one is asked for.
        let result = unsafe { libc::mq_setattr(self.raw(), &raw const wanted, ptr::null_mut()) };
        checked(result).of("mq_setattr").map(drop)
    }

    /// `mq_notify()`: once, when the next message arrives at the empty queue and nobody is blocked
    /// receiving, this process is told.
    ///
    /// The registration is used up by that; register again before emptying the queue. It ends with
    /// the process, and when this descriptor is closed. To wait together with other things, poll
    /// the descriptor instead.
    ///
    /// # Errors
    /// `EBUSY` when a process is registered already; `EINVAL` for a signal that does not exist.
    pub fn notify(&self, notify: Notify) -> Result<()> {
        // SAFETY: sigevent is integers and pointers that may be null; all zeroes is valid.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        match notify {
            Notify::None => event.sigev_notify = libc::SIGEV_NONE,
            Notify::Signal(number) => {
                event.sigev_notify = libc::SIGEV_SIGNAL;
                event.sigev_signo = number;
            }
        }
        // SAFETY: the descriptor is open and `event` is a whole sigevent that asks for no thread.
        let result = unsafe { libc::mq_notify(self.raw(), &raw const event) };
        checked(result).of("mq_notify").map(drop)
    }

    /// `mq_notify(NULL)`: takes this process's registration back; nothing happens if it has none.
    ///
    /// # Errors
    /// `EBADF` when the descriptor is no message queue.
    pub fn cancel_notify(&self) -> Result<()> {
        // SAFETY: the descriptor is open; a null event means "cancel".
        let result = unsafe { libc::mq_notify(self.raw(), ptr::null()) };
        checked(result).of("mq_notify").map(drop)
    }

    fn raw(&self) -> c_int {
        self.0.as_raw_fd()
    }

    #[inline]
    fn send_call(
        &self,
        message: &[u8],
        priority: u32,
        until: Option<&libc::timespec>,
    ) -> core::result::Result<(), Errno> {
        // SAFETY: the pointer and length are those of a slice; the kernel only reads it. The time
        // limit is a valid timespec or null.
        checked(unsafe {
            libc::mq_timedsend(
                self.raw(),
                message.as_ptr().cast(),
                message.len(),
                priority,
                until.map_or(ptr::null(), ptr::from_ref),
            )
        })
        .map(drop)
    }

    #[inline]
    fn recv_call(
        &self,
        buffer: &mut [u8],
        until: Option<&libc::timespec>,
    ) -> core::result::Result<(usize, u32), Errno> {
        let mut priority: c_uint = 0;
        // SAFETY: the pointer and length are those of a mutable slice, of which the kernel writes
        // no more than the length; the time limit is a valid timespec or null.
        let received = unsafe {
            libc::mq_timedreceive(
                self.raw(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut priority,
                until.map_or(ptr::null(), ptr::from_ref),
            )
        };
        match usize::try_from(received) {
            Ok(len_bytes) => Ok((len_bytes, priority)),
            Err(_) => Err(last_errno()),
        }
    }
}

impl AsFd for MessageQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes over a queue's descriptor that was inherited or received. On any other descriptor, every
/// call says `EBADF`.
impl From<OwnedFd> for MessageQueue {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<MessageQueue> for OwnedFd {
    fn from(queue: MessageQueue) -> Self {
        queue.0
    }
}

/// `mq_unlink(name)`: removes the name. The queue and its messages stay for those who have it open.
///
/// # Errors
/// `ENOENT` when there is none; `EACCES` when it is another user's (`EPERM` on some kernels);
/// `EINVAL`, `ENAMETOOLONG` for a bad name.
pub fn unlink(name: &str) -> Result<()> {
    unlink_call(&c_name(name)?)
}

/// A time limit that makes a timed call not wait, without `O_NONBLOCK`.
const LONG_PAST: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };

fn flags(access: Access) -> c_int {
    libc::O_CLOEXEC
        | match access {
            Access::Send => libc::O_WRONLY,
            Access::Receive => libc::O_RDONLY,
            Access::Both => libc::O_RDWR,
        }
}

fn open_call(
    name: &CString,
    flags: c_int,
    mode: u32,
    attributes: Option<&mut mq_attr>,
) -> Result<MessageQueue> {
    let attributes = attributes.map_or(ptr::null_mut(), ptr::from_mut);
    retry("mq_open", || {
        // SAFETY: the name ends in NUL; mode and attributes, the variable arguments that O_CREAT
        // asks for, have the types that mq_open(3) gives; attributes are whole or null.
        checked(unsafe { libc::mq_open(name.as_ptr(), flags, mode as c_uint, attributes) })
    })
    // SAFETY: on Linux a message queue descriptor is a file descriptor, and this one is new.
    .map(|fd| MessageQueue(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn unlink_call(name: &CString) -> Result<()> {
    // SAFETY: the name ends in NUL.
    checked(unsafe { libc::mq_unlink(name.as_ptr()) }).of("mq_unlink").map(drop)
}

/// Makes a timed call, and again if the real-time clock was set forward meanwhile.
#[inline]
fn within<T>(timeout: Duration, mut call: impl FnMut(&libc::timespec) -> Result<T>) -> Result<T> {
    let start = coarse_clock();
    let mut left = timeout;
    loop {
        match call(&real_time_after(left)) {
            Err(error) if error.errno() == libc::ETIMEDOUT => {
                let passed = coarse_clock().saturating_sub(start);
                if passed.saturating_add(COARSENESS) >= timeout {
                    return Err(error);
                }
                left = timeout.saturating_sub(passed);
            }
            done => return done,
        }
    }
}

/// More than one tick of [`coarse_clock`] on any kernel.
const COARSENESS: Duration = Duration::from_millis(20);

/// Monotonic time as of the last timer tick: a tenth of the cost of the exact time, and enough to
/// tell that a clock was set.
#[inline]
fn coarse_clock() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A time of the real-time clock; what does not fit becomes the latest that does.
#[inline]
fn real_time_after(timeout: Duration) -> libc::timespec {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    let nanoseconds = now.tv_nsec + i64::from(timeout.subsec_nanos());
    libc::timespec {
        tv_sec: now.tv_sec.saturating_add(seconds).saturating_add(nanoseconds / SECOND_NANOSECONDS),
        tv_nsec: nanoseconds % SECOND_NANOSECONDS,
    }
}

const SECOND_NANOSECONDS: i64 = 1_000_000_000;

fn timed_out_means_again(errno: Errno) -> Errno {
    if errno == Errno::TIMEDOUT { Errno::AGAIN } else { errno }
}
