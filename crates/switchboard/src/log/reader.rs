//! A reader's place in a lane: it copies frames, checks the copies, and says what does not hold.

mod beginning;

use std::ops::Range;
use std::sync::Arc;

use switchboard_kernel::folder_file::{Access, is_no_file};
use switchboard_kernel::mmap::{Mapping, Mode};

use super::batch::Unpacked;
use super::folder::Folder;
use super::frame::{Commit, Header, frame_bytes};
use super::mapped::{Found, Segment};
use super::segment;
use crate::error::Error;

/// What comes next in a lane.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A message; its payload was added to the buffer.
    Message { sequence: u64, time_ns: u64, payload_bytes: usize },
    /// Something does not hold. So many messages are missing, as far as that is known.
    Damage { problem: String, missing: u64 },
    /// Nothing more is there yet.
    Nothing,
}

/// A place in a lane.
#[derive(Debug)]
pub(crate) struct LaneReader {
    folder: Arc<Folder>,
    lane: u32,
    /// The number of the next message.
    expected: u64,
    /// The number after the last frame that was seen: as far as the lane reaches, for all that is known.
    reached: u64,
    /// Numbers may begin again: see [`LaneReader::counting_again`].
    counts_again: bool,
    open: Option<Segment>,
    /// The rest of the batch before the place in the segment.
    batch: Unpacked,
    /// The first segment to look at, where the place is given by a segment.
    from_segment: Option<u64>,
    /// The folder's generation when it was last searched for segments in vain.
    searched: Option<u64>,
}

impl LaneReader {
    /// A place before a message, wherever it is.
    pub(crate) fn at_message(folder: Arc<Folder>, lane: u32, sequence: u64) -> Self {
        let expected = sequence.max(1);
        Self {
            folder,
            lane,
            expected,
            reached: 0,
            counts_again: false,
            open: None,
            batch: Unpacked::default(),
            from_segment: None,
            searched: None,
        }
    }

    /// A place at the beginning of a segment.
    pub(crate) fn at_segment(folder: Arc<Folder>, lane: u32, number: u64) -> Self {
        Self { from_segment: Some(number), ..Self::at_message(folder, lane, 1) }
    }

    /// From now on it goes back to smaller numbers where a sender began with them after segments were
    /// removed. Without this no message comes with a number below one that came before.
    pub(crate) fn counting_again(mut self) -> Self {
        self.counts_again = true;
        self
    }

    pub(crate) fn lane(&self) -> u32 {
        self.lane
    }

    /// The number of the next message.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// The number after the last message that was seen, which may be before the place; 0 where none was
    /// looked for.
    pub(crate) fn reached(&self) -> u64 {
        self.reached
    }

