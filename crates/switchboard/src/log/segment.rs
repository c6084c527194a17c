//! The header of a segment, and its file's name. No I/O; `docs/design/log.md` draws the bytes.

use super::MOST_NUMBER;

/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: usize = 64;

/// What a segment begins with.
pub(super) const MAGIC: [u8; 8] = *b"SWBDLOG1";

/// What a log carries.
pub(crate) use crate::link::Pattern;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) lane: u32,
    pub(crate) pattern: Pattern,
    pub(crate) segment: u64,
    pub(crate) first_sequence: u64,
    pub(crate) file_bytes: u64,
    pub(crate) schema: u64,
    pub(crate) made_ns: u64,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.lane.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.pattern as u32).to_le_bytes());
        let words = [self.segment, self.first_sequence, self.file_bytes, self.schema, self.made_ns];
        for (at, word) in words.into_iter().enumerate() {
            bytes[16 + at * 8..24 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header, or says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, &'static str> {
        if bytes[..8] != MAGIC {
            return Err("it does not begin as a segment does");
        }
        let half = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if crc32c::crc32c(&bytes[..60]) != half(60) {
            return Err("the checksum of its header does not hold");
        }
        let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
        if word(24) > MOST_NUMBER {
            return Err("it begins with a number that no sender comes to");
        }
        let pattern = match half(12) {
            1 => Pattern::Queue,
            2 => Pattern::Topic,
            _ => return Err("it carries a pattern that this version does not know"),
        };
        Ok(Self {
            lane: half(8),
            pattern,
            segment: word(16),
            first_sequence: word(24),
            file_bytes: word(32),
            schema: word(40),
            made_ns: word(48),
        })
    }
}

/// `00-0000000001.seg`
pub(crate) fn file_name(lane: u32, segment: u64) -> String {
    format!("{lane:02}-{segment:010}.seg")
}

/// The lane and number of a segment's file, by its name.
pub(crate) fn parse_name(name: &str) -> Option<(u32, u64)> {
    let (lane, segment) = name.strip_suffix(".seg")?.split_once('-')?;
    let (lane, segment) = (lane.parse().ok()?, segment.parse().ok()?);
    // Other spellings of the same number are not ours, nor are numbers that no sender comes to.
    (segment <= MOST_NUMBER && file_name(lane, segment) == name).then_some((lane, segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_no_flipped_bit_passes() {
        let header = Header {
            lane: 3,
            pattern: Pattern::Topic,
            segment: 4,
            first_sequence: 5,
            file_bytes: 6,
            schema: 7,
            made_ns: 8,
        };
        let good = header.to_bytes();
        assert_eq!(Header::parse(&good), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&bytes).is_err(), "bit {bit}");
        }
        let too_far = Header { first_sequence: MOST_NUMBER + 1, ..header };
        assert!(Header::parse(&too_far.to_bytes()).is_err());
    }

    #[test]
    fn names() {
        assert_eq!(parse_name("07-0000000012.seg"), Some((7, 12)));
        assert_eq!(parse_name("00-4611686018427387904.seg"), Some((0, MOST_NUMBER)));
        for name in [
            "7-0000000012.seg",
            "07-12.seg",
            "07-0000000012",
            "07-+000000012.seg",
            ".seg",
            "00-4611686018427387905.seg",
            "00-18446744073709551615.seg",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
