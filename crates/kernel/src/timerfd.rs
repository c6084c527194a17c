//! A timer in a descriptor, to be waited for together with others.
//!
//! Source: `timerfd_create(2)`.
//!
//! It runs by the monotonic clock: setting the system's time does not move it; while the machine
//! is suspended it stands still.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{TimerfdClockId, TimerfdFlags};

use crate::error::{Error, OfCall, Result, checked};
use crate::io::{retry, set_nonblocking};

/// `timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)`: readable once it has expired.
#[derive(Debug)]
pub struct TimerFd(OwnedFd);

impl TimerFd {
    /// A timer that is not armed.
    ///
    /// # Errors
    /// `EMFILE` at `RLIMIT_NOFILE`; `ENFILE` at `fs.file-max`; `ENOMEM`.
    pub fn new() -> Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)
            .of("timerfd_create")
            .map(Self)
    }

    /// `timerfd_gettime()`, `fcntl(O_NONBLOCK)`: a timer that another process made and passed on,
    /// armed or not. It stays the one timer for all who have it, in whichever process: each may arm
    /// it, and an expiration is cleared by the first who asks. It runs by the clock that its maker
    /// chose. Makes it non-blocking for all of them.
    ///
    /// # Errors
    /// `EINVAL` when the descriptor is of something else.
    pub fn received(fd: OwnedFd) -> Result<Self> {
        rustix::time::timerfd_gettime(&fd).of("timerfd_gettime")?;
        set_nonblocking(&fd, true)?;
        Ok(Self(fd))
    }

    /// `timerfd_settime()`: expires `after` from now, and then every `every`, if given.
    ///
    /// What was armed before is replaced, expirations not yet cleared are forgotten. An `after` of
    /// zero expires at once; an `every` of zero is none.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn arm(&self, after: Duration, every: Option<Duration>) -> Result<()> {
        // The kernel reads zero as "disarm".
        let after = after.max(Duration::from_nanos(1));
        self.set(after, every.unwrap_or_default())
    }

    /// `timerfd_settime(0)`: expires no more; expirations not yet cleared are forgotten.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn disarm(&self) -> Result<()> {
        self.set(Duration::ZERO, Duration::ZERO)
    }

    /// `read()`: how often it has expired since this was last asked or it was armed; 0 if it has
    /// not. Never blocks.
    ///
    /// # Errors
    /// None that a correct program meets.
    #[inline]
    pub fn clear(&self) -> Result<u64> {
        let mut expirations = [0; 8];
        match retry("read", || rustix::io::read(&self.0, &mut expirations)) {
            Ok(_) => Ok(u64::from_ne_bytes(expirations)),
            Err(error) if error == Error::new("read", Errno::AGAIN) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Without asking what was set before, which `rustix` does, and which takes a tenth as long again.
    fn set(&self, after: Duration, every: Duration) -> Result<()> {
        let times = libc::itimerspec { it_interval: c_time(every), it_value: c_time(after) };
        let fd = self.0.as_raw_fd();
        // SAFETY: the kernel reads one itimerspec, and writes nothing where there is no place for it.
        checked(unsafe { libc::timerfd_settime(fd, 0, &raw const times, ptr::null_mut()) })
            .of("timerfd_settime")
            .map(drop)
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What does not fit becomes the longest that does.
fn c_time(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
