//! `Event`: that something happened.
//!
//! Over links and shared memory (`unix:`, `tcp:`, `shm:`) every listener is told, and notifications that it has
//! not looked at are merged by their id and counted: it sees how many there were of each.
//!
//! A notifier never waits. Whether each notification is counted or several are merged into one is
//! the transport's nature, and said by [`Occurrence::merged`]: semaphores count, and so do real-time
//! signals; the other signals are merged while one is pending. Where a notification is counted, one
//! listener gets it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use crate::address::Address;
use crate::error::{Error, ErrorKind, WaitError};
use crate::message::{Bytes, Message};
use crate::options::Options;
use crate::transport::{EventEnds, ListenerFlavor, NotifierFlavor, Setup};

/// An event's name and options; its ends are made from it. Of the options, `wait` and `cancel` apply.
///
/// ```
/// use std::time::Duration;
/// use switchboard::Event;
///
/// # let address = format!("sem:/switchboard-example-event-{}", std::process::id());
/// let event = Event::open(&address)?;
/// let mut listener = event.listener()?;
/// event.notifier()?.notify()?;
/// listener.wait_timeout(Duration::from_secs(5))?;
/// assert!(listener.try_wait()?.is_none());
/// # switchboard::object::unlink(&address.parse()?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Event {
    address: Address,
    options: Options,
}

impl Event {
    /// Parses the address. Nothing is made or opened until an end is.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open(address: &str) -> Result<Self, Error> {
        Self::open_with(address, Options::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open_with(address: &str, options: Options) -> Result<Self, Error> {
        Ok(Self::at(address.parse()?, options))
    }

    /// An event at an address that is parsed already.
    #[must_use]
    pub fn at(address: Address, options: Options) -> Self {
        Self { address, options }
    }

    /// The notifying end. A semaphore is made if it is not there.
    ///
    /// # Errors
    /// `NotFound`: the process of a signal is not there, or with
    /// [`wait`](Options#structfield.wait) off, the semaphore; `PermissionDenied`; `NotSupported`: the
    /// address carries no events; limits by name.
    pub fn notifier(&self) -> Result<Notifier, Error> {
        let flavor = (self.ends()?.notifier)(&self.setup())?;
        Ok(Notifier { flavor, address: self.address.clone() })
    }

    /// The listening end. A semaphore is made if it is not there.
    ///
    /// For signals: blocks the signal in the calling thread, for good. Open it before starting
    /// threads, which inherit that; else the signal may be delivered to another thread, and act there.
    ///
    /// # Errors
    /// As [`notifier`](Self::notifier); `NotSupported`: the signal of another process.
    pub fn listener(&self) -> Result<Listener, Error> {
        let flavor = (self.ends()?.listener)(&self.setup())?;
        Ok(Listener { flavor, address: self.address.clone() })
    }

    fn setup(&self) -> Setup {
        let (address, options) = (self.address.clone(), self.options.clone());
        Setup::new(address, options, Bytes::schema())
    }

    fn ends(&self) -> Result<&'static EventEnds, Error> {
        let transport = self.address.transport();
        let ends = transport.carries.event.as_ref();
        ends.ok_or_else(|| transport.does_not_carry("event", &self.address))
    }
}

/// That something happened, as a listener learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occurrence {
    /// Which event, where the transport tells several apart; else 0.
    pub id: u64,
    /// How many notifications it stands for; where they are [merged](Self::merged) without counting, 1.
    pub count: u64,
    /// Notifications of this kind are merged: it stands for one or more of those that came since the
    /// last one was taken. Otherwise it stands for exactly [`count`](Self::count).
    pub merged: bool,
    /// The number that was sent with it, where the transport carries one.
    pub value: Option<i32>,
    /// Who sent it, where that is known.
    pub from: Option<Origin>,
}

impl Occurrence {
    /// One of those that are counted, and nothing more is known of it.
    pub(crate) fn counted() -> Self {
        Self::of(0, 1)
    }

    /// So many of an id.
    pub(crate) fn of(id: u64, count: u64) -> Self {
        Self { id, count, merged: false, value: None, from: None }
    }
}

/// The process that notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// Its number. It may have ended since, and the number may be another's.
    pub pid: u32,
    /// Its real user's number.
    pub uid: Option<u32>,
    /// The kernel vouches for it. Otherwise the sender wrote these numbers: it is a process of the
    /// same user, or root's, in any case, since others may not signal.
    pub verified: bool,
}

/// How long closing waits for listeners to say hello, where everything is written.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// The notifying end of an event.
#[derive(Debug)]
pub struct Notifier {
    flavor: NotifierFlavor,
    address: Address,
}

impl Notifier {
    /// Notifies once. Never waits: nobody has to listen now.
    ///
    /// # Errors
    /// `LimitReached`: so many notifications wait already; `NotFound`: the process is gone, or
    /// somebody removed the semaphores; `PermissionDenied`.
    pub fn notify(&mut self) -> Result<(), Error> {
        self.flavor.notify(None)
    }

    /// Notifies once, with a number.
    ///
    /// # Errors
    /// `NotSupported`: the transport carries no numbers; else as [`notify`](Self::notify).
    pub fn notify_with(&mut self, value: i32) -> Result<(), Error> {
        if !self.flavor.has_values() {
            let scheme = self.address.scheme();
            let problem = format!("{scheme}: carries no number with an event");
            return Err(Error::new(ErrorKind::NotSupported, &self.address, problem)
                .hint("signal:PID/SIGRTMIN does"));
        }
        self.flavor.notify(Some(value))
    }

