//! Segments that a writer makes: the first one of a lane, and each one after a full one.

use std::fs::File;
use std::sync::Arc;

use switchboard_kernel::io::coarse_time_ns;
use switchboard_kernel::mmap::{Mapping, Mode};

use super::{Batch, Durability, End, Folder, LaneWriter, Manner, segment};
use crate::error::Error;

impl LaneWriter {
    /// Makes a segment and begins to write it. Without room for messages it is no longer than its header: then
    /// the first message asks for another one.
    pub(super) fn start(
        folder: Arc<Folder>,
        manner: Manner,
        has_room: bool,
        (lane, segment, sequence): (u32, u64, u64),
        recovered: Option<String>,
    ) -> Result<Self, Error> {
        let offset = segment::HEADER_BYTES as u64;
        let file_bytes = if has_room { manner.segment_bytes } else { offset };
        let made = Manner { segment_bytes: file_bytes, ..manner };
        let (file, mapping) = make_segment(&folder, made, lane, segment, sequence)?;
        Ok(Self {
            folder,
            manner,
            lane,
            file,
            mapping,
            segment,
            file_bytes,
            offset,
            reserved: 0,
            sequence,
            durable: offset,
            made_ns: coarse_time_ns(),
            last_ns: None,
            ended: None,
            recovered,
            frame: Vec::new(),
            batch: Batch::default(),
            is_stuck: false,
            syncs: 0,
            unsynced: None,
        })
    }

    /// Goes on in a new segment.
    pub(crate) fn rotate(&mut self) -> Result<(), Error> {
        self.make_durable()?;
        let number = self.segment + 1;
        let (file, mapping) =
            make_segment(&self.folder, self.manner, self.lane, number, self.sequence)?;
        self.ended = self.last_ns.take().map(|last_ns| (self.segment, last_ns));
        self.made_ns = coarse_time_ns();
        self.segment = number;
        self.file_bytes = self.manner.segment_bytes;
        self.offset = segment::HEADER_BYTES as u64;
        self.durable = self.offset;
        self.reserved = 0;
        (self.file, self.mapping) = (file, mapping);
        Ok(())
    }
}

fn make_segment(
    folder: &Folder,
    manner: Manner,
    lane: u32,
    number: u64,
    first_sequence: u64,
) -> Result<(File, Mapping), Error> {
    let header = segment::Header {
        lane,
        pattern: manner.pattern,
        segment: number,
        first_sequence,
        file_bytes: manner.segment_bytes,
        schema: manner.schema,
        made_ns: coarse_time_ns(),
    };
    let name = segment::file_name(lane, number);
    let file = folder.make_file(&name, manner.segment_bytes, &header.to_bytes())?;
    let mapping = map(folder, &file, manner.segment_bytes)?;
    if manner.durability == Durability::Synced {
        // The file and its name, and that of the log.
        file.sync_data().map_err(|error| {
            folder.system("fdatasync", "cannot write a segment to the disk", error)
        })?;
        folder.sync_names()?;
    }
    folder.note_end(lane, End { segment: number, sequence: first_sequence });
    folder.changed();
    Ok((file, mapping))
}

pub(super) fn map(folder: &Folder, file: &File, bytes: u64) -> Result<Mapping, Error> {
    Mapping::of_file(file, Mode::ReadWrite, 0, bytes as usize)
        .map_err(|error| folder.kernel("cannot map a segment", error))
}
