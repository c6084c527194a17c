//! How far each lane was written, as the bell says it: two copies, so that one holds whoever dies while it is
//! written. No I/O; `docs/design/log.md` draws the bytes.

/// Words of a copy: the newest segment, the number of the next message, and the checksum of both.
const COPY_WORDS: usize = 3;
/// Words of a lane.
pub(crate) const WORDS: usize = 2 * COPY_WORDS;

/// How far a lane was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    /// The number of its newest segment; 0 where that is unknown.
    pub(crate) segment: u64,
    /// A number that no message there is to have again; 0 where that is unknown.
    pub(crate) sequence: u64,
}

impl End {
    /// What a lane's words say: the newest copy that holds.
    pub(crate) fn read(lane: u32, words: &[u64; WORDS]) -> Self {
        let copies = words.as_chunks::<COPY_WORDS>().0;
        copies.iter().filter_map(|copy| Self::check(lane, copy)).max().unwrap_or_default()
    }

    /// Which words to write, in which order, so that the other copy holds meanwhile.
    pub(crate) fn write(self, lane: u32, words: &[u64; WORDS]) -> [(usize, u64); COPY_WORDS] {
        let (copies, newest) = (words.as_chunks::<COPY_WORDS>().0, Self::read(lane, words));
        // The first one, unless that is what counts.
        let first_counts = Self::check(lane, &copies[0]) == Some(newest);
        let at = if first_counts { COPY_WORDS } else { 0 };
        [(at, self.segment), (at + 1, self.sequence), (at + 2, self.checksum(lane))]
    }

    fn check(lane: u32, copy: &[u64; COPY_WORDS]) -> Option<Self> {
        let [segment, sequence, checksum] = *copy;
        let end = Self { segment, sequence };
        (checksum == end.checksum(lane)).then_some(end)
    }

    /// Never zero, so that words that nobody wrote say nothing.
    fn checksum(self, lane: u32) -> u64 {
        let start = crc32c::crc32c(&lane.to_le_bytes());
        let start = crc32c::crc32c_append(start, &self.segment.to_le_bytes());
        u64::from(crc32c::crc32c_append(start, &self.sequence.to_le_bytes())) | 1 << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn end(segment: u64, sequence: u64) -> End {
        End { segment, sequence }
    }

    fn write(words: &mut [u64; WORDS], end: End) {
        for (at, word) in end.write(3, words) {
            words[at] = word;
        }
    }

    #[test]
    fn the_newest_counts_and_of_other_lanes_nothing() {
        let mut words = [0; WORDS];
        assert_eq!(End::read(3, &words), End::default());
        for newest in [end(7, 1), end(7, 4), end(7, 4), end(8, 4), end(8, 9), end(9, 10)] {
            write(&mut words, newest);
            assert_eq!(End::read(3, &words), newest);
            assert_eq!(End::read(2, &words), End::default());
        }
    }

    #[test]
    fn who_dies_while_it_writes_leaves_the_one_before() {
        let mut words = [0; WORDS];
        for (before, after) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
            let (old, new) = (end(before, before * 10), end(after, after * 10));
            let steps = new.write(3, &words);
            for died_after in 0..steps.len() {
                let mut left = words;
                for (at, word) in &steps[..died_after] {
                    left[*at] = *word;
                }
                assert_eq!(End::read(3, &left), old, "after {died_after} words");
            }
            write(&mut words, new);
        }
    }

    #[test]
    fn a_flipped_bit_makes_nobody_believe_in_what_was_not() {
        let mut words = [0; WORDS];
        write(&mut words, end(5, 100));
        write(&mut words, end(5, 101));
        for bit in 0..WORDS * 64 {
            let mut flipped = words;
            flipped[bit / 64] ^= 1 << (bit % 64);
            let found = End::read(3, &flipped);
            assert!([end(5, 100), end(5, 101)].contains(&found), "bit {bit}: {found:?}");
        }
    }
}
