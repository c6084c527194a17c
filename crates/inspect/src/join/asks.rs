//! Pipes and FIFOs that are asked how full they are while the others are still being joined: the kernel's work on one processor,
//! ours on another one.
//!
//! Whoever was not reached here is asked later, by [`Join::fills`].

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::Stat;

use super::Join;
use super::fill::{self, Fullness};
use crate::source::borrowed::Lender;

/// How many are taken at once.
const PORTION: usize = 64;

/// A descriptor to borrow, of the object at a place, which has to be of this inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) at: usize,
    pub(super) inode: u64,
    pub(super) pid: u32,
    pub(super) fd: i32,
}

/// What it said.
struct Answer {
    at: usize,
    status: Stat,
    fullness: Fullness,
}

/// What is to be asked, in the order in which it was found: neighbours are likely to be of one process.
#[derive(Default)]
pub(crate) struct Asks {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    answers: Mutex<Vec<Answer>>,
}

#[derive(Default)]
struct Waiting {
    asks: VecDeque<Ask>,
    closed: bool,
}

/// Closes it when it is dropped, so that nobody waits for more.
pub(crate) struct Asker<'a>(&'a Asks);

impl Asks {
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker(self)
    }

    /// Asks until there is nothing more, and there will be nothing more.
    pub(crate) fn work(&self) {
        let (mut lender, mut portion, mut own) = (Lender::default(), Vec::new(), Vec::new());
        while self.next(&mut portion) {
            own.extend(portion.drain(..).filter_map(|ask| answer(ask, &mut lender)));
        }
        lock(&self.answers).append(&mut own);
    }

    /// Waits for a portion; whether there is one.
    fn next(&self, portion: &mut Vec<Ask>) -> bool {
        let waiting = lock(&self.waiting);
        // To be woken takes longer than to ask a few.
        let few = |waiting: &mut Waiting| waiting.asks.len() < PORTION && !waiting.closed;
        let waited = self.changed.wait_while(waiting, few);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
        let count = waiting.asks.len().min(PORTION);
        portion.extend(waiting.asks.drain(..count));
        count > 0
    }
}

impl Asker<'_> {
    /// Adds them, and leaves nothing where they were.
    pub(super) fn add(&self, asks: &mut Vec<Ask>) {
        if asks.is_empty() {
            return;
        }
        let mut waiting = lock(&self.0.waiting);
        let before = waiting.asks.len();
        waiting.asks.extend(asks.drain(..));
        let grown = before / PORTION < waiting.asks.len() / PORTION;
        drop(waiting);
        if grown {
            self.0.changed.notify_all();
        }
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        lock(&self.0.waiting).closed = true;
        self.0.changed.notify_all();
    }
}

impl Join {
    /// Takes what was answered.
    pub(crate) fn answered(&mut self, asks: Asks) {
        let answers = asks.answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        for Answer { at, status, fullness } in answers {
            let object = &mut self.objects[at];
            fill::owned(object, &status);
            (object.fill, object.size) = fullness;
        }
    }
}

fn answer(ask: Ask, lender: &mut Lender) -> Option<Answer> {
    let borrowed = lender.borrow(ask.pid, ask.fd).ok()?;
    // The process may have closed it, and opened another under the same number.
    let status = rustix::fs::fstat(&borrowed).ok().filter(|status| status.st_ino == ask.inode)?;
    Some(Answer { at: ask.at, status, fullness: fill::fullness(&borrowed) })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
