//! Messages as they lie in a segment: one by itself, or a batch. No I/O; `docs/design/log.md` draws the bytes.

use crc_fast::{CrcAlgorithm, Digest};

use super::MOST_NUMBER;

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 32;

/// The largest payload: half the smallest segment that could hold it, and a bound for what a damaged
/// length can ask of a reader.
pub(crate) const LARGEST_PAYLOAD_BYTES: usize = 8 << 20;

/// The upper 24 bits of a commit word.
const TAG: u64 = 0xA6_5B9D;
const KIND_MESSAGE: u64 = 1;
const KIND_BATCH: u64 = 2;
/// The last byte of each commit word, and where it is: without it nothing is committed.
pub(crate) const COMMIT_BYTE: &[u8] = &[(TAG >> 16) as u8];
pub(crate) const COMMIT_BYTE_AT: usize = 7;
/// Bytes of the length that a batch says of each of its messages, behind the last of them.
pub(crate) const LENGTH_BYTES: usize = 4;

/// So many bytes are many for a checksum.
const LONG_BYTES: usize = 512;

/// Where a frame is: its checksum covers this, so that it counts nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lane: u32,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// What a frame that holds says about its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the message, or of all messages of a batch and their lengths.
    pub(crate) payload_bytes: usize,
    pub(crate) messages: u32,
    /// The number of the first one.
    pub(crate) sequence: u64,
    pub(crate) time_ns: u64,
}

/// What the word at the start of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// Nothing is there yet, or nothing that is committed.
    Empty,
    /// A message of so many bytes.
    Message(usize),
    /// Messages and their lengths, of so many bytes.
    Batch(usize),
    /// No commit word.
    Damaged,
}

/// Bytes that a frame with such a payload takes.
pub(crate) const fn frame_bytes(payload_bytes: usize) -> usize {
    HEADER_BYTES + payload_bytes.next_multiple_of(8)
}

/// The word that commits a frame.
pub(crate) const fn commit_word(payload_bytes: usize, messages: u32) -> u64 {
    let kind = if messages == 1 { KIND_MESSAGE } else { KIND_BATCH };
    payload_bytes as u64 | kind << 32 | TAG << 40
}

/// What a word at the start of a frame says.
#[inline]
pub(crate) const fn read_commit(word: u64) -> Commit {
    const MESSAGE: u64 = KIND_MESSAGE | TAG << 8;
    const BATCH: u64 = KIND_BATCH | TAG << 8;
    let payload_bytes = (word & 0xffff_ffff) as usize;
    match word >> 32 {
        high if high >> 24 == 0 => Commit::Empty,
        MESSAGE if payload_bytes <= LARGEST_PAYLOAD_BYTES => Commit::Message(payload_bytes),
        BATCH if payload_bytes <= LARGEST_PAYLOAD_BYTES => Commit::Batch(payload_bytes),
        _ => Commit::Damaged,
    }
}

