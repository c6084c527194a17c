//! Segments that a writer makes: the first one of a lane, and each one after a full one.

use std::fs::File;
use std::sync::Arc;

use switchboard_kernel::io::coarse_time_ns;
use switchboard_kernel::mmap::{Mapping, Mode};

use super::{Batch, Durability, End, Folder, LaneWriter, Manner, segment};
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
    pub(super) made_ns: u64,
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
        let opened = make_segment(&folder, Manner { segment_bytes: file_bytes, ..manner }, next)?;
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
            sequence: next.sequence,
            durable: opened.offset,
            made_ns: opened.made_ns,
            last_ns: None,
            newest_ns: next.newest_ns,
            ended: None,
            recovered: None,
            frame: Vec::new(),
            batch: Batch::default(),
            is_stuck: false,
            syncs: 0,
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
        let opened = make_segment(&self.folder, self.manner, next)?;
        self.ended = self.last_ns.take().map(|last_ns| (self.segment, last_ns));
        self.made_ns = opened.made_ns;
        self.segment = next.segment;
        self.file_bytes = opened.file_bytes;
        self.offset = opened.offset;
        self.durable = opened.offset;
        self.reserved = opened.reserved;
        (self.file, self.mapping) = (opened.file, opened.mapping);
        Ok(())
    }
}

fn make_segment(folder: &Folder, manner: Manner, next: Next) -> Result<Opened, Error> {
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
    let file = folder.make_file(&name, file_bytes, &header.to_bytes())?;
    let mapping = map(folder, &file, file_bytes)?;
    if manner.durability == Durability::Synced {
        // The file and its name; that of the log is there since the writer was opened.
        file.sync_data().map_err(|error| {
            folder.system("fdatasync", "cannot write a segment to the disk", error)
        })?;
        folder.sync_names_in()?;
    }
    folder.note_end(lane, End { segment: number, sequence });
    folder.changed();
    let offset = segment::HEADER_BYTES as u64;
    Ok(Opened { file, mapping, file_bytes, offset, reserved: 0, made_ns })
}

pub(super) fn map(folder: &Folder, file: &File, bytes: u64) -> Result<Mapping, Error> {
    Mapping::of_file(file, Mode::ReadWrite, 0, bytes as usize)
        .map_err(|error| folder.kernel("cannot map a segment", error))
}