    /// Where the next frame begins in the open segment.
    pub(crate) fn offset(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.offset)
    }

    /// The header of the open segment, if it holds.
    pub(crate) fn header(&self) -> Option<segment::Header> {
        self.open.as_ref().and_then(|open| open.header)
    }

    /// Whether nothing tells how far the open segment went: nothing of it can be read, or its end is cut off.
    pub(crate) fn may_have_ended_later(&self) -> bool {
        let Some(open) = &self.open else { return false };
        let len_bytes = open.mapping.len() as u64;
        match open.header {
            Some(header) => len_bytes < header.file_bytes,
            None => {
                let frames = self.written_from(open, segment::HEADER_BYTES as u64);
                open.next_that_holds(self.lane, frames, 0).is_none()
            }
        }
    }

    /// Whether the last thing in the open segment is a frame that does not hold.
    pub(crate) fn ends_in_damage(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.dead && open.commit() != Commit::Empty)
    }

    /// The number of the open segment.
    pub(crate) fn segment(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.number)
    }

    /// Whether it is worth looking for more. Costs a load where nothing is new.
    pub(crate) fn may_have_more(&mut self) -> bool {
        let Some(open) = &self.open else {
            return self.searched != Some(self.folder.generation());
        };
        !self.batch.is_empty()
            || open.followed != Some(self.folder.generation())
            || if open.dead { self.goes_on(false) } else { open.commit() != Commit::Empty }
    }

    /// What comes next. A message's payload is added to `bytes`.
    pub(crate) fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Step, Error> {
        loop {
            if let Some(step) = self.next_of_batch(bytes) {
                return Ok(step);
            }
            if self.open.is_none()
                && let Some(step) = self.open_first()?
            {
                return Ok(step);
            }
            let Some(open) = &mut self.open else { return Ok(Step::Nothing) };
            match open.frame(self.lane, bytes, &mut self.batch) {
                Found::Message { sequence, time_ns, payload_bytes } => {
                    if let Some(step) = self.take(sequence, time_ns, payload_bytes, bytes) {
                        return Ok(step);
                    }
                }
                Found::Batch(header) => {
                    if let Some(step) = self.take_batch(header) {
                        return Ok(step);
                    }
                }
                Found::Damage if !self.is_in_hole()? => {
                    if let Some(step) = self.search_on() {
                        return Ok(step);
                    }
                }
                Found::Nothing if self.goes_on(false) => {}
                Found::Damage | Found::Nothing => match self.move_on()? {
                    Moved::On => {}
                    Moved::Damage(step) => return Ok(step),
                    Moved::No => return Ok(Step::Nothing),
                },
            }
        }
    }

    /// The next message of the batch that is being read.
    #[inline]
    fn next_of_batch(&mut self, bytes: &mut Vec<u8>) -> Option<Step> {
        let time_ns = self.batch.time_ns();
        while let Some((sequence, message)) = self.batch.next() {
            if sequence >= self.expected {
                self.expected = sequence.saturating_add(1);
                bytes.extend_from_slice(message);
                return Some(Step::Message { sequence, time_ns, payload_bytes: message.len() });
            }
        }
        None
    }

    /// A message that holds: the one that comes next, or one to be passed over.
    #[inline]
    fn take(
        &mut self,
        sequence: u64,
        time_ns: u64,
        payload_bytes: usize,
        bytes: &mut Vec<u8>,
    ) -> Option<Step> {
        self.reached = sequence.saturating_add(1);
        if let Some(step) = self.gap(sequence) {
            bytes.truncate(bytes.len() - payload_bytes);
            return Some(step);
        }
        self.open.as_mut()?.offset += frame_bytes(payload_bytes) as u64;
        if sequence < self.expected {
            bytes.truncate(bytes.len() - payload_bytes);
            return None;
        }
        self.expected = self.expected.saturating_add(1);
        Some(Step::Message { sequence, time_ns, payload_bytes })
    }

    /// A batch that holds, whose messages come next or are to be passed over.
    #[cold]
    fn take_batch(&mut self, header: Header) -> Option<Step> {
        self.reached = header.end();
        if let Some(step) = self.gap(header.sequence) {
            self.batch.clear();
            return Some(step);
        }
        self.open.as_mut()?.offset += frame_bytes(header.payload_bytes) as u64;
        None
    }

    /// Messages before this one are missing. It is said first; the frame is read again after.
    #[inline]
    fn gap(&mut self, sequence: u64) -> Option<Step> {
        if sequence <= self.expected {
            return None;
        }
        let missing = sequence - self.expected;
        self.expected = sequence;
        let problem = format!("lane {} goes on with message {sequence}", self.lane);
        Some(Step::Damage { problem, missing })
    }

    /// The header of a segment of this lane, if it holds.
    pub(crate) fn peek(&self, number: u64) -> Option<segment::Header> {
        self.folder.header(self.lane, number)
    }

    /// Opens a segment. What is wrong with its header or length is a step of its own.
    fn open_segment(&mut self, number: u64) -> Result<Option<Step>, Error> {
        let name = segment::file_name(self.lane, number);
        let file = match self.folder.open_segment(self.lane, number, Access::Read) {
            Ok(file) => file,
            // Removed since it was listed.
            Err(error) if error.name() == "ENOENT" => {
                self.searched = None;
                return Ok(None);
            }
            Err(error) if is_no_file(error) => {
                return self.open_nothing(number, format!("{name} is no file of a log"));
            }
            Err(error) => return Err(self.folder.cannot_open(&name, error)),
        };
        let len = file
            .metadata()
            .map_err(|error| self.folder.system("fstat", "cannot look at a segment", error))?
            .len();
        if len < segment::HEADER_BYTES as u64 {
            return self.open_nothing(number, format!("{name} is cut off after {len} bytes"));
        }
        let mapping = Mapping::of_file(&file, Mode::ReadOnly, 0, len as usize)
            .map_err(|error| self.folder.kernel("cannot map a segment", error))?;
        let mut bytes = [0; segment::HEADER_BYTES];
        let header = match mapping.read_at(0, &mut bytes) {
            Ok(()) => segment::Header::parse(&bytes),
            Err(_) => Err("it cannot be read"),
        };
        let header = header.and_then(|header| {
            if header.lane == self.lane && header.segment == number {
                Ok(header)
            } else {
                Err("it is the segment of another name")
            }
        });
        let problem = match header {
            Err(problem) => Some(format!("{name}: {problem}")),
            Ok(header) if header.file_bytes != len => {
                Some(format!("{name} has {len} bytes of {}", header.file_bytes))
            }
            Ok(_) => None,
        };
        let first = header.map_or(0, |header| header.first_sequence);
        self.reached = self.reached.max(first);
        self.open = Some(Segment {
            number,
            mapping,
            header: header.ok(),
            offset: segment::HEADER_BYTES as u64,
            followed: None,
            dead: false,
            rests_until: None,
            hole: None,
        });
        Ok(problem.map(|problem| Step::Damage { problem, missing: 0 }))
    }

    /// Nothing of a segment can be read; the next one says what is missing.
    fn open_nothing(&mut self, number: u64, problem: String) -> Result<Option<Step>, Error> {
        let nothing = Segment::nothing(number)
            .map_err(|error| self.folder.kernel("cannot map a segment", error))?;
        self.open = Some(nothing);
        Ok(Some(Step::Damage { problem, missing: 0 }))
    }

    /// Whether what seems not to hold is a hole, which cannot be looked at where the file system is full.
    #[cold]
    fn is_in_hole(&mut self) -> Result<bool, Error> {
        let Some(open) = self.open.as_mut().filter(|open| open.mapping.is_truncated()) else {
            return Ok(false);
        };
        let file = self.folder.open_segment(self.lane, open.number, Access::Read);
        // Removed meanwhile, it cannot be asked any more.
        let Ok(file) = file else { return Ok(false) };
        let in_hole = open.is_in_hole(file);
        in_hole.map_err(|error| self.folder.kernel("cannot map a segment", error))
    }

    /// What stands here does not hold: goes on at the next frame that does.
    fn search_on(&mut self) -> Option<Step> {
        let (lane, expected) = (self.lane, self.expected);
        let open = self.open.as_ref()?;
        let name = segment::file_name(lane, open.number);
        let (from, first) = (open.offset, open.offset + 8);
        // Up to where it was written by now. Its writer may go on meanwhile: what comes then is found when it is looked for.
        let part = self.written_from(open, first);
        let bytes = part.end - from;
        let found = open.next_that_holds(lane, part, expected);
        let open = self.open.as_mut()?;
        match found {
            Some((offset, header)) => {
                open.offset = offset;
                // A batch may begin with messages before the place.
                let missing = header.sequence.saturating_sub(expected);
                self.expected += missing;
                let bytes = offset - from;
                let problem = format!("{name}: {bytes} bytes from {from} on do not hold");
                Some(Step::Damage { problem, missing })
            }
            None => {
                let more = match open.commit() {
                    Commit::Batch(_) => {
                        ", a batch of messages; how many are missing is told with the next one, as far \
                         as it is known"
                    }
                    _ => "",
                };
                open.dead = true;
                // A word that is not zero was a commit: a message was there, at least one. It may have
                // been one before the place. A word alone never was: a message has a number.
                let after = self.reached.max(1).saturating_add(1);
                let missing = if bytes > 8 { after.saturating_sub(expected).min(1) } else { 0 };
                self.expected += missing;
                let problem = format!(
                    "{name}: {bytes} bytes from {from} on, the last ones, do not hold{more}"
                );
                Some(Step::Damage { problem, missing })
            }
        }
    }

    /// From an offset in an open segment to the end of what is written there by now.
    fn written_from(&self, open: &Segment, from: u64) -> Range<u64> {
        let file = self.folder.open_segment(self.lane, open.number, Access::Read);
        from..open.end_of_data(from, file.ok().as_ref())
    }

    /// Where nothing more held in the open segment: whether its writer lives, and has gone on.
    fn goes_on(&mut self, for_good: bool) -> bool {
        let Some(open) = self.open.as_mut().filter(|open| open.dead) else { return false };
        // Removed, it takes no more.
        let file = self.folder.open_segment(self.lane, open.number, Access::Read);
        file.is_ok_and(|file| open.revive(self.lane, self.expected, &file, for_good))
    }

    /// Nothing is here: goes on with the next segment if there is one.
    fn move_on(&mut self) -> Result<Moved, Error> {
        let generation = self.folder.generation();
        let lane = self.lane;
        let Some(open) = &mut self.open else { return Ok(Moved::No) };
        if open.followed == Some(generation) {
            return Ok(Moved::No);
        }
        let next = self
            .folder
            .segments()?
            .into_iter()
            .find(|(of, number)| *of == lane && *number > open.number);
        let Some((_, next)) = next else {
            open.followed = Some(generation);
            return Ok(Moved::No);
        };
        // It may have taken a last message before the next one was made, or many where nothing held.
        if !open.dead && open.commit() != Commit::Empty || self.goes_on(true) {
            return Ok(Moved::On);
        }
        if let Some(step) = self.past_hole() {
            return Ok(Moved::Damage(step));
        }
        let reached = self.reached;
        if let Some(step) = self.open_segment(next)? {
            return Ok(Moved::Damage(step));
        }
        let first = self.header().map_or(reached, |header| header.first_sequence);
        if first >= reached || !self.counts_again {
            return Ok(Moved::On);
        }
        // The next sender found less of the lane than this reader has seen.
        (self.expected, self.reached) = (first, first);
        let problem = format!(
            "segments of lane {lane} were removed while they were read; its messages count from \
             {first} again"
        );
        Ok(Moved::Damage(Step::Damage { problem, missing: 0 }))
    }

    /// In a segment that takes no more frames: what follows the zeros at the place. Goes on at a
    /// frame that holds, or says that the rest is unfinished; `None` when there are only zeros.
    pub(crate) fn past_hole(&mut self) -> Option<Step> {
        let (lane, expected) = (self.lane, self.expected);
        let open = self.open.as_mut().filter(|open| !open.dead)?;
        let file = match self.folder.open_segment(lane, open.number, Access::Read) {
            Ok(file) => Some(file),
            // Removed, it is nothing that anybody misses.
            Err(error) if error.name() == "ENOENT" => return None,
            Err(_) => None,
        };
        let (name, from) = (segment::file_name(lane, open.number), open.offset);
        let end = open.end_of_data(from, file.as_ref());
        let rest = Some(end - from).filter(|rest| *rest > 0)?;
        let Some((offset, header)) = open.next_that_holds(lane, from + 8..end, expected) else {
            open.dead = true;
            let problem = format!(
                "{name}: {rest} bytes of an unfinished message from {from} on were dropped"
            );
            return Some(Step::Damage { problem, missing: 0 });
        };
        open.offset = offset;
        let missing = header.sequence.saturating_sub(expected);
        self.expected += missing;
        let problem = format!("{name}: {} bytes from {from} on do not hold", offset - from);
        Some(Step::Damage { problem, missing })
    }
}

enum Moved {
    On,
    Damage(Step),
    No,
}
