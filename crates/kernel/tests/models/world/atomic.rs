//! Words as loom has them, on which threads can sleep.
//!
//! Loom takes a `SeqCst` access for one that acquires and releases, and knows the single total order
//! only of fences. That is weaker than what the language promises, and enough for most algorithms here.
//! A model of one that relies on the promise says so ([`keep_total_order`]). Then each `SeqCst` access has a
//! fence, before it or after it: the two ways in which compilers make such accesses for processors that
//! have nothing better. Each way is a little stronger than the promise, in another place. So such a model
//! is run both ways, and what is weakened by mistake is noticed by one of them.
//!
//! Source: Batty et al., "Clarifying and compiling C/C++ concurrency", POPL 2012; Lahav et al., "Repairing
//! sequential consistency in C/C++11", PLDI 2017.

use core::cell::Cell;

pub(crate) use core::sync::atomic::{Ordering, compiler_fence};
pub(crate) use loom::sync::atomic::fence;

use super::death::goes_on;
use super::futex::Sleepers;

/// Where a `SeqCst` access has a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fences {
    None,
    Before,
    After,
}

struct Chosen(Cell<Fences>);

loom::lazy_static! {
    static ref CHOSEN: Chosen = Chosen(Cell::new(Fences::None));
}

/// From now on in this run of the model.
pub(crate) fn keep_total_order(by: Fences) {
    CHOSEN.0.set(by);
}

/// A word, and who sleeps on it.
#[derive(Debug)]
pub(crate) struct AtomicU32 {
    word: loom::sync::atomic::AtomicU32,
    sleepers: Sleepers,
}

impl AtomicU32 {
    pub(crate) fn new(value: u32) -> Self {
        let word = loom::sync::atomic::AtomicU32::new(value);
        Self { word, sleepers: Sleepers::default() }
    }

    pub(super) fn sleepers(&self) -> &Sleepers {
        &self.sleepers
    }

    /// What is there now or was there before, without a step.
    pub(super) fn glimpse(&self) -> u32 {
        self.word.load(Ordering::Relaxed)
    }

    /// Changed by the kernel.
    pub(super) fn mark(&self, bits: u32) -> u32 {
        self.word.fetch_or(bits, Ordering::SeqCst)
    }

    /// Changed without a step of its own.
    pub(super) fn leave(&self, value: u32) -> u32 {
        self.word.swap(value, Ordering::Release)
    }

    pub(crate) fn load(&self, order: Ordering) -> u32 {
        fenced(order, 0, || self.word.load(order))
    }

    pub(crate) fn store(&self, value: u32, order: Ordering) {
        fenced(order, (), || self.word.store(value, order));
    }

    pub(crate) fn swap(&self, value: u32, order: Ordering) -> u32 {
        fenced(order, 0, || self.word.swap(value, order))
    }

    pub(crate) fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        fenced(order, 0, || self.word.fetch_add(value, order))
    }

    pub(crate) fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        fenced(order, 0, || self.word.fetch_or(bits, order))
    }

    pub(crate) fn fetch_and(&self, bits: u32, order: Ordering) -> u32 {
        fenced(order, 0, || self.word.fetch_and(bits, order))
    }

    pub(crate) fn fetch_max(&self, value: u32, order: Ordering) -> u32 {
        fenced(order, 0, || self.word.fetch_max(value, order))
    }

    pub(crate) fn compare_exchange(
        &self,
        old: u32,
        new: u32,
        order: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        fenced(order, Err(0), || self.word.compare_exchange(old, new, order, failure))
    }

    pub(crate) fn fetch_update(
        &self,
        order: Ordering,
        read: Ordering,
        change: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, u32> {
        fenced(order, Err(0), || self.word.fetch_update(order, read, change))
    }
}

/// A step, with its fence. A dead thread makes none and gets `nothing`.
fn fenced<R>(order: Ordering, nothing: R, access: impl FnOnce() -> R) -> R {
    if !goes_on() {
        return nothing;
    }
    let fences = if order == Ordering::SeqCst { CHOSEN.0.get() } else { Fences::None };
    if fences == Fences::Before {
        fence(Ordering::SeqCst);
    }
    let result = access();
    if fences == Fences::After {
        fence(Ordering::SeqCst);
    }
    result
}
