//! Room for the next frame, for who claims it without going to the writer.

use super::Claim;
use super::frame::{Unit, frame_end};
use super::writer::MOST_ASKED_BYTES;
use crate::AtomicU64;
use crate::layout::{LINE_WORDS, WORD_BYTES};
use crate::machine::will_write;

/// Room where the next frame goes, without a pad: [`RingWriter::grant`](super::RingWriter::grant). It holds as long as
/// nothing is claimed or committed but by this; what was taken of it and is not committed is
/// [given up](super::RingWriter::give_up).
#[derive(Clone, Copy, Debug, Default)]
pub struct Grant {
    /// Where the frame goes.
    pub(super) frame: u64,
    /// Its word among those of the memory.
    pub(super) word: usize,
    /// A payload is shorter than this.
    pub(super) below_bytes: u64,
    /// A frame that ends here has the 0 behind it already.
    pub(super) cleared: u64,
    /// Its header, if it is a message, but for the length.
    pub(super) header: u64,
    pub(super) unit: Unit,
}

impl Grant {
    /// Whether there is room for so much payload.
    #[inline(always)]
    #[must_use]
    pub fn has_room(&self, payload_bytes: u64) -> bool {
        payload_bytes < self.below_bytes
    }

    /// Room for a payload, if there is so much: index of its first word among these of the memory.
    #[inline(always)]
    #[must_use]
    pub fn room(&self, memory: &[AtomicU64], payload_bytes: usize) -> Option<usize> {
        if !self.has_room(payload_bytes as u64) {
            return None;
        }
        let Self { frame, .. } = *self;
        let end = self.end_of(payload_bytes as u64);
        // As where the writer claims: all lines but the one that is polled.
        if end <= self.cleared {
            return Some(self.word + 1);
        }
        let asked = (end + 1 - frame).min(MOST_ASKED_BYTES);
        let words = asked.div_ceil(WORD_BYTES) as usize;
        let mut line = (self.word | (LINE_WORDS - 1)) + 1;
        while line < self.word + words {
            if let Some(word) = memory.get(line) {
                will_write(word);
            }
            line += LINE_WORDS;
        }
        Some(self.word + 1)
    }

    /// The frame with so much payload.
    #[inline]
    pub fn claim(&self, payload_bytes: u64) -> Claim {
        let Self { frame, unit, .. } = *self;
        Claim { begin: frame, frame, payload_bytes, unit }
    }

    /// Where it ends with so much payload.
    #[inline(always)]
    #[must_use]
    pub fn end_of(&self, payload_bytes: u64) -> u64 {
        frame_end(self.frame, payload_bytes, self.unit)
    }
}
