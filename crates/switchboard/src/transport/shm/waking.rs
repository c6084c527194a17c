//! Waking a peer, as it sleeps.

use switchboard_shm::Words;
use switchboard_shm::bell::{FutexWord, Raised, Sleeps};
use switchboard_shm::cursor::OwnCursor;
use switchboard_shm::layout::reader;
use switchboard_shm::ring::RingReader;

use super::control::{Control, LinkId};
use super::memory::{Bell, Own, Theirs, wake_all};
use super::offer::ReaderOffer;

/// For which sleep a reader was woken last: one that leaves its byte up is not woken again for the same.
#[derive(Debug, Default)]
pub(super) struct Woken(Option<Raised>);

impl Woken {
    /// Whether this sleep is another one.
    pub(super) fn is_due(&mut self, raised: Raised) -> bool {
        self.0.replace(raised) != Some(raised)
    }
}

/// Wakes all who sleep there.
#[inline(never)]
pub(super) fn wake_readers(bell: &Bell, word: FutexWord) {
    // An error is no reason not to go on: readers look by themselves in the end.
    let _ = wake_all(word.change_for_wake(bell));
}

/// Wakes the writer if it sleeps for a cursor that was just stored. Whether it did.
#[inline]
pub(super) fn wake_writer(
    page: &OwnCursor<Own>,
    ring: &RingReader<Theirs>,
    control: &Control<ReaderOffer>,
    link: LinkId,
) -> bool {
    match page.writer_sleeps(ring.wanted_word()) {
        None => return false,
        Some(Sleeps::OnFutex) => {
            let _ = wake_all(&page.memory().words()[reader::CURSOR_WORD]);
        }
        Some(Sleeps::OnDescriptor) => control.wake(link),
    }
    true
}
