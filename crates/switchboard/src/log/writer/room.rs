//! Room for messages in a segment: blocks are reserved ahead of the writer, so that a full disk is an error and not a fault.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use switchboard_kernel::io;
use switchboard_kernel::mmap::{self, Advice};

use super::frame::frame_bytes;
use super::segment::HEADER_BYTES;
use super::{Durability, LaneWriter, Manner, Refusal};
use crate::error::{Error, ErrorKind};

/// Room for messages is made in such steps.
pub(super) const STEP_BYTES: u64 = 1 << 20;
/// In such steps where the file system has little left, of which so much stays free.
const LEAST_STEP_BYTES: u64 = 64 << 10;
const KEPT_FREE_BYTES: u64 = 128 << 10;
/// Of what goes to the disk at once, blocks are reserved so far ahead, after a first step. Each piece of a file that lies
/// elsewhere on the disk is noted; where a file system has many to note, it writes more with each sync.
const LONG_STEP_BYTES: u64 = 16 << 20;
/// That is done where the file system has so much left for each byte.
const LEFT_FOR_EACH: u64 = 8;
/// Zeros are written ahead where so many syncs, or more, took one step of reserved blocks.
const MANY_SYNCS: u32 = 8;
/// They are written in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
const EIO: i32 = 5;

impl LaneWriter {
    /// Sees to it that there is room up to here.
    #[inline]
    pub(super) fn make_room(&mut self, end: u64) -> Result<(), Refusal> {
        if end > self.file_bytes {
            return Err(Refusal::SegmentFull);
        }
        if end > self.reserved {
            self.reserve(end)?;
        }
        Ok(())
    }

    /// What is written to a file that was cut would make it longer again, and nobody would know.
    pub(super) fn check_length(&self, call: &'static str) -> switchboard_kernel::Result<()> {
        // Not with `stat`: once a time of a file was asked for, each write notes a new one, and some file
        // systems put that on the disk with each sync.
        match (&self.file).seek(SeekFrom::End(0)) {
            Ok(len) if len == self.file_bytes => Ok(()),
            _ => Err(switchboard_kernel::Error::from_raw(call, EIO)),
        }
    }

    #[cold]
    pub(super) fn failed(&self, doing: &str, error: switchboard_kernel::Error) -> Error {
        let failed = self.folder.kernel(doing, error);
        match error.name() {
            "EFBIG" => too_long(failed),
            // What is received from a queue is removed by the segment, and in each lane but the newest.
            "ENOSPC" | "EDQUOT" if self.manner.segment_bytes > LEAST_STEP_BYTES => failed.hint(
                "the file system or a quota is full: see df and df -i; a log that is made anew with shorter \
                 segments (switchboard unlink, then ?segment=64KiB) gives room back sooner",
            ),
            _ => failed,
        }
    }

    /// Whether the file system has room for such a message, as far as it says.
    pub(crate) fn has_room_for(&self, payload_bytes: usize) -> bool {
        let takes = frame_bytes(payload_bytes) as u64 + 2 * LEAST_STEP_BYTES + KEPT_FREE_BYTES;
        mmap::free_bytes(&self.file).is_ok_and(|free| free >= takes)
    }

    /// Whether there is a frame in the segment that is written.
    pub(crate) fn has_frames(&self) -> bool {
        self.offset > HEADER_BYTES as u64
    }

    /// Reserves blocks, so that a store cannot meet a full disk.
    #[cold]
    fn reserve(&mut self, end: u64) -> Result<(), Error> {
        let step = end.next_multiple_of(STEP_BYTES).min(self.file_bytes);
        let until = self
            .check_length("fallocate")
            .and_then(|()| self.reserve_step(step, end))
            .map_err(|error| self.failed("cannot reserve room for messages", error))?;
        if self.manner.durability == Durability::Memory {
            // The pages that come next are wanted at once; if that fails they come one by one. What is
            // synced often would be written to the disk for nothing.
            let range = self.reserved as usize..until as usize;
            let _ = self.mapping.advise_range(range, Advice::PopulateWrite);
        }
        if self.syncs >= MANY_SYNCS {
            self.write_zeros(until);
        }
        self.syncs = 0;
        self.reserved = until;
        Ok(())
    }

