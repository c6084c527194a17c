//! The search for the next frame that holds, where one does not: in a time that grows with how much is searched, whatever
//! is in it. No I/O; `docs/design/log.md`, "Reading".
//!
//! Each place where a commit word stands may be a frame, as long as that word says; and who sends a message may fill it with such
//! words. So the checksum of a long one is not computed by itself, but from those of the bytes up to its beginning and to its end
//! (`crc32c_combine`), which are computed once.

use super::frame::{self, Commit, HEADER_BYTES, Place, frame_bytes};

/// Frames up to this size are checked by themselves: that takes no longer.
const SHORT_BYTES: usize = 1024;
/// Where frames may begin.
const STEP: usize = 8;

/// Bytes of a segment, from a place on.
pub(super) struct Searched<'a> {
    pub(super) bytes: &'a [u8],
    /// Where they begin.
    pub(super) place: Place,
    /// Of the bytes up to each step; empty until a long frame is looked at.
    sums: Vec<u32>,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// No frame.
    Nothing,
    /// One whose checksum holds, if it is long. It still has to be checked.
    Frame { payload_bytes: usize },
    /// One that would end beyond these bytes.
    Beyond,
}

impl<'a> Searched<'a> {
    pub(super) fn new(place: Place, bytes: &'a [u8]) -> Self {
        Self { bytes, place, sums: Vec::new() }
    }

    /// Whether a frame may stand at `at`.
    pub(super) fn look(&mut self, at: usize) -> Look {
        let Some(word) = self.word(at) else { return Look::Nothing };
        let (Commit::Message(payload_bytes) | Commit::Batch(payload_bytes)) =
            frame::read_commit(word)
        else {
            return Look::Nothing;
        };
        let whole = frame_bytes(payload_bytes);
        let end = at + whole;
        if end > self.bytes.len() {
            return Look::Beyond;
        }
        if whole > SHORT_BYTES {
            let Some(second) = self.word(at + 8) else { return Look::Nothing };
            let place = Place { offset: self.place.offset + at as u64, ..self.place };
            let start = frame::checksum_start(place, (second >> 32) as u32, payload_bytes);
            if self.sum(start, at + HEADER_BYTES / 2, end) != second as u32 {
                return Look::Nothing;
            }
        }
        Look::Frame { payload_bytes }
    }

    /// The checksum of a part, started from a value.
    fn sum(&mut self, start: u32, from: usize, to: usize) -> u32 {
        if self.sums.is_empty() {
            self.sums.reserve_exact(self.bytes.len() / STEP + 1);
            let mut sum = 0;
            self.sums.push(sum);
            for step in self.bytes.as_chunks::<STEP>().0 {
                sum = crc32c::crc32c_append(sum, step);
                self.sums.push(sum);
            }
        }
        let (before, whole) = (self.sums[from / STEP], self.sums[to / STEP]);
        // Of the same bytes, two values to start from differ in the end by what their difference becomes over so many.
        whole ^ crc32c::crc32c_combine(before ^ start, 0, to - from)
    }

    fn word(&self, at: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Header;
    use super::*;

    const PLACE: Place = Place { lane: 3, segment: 9, offset: 640 };

    fn frame_at(at: usize, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; frame_bytes(payload.len())];
        let place = Place { offset: PLACE.offset + at as u64, ..PLACE };
        frame::encode(place, 7, 9, payload, &mut bytes);
        bytes
    }

    #[test]
    fn it_finds_what_holds_and_nothing_else() {
        for len in [0, 1, 8, 900, 992, 993, 1000, 4096, 100_001] {
            let payload: Vec<u8> = (0..len).map(|at| (at * 31 % 251) as u8).collect();
            for at in [0, 8, 1016] {
                let mut bytes = vec![0x5A; at];
                bytes.extend(frame_at(at, &payload));
                bytes.extend([0; 64]);
                let mut searched = Searched::new(PLACE, &bytes);
                let found: Vec<usize> = (0..bytes.len())
                    .step_by(STEP)
                    .filter(|at| {
                        let Look::Frame { payload_bytes } = searched.look(*at) else {
                            return false;
                        };
                        let place = Place { offset: PLACE.offset + *at as u64, ..PLACE };
                        Header::check(place, &bytes[*at..*at + frame_bytes(payload_bytes)])
                            .is_some()
                    })
                    .collect();
                assert_eq!(found, [at], "{len} bytes at {at}");
                // A bit that is flipped anywhere in a long one is seen without a further look.
                if frame_bytes(len) > SHORT_BYTES {
                    bytes[at + 40] ^= 4;
                    assert_eq!(Searched::new(PLACE, &bytes).look(at), Look::Nothing);
                }
                let cut = &bytes[..at + frame_bytes(len) - 8];
                let beyond = Searched::new(PLACE, cut).look(at);
                assert_eq!(beyond, Look::Beyond, "{len} bytes at {at}");
            }
        }
    }

    #[test]
    fn what_is_full_of_commit_words_takes_no_longer_than_its_length_asks() {
        // Each of these says that it is as long as what follows: checked one by one, that were 2^34 bytes.
        let bytes: Vec<u8> = (0..1_usize << 18 >> 3)
            .flat_map(|at| {
                frame::commit_word((1_usize << 18).saturating_sub(at * 8 + 64), 1).to_le_bytes()
            })
            .collect();
        let mut searched = Searched::new(PLACE, &bytes);
        let is_long =
            |look| matches!(look, Look::Frame { payload_bytes } if payload_bytes > SHORT_BYTES);
        let held = (0..bytes.len()).step_by(STEP).filter(|at| is_long(searched.look(*at)));
        assert_eq!(held.count(), 0);
        assert_eq!(searched.sums.len(), bytes.len() / STEP + 1, "each byte is summed up once");
    }
}
