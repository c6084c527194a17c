//! The sending end of a queue: a ring for each receiver, which keeps what that one has not settled.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use switchboard_kernel::io;
use switchboard_kernel::shared_memory::PeerMemory;
use switchboard_shm::arena::Block;
use switchboard_shm::bell::{self, Sleeps};
use switchboard_shm::cursor::PeerCursor;
use switchboard_shm::layout::{PAGE_BYTES, reader};
use switchboard_shm::ring::{Counters, Kind, PREFIX_BYTES, Prefix, RingWriter};
use switchboard_shm::{Misbehaved, copy_in};

use super::blocks::Blocks;
use super::control::{Control, Event, LinkId, Met, WriterOffer};
use super::endpoint::Core;
use super::geometry;
use super::hello::{Pattern, Role};
use super::memory::{Bell, Own, Theirs};
use super::park::Place;
use super::waking::{Woken, wake_readers};
use crate::error::{Error, SendError};
use crate::transport::Setup;

/// Unsettled messages of a link at most: half of what has a bit in the reader's page.
pub(super) const MOST_WINDOW: u32 = 256;

/// How long an end waits for receivers that it has found and not met.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);

/// A message in a ring that its receiver has not settled.
#[derive(Debug)]
struct Unsettled {
    /// Where its payload begins, after the prefix, and its length.
    payload: (u64, u32),
    /// Where its frame ends.
    end: u64,
    prefix: Prefix,
    /// The block that a large one lies in, and its length.
    block: Option<(Block, u64)>,
    /// The receiver gave it back, and it is elsewhere by now.
    taken_back: bool,
}

/// A message that has no receiver.
#[derive(Debug)]
struct Waiting {
    body: Body,
    prefix: Prefix,
}

#[derive(Debug)]
enum Body {
    Small(Vec<u8>),
    Large(Block, u64),
}

impl Body {
    fn len(&self) -> u64 {
        match self {
            Self::Small(bytes) => bytes.len() as u64,
            Self::Large(_, len) => *len,
        }
    }

    fn frame_bytes(&self, prefix: Prefix) -> u64 {
        match self {
            Self::Small(bytes) => small_bytes(bytes.len(), prefix),
            Self::Large(..) => Blocks::FRAME_BYTES,
        }
    }
}

/// Payload of the frame of a small message.
fn small_bytes(len: usize, prefix: Prefix) -> u64 {
    len as u64 + if prefix == Prefix::default() { 0 } else { PREFIX_BYTES as u64 }
}

/// A receiver, as its sender knows it.
#[derive(Debug)]
struct Receiver {
    link: LinkId,
    slot: usize,
    ring: RingWriter<Own>,
    cursor: PeerCursor<Theirs>,
    woken: Woken,
    /// Messages and bytes that it takes unsettled.
    window: (usize, u64),
    /// The largest message that it takes.
    largest: u64,
    unsettled: VecDeque<Unsettled>,
    unsettled_bytes: u64,
    /// Number of the first unsettled one.
    first: u64,
    ended: bool,
}

#[derive(Debug)]
pub(super) struct SenderCore {
    setup: Setup,
    blocks: Blocks,
    bell: Bell,
    control: Control<WriterOffer>,
    receivers: Vec<Receiver>,
    backlog: VecDeque<Waiting>,
    counters: Counters,
    acknowledged: u64,
    rejected: u64,
    /// A receiver was there once.
    met: bool,
    failed: Option<Error>,
    cancelled: bool,
    /// Until when its end waits for receivers that were found and not met.
    leaving: Option<Instant>,
    /// The largest message of this side.
    largest: usize,
}

impl SenderCore {
    /// Whether it is of no use without a peer.
    pub(super) const NEEDS_PEER: bool = true;

    pub(super) fn open(setup: Setup) -> Result<Self, Error> {
        let bell = geometry::bell(&setup)?;
        let fd = bell.0.fd().and_then(io::duplicate);
        let fd = fd.map_err(|error| setup.system("cannot give memory away", error))?;
        let offer = WriterOffer { bell: fd, ring: None };
        let largest = setup.largest_message_bytes() as usize;
        let control = Control::open(&setup, Pattern::Queue, Role::Writer, offer)?;
        Ok(Self {
            setup,
            blocks: Blocks::default(),
            bell,
            control,
            receivers: Vec::new(),
            backlog: VecDeque::new(),
            counters: Counters::default(),
            acknowledged: 0,
            rejected: 0,
            met: false,
            failed: None,
            cancelled: false,
            leaving: None,
            largest,
        })
    }

