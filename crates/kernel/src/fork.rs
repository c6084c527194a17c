//! Noticing that this process is a child of `fork`, in which threads, and memory that is not for
//! children, are missing.
//!
//! Source: `fork(2)`, `pthread_atfork(3)`, `madvise(2)` (`MADV_DONTFORK`).
//!
//! Whoever keeps something that a child must not use notes the number that [`watch`] gives, and
//! compares it with [`generation`] once per operation: one load, no system call.
//!
//! # Limits
//! Seen is the C library's `fork`. A raw `clone` without `CLONE_VM` runs none of its handlers, and
//! the child takes itself for its parent. `vfork` and `posix_spawn` change nothing: until `execve`
//! the child has the parent's memory.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::error::{Error, Result};

/// Changed by [`forked`] alone, in a child that has one thread: nothing is ordered by it.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// `pthread_atfork(child)`, once for each process and its children: from now on, a child of `fork`
/// has another [`generation`]. Returns this process's. Never blocks.
///
/// ```
/// use switchboard_kernel::fork;
///
/// let own = fork::watch()?;
/// assert_eq!(fork::generation(), own);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Errors
/// `ENOMEM`: no memory for the handler.
pub fn watch() -> Result<u32> {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    // No lock: a child might find it taken for ever. Two threads that come here at once register the
    // handler twice, and a child counts by two.
    if !WATCHED.load(Ordering::Relaxed) {
        // SAFETY: the handler does nothing but an addition to a static.
        let result = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        if result != 0 {
            return Err(Error::from_raw("pthread_atfork", result));
        }
        WATCHED.store(true, Ordering::Relaxed);
    }
    Ok(generation())
}

/// How often a process has forked on the way to this one, from the first [`watch`] on: in a child
/// never what it is in the parent.
#[inline]
#[must_use]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// The process that opened something. What a child of `fork` has is a copy of it, which is one with its parent's in all that the
/// kernel keeps: a lock, a place in a stream, a name.
///
/// ```
/// use switchboard_kernel::fork::Opener;
///
/// assert!(Opener::this()?.is_here());
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener(u32);

impl Opener {
    /// This process.
    ///
    /// # Errors
    /// As [`watch`].
    pub fn this() -> Result<Self> {
        watch().map(Self)
    }

    /// Whether it is this one, and this is no child of its.
    #[inline]
    #[must_use]
    pub fn is_here(self) -> bool {
        generation() == self.0
    }
}

/// Runs in the child, in the thread that called `fork`, before `fork` returns.
extern "C" fn forked() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}
