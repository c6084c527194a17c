//! The C library's mutex and condition variable in shared memory, so that a C program and this one
//! share them. Semaphores are in [`crate::posix_sem`].
//!
//! Source: `pthread_mutexattr_setrobust(3)`, `pthread_mutex_consistent(3)`,
//! `pthread_mutexattr_setpshared(3)`, `pthread_mutex_lock(3p)`, `pthread_cond_timedwait(3p)`; layout
//! as in the GNU C library.
//!
//! The objects lie in a [`crate::shared_words::Slot`], as [`OBJECT_BYTES`] says: the `pthread_mutex_t`
//! or `pthread_cond_t` at offset 0, then four words by which an object is told from other bytes and
//! a finished one from one that is being made.
//!
//! *Death.* A mutex is always robust: when a process dies with it, however it dies, the kernel
//! passes it on, and the next to lock it is told ([`Locked::OwnerDied`]). A condition variable is
//! **not** robust, see [`Condition`].
//!
//! *Trust.* These objects are made for programs that trust each other. Whoever can write the memory
//! can make the C library of the others wait for ever, or crash: a held robust mutex has pointers of
//! its holder in it.
//!
//! *Signals.* No wait here is ended by a signal, whatever handler runs.

mod condition;
mod mutex;

pub use crate::shared_words::OBJECT_BYTES;
pub use condition::Condition;
pub use mutex::{Guard, Locked, Mutex, MutexOptions, Orphaned};
