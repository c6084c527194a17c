//! The writer of a lane: one process at a time, which never writes over anything.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::fence;

use switchboard_kernel::folder_file::Access;
use switchboard_kernel::io::{self, coarse_time_ns};
use switchboard_kernel::mmap::{self, Advice, Mapping, Mode};

use super::batch::Batch;
use super::ends::End;
use super::folder::Folder;
use super::frame::{
    self, COMMIT_BYTE, COMMIT_BYTE_AT, HEADER_BYTES, LARGEST_PAYLOAD_BYTES, Place, frame_bytes,
};
use super::reader::{LaneReader, Step};
use super::segment::{self, Pattern};
use super::{Durability, MOST_NUMBER};
use crate::error::{Error, ErrorKind};

/// Blocks are reserved so far ahead.
const RESERVE_BYTES: u64 = 1 << 20;
/// Messages are put into one batch up to this size: so much one flipped bit may cost.
const LARGEST_BATCH_BYTES: usize = 128 << 10;
/// Zeros are written ahead where so many syncs, or more, took one step of reserved blocks.
const MANY_SYNCS: u32 = 8;
/// They are written in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// What is noted of a lane's end counts up to this: what is beyond is a lie, and there are numbers left
/// after it.
const MOST_NOTED: u64 = MOST_NUMBER / 4;
/// No sender begins after this: it never comes to the end of the numbers.
const MOST_BEGUN: u64 = MOST_NUMBER / 2;
const CANNOT_WRITE: &str = "cannot write to a segment";
const EIO: i32 = 5;
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
    /// Blocks are reserved up to here.
    reserved: u64,
    /// The number of the next message.
    sequence: u64,
    /// Frames before this are as durable as asked.
    durable: u64,
    /// When the segment was made, ns since 1970.
    made_ns: u64,
    /// When its last message was written; `None` where it has none.
    last_ns: Option<u64>,
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
        let written = self.sequence - self.batch.messages();
        self.folder.note_end(self.lane, End { segment: self.segment, sequence: written });
        self.folder.leave_lane(self.lane);
    }
}

