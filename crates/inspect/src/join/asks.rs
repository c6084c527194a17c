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

/// What is to be asked: batches, each of one process.
#[derive(Default)]
pub(crate) struct Asks {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    answers: Mutex<Vec<Answer>>,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Vec<Ask>>,
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
        let (mut lender, mut own) = (Lender::default(), Vec::new());
        while let Some(batch) = self.next() {
            own.extend(batch.iter().filter_map(|ask| answer(ask, &mut lender)));
        }
        lock(&self.answers).append(&mut own);
    }

    fn next(&self) -> Option<Vec<Ask>> {
        let waiting = lock(&self.waiting);
        let nothing = |waiting: &mut Waiting| waiting.batches.is_empty() && !waiting.closed;
        let waited = self.changed.wait_while(waiting, nothing);
        waited.unwrap_or_else(PoisonError::into_inner).batches.pop_front()
    }
}

impl Asker<'_> {
    pub(super) fn add(&self, batch: Vec<Ask>) {
        if !batch.is_empty() {
            lock(&self.0.waiting).batches.push_back(batch);
            self.0.changed.notify_one();
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

fn answer(ask: &Ask, lender: &mut Lender) -> Option<Answer> {
    let borrowed = lender.borrow(ask.pid, ask.fd).ok()?;
    // The process may have closed it, and opened another under the same number.
    let status = rustix::fs::fstat(&borrowed).ok().filter(|status| status.st_ino == ask.inode)?;
    Some(Answer { at: ask.at, status, fullness: fill::fullness(&borrowed) })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