/// Lays out a message at a place, with its commit word, in a buffer of [`frame_bytes`] zeros.
#[inline]
pub(crate) fn encode(place: Place, sequence: u64, time_ns: u64, payload: &[u8], frame: &mut [u8]) {
    frame[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let header = Header { payload_bytes: payload.len(), messages: 1, sequence, time_ns };
    header.seal(place, frame);
}

impl Header {
    /// Puts itself before a payload and its padding, which are there already, in a buffer of [`frame_bytes`].
    #[inline]
    pub(crate) fn seal(self, place: Place, frame: &mut [u8]) {
        let commit_word = commit_word(self.payload_bytes, self.messages);
        frame[..8].copy_from_slice(&commit_word.to_le_bytes());
        let counted = if self.messages == 1 { 0 } else { self.messages };
        frame[12..16].copy_from_slice(&counted.to_le_bytes());
        frame[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        frame[24..HEADER_BYTES].copy_from_slice(&self.time_ns.to_le_bytes());
        let checksum = checksum(place, counted, self.payload_bytes, &frame[16..]);
        frame[8..12].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Checks a whole frame, from its commit word to its padding; `None` when it does not hold here.
    #[inline]
    pub(crate) fn check(place: Place, frame: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = frame.first_chunk()?;
        let second = word(header, 8);
        let counted = (second >> 32) as u32;
        let (payload_bytes, messages) = match read_commit(word(header, 0)) {
            Commit::Message(payload_bytes) if counted == 0 => (payload_bytes, 1),
            Commit::Batch(payload_bytes) if counted > 1 => (payload_bytes, counted),
            _ => return None,
        };
        let holds = frame.len() == frame_bytes(payload_bytes)
            && second as u32 == checksum(place, counted, payload_bytes, &frame[16..])
            && (messages == 1 || is_batch(&frame[HEADER_BYTES..][..payload_bytes], messages));
        let (sequence, time_ns) = (word(header, 16), word(header, 24));
        let header = Self { payload_bytes, messages, sequence, time_ns };
        (holds && header.end() <= MOST_NUMBER).then_some(header)
    }

    /// The number of the message after its last one.
    #[inline]
    pub(crate) fn end(self) -> u64 {
        self.sequence.saturating_add(self.messages.into())
    }
}

/// Whether the lengths at the end of a batch are those of what lies before them.
fn is_batch(payload: &[u8], messages: u32) -> bool {
    let lengths_bytes = messages as usize * LENGTH_BYTES;
    let Some(bytes) = payload.len().checked_sub(lengths_bytes) else { return false };
    let lengths = payload[bytes..].as_chunks::<LENGTH_BYTES>().0;
    lengths.iter().map(|length| u64::from(u32::from_le_bytes(*length))).sum::<u64>() == bytes as u64
}

/// The checksum of everything from the number to the padding.
#[inline]
fn checksum(place: Place, counted: u32, payload_bytes: usize, rest: &[u8]) -> u32 {
    let start = checksum_start(place, counted, payload_bytes);
    if rest.len() < LONG_BYTES { crc32c::crc32c_append(start, rest) } else { of_many(start, rest) }
}

/// The same checksum of many bytes: where the processor multiplies polynomials in vectors, four times as fast.
fn of_many(start: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, (!start).into());
    digest.update(bytes);
    digest.finalize() as u32
}

/// What a frame's checksum starts from: where it is, how many messages it counts, and how long it is. Another place,
/// count or length is another start, which CRC never maps to the same end. The number of the segment is not to be guessed by who
/// sends a message.
#[inline]
pub(super) fn checksum_start(place: Place, counted: u32, payload_bytes: usize) -> u32 {
    let segment = place.segment.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let offset = (place.offset as u32).rotate_left(8) ^ counted.rotate_left(20);
    place.lane.rotate_left(26) ^ segment as u32 ^ offset ^ payload_bytes as u32
}

#[inline]
fn word(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { lane: 1, segment: 2, offset: 64 };

    fn message() -> Vec<u8> {
        let mut frame = vec![0; frame_bytes(5)];
        encode(PLACE, 7, 9, b"press", &mut frame);
        frame
    }

    const BATCH: Header = Header { payload_bytes: 17, messages: 3, sequence: 7, time_ns: 9 };

    /// Three messages, the second one empty.
    fn batch(lengths: [u32; 3]) -> Vec<u8> {
        let mut frame = vec![0; frame_bytes(17)];
        frame[HEADER_BYTES..][..5].copy_from_slice(b"press");
        for (at, length) in lengths.into_iter().enumerate() {
            frame[HEADER_BYTES + 5 + at * 4..][..4].copy_from_slice(&length.to_le_bytes());
        }
        BATCH.seal(PLACE, &mut frame);
        frame
    }

    #[test]
    fn a_frame_holds_where_it_was_written_and_nowhere_else() {
        let one = Header { payload_bytes: 5, messages: 1, ..BATCH };
        for (frame, expected) in [(message(), one), (batch([2, 0, 3]), BATCH)] {
            assert_eq!(Header::check(PLACE, &frame), Some(expected));
            for lane in 0..64 {
                for segment in 0..64 {
                    for offset in (64..4096).step_by(8) {
                        let place = Place { lane, segment, offset };
                        let holds = Header::check(place, &frame).is_some();
                        assert_eq!(holds, place == PLACE, "{place:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for good in [message(), batch([2, 0, 3])] {
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Header::check(PLACE, &bytes), None, "bit {bit}");
                let word = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
                assert_ne!(read_commit(word), Commit::Empty, "bit {bit}");
            }
        }
    }

    #[test]
    fn the_checksum_of_many_bytes_is_the_same() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|n| ((n * 7) >> 3) as u8).collect();
        for start in [0, 1, 0x1234_5678, u32::MAX] {
            for len in (0..4500).chain([65_535, 65_536, 65_537, bytes.len()]) {
                let bytes = &bytes[..len];
                assert_eq!(of_many(start, bytes), crc32c::crc32c_append(start, bytes), "{len}");
            }
        }
    }

    #[test]
    fn a_number_that_no_sender_comes_to_does_not_hold() {
        for (sequence, expected) in
            [(MOST_NUMBER - 3, true), (MOST_NUMBER - 2, false), (u64::MAX - 1, false)]
        {
            let mut frame = batch([2, 0, 3]);
            Header { sequence, ..BATCH }.seal(PLACE, &mut frame);
            assert_eq!(Header::check(PLACE, &frame).is_some(), expected, "{sequence}");
        }
    }

    #[test]
    fn a_batch_whose_lengths_are_not_its_messages_does_not_hold() {
        for lengths in [[2, 0, 2], [2, 0, 4], [u32::MAX, 0, 6], [u32::MAX; 3]] {
            assert_eq!(Header::check(PLACE, &batch(lengths)), None, "{lengths:?}");
        }
        for messages in [0, 1, 2, 4, 5, u32::MAX] {
            let mut frame = batch([2, 0, 3]);
            Header { messages, ..BATCH }.seal(PLACE, &mut frame);
            let holds = Header::check(PLACE, &frame).is_some();
            // A message by itself may be any bytes.
            assert_eq!(holds, messages == 1, "{messages}");
        }
    }
}
