//! How long to wait, and when to look whether somebody died.

use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::io::Deadline;
use crate::pthread;

/// How often waits look whether somebody died whose death wakes nobody.
pub const LOOK: Duration = Duration::from_millis(50);

/// How long to wait: until a deadline, or not at all.
pub(super) type Patience = Option<Deadline>;

/// The error of whoever has waited long enough, if it has.
pub(super) fn out_of_patience(patience: Patience) -> Result<()> {
    match patience {
        None => Err(Error::new("sync", Errno::BUSY)),
        Some(deadline) if deadline.passed() => Err(Error::new("sync", Errno::TIMEDOUT)),
        Some(_) => Ok(()),
    }
}

/// Takes a mutex, and looks again every now and then whether it can be had.
///
/// For a wake-up can be lost: whoever is woken for a mutex, and dies before it can take it, while another
/// one takes it that did not wait, has left those who sleep on unannounced. The kernel wakes the next only
/// where nobody has the mutex then.
#[inline(always)]
pub(super) fn lock(mutex: &pthread::Mutex, patience: Patience) -> Result<pthread::Locked<'_>> {
    match mutex.try_lock() {
        Err(error) => wait_if_held(mutex, patience, error),
        found => found,
    }
}

#[cold]
fn wait_if_held(
    mutex: &pthread::Mutex,
    patience: Patience,
    error: Error,
) -> Result<pthread::Locked<'_>> {
    let found = match patience {
        Some(deadline) if error.errno() == libc::EBUSY => wait_for(mutex, deadline),
        _ => Err(error),
    };
    found.map_err(|error| match error.errno() {
        libc::EDEADLK => Error::new("lock: this thread holds it already", Errno::DEADLK),
        _ => error,
    })
}

fn wait_for(mutex: &pthread::Mutex, deadline: Deadline) -> Result<pthread::Locked<'_>> {
    loop {
        let time = deadline.remaining().map_or(LOOK, |left| left.min(LOOK));
        match mutex.lock_within(time) {
            Err(error) if error.errno() == libc::ETIMEDOUT && !deadline.passed() => {}
            found => return found,
        }
    }
}

/// Takes a mutex that protects nothing which could be left half done: whoever died with it does not
/// matter.
pub(super) fn take(mutex: &pthread::Mutex, patience: Patience) -> Result<pthread::Guard<'_>> {
    match lock(mutex, patience) {
        Ok(locked) => locked.or_repair(|| ()),
        Err(error) if [libc::ETIMEDOUT, libc::EBUSY].contains(&error.errno()) => {
            Err(Error::from_raw("sync", error.errno()))
        }
        Err(error) => Err(error),
    }
}

/// When to look whether somebody died, or to give up, whichever is first.
pub(super) fn next_look(deadline: Deadline) -> Deadline {
    deadline.min(Deadline::after(LOOK))
}
