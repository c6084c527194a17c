//! A counter in a descriptor: one side adds, the other waits for it to leave zero and takes it.
//!
//! Source: `eventfd(2)`, `preadv2(2)`.
//!
//! It has no name: it reaches another process by inheritance or over a Unix socket. Whoever holds
//! it can add and take, so share it only with processes that are trusted with both.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::io::{Errno, ReadWriteFlags};

use crate::error::{Error, OfCall, Result};
use crate::io::retry;

/// `eventfd(initial, EFD_CLOEXEC)`: a 64-bit counter; readable while it is above zero.
///
/// The descriptor is a blocking one. [`EventFd::try_take`] does not block all the same: it asks
/// per call (`RWF_NOWAIT`), so both can be used on one descriptor. Adding is a release and taking
/// an acquire between the processes involved. Nothing tells that the other side died: watch its
/// pidfd.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// `eventfd(initial, EFD_CLOEXEC)`: taking takes the whole count.
    ///
    /// # Errors
    /// `EMFILE` at `RLIMIT_NOFILE`; `ENFILE` at `fs.file-max`; `ENOMEM`.
    pub fn new(initial: u32) -> Result<Self> {
        rustix::event::eventfd(initial, EventfdFlags::CLOEXEC).of("eventfd").map(Self)
    }

    /// `eventfd(initial, EFD_CLOEXEC | EFD_SEMAPHORE)`: taking takes 1 at a time.
    ///
    /// # Errors
    /// As [`EventFd::new`].
    pub fn semaphore(initial: u32) -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE;
        rustix::event::eventfd(initial, flags).of("eventfd").map(Self)
    }

    /// `write(count)`: adds to the counter and wakes who waits.
    ///
    /// Blocks only if the counter would pass `u64::MAX - 1`, until somebody takes.
    ///
    /// # Errors
    /// `EINVAL` for `u64::MAX`; `EAGAIN` instead of blocking if the descriptor was made
    /// non-blocking.
    #[inline]
    pub fn add(&self, count: u64) -> Result<()> {
        retry("write", || rustix::io::write(&self.0, &count.to_ne_bytes())).map(drop)
    }

    /// `read()`: blocks until the counter is above zero, then takes it, or 1 of a semaphore.
    ///
    /// # Errors
    /// `EAGAIN` instead of blocking if the descriptor was made non-blocking.
    #[inline]
    pub fn take(&self) -> Result<u64> {
        let mut count = [0; 8];
        retry("read", || rustix::io::read(&self.0, &mut count))?;
        Ok(u64::from_ne_bytes(count))
    }

    /// `preadv2(RWF_NOWAIT)`: as [`EventFd::take`], or `None` at once when the counter is zero.
    ///
    /// # Errors
    /// `EINVAL` when the descriptor is no eventfd.
    #[inline]
    pub fn try_take(&self) -> Result<Option<u64>> {
        let mut count = [0; 8];
        let found = retry("preadv2", || {
            let mut whole = [IoSliceMut::new(&mut count)];
            match rustix::io::preadv2(&self.0, &mut whole, CURRENT_OFFSET, ReadWriteFlags::NOWAIT) {
                Err(Errno::AGAIN) => Ok(None),
                other => other.map(Some),
            }
        })?;
        match found {
            None => Ok(None),
            Some(8) => Ok(Some(u64::from_ne_bytes(count))),
            Some(_) => Err(Error::new("preadv2", Errno::INVAL)),
        }
    }
}

/// "No offset", as `preadv2(2)` has it.
const CURRENT_OFFSET: u64 = u64::MAX;

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes over an eventfd that was inherited or received.
impl From<OwnedFd> for EventFd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<EventFd> for OwnedFd {
    fn from(eventfd: EventFd) -> Self {
        eventfd.0
    }
}
