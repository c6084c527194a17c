//! The header of a segment, and its file's name. No I/O; `docs/design/log.md` draws the bytes.

use super::MOST_NUMBER;

/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: usize = 64;

const SECOND_NS: u64 = 1_000_000_000;

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
    /// No message of the lane before this segment was sent later.
    pub(crate) until: Until,
}

/// A time that no message before a place was sent after: seconds since 1970, rounded up; 0 where nobody knows one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Until(u32);

impl Until {
    pub(crate) const UNKNOWN: Self = Self(0);

    /// Of messages of which the newest was sent at this time, ns since 1970; 0 for no messages.
    pub(crate) fn of(newest_ns: u64) -> Self {
        // What is later than can be said is not known.
        Self(u32::try_from(newest_ns.div_ceil(SECOND_NS).max(1)).unwrap_or(0))
    }

    /// In ns since 1970.
    pub(crate) fn as_ns(self) -> Option<u64> {
        (self != Self::UNKNOWN).then_some(u64::from(self.0) * SECOND_NS)
    }
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
        bytes[56..60].copy_from_slice(&self.until.0.to_le_bytes());
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
            until: Until(half(56)),
        })
    }

    /// When the segment before was finished, as far as this one says it: ns since 1970. A time that has not come yet
    /// says nothing, whoever's clock was wrong.
    pub(crate) fn begun_ns(&self, now_ns: u64) -> Option<u64> {
        // The newest message before it was sent in the last second of these.
        let sent_ns = self.until.as_ns().map(|until_ns| until_ns - SECOND_NS);
        [Some(self.made_ns), sent_ns].into_iter().flatten().filter(|ns| *ns <= now_ns).max()
    }
}

/// The segment with which to begin for messages of this time (ns since 1970) and later ones, of a lane's segments, which come
/// with their headers where those hold.
///
/// What the headers say never goes back along a lane. One that says less than another before it lies, and is passed over. And
/// the segment before one that is believed is read as well: so no header by itself can hide a message.
pub(crate) fn first_since(
    segments: impl Iterator<Item = (u64, Option<Header>)>,
    since_ns: u64,
) -> Option<u64> {
    let (mut first, mut before, mut furthest) = (None, None, Until::UNKNOWN);
    for (number, header) in segments {
        first.get_or_insert(number);
        let before = before.replace(number);
        let until = header.map_or(Until::UNKNOWN, |header| header.until);
        let Some(until_ns) = until.as_ns().filter(|_| until >= furthest) else { continue };
        if until_ns >= since_ns {
            break;
        }
        furthest = until;
        first = before.or(first);
    }
    first
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
            until: Until::of(9 * SECOND_NS),
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

    const NONE: Header = Header {
        lane: 0,
        pattern: Pattern::Topic,
        segment: 1,
        first_sequence: 1,
        file_bytes: 4096,
        schema: 0,
        made_ns: 0,
        until: Until::UNKNOWN,
    };

    #[test]
    fn a_time_is_rounded_up_and_unknown_where_it_cannot_be_said() {
        for (newest_ns, until) in [
            (0, Some(SECOND_NS)),
            (1, Some(SECOND_NS)),
            (SECOND_NS, Some(SECOND_NS)),
            (SECOND_NS + 1, Some(2 * SECOND_NS)),
            (u64::from(u32::MAX) * SECOND_NS, Some(u64::from(u32::MAX) * SECOND_NS)),
            (u64::from(u32::MAX) * SECOND_NS + 1, None),
            (u64::MAX, None),
        ] {
            assert_eq!(Until::of(newest_ns).as_ns(), until, "{newest_ns}");
        }
    }

    #[test]
    fn what_can_be_passed_over_by_its_headers() {
        // Each segment: what its header says in seconds; 0 for nothing, None for one that does not hold.
        let check = |says: &[Option<u32>], since_s: u64, first: Option<u64>| {
            let header = |says: u32| Header { until: Until(says), ..NONE };
            let segments = (1..).zip(says.iter().map(|says| says.map(header)));
            assert_eq!(first_since(segments, since_s * SECOND_NS), first, "{says:?} {since_s}");
        };
        // The one before the last that says less.
        let says = [Some(1), Some(10), Some(20), Some(30)];
        for (since_s, first) in [(0, 1), (5, 1), (10, 1), (11, 1), (20, 1), (21, 2), (31, 3)] {
            check(&says, since_s, Some(first));
        }
        check(&[], 5, None);
        // Without headers, or with those of versions that did not say it, everything is read.
        check(&[Some(0), Some(0), None], 99, Some(1));
        check(&[Some(1), None, Some(0), Some(20)], 21, Some(3));
        check(&[Some(1), None, Some(0), Some(20)], 20, Some(1));
        // A clock that was ahead: nothing after it is passed over until that time has come.
        check(&[Some(1), Some(90), Some(90), Some(90)], 50, Some(1));
        check(&[Some(1), Some(90), Some(90), Some(90)], 91, Some(3));
        // One that lies: a time that goes back is not believed, one too late costs reading, one too early a segment.
        check(&[Some(1), Some(10), Some(20), Some(2), Some(60)], 15, Some(1));
        check(&[Some(1), Some(10), Some(20), Some(2), Some(60)], 25, Some(2));
        check(&[Some(1), Some(10), Some(20), Some(2), Some(60)], 61, Some(4));
        check(&[Some(1), Some(50), Some(u32::MAX), Some(60), Some(70)], 71, Some(1));
        check(&[Some(1), Some(10), Some(10), Some(60)], 15, Some(2));
    }

    #[test]
    fn a_time_that_has_not_come_says_nothing_of_an_age() {
        for (made_s, until_s, says_s) in [
            (50, 41, Some(50)),
            (40, 51, Some(50)),
            (40, 0, Some(40)),
            (101, 51, Some(50)),
            (50, 200, Some(50)),
            (101, 0, None),
            (101, 200, None),
        ] {
            let header = Header { made_ns: made_s * SECOND_NS, until: Until(until_s), ..NONE };
            let says_ns = header.begun_ns(100 * SECOND_NS);
            assert_eq!(says_ns, says_s.map(|s: u64| s * SECOND_NS), "{made_s} {until_s}");
        }
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