    pub(super) fn control(&self) -> &Control<WriterOffer> {
        &self.control
    }

    /// Whether there is nobody to be met first: no message of a queue is missed.
    #[expect(clippy::unused_self, reason = "the other ends look")]
    pub(super) fn has_met(&self) -> bool {
        true
    }

    pub(super) fn peers(&self) -> usize {
        self.receivers.len()
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Messages accepted and not settled.
    pub(super) fn pending(&self) -> u64 {
        let sent = self.receivers.iter().flat_map(|one| &one.unsettled);
        sent.filter(|one| !one.taken_back).count() as u64 + self.backlog.len() as u64
    }

    /// Sends without waiting.
    #[inline]
    pub(super) fn try_send(&mut self, payload: &[u8], priority: u32) -> Result<(), SendError> {
        if !self.backlog.is_empty() {
            self.send_backlog()?;
        }
        self.check_length(payload.len())?;
        let prefix = Prefix { priority: priority.min(u32::from(u16::MAX)) as u16, deliveries: 0 };
        let frame_bytes = small_bytes(payload.len(), prefix);
        if frame_bytes > geometry::largest_payload(&self.setup) {
            return self.try_send_large(payload, prefix);
        }
        let Some(at) = self.choose(frame_bytes, payload.len() as u64) else {
            return Err(SendError::Full);
        };
        let one = &mut self.receivers[at];
        if priority > 0 {
            one.ring.set_priorities();
        }
        let position = one.put_small(payload, prefix, frame_bytes);
        self.sent(at, position, payload.len() as u64);
        Ok(())
    }

    /// Whether this side and somebody there takes a message of this length.
    #[inline]
    fn check_length(&self, len_bytes: usize) -> Result<(), SendError> {
        if len_bytes > self.largest {
            let limit = self.setup.limit_name().to_owned();
            return Err(SendError::TooLarge { len_bytes, limit_bytes: self.largest, limit });
        }
        match self.receivers.iter().map(|one| one.largest as usize).max() {
            Some(limit_bytes) if len_bytes > limit_bytes => {
                let limit = "what the receiver takes".to_owned();
                Err(SendError::TooLarge { len_bytes, limit_bytes, limit })
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn try_send_large(&mut self, payload: &[u8], prefix: Prefix) -> Result<(), SendError> {
        let Some(at) = self.choose(Blocks::FRAME_BYTES, payload.len() as u64) else {
            return Err(SendError::Full);
        };
        let len = payload.len() as u64;
        let Some(block) = self.block(len)? else { return Err(SendError::Full) };
        copy_in(self.blocks.room(&block), payload);
        if prefix.priority > 0 {
            self.receivers[at].ring.set_priorities();
        }
        let position = self.put_large(at, block, len, prefix);
        self.sent(at, position, len);
        Ok(())
    }

    fn block(&mut self, len: u64) -> Result<Option<Block>, SendError> {
        if let Some(block) = self.blocks.take(len) {
            return Ok(Some(block));
        }
        self.settle_all();
        if let Some(block) = self.blocks.take(len) {
            return Ok(Some(block));
        }
        if !self.blocks.may_grow(len) {
            return Ok(None);
        }
        let grown = self.blocks.grow(len);
        let (index, memory) =
            grown.map_err(|error| self.setup.system("no memory for a large message", error))?;
        for one in &self.receivers {
            self.control.give_segment(one.link, index, memory);
        }
        Ok(self.blocks.take(len))
    }

    fn put_large(&mut self, at: usize, block: Block, len: u64, prefix: Prefix) -> u64 {
        let place = self.blocks.place(&block, len).to_bytes(prefix);
        let one = &mut self.receivers[at];
        let Some(claim) = one.ring.claim(Blocks::FRAME_BYTES) else {
            unreachable!("chosen because it has room")
        };
        one.ring.write(&claim, 0, &place);
        one.note(Unsettled {
            payload: (claim.payload(), 0),
            end: claim.end(),
            prefix,
            block: Some((block, len)),
            taken_back: false,
        });
        one.ring.commit(claim, Kind::InArena, Blocks::FRAME_BYTES)
    }

    /// A message was committed at a position: wakes its receiver.
    #[inline]
    fn sent(&mut self, at: usize, position: u64, len: u64) {
        self.counters.messages += 1;
        self.counters.bytes += len;
        self.ring_bell(at, position);
    }

    #[inline]
    fn ring_bell(&mut self, at: usize, position: u64) {
        bell::after_commit();
        let slot = self.receivers[at].slot;
        if let Some(raised) = bell::in_word(bell::raised_word(&self.bell, slot / 8), slot) {
            self.wake(at, raised, position);
        }
    }

    #[cold]
    fn wake(&mut self, at: usize, raised: bell::Raised, position: u64) {
        let one = &mut self.receivers[at];
        if !one.woken.is_due(raised) {
            return;
        }
        self.counters.wakes += 1;
        match raised.how {
            Sleeps::OnFutex => wake_readers(&one.ring, position),
            Sleeps::OnDescriptor => self.control.wake(one.link),
        }
    }

    /// The receiver with the fewest unsettled messages that takes a frame of this payload now.
    #[inline]
    fn choose(&mut self, frame_bytes: u64, len: u64) -> Option<usize> {
        if let [only] = &mut self.receivers[..]
            && only.takes(frame_bytes, len)
        {
            return Some(0);
        }
        self.choose_among(frame_bytes, len)
    }

    fn choose_among(&mut self, frame_bytes: u64, len: u64) -> Option<usize> {
        self.settle_all();
        let mut order: Vec<usize> = (0..self.receivers.len()).collect();
        order.sort_by_key(|at| self.receivers[*at].unsettled.len());
        order.into_iter().find(|at| self.receivers[*at].takes(frame_bytes, len))
    }

    /// Looks what the receivers have settled.
    fn settle_all(&mut self) {
        let mut liars = Vec::new();
        for one in &mut self.receivers {
            match one.settle(&mut self.blocks) {
                Ok(count) => self.acknowledged += count,
                Err(what) => liars.push((one.link, what)),
            }
        }
        for (link, what) in liars {
            self.turn_away(link, what.0);
        }
    }

    fn turn_away(&mut self, link: LinkId, problem: &str) {
        self.control.turn_away(link, problem);
        self.lose(link);
    }

    /// A receiver is gone: what it has not settled goes to others, marked.
    fn lose(&mut self, link: LinkId) {
        let Some(at) = self.receivers.iter().position(|one| one.link == link) else { return };
        let mut one = self.receivers.remove(at);
        // A last look; what a liar said does not count.
        self.acknowledged += one.settle(&mut self.blocks).unwrap_or(0);
        let numbers = one.first..;
        let unsettled = std::mem::take(&mut one.unsettled);
        let mut again = VecDeque::new();
        for (number, message) in numbers.zip(unsettled) {
            if message.taken_back {
                continue;
            }
            if one.cursor.is_marked(number) {
                self.acknowledged += 1;
                if let Some((block, _)) = message.block {
                    self.blocks.give_back(block);
                }
                continue;
            }
            again.push_back(one.take_out(message));
        }
        // Before what waits already, in their order.
        again.append(&mut self.backlog);
        self.backlog = again;
    }

    /// A receiver gave a message back.
    fn reject(&mut self, link: LinkId, number: u64) {
        let Some(at) = self.receivers.iter().position(|one| one.link == link) else { return };
        let one = &mut self.receivers[at];
        let index = number.checked_sub(one.first).and_then(|index| usize::try_from(index).ok());
        let Some(message) = index.and_then(|index| one.unsettled.get_mut(index)) else {
            return self.turn_away(link, "it gave back what it does not have");
        };
        if !std::mem::replace(&mut message.taken_back, true) {
            let message = Unsettled {
                payload: message.payload,
                end: message.end,
                prefix: message.prefix,
                block: message.block.take(),
                taken_back: true,
            };
            let waiting = one.take_out(message);
            if waiting.prefix.deliveries > self.setup.options.max_deliveries.max(1) - 1 {
                self.rejected += 1;
                if let Body::Large(block, _) = waiting.body {
                    self.blocks.give_back(block);
                }
            } else {
                self.backlog.push_back(waiting);
            }
        }
        self.control.taken(link, number);
    }

    /// Gives out again what waits. `Full` if something is left.
    #[cold]
    fn send_backlog(&mut self) -> Result<(), SendError> {
        while let Some(first) = self.backlog.front() {
            let frame_bytes = first.body.frame_bytes(first.prefix);
            let Some(at) = self.choose(frame_bytes, first.body.len()) else {
                return Err(SendError::Full);
            };
            let Some(Waiting { body, prefix }) = self.backlog.pop_front() else { break };
            if prefix.priority > 0 {
                self.receivers[at].ring.set_priorities();
            }
            let position = match body {
                Body::Small(bytes) => self.receivers[at].put_small(&bytes, prefix, frame_bytes),
                Body::Large(block, len) => self.put_large(at, block, len, prefix),
            };
            self.ring_bell(at, position);
        }
        Ok(())
    }

    /// Moves on what can move without waiting.
    pub(super) fn drive(&mut self) -> Result<(), SendError> {
        if let Some(error) = self.failed.take() {
            return Err(SendError::Failed(error));
        }
        self.settle_all();
        match self.send_backlog() {
            Err(SendError::Full) => Ok(()),
            result => result,
        }
    }

    /// Says that no message follows, once all is settled and somebody was there to hear it. Whether that
    /// is done.
    pub(super) fn finish(&mut self) -> Result<bool, SendError> {
        if !self.met {
            self.drive()?;
            return Ok(false);
        }
        self.leave()
    }

    /// The same, for whoever is there.
    pub(super) fn leave(&mut self) -> Result<bool, SendError> {
        self.drive()?;
        if self.pending() > 0 {
            return Ok(false);
        }
        // Whoever is about to be met is told that there is an end, too.
        let until = *self.leaving.get_or_insert_with(|| Instant::now() + LEAVES_WITHIN);
        if self.control.wanted() > 0 && Instant::now() < until {
            return Ok(false);
        }
        for at in 0..self.receivers.len() {
            let one = &mut self.receivers[at];
            if one.ended {
                continue;
            }
            // Everything is settled, so there is room.
            let Some(claim) = one.ring.claim(0) else { return Ok(false) };
            let position = one.ring.commit(claim, Kind::End, 0);
            one.ended = true;
            self.ring_bell(at, position);
        }
        Ok(true)
    }

    fn join(&mut self, met: Met<()>) {
        let link = met.link;
        let pages = PAGE_BYTES..=PAGE_BYTES;
        let page = met.descriptors.into_iter().next().map(|fd| PeerMemory::received(fd, pages));
        let Some(Ok(page)) = page else {
            self.control.turn_away(link, "it gave no reader's page that can be trusted");
            return;
        };
        let taken = |slot| self.receivers.iter().any(|one| one.slot == slot);
        let Some(slot) = (0..bell::READERS).find(|slot| !taken(*slot)) else {
            self.control.turn_away(link, "there are as many receivers as can be");
            return;
        };
        let ring = match geometry::ring(&self.setup, geometry::QUEUE, false) {
            Ok(ring) => ring,
            Err(error) => {
                self.control.turn_away(link, "no memory for its ring");
                self.failed = Some(error);
                return;
            }
        };
        let cursor = match PeerCursor::open(Theirs(page), 0) {
            Ok(cursor) => cursor,
            Err(what) => return self.control.turn_away(link, what.0),
        };
        bell::lower(&self.bell, slot);
        let mut welcomed = self.control.welcome(link, slot, (0, 0), Some(ring.memory()));
        for (index, memory) in self.blocks.segments().enumerate() {
            welcomed &= self.control.give_segment(link, index as u32, memory);
        }
        if !welcomed {
            return;
        }
        let messages = met.hello.window_messages.clamp(1, MOST_WINDOW) as usize;
        let window = (messages, u64::from(self.setup.options.prefetch_bytes.max(1)));
        self.met = true;
        self.receivers.push(Receiver {
            link,
            slot,
            ring,
            cursor,
            woken: Woken::default(),
            window,
            largest: u64::from(met.hello.max_message_bytes),
            unsettled: VecDeque::new(),
            unsettled_bytes: 0,
            first: 1,
            ended: false,
        });
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

impl Receiver {
    /// Whether it takes a frame of this payload, as far as is known, or when looked at again.
    #[inline]
    fn takes(&mut self, frame_bytes: u64, len: u64) -> bool {
        if self.ended || len > self.largest || self.unsettled.len() >= self.window.0 {
            return false;
        }
        let fits = self.unsettled_bytes + len <= self.window.1 || self.unsettled.is_empty();
        fits && self.ring.claim(frame_bytes).is_some()
    }

    /// Commits a small message for which there is room. Where.
    #[inline]
    fn put_small(&mut self, payload: &[u8], prefix: Prefix, frame_bytes: u64) -> u64 {
        let Some(claim) = self.ring.claim(frame_bytes) else {
            unreachable!("chosen because it has room")
        };
        let (kind, begin) = if prefix == Prefix::default() {
            (Kind::Message, 0)
        } else {
            self.ring.write(&claim, 0, &prefix.to_bytes());
            (Kind::Prefixed, PREFIX_BYTES)
        };
        self.ring.write(&claim, begin, payload);
        self.note(Unsettled {
            payload: (claim.payload() + begin as u64, payload.len() as u32),
            end: claim.end(),
            prefix,
            block: None,
            taken_back: false,
        });
        self.ring.commit(claim, kind, frame_bytes)
    }

    #[inline]
    fn note(&mut self, message: Unsettled) {
        self.unsettled_bytes += message.bytes();
        self.unsettled.push_back(message);
    }

    /// Looks what was settled in order. How many messages.
    fn settle(&mut self, blocks: &mut Blocks) -> Result<u64, Misbehaved> {
        let cursor = self.cursor.load(self.ring.head())?;
        let mut count = 0;
        while self.unsettled.front().is_some_and(|message| message.end <= cursor) {
            let Some(message) = self.unsettled.pop_front() else { break };
            self.first += 1;
            self.unsettled_bytes -= message.bytes();
            count += u64::from(!message.taken_back);
            if let Some((block, _)) = message.block {
                blocks.give_back(block);
            }
        }
        self.ring.set_smallest_cursor(cursor);
        Ok(count)
    }

    /// A message as it has to be given out again.
    fn take_out(&self, message: Unsettled) -> Waiting {
        let deliveries = message.prefix.deliveries.saturating_add(1);
        let prefix = Prefix { deliveries, ..message.prefix };
        let body = match message.block {
            Some((block, len)) => Body::Large(block, len),
            None => {
                let (begin, len) = message.payload;
                let mut bytes = vec![0; len as usize];
                self.ring.read_back(begin, &mut bytes);
                Body::Small(bytes)
            }
        };
        Waiting { body, prefix }
    }
}

impl Unsettled {
    fn bytes(&self) -> u64 {
        self.block.as_ref().map_or(u64::from(self.payload.1), |(_, len)| *len)
    }
}

impl Core for SenderCore {
    fn is_ready(&mut self) -> bool {
        if self.failed.is_some() || self.cancelled {
            return true;
        }
        self.receivers.iter_mut().any(|one| {
            let head = one.ring.head();
            let seen = one.cursor.seen();
            one.cursor.peek(head) != Ok(seen)
        })
    }

    fn arm(&mut self, how: Sleeps) -> Option<(Place, u32)> {
        self.counters.sleeps += 1;
        let alone = self.receivers.len() == 1;
        let how = if alone { how } else { Sleeps::OnDescriptor };
        for one in &self.receivers {
            one.ring.count(&self.counters);
            one.ring.set_wanted(how.number());
        }
        if self.is_ready() {
            return None;
        }
        match &self.receivers[..] {
            [one] => {
                let place = Place::Cursor(one.cursor.memory().clone(), reader::CURSOR_WORD);
                Some((place, one.cursor.seen() as u32))
            }
            _ => Some((Place::Own, 0)),
        }
    }

    fn disarm(&mut self, _: bool) {
        for one in &self.receivers {
            one.ring.set_wanted(0);
        }
    }

    fn control(&mut self) -> bool {
        let mut news = false;
        for event in self.control.turn() {
            news = true;
            match event {
                Event::Met(met) => self.join(met),
                Event::Gone(link) => {
                    self.lose(link);
                    self.control.part(link);
                }
                Event::Broke(link, problem) => self.turn_away(link, &problem),
                Event::Reject(link, number) => self.reject(link, number),
                Event::Cancelled => self.cancelled = true,
                Event::Failed(error) => self.failed = Some(error),
                _ => {}
            }
        }
        news
    }

    fn nudge(&mut self) {
        self.control.nudge();
    }
}
