//! The reading side of a ring.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::frame::{Frame, Header, Kind, TO_LINE, Unit, frame_bytes, frame_end};
use super::lane::in_arena_at;
use super::{LAST, Lane, Shape};
use crate::arena::PLACE_WORDS;
use crate::atomic::fence;
use crate::barrier::Busy;
use crate::copy::copy_out;
use crate::layout::{WORD_BYTES, writer as at};
use crate::{AtomicU64, Misbehaved, Words};

/// One who reads a ring.
#[derive(Debug)]
pub struct RingReader<W> {
    memory: W,
    shape: Shape,
    /// Where the next frame will be.
    position: u64,
    /// Of the last message.
    number: u64,
    /// The cursor that was last given out.
    stored: u64,
    /// The number of the next frame is not known: frames before it were overwritten.
    resumes: bool,
}

/// Where a message is that a reader [looks at](RingReader::look_ahead) before it goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead {
    /// Index of the first word of its payload among the words of the memory.
    pub word: usize,
    /// Bytes of the payload.
    pub len: usize,
    /// Where the next frame is.
    end: u64,
}

/// The writer of a lossy ring was faster than its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overtaken {
    /// Where the oldest frame is that may still be there.
    tail: u64,
}

impl<W: Words> RingReader<W> {
    /// Checks a ring that came from a peer, to be read from a position on, after a number.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(memory: W, position: u64, number: u64) -> Result<Self, Misbehaved> {
        let shape = Shape::read(&memory)?;
        if !position.is_multiple_of(8) || position > LAST || number > LAST {
            return Err(Misbehaved("a place to begin that is none"));
        }
        Ok(Self { memory, shape, position, number, stored: position, resumes: false })
    }

    /// Where the next frame will be.
    #[inline]
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Number of the last message.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the writer overwrites what was not read.
    #[inline]
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.shape.lossy
    }

    /// What the writer does between a commit and looking whether somebody sleeps.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.shape.busy
    }

    /// The word by which the writer says that it sleeps.
    #[inline]
    #[must_use]
    pub fn wanted_word(&self) -> &AtomicU64 {
        &self.memory.words()[at::WANTED_WORD]
    }

    /// Bytes of the ring.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.shape.capacity()
    }

    /// The memory.
    pub fn memory(&self) -> &W {
        &self.memory
    }

    /// The word that says whether there is a next frame: it is 0 until then.
    #[inline]
    #[must_use]
    pub fn polled_word(&self) -> &AtomicU64 {
        &self.memory.words()[self.shape.word(self.position)]
    }

    /// Whether the writer of a lossy ring was faster: then [`polled_word`](Self::polled_word) may be anything, 0
    /// too.
    #[inline]
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        // After the polled word: whoever sees a word of what overwrote it sees the tail that was moved before.
        self.shape.lossy && {
            fence(Acquire);
            self.memory.words()[at::TAIL_WORD].load(Relaxed) > self.position
        }
    }

    /// Whether messages of a queue have priorities.
    #[inline]
    #[must_use]
    pub fn has_priorities(&self) -> bool {
        self.memory.words()[at::PRIORITIES_WORD].load(Relaxed) != 0
    }

    /// Its index among the words of the memory.
    #[must_use]
    pub fn polled_index(&self) -> usize {
        self.shape.word(self.position)
    }

    /// The next frame of a ring that loses nothing, if it is there.
    ///
    /// # Errors
    /// What no honest writer writes.
    #[inline(always)]
    pub fn poll(&mut self) -> Result<Option<Frame>, Misbehaved> {
        let Some(header) = self.header(self.position)? else { return Ok(None) };
        if header.kind == Kind::Pad {
            return self.frame_behind_pad(header);
        }
        self.frame(self.position, header).map(Some)
    }

    /// The largest payload of a frame, in bytes.
    #[must_use]
    pub fn largest_payload(&self) -> u64 {
        self.shape.largest_frame() - WORD_BYTES
    }

    /// The next frame, if it is a message of at most so many bytes, which are not more than
    /// [`largest_payload`](Self::largest_payload): goes on behind it, and returns the index of the payload's first
    /// word, and its length. Whatever else there is, [`poll`](Self::poll) tells.
    #[inline(always)]
    pub fn next_message(&mut self, most_bytes: u64) -> Option<(usize, usize)> {
        let next = self.message_at(self.position, self.number, most_bytes)?;
        self.position = next.end;
        self.number += 1;
        Some((next.word, next.len))
    }

    /// Where the next messages are, as long as each is as [`next_message`](Self::next_message) wants it, and there is
    /// room to say so; no further than until the next [step](Self::cursor_after_step) of the cursor. How many there are. The
    /// reader stays where it is.
    #[inline(always)]
    pub fn look_ahead(&self, most_bytes: u64, places: &mut [Ahead]) -> usize {
        let (mut at, end) = (self.position, self.stored + self.shape.step());
        for (count, place) in places.iter_mut().enumerate() {
            if at >= end && count > 0 {
                return count;
            }
            let number = self.number + count as u64;
            let Some(next) = self.message_at(at, number, most_bytes) else { return count };
            at = next.end;
            *place = next;
        }
        places.len()
    }

    /// Goes on behind so many messages, of which this is the last.
    #[inline(always)]
    pub fn pass_ahead(&mut self, count: usize, last: &Ahead) {
        self.position = last.end;
        self.number += count as u64;
    }

    /// The next messages, for who takes those of at most so many bytes one by one: up to the next
    /// [step](Self::cursor_after_step) of the cursor.
    #[must_use]
    pub fn lane(&self, most_bytes: u64) -> Lane {
        debug_assert!(!self.shape.lossy && !self.resumes, "as where messages are looked at");
        let end = self.stored + self.shape.step();
        Lane::new(self.shape, (self.position, end), self.number, most_bytes)
    }

    /// The same, for who only looks whether something is there.
    #[must_use]
    pub fn lookout(&self) -> Lane {
        Lane::new(self.shape, (self.position, self.position), self.number, 0)
    }

    /// Goes on behind what was taken in a lane, which was the last thing that was done here.
    pub fn pass_lane(&mut self, lane: &Lane) {
        self.position = lane.position();
        self.number += lane.taken();
    }

    /// The message at a position, after a number.
    #[inline(always)]
    fn message_at(&self, position: u64, number: u64, most_bytes: u64) -> Option<Ahead> {
        debug_assert!(
            !self.shape.lossy && !self.resumes,
            "what is lost is noticed by `take_lossy`"
        );
        let word = self.shape.word(position);
        // Partner: the release store of the commit.
        let header = self.memory.words()[word].load(Acquire);
        // Of the header that it has to be, the length is open, and where the next one begins.
        let open = header ^ super::frame::header(Kind::Message, 0, number + 1, Unit::WORD);
        let len = open & !TO_LINE;
        // What is left of the ring is a multiple of a word.
        if len > most_bytes || len > self.shape.rest(position) - WORD_BYTES {
            return None;
        }
        let end = frame_end(position, len, Unit::of(open));
        Some(Ahead { word: word + 1, len: len as usize, end })
    }

    /// The words that say where the next message lies, if it is one in the arena, and where its frame ends: what
    /// [`pass`](Self::pass) is for. Whatever else there is, [`poll`](Self::poll) tells.
    #[inline]
    #[must_use]
    pub fn next_in_arena(&self) -> Option<(&[AtomicU64; PLACE_WORDS], u64)> {
        in_arena_at(self.shape, self.memory.words(), self.position, self.number)
    }

    /// Goes on behind a message, to where its frame ends.
    #[inline]
    pub fn pass(&mut self, end: u64) {
        self.position = end;
        self.number += 1;
    }

    #[cold]
    fn frame_behind_pad(&mut self, header: Header) -> Result<Option<Frame>, Misbehaved> {
        let next = self.behind_pad(header)?;
        // It was committed before the pad.
        let header = self.header(next)?.ok_or(Misbehaved("a pad with nothing behind it"))?;
        if header.kind == Kind::Pad {
            return Err(Misbehaved("two pads"));
        }
        let frame = self.frame(next, header)?;
        self.position = next;
        Ok(Some(frame))
    }

    #[inline]
    fn header(&self, position: u64) -> Result<Option<Header>, Misbehaved> {
        // Partner: the release store of the commit.
        Header::parse(self.memory.words()[self.shape.word(position)].load(Acquire))
    }

    fn behind_pad(&self, header: Header) -> Result<u64, Misbehaved> {
        let rest = self.shape.rest(self.position);
        if rest == self.shape.capacity() || header.payload_bytes != 0 {
            return Err(Misbehaved("a pad where none can be"));
        }
        Ok(self.position + rest)
    }

    #[inline(always)]
    fn frame(&self, position: u64, header: Header) -> Result<Frame, Misbehaved> {
        let frame_bytes = frame_bytes(header.payload_bytes);
        if frame_bytes > self.shape.largest_frame() || frame_bytes > self.shape.rest(position) {
            return Err(Misbehaved("a frame that is longer than can be"));
        }
        let expected = if header.kind == Kind::End { self.number } else { self.number + 1 };
        let missing = u64::from(header.number_low.wrapping_sub(expected as u32));
        if missing != 0 && (!self.resumes || expected > LAST) {
            return Err(Misbehaved("a message whose number is not the next"));
        }
        Ok(Frame {
            kind: header.kind,
            payload_bytes: header.payload_bytes,
            // In 64 bits: the first one at or after the next that ends so.
            number: expected + missing,
            missing,
            payload: position + 8,
            end: frame_end(position, header.payload_bytes, header.unit),
        })
    }

    /// Index of the first word of a frame's payload among the words of the memory.
    #[inline]
    #[must_use]
    pub fn payload_index(&self, frame: &Frame) -> usize {
        self.shape.word(frame.payload)
    }

    /// The words of a frame's payload.
    #[inline]
    #[must_use]
    pub fn payload(&self, frame: &Frame) -> &[AtomicU64] {
        let first = self.payload_index(frame);
        &self.memory.words()[first..first + frame.payload_bytes.div_ceil(8) as usize]
    }

    /// Copies the payload from a multiple of 8 on.
    #[inline]
    pub fn copy(&self, frame: &Frame, offset: usize, bytes: &mut [u8]) {
        copy_out(&self.payload(frame)[offset / 8..], bytes);
    }

    /// Goes on behind a frame.
    #[inline]
    pub fn advance(&mut self, frame: &Frame) {
        self.position = frame.end;
        self.number = frame.number;
        self.resumes = false;
    }

    /// The cursor to store, if the reader has gone a step since the last one.
    #[inline]
    pub fn cursor_after_step(&mut self) -> Option<u64> {
        (self.position - self.stored >= self.shape.step()).then(|| self.cursor())
    }

    /// The cursor to store, if the reader has gone on since the last one.
    #[inline]
    pub fn cursor_if_moved(&mut self) -> Option<u64> {
        (self.position != self.stored).then(|| self.cursor())
    }

    #[inline]
    fn cursor(&mut self) -> u64 {
        self.stored = self.position;
        self.position
    }

    /// The next message of a lossy ring: appends the payload to `bytes`, if there is one, after which `more` may
    /// replace what the frame stands for; all of that counts only if the writer has not been there meanwhile.
    ///
    /// # Errors
    /// What no honest writer writes; the inner one when the writer was faster: see
    /// [`catch_up`](Self::catch_up).
    pub fn take_lossy(
        &mut self,
        bytes: &mut Vec<u8>,
        more: impl FnOnce(&Self, &Frame, &mut Vec<u8>) -> Result<(), Misbehaved>,
    ) -> Result<Result<Option<Frame>, Overtaken>, Misbehaved> {
        let before = (self.position, bytes.len());
        let mut found = self.poll();
        if let Ok(Some(frame)) = &found {
            let frame = *frame;
            let start = bytes.len();
            bytes.resize(start + frame.payload_bytes as usize, 0);
            self.copy(&frame, 0, &mut bytes[start..]);
            if let Err(what) = more(self, &frame, bytes) {
                found = Err(what);
            }
        }
        // Partner: the release fence of `RingWriter::drop_oldest`. Whoever has seen a word of what overwrote
        // this sees the tail that was moved before.
        fence(Acquire);
        let tail = self.memory.words()[at::TAIL_WORD].load(Relaxed);
        if tail > before.0 {
            (self.position, _) = before;
            bytes.truncate(before.1);
            return Ok(Err(Overtaken { tail }));
        }
        Ok(Ok(found?))
    }

    /// Goes on at the oldest frame that is still there. The next frame says how many messages are
    /// [missing](Frame::missing).
    ///
    /// # Errors
    /// When the place that the writer names is none.
    pub fn catch_up(&mut self, overtaken: Overtaken) -> Result<(), Misbehaved> {
        let Overtaken { tail } = overtaken;
        if !tail.is_multiple_of(8) || tail > LAST {
            return Err(Misbehaved("a tail that is none"));
        }
        self.position = tail;
        self.resumes = true;
        Ok(())
    }
}
