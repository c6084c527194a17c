//! The publishing end of a topic: one ring for all subscribers.

use std::collections::VecDeque;

use switchboard_kernel::io;
use switchboard_kernel::shared_memory::PeerMemory;
use switchboard_shm::bell::{self, Sleeps};
use switchboard_shm::cursor::PeerCursor;
use switchboard_shm::layout::{PAGE_BYTES, reader};
use switchboard_shm::ring::{Claim, Counters, Kind, Prefix, RingWriter};

use super::blocks::Blocks;
use super::control::{Control, Event, LinkId, Met, WriterOffer};
use super::endpoint::Core;
use super::geometry;
use super::hello::{Pattern, Role};
use super::memory::{Bell, Own, Theirs};
use super::park::Place;
use super::waking::{Woken, wake_readers};
use crate::error::{Error, SendError};
use crate::options::Overflow;
use crate::transport::Setup;

/// A subscriber, as its publisher knows it.
#[derive(Debug)]
struct Subscriber {
    link: LinkId,
    /// Its byte in the doorbell.
    slot: usize,
    cursor: PeerCursor<Theirs>,
    woken: Woken,
}

/// A message that late subscribers get.
#[derive(Debug)]
struct Kept {
    /// Where its frame begins, or the pad before that.
    begin: u64,
    /// The number of the message before.
    number: u64,
    len: u64,
}

/// All that is kept for late subscribers at most, in bytes.
const MOST_HISTORY_BYTES: u64 = 4 << 20;

#[derive(Debug)]
pub(super) struct PublisherCore {
    setup: Setup,
    ring: RingWriter<Own>,
    blocks: Blocks,
    bell: Bell,
    control: Control<WriterOffer>,
    subscribers: Vec<Subscriber>,
    /// How many words of the doorbell have a subscriber.
    bell_words: usize,
    history: VecDeque<Kept>,
    history_bytes: u64,
    counters: Counters,
    /// The link of the subscriber that keeps the ring full.
    slowest: Option<LinkId>,
    /// No message follows.
    ended: bool,
    failed: Option<Error>,
    cancelled: bool,
}

impl PublisherCore {
    /// Whether it is of no use without a peer.
    pub(super) const NEEDS_PEER: bool = false;

    pub(super) fn open(setup: Setup) -> Result<Self, Error> {
        let lossy = setup.options.overflow == Overflow::DropOldest;
        let ring = geometry::ring(&setup, geometry::TOPIC, lossy)?;
        let bell = geometry::bell(&setup)?;
        let failed = |error| setup.system("cannot give memory away", error);
        let offer = WriterOffer {
            bell: bell.0.fd().and_then(io::duplicate).map_err(failed)?,
            ring: Some(ring.memory().0.read_only_fd().map_err(failed)?),
        };
        let control = Control::open(&setup, Pattern::Topic, Role::Writer, offer)?;
        Ok(Self {
            ring,
            blocks: Blocks::default(),
            bell,
            control,
            subscribers: Vec::new(),
            bell_words: 0,
            history: VecDeque::new(),
            history_bytes: 0,
            counters: Counters::default(),
            slowest: None,
            ended: false,
            failed: None,
            cancelled: false,
            setup,
        })
    }

    pub(super) fn control(&self) -> &Control<WriterOffer> {
        &self.control
    }

    pub(super) fn peers(&self) -> usize {
        self.subscribers.len()
    }

    /// Messages that some subscriber has not taken, where it is waited for.
    pub(super) fn pending(&mut self) -> u64 {
        if self.ring.is_lossy() {
            return 0;
        }
        let cursor = self.look_at_cursors();
        self.ring.messages_from(cursor)
    }

    /// Whether everybody who was found has joined.
    pub(super) fn has_met(&self) -> bool {
        self.control.wanted() == 0
    }

    pub(super) fn published(&self) -> u64 {
        self.counters.messages
    }

