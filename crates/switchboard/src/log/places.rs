//! The places of a named subscriber in the lanes of a topic: the file `readers/NAME`. No I/O.
//!
//! Two copies, as of the queue's table: the one with the higher generation that holds counts.

use super::MOST_NUMBER;
use super::table::LANES;

/// What a copy begins with.
pub(super) const MAGIC: [u8; 8] = *b"SWBDPLA1";
const CHECKSUM_AT: usize = 16 + 8 * LANES;
const COPY_BYTES: usize = CHECKSUM_AT + 4;
/// Where the two copies are.
pub(super) const COPIES_AT: [usize; 2] = [0, 4096];
/// What follows is not looked at.
pub(crate) const FILE_BYTES: usize = COPIES_AT[1] + COPY_BYTES;

/// The next message of each lane; 0 for a lane that was not there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    generation: u64,
    next: [u64; LANES],
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Places.
    Whole(Box<Places>),
    /// One copy, which may be the older one.
    Half(Box<Places>),
    /// Nothing, or something of which no copy holds.
    Damaged,
}

impl Places {
    /// Before every message of every lane.
    pub(crate) const BEFORE_ALL: Self = Self { generation: 0, next: [0; LANES] };

    /// Reads what a file holds.
    pub(crate) fn parse(bytes: &[u8]) -> Kept {
        let copy = |at: usize| bytes.get(at..at + COPY_BYTES).and_then(Self::parse_copy);
        let [first, second] = COPIES_AT.map(copy);
        match (first, second) {
            (Some(first), Some(second)) if second.generation > first.generation => {
                Kept::Whole(Box::new(second))
            }
            (Some(first), Some(_)) => Kept::Whole(Box::new(first)),
            (Some(one), None) | (None, Some(one)) => Kept::Half(Box::new(one)),
            (None, None) => Kept::Damaged,
        }
    }

    fn parse_copy(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_at_checked(CHECKSUM_AT)?;
        if body[..8] != MAGIC || crc32c::crc32c(body).to_le_bytes() != checksum {
            return None;
        }
        let mut words = body[8..].chunks_exact(8).map(|chunk| {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        let generation = words.next()?;
        let mut next = [0; LANES];
        next.iter_mut().zip(words).for_each(|(place, word)| *place = word);
        // What nobody comes to would be counted on from.
        let is_possible = next.iter().chain([&generation]).all(|number| *number <= MOST_NUMBER);
        is_possible.then_some(Self { generation, next })
    }

    /// Where the next copy goes, and its bytes.
    pub(crate) fn next_copy(&mut self) -> (u64, Vec<u8>) {
        self.generation += 1;
        let mut bytes = Vec::with_capacity(COPY_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.generation.to_le_bytes());
        for next in self.next {
            bytes.extend(next.to_le_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        (COPIES_AT[(self.generation % 2) as usize] as u64, bytes)
    }

    pub(crate) fn set(&mut self, lane: u32, next: u64) {
        if let Some(place) = self.next.get_mut(lane as usize) {
            *place = next;
        }
    }

    /// The next message of a lane; `None` for one that was not there yet.
    pub(crate) fn get(&self, lane: u32) -> Option<u64> {
        self.next.get(lane as usize).copied().filter(|next| *next > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place in lane 63.
    fn place(file: &[u8]) -> Option<u64> {
        let (Kept::Whole(places) | Kept::Half(places)) = Places::parse(file) else {
            panic!("no copy holds")
        };
        assert_eq!(places.get(62), None);
        places.get(63)
    }

    #[test]
    fn the_newer_copy_counts_and_a_damaged_one_does_not() {
        let mut file = vec![0; 8192];
        assert_eq!(Places::parse(&file), Kept::Damaged);
        assert_eq!(Places::parse(&[]), Kept::Damaged);
        let mut places = Places::BEFORE_ALL;
        for next in [5, 6] {
            places.set(63, next);
            let (at, bytes) = places.next_copy();
            file[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(place(&file), Some(6));
        assert!(matches!(Places::parse(&file), Kept::Whole(_)));
        let [newer, older] = COPIES_AT;
        for bit in 0..COPY_BYTES * 8 {
            let mut damaged = file.clone();
            damaged[newer + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(place(&damaged), Some(5), "bit {bit}");
            assert!(matches!(Places::parse(&damaged), Kept::Half(_)), "bit {bit}");
            damaged[older + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Places::parse(&damaged), Kept::Damaged, "bit {bit}");
        }
    }
}