impl LaneWriter {
    /// Takes a free lane and goes on after its last message, with no number below what `least` says
    /// of the lane: so far it was read, although segments may have been removed since. Where it needs a
    /// segment it asks whether there may be one; if not, it begins with one that holds no message.
    pub(crate) fn open(
        folder: Arc<Folder>,
        manner: Manner,
        least: impl FnOnce(u32) -> Result<u64, Error>,
        has_room: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<Self, Error> {
        let lane = folder.take_lane()?;
        folder.sweep();
        // What is beyond every number is a lie.
        let End { segment: noted_segment, sequence: noted } = folder.noted_end(lane);
        let noted_segment = if noted_segment <= MOST_NOTED { noted_segment } else { 0 };
        let least = [least(lane)?, noted].into_iter().filter(|least| *least <= MOST_NOTED);
        let least = least.fold(1, u64::max);
        // Every segment that was ever made was counted: this number is a new one, also for readers
        // that still have a removed segment.
        folder.begin_count()?;
        let unused = Some(folder.generation()).filter(|made| *made <= MOST_NOTED).unwrap_or(0) + 1;
        let last = folder.segments()?.into_iter().rev().find(|(of, _)| *of == lane);
        let Some((_, number)) = last else {
            // Where there was a segment, or a message, it was removed.
            let removed = noted_segment > 0 || least > 1;
            let recovered = removed.then(|| messages_are_gone(lane, least));
            let place = (lane, unused, least);
            return Self::start(folder, manner, has_room()?, place, recovered);
        };
        // Everything after the last message that holds is looked at, once.
        let mut reader = LaneReader::at_segment(Arc::clone(&folder), lane, number);
        let mut bytes = Vec::new();
        let (mut problem, mut last_ns) = (None, None);
        loop {
            let step = match reader.next(&mut bytes)? {
                Step::Nothing => reader.past_hole().unwrap_or(Step::Nothing),
                step => step,
            };
            match step {
                Step::Message { time_ns, .. } => {
                    last_ns = Some(time_ns);
                    bytes.clear();
                }
                Step::Damage { problem: found, .. } => {
                    problem.get_or_insert(found);
                }
                Step::Nothing => break,
            }
        }
        let mut sequence = reader.expected().max(least);
        if sequence > MOST_BEGUN || number > MOST_BEGUN {
            let problem = format!(
                "lane {lane} has a message {} in a segment {number}, which no sender wrote",
                sequence.saturating_sub(1)
            );
            return Err(Error::new(ErrorKind::Mismatch, &folder.address, problem)
                .hint("remove that segment: it is no log's"));
        }
        let removed = sequence > reader.expected() || noted_segment > number;
        let name = segment::file_name(lane, number);
        let whole = reader
            .header()
            .filter(|header| folder.segment_bytes(lane, number) == Some(header.file_bytes));
        // Where the bell knows the end, damage there is counted.
        let is_counted = reader.expected() > least || noted >= least;
        if reader.may_have_ended_later() || reader.ends_in_damage() && !is_counted {
            // Nobody knows how many are lost with it. One is left out, so that readers look at it, and are
            // told that some are missing.
            sequence += 1;
        }
        match whole {
            Some(header) if problem.is_none() && !removed => {
                let file = folder
                    .open_segment(lane, number, Access::ReadWrite)
                    .map_err(|error| folder.cannot_open(&name, error))?;
                if manner.durability == Durability::Synced {
                    // Who made it may not have asked for that.
                    folder.sync_names()?;
                }
                let mapping = map(&folder, &file, header.file_bytes)?;
                let offset = reader.offset();
                // The one that made it may have died before it told anybody.
                folder.changed();
                Ok(Self {
                    manner,
                    folder,
                    lane,
                    file,
                    mapping,
                    segment: number,
                    file_bytes: header.file_bytes,
                    offset,
                    reserved: offset,
                    sequence,
                    durable: offset,
                    made_ns: header.made_ns,
                    last_ns,
                    ended: None,
                    recovered: None,
                    frame: Vec::new(),
                    batch: Batch::default(),
                    is_stuck: false,
                    syncs: 0,
                    unsynced: None,
                })
            }
            _ => {
                let recovered = problem.unwrap_or_else(|| match removed {
                    true => messages_are_gone(lane, sequence),
                    false => format!("{name} is damaged; a new one was started"),
                });
                let number = unused.max(number + 1);
                let place = (lane, number, sequence);
                Self::start(folder, manner, has_room()?, place, Some(recovered))
            }
        }
    }

    /// Makes a segment and begins to write it. Without room for messages it is no longer than its header: then
    /// the first message asks for another one.
    fn start(
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

    /// The lane, and the number of its next message.
    pub(crate) fn end(&self) -> (u32, u64) {
        (self.lane, self.sequence)
    }

    /// What a predecessor left unfinished, and what became of it.
    pub(crate) fn recovered(&self) -> Option<&str> {
        self.recovered.as_deref()
    }

    /// When the segment that is written was made, ns since 1970; `None` while it has no message.
    pub(crate) fn began_ns(&self) -> Option<u64> {
        self.last_ns.and(Some(self.made_ns))
    }

    /// When the last message of a segment was written, if this writer knows it.
    pub(crate) fn ended_ns(&self, lane: u32, segment: u64) -> Option<u64> {
        let ended = self.ended.filter(|(number, _)| self.lane == lane && *number == segment);
        ended.map(|(_, ended_ns)| ended_ns)
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durable == self.offset && self.batch.is_empty()
    }

    /// Whether messages are gathered: written out together, and not each by itself.
    pub(crate) fn gathers(&self) -> bool {
        self.manner.durability != Durability::Memory
    }

    /// Accepts a message, and commits it or [gathers](Self::gathers) it. Whoever waits for it is not woken;
    /// see [`Folder::ring`].
    #[inline]
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        if self.gathers() { self.gather(payload) } else { self.commit(payload) }
    }

    #[inline]
    fn commit(&mut self, payload: &[u8]) -> Result<(), Refusal> {
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
        self.last_ns = Some(now_ns);
        Ok(())
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
        Ok(())
    }

    /// Where the next batch goes.
    #[inline]
    fn place(&self) -> Place {
        Place { lane: self.lane, segment: self.segment, offset: self.offset }
    }

    /// Sees to it that there is room up to here.
    #[inline]
    fn make_room(&mut self, end: u64) -> Result<(), Refusal> {
        if end > self.file_bytes {
            return Err(Refusal::SegmentFull);
        }
        if end > self.reserved {
            self.reserve(end)?;
        }
        Ok(())
    }

    /// Commits what is gathered. After an error it is gathered still, and the next call tries again.
    pub(crate) fn write_out(&mut self) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let now_ns = coarse_time_ns();
        let written = self.write(now_ns);
        self.is_stuck = written.is_err();
        self.offset += written.map_err(|error| self.failed(CANNOT_WRITE, error))?;
        self.last_ns = Some(now_ns);
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

    /// What is written to a file that was cut would make it longer again, and nobody would know.
    fn check_length(&self, call: &'static str) -> switchboard_kernel::Result<()> {
        // Not with `stat`: once a time of a file was asked for, each write notes a new one, and some file
        // systems put that on the disk with each sync.
        match (&self.file).seek(SeekFrom::End(0)) {
            Ok(len) if len == self.file_bytes => Ok(()),
            _ => Err(switchboard_kernel::Error::from_raw(call, EIO)),
        }
    }

    #[cold]
    fn failed(&self, doing: &str, error: switchboard_kernel::Error) -> Error {
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

    /// Writes out what waits, and does what the durability asks for.
    pub(crate) fn make_durable(&mut self) -> Result<(), Error> {
        self.write_out()?;
        if self.is_durable() {
            return Ok(());
        }
        let result = match self.manner.durability {
            Durability::Memory => Ok(()),
            Durability::Written => {
                let from = self.durable & !4095;
                mmap::start_write_back(&self.file, from, self.offset - from).map_err(Into::into)
            }
            Durability::Synced => self.sync(),
        };
        result.map_err(|error| {
            self.folder.system("fdatasync", "cannot write messages to the disk", error)
        })?;
        self.durable = self.offset;
        Ok(())
    }

    /// Once this failed it fails for ever: the kernel reports an error once, and may have dropped what it
    /// could not write.
    fn sync(&mut self) -> std::io::Result<()> {
        let errno = match self.unsynced {
            Some(errno) => errno,
            None => match self.file.sync_data() {
                Ok(()) => {
                    self.syncs = self.syncs.saturating_add(1);
                    return Ok(());
                }
                Err(error) => error.raw_os_error().unwrap_or(EIO),
            },
        };
        self.unsynced = Some(errno);
        Err(std::io::Error::from_raw_os_error(errno))
    }
}

/// What is said of a lane of which segments were removed.
fn messages_are_gone(lane: u32, sequence: u64) -> String {
    format!(
        "messages of lane {lane} before {sequence} are not there any more; a new segment was started"
    )
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

fn map(folder: &Folder, file: &File, bytes: u64) -> Result<Mapping, Error> {
    Mapping::of_file(file, Mode::ReadWrite, 0, bytes as usize)
        .map_err(|error| folder.kernel("cannot map a segment", error))
}

/// Files of this process may be no longer.
fn too_long(failed: Error) -> Error {
    failed.kinded(ErrorKind::LimitReached).hint(
        "files of this process may be no longer (RLIMIT_FSIZE): raise it with ulimit -f or \
         LimitFSIZE=, or use shorter segments (?segment=)",
    )
}
