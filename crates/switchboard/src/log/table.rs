//! Which receiver of a queue has which messages: the table in the file `queue`. No I/O;
//! `docs/design/log.md` draws the bytes and says what happens when a receiver dies.

use super::MOST_NUMBER;

/// The most senders at a time.
pub(crate) const LANES: usize = 64;
/// The most receivers at a time, with those whose claims wait to be taken over.
pub(crate) const CLAIMS: usize = 64;

/// Where the two copies are in their file.
pub(crate) const COPIES_AT: [u64; 2] = [4096, 24_576];
const _: () = assert!(COPIES_AT[1] - COPIES_AT[0] >= MOST_BYTES as u64);

/// What a copy begins with.
pub(super) const MAGIC: [u8; 8] = *b"SWBDQUE1";
const NEXT_AT: usize = 24;
const AGAIN_AT: usize = NEXT_AT + 8 * LANES;
const CLAIMS_AT: usize = AGAIN_AT + 8 * LANES;
const CLAIM_BYTES: usize = 40;
const COUNT_AT: usize = CLAIMS_AT + CLAIM_BYTES * CLAIMS;
const RETURNED_AT: usize = COUNT_AT + 8;
const RETURNED_BYTES: usize = 16;
/// The most messages given back that wait in the table.
pub(crate) const MOST_RETURNED: usize = 1024;
/// Bytes of a copy without messages given back. They say how long a longer one is.
pub(crate) const LEAST_BYTES: usize = RETURNED_AT + 4;
/// Bytes of the longest copy.
pub(crate) const MOST_BYTES: usize = LEAST_BYTES + RETURNED_BYTES * MOST_RETURNED;

/// A run of messages that one receiver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) lane: u32,
    /// How often they were handed out before.
    pub(crate) deliveries: u32,
    /// The first message that is not settled.
    pub(crate) first: u64,
    /// The message after the last. The claim is empty when it equals `first`.
    pub(crate) end: u64,
    /// Bit B: message `first + 1 + B` is settled.
    pub(crate) settled: u64,
}

impl Claim {
    pub(crate) fn is_empty(&self) -> bool {
        self.first >= self.end
    }

    /// Whether a message of the claim is settled.
    pub(crate) fn is_settled(&self, sequence: u64) -> bool {
        match sequence.checked_sub(self.first) {
            None => true,
            Some(0) => false,
            Some(after) => after <= 64 && self.settled >> (after - 1) & 1 == 1,
        }
    }

    /// Notes which messages are settled: `is_settled` is asked about those from `first` on.
    pub(crate) fn settle(&mut self, is_settled: impl Fn(u64) -> bool) {
        while self.first < self.end && is_settled(self.first) {
            self.first += 1;
        }
        self.settled = (0..64)
            .filter(|bit| {
                let sequence = self.first + 1 + bit;
                sequence < self.end && is_settled(sequence)
            })
            .fold(0, |bits, bit| bits | 1 << bit);
    }
}

/// A message that a receiver gave back, and that nobody has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) lane: u32,
    /// How often it was handed out, as far as that counts.
    pub(crate) deliveries: u32,
    pub(crate) sequence: u64,
}

/// The table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) generation: u64,
    /// Messages rejected as often as allowed.
    pub(crate) rejected: u64,
    /// The next message of each lane to hand out.
    pub(crate) next: [u64; LANES],
    /// Messages of each lane before this one may have been handed out when the table was damaged:
    /// they come marked.
    pub(crate) again: [u64; LANES],
    pub(crate) claims: [Claim; CLAIMS],
    /// At most [`MOST_RETURNED`].
    pub(crate) returned: Vec<Returned>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            generation: 0,
            rejected: 0,
            next: [1; LANES],
            again: [1; LANES],
            claims: [Claim::default(); CLAIMS],
            returned: Vec::new(),
        }
    }
}

