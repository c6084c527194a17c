//! The writing side of a ring.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::frame::{Header, Kind, Unit, as_kind, frame_bytes, frame_end, header};
use super::{Counters, Gathering, Grant, Shape};
use crate::atomic::fence;
use crate::barrier::Busy;
use crate::copy::{copy_in, copy_out};
use crate::layout::writer as at;
use crate::layout::{LINE_BYTES, VERSION, WORD_BYTES};
use crate::machine::will_write;
use crate::{AtomicU64, Misbehaved, Words};

/// So many bytes after a frame are asked for, to be written next.
const AHEAD_BYTES: u64 = 5 * LINE_BYTES;
/// So many bytes of a frame are asked for at most; the processor notices by itself where longer ones go.
pub(super) const MOST_ASKED_BYTES: u64 = 8 << 10;

/// The one who writes a ring.
#[derive(Debug)]
pub struct RingWriter<W> {
    memory: W,
    shape: Shape,
    /// Where the next frame goes. The word there is 0.
    head: u64,
    /// What is claimed ends at or before this, with the header after it.
    limit: u64,
    /// Where what was ever claimed ends: it may be under way, and may have been written to and not committed.
    claimed: u64,
    /// Before this zeros may have been stored where nothing was claimed. It only grows.
    ahead: u64,
    /// The word here is 0 already, unless it lies in what was claimed since: the next header but one goes there, if
    /// the next frame is as long as the last one.
    cleared: u64,
    /// Lines before this have been asked for.
    asked: u64,
    /// Where frames begin.
    unit: Unit,
    /// Of the last message.
    number: u64,
    /// Of a lossy ring: where frames begin, about an eighth of the ring apart; the first is the tail, and none
    /// means the head.
    marks: VecDeque<u64>,
}

/// Room for a frame that is not committed yet. Nothing is taken until it is.
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "nothing is written until it is committed"]
pub struct Claim {
    /// Where the pad goes, if there is one, or the frame.
    pub(super) begin: u64,
    /// Where the frame goes.
    pub(super) frame: u64,
    pub(super) payload_bytes: u64,
    pub(super) unit: Unit,
}

impl Claim {
    /// Bytes of the payload.
    #[inline]
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Where the payload begins.
    #[must_use]
    pub fn payload(&self) -> u64 {
        self.frame + WORD_BYTES
    }

    /// Where the frame ends, if it is committed with all of the payload claimed.
    #[inline]
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end_of(self.payload_bytes)
    }

    /// Where it ends with so much payload.
    #[inline]
    #[must_use]
    pub fn end_of(&self, payload_bytes: u64) -> u64 {
        frame_end(self.frame, payload_bytes, self.unit)
    }
}

impl<W: Words> RingWriter<W> {
    /// Makes a ring in memory that is all zeros.
    ///
    /// # Errors
    /// When the memory has not the size of a ring of this capacity.
    pub fn create(
        memory: W,
        pattern: u32,
        capacity_bytes: u64,
        lossy: bool,
        busy: Busy,
    ) -> Result<Self, Misbehaved> {
        Self::create_at(memory, pattern, capacity_bytes, lossy, busy, (0, 0))
    }

