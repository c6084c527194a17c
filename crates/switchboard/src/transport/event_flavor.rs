//! The two ends of any event: enums, as in `flavor.rs`; and waiting where only a time limit ends a
//! wait.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use switchboard_kernel as kernel;
use switchboard_kernel::io::{Deadline, Interest, wait_for};

use super::hub::Hub;
use super::shm::{ShmListener, ShmNotifier};
use super::stream_listener::StreamListener;
use super::stream_notifier::StreamNotifier;
use super::{Setup, sem, signal, sysv_sem};
use crate::error::{Error, WaitError};
use crate::pattern::event::Occurrence;

/// The notifying end of any event.
#[derive(Debug)]
pub(crate) enum NotifierFlavor {
    Signal(signal::SignalNotifier),
    Sem(sem::SemNotifier),
    SysvSem(sysv_sem::SysvSemNotifier),
    Stream(Box<StreamNotifier>),
    Shm(Box<ShmNotifier>),
}

/// The listening end of any event.
#[derive(Debug)]
pub(crate) enum ListenerFlavor {
    Signal(signal::SignalListener),
    Sem(sem::SemListener),
    SysvSem(sysv_sem::SysvSemListener),
    Stream(Box<StreamListener>),
    Shm(Box<ShmListener>),
}

impl NotifierFlavor {
    pub(crate) fn over_links(hub: Hub) -> Self {
        Self::Stream(Box::new(StreamNotifier::new(hub)))
    }

    /// Notifies once. Does not wait.
    pub(crate) fn notify(&mut self, value: Option<i32>) -> Result<(), Error> {
        match self {
            Self::Signal(end) => end.notify(value),
            Self::Sem(end) => end.notify(),
            Self::SysvSem(end) => end.notify(),
            Self::Stream(end) => end.notify(0, 1),
            Self::Shm(end) => end.notify(0, 1),
        }
    }

    /// Notifies so many times under an id. `None`: ids, and counts, mean nothing here.
    pub(crate) fn notify_counted(&mut self, id: u64, count: u64) -> Option<Result<(), Error>> {
        match self {
            Self::Stream(end) => Some(end.notify(id, count)),
            Self::Shm(end) => Some(end.notify(id, count)),
            _ => None,
        }
    }

    /// Moves on what can move. Whether what was notified is out of this process's hands.
    pub(crate) fn drive(&mut self) -> Result<bool, Error> {
        match self {
            Self::Stream(end) => end.drive(),
            Self::Shm(end) => end.drive(),
            _ => Ok(true),
        }
    }

    /// Whether all who are connected have said that they listen.
    pub(crate) fn is_confirmed(&self) -> bool {
        match self {
            Self::Stream(end) => end.is_confirmed(),
            _ => true,
        }
    }

    /// Sleeps until [`drive`](Self::drive) may move something.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), WaitError> {
        match self {
            Self::Stream(end) => end.wait(deadline),
            Self::Shm(end) => end.wait_for_listeners(deadline),
            _ => Ok(()),
        }
    }

    /// Listeners that are there; `None` where nobody can know.
    pub(crate) fn peers(&self) -> Option<usize> {
        match self {
            Self::Stream(end) => Some(end.peers()),
            Self::Shm(end) => Some(end.peers()),
            _ => None,
        }
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        match self {
            Self::Stream(end) => end.local_address(),
            _ => None,
        }
    }

    /// Whether a notification can have a value with it.
    pub(crate) fn has_values(&self) -> bool {
        matches!(self, Self::Signal(_))
    }
}

impl ListenerFlavor {
    pub(crate) fn over_links(hub: Hub) -> Self {
        Self::Stream(Box::new(StreamListener::new(hub)))
    }

    /// Takes a notification that is there.
    pub(crate) fn try_wait(&mut self) -> Result<Option<Occurrence>, Error> {
        match self {
            Self::Signal(end) => end.try_wait(),
            Self::Sem(end) => end.try_wait(),
            Self::SysvSem(end) => end.try_wait(),
            Self::Stream(end) => end.try_wait(),
            Self::Shm(end) => end.try_wait(),
        }
    }

    /// Waits for a notification and takes it.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<Occurrence, WaitError> {
        match self {
            Self::Signal(end) => end.wait(deadline),
            Self::Sem(end) => end.wait(deadline),
            Self::SysvSem(end) => end.wait(deadline),
            Self::Stream(end) => end.wait(deadline),
            Self::Shm(end) => end.wait_for_event(deadline),
        }
    }

    /// Notifiers that are there; `None` where nobody can know.
    pub(crate) fn peers(&self) -> Option<usize> {
        match self {
            Self::Stream(end) => Some(end.peers()),
            Self::Shm(end) => Some(end.peers()),
            _ => None,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Signal(end) => end.fd(),
            Self::Sem(end) => end.fd(),
            Self::SysvSem(end) => end.fd(),
            Self::Stream(end) => end.fd(),
            Self::Shm(end) => end.descriptor(),
        }
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        match self {
            Self::Signal(end) => Some(end.local_address()),
            Self::Stream(end) => end.local_address(),
            _ => None,
        }
    }
}

/// How soon a wait in the kernel that no descriptor can end sees that it is cancelled.
const LOOK_FOR_CANCEL: Duration = Duration::from_millis(50);
/// How long such a wait lasts at most where nobody can cancel it: a backstop for a wake-up that died
/// with the process it had woken.
const BACKSTOP: Duration = Duration::from_secs(1);

/// Waits in the kernel in slices, so that the cancel descriptor is seen. `once` waits until its
/// deadline, and says what it got.
pub(crate) fn wait_in_slices<T>(
    setup: &Setup,
    deadline: Deadline,
    mut once: impl FnMut(Deadline) -> Result<Option<T>, Error>,
) -> Result<T, WaitError> {
    let cancel = setup.options.cancel.as_ref();
    let slice = if cancel.is_some() { LOOK_FOR_CANCEL } else { BACKSTOP };
    loop {
        if let Some(cancel) = cancel
            && wait_for(cancel, Interest::Readable, Deadline::after(Duration::ZERO))
                .map_err(|error| setup.system("cannot wait", error))?
        {
            return Err(WaitError::Interrupted);
        }
        if let Some(got) = once(deadline.min(Deadline::after(slice)))? {
            return Ok(got);
        }
        if deadline.passed() {
            return Err(WaitError::TimedOut);
        }
    }
}

/// Whether a kernel call only says that nothing is there, or not yet.
pub(crate) fn is_nothing_yet(error: kernel::Error) -> bool {
    matches!(error.kind(), kernel::ErrorKind::WouldBlock | kernel::ErrorKind::TimedOut)
}
