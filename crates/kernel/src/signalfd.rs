//! Signals in a descriptor, to be waited for together with others.
//!
//! Source: `signalfd(2)`.

#![allow(unsafe_code)]

use core::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{OfCall, Result, checked};
use crate::io::{Deadline, Interest, read, wait_for};
use crate::signal::{Fields, Received, SignalSet};

/// `signalfd(set, SFD_CLOEXEC | SFD_NONBLOCK)`: readable while one of these signals is pending.
///
/// The signals must be blocked ([`signal::block`](crate::signal::block)) in every thread of the
/// process, before threads are started, say: else they act before they can be read. Reading takes
/// them: those sent to the process, and those sent to the thread *that reads*.
///
/// What merges and what queues, and what is seen when a sender dies: see [`crate::signal`].
///
/// *Children.* A copy of the descriptor in another process shows that process's own signals, not
/// those of the one that made it; an epoll goes on watching for the process that added it. The
/// mask is inherited by forked children and programs they execute, and what is blocked there cannot
/// end them: [`Spawn`](crate::process::Spawn) empties it, `std::process::Command` does not.
///
/// ```
/// use switchboard_kernel::signal::{self, Signal, SignalSet};
/// use switchboard_kernel::signalfd::SignalFd;
///
/// let mine = SignalSet::from([Signal::INT, Signal::TERM]);
/// let _blocked = signal::block(&mine)?;
/// let signals = SignalFd::new(&mine)?;
/// signal::send_thread(std::process::id(), signal::thread_id(), Signal::TERM)?;
///
/// let received = signals.try_next()?.expect("it is pending");
/// assert_eq!(received.signal, Signal::TERM);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// `signalfd(-1, set)`: a new descriptor for these signals. SIGKILL and SIGSTOP in the set are
    /// ignored.
    ///
    /// # Errors
    /// `EMFILE` at `RLIMIT_NOFILE`; `ENFILE` at `fs.file-max`; `ENOMEM`; `ENODEV`.
    pub fn new(set: &SignalSet) -> Result<Self> {
        // SAFETY: the set is valid; -1 asks for a new descriptor.
        let made = unsafe { libc::signalfd(-1, set.as_raw(), FLAGS) };
        let fd = checked(made).of("signalfd")?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// `signalfd(fd, set)`: other signals from now on, for every copy of the descriptor.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn set(&self, set: &SignalSet) -> Result<()> {
        // SAFETY: the set and the descriptor are valid.
        let result = unsafe { libc::signalfd(self.0.as_raw_fd(), set.as_raw(), FLAGS) };
        checked(result).of("signalfd").map(drop)
    }

    /// `read(fd)`: takes the next signal; `None` when nothing is pending. Never blocks.
    ///
    /// # Errors
    /// None that a correct program meets.
    #[inline]
    pub fn try_next(&self) -> Result<Option<Received>> {
        let mut info = [0; INFO_BYTES];
        match self.fill(&mut info)? {
            0 => Ok(None),
            _ => decode(&info).received("read").map(Some),
        }
    }

    /// `read(fd)`, `poll(fd)`: blocks until there is a signal, and takes it; `None` when the
    /// deadline passed first.
    ///
    /// # Errors
    /// None that a correct program meets.
    #[inline]
    pub fn next(&self, deadline: Deadline) -> Result<Option<Received>> {
        loop {
            if let Some(received) = self.try_next()? {
                return Ok(Some(received));
            }
            if !wait_for(self, Interest::Readable, deadline)? {
                return Ok(None);
            }
        }
    }

    /// `read(fd)`: takes what is pending, at most [`BATCH`] signals in one call, and adds it to
    /// `into`; says how many. Never blocks: 0 when nothing is pending.
    ///
    /// Called until it says 0, the descriptor is drained. The order is that of
    /// [`signal::wait`](crate::signal::wait).
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn read_batch(&self, into: &mut Vec<Received>) -> Result<usize> {
        let mut infos = [0; INFO_BYTES * BATCH];
        let filled = self.fill(&mut infos)? / INFO_BYTES;
        for info in infos.as_chunks().0.iter().take(filled) {
            into.push(decode(info).received("read")?);
        }
        Ok(filled)
    }

    /// 0 when nothing is pending.
    #[inline]
    fn fill(&self, buffer: &mut [u8]) -> Result<usize> {
        match read(&self.0, buffer) {
            Err(error) if error.errno() == libc::EAGAIN => Ok(0),
            other => other,
        }
    }
}

/// How many signals [`SignalFd::read_batch`] takes at most.
pub const BATCH: usize = 32;

const FLAGS: libc::c_int = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;

type Info = libc::signalfd_siginfo;

const INFO_BYTES: usize = size_of::<Info>();

#[inline]
fn decode(info: &[u8; INFO_BYTES]) -> Fields {
    let word = |offset: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&info[offset..offset + 4]);
        i32::from_ne_bytes(bytes)
    };
    let (number, code) = (word(offset_of!(Info, ssi_signo)), word(offset_of!(Info, ssi_code)));
    let value = if number == libc::SIGCHLD && code > 0 {
        word(offset_of!(Info, ssi_status))
    } else {
        word(offset_of!(Info, ssi_int))
    };
    let pid = word(offset_of!(Info, ssi_pid)).cast_unsigned();
    let uid = word(offset_of!(Info, ssi_uid)).cast_unsigned();
    Fields { number, code, pid, uid, value }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