    /// Publishes without waiting.
    #[inline]
    pub(super) fn try_send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        let len = payload.len() as u64;
        if len > self.ring.largest_payload() {
            return self.try_send_large(payload);
        }
        let claim = self.claim(len)?;
        self.ring.write(&claim, 0, payload);
        self.commit(claim, Kind::Message, len, len);
        Ok(())
    }

    #[cold]
    fn try_send_large(&mut self, payload: &[u8]) -> Result<(), SendError> {
        let limit_bytes = self.setup.largest_message_bytes() as usize;
        if payload.len() > limit_bytes {
            let limit = self.setup.limit_name().to_owned();
            return Err(SendError::TooLarge { len_bytes: payload.len(), limit_bytes, limit });
        }
        let len = payload.len() as u64;
        let frame_bytes = Blocks::FRAME_BYTES;
        let claim = self.claim(frame_bytes)?;
        let Some(block) = self.block(len)? else { return Err(SendError::Full) };
        switchboard_shm::copy_in(self.blocks.room(&block), payload);
        let place = self.blocks.place(&block, len).to_bytes(Prefix::default());
        self.ring.write(&claim, 0, &place);
        self.blocks.sent(block, claim.end());
        self.commit(claim, Kind::InArena, frame_bytes, len);
        Ok(())
    }

    /// A block for a large message; none where subscribers still hold too much.
    fn block(&mut self, len: u64) -> Result<Option<switchboard_shm::arena::Block>, SendError> {
        self.look_at_cursors();
        let done = self.done_through();
        self.blocks.reclaim(done);
        loop {
            if let Some(block) = self.blocks.take(len) {
                return Ok(Some(block));
            }
            if self.blocks.may_grow(len) {
                let (index, memory) = self
                    .blocks
                    .grow(len)
                    .map_err(|error| self.setup.system("no memory for a large message", error))?;
                for subscriber in &self.subscribers {
                    self.control.give_segment(subscriber.link, index, memory);
                }
                continue;
            }
            let Some(oldest) = self.blocks.oldest() else { return Ok(None) };
            if !self.ring.is_lossy() {
                return Ok(None);
            }
            self.ring.drop_before(oldest);
            let done = self.done_through();
            self.blocks.reclaim(done);
        }
    }

    /// Frames that end at or before this are nobody's any more.
    fn done_through(&self) -> u64 {
        let begin = if self.ring.is_lossy() {
            self.ring.tail()
        } else {
            let cursors = self.subscribers.iter().map(|subscriber| subscriber.cursor.seen());
            cursors.min().unwrap_or(self.ring.head())
        };
        self.history.front().map_or(begin, |oldest| begin.min(oldest.begin))
    }

    #[inline]
    fn claim(&mut self, len: u64) -> Result<Claim, SendError> {
        loop {
            if let Some(claim) = self.ring.claim(len) {
                return Ok(claim);
            }
            self.make_room(len)?;
        }
    }

    #[inline]
    fn commit(&mut self, claim: Claim, kind: Kind, frame_bytes: u64, len: u64) {
        if self.setup.options.history_messages > 0 {
            self.keep(len);
        }
        self.counters.messages += 1;
        self.counters.bytes += len;
        let at = self.ring.commit(claim, kind, frame_bytes);
        self.ring_bell(at);
    }

    /// Looks who sleeps for what was committed at a position.
    #[inline]
    fn ring_bell(&mut self, at: u64) {
        bell::after_commit();
        for index in 0..self.bell_words {
            let word = bell::raised_word(&self.bell, index);
            if word != 0 {
                self.wake(index, word, at);
            }
        }
    }

    /// Wakes those of eight readers that sleep.
    #[cold]
    fn wake(&mut self, index: usize, word: u64, at: u64) {
        let mut on_futex = false;
        for one in self.subscribers.iter_mut().filter(|one| one.slot / 8 == index) {
            let Some(raised) = bell::in_word(word, one.slot) else { continue };
            if !one.woken.is_due(raised) {
                continue;
            }
            self.counters.wakes += 1;
            match raised.how {
                Sleeps::OnFutex => on_futex = true,
                Sleeps::OnDescriptor => self.control.wake(one.link),
            }
        }
        if on_futex {
            // All of them sleep at this place: who is behind has something to read, and is awake.
            wake_readers(&self.ring, at);
        }
    }

    /// Notes where the next message begins.
    #[cold]
    fn keep(&mut self, len: u64) {
        self.history.push_back(Kept { begin: self.ring.head(), number: self.ring.number(), len });
        self.history_bytes += len;
        while self.history.len() > self.setup.options.history_messages as usize
            || self.history_bytes > MOST_HISTORY_BYTES
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(kept) = self.history.pop_front() {
            self.history_bytes -= kept.len;
        }
    }

    /// Where a subscriber that comes now begins, and the number before.
    fn begin(&mut self) -> (u64, u64) {
        let oldest = self.ring.oldest();
        while self.history.front().is_some_and(|kept| kept.begin < oldest) {
            self.forget_oldest();
        }
        let kept = self.history.front().map(|kept| (kept.begin, kept.number));
        kept.unwrap_or((self.ring.head(), self.ring.number()))
    }

    /// Looks how far the subscribers are. An error where that leaves no room.
    #[cold]
    fn make_room(&mut self, len: u64) -> Result<(), SendError> {
        let cursor = self.look_at_cursors();
        self.ring.set_smallest_cursor(cursor);
        if self.ring.is_held_up_by(cursor, len) { Err(SendError::Full) } else { Ok(()) }
    }

    /// The subscriber that keeps the ring full.
    pub(super) fn slow_peer(&self) -> Option<String> {
        self.slowest.map(|link| self.control.peer_name(link))
    }

    /// The smallest cursor.
    fn look_at_cursors(&mut self) -> u64 {
        let head = self.ring.head();
        let mut smallest = head;
        self.slowest = None;
        let mut liars = Vec::new();
        for subscriber in &mut self.subscribers {
            match subscriber.cursor.load(head) {
                Ok(cursor) if cursor < smallest => {
                    smallest = cursor;
                    self.slowest = Some(subscriber.link);
                }
                Ok(_) => {}
                Err(misbehaved) => liars.push((subscriber.link, misbehaved)),
            }
        }
        for (link, misbehaved) in liars {
            self.turn_away(link, misbehaved.0);
        }
        smallest
    }

    fn turn_away(&mut self, link: LinkId, why: &str) {
        self.control.turn_away(link, why);
        self.forget(link);
    }

    fn forget(&mut self, link: LinkId) {
        self.subscribers.retain(|subscriber| subscriber.link != link);
        self.bell_words = self.words_of_bell();
    }

    fn words_of_bell(&self) -> usize {
        self.subscribers.iter().map(|subscriber| subscriber.slot / 8 + 1).max().unwrap_or(0)
    }

    fn join(&mut self, met: Met<()>) {
        let link = met.link;
        let pages = PAGE_BYTES..=PAGE_BYTES;
        let page = met.descriptors.into_iter().next().map(|fd| PeerMemory::received(fd, pages));
        let Some(Ok(page)) = page else {
            self.control.turn_away(link, "it gave no reader's page that can be trusted");
            return;
        };
        let taken = |slot| self.subscribers.iter().any(|subscriber| subscriber.slot == slot);
        let Some(slot) = (0..bell::READERS).find(|slot| !taken(*slot)) else {
            self.control.turn_away(link, "there are as many subscribers as can be");
            return;
        };
        let (begin, number) = self.begin();
        let cursor = match PeerCursor::open(Theirs(page), begin) {
            Ok(cursor) => cursor,
            Err(misbehaved) => {
                self.control.turn_away(link, misbehaved.0);
                return;
            }
        };
        bell::lower(&self.bell, slot);
        let mut welcomed = self.control.welcome(link, slot, (begin, number), None);
        for (index, memory) in self.blocks.segments().enumerate() {
            welcomed &= self.control.give_segment(link, index as u32, memory);
        }
        if !welcomed {
            return;
        }
        self.subscribers.push(Subscriber { link, slot, cursor, woken: Woken::default() });
        self.bell_words = self.words_of_bell();
        // What was known of the others may leave room where this one still has to read.
        let cursors = self.subscribers.iter().map(|subscriber| subscriber.cursor.seen());
        if let Some(smallest) = cursors.min()
            && !self.ring.is_lossy()
        {
            self.ring.set_smallest_cursor(smallest);
        }
    }

    /// Says that no message follows. Whether it could.
    pub(super) fn finish(&mut self) -> Result<bool, SendError> {
        if self.ended {
            return Ok(true);
        }
        let claim = match self.claim(0) {
            Ok(claim) => claim,
            Err(SendError::Full) => return Ok(false),
            Err(error) => return Err(error),
        };
        let at = self.ring.commit(claim, Kind::End, 0);
        self.ring_bell(at);
        self.ring.count(&self.counters);
        self.ended = true;
        Ok(true)
    }

    /// What went wrong on the control path, and whether the caller wants to be interrupted.
    pub(super) fn check(&mut self) -> Result<(), SendError> {
        if let Some(error) = self.failed.take() {
            return Err(SendError::Failed(error));
        }
        if !std::mem::take(&mut self.cancelled) {
            return Ok(());
        }
        let now = self.setup.is_cancelled();
        self.control.watch_cancel()?;
        if now { Err(SendError::Interrupted) } else { Ok(()) }
    }
}

