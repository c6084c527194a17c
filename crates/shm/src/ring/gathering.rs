//! Messages that are written one behind the other, and become visible together.

use std::sync::atomic::Ordering::Relaxed;

use super::frame::{Kind, Unit, header};
use crate::AtomicU64;
use crate::copy::copy_in;
use crate::layout::{LINE_WORDS, WORD_BYTES};
use crate::machine::will_write;

/// So many words behind a message are asked for, to be written next.
const AHEAD_WORDS: usize = 4 * LINE_WORDS;
/// One more message, in the upper half of a tally.
const ONE: u64 = 1 << 32;

/// Room behind the last message of a ring, and the messages that were written there. Nobody sees them before
/// [`RingWriter::commit_gathered`](super::RingWriter::commit_gathered).
///
/// A message costs as few stores as can be: a writer's stores wait for the lines that its readers have, and only so
/// many can wait.
#[derive(Debug, Default)]
pub struct Gathering {
    /// Position of the first frame.
    pub(super) begin: u64,
    /// Its word: 0 until it is committed.
    pub(super) first: usize,
    /// What that becomes.
    pub(super) header: u64,
    /// Word of the next frame: anything may be there.
    pub(super) next: usize,
    /// Where frames end at most.
    end: usize,
    /// Number of the last message before them.
    before: u64,
    /// How many there are, times [`ONE`], and their bytes.
    tally: u64,
}

impl Gathering {
    /// In so many bytes from a position on, which is that of a word, behind a message of this number.
    pub(super) fn new(begin: u64, first: usize, room_bytes: u64, before: u64) -> Self {
        let end = first + (room_bytes / WORD_BYTES) as usize;
        Self { begin, first, header: 0, next: first, end, before, tally: 0 }
    }

    /// Room behind those that are there, for a message of up to so many bytes: index of its first word among the
    /// words of the memory.
    #[inline(always)]
    #[must_use]
    pub fn room(&self, len: usize) -> Option<usize> {
        let payload = self.next + 1;
        (payload + len.div_ceil(8) <= self.end).then_some(payload)
    }

    /// Keeps the first bytes of what was written to the [room](Self::room), among the words of the memory.
    #[inline(always)]
    pub fn keep(&mut self, words: &[AtomicU64], len: usize) {
        let end = self.next + 1 + len.div_ceil(8);
        let tally = self.tally + ONE + len as u64;
        let number = self.before + tally / ONE;
        let header = header(Kind::Message, len as u64, number, Unit::WORD);
        if self.next == self.first {
            self.header = header;
        } else if let Some(frame) = words.get(self.next) {
            // Readers do not come here before the first one is committed.
            frame.store(header, Relaxed);
        }
        let mut line = (self.next + AHEAD_WORDS) & !(LINE_WORDS - 1);
        while line < end + AHEAD_WORDS {
            if let Some(word) = words.get(line) {
                will_write(word);
            }
            line += LINE_WORDS;
        }
        (self.next, self.tally) = (end, tally);
    }

    /// Writes a message behind those that are there, among the words of the memory. Whether there was room for it.
    #[inline(always)]
    pub fn add(&mut self, words: &[AtomicU64], payload: &[u8]) -> bool {
        let Some(first) = self.room(payload.len()) else { return false };
        let end = first + payload.len().div_ceil(8);
        let Some(room) = words.get(first..end) else { return false };
        copy_in(room, payload);
        self.keep(words, payload.len());
        true
    }

    /// Whether there is, or was, room for messages.
    #[inline(always)]
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.end != 0
    }

    /// How many messages there are.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.tally / ONE
    }

    /// Their bytes, without headers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tally % ONE
    }
}
