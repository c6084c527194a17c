//! A value that one thread uses all the time and others now and then, without an atomic
//! read-modify-write or a fence on the one thread's side.
//!
//! Source: `membarrier(2)`; Russell and Detlefs, "Eliminating synchronization-related atomic operations
//! with biased locking and bulk rebiasing" (OOPSLA 2006), for the idea; `biased/door.rs` says why it is
//! correct.
//!
//! The *owner* goes in and out by two plain stores and a load. A *visitor* makes all threads of the
//! process execute a barrier (a system call: microseconds, and an interruption of those that run),
//! waits until the owner is out, and keeps it out meanwhile. So this is for what is used a million times
//! a second by its owner, and a few times by others.
//!
//! *What blocks.* The owner, while a visitor is in. A visitor, while another is in, or the owner; so the
//! owner does not sleep inside. Visitors look for the owner's leaving again and again, at last each
//! millisecond: an owner that is preempted costs them time, not the processor.
//!
//! *Not from inside.* Whoever is in, be it as the owner or as a visitor, and calls [`Visitor::visit`] or
//! [`Owner::enter`], or drops the owner, waits for itself for ever.
//!
//! *Panics* inside end the stay as usual. The value is as it was left: there is no poisoning.
//!
//! *Without membarrier* (a kernel without it, a filter of system calls) both sides use fences: slower for
//! the owner, by some 15 ns. This is decided when the process makes its first value; if the
//! call is refused later on, the first visitor of each value pauses for 10 ms, and fences are used from
//! then on.
//!
//! *Children.* The threads that may be in are not there in a child of `fork`: use nothing of this there
//! ([`crate::fork`]).
//!
//! *Measured* on a Xeon of 2023 with two processors in use by others: a call that goes in, adds and goes
//! out 2.5 ns, the same without going in 2.2 ns, with fences 18 ns, with a `std` mutex 25 ns. A visit
//! 0.3 µs when nobody else runs, 0.4 to 1 µs while the owner runs (median), one in a hundred 10 ms, when
//! the owner was preempted inside.

#![allow(unsafe_code)]

mod door;

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use door::Door;

use crate::membarrier;

/// The two ways to a value.
///
/// ```
/// let (mut owner, visitor) = switchboard_kernel::biased::new(vec![1]);
/// owner.enter().push(2);
///
/// let other = std::thread::spawn(move || {
///     let len = visitor.visit(|value| value.len());
///     (len, visitor)
/// });
/// let (len, visitor) = other.join().expect("no panic");
/// assert_eq!(len, Some(2));
///
/// drop(owner);
/// assert_eq!(visitor.visit(|value| value.len()), None);
/// ```
#[must_use]
pub fn new<T: Send>(value: T) -> (Owner<T>, Visitor<T>) {
    let shared = Arc::new(Shared {
        door: Door::new(!membarrier::has_own_threads()),
        value: UnsafeCell::new(ManuallyDrop::new(value)),
        visitors: Mutex::new(Visitors { may_come: true }),
    });
    (Owner { shared: Arc::clone(&shared) }, Visitor { shared })
}

/// Whether owners of this process go without fences, as far as is known: the first value decides.
#[must_use]
pub fn has_membarrier() -> bool {
    membarrier::has_own_threads()
}

/// Who uses the value all the time. It may be moved to another thread, and there is one.
///
/// Dropping it waits for a visitor that is in, and drops the value.
pub struct Owner<T> {
    shared: Arc<Shared<T>>,
}

/// Who uses the value now and then. A clone visits the same value.
pub struct Visitor<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    door: Door,
    value: UnsafeCell<ManuallyDrop<T>>,
    /// Held by a visitor from before it wants to come in until after it is out.
    visitors: Mutex<Visitors>,
}

struct Visitors {
    /// The owner, and with it the value, is there.
    may_come: bool,
}

// SAFETY: the door lets in one thread at a time, and shows it what the one before did. So the value is
// only ever sent from thread to thread.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Owner<T> {
    /// Goes in. It is out again when the result is dropped.
    ///
    /// Blocks while a visitor is in.
    #[inline]
    pub fn enter(&mut self) -> Entered<'_, T> {
        if !self.shared.door.enter() {
            self.enter_after_visitor();
        }
        Entered { shared: &self.shared, _value: PhantomData }
    }

    #[cold]
    fn enter_after_visitor(&self) {
        // The visitor has it until it is out. While this thread has it, no other comes.
        let _visitors = self.shared.visitors.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.door.enter_alone();
    }
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        // It is out, but perhaps an `Entered` was forgotten.
        self.shared.door.leave();
        let mut visitors = self.shared.visitors.lock().unwrap_or_else(PoisonError::into_inner);
        visitors.may_come = false;
        drop(visitors);
        // SAFETY: the owner is out for good, no visitor is in, and none comes in from now on: each looks
        // at `may_come`, with the lock, before it touches the value.
        let value = unsafe { &mut *self.shared.value.get() };
        // SAFETY: this happens once, and nobody uses the value afterwards.
        unsafe { ManuallyDrop::drop(value) };
    }
}

/// The owner is in.
pub struct Entered<'a, T> {
    shared: &'a Shared<T>,
    /// It is shared with other threads only if the value may be.
    _value: PhantomData<&'a mut T>,
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the owner is in, so no visitor is; there is one owner, which this borrows.
        unsafe { &*self.shared.value.get() }
    }
}

impl<T> DerefMut for Entered<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.shared.value.get() }
    }
}

impl<T> Drop for Entered<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.shared.door.leave();
    }
}

impl<T> Visitor<T> {
    /// Goes in, does this, and goes out; `None`, and nothing was done, if the owner was dropped.
    ///
    /// Blocks while another visitor or the owner is in. The owner waits until it is done: be quick.
    pub fn visit<R>(&self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        let visitors = self.shared.visitors.lock().unwrap_or_else(PoisonError::into_inner);
        if !visitors.may_come {
            return None;
        }
        // Dropped before the lock, also by a panic.
        let visit = Visit::begin(&self.shared.door);
        // SAFETY: this visitor has the lock, so no other is in; it is in, so the owner is not, and stays
        // out until `visit` is dropped. The owner has not been dropped, and waits for the lock if it is.
        let value: &mut T = unsafe { &mut *self.shared.value.get() };
        let result = act(value);
        drop(visit);
        drop(visitors);
        Some(result)
    }
}

impl<T> Clone for Visitor<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// A visitor is in.
struct Visit<'a>(&'a Door);

impl<'a> Visit<'a> {
    fn begin(door: &'a Door) -> Self {
        door.want(membarrier::own_threads);
        let visit = Self(door);
        let mut looks = 0;
        while !door.is_free() {
            pause(looks);
            looks += 1;
        }
        visit
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.done();
    }
}

/// Before looking again: first at once, then after others ran, then after a sleep of 50 µs to 1 ms.
fn pause(looks: u32) {
    const SPINS: u32 = 100;
    const YIELDS: u32 = 20;
    if looks < SPINS {
        std::hint::spin_loop();
    } else if looks < SPINS + YIELDS {
        std::thread::yield_now();
    } else {
        let doublings = (looks - SPINS - YIELDS).min(5);
        std::thread::sleep(Duration::from_micros(50 << doublings).min(Duration::from_millis(1)));
    }
}

impl<T> fmt::Debug for Owner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Visitor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visitor").finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Entered<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