    /// Up to a step's end; where the disk has no room for that, as far as has to be, unless that leaves none for another
    /// segment: of a queue, one has to be made before what was received is removed.
    fn reserve_step(&mut self, step: u64, end: u64) -> switchboard_kernel::Result<u64> {
        let error = match self.reserve_blocks(step) {
            Ok(()) => return Ok(step),
            Err(error) => error,
        };
        // Some file systems keep what they could get. What was written is not given back.
        let from = self.blocks.max(self.offset);
        let _ = mmap::give_back(&self.file, from, step - from);
        let least = end.next_multiple_of(LEAST_STEP_BYTES).min(step);
        let takes = least.saturating_sub(self.blocks).saturating_add(KEPT_FREE_BYTES);
        let fits = mmap::free_bytes(&self.file).is_ok_and(|free| free >= takes);
        if !is_full_name(error.name()) || least == step || !fits {
            return Err(error);
        }
        self.reserve_blocks(least).map(|()| least)
    }

    fn reserve_blocks(&mut self, until: u64) -> switchboard_kernel::Result<()> {
        if until <= self.blocks {
            return Ok(());
        }
        // Blocks that join others which are being written confuse ext4, which warns in the kernel's log.
        self.finish_begun();
        let far = if until > STEP_BYTES { self.file_bytes } else { until };
        self.blocks = reserve_ahead(&self.file, self.manner.durability, (self.blocks, until), far)?;
        Ok(())
    }

    /// Where nothing was written yet, up to here. The first time that a block is written the file system has
    /// to note that, too, with the next sync; so many blocks are written at a time.
    fn write_zeros(&self, until: u64) {
        // A new segment begins with its header.
        let mut offset = self.reserved.max(self.offset);
        while offset < until {
            let zeros = &ZEROS[..(until - offset).min(ZEROS.len() as u64) as usize];
            // If it fails they are zeros as before.
            if io::write_all_at(&self.file, zeros, offset).is_err() {
                return;
            }
            offset += zeros.len() as u64;
        }
    }
}

/// Reserves the first blocks of a new segment, those of its header among them: all, where many messages are expected.
/// That they are one piece makes syncing cheaper; if it fails the first message says so.
pub(super) fn reserve_first(file: &File, manner: Manner, takes_more: bool) -> u64 {
    if manner.durability == Durability::Memory {
        return 0;
    }
    let first = STEP_BYTES.min(manner.segment_bytes);
    let far = if takes_more { manner.segment_bytes } else { first };
    reserve_ahead(file, manner.durability, (0, first), far).unwrap_or(0)
}

/// Reserves blocks from one position to another, or further, up to `far`, where that makes syncing cheaper. Returns to where.
fn reserve_ahead(
    file: &File,
    durability: Durability,
    (from, until): (u64, u64),
    far: u64,
) -> switchboard_kernel::Result<u64> {
    let far = until.next_multiple_of(LONG_STEP_BYTES).min(far);
    if far > until && durability != Durability::Memory && leaves_room(file, far - from) {
        match mmap::reserve(file, far) {
            Ok(()) => return Ok(far),
            // Some file systems keep what they could get.
            Err(_) => _ = mmap::give_back(file, until, far - until),
        }
    }
    mmap::reserve(file, until).map(|()| until)
}

/// Whether so many bytes are a small part of what the file system has left.
fn leaves_room(file: &File, bytes: u64) -> bool {
    mmap::free_bytes(file).is_ok_and(|free| free / LEFT_FOR_EACH >= bytes)
}

/// Whether a file system, or what somebody may have of it, is full.
pub(crate) fn is_full(error: &Error) -> bool {
    error.system_name().is_some_and(is_full_name)
}

fn is_full_name(name: &str) -> bool {
    matches!(name, "ENOSPC" | "EDQUOT")
}

/// Files of this process may be no longer.
pub(super) fn too_long(failed: Error) -> Error {
    failed.kinded(ErrorKind::LimitReached).hint(
        "files of this process may be no longer (RLIMIT_FSIZE): raise it with ulimit -f or \
         LimitFSIZE=, or use shorter segments (?segment=)",
    )
}
