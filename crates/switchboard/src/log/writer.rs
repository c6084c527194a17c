//! The writer of a lane: one process at a time, which never writes over anything.
//!
//! `taking` finds where it goes on, `new_segment` makes segments, `room` reserves blocks in them, and `durable` does what
//! `?durability=` asks for.

mod durable;
mod new_segment;
mod room;
mod taking;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::fence;

use switchboard_kernel::io::{self, coarse_time_ns};
use switchboard_kernel::mmap::Mapping;

use super::Durability;
use super::batch::Batch;
use super::ends::End;
use super::folder::Folder;
use super::frame::{
    self, COMMIT_BYTE, COMMIT_BYTE_AT, HEADER_BYTES, LARGEST_PAYLOAD_BYTES, Place, frame_bytes,
};
use super::segment::{self, Pattern};
use crate::error::Error;

pub(crate) use room::is_full;

/// Messages are put into one batch up to this size: so much one flipped bit may cost. It holds 128 KiB of messages
/// with the lengths of each, where they are of 64 bytes or more.
const LARGEST_BATCH_BYTES: usize = 140 << 10;
const CANNOT_WRITE: &str = "cannot write to a segment";
/// The length of a segment, unless the address says otherwise.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// The shortest segment.
pub(crate) const LEAST_SEGMENT_BYTES: u64 = 4096;

/// What a log is written with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) pattern: Pattern,
    pub(crate) schema: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) durability: Durability,
}

/// The end of a lane.
#[derive(Debug)]
pub(crate) struct LaneWriter {
    folder: Arc<Folder>,
    manner: Manner,
    lane: u32,
    file: File,
    mapping: Mapping,
    segment: u64,
    /// The length of its file, which may be another one than of those that are made.
    file_bytes: u64,
    /// Where the next batch goes.
    offset: u64,
    /// There is room for messages up to here.
    reserved: u64,
    /// Blocks are reserved up to here, or further than they are asked for.
    blocks: u64,
    /// The number of the next message.
    sequence: u64,
    /// Frames before this are as durable as asked.
    durable: u64,
    /// The disk began with frames before this.
    begun: u64,
    /// What it began with before this was waited for.
    waited: u64,
    /// When the segment was made, ns since 1970.
    made_ns: u64,
    /// When its last message was written; `None` where it has none.
    last_ns: Option<u64>,
    /// The latest time of a message of the lane; 0 where there is none, `None` where that is not known.
    newest_ns: Option<u64>,
    /// The segment before it, where this writer finished it, and when its last message was written.
    ended: Option<(u64, u64)>,
    /// What a predecessor left unfinished.
    recovered: Option<String>,
    /// The frame being committed by itself; kept for its memory.
    frame: Vec<u8>,
    /// What is gathered.
    batch: Batch,
    /// Writing the batch out failed. What is in the segment of it stays there, so it goes nowhere else.
    is_stuck: bool,
    /// How often was synced since blocks were reserved.
    syncs: u32,
    /// The name of the segment is on the disk, if names are to be.
    is_name_synced: bool,
    /// Why syncing failed. What was not synced then may be lost, whatever a later call says.
    unsynced: Option<i32>,
}

/// Why a message was not appended.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// What is gathered has to be written out before more is accepted.
    Unwritten,
    /// The segment is full; the caller decides whether there may be another.
    SegmentFull,
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The largest payload that a segment of this length takes.
pub(crate) fn largest_payload_bytes(segment_bytes: u64) -> usize {
    let room = segment_bytes as usize - segment::HEADER_BYTES - HEADER_BYTES;
    (room & !7).min(LARGEST_PAYLOAD_BYTES)
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        // A child of fork would give away its parent's lane.
        if !self.folder.is_here() {
            return;
        }
        let written = self.sequence - self.batch.messages();
        self.folder.note_end(self.lane, End { segment: self.segment, sequence: written });
        self.folder.leave_lane(self.lane);
    }
}

impl LaneWriter {
    /// The lane, and the number of its next message.
    pub(crate) fn end(&self) -> (u32, u64) {
        (self.lane, self.sequence)
    }

    /// What a predecessor left unfinished, and what became of it.
    pub(crate) fn recovered(&self) -> Option<&str> {
        self.recovered.as_deref()
    }

    /// When the segment that is written was begun, ns since 1970; `None` while it has no message. Where that has
    /// not come yet by this clock, it counts as begun now.
    pub(crate) fn began_ns(&mut self, now_ns: u64) -> Option<u64> {
        self.made_ns = self.made_ns.min(now_ns);
        self.last_ns.and(Some(self.made_ns))
    }

