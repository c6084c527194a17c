//! Processes: starting one with exactly the descriptors it should have, waiting for its end,
//! signalling it, who is whose child, who adopts orphans, and who one is oneself.
//!
//! Source: `fork(2)`, `execve(2)`, `close_range(2)`, `prctl(2)`, `pidfd_open(2)`, `waitid(2)`,
//! `proc_pid_stat(5)`, `getrlimit(2)`, `credentials(7)`.

#![allow(unsafe_code)]

mod names;
mod program;
mod spawn;
#[cfg(feature = "started-without")]
mod start;
mod tree;

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::error::{Error, OfCall, Result, checked};
use crate::io::{Deadline, retry};
use crate::pidfd;

pub use names::{
    command_name, group_id_of_name, group_name_of_id, user_id_of_name, user_name_of_id,
};
pub use program::find_program;
pub use spawn::Spawn;
#[cfg(feature = "started-without")]
pub use start::started_without;
pub use tree::{
    Identity, Stat, children, descendants, group, is_child_subreaper, reap_orphans,
    set_child_subreaper, stat, wait_any,
};

pub use crate::signal::Signal;

/// A child process, held by its pidfd: signals and waits always mean this process, never another
/// that came to have its id.
///
/// That holds as long as nothing else in this program reaps children it did not start
/// (`waitpid(-1)`, or `SIGCHLD` ignored): then waiting says `ECHILD`.
///
/// Dropping it neither kills nor waits: a child that has ended is reaped, one that still runs goes
/// on. When that one ends later, it stays a zombie (an entry in the process table) until this
/// process ends. A program that runs for long waits for its children, or [`Child::terminate`]s them.
#[derive(Debug)]
pub struct Child {
    id: u32,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

impl Child {
    /// Takes over a child that was started and not waited for.
    fn adopt(id: u32) -> Result<Self> {
        Ok(Self { id, pidfd: pidfd::open(id)?, status: None })
    }

    /// The process id. Once the child is reaped, another process may have it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Readable once the child has ended: to be polled together with other descriptors.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// `waitid(P_PIDFD)`: blocks until the child has ended, and says how; `None` when the deadline
    /// passed first. Asked again, it gives the same answer.
    ///
    /// # Errors
    /// `ECHILD` when something else in this program reaped it.
    pub fn wait(&mut self, deadline: Deadline) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = pidfd::wait(&self.pidfd, deadline)?;
        }
        Ok(self.status)
    }

    /// `pidfd_send_signal()`: sends a signal.
    ///
    /// # Errors
    /// `ESRCH` when the child was reaped; `EPERM` when it changed its user.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd::send_signal(&self.pidfd, signal)
    }

    /// Sends SIGTERM, waits for `grace`, sends SIGKILL if the child is still there, and waits for
    /// its end.
    ///
    /// A child that ended before is only waited for. Its own children are not touched: see
    /// [`Spawn::new_process_group`].
    ///
    /// # Errors
    /// `EPERM` when it changed its user; `ECHILD` when something else in this program reaped it.
    pub fn terminate(&mut self, grace: Duration) -> Result<ExitStatus> {
        if self.wait(Deadline::after(Duration::ZERO))?.is_none() {
            self.signal(Signal::TERM)?;
        }
        match self.wait(Deadline::after(grace))? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Sends SIGKILL and waits for the end: at once, unless the child is stuck in the kernel.
    ///
    /// # Errors
    /// As [`Child::terminate`].
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if self.wait(Deadline::after(Duration::ZERO))?.is_none() {
            self.signal(Signal::KILL)?;
        }
        self.wait(Deadline::NEVER)?.ok_or(Error::new("waitid", Errno::CHILD))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.wait(Deadline::after(Duration::ZERO));
    }
}

/// `fcntl(number, F_DUPFD_CLOEXEC)`: another descriptor for one that this process inherited under
/// an agreed number. The number itself stays open, and is inherited further unless it is closed.
///
/// Any open descriptor answers, not only an inherited one: ask before opening others.
///
/// # Errors
/// `EBADF` when the number is not open; `EMFILE` at `RLIMIT_NOFILE`.
pub fn inherited_descriptor(number: i32) -> Result<OwnedFd> {
    let fd = retry("fcntl F_DUPFD_CLOEXEC", || {
        // SAFETY: F_DUPFD_CLOEXEC takes any number, open or not, and changes no open descriptor.
        checked(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })
    })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `getrlimit(RLIMIT_NOFILE)`: one more than the highest descriptor this process may have, now
/// (soft) and after raising it (hard). No limit is `u64::MAX`.
#[must_use]
pub fn file_limit() -> (u64, u64) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

/// How many descriptors this process has open: the size of `/proc/self/fd`, or before Linux 6.2 its entries. None where
/// `/proc` does not say.
///
/// Source: `proc_pid_fd(5)`.
#[must_use]
pub fn open_files() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match std::fs::metadata(FOLDER).ok()?.len() {
        // What it is read with is one of them.
        0 => u64::try_from(std::fs::read_dir(FOLDER).ok()?.count()).ok()?.checked_sub(1),
        count => Some(count),
    }
}

/// `setrlimit(RLIMIT_NOFILE)`: sets the soft limit. Children inherit it, and programs that use
/// `select(2)` break above 1024.
///
/// # Errors
/// `EINVAL` when it is above the hard limit.
pub fn set_file_limit(soft: u64) -> Result<()> {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let current = (soft != u64::MAX).then_some(soft);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum }).of("setrlimit")
}

/// `geteuid()`: the user this process acts as.
#[must_use]
pub fn effective_user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// `getgroups()`, `getegid()`: whether this process is in a group.
#[must_use]
pub fn is_in_group(id: u32) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    effective_group_id() == id || others.iter().any(|group| group.as_raw() == id)
}

/// `getegid()`: the group this process acts as.
#[must_use]
pub fn effective_group_id() -> u32 {
    rustix::process::getegid().as_raw()
}