impl Core for PublisherCore {
    fn is_ready(&mut self) -> bool {
        if self.failed.is_some() || self.cancelled {
            return true;
        }
        let Some(slowest) = self.slowest else { return false };
        let head = self.ring.head();
        let subscriber = self.subscribers.iter().find(|one| one.link == slowest);
        subscriber.is_none_or(|one| one.cursor.peek(head) != Ok(one.cursor.seen()))
    }

    fn arm(&mut self, how: Sleeps) -> Option<(Place, u32)> {
        self.counters.sleeps += 1;
        self.ring.count(&self.counters);
        let seen = self.slowest.and_then(|link| {
            let one = self.subscribers.iter().find(|one| one.link == link)?;
            Some((one.cursor.memory().clone(), one.cursor.seen()))
        });
        self.ring.set_wanted(how.number());
        if self.is_ready() {
            return None;
        }
        Some(seen.map_or((Place::Own, 0), |(memory, cursor)| {
            (Place::Cursor(memory, reader::CURSOR_WORD), cursor as u32)
        }))
    }

    fn disarm(&mut self, _: bool) {
        self.ring.set_wanted(0);
    }

    fn control(&mut self) -> bool {
        let mut news = false;
        for event in self.control.turn() {
            news = true;
            match event {
                Event::Met(met) => self.join(met),
                Event::Gone(link) => {
                    self.forget(link);
                    self.control.part(link);
                }
                Event::Broke(link, problem) => self.turn_away(link, &problem),
                Event::Cancelled => self.cancelled = true,
                Event::Failed(error) => self.failed = Some(error),
                // A subscriber that does not fit is told so; a publisher goes on.
                _ => {}
            }
        }
        news
    }

    fn nudge(&mut self) {
        self.control.nudge();
    }
}
