//! Signals: sending them to a process, a thread or a group, blocking them, waiting for them, and
//! handlers that do one safe thing.
//!
//! Source: `signal(7)`, `kill(2)`, `pidfd_send_signal(2)`, `sigqueue(3)`, `tgkill(2)`,
//! `sigtimedwait(2)`, `sigaction(2)`, `signal-safety(7)`.
//!
//! *What is lost.* A standard signal that is sent while the same one is pending is merged with it:
//! ten SIGUSR1 may be taken once, with the first one's sender and value. A real-time signal is
//! queued each time, lower numbers first, equal ones in the order they were sent, until the
//! receiver's user has `RLIMIT_SIGPENDING` of them pending (the limit is the receiver's): then
//! [`queue`] says `EAGAIN`. [`send`] has nobody to say it to: there, a real-time signal is merged
//! like a standard one, and says neither sender nor value.
//!
//! *Who is meant.* A process id may have passed on to another process; [`send_pidfd`] and
//! [`queue_pidfd`] cannot hit another. Pending signals are the receiving process's: they stay when
//! the sender dies, survive `execve`, and are gone when the receiver dies.
//!
//! Three ways to receive: [`wait`] and [`crate::signalfd`] take blocked signals, with sender and
//! value, when asked; a [`Handler`] needs no mask, and so works in a program whose threads are not
//! all its own.

#![allow(unsafe_code)]

mod handler;
mod mask;
mod number;
mod received;

use core::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, c_long};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result, checked, last_errno};
use crate::io::{Deadline, retry};

pub use handler::{Action, Handler, is_ignored};
pub(crate) use mask::unblock_all;
pub use mask::{MaskGuard, SignalSet, block, blocked, pending, unblock};
pub use number::{Signal, UnknownSignal};
pub(crate) use received::Fields;
pub use received::{Code, Received};

/// `kill(pid, signal)`: a signal to the process that has this id now.
///
/// Does not block. Success means that it is pending or was delivered, not that anything was done
/// about it; a zombie takes it and nothing happens. Negative ids and 0, which mean groups or
/// everybody to `kill(2)`, are refused here.
///
/// ```
/// use std::time::Duration;
/// use switchboard_kernel::io::Deadline;
/// use switchboard_kernel::signal::{self, Signal, SignalSet};
///
/// let mine = SignalSet::from(Signal::USR1);
/// let _guard = signal::block(&mine)?;
/// signal::send_thread(std::process::id(), signal::thread_id(), Signal::USR1)?;
/// let received = signal::wait(&mine, Deadline::after(Duration::ZERO))?.expect("it is pending");
/// assert_eq!(received.pid, Some(std::process::id()));
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Errors
/// `ESRCH`: no such process; `EPERM`: the receiver's user is another, and the caller has no
/// `CAP_KILL`; `EINVAL`: 0 or an id that is too large.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = positive(pid, "kill")?;
    // SAFETY: kill takes numbers only.
    checked(unsafe { libc::kill(pid, signal.number()) }).of("kill").map(drop)
}

/// `pidfd_send_signal(pidfd, signal)`: a signal to exactly this process. Else as [`send`].
///
/// # Errors
/// `ESRCH` when the process has terminated and was reaped; `EPERM` as [`send`]; `EBADF`: the
/// descriptor is no pidfd.
pub fn send_pidfd(pidfd: impl AsFd, signal: Signal) -> Result<()> {
    pidfd_send_signal(pidfd, signal, core::ptr::null())
}

/// `kill(-group, signal)`: a signal to every process of a group that the caller may signal. Else as
/// [`send`].
///
/// # Errors
/// `ESRCH`: no such group; `EPERM`: not one of them may be signalled; `EINVAL`: 0 and an id that is
/// too large, and 1, which would mean every process there is.
pub fn send_group(group: u32, signal: Signal) -> Result<()> {
    let group = positive(group, "kill")?;
    if group == 1 {
        return Err(Error::new("kill", Errno::INVAL));
    }
    // SAFETY: kill takes numbers only.
    checked(unsafe { libc::kill(-group, signal.number()) }).of("kill").map(drop)
}

/// `tgkill(process, thread, signal)`: a signal to one thread, see [`thread_id`]. Else as [`send`].
///
/// What the signal does, it does to the whole process: SIGTERM to a thread ends all.
///
/// # Errors
/// `ESRCH`: no such thread in that process; `EPERM` as [`send`]; `EINVAL`.
pub fn send_thread(process: u32, thread: u32, signal: Signal) -> Result<()> {
    let (process, thread) = (positive(process, "tgkill")?, positive(thread, "tgkill")?);
    // SAFETY: tgkill takes numbers only.
    system_call("tgkill", || unsafe {
        libc::syscall(libc::SYS_tgkill, process, thread, signal.number())
    })
}