    /// As [`create`](Self::create), beginning at a position, after a number.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_at(
        memory: W,
        pattern: u32,
        capacity_bytes: u64,
        lossy: bool,
        busy: Busy,
        (position, number): (u64, u64),
    ) -> Result<Self, Misbehaved> {
        let words = memory.words();
        Shape::check_capacity(capacity_bytes, words.len())?;
        let shape = Shape { mask: capacity_bytes - 1, lossy, busy };
        let flags = if lossy { at::LOSSY } else { 0 };
        let position = position & !(WORD_BYTES - 1);
        words[at::KIND_WORD].store(u64::from(VERSION) | u64::from(pattern) << 32, Relaxed);
        words[at::CAPACITY_WORD].store(capacity_bytes, Relaxed);
        words[at::FLAGS_WORD].store(flags | busy.flag(at::FENCES), Relaxed);
        words[at::TAIL_WORD].store(position, Relaxed);
        words[at::MAGIC_WORD].store(at::MAGIC, Release);
        let marks = VecDeque::from([position]);
        let limit = position + capacity_bytes;
        Ok(Self {
            memory,
            shape,
            head: position,
            limit,
            claimed: position,
            ahead: position,
            cleared: position,
            asked: position,
            unit: Unit::WORD,
            number,
            marks,
        })
    }

    /// Where the next frame goes.
    #[inline]
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Number of the last message.
    #[inline]
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the ring.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.shape.capacity()
    }

    /// The largest payload of a frame, in bytes.
    #[inline]
    #[must_use]
    pub fn largest_payload(&self) -> u64 {
        self.shape.largest_frame() - WORD_BYTES
    }

    /// What this side does between a commit and looking whether somebody sleeps.
    #[inline]
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.shape.busy
    }

    /// Whether the oldest frames are overwritten.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.shape.lossy
    }

    /// Of a lossy ring: frames before this count as gone. It is where a frame begins.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.marks.front().copied().unwrap_or(self.head)
    }

    /// Frames that begin at or after this have not been overwritten.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        if self.shape.lossy {
            return self.tail();
        }
        // The word after what is claimed, or was written to ahead, is written too.
        let written = self.claimed.max(self.ahead).max(self.head) + WORD_BYTES;
        written.saturating_sub(self.shape.capacity())
    }

    /// The memory.
    #[inline]
    pub fn memory(&self) -> &W {
        &self.memory
    }

    /// The smallest cursor of all readers is now known to be this.
    pub fn set_smallest_cursor(&mut self, cursor: u64) {
        self.limit = cursor.saturating_add(self.shape.capacity());
    }

    /// Whether the cursor of a reader keeps a frame of this size from being claimed.
    #[must_use]
    pub fn is_held_up_by(&self, cursor: u64, payload_bytes: u64) -> bool {
        self.after(payload_bytes) + WORD_BYTES > cursor.saturating_add(self.shape.capacity())
    }

    /// Where this frame would begin: after a pad if need be.
    #[inline(always)]
    fn begin(&self, payload_bytes: u64) -> u64 {
        let rest = self.shape.rest(self.head);
        if frame_bytes(payload_bytes) > rest { self.head + rest } else { self.head }
    }

    /// Where the head would be after this frame, with the pad before it.
    #[inline]
    fn after(&self, payload_bytes: u64) -> u64 {
        frame_end(self.begin(payload_bytes), payload_bytes, self.unit)
    }

    /// Whether each frame is to begin at a line of the cache. That is faster where readers wait for every message:
    /// the line that they poll is not that of the message before. Where they are behind it is slower,
    /// since frames take more lines.
    pub fn set_to_line(&mut self, to_line: bool) {
        self.unit = if to_line { Unit::LINE } else { Unit::WORD };
    }

    /// Room for a frame; `None` where the readers' cursors, as far as they are known, leave none. The
    /// payload is not larger than [`largest_payload`](Self::largest_payload).
    #[inline(always)]
    pub fn claim(&mut self, payload_bytes: u64) -> Option<Claim> {
        debug_assert!(payload_bytes <= self.largest_payload(), "{payload_bytes} bytes in a frame");
        let frame = self.begin(payload_bytes);
        let claim = Claim { begin: self.head, frame, payload_bytes, unit: self.unit };
        // The header after it too: it becomes 0.
        let end = claim.end() + WORD_BYTES;
        if end > self.limit {
            if !self.shape.lossy {
                return None;
            }
            self.drop_oldest(end);
        }
        self.claimed = self.claimed.max(claim.end());
        self.fetch(&claim);
        Some(claim)
    }

    /// Room where the next frame goes; nothing is taken. Of a ring that loses nothing, as far as the readers' cursors are
    /// known, and up to where a pad would be needed.
    #[inline(always)]
    #[must_use]
    pub fn grant(&self) -> Grant {
        debug_assert!(!self.shape.lossy, "what is overwritten is to be told of");
        let frame = self.head;
        // Both headers, and what a frame is filled up with.
        let around = 2 * WORD_BYTES + self.unit.rest();
        let room = self.shape.rest(frame).min(self.limit.saturating_sub(frame));
        Grant {
            frame,
            word: self.shape.word(frame),
            below_bytes: room.saturating_sub(around).min(self.largest_payload() + 1),
            cleared: if self.claimed <= self.cleared { self.cleared } else { 0 },
            header: header(Kind::Message, 0, self.number + 1, self.unit),
            unit: self.unit,
        }
    }

    /// What was claimed is not committed, and may have been written to.
    #[inline]
    pub fn give_up(&mut self, claim: &Claim) {
        self.claimed = self.claimed.max(claim.end());
    }

    /// Moves the tail on, so that everything before `end` may be written.
    #[cold]
    fn drop_oldest(&mut self, end: u64) {
        self.move_tail(end - self.shape.capacity());
    }

    /// Moves the tail of a lossy ring on, at least to a position, so that nobody is handed what is before.
    pub fn drop_before(&mut self, position: u64) {
        debug_assert!(self.shape.lossy, "nothing is dropped from this ring");
        self.move_tail(position.min(self.head));
    }

    fn move_tail(&mut self, least: u64) {
        while self.tail() < least && self.marks.pop_front().is_some() {}
        let tail = self.tail();
        self.limit = tail + self.shape.capacity();
        self.memory.words()[at::TAIL_WORD].store(tail, Relaxed);
        // Partner: the acquire fence of a reader that has copied. Whoever sees a word of what is
        // written from now on sees this tail too.
        fence(Release);
    }

    /// Stores bytes of the payload, from a multiple of 8 on.
    ///
    /// What shares a cache line with the header comes last: readers are polling there, and so the line goes to
    /// them and back once, not twice.
    #[inline]
    pub fn write(&self, claim: &Claim, offset: usize, bytes: &[u8]) {
        self.write_behind(claim, &self.room(claim)[offset / 8..], offset, bytes);
    }

    /// The same from the beginning on, with words before the bytes.
    #[inline(always)]
    pub fn write_with_head(&self, claim: &Claim, head: &[u64], bytes: &[u8]) {
        let (before, behind) = self.room(claim).split_at(head.len());
        self.write_behind(claim, behind, head.len() * 8, bytes);
        for (word, value) in before.iter().zip(head) {
            word.store(*value, Relaxed);
        }
    }

    #[inline(always)]
    fn write_behind(&self, claim: &Claim, words: &[AtomicU64], offset: usize, bytes: &[u8]) {
        let begin = claim.frame + WORD_BYTES + offset as u64;
        let beside = (begin.next_multiple_of(LINE_BYTES) - begin) as usize;
        match bytes.split_at_checked(beside) {
            Some((beside, beyond)) => {
                copy_in(&words[beside.len() / 8..], beyond);
                copy_in(words, beside);
            }
            None => copy_in(words, bytes),
        }
    }

    /// Stores words from the beginning of the payload on, where there is [room](Grant::room) for them.
    #[inline(always)]
    pub fn write_granted<const N: usize>(&self, grant: &Grant, words: [u64; N]) {
        let room = self.memory.words().get(grant.word + 1..).and_then(<[_]>::first_chunk::<N>);
        for (word, value) in room.iter().copied().flatten().zip(words) {
            word.store(value, Relaxed);
        }
    }

    /// The words of the payload: they are nobody else's until the claim is committed.
    #[inline]
    pub fn room(&self, claim: &Claim) -> &[AtomicU64] {
        let (first, end) = self.payload(claim);
        &self.memory.words()[first..end]
    }

    /// Index of the first word of the payload among the words of the memory.
    #[inline]
    #[must_use]
    pub fn payload_index(&self, claim: &Claim) -> usize {
        self.shape.word(claim.frame) + 1
    }

    #[inline]
    fn payload(&self, claim: &Claim) -> (usize, usize) {
        let first = self.payload_index(claim);
        (first, first + claim.payload_bytes.div_ceil(8) as usize)
    }

    /// Room behind what is there, of up to so many bytes, for messages that become visible together. Nothing else is
    /// claimed before they are [committed](Self::commit_gathered).
    ///
    /// Only for a ring that loses nothing. There may be no room, as far as the readers' cursors are known, or less:
    /// frames follow each other without a pad.
    #[must_use]
    pub fn gather(&mut self, most_bytes: u64) -> Gathering {
        debug_assert!(!self.shape.lossy, "what is overwritten is to be told of");
        let begin = self.head;
        // The header after it too: it becomes 0.
        let free = self.limit.saturating_sub(begin + WORD_BYTES);
        let room = self.shape.rest(begin).min(free).min(most_bytes) & !(WORD_BYTES - 1);
        self.claimed = self.claimed.max(begin + room);
        Gathering::new(begin, self.shape.word(begin), room, self.number)
    }

    /// Commits what was [gathered](Self::gather), if anything was. Whether it was: then
    /// [`crate::bell::after_commit`] comes next.
    pub fn commit_gathered(&mut self, gathering: &mut Gathering) -> bool {
        let all = std::mem::take(gathering);
        if all.messages() == 0 || all.begin != self.head {
            debug_assert_eq!(all.messages(), 0, "something was committed before it");
            return false;
        }
        let words = self.memory.words();
        let end = all.begin + (all.next - all.first) as u64 * WORD_BYTES;
        let behind = &words[self.shape.word(end)];
        behind.store(0, Relaxed);
        (self.head, self.number) = (end, self.number + all.messages());
        // The commit, of all of them. Partner: the acquire load of readers.
        words[all.first].store(all.header, Release);
        true
    }

    /// Commits a message, or whatever else, with its first `payload_bytes`. [`crate::bell::after_commit`] comes next.
    #[inline(always)]
    pub fn commit(&mut self, claim: Claim, kind: Kind, payload_bytes: u64) {
        let payload_bytes = payload_bytes.min(claim.payload_bytes);
        if !matches!(kind, Kind::End) {
            self.number += 1;
        }
        let words = self.memory.words();
        let end = claim.end_of(payload_bytes);
        if !self.is_cleared(end) {
            words[self.shape.word(end)].store(0, Relaxed);
        }
        let header_word = header(kind, payload_bytes, self.number, claim.unit);
        let frame = &words[self.shape.word(claim.frame)];
        if claim.begin == claim.frame {
            // The commit. Partner: the acquire load of readers.
            frame.store(header_word, Release);
        } else {
            frame.store(header_word, Relaxed);
            words[self.shape.word(claim.begin)]
                .store(header(Kind::Pad, 0, self.number, Unit::WORD), Release);
        }
        self.head = end;
        if self.shape.lossy {
            self.note_mark(claim.begin);
        }
        self.fetch_ahead();
        self.clear_next(end - claim.frame);
    }

    /// Commits a message, or where one is, where this was granted: with so much payload, of so much for which there was
    /// [room](Grant::room). [`crate::bell::after_commit`] comes next.
    #[inline(always)]
    pub fn commit_granted(
        &mut self,
        grant: &Grant,
        kind: Kind,
        (payload_bytes, room_bytes): (u64, u64),
    ) {
        debug_assert_eq!(grant.frame, self.head, "something was committed before it");
        let words = self.memory.words();
        let (end, claimed) = (grant.end_of(payload_bytes), grant.end_of(room_bytes));
        if end != grant.cleared || end != claimed {
            words[self.shape.word(end)].store(0, Relaxed);
        }
        // The commit. Partner: the acquire load of readers.
        words[grant.word].store(as_kind(grant.header, kind) | payload_bytes, Release);
        self.number += 1;
        self.head = end;
        self.claimed = self.claimed.max(claimed);
        self.fetch_ahead();
        self.clear_next(end - grant.frame);
    }

    /// Whether the word at the end of a frame is 0 already.
    #[inline(always)]
    fn is_cleared(&self, end: u64) -> bool {
        end == self.cleared && end == self.claimed
    }

    /// Where readers wait for every message: writes to the next frame now, when nobody waits for it, as if that was as long
    /// as the last one: a 0 to each of its lines, and behind it. Before the next commit it would be lines that have to come
    /// from the readers' processors, which fetch the neighbours of the line that they poll, and had all of them a turn
    /// of the ring ago.
    #[inline(always)]
    fn clear_next(&mut self, frame_bytes: u64) {
        if !self.unit.is_line() {
            return;
        }
        let rest = self.shape.rest(self.head);
        let begin = if frame_bytes > rest { self.head + rest } else { self.head };
        let end = begin + frame_bytes;
        if end + WORD_BYTES > self.limit {
            return;
        }
        let words = self.memory.words();
        let clear = |position: u64| {
            if let Some(word) = words.get(self.shape.word(position)) {
                word.store(0, Relaxed);
            }
        };
        clear(end);
        // The word at the head is 0.
        let mut line = begin.max(self.head + LINE_BYTES);
        let last = end.min(begin + MOST_ASKED_BYTES);
        while line < last {
            clear(line);
            line += LINE_BYTES;
        }
        (self.cleared, self.ahead) = (end, self.ahead.max(end));
    }

    /// Once the readers' cursors are known anew: does what a commit of so much payload did not do, because there was no room
    /// that is known of.
    pub fn clear_ahead(&mut self, payload_bytes: u64) {
        self.clear_next(frame_end(0, payload_bytes, self.unit));
    }

    /// Whether that is to be done.
    #[inline(always)]
    #[must_use]
    pub fn lacks_room_ahead(&self) -> bool {
        self.unit.is_line() && self.cleared <= self.head
    }

    /// Asks for the lines of a frame, to be written now: who reads has them since the last turn of the ring, or
    /// its processor, which fetches more than it is asked for. Else a store to one of them would wait for it, and
    /// the commit for that store, while readers fetch the line again that they poll. That one is left to them until
    /// it is written.
    #[inline(always)]
    fn fetch(&self, claim: &Claim) {
        let end = claim.end();
        if self.unit.is_line() && end <= self.cleared {
            return;
        }
        let last = if self.is_cleared(end) { end - 1 } else { end };
        let last = last.min(claim.frame + MOST_ASKED_BYTES);
        let mut line = (claim.frame | (LINE_BYTES - 1)) + 1;
        while line <= last {
            self.ask_for(line);
            line += LINE_BYTES;
        }
    }

    #[inline(always)]
    fn ask_for(&self, position: u64) {
        if let Some(word) = self.memory.words().get(self.shape.word(position)) {
            will_write(word);
        }
    }

    /// Asks for the lines of the frames to come, each of them once: where they follow each other fast, it is too
    /// late to do so when they are claimed.
    #[inline(always)]
    fn fetch_ahead(&mut self) {
        if self.unit.is_line() {
            // Those of the next frame are written to instead.
            return;
        }
        let mut line = self.asked.max(self.head + LINE_BYTES) & !(LINE_BYTES - 1);
        let last = self.head + AHEAD_BYTES;
        if line > last {
            return;
        }
        while line <= last {
            self.ask_for(line);
            line += LINE_BYTES;
        }
        self.asked = line;
    }

    #[inline]
    fn note_mark(&mut self, begin: u64) {
        let last = self.marks.back().copied();
        if last.is_none_or(|last| begin - last >= self.shape.step()) {
            self.marks.push_back(begin);
        }
    }

    /// Says that some messages of a queue have a priority: readers look over all that is there before they choose.
    /// Before the first such message is committed.
    pub fn set_priorities(&self) {
        self.memory.words()[at::PRIORITIES_WORD].store(1, Relaxed);
    }

    /// Reads a committed payload back, of a frame that no reader has settled: its begin and length as
    /// [`Claim::payload`] said.
    pub fn read_back(&self, begin: u64, bytes: &mut [u8]) {
        let first = self.shape.word(begin);
        copy_out(&self.memory.words()[first..first + bytes.len().div_ceil(8)], bytes);
    }

    /// Says how the writer sleeps, or [that it is awake](crate::barrier::Sleeper::awake). If it sleeps, what it
    /// does next is pass the barrier ([`crate::barrier::Sleeper::pass`]), and look once more.
    pub fn set_wanted(&self, sleeps: u64) {
        self.memory.words()[at::WANTED_WORD].store(sleeps, Relaxed);
    }

    /// Stores the counters.
    pub fn count(&self, counters: &Counters) {
        let Counters { messages, bytes, dropped, sleeps, wakes, late } = *counters;
        let words = &self.memory.words()[at::COUNTERS_WORD..];
        for (word, value) in words.iter().zip([messages, bytes, dropped, sleeps, wakes, late]) {
            word.store(value, Relaxed);
        }
    }

    /// How many messages there are from a position on, at which a frame begins that was not overwritten.
    #[must_use]
    pub fn messages_from(&self, position: u64) -> u64 {
        let (mut at, mut count) = (position, 0);
        while at < self.head {
            let word = self.memory.words()[self.shape.word(at)].load(Relaxed);
            let Ok(Some(header)) = Header::parse(word) else { break };
            if header.kind == Kind::Pad {
                at += self.shape.rest(at);
                continue;
            }
            count += u64::from(header.kind != Kind::End);
            at = frame_end(at, header.payload_bytes, header.unit);
        }
        count
    }
}
