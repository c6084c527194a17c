//! `sysv-sem:PATH`, `sysv-sem:PATH#ID`, `sysv-sem:0xKEY`: System V semaphores, which carry events.
//!
//! Source: `sysvipc(7)`, `semop(2)`. Notifying adds 1 to the semaphore `?index=` of the set (the first
//! one unless said otherwise), waiting takes 1: each notification is counted, and goes to one
//! listener, now or later. The set is made if it is not there, and stays until it is removed.
//! Nothing is undone when a process dies: a notification that was given or taken stays so.
//!
//! A set has no descriptor. A listener sleeps in the kernel, and sees within 50 ms that it is
//! cancelled; the wake-up descriptor is a timer that looks every 0.2 to 10 ms.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use switchboard_kernel as kernel;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::sysv_sem::{
    CreateOptions, Key, Operation, SemaphoreSet, VALUE_MAX, limits,
};

use super::event_flavor::{is_nothing_yet, wait_in_slices};
use super::rhythm::Rhythm;
use super::{ListenerFlavor, NotifierFlavor, Setup};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind, WaitError};
use crate::object::{cannot_unlink, no_name};
use crate::pattern::event::Occurrence;

pub(crate) fn open_notifier(setup: &Setup) -> Result<NotifierFlavor, Error> {
    Ok(NotifierFlavor::SysvSem(SysvSemNotifier(Semaphore::open(setup)?)))
}

pub(crate) fn open_listener(setup: &Setup) -> Result<ListenerFlavor, Error> {
    let rhythm = Rhythm::new(setup)?;
    Ok(ListenerFlavor::SysvSem(SysvSemListener { semaphore: Semaphore::open(setup)?, rhythm }))
}

/// Makes the set, to stay until it is removed.
pub(crate) fn create(address: &Address) -> Result<(), Error> {
    make(address, true).map(drop)
}

/// Removes the set, also for those who use it.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    let Target::SysvKey(key) = &address.target else { return Err(no_name(address)) };
    SemaphoreSet::open(key)
        .and_then(|set| set.remove())
        .map_err(|error| cannot_unlink(address, error))
}

/// Makes a set that reaches up to the address's index; that one has the address's count.
fn make(address: &Address, exclusive: bool) -> Result<SemaphoreSet, Error> {
    let index = address.query.index;
    let limit = limits();
    if u32::from(index) >= limit.max_set_size {
        let most = limit.max_set_size;
        let problem = format!("semaphore {index}: a set has {most} at most (SEMMSL), from 0");
        return Err(Error::new(ErrorKind::LimitReached, address, problem)
            .hint("raise it: the first number of sysctl kernel.sem"));
    }
    let mut values = vec![0; usize::from(index) + 1];
    values[usize::from(index)] = match u16::try_from(address.query.count.unwrap_or(0)) {
        Ok(count) if count <= VALUE_MAX => count,
        _ => {
            let problem = format!("a System V semaphore counts to {VALUE_MAX} at most");
            return Err(Error::new(ErrorKind::BadAddress, address, problem)
                .hint(format!("give 0 to {VALUE_MAX} (?value=)")));
        }
    };
    let options = CreateOptions::new()
        .values(values)
        .permissions(address.query.permissions())
        .exclusive(exclusive);
    SemaphoreSet::create(key(address)?, &options).map_err(|error| {
        let failed = Error::system(address, "cannot make the semaphores", error);
        match error.kind() {
            kernel::ErrorKind::NoSpace => failed.kinded(ErrorKind::LimitReached).hint(
                "the system has no more sets or semaphores (SEMMNI, SEMMNS): raise sysctl \
                 kernel.sem, or remove some (ipcs -s shows them)",
            ),
            kernel::ErrorKind::NotFound => {
                failed.hint("the path of a key has to exist: it is only a name, any file will do")
            }
            _ => failed,
        }
    })
}

fn key(address: &Address) -> Result<&Key, Error> {
    match &address.target {
        Target::SysvKey(key) => Ok(key),
        _ => Err(Error::new(ErrorKind::BadAddress, address, "no key")),
    }
}

/// One semaphore of a set.
#[derive(Debug)]
struct Semaphore {
    setup: Setup,
    set: SemaphoreSet,
    index: u16,
}

/// A set that another process makes just now is waited for. One of a program that is not ours may
/// never look ready, and is used as it is.
const READY_WITHIN: Duration = Duration::from_millis(100);

impl Semaphore {
    fn open(setup: &Setup) -> Result<Self, Error> {
        let address = &setup.address;
        let key = key(address)?;
        let set = match SemaphoreSet::open_ready(key, Deadline::after(READY_WITHIN)) {
            Err(error) if error.kind() == kernel::ErrorKind::TimedOut => SemaphoreSet::open(key),
            result => result,
        };
        let set = match set {
            Ok(set) => set,
            Err(error) if error.kind() == kernel::ErrorKind::NotFound && setup.options.wait => {
                make(address, false)?
            }
            Err(error) => return Err(setup.system("cannot open the semaphores", error)),
        };
        Ok(Self { setup: setup.again(), set, index: address.query.index })
    }

    fn failed(&self, doing: &str, error: kernel::Error) -> Error {
        let failed = self.setup.system(doing, error);
        match error.name() {
            "EFBIG" => failed
                .kinded(ErrorKind::NotFound)
                .hint(format!("the set has no semaphore {}; they count from 0", self.index)),
            // The set's number stands for nothing any more.
            "EIDRM" | "EINVAL" => failed.hint("somebody removed the semaphores"),
            "ERANGE" => failed
                .kinded(ErrorKind::LimitReached)
                .hint(format!("it holds {VALUE_MAX} notifications that nobody waited for")),
            _ => failed,
        }
    }

    fn taken(&self, result: kernel::Result<()>) -> Result<Option<Occurrence>, Error> {
        match result {
            Ok(()) => Ok(Some(Occurrence::counted())),
            Err(error) if is_nothing_yet(error) => Ok(None),
            Err(error) => Err(self.failed("cannot wait", error)),
        }
    }
}

#[derive(Debug)]
pub(crate) struct SysvSemNotifier(Semaphore);

impl SysvSemNotifier {
    pub(crate) fn notify(&self) -> Result<(), Error> {
        let one = [Operation::add_one(self.0.index)];
        self.0.set.try_operate(&one).map_err(|error| self.0.failed("cannot notify", error))
    }
}

#[derive(Debug)]
pub(crate) struct SysvSemListener {
    semaphore: Semaphore,
    rhythm: Rhythm,
}

impl SysvSemListener {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.rhythm.fd()
    }

    pub(crate) fn try_wait(&mut self) -> Result<Option<Occurrence>, Error> {
        let one = [Operation::take_one(self.semaphore.index)];
        let taken = self.semaphore.taken(self.semaphore.set.try_operate(&one))?;
        match taken {
            Some(_) => self.rhythm.moved(),
            None => self.rhythm.rest(),
        }
        Ok(taken)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<Occurrence, WaitError> {
        let Semaphore { setup, set, index } = &self.semaphore;
        wait_in_slices(setup, deadline, |until| {
            self.semaphore.taken(set.operate_until(&[Operation::take_one(*index)], until))
        })
    }
}