/// `sigqueue(pid, signal, value)`: a signal with a value, to the process that has this id now.
///
/// Does not block. A standard signal is merged with one that is pending, and its value is lost; a
/// real-time signal is queued.
///
/// # Errors
/// `EAGAIN`: a real-time signal, and the receiver's user has as many pending as the receiver may
/// have; else as [`send`].
///
/// # Limits
/// `RLIMIT_SIGPENDING` of the receiver, counted over all processes of its user; `SigQ` in
/// `/proc/PID/status` has both. The value is a C `int`.
#[inline]
pub fn queue(pid: u32, signal: Signal, value: i32) -> Result<()> {
    let pid = positive(pid, "sigqueue")?;
    let info = own_fields(signal, value).to_siginfo();
    // SAFETY: `info` is a siginfo_t that the kernel only reads.
    system_call("sigqueue", || unsafe {
        libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal.number(), &raw const info)
    })
}

/// `pidfd_send_signal(pidfd, signal, info)`: a signal with a value, to exactly this process. Else
/// as [`queue`].
///
/// # Errors
/// As [`queue`] and [`send_pidfd`].
///
/// # Limits
/// As [`queue`].
pub fn queue_pidfd(pidfd: impl AsFd, signal: Signal, value: i32) -> Result<()> {
    let info = own_fields(signal, value).to_siginfo();
    pidfd_send_signal(pidfd, signal, &raw const info)
}

/// `rt_tgsigqueueinfo(process, thread, signal, info)`: a signal with a value, to one thread. Else
/// as [`queue`].
///
/// # Errors
/// As [`queue`] and [`send_thread`].
///
/// # Limits
/// As [`queue`].
pub fn queue_thread(process: u32, thread: u32, signal: Signal, value: i32) -> Result<()> {
    const CALL: &str = "rt_tgsigqueueinfo";
    let (process, thread) = (positive(process, CALL)?, positive(thread, CALL)?);
    let info = own_fields(signal, value).to_siginfo();
    // SAFETY: `info` is a siginfo_t that the kernel only reads.
    system_call(CALL, || unsafe {
        let call = libc::SYS_rt_tgsigqueueinfo;
        libc::syscall(call, process, thread, signal.number(), &raw const info)
    })
}

/// `gettid()`: the calling thread's id, for [`send_thread`]. The first thread's is the process's.
#[must_use]
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}

/// `sigtimedwait(set, timeout)`: blocks until one of these signals is pending, takes it and says
/// who sent it, with what; `None` when the deadline passed first.
///
/// The calling thread, and every other one, must have them blocked ([`block`]): else they act
/// before this can take them. A signal sent to a thread is seen by this thread only. Of several
/// pending, the lowest number is taken, and of equal ones the first sent.
///
/// With a deadline that has passed it takes what is pending and does not block. Handlers of other
/// signals may run meanwhile; they do not end the wait. Nothing tells that a sender died: watch its
/// pidfd.
///
/// # Errors
/// None that a correct program meets.
#[inline]
pub fn wait(set: &SignalSet, deadline: Deadline) -> Result<Option<Received>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let taken = retry("sigtimedwait", || {
        let timeout = deadline.remaining().map(c_timespec);
        let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
        let (call, set) = (libc::SYS_rt_sigtimedwait, set.as_raw());
        // SAFETY: the set, the place for the description and the timeout, if any, are valid; the
        // set is longer than what the kernel reads. Not `sigtimedwait(3)`, which says SI_USER for
        // SI_TKILL.
        match unsafe { libc::syscall(call, set, info.as_mut_ptr(), timeout, KERNEL_SET_BYTES) } {
            0.. => Ok(true),
            _ => match last_errno() {
                Errno::AGAIN => Ok(false),
                errno => Err(errno),
            },
        }
    })?;
    if !taken {
        return Ok(None);
    }
    // SAFETY: zeroed, and since then filled in by the kernel.
    let info = unsafe { info.assume_init_ref() };
    // SAFETY: the kernel filled it in.
    unsafe { Fields::of(info) }.received("sigtimedwait").map(Some)
}

/// The kernel's set of signals: one bit each.
const KERNEL_SET_BYTES: usize =
    if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 16 } else { 8 };

fn c_timespec(duration: core::time::Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// 0 and negative ids mean groups to `kill(2)`.
#[inline]
fn positive(id: u32, call: &'static str) -> Result<c_int> {
    i32::try_from(id).ok().filter(|id| *id > 0).ok_or(Error::new(call, Errno::INVAL))
}

#[inline]
fn own_fields(signal: Signal, value: i32) -> Fields {
    Fields {
        number: signal.number(),
        code: libc::SI_QUEUE,
        pid: std::process::id(),
        uid: rustix::process::getuid().as_raw(),
        value,
    }
}

fn pidfd_send_signal(pidfd: impl AsFd, signal: Signal, info: *const libc::siginfo_t) -> Result<()> {
    let (fd, flags) = (pidfd.as_fd().as_raw_fd(), 0);
    // SAFETY: `info` is null, or a siginfo_t that lives until the call returns and is only read.
    system_call("pidfd_send_signal", || unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal.number(), info, flags)
    })
}

#[inline]
fn system_call(call: &'static str, f: impl FnOnce() -> c_long) -> Result<()> {
    if f() < 0 { Err(Error::new(call, last_errno())) } else { Ok(()) }
}
