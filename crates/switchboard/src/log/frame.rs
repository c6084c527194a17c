//! A message as it lies in a segment. No I/O; `docs/design/log.md` draws the bytes.

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 32;

/// The largest payload: half the smallest segment that could hold it, and a bound for what a damaged
/// length can ask of a reader.
pub(crate) const LARGEST_PAYLOAD_BYTES: usize = 8 << 20;

/// The upper 24 bits of a commit word.
const TAG: u64 = 0xA6_5B9D;
const KIND_MESSAGE: u64 = 1;

/// Where a frame is: its checksum covers this, so that it counts nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lane: u32,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// What a frame that holds says about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_bytes: usize,
    pub(crate) sequence: u64,
    pub(crate) time_ns: u64,
}

/// What the word at the start of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// Nothing is there yet.
    Empty,
    /// A payload of so many bytes.
    Message(usize),
    /// No commit word.
    Damaged,
}

/// Bytes that a frame with such a payload takes.
pub(crate) const fn frame_bytes(payload_bytes: usize) -> usize {
    HEADER_BYTES + payload_bytes.next_multiple_of(8)
}

/// The word that commits a frame.
pub(crate) const fn commit_word(payload_bytes: usize) -> u64 {
    payload_bytes as u64 | KIND_MESSAGE << 32 | TAG << 40
}

/// What a word at the start of a frame says.
#[inline]
pub(crate) const fn read_commit(word: u64) -> Commit {
    let payload_bytes = (word & 0xffff_ffff) as usize;
    match word {
        0 => Commit::Empty,
        _ if word >> 32 == KIND_MESSAGE | TAG << 8 && payload_bytes <= LARGEST_PAYLOAD_BYTES => {
            Commit::Message(payload_bytes)
        }
        _ => Commit::Damaged,
    }
}

/// Lays out a message at a place, with its commit word, in a buffer of [`frame_bytes`] zeros.
#[inline]
pub(crate) fn encode(place: Place, sequence: u64, time_ns: u64, payload: &[u8], frame: &mut [u8]) {
    frame[..8].copy_from_slice(&commit_word(payload.len()).to_le_bytes());
    frame[16..24].copy_from_slice(&sequence.to_le_bytes());
    frame[24..HEADER_BYTES].copy_from_slice(&time_ns.to_le_bytes());
    frame[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let checksum = checksum(place, payload.len(), &frame[16..]);
    frame[8..12].copy_from_slice(&checksum.to_le_bytes());
}

impl Header {
    /// Checks a whole frame, from its commit word to its padding; `None` when it does not hold here.
    #[inline]
    pub(crate) fn check(place: Place, frame: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = frame.first_chunk()?;
        let Commit::Message(payload_bytes) = read_commit(word(header, 0)) else { return None };
        let low = word(header, 8);
        let holds = low >> 32 == 0
            && frame.len() == frame_bytes(payload_bytes)
            && low as u32 == checksum(place, payload_bytes, &frame[16..]);
        holds.then(|| Self { payload_bytes, sequence: word(header, 16), time_ns: word(header, 24) })
    }
}

/// The checksum of everything from the number to the padding, started from where the frame is and how
/// long: another place or length is another start, which CRC never maps to the same end.
#[inline]
fn checksum(place: Place, payload_bytes: usize, rest: &[u8]) -> u32 {
    let segment = place.segment.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let start = place.lane.rotate_left(26) ^ segment as u32 ^ (place.offset as u32).rotate_left(8);
    crc32c::crc32c_append(start ^ payload_bytes as u32, rest)
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

    fn frame() -> Vec<u8> {
        let mut frame = vec![0; frame_bytes(5)];
        encode(PLACE, 7, 9, b"press", &mut frame);
        frame
    }

    #[test]
    fn a_frame_holds_where_it_was_written_and_nowhere_else() {
        let frame = frame();
        let expected = Header { payload_bytes: 5, sequence: 7, time_ns: 9 };
        assert_eq!(Header::check(PLACE, &frame), Some(expected));
        for lane in 0..64 {
            for segment in 0..64 {
                for offset in (64..4096).step_by(8) {
                    let place = Place { lane, segment, offset };
                    assert_eq!(Header::check(place, &frame).is_some(), place == PLACE, "{place:?}");
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = frame();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::check(PLACE, &bytes), None, "bit {bit}");
            let word = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
            assert_ne!(read_commit(word), Commit::Empty, "bit {bit}");
        }
    }
}