impl Table {
    /// Everything before this message of a lane is settled.
    pub(crate) fn settled_before(&self, lane: u32) -> u64 {
        let claimed = self.claims.iter().filter(|claim| claim.lane == lane && !claim.is_empty());
        let returned = self.returned.iter().filter(|returned| returned.lane == lane);
        let next = self.next.get(lane as usize).copied().unwrap_or(1);
        let unsettled = claimed.map(|claim| claim.first);
        unsettled.chain(returned.map(|returned| returned.sequence)).fold(next, u64::min)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEAST_BYTES + RETURNED_BYTES * self.returned.len());
        bytes.extend(MAGIC);
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend(self.rejected.to_le_bytes());
        for place in self.next.into_iter().chain(self.again) {
            bytes.extend(place.to_le_bytes());
        }
        for claim in &self.claims {
            bytes.extend(claim.lane.to_le_bytes());
            bytes.extend(claim.deliveries.to_le_bytes());
            for word in [claim.first, claim.end, claim.settled, 0] {
                bytes.extend(word.to_le_bytes());
            }
        }
        // Never more than were allowed to be added.
        bytes.extend((self.returned.len() as u64).to_le_bytes());
        for returned in &self.returned {
            bytes.extend(returned.lane.to_le_bytes());
            bytes.extend(returned.deliveries.to_le_bytes());
            bytes.extend(returned.sequence.to_le_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// How long the copy is that begins so; `None` when no copy does.
    pub(crate) fn len_bytes(head: &[u8]) -> Option<usize> {
        let count = head.get(COUNT_AT..RETURNED_AT).map(|bytes| word(bytes, 0))?;
        let count = usize::try_from(count).ok().filter(|count| *count <= MOST_RETURNED)?;
        (head[..8] == MAGIC).then_some(LEAST_BYTES + RETURNED_BYTES * count)
    }

    /// Reads a copy; `None` when it does not hold. What follows it is not looked at.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::len_bytes(bytes)?)?;
        let (body, checksum) = bytes.split_at(bytes.len() - 4);
        if crc32c::crc32c(body).to_le_bytes() != checksum {
            return None;
        }
        let half = |at: usize| half(body, at);
        let word = |at: usize| word(body, at);
        let mut table = Self { generation: word(8), rejected: word(16), ..Self::default() };
        for (lane, next) in table.next.iter_mut().enumerate() {
            *next = word(NEXT_AT + 8 * lane);
        }
        for (lane, again) in table.again.iter_mut().enumerate() {
            *again = word(AGAIN_AT + 8 * lane);
        }
        for (at, claim) in table.claims.iter_mut().enumerate() {
            let at = CLAIMS_AT + CLAIM_BYTES * at;
            *claim = Claim {
                lane: half(at),
                deliveries: half(at + 4),
                first: word(at + 8),
                end: word(at + 16),
                settled: word(at + 24),
            };
        }
        table.returned = (RETURNED_AT..body.len())
            .step_by(RETURNED_BYTES)
            .map(|at| Returned { lane: half(at), deliveries: half(at + 4), sequence: word(at + 8) })
            .collect();
        table.is_possible().then_some(table)
    }

    /// Whether receivers may have come so far. What nobody comes to would be counted on from.
    fn is_possible(&self) -> bool {
        let places = self.next.iter().chain(&self.again).chain([&self.generation, &self.rejected]);
        let claims = self.claims.iter().flat_map(|claim| [&claim.first, &claim.end]);
        let returned = self.returned.iter().map(|returned| &returned.sequence);
        places.chain(claims).chain(returned).all(|number| *number <= MOST_NUMBER)
    }

    /// The copy that counts, of two.
    pub(crate) fn newer(first: Option<Self>, second: Option<Self>) -> Option<Self> {
        match (first, second) {
            (Some(first), Some(second)) if second.generation > first.generation => Some(second),
            (Some(first), _) => Some(first),
            (None, second) => second,
        }
    }
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(half(bytes, at)) | u64::from(half(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_was_written_and_no_flipped_bit_passes() {
        let mut table = Table { generation: 8, rejected: 1, ..Table::default() };
        table.next[63] = 77;
        table.again[62] = 5;
        table.claims[63] = Claim { lane: 63, deliveries: 2, first: 70, end: 77, settled: 0b101 };
        for count in [0, 1, 3] {
            let returned = |n: u64| Returned { lane: 63, deliveries: 1, sequence: 60 + n };
            table.returned = (0..count).map(returned).collect();
            let good = table.to_bytes();
            assert_eq!(Table::len_bytes(&good[..LEAST_BYTES]), Some(good.len()));
            assert_eq!(Table::parse(&good), Some(table.clone()));
            // What comes before is the same for each count.
            let from = if count == 0 { 0 } else { COUNT_AT };
            for bit in from * 8..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Table::parse(&bytes), None, "bit {bit}");
            }
            assert_eq!(Table::parse(&good[..good.len() - 1]), None, "cut off");
        }
        assert_eq!(Table::parse(&[]), None);
        table.returned = vec![Returned { lane: 0, deliveries: 0, sequence: 1 }; MOST_RETURNED + 1];
        assert_eq!(Table::parse(&table.to_bytes()), None, "more than a table takes");
    }

    #[test]
    fn numbers_that_nobody_comes_to_do_not_hold() {
        let good = Table::default();
        let lies: [fn(&mut Table, u64); 7] = [
            |table, lie| table.generation = lie,
            |table, lie| table.rejected = lie,
            |table, lie| table.next[5] = lie,
            |table, lie| table.again[5] = lie,
            |table, lie| table.claims[5].first = lie,
            |table, lie| table.claims[5].end = lie,
            |table, lie| {
                table.returned = vec![Returned { lane: 0, deliveries: 0, sequence: lie }];
            },
        ];
        for (at, lie) in lies.into_iter().enumerate() {
            for (number, holds) in
                [(MOST_NUMBER, true), (MOST_NUMBER + 1, false), (u64::MAX, false)]
            {
                let mut table = good.clone();
                lie(&mut table, number);
                assert_eq!(Table::parse(&table.to_bytes()).is_some(), holds, "{at}: {number}");
            }
        }
    }

    #[test]
    fn settling_moves_on_and_remembers_what_is_out_of_order() {
        let mut claim = Claim { first: 10, end: 100, ..Claim::default() };
        claim.settle(|sequence| [10, 11, 13, 76, 77].contains(&sequence));
        assert_eq!((claim.first, claim.settled), (12, 1 | 1 << 63));
        assert!(claim.is_settled(13) && !claim.is_settled(14) && !claim.is_settled(12));
        claim.settle(|_| true);
        assert!(claim.is_empty() && claim.settled == 0);
    }

    #[test]
    fn what_is_settled_is_before_every_claim() {
        let mut table = Table::default();
        table.next[2] = 50;
        assert_eq!(table.settled_before(2), 50);
        table.claims[0] = Claim { lane: 2, first: 20, end: 30, ..Claim::default() };
        table.claims[1] = Claim { lane: 1, first: 5, end: 6, ..Claim::default() };
        assert_eq!(table.settled_before(2), 20);
        let returned = |lane, sequence| Returned { lane, deliveries: 1, sequence };
        table.returned = vec![returned(2, 25), returned(2, 15), returned(1, 2)];
        assert_eq!(table.settled_before(2), 15);
    }
}
