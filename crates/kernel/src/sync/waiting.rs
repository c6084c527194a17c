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

/// Takes a mutex that protects nothing which could be left half done: whoever died with it does not
/// matter.
pub(super) fn take(mutex: &pthread::Mutex, patience: Patience) -> Result<pthread::Guard<'_>> {
    let locked = match patience {
        None => mutex.try_lock(),
        Some(deadline) => mutex.lock_until(deadline),
    };
    match locked {
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
