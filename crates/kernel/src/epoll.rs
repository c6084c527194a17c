//! Waiting on many descriptors at once.
//!
//! Source: `epoll(7)`, `epoll_ctl(2)`, `epoll_wait(2)`.
//!
//! Level-triggered throughout: a descriptor is reported for as long as it is ready, so nothing is
//! lost by reading only part of what is there. Pipes, sockets, POSIX message queues, eventfds,
//! timerfds, pidfds and other epolls can be watched; regular files and System V queues cannot.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::error::{OfCall, Result};
use crate::io::{Deadline, Interest, Ready, retry, timespec};

/// `epoll_create1(EPOLL_CLOEXEC)`: a set of watched descriptors, and the wait for any of them.
///
/// The set belongs to the open file description: a forked child shares it. A watched descriptor
/// leaves the set when its last copy, in any process, is closed; so [`Epoll::delete`] before
/// closing, if another process may hold a copy.
///
/// ```
/// use switchboard_kernel::epoll::{Epoll, Events};
/// use switchboard_kernel::eventfd::EventFd;
/// use switchboard_kernel::io::{Deadline, Interest};
///
/// let wake = EventFd::new(0)?;
/// let epoll = Epoll::new()?;
/// epoll.add(&wake, 7, Interest::Readable)?;
/// wake.add(1)?;
///
/// let mut events = Events::with_capacity(8);
/// assert_eq!(epoll.wait(&mut events, Deadline::NEVER)?, 1);
/// let (token, ready) = events.iter().next().unwrap();
/// assert!(token == 7 && ready.readable);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// `epoll_create1(EPOLL_CLOEXEC)`: an empty set.
    ///
    /// # Errors
    /// `EMFILE` at `RLIMIT_NOFILE`; `ENFILE` at `fs.file-max`; `ENOMEM`.
    pub fn new() -> Result<Self> {
        epoll::create(CreateFlags::CLOEXEC).of("epoll_create1").map(Self)
    }

    /// `epoll_ctl(EPOLL_CTL_ADD)`: watches a descriptor; `token` comes back with its events.
    ///
    /// # Errors
    /// `EEXIST` when it is watched already; `EPERM` for a regular file or directory; `ELOOP` for
    /// epolls that watch each other, or more than five deep; `ENOSPC` over the limit.
    ///
    /// # Limits
    /// `/proc/sys/fs/epoll/max_user_watches`: descriptors watched by one user, in all its epolls.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        epoll::add(&self.0, fd, EventData::new_u64(token), flags(interest)).of("epoll_ctl")
    }

    /// As [`Epoll::add`], with `EPOLLEXCLUSIVE`: of several epolls that watch the same object so,
    /// one or more are woken rather than all. It cannot be modified, only deleted.
    ///
    /// # Errors
    /// As [`Epoll::add`]; `EINVAL` for an epoll descriptor.
    pub fn add_exclusive(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        let flags = flags(interest) | EventFlags::EXCLUSIVE;
        epoll::add(&self.0, fd, EventData::new_u64(token), flags).of("epoll_ctl")
    }

    /// `epoll_ctl(EPOLL_CTL_MOD)`: changes the token and what is waited for.
    ///
    /// # Errors
    /// `ENOENT` when it is not watched; `EINVAL` when it was added as exclusive.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        epoll::modify(&self.0, fd, EventData::new_u64(token), flags(interest)).of("epoll_ctl")
    }

    /// `epoll_ctl(EPOLL_CTL_DEL)`: watches it no longer. Events already taken by
    /// [`Epoll::wait`] stay in their [`Events`].
    ///
    /// # Errors
    /// `ENOENT` when it is not watched.
    pub fn delete(&self, fd: impl AsFd) -> Result<()> {
        epoll::delete(&self.0, fd).of("epoll_ctl")
    }

    /// `epoll_pwait(events, timeout)`: waits for events; says how many came, 0 when the deadline
    /// passed.
    ///
    /// Blocks until the deadline; one that has passed already looks once and does not block. Time
    /// is counted in whole milliseconds, rounded up. A signal does not end the wait. When more
    /// descriptors are ready than `events` holds, the next calls report the others in turn.
    ///
    /// When a peer dies, its pipe, socket or pidfd is reported: `hung_up`, or `readable` with an
    /// end of file to read.
    ///
    /// # Errors
    /// None that a correct program meets.
    #[inline]
    pub fn wait(&self, events: &mut Events, deadline: Deadline) -> Result<usize> {
        retry("epoll_pwait", || {
            events.0.clear();
            let timeout = deadline.remaining().map(timespec);
            let room = rustix::buffer::spare_capacity(&mut events.0);
            epoll::wait(&self.0, room, timeout.as_ref())
        })
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What one [`Epoll::wait`] found: `(token, ready)` pairs.
pub struct Events(Vec<epoll::Event>);

// SAFETY: an event is a number chosen by the caller of `add` and flags. The pointer in its type is the
// other reading of that number, which this crate never makes.
unsafe impl Send for Events {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Events {}

impl Events {
    /// Room for this many events per wait; at least one.
    #[must_use]
    pub fn with_capacity(events: usize) -> Self {
        Self(Vec::with_capacity(events.max(1)))
    }

    /// The tokens of the descriptors that were ready, and what was found on each.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Ready)> + '_ {
        self.0.iter().map(|event| {
            let (found, data) = (event.flags, event.data);
            let ready = Ready {
                readable: found.contains(EventFlags::IN),
                writable: found.contains(EventFlags::OUT),
                hung_up: found.intersects(EventFlags::HUP | EventFlags::ERR),
            };
            (data.u64(), ready)
        })
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the deadline passed with nothing ready.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Readable => EventFlags::IN,
        Interest::Writable => EventFlags::OUT,
        Interest::Both => EventFlags::IN | EventFlags::OUT,
        Interest::HangUp => EventFlags::empty(),
    }
}
