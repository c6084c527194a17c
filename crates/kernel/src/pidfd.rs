//! A process as a descriptor: an identity that cannot be reused, as a process id can.
//!
//! Source: `pidfd_open(2)`, `pidfd_send_signal(2)`, `waitid(2)`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use crate::error::{Error, OfCall, Result};
use crate::io::{Deadline, Interest, retry, wait_for};
use crate::signal::{self, Signal};

/// `pidfd_open(pid)`: a close-on-exec descriptor of a running or not yet reaped process.
///
/// Safe from reuse of the id only if the process cannot be reaped meanwhile: a child of the caller
/// that the caller has not waited for. Of any other process, the id may have passed on already;
/// check what it is after opening.
///
/// ```
/// use switchboard_kernel::pidfd;
///
/// let own = pidfd::open(std::process::id())?;
/// assert!(!pidfd::is_dead(&own)?);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Errors
/// `ESRCH` when there is no such process; `EINVAL` for 0, for an id that is too large, and
/// (`ENOENT` on newer kernels) for a thread that is not its process's first; `EMFILE` at
/// `RLIMIT_NOFILE`; `ENFILE`; `ENOMEM`.
pub fn open(pid: u32) -> Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(Error::new("pidfd_open", Errno::INVAL))?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).of("pidfd_open")
}

/// `poll(pidfd, 0)`: whether the process has terminated. A zombie has. Never blocks.
///
/// # Errors
/// `ENOMEM` only.
pub fn is_dead(pidfd: impl AsFd) -> Result<bool> {
    wait_dead(pidfd, Deadline::after(std::time::Duration::ZERO))
}

/// `poll(pidfd)`: blocks until the process has terminated; `false` when the deadline passed first.
///
/// Any process may be waited for so, not only children; nothing is reaped.
///
/// # Errors
/// `ENOMEM` only.
pub fn wait_dead(pidfd: impl AsFd, deadline: Deadline) -> Result<bool> {
    wait_for(pidfd, Interest::Readable, deadline)
}

/// `pidfd_send_signal(pidfd, signal)`: a signal to exactly this process.
///
/// Success means that it is pending or was delivered, not that it was handled. A zombie takes it
/// and nothing happens. With a value: [`signal::queue_pidfd`].
///
/// # Errors
/// `ESRCH` when the process has terminated and was reaped; `EPERM` when the caller may not signal
/// it (`kill(2)`).
pub fn send_signal(pidfd: impl AsFd, signal: Signal) -> Result<()> {
    signal::send_pidfd(pidfd, signal)
}

/// `waitid(P_PIDFD, WEXITED)`: blocks until a child has terminated, reaps it and says how it ended;
/// `None` when the deadline passed first.
///
/// # Errors
/// `ECHILD` when it is not a child of this process, was reaped before, or `SIGCHLD` is ignored.
pub fn wait(pidfd: impl AsFd, deadline: Deadline) -> Result<Option<ExitStatus>> {
    let pidfd = pidfd.as_fd();
    if deadline == Deadline::NEVER {
        return reap(pidfd, WaitIdOptions::EXITED);
    }
    // First, so that a process that is no child is an error at once and not after the deadline.
    let now = reap(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
    if now.is_some() || !wait_dead(pidfd, deadline)? {
        return Ok(now);
    }
    reap(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn reap(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> Result<Option<ExitStatus>> {
    let status = retry("waitid", || rustix::process::waitid(WaitId::PidFd(pidfd), options))?;
    Ok(status.map(|status| exit_status(&status)))
}

/// The status word that `wait(2)` would have given.
fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    let core_dumped = if status.dumped() { 0x80 } else { 0 };
    ExitStatus::from_raw(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) => signal | core_dumped,
        (None, None) => 0,
    })
}
