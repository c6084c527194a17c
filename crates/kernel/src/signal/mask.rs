//! Sets of signals, and which ones a thread has blocked.
//!
//! Source: `sigsetops(3)`, `pthread_sigmask(3)`, `sigpending(2)`.

#![allow(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

use rustix::io::Errno;

use super::Signal;
use crate::error::{Error, OfCall, Result, checked};

/// Some signals.
///
/// ```
/// use switchboard_kernel::signal::{Signal, SignalSet};
///
/// let set = SignalSet::from([Signal::INT, Signal::TERM]);
/// assert!(set.contains(Signal::INT) && !set.contains(Signal::HUP));
/// ```
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// None.
    #[must_use]
    pub fn empty() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset writes all of the set it is given, and cannot fail.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: written just now.
        Self(unsafe { set.assume_init() })
    }

    /// All there are. Blocking them leaves out SIGKILL and SIGSTOP, without saying so.
    #[must_use]
    pub fn all() -> Self {
        Signal::all().collect()
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, signal: Signal) -> Self {
        // SAFETY: the set was made by sigemptyset; a wrong number would be an error, not more.
        unsafe { libc::sigaddset(&raw mut self.0, signal.number()) };
        self
    }

    /// These, except one.
    #[must_use]
    pub fn without(mut self, signal: Signal) -> Self {
        // SAFETY: as in `with`.
        unsafe { libc::sigdelset(&raw mut self.0, signal.number()) };
        self
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, signal: Signal) -> bool {
        // SAFETY: as in `with`.
        unsafe { libc::sigismember(&raw const self.0, signal.number()) == 1 }
    }

    /// They, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = Signal> + '_ {
        Signal::all().filter(|signal| self.contains(*signal))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn as_raw(&self) -> *const libc::sigset_t {
        &raw const self.0
    }
}

impl Default for SignalSet {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Signal> for SignalSet {
    fn from(signal: Signal) -> Self {
        Self::empty().with(signal)
    }
}

impl<const N: usize> From<[Signal; N]> for SignalSet {
    fn from(signals: [Signal; N]) -> Self {
        signals.into_iter().collect()
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> Self {
        signals.into_iter().fold(Self::empty(), Self::with)
    }
}

impl PartialEq for SignalSet {
    fn eq(&self, other: &Self) -> bool {
        Signal::all().all(|signal| self.contains(signal) == other.contains(signal))
    }
}

impl Eq for SignalSet {}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// `pthread_sigmask(SIG_BLOCK)`: this thread is interrupted by these signals no more; they wait,
/// pending, until they are taken by [`wait`](super::wait) or a
/// [signalfd](crate::signalfd), or unblocked.
///
/// Only this thread: a signal sent to the process goes to any thread that does not block it, and
/// does there what it always did. So a program blocks what it wants to take *before* it starts
/// threads, which inherit the mask. A program that is executed inherits it too (but
/// [`Spawn`](crate::process::Spawn) empties it).
///
/// Blocking SIGKILL and SIGSTOP has no effect. Blocked SIGSEGV, SIGBUS, SIGFPE and SIGILL end the
/// process when its own instruction causes them.
///
/// # Errors
/// None that a correct program meets.
pub fn block(set: &SignalSet) -> Result<MaskGuard> {
    change(libc::SIG_BLOCK, set)
}

/// `pthread_sigmask(SIG_UNBLOCK)`: the opposite of [`block`]. Those that are pending act at once.
///
/// # Errors
/// None that a correct program meets.
pub fn unblock(set: &SignalSet) -> Result<MaskGuard> {
    change(libc::SIG_UNBLOCK, set)
}

/// `pthread_sigmask()`: which signals this thread has blocked.
#[must_use]
pub fn blocked() -> SignalSet {
    let mut current = SignalSet::empty();
    // SAFETY: without a new set this only writes the current one, which is a valid place for it.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, core::ptr::null(), &raw mut current.0) };
    current
}

/// Blocks nothing, in this thread. Safe to call between fork and exec.
pub(crate) fn unblock_all() {
    let none = SignalSet::empty();
    // SAFETY: the set is valid; the old one is not asked for. It is safe in a signal handler.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_raw(), core::ptr::null_mut()) };
}

/// `sigpending()`: which blocked signals wait for this thread or for the process. How often, and
/// with which values, only taking them tells.
///
/// # Errors
/// None that a correct program meets.
pub fn pending() -> Result<SignalSet> {
    let mut set = SignalSet::empty();
    // SAFETY: the set is a valid place to write one.
    checked(unsafe { libc::sigpending(&raw mut set.0) }).of("sigpending")?;
    Ok(set)
}

/// Undoes one [`block`] or [`unblock`] when it is dropped, in the thread that called it.
///
/// It gives back the state of exactly those signals that it changed. What is pending when they are
/// unblocked acts at once: on most signals the process ends. Take what is pending first, or
/// [`MaskGuard::keep`] the mask.
#[derive(Debug)]
#[must_use = "the mask is restored when this is dropped"]
pub struct MaskGuard {
    undo: libc::c_int,
    changed: SignalSet,
    /// The mask is the thread's, so the guard stays in it.
    not_send: PhantomData<*const ()>,
}

impl MaskGuard {
    /// Leaves the mask as it is now, for good.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for MaskGuard {
    fn drop(&mut self) {
        // SAFETY: the set is valid; the old one is not asked for.
        unsafe { libc::pthread_sigmask(self.undo, self.changed.as_raw(), core::ptr::null_mut()) };
    }
}

fn change(how: libc::c_int, set: &SignalSet) -> Result<MaskGuard> {
    let mut before = SignalSet::empty();
    // SAFETY: both sets are valid.
    let error = unsafe { libc::pthread_sigmask(how, set.as_raw(), &raw mut before.0) };
    if error != 0 {
        return Err(Error::new("pthread_sigmask", Errno::from_raw_os_error(error)));
    }
    let blocks = how == libc::SIG_BLOCK;
    let changed = set.iter().filter(|signal| before.contains(*signal) != blocks).collect();
    let undo = if blocks { libc::SIG_UNBLOCK } else { libc::SIG_BLOCK };
    Ok(MaskGuard { undo, changed, not_send: PhantomData })
}
