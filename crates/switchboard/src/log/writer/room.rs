//! Room for messages in a segment: blocks are reserved ahead of the writer, so that a full disk is an error and not a fault.

use std::io::{Seek, SeekFrom};

use switchboard_kernel::io;
use switchboard_kernel::mmap::{self, Advice};

use super::{Durability, LEAST_SEGMENT_BYTES, LaneWriter, Refusal};
use crate::error::{Error, ErrorKind};

/// Blocks are reserved so far ahead.
const RESERVE_BYTES: u64 = 1 << 20;
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
            // On a small one there may be room for a segment that is shorter than a step.
            "ENOSPC" if self.file_bytes > LEAST_SEGMENT_BYTES => failed.hint(
                "the file system or a quota is full: see df and df -i; a log takes room in steps of \
                 1 MiB, or of a segment where that is shorter (?segment=64KiB)",
            ),
            _ => failed,
        }
    }

    /// Reserves blocks, so that a store cannot meet a full disk.
    #[cold]
    fn reserve(&mut self, end: u64) -> Result<(), Error> {
        let until = end.next_multiple_of(RESERVE_BYTES).min(self.file_bytes);
        self.check_length("fallocate")
            .and_then(|()| mmap::reserve(&self.file, until))
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

/// Files of this process may be no longer.
fn too_long(failed: Error) -> Error {
    failed.kinded(ErrorKind::LimitReached).hint(
        "files of this process may be no longer (RLIMIT_FSIZE): raise it with ulimit -f or \
         LimitFSIZE=, or use shorter segments (?segment=)",
    )
}
