//! Large messages on the writing side: blocks of memory, and when they are nobody's any more.

use switchboard_kernel::Result;
use switchboard_kernel::shared_memory::OwnMemory;
use switchboard_shm::AtomicU64;
use switchboard_shm::arena::{Arena, Block, InFlight, PLACE_BYTES, Place};

use super::memory::Own;

/// What the large messages of an endpoint take at most, in bytes, but for one block of each size.
const MOST_BYTES: u64 = 256 << 20;

/// Of a topic the first segments of small blocks have so much.
const FIRST_BYTES_OF_TOPIC: u64 = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct Blocks {
    arena: Arena<Own>,
    bytes: u64,
    in_flight: InFlight,
}

impl Blocks {
    /// Payload of the frame of a large message.
    pub(super) const FRAME_BYTES: u64 = PLACE_BYTES as u64;

    /// Whether there is one for a message of this length.
    pub(super) fn has_free(&self, len: u64) -> bool {
        self.arena.has_free(len)
    }

    pub(super) fn take(&mut self, len: u64) -> Option<Block> {
        self.arena.take(len)
    }

    /// Of a topic, whose messages are read as they come.
    pub(super) fn of_topic() -> Self {
        Self { arena: Arena::with_first_bytes(FIRST_BYTES_OF_TOPIC), ..Self::default() }
    }

    /// Whether there may be more memory for messages of this length.
    pub(super) fn may_grow(&self, len: u64) -> bool {
        self.more_bytes(len).is_some()
    }

    /// How much more, if any.
    fn more_bytes(&self, len: u64) -> Option<u64> {
        self.arena.next_segment_bytes(len, MOST_BYTES.saturating_sub(self.bytes))
    }

    /// Adds a segment; its number and memory.
    pub(super) fn grow(&mut self, len: u64) -> Result<(u32, &Own)> {
        let bytes = self.more_bytes(len).unwrap_or(len);
        let memory = OwnMemory::create("switchboard-arena", bytes as usize)?;
        self.bytes += bytes;
        let index = self.arena.add(Own(memory), len);
        let memory = self.arena.segments().last().expect("added just now");
        Ok((index, memory))
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Own> {
        self.arena.segments()
    }

    pub(super) fn room(&self, block: &Block) -> &[AtomicU64] {
        self.arena.room(block)
    }

    pub(super) fn place(&self, block: &Block, len: u64) -> Place {
        self.arena.place(block, len)
    }

    /// A block's frame will end here.
    pub(super) fn sent(&mut self, block: Block, end: u64) {
        self.in_flight.add(block, end);
    }

    /// The block is not used after all, or nobody's any more.
    pub(super) fn give_back(&mut self, block: Block) {
        self.arena.give_back(block);
    }

    /// Frames up to here are nobody's any more.
    pub(super) fn reclaim(&mut self, through: u64) {
        self.in_flight.reclaim(through, &mut self.arena);
    }

    /// Where the oldest frame ends whose block somebody may still read.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.in_flight.oldest()
    }
}
