//! Who may go in: one thread that comes all the time, and others that come seldom, one at a time.
//!
//! Source: Dekker's algorithm, as told in Dijkstra, "Cooperating sequential processes" (1965);
//! `membarrier(2)`; docs/design/shm.md, "The I/O thread".
//!
//! # Why it is correct
//! The owner stores `active` and loads `wanted`; the visitor stores `wanted` and loads `active`. If both
//! go in, each has missed the other's store. There is a barrier on each side that forbids it:
//!
//! *With membarrier* the visitor's is the system call, between its store and its load. It returns when
//! every other running thread of the process has executed a full barrier at one point of its program,
//! and who does not run has done so when it was stopped. Say that this point lies
//! - before the owner's store of `active`: then also before its load of `wanted`, which finds the
//!   visitor's store, made before the call;
//! - after the store of `active`: then the visitor's load, made after the call, finds it, or the later
//!   store by which the owner left.
//!
//! The owner only has to keep its store before its load in its *program*: a compiler fence.
//!
//! *Without*, the owner fences too (`FENCED` is up in `wanted`, which leads it off the short way), and
//! of two `SeqCst` fences one is the first: whoever fences second finds the other's store.
//!
//! *What is seen inside.* A visitor goes in when it loads 0 from `active`: from the owner's `Release`,
//! with all that the owner did. The owner goes in when it finds `WANTED` down: stored so by the last
//! visitor's `Release`, or there were none; an older 0 it cannot find, for the same reason for which it
//! cannot miss `WANTED`. Or it goes in while it keeps visitors out by the lock that they all hold.

use std::sync::atomic::{AtomicU32, Ordering, compiler_fence, fence};

/// The words of both sides.
#[derive(Debug)]
pub(super) struct Door {
    /// 1 while the owner is in. Only the owner stores it.
    active: AtomicU32,
    /// [`WANTED`] while a visitor is in or waits, which holds the visitors' lock; [`FENCED`].
    wanted: AtomicU32,
}

const WANTED: u32 = 1;
const FENCED: u32 = 2;

impl Door {
    /// Nobody is in. `fenced`: there is no membarrier.
    pub(super) fn new(fenced: bool) -> Self {
        let wanted = AtomicU32::new(if fenced { FENCED } else { 0 });
        Self { active: AtomicU32::new(0), wanted }
    }

    /// The owner: goes in, or `false`: a visitor comes first.
    #[inline]
    pub(super) fn enter(&self) -> bool {
        // Partner: the load in `is_free`. What orders it before the load is said above.
        self.active.store(1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // Partner: `done`, whose visitor's changes are seen if it is found down.
        let wanted = self.wanted.load(Ordering::Acquire);
        wanted == 0 || self.enter_fenced(wanted)
    }

    #[inline(never)]
    fn enter_fenced(&self, wanted: u32) -> bool {
        if wanted & FENCED != 0 {
            // Partner: the fence in `want`.
            fence(Ordering::SeqCst);
            if self.wanted.load(Ordering::Acquire) & WANTED == 0 {
                return true;
            }
        }
        self.leave();
        false
    }

    /// The owner: goes in while it holds the visitors' lock, before it lets go of that.
    pub(super) fn enter_alone(&self) {
        // The lock shows it to the next visitor.
        self.active.store(1, Ordering::Relaxed);
    }

    /// The owner: goes out.
    #[inline]
    pub(super) fn leave(&self) {
        // Partner: the load in `is_free`. Release: what it did comes before.
        self.active.store(0, Ordering::Release);
    }

    /// A visitor, with the visitors' lock: from now on the owner stays out, once [`Door::is_free`].
    /// `barrier` is membarrier; it says whether it worked.
    pub(super) fn want(&self, barrier: impl FnOnce() -> bool) {
        // Read-modify-writes, as in `done`, only because of FENCED.
        let before = self.wanted.fetch_or(WANTED, Ordering::Relaxed);
        if before & FENCED != 0 {
            // Partner: the fence in `enter_fenced`.
            fence(Ordering::SeqCst);
        } else if !barrier() {
            self.wanted.fetch_or(FENCED, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
    }

    /// A visitor, after [`Door::want`]: whether the owner is out.
    pub(super) fn is_free(&self) -> bool {
        // Partner: the store in `leave`.
        self.active.load(Ordering::Acquire) == 0
    }

    /// A visitor: goes out.
    pub(super) fn done(&self) {
        // Partner: the loads in `enter` and `enter_fenced`. Release: what it did comes before.
        self.wanted.fetch_and(!WANTED, Ordering::Release);
    }
}
