//! The two links that an end of a service has with each peer: who has begun to come gets both.
//!
//! Each link takes descriptors, and an end that gave its last ones to halves of many peers would have none whole, for
//! ever. So a new peer is let in only while there are enough to complete everybody who has begun; the others dial again.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switchboard_kernel::process;

use crate::transport::shm::hello::{Id, Pattern};

/// What both links with a peer take: two sockets, two processes, and the ring to it.
const OF_A_PEER: u64 = 5;
/// What the second one takes at most.
const OF_A_HALF: u64 = 3;
/// What comes with a hello, and goes again; and a few for the rest of this process.
const SPARE: u64 = 12;

/// Who has links with the two ends of one service here.
#[derive(Debug, Default)]
pub(in crate::transport::shm) struct Pair {
    peers: Mutex<Peers>,
    /// How many there were when another one had to wait; 0: none had to.
    crowd: AtomicUsize,
}

/// For each how often, at the end for calls and at that for answers.
type Peers = BTreeMap<Id, [u32; 2]>;

/// A peer's place at one of the ends, until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pair: Arc<Pair>,
    id: Id,
    side: usize,
}

impl Pair {
    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a peer at the end of this pattern, if both its links can be had. `newest`: a descriptor that was just
    /// made.
    pub(super) fn hold(
        self: &Arc<Self>,
        (id, pattern): (Id, Pattern),
        newest: BorrowedFd<'_>,
    ) -> Option<Held> {
        let side = usize::from(pattern == Pattern::Answers);
        let mut peers = self.peers();
        if !peers.is_empty() && !peers.contains_key(&id) {
            let halves = peers.values().filter(|sides| sides.contains(&0)).count() as u64;
            if free(newest) < OF_A_PEER + OF_A_HALF * halves + SPARE {
                self.crowd.store(peers.len(), Ordering::Relaxed);
                return None;
            }
        }
        peers.entry(id).or_default()[side] += 1;
        Some(Held { pair: Arc::clone(self), id, side })
    }

    /// How many peers there were when another one had to wait; 0 if none had to.
    #[inline]
    pub(in crate::transport::shm) fn crowd(&self) -> usize {
        self.crowd.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut peers = self.pair.peers();
        if let Some(sides) = peers.get_mut(&self.id) {
            sides[self.side] -= 1;
            if *sides == [0, 0] {
                peers.remove(&self.id);
            }
        }
    }
}

/// How many descriptors this process may still have. Where it cannot see how many it has: what is above the newest.
fn free(newest: BorrowedFd<'_>) -> u64 {
    let (limit, _) = process::file_limit();
    let used = process::open_files();
    limit.saturating_sub(used.unwrap_or(u64::from(newest.as_raw_fd().unsigned_abs()) + 1))
}