    /// When the last message of a segment was written, if this writer knows it.
    pub(crate) fn ended_ns(&self, lane: u32, segment: u64) -> Option<u64> {
        let ended = self.ended.filter(|(number, _)| self.lane == lane && *number == segment);
        ended.map(|(_, ended_ns)| ended_ns)
    }

    /// Whether messages are gathered also where each is sent by itself, and so written out.
    pub(crate) fn gathers(&self) -> bool {
        self.manner.durability != Durability::Memory
    }

    /// Accepts a message, and commits it or gathers it: in any case where others follow at once (`more`), or where
    /// messages are [always gathered](Self::gathers). Whoever waits for it is not woken; see [`Folder::ring`].
    #[inline]
    pub(crate) fn append(&mut self, payload: &[u8], more: bool) -> Result<(), Refusal> {
        if more || self.gathers() { self.gather(payload) } else { self.commit(payload) }
    }

    #[inline]
    fn commit(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        if !self.batch.is_empty() {
            return Err(Refusal::Unwritten);
        }
        let whole = frame_bytes(payload.len());
        let end = self.offset + whole as u64;
        self.make_room(end)?;
        self.frame.clear();
        self.frame.resize(whole, 0);
        let now_ns = coarse_time_ns();
        frame::encode(self.place(), self.sequence, now_ns, payload, &mut self.frame);
        let at = self.offset as usize;
        let stored = self
            .mapping
            .write_at(at + 8, &self.frame[8..])
            .and_then(|()| self.mapping.atomic_u64(at));
        match stored {
            // Pairs with the acquiring load of readers: what they find after it is the whole frame.
            Ok(word) => word.store(frame::commit_word(payload.len(), 1).to_le(), Release),
            Err(error) => return Err(self.failed(CANNOT_WRITE, error).into()),
        }
        self.offset = end;
        self.durable = end;
        self.sequence += 1;
        self.sent(now_ns);
        Ok(())
    }

    /// Notes when messages were sent.
    #[inline]
    fn sent(&mut self, now_ns: u64) {
        self.last_ns = Some(now_ns);
        self.newest_ns = self.newest_ns.map(|newest_ns| newest_ns.max(now_ns));
    }

    #[inline]
    fn gather(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let whole = self.batch.frame_bytes_with(payload);
        if self.is_stuck || whole > LARGEST_BATCH_BYTES && !self.batch.is_empty() {
            return Err(Refusal::Unwritten);
        }
        self.make_room(self.offset + whole as u64)?;
        self.batch.add(payload);
        self.sequence += 1;
        let reserved_bytes = (self.reserved - self.offset) as usize;
        self.batch.allow(reserved_bytes.min(LARGEST_BATCH_BYTES));
        Ok(())
    }

    /// Gathers a message behind those that are gathered, where it needs no look at anything else. Otherwise
    /// [`append`](Self::append) says what is to be done.
    #[inline]
    pub(crate) fn gather_next(&mut self, payload: &[u8]) -> bool {
        let is_gathered = self.batch.add_next(payload);
        self.sequence += u64::from(is_gathered);
        is_gathered
    }

    /// Where the next batch goes.
    #[inline]
    fn place(&self) -> Place {
        Place { lane: self.lane, segment: self.segment, offset: self.offset }
    }

    /// Commits what is gathered. After an error it is gathered still, and the next call tries again.
    pub(crate) fn write_out(&mut self) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let now_ns = coarse_time_ns();
        let written = self.write(now_ns);
        self.is_stuck = written.is_err();
        if self.is_stuck {
            self.batch.allow(0);
        }
        self.offset += written.map_err(|error| self.failed(CANNOT_WRITE, error))?;
        if self.manner.durability == Durability::Memory {
            self.durable = self.offset;
        }
        self.sent(now_ns);
        self.batch.clear();
        // A frame of many messages is lost with one flipped bit: it is known then how many they were.
        self.folder.note_end(self.lane, End { segment: self.segment, sequence: self.sequence });
        Ok(())
    }

    /// Writes the batch to the file, and commits it; how many bytes it takes.
    fn write(&mut self, now_ns: u64) -> switchboard_kernel::Result<u64> {
        self.check_length("pwrite")?;
        let (place, first) = (self.place(), self.sequence - self.batch.messages());
        let frame = self.batch.seal(place, first, now_ns);
        io::write_all_at(&self.file, frame, self.offset)?;
        // Pairs with the acquiring load of readers, for what the kernel copies on behalf of this thread: who
        // finds the byte finds the whole frame.
        fence(Release);
        io::write_all_at(&self.file, COMMIT_BYTE, self.offset + COMMIT_BYTE_AT as u64)?;
        let len_bytes = frame.len() as u64;
        self.check_length("pwrite")?;
        Ok(len_bytes)
    }
}