    /// Notifies once, of one of several events that the address carries: over links and `shm:`.
    ///
    /// # Errors
    /// `NotSupported`: the transport tells no events apart; else as [`notify`](Self::notify).
    pub fn notify_id(&mut self, id: u64) -> Result<(), Error> {
        self.notify_many_of(id, 1)
    }

    /// As [`notify_id`](Self::notify_id), so many times.
    ///
    /// # Errors
    /// As [`notify_id`](Self::notify_id).
    pub fn notify_many_of(&mut self, id: u64, count: u64) -> Result<(), Error> {
        if count == 0 {
            return Ok(());
        }
        match self.flavor.notify_counted(id, count) {
            Some(result) => result,
            None if id == 0 => (0..count).try_for_each(|_| self.flavor.notify(None)),
            None => {
                let scheme = self.address.scheme();
                let problem = format!("{scheme}: carries no id with an event");
                Err(Error::new(ErrorKind::NotSupported, &self.address, problem)
                    .hint("shm: and unix: do; elsewhere each event has an address of its own"))
            }
        }
    }

    /// Notifies so many times.
    ///
    /// # Errors
    /// As [`notify`](Self::notify); the message says how many were done.
    pub fn notify_many(&mut self, count: u32) -> Result<(), Error> {
        if count > 0
            && let Some(result) = self.flavor.notify_counted(0, count.into())
        {
            return result;
        }
        for done in 0..count {
            self.notify().map_err(|error| error.after(&format!("after {done} of {count}")))?;
        }
        Ok(())
    }

    /// Moves on what could not go out at once, over links: what a listener's socket had no room for, or what
    /// nobody was there for. Does not wait. Whether nothing is left: it is with the kernel.
    ///
    /// # Errors
    /// `Mismatch`, `PeerMisbehaved`, where this side connects; `System`.
    pub fn drive(&mut self) -> Result<bool, Error> {
        self.flavor.drive()
    }

    /// Waits until everything is with the kernel, so also for a first listener if there was none; at most
    /// `timeout`. Dropping a notifier does not wait.
    ///
    /// # Errors
    /// `TimedOut`; `Interrupted`; else as [`drive`](Self::drive).
    pub fn close(mut self, timeout: Option<Duration>) -> Result<(), WaitError> {
        let deadline = Deadline::from_timeout(timeout);
        while !self.flavor.drive()? {
            if deadline.passed() {
                return Err(WaitError::TimedOut);
            }
            self.flavor.wait(deadline)?;
        }
        // Who is connected and does not fit says so soon; who fits may be busy, and finds it later.
        let soon = deadline.min(Deadline::after(ANSWERS_WITHIN));
        while !self.flavor.is_confirmed() && !soon.passed() {
            self.flavor.wait(soon)?;
            self.flavor.drive()?;
        }
        Ok(())
    }

    /// How many listeners are there now; `None` where that cannot be known (signals, semaphores).
    #[must_use]
    pub fn peers(&self) -> Option<usize> {
        self.flavor.peers()
    }

    /// What listeners call it, where it is this side that binds.
    #[must_use]
    pub fn local_address(&self) -> Option<String> {
        self.flavor.local_address()
    }

    /// The address it notifies at.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// The listening end of an event. Closing it (dropping) takes nothing back.
#[derive(Debug)]
pub struct Listener {
    flavor: ListenerFlavor,
    address: Address,
}

impl Listener {
    /// Waits for a notification as long as it takes, and takes it.
    ///
    /// Nothing tells that every notifier has died. One that was taken is gone if this process dies.
    ///
    /// # Errors
    /// `Interrupted`; `Failed`, with `NotFound` when somebody removed the semaphores meanwhile.
    pub fn wait(&mut self) -> Result<Occurrence, WaitError> {
        self.flavor.wait(Deadline::NEVER)
    }

    /// As [`wait`](Self::wait), for at most `timeout`.
    ///
    /// # Errors
    /// `TimedOut`; else as [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Occurrence, WaitError> {
        self.flavor.wait(Deadline::after(timeout))
    }

    /// Takes a notification that is there; `None` when there is none.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), `Failed`.
    pub fn try_wait(&mut self) -> Result<Option<Occurrence>, Error> {
        self.flavor.try_wait()
    }

    /// How many notifiers are there now; `None` where that cannot be known (signals, semaphores).
    #[must_use]
    pub fn peers(&self) -> Option<usize> {
        self.flavor.peers()
    }

    /// The address it listens at.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What notifiers call it, where that is another name: `signal:4711/SIGUSR1` for
    /// `signal:self/SIGUSR1`.
    #[must_use]
    pub fn local_address(&self) -> Option<String> {
        self.flavor.local_address()
    }
}

impl AsFd for Listener {
    /// The wake-up descriptor: when it is readable, call [`try_wait`](Listener::try_wait) until
    /// `None`, first once before waiting for it. For semaphores it is a timer, which is set anew by
    /// each `None`: it looks every 0.2 to 10 ms.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.flavor.fd()
    }
}
