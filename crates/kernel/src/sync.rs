//! Locks, conditions and the like between processes, that go on when somebody dies.
//!
//! Source: `pthread_mutexattr_setrobust(3)`, `get_robust_list(2)`, the kernel's
//! `Documentation/locking/robust-futexes.rst`, `futex(2)`; Hoare, "Monitors", CACM 17 (1974). The layout
//! and what happens at each death: `docs/design/sync.md`.
//!
//! Every object here is made of robust mutexes of the C library ([`crate::pthread`]) and words that one
//! store changes from one valid state to another. The kernel releases what a dead thread held; nothing
//! is told from process ids or heartbeats.
//!
//! | | for |
//! |---|---|
//! | [`Mutex`] | one at a time; a C program can share it |
//! | [`Condvar`] | waiting, with a mutex, for something that others change |
//! | [`RwLock`] | many readers or one writer |
//! | [`Permits`] | at most N at a time; the permits of the dead come back |
//! | [`Semaphore`] | a count that anybody may raise and lower |
//! | [`Barrier`] | a group that goes on together; the dead are not waited for |
//! | [`Once`] | doing something once, again if whoever did it died doing so |
//! | [`Monitor`] | data, its mutex and its condition in one: changes are made whole or not at all |
//!
//! [`Shared`] says how all of them are made and found: in new memory, by name, or in memory that is
//! mapped anyway. [`LockOrder`] keeps a program from locking in an order that could hang.
//!
//! *Death.* Whoever waits goes on within [`LOOK`] and what it takes to be scheduled, whatever instruction
//! another was killed at. Where what a lock protects may be half done, the next one is told
//! ([`Locked::OwnerDied`]).
//!
//! *Threads.* A lock, a permit, a place is held by a thread: guards do not go to other threads, and a
//! thread that ends with one counts as dead.
//!
//! *Fairness.* Who waits is served about in turn, and may be overtaken by somebody who comes just when
//! a lock is released: so locks keep their speed under contention. A writer that waits keeps new readers
//! out.
//!
//! *Waiting.* All waits sleep in the kernel. Waits for more than one mutex also look every [`LOOK`] whether
//! somebody died.
//!
//! *Trust.* These are for processes that trust each other: whoever may write the memory can make the
//! others wait for ever.
//!
//! *Signals.* No wait here is ended by a signal.

mod barrier;
pub mod bell;
mod condvar;
mod locked;
mod monitor;
mod mutex;
mod name;
mod object;
mod once;
mod order;
mod permits;
mod rw_lock;
mod seats;
mod semaphore;

use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::io::Deadline;
use crate::pthread;

pub use barrier::{Barrier, Crossed, Member};
pub use condvar::Condvar;
pub use locked::{Locked, Orphaned, Repairable};
pub use monitor::{Entry, Monitor};
pub use mutex::{Mutex, MutexGuard};
pub use name::{FREE_FROM, NAME_MAX, Name};
pub use object::{NameOfObject, Shared};
pub use once::Once;
pub use order::LockOrder;
pub use permits::{Permit, Permits};
pub use rw_lock::{ReadGuard, RwLock, WriteGuard};
pub use semaphore::Semaphore;

pub use crate::pthread::MutexOptions;

/// How often waits look whether somebody died whose death wakes nobody.
pub const LOOK: Duration = Duration::from_millis(50);

/// How long to wait: until a deadline, or not at all.
type Patience = Option<Deadline>;

/// The error of whoever has waited long enough, if it has.
fn out_of_patience(patience: Patience) -> Result<()> {
    match patience {
        None => Err(Error::new("sync", Errno::BUSY)),
        Some(deadline) if deadline.passed() => Err(Error::new("sync", Errno::TIMEDOUT)),
        Some(_) => Ok(()),
    }
}

/// Takes a mutex that protects nothing which could be left half done: whoever died with it does not
/// matter.
fn take(mutex: &pthread::Mutex, patience: Patience) -> Result<pthread::Guard<'_>> {
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
fn next_look(deadline: Deadline) -> Deadline {
    deadline.min(Deadline::after(LOOK))
}
