//! Segments that a writer makes: the first one of a lane, and each one after a full one.

use std::fs::File;
use std::sync::Arc;

use switchboard_kernel::io::coarse_time_ns;
use switchboard_kernel::mmap::{Mapping, Mode};

use super::room::{STEP_BYTES, reserve_first, too_long};
use super::{Batch, End, Folder, LaneWriter, Manner, segment};
use crate::error::Error;
use crate::log::segment::Until;

/// Where a lane goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    pub(super) lane: u32,
    /// The number of the segment.
    pub(super) segment: u64,
    /// That of the next message.
    pub(super) sequence: u64,
    /// The latest time of a message of the lane; 0 where there is none, `None` where that is not known.
    pub(super) newest_ns: Option<u64>,
}

/// A segment that is open to be written.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) mapping: Mapping,
    /// The length of its file.
    pub(super) file_bytes: u64,
    /// Where the next frame goes.
    pub(super) offset: u64,
    /// Blocks are reserved up to here.
    pub(super) reserved: u64,
    pub(super) blocks: u64,
    pub(super) made_ns: u64,
    /// Its name is on the disk, if names are to be.
    pub(super) is_name_synced: bool,
}

impl LaneWriter {
    /// Makes a segment and begins to write it. Without room for messages it is no longer than its header: then
    /// the first message asks for another one.
    pub(super) fn start(
        folder: Arc<Folder>,
        manner: Manner,
        has_room: bool,
        next: Next,
        recovered: Option<String>,
    ) -> Result<Self, Error> {
        let file_bytes = if has_room { manner.segment_bytes } else { segment::HEADER_BYTES as u64 };
        let manner_of_file = Manner { segment_bytes: file_bytes, ..manner };
        let opened = make_segment(&folder, manner_of_file, next, false)?;
        let mut writer = Self::in_segment(folder, manner, next, opened);
        writer.recovered = recovered;
        Ok(writer)
    }

    pub(super) fn in_segment(
        folder: Arc<Folder>,
        manner: Manner,
        next: Next,
        opened: Opened,
    ) -> Self {
        Self {
            folder,
            manner,
            lane: next.lane,
            file: opened.file,
            mapping: opened.mapping,
            segment: next.segment,
            file_bytes: opened.file_bytes,
            offset: opened.offset,
            reserved: opened.reserved,
            blocks: opened.blocks,
            sequence: next.sequence,
            durable: opened.offset,
            begun: opened.offset,
            waited: opened.offset,
            made_ns: opened.made_ns,
            last_ns: None,
            newest_ns: next.newest_ns,
            ended: None,
            recovered: None,
            frame: Vec::new(),
            batch: Batch::default(),
            is_stuck: false,
            syncs: 0,
            is_name_synced: opened.is_name_synced,
            unsynced: None,
        }
    }

    /// Goes on in a new segment.
    pub(crate) fn rotate(&mut self) -> Result<(), Error> {
        self.make_durable()?;
        let next = Next {
            lane: self.lane,
            segment: self.segment + 1,
            sequence: self.sequence,
            newest_ns: self.newest_ns,
        };
        // One that was begun anew because of its age, or that had no room for messages, says nothing about the next one.
        let took_more = self.reserved > STEP_BYTES;
        let opened = make_segment(&self.folder, self.manner, next, took_more)?;
        self.ended = self.last_ns.take().map(|last_ns| (self.segment, last_ns));
        self.made_ns = opened.made_ns;
        self.segment = next.segment;
        self.file_bytes = opened.file_bytes;
        self.offset = opened.offset;
        self.durable = opened.offset;
        self.begun = opened.offset;
        self.waited = opened.offset;
        self.reserved = opened.reserved;
        self.blocks = opened.blocks;
        self.is_name_synced = opened.is_name_synced;
        (self.file, self.mapping) = (opened.file, opened.mapping);
        Ok(())
    }
}

fn make_segment(
    folder: &Folder,
    manner: Manner,
    next: Next,
    takes_more: bool,
) -> Result<Opened, Error> {
    let Next { lane, segment: number, sequence, newest_ns } = next;
    let file_bytes = manner.segment_bytes;
    let made_ns = coarse_time_ns();
    let header = segment::Header {
        lane,
        pattern: manner.pattern,
        segment: number,
        first_sequence: sequence,
        file_bytes,
        schema: manner.schema,
        made_ns,
        until: newest_ns.map_or(Until::UNKNOWN, Until::of),
    };
    let name = segment::file_name(lane, number);
    let mut blocks = 0;
    let prepare = |file: &File| blocks = reserve_first(file, manner, takes_more);
    let made = folder.make_file(&name, file_bytes, prepare, &header.to_bytes());
    let file = made.map_err(|error| match error.system_name() {
        Some("EFBIG") => too_long(error),
        _ => error,
    })?;
    let mapping = map(folder, &file, file_bytes)?;
    folder.note_end(lane, End { segment: number, sequence });
    folder.changed();
    let offset = segment::HEADER_BYTES as u64;
    Ok(Opened {
        file,
        mapping,
        file_bytes,
        offset,
        reserved: 0,
        blocks,
        made_ns,
        is_name_synced: false,
    })
}

pub(super) fn map(folder: &Folder, file: &File, bytes: u64) -> Result<Mapping, Error> {
    Mapping::of_file(file, Mode::ReadWrite, 0, bytes as usize)
        .map_err(|error| folder.kernel("cannot map a segment", error))
}
