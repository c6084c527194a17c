//! The C library's robust mutex, as far as the algorithms see it.
//!
//! Source: glibc's `nptl/pthread_mutex_lock.c` and `pthread_mutex_trylock.c`, the robust kinds: one
//! compare-and-exchange that acquires, one exchange that releases. It is restated, with less: no owner's
//! id, no error checking, no state for a mutex that was given up. Where glibc is stronger, so as to look
//! at the word again after an attempt failed, this is not: an attempt may fail for an old value.

use core::cell::RefCell;
use core::marker::PhantomData;
use core::time::Duration;

use switchboard_kernel::{Error, Result};

use super::atomic::{AtomicU32, Ordering};
use super::death::goes_on;
use super::futex::{self, Waited};
use super::shared_words::Slot;
use crate::io::Deadline;
use crate::real_std::sync::Arc;

pub(crate) use switchboard_kernel::pthread::OBJECT_BYTES;

const FREE: u32 = 0;
const HELD: u32 = 1;
const WAITED_FOR: u32 = 2;
const OWNER_DIED: u32 = 4;

/// How a mutex is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MutexOptions {
    pub(crate) priority_inheritance: bool,
}

impl MutexOptions {
    pub(crate) fn new() -> Self {
        Self { priority_inheritance: false }
    }
}

loom::thread_local! {
    /// The robust list of a thread.
    static ROBUST_LIST: RefCell<Vec<Arc<AtomicU32>>> = RefCell::new(Vec::new());
    /// The mutex that it is about to take.
    static PENDING: RefCell<Option<Arc<AtomicU32>>> = RefCell::new(None);
}

/// What the kernel does when this thread dies.
pub(super) fn die() {
    for word in ROBUST_LIST.with(RefCell::take) {
        if word.mark(OWNER_DIED) & WAITED_FOR != 0 {
            futex::wake_now(&word, 1);
        }
    }
    // It may have been woken to take this one, and another sleeps on. If yet another has taken it, nobody
    // is woken.
    if let Some(word) = PENDING.with(RefCell::take)
        && (word.glimpse() & HELD == 0 || word.glimpse() & OWNER_DIED != 0)
    {
        futex::wake_now(&word, 1);
    }
}

#[derive(Debug)]
pub(crate) struct Mutex {
    word: Arc<AtomicU32>,
}

impl Mutex {
    pub(crate) fn create(_: Slot, _: MutexOptions) -> Result<Self> {
        Ok(Self { word: Arc::new(AtomicU32::new(FREE)) })
    }

    /// All threads of a model use the handle that made it.
    pub(crate) fn open(_: Slot) -> Result<Self> {
        Err(Error::from_raw("pthread_mutex_init", libc::ENOSYS))
    }

    /// Until it is woken; in a model with deaths for some time, as waits are there.
    pub(crate) fn lock_within(&self, time: Duration) -> Result<Locked<'_>> {
        if !goes_on() {
            return Err(Error::from_raw("pthread_mutex_clocklock", libc::EOWNERDEAD));
        }
        let mut others = 0;
        PENDING.with(|pending| pending.replace(Some(Arc::clone(&self.word))));
        loop {
            let found = self.word.load(Ordering::Relaxed);
            if found & HELD != 0 && found & OWNER_DIED == 0 {
                let marked = found | WAITED_FOR;
                if found == marked || self.replace(found, marked, Ordering::Relaxed) {
                    if futex::wait(&self.word, marked, Deadline::after(time))? == Waited::TimedOut {
                        return Err(Error::from_raw("pthread_mutex_clocklock", libc::ETIMEDOUT));
                    }
                    others = WAITED_FOR;
                }
            } else if self.replace(found, HELD | others | found & WAITED_FOR, Ordering::Acquire) {
                return Ok(self.taken(found));
            }
        }
    }

    pub(crate) fn try_lock(&self) -> Result<Locked<'_>> {
        let found = self.word.load(Ordering::Relaxed);
        let is_free = found & HELD == 0 || found & OWNER_DIED != 0;
        if is_free && self.replace(found, HELD | found & WAITED_FOR, Ordering::Acquire) {
            return Ok(self.taken(found));
        }
        Err(Error::from_raw("pthread_mutex_trylock", libc::EBUSY))
    }

    pub(crate) fn is_held(&self) -> bool {
        self.word.load(Ordering::Relaxed) != FREE
    }

    pub(crate) fn is_orphaned(&self) -> bool {
        self.word.load(Ordering::Acquire) & OWNER_DIED != 0
    }

    fn replace(&self, old: u32, new: u32, order: Ordering) -> bool {
        self.word.compare_exchange(old, new, order, Ordering::Relaxed).is_ok()
    }

    fn taken(&self, found: u32) -> Locked<'_> {
        ROBUST_LIST.with(|list| list.borrow_mut().push(Arc::clone(&self.word)));
        PENDING.with(RefCell::take);
        let guard = Guard { mutex: self, of_this_thread: PhantomData };
        if found & OWNER_DIED == 0 {
            Locked::Consistent(guard)
        } else {
            Locked::OwnerDied(Orphaned { guard })
        }
    }
}

pub(crate) enum Locked<'a> {
    Consistent(Guard<'a>),
    OwnerDied(Orphaned<'a>),
}

impl<'a> Locked<'a> {
    pub(crate) fn or_repair(self, repair: impl FnOnce()) -> Result<Guard<'a>> {
        match self {
            Self::Consistent(guard) => Ok(guard),
            Self::OwnerDied(orphaned) => {
                repair();
                orphaned.mark_consistent()
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Guard<'a> {
    mutex: &'a Mutex,
    of_this_thread: PhantomData<*const ()>,
}

impl Guard<'_> {
    pub(crate) fn is_of_this_thread(&self) -> bool {
        true
    }

    pub(crate) fn make_consistent(&self) -> Result<()> {
        Ok(())
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !goes_on() {
            return;
        }
        let word = &self.mutex.word;
        ROBUST_LIST.with(|list| list.borrow_mut().retain(|held| !Arc::ptr_eq(held, word)));
        // If it dies before it wakes another, the kernel does.
        if word.leave(FREE) & WAITED_FOR != 0 {
            futex::wake_now(word, 1);
        }
    }
}

pub(crate) struct Orphaned<'a> {
    guard: Guard<'a>,
}

impl<'a> Orphaned<'a> {
    pub(crate) fn into_guard(self) -> Guard<'a> {
        self.guard
    }

    pub(crate) fn mark_consistent(self) -> Result<Guard<'a>> {
        Ok(self.guard)
    }
}
