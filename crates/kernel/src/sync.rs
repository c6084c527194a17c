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
//! *Fairness.* Those who wait are served about in turn, but may be overtaken, again and again, by who comes
//! just when a lock is released: so locks keep their speed under contention. A writer that waits keeps new
//! readers out, and who waits for permits those who come later.
//!
//! *Fork.* Copies of guards, permits and members in a child that does not call `execve` are of no effect: to
//! drop them there lets go of nothing.
//!
//! *Waiting.* All waits sleep in the kernel, and also look every [`LOOK`] whether somebody died.
//!
//! *Trust.* These are for processes that trust each other: whoever may write the memory can make the
//! others wait for ever.
//!
//! *Signals.* No wait here is ended by a signal.

mod barrier;
mod bell;
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
mod waiting;

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
pub use waiting::LOOK;

pub use crate::pthread::MutexOptions;

use waiting::{Patience, lock, next_look, out_of_patience, take};
