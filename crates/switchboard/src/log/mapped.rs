//! A segment that is mapped to be read: what stands at a place in it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use switchboard_kernel::mmap::{self, Mapping, Missing, Mode};

use super::batch::Unpacked;
use super::frame::{self, Commit, HEADER_BYTES, Header, LARGEST_PAYLOAD_BYTES, Place, frame_bytes};
use super::search::{Look, Searched};
use super::segment;

/// What is searched at once for a frame that holds.
const SHORT_PIECE_BYTES: usize = 64 << 10;
/// The same, where there may be a longer one: twice as much as the longest takes.
const LONG_PIECE_BYTES: usize = 2 * frame_bytes(LARGEST_PAYLOAD_BYTES);

/// A look that searched so much is not repeated for a while.
const LONG_SEARCH_BYTES: u64 = 4 << 20;
const REST: Duration = Duration::from_millis(50);

/// A segment that is being read.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) mapping: Mapping,
    pub(super) header: Option<segment::Header>,
    /// Where the next frame begins.
    pub(super) offset: u64,
    /// The folder's generation when nothing followed.
    pub(super) followed: Option<u64>,
    /// What stands at `offset` does not hold, nothing behind it did, and that was said. Its writer may live and go on.
    pub(super) dead: bool,
    /// Until then it is not looked at again.
    pub(super) rests_until: Option<Instant>,
    /// A place where the file has a hole that the file system has no room for, as on a full tmpfs: there it is read
    /// from the file, which takes none.
    pub(super) hole: Option<(u64, File)>,
}

/// What stands at the place in a segment.
pub(super) enum Found {
    Message {
        sequence: u64,
        time_ns: u64,
        payload_bytes: usize,
    },
    /// Its messages are unpacked.
    Batch(Header),
    Damage,
    Nothing,
}

impl Segment {
    /// Stands for a file of which nothing can be read.
    pub(super) fn nothing(number: u64) -> switchboard_kernel::Result<Self> {
        Ok(Self {
            number,
            mapping: Mapping::anonymous(segment::HEADER_BYTES)?,
            header: None,
            offset: segment::HEADER_BYTES as u64,
            followed: None,
            dead: true,
            rests_until: None,
            hole: None,
        })
    }

    /// The word where the next frame begins.
    #[inline]
    pub(super) fn commit(&self) -> Commit {
        if let Some((offset, file)) = &self.hole
            && *offset == self.offset
        {
            let mut word = [0; 8];
            let read = file.read_exact_at(&mut word, *offset);
            if read.is_err() || word == [0; 8] {
                return Commit::Empty;
            }
        }
        // It acquires: pairs with the releasing store of the writer.
        match self.mapping.load_u64(self.offset as usize) {
            Ok(word) => frame::read_commit(u64::from_le(word)),
            Err(_) if self.mapping.is_truncated() => Commit::Damaged,
            Err(_) => Commit::Empty,
        }
    }

    /// Whether the place is in a hole that there is no room for: nothing was ever written there. Then the segment is
    /// mapped anew, since the mapping is no good any more.
    pub(super) fn is_in_hole(&mut self, file: File) -> switchboard_kernel::Result<bool> {
        if self.mapping.missing(&file) != Some(Missing::NoSpace) {
            return Ok(false);
        }
        self.mapping = Mapping::of_file(&file, Mode::ReadOnly, 0, self.mapping.len())?;
        self.hole = Some((self.offset, file));
        Ok(self.commit() == Commit::Empty)
    }

    /// The frame at the place, checked. The payload of a message is added to `bytes`.
    #[inline]
    pub(super) fn frame(&self, lane: u32, bytes: &mut Vec<u8>, batch: &mut Unpacked) -> Found {
        if self.dead {
            return Found::Nothing;
        }
        match self.commit() {
            Commit::Empty => Found::Nothing,
            Commit::Damaged => Found::Damage,
            Commit::Message(len) => match self.copy(lane, self.offset, len, bytes) {
                Some(header) => Found::Message {
                    sequence: header.sequence,
                    time_ns: header.time_ns,
                    payload_bytes: header.payload_bytes,
                },
                None => Found::Damage,
            },
            Commit::Batch(len) => match self.copy(lane, self.offset, len, batch.buffer()) {
                Some(header) => {
                    batch.begin(&header);
                    Found::Batch(header)
                }
                None => Found::Damage,
            },
        }
    }

    /// Copies the frame at an offset, if it holds; its payload is added to `bytes`.
    #[inline]
    fn copy(
        &self,
        lane: u32,
        offset: u64,
        payload_bytes: usize,
        bytes: &mut Vec<u8>,
    ) -> Option<Header> {
        let (at, whole) = (offset as usize, frame_bytes(payload_bytes));
        if self.mapping.len() - at < whole {
            return None;
        }
        let start = bytes.len();
        bytes.resize(start + whole, 0);
        let place = Place { lane, segment: self.number, offset };
        let copied = self.mapping.read_at(at, &mut bytes[start..]);
        let header = copied.ok().and_then(|()| Header::check(place, &bytes[start..]));
        if header.is_some() {
            // The payload alone stays.
            bytes.copy_within(start + HEADER_BYTES..start + HEADER_BYTES + payload_bytes, start);
            bytes.truncate(start + payload_bytes);
        } else {
            bytes.truncate(start);
        }
        header
    }

