//! `sem:/NAME`: POSIX named semaphores, which carry events.
//!
//! Source: `sem_overview(7)`. Notifying is `sem_post(3)`, waiting is `sem_wait(3)`: each notification
//! is counted, and goes to one listener, now or later. The semaphore is made if it is not there, and
//! stays until it is unlinked: it outlives its processes, not a reboot.
//!
//! A semaphore has no descriptor. A listener sleeps in the kernel, and sees within 50 ms that it is
//! cancelled; the wake-up descriptor is a timer that looks every 0.2 to 10 ms.

use std::os::fd::BorrowedFd;

use switchboard_kernel as kernel;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::posix_sem::{self, CreateOptions, Semaphore, VALUE_MAX};

use super::event_flavor::{is_nothing_yet, wait_in_slices};
use super::rhythm::Rhythm;
use super::{ListenerFlavor, NotifierFlavor, Setup};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind, WaitError};
use crate::object::{cannot_unlink, no_name};
use crate::pattern::event::Occurrence;

pub(crate) fn open_notifier(setup: &Setup) -> Result<NotifierFlavor, Error> {
    let semaphore = open(setup)?;
    Ok(NotifierFlavor::Sem(SemNotifier { setup: setup.again(), semaphore }))
}

pub(crate) fn open_listener(setup: &Setup) -> Result<ListenerFlavor, Error> {
    let semaphore = open(setup)?;
    let rhythm = Rhythm::new(setup)?;
    Ok(ListenerFlavor::Sem(SemListener { setup: setup.again(), semaphore, rhythm }))
}

/// Makes the semaphore, to stay until it is unlinked.
pub(crate) fn create(address: &Address) -> Result<(), Error> {
    make(address, true).map(drop)
}

/// Removes its name.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    let Target::QueueName(name) = &address.target else { return Err(no_name(address)) };
    posix_sem::unlink(name).map_err(|error| cannot_unlink(address, error))
}

fn make(address: &Address, exclusive: bool) -> Result<Semaphore, Error> {
    let options = CreateOptions::new()
        .value(address.query.count.unwrap_or(0))
        .permissions(address.query.permissions())
        .exclusive(exclusive);
    Semaphore::create(name(address)?, &options).map_err(|error| {
        let failed = Error::system(address, "cannot make the semaphore", error);
        match error.kind() {
            kernel::ErrorKind::NoSpace => failed
                .hint("/dev/shm is full: see df /dev/shm, and its size in mount(8) and fstab(5)"),
            _ => failed,
        }
    })
}

fn open(setup: &Setup) -> Result<Semaphore, Error> {
    match Semaphore::open(name(&setup.address)?) {
        Ok(semaphore) => Ok(semaphore),
        Err(error) if error.kind() == kernel::ErrorKind::NotFound => {
            if setup.options.wait {
                return make(&setup.address, false);
            }
            let problem = "there is no semaphore of this name";
            Err(Error::new(ErrorKind::NotFound, &setup.address, problem))
        }
        Err(error) => Err(setup.system("cannot open the semaphore", error)),
    }
}

fn name(address: &Address) -> Result<&str, Error> {
    match &address.target {
        Target::QueueName(name) => Ok(name),
        _ => Err(Error::new(ErrorKind::BadAddress, address, "no semaphore's name")),
    }
}

#[derive(Debug)]
pub(crate) struct SemNotifier {
    setup: Setup,
    semaphore: Semaphore,
}

impl SemNotifier {
    pub(crate) fn notify(&self) -> Result<(), Error> {
        self.semaphore.post().map_err(|error| {
            let failed = self.setup.system("cannot notify", error);
            if error.name() != "EOVERFLOW" {
                return failed;
            }
            let hint = format!("it holds {VALUE_MAX} notifications that nobody waited for");
            failed.kinded(ErrorKind::LimitReached).hint(hint)
        })
    }
}

#[derive(Debug)]
pub(crate) struct SemListener {
    setup: Setup,
    semaphore: Semaphore,
    rhythm: Rhythm,
}

impl SemListener {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.rhythm.fd()
    }

    pub(crate) fn try_wait(&mut self) -> Result<Option<Occurrence>, Error> {
        let taken = self.taken(self.semaphore.try_wait())?;
        match taken {
            Some(_) => self.rhythm.moved(),
            None => self.rhythm.rest(),
        }
        Ok(taken)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<Occurrence, WaitError> {
        wait_in_slices(&self.setup, deadline, |until| self.taken(self.semaphore.wait_until(until)))
    }

    fn taken(&self, result: kernel::Result<()>) -> Result<Option<Occurrence>, Error> {
        match result {
            Ok(()) => Ok(Some(Occurrence::counted())),
            Err(error) if is_nothing_yet(error) => Ok(None),
            Err(error) => Err(self.setup.system("cannot wait", error)),
        }
    }
}