    /// Where nothing more held: whether its writer has gone on, so that something does now, which then stands at the
    /// place. A look that searched much is not repeated at once, unless it is the last one (`for_good`).
    pub(super) fn revive(&mut self, lane: u32, least: u64, file: &File, for_good: bool) -> bool {
        if !for_good && self.rests_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        // What was a hole of a full file system may be written by now.
        if self.mapping.is_truncated()
            && let Ok(anew) = Mapping::of_file(file, Mode::ReadOnly, 0, self.mapping.len())
        {
            self.mapping = anew;
        }
        // What does not hold may be what was there before a frame was written over it.
        let part = self.offset..self.end_of_data(self.offset, Some(file));
        let is_long = part.end - part.start > LONG_SEARCH_BYTES;
        let found = self.next_that_holds(lane, part, least);
        if let Some((offset, _)) = found {
            (self.offset, self.dead) = (offset, false);
        }
        self.rests_until = is_long.then(|| Instant::now() + REST);
        found.is_some()
    }

    /// The first frame that begins in a part and holds, with a message of at least the number `least`.
    pub(super) fn next_that_holds(
        &self,
        lane: u32,
        part: Range<u64>,
        least: u64,
    ) -> Option<(u64, Header)> {
        let len = self.mapping.len();
        let (mut from, before) = ((part.start as usize).next_multiple_of(8), part.end as usize);
        let (mut piece, mut frame) = (Vec::new(), Vec::new());
        // What is copied at once: little, until something may be a frame that is longer.
        let mut piece_bytes = SHORT_PIECE_BYTES;
        while from < before && from + HEADER_BYTES <= len {
            // Behind the part there were zeros. They are not looked at: a hole would be filled.
            piece.clear();
            let known = piece_bytes.min(len - from).min(before - from);
            piece.resize(piece_bytes.min(len - from).min(known + LONG_PIECE_BYTES / 2), 0);
            self.mapping.read_at(from, &mut piece[..known]).ok()?;
            let place = Place { lane, segment: self.number, offset: from as u64 };
            let mut searched = Searched::new(place, &piece);
            // In a long piece, whatever begins in the first half is within it.
            let end = if piece_bytes == LONG_PIECE_BYTES { piece_bytes / 2 } else { piece_bytes };
            let mut searched_bytes = end;
            // What begins behind the part may have come while this was copied, and others before it after that.
            for at in (0..end.min(piece.len()).min(before - from)).step_by(8) {
                let payload_bytes = match searched.look(at) {
                    Look::Nothing => continue,
                    Look::Beyond
                        if piece_bytes == SHORT_PIECE_BYTES && from + piece.len() < len =>
                    {
                        piece_bytes = LONG_PIECE_BYTES;
                        searched_bytes = at;
                        break;
                    }
                    // Beyond the segment.
                    Look::Beyond => continue,
                    Look::Frame { payload_bytes } => payload_bytes,
                };
                // Copied anew: what was searched is as it was a while ago.
                frame.clear();
                let offset = (from + at) as u64;
                if let Some(header) = self.copy(lane, offset, payload_bytes, &mut frame)
                    && header.end() > least
                {
                    return Some((offset, header));
                }
            }
            from += searched_bytes;
        }
        None
    }

    /// The place after the last byte that is not zero, from an offset on. Holes of the file are not looked at: on a tmpfs
    /// that would fill them. Without the file all of it may be data.
    pub(super) fn end_of_data(&self, from: u64, file: Option<&File>) -> u64 {
        let len = self.mapping.len() as u64;
        let (mut at, mut last) = (from, from);
        while at < len {
            let data = match file.map(|file| mmap::next_data(file, at)) {
                Some(Ok(Some(data))) => data,
                Some(Ok(None)) => break,
                None | Some(Err(_)) => at..len,
            };
            let end = data.end.min(len);
            last = self.last_in(data.start.max(at)..end).unwrap_or(last);
            at = end.max(at + 1);
        }
        last
    }

    /// The place after the last byte of a part that is not zero.
    fn last_in(&self, part: Range<u64>) -> Option<u64> {
        let (mut at, mut last) = (part.start, None);
        let mut block = [0; 4096];
        while at < part.end {
            let n = (part.end - at).min(block.len() as u64) as usize;
            if self.mapping.read_at(at as usize, &mut block[..n]).is_err() {
                break;
            }
            if let Some(found) = block[..n].iter().rposition(|byte| *byte != 0) {
                last = Some(at + found as u64 + 1);
            }
            at += n as u64;
        }
        last
    }
}
