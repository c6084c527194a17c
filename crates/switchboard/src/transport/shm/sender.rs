//! The sending end of a queue: a ring for each receiver, which keeps what that one has not settled.

mod addressed;
mod backlog;
mod loans;
mod receiver;
mod unsettled;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use switchboard_kernel::membarrier;
use switchboard_shm::arena::Block;
use switchboard_shm::bell::{self, FutexWord, Sleeps};
use switchboard_shm::copy_in;
use switchboard_shm::ring::{Kind, PREFIX_BYTES, Prefix};

use super::blocks::Blocks;
use super::control::{Control, Event, LinkId, Met};
use super::counting;
use super::endpoint::Core;
use super::ends::Opened;
use super::geometry;
use super::hello::{Id, Pattern};
use super::lending::Lending;
use super::offer::WriterOffer;
use super::park::Place;
use super::room_for_one;
use super::waking::wake_readers;
use super::writing::WritingSide;
use crate::counters::{Counts, LinkCounts};
use crate::error::{Error, SendError};
use crate::transport::Setup;

pub(super) use addressed::Addressee;
use backlog::Waiting;
use receiver::{Receiver, Window, small_bytes};

/// Unsettled messages of a link at most: half of what has a bit in the reader's page.
pub(super) const MOST_WINDOW: u32 = 256;
/// The same, of a receiver of another user.
const MOST_WINDOW_OF_OTHERS: u32 = 32;

/// How long an end waits for receivers that it has found and not met.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct SenderCore {
    side: WritingSide,
    receivers: Vec<Receiver>,
    backlog: VecDeque<Waiting>,
    acknowledged: u64,
    rejected: u64,
    /// A receiver was there once.
    met: bool,
    /// Until when its end waits for receivers that were found and not met.
    leaving: Option<Instant>,
    /// The caller sleeps.
    armed: bool,
    /// Receivers say when they have settled something, because of the backlog.
    asks: bool,
    /// Of a service: each message is for one receiver, and what that does not settle goes nowhere else.
    returned: Option<Vec<(Id, Vec<u8>, bool)>>,
}

impl SenderCore {
    fn on(side: WritingSide) -> Self {
        Self {
            side,
            receivers: Vec::new(),
            backlog: VecDeque::new(),
            acknowledged: 0,
            rejected: 0,
            met: false,
            leaving: None,
            armed: false,
            asks: false,
            returned: None,
        }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Messages accepted and not settled.
    pub(super) fn pending(&self) -> u64 {
        let sent: usize = self.receivers.iter().map(Receiver::pending).sum();
        (sent + self.backlog.len()) as u64
    }

    /// Sends without waiting.
    #[inline]
    pub(super) fn try_send(&mut self, payload: &[u8], priority: u32) -> Result<(), SendError> {
        if !self.backlog.is_empty() {
            self.give_out()?;
        }
        self.check_length(payload.len())?;
        let prefix = Prefix { priority: priority.min(u32::from(u16::MAX)) as u16, deliveries: 0 };
        // Were it given out again, it would have a prefix.
        let longest_bytes = (payload.len() + PREFIX_BYTES) as u64;
        if longest_bytes > self.side.largest_frame {
            return self.try_send_large(payload, prefix);
        }
        let frame_bytes = small_bytes(payload.len(), prefix);
        let Some(at) = self.choose(frame_bytes, payload.len() as u64) else {
            return Err(SendError::Full);
        };
        self.receivers[at].put_small(payload, prefix, frame_bytes);
        self.sent(at, payload.len() as u64);
        Ok(())
    }

    /// Whether this side and somebody there takes a message of this length.
    #[inline]
    fn check_length(&self, len_bytes: usize) -> Result<(), SendError> {
        self.side.check_length(len_bytes)?;
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
        let len = payload.len() as u64;
        if self.choose(Blocks::FRAME_BYTES, len).is_none() {
            return Err(SendError::Full);
        }
        let Some(block) = self.block(len)? else { return Err(SendError::Full) };
        // Looking for a block may have ended links.
        let Some(at) = self.choose(Blocks::FRAME_BYTES, len) else {
            self.side.blocks.give_back(block);
            return Err(SendError::Full);
        };
        copy_in(self.side.blocks.room(&block), payload);
        self.put_large(at, block, len, prefix);
        self.sent(at, len);
        Ok(())
    }

    fn block(&mut self, len: u64) -> Result<Option<Block>, SendError> {
        if let Some(block) = self.side.blocks.take(len) {
            return Ok(Some(block));
        }
        self.settle_all();
        if let Some(block) = self.side.blocks.take(len) {
            return Ok(Some(block));
        }
        if !self.side.blocks.may_grow(len) {
            return Ok(None);
        }
        self.side.grow(len, self.receivers.iter().map(|one| &one.reader))?;
        Ok(self.side.blocks.take(len))
    }

    fn put_large(&mut self, at: usize, block: Block, len: u64, prefix: Prefix) {
        let place = self.side.blocks.place(&block, len).to_bytes(prefix);
        self.receivers[at].put_large(&place, (block, len), prefix);
    }

    /// A message was committed: wakes its receiver.
    #[inline]
    fn sent(&mut self, at: usize, len: u64) {
        self.side.counters.messages += 1;
        self.side.counters.bytes += len;
        self.ring_bell(at);
    }

    #[inline]
    fn ring_bell(&mut self, at: usize) {
        let WritingSide { bell, control, counters, .. } = &mut self.side;
        let one = &mut self.receivers[at];
        let slot = one.reader.slot;
        if let Some(raised) = bell::after_commit_for(bell, slot, one.ring.busy())
            && one.reader.wake(raised, control, counters)
        {
            wake_readers(bell, FutexWord::of(slot));
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
        order.sort_by_key(|at| self.receivers[*at].unsettled());
        order.into_iter().find(|at| self.receivers[*at].takes(frame_bytes, len))
    }

    /// Looks what the receivers have settled.
    fn settle_all(&mut self) {
        let mut liars = Vec::new();
        for one in &mut self.receivers {
            match one.settle(&mut self.side.blocks) {
                Ok(count) => self.acknowledged += count,
                Err(what) => liars.push((one.link(), what)),
            }
        }
        for (link, what) in liars {
            self.turn_away(link, what.0);
        }
    }

    fn turn_away(&mut self, link: LinkId, problem: &str) {
        self.side.control.turn_away(link, problem);
        self.lose(link, true);
    }

    /// Says to all receivers how this end sleeps, or that it is awake. If it sleeps, what it does next is look
    /// once more.
    fn want(&mut self, sleeps: Option<Sleeps>) {
        for one in &mut self.receivers {
            one.ring.set_wanted(sleeps.map_or_else(|| one.sleeper.awake(), Sleeps::number));
        }
        if sleeps.is_none() {
            return;
        }
        // One call is enough for all.
        let mut called = false;
        for one in &mut self.receivers {
            one.sleeper.pass(|| {
                if !std::mem::replace(&mut called, true) {
                    membarrier::everywhere();
                }
            });
        }
    }

    /// Where the receiver of a link is.
    fn position(&self, link: LinkId) -> Option<usize> {
        self.receivers.iter().position(|one| one.link() == link)
    }

    /// Moves on what can move without waiting.
    pub(super) fn drive(&mut self) -> Result<(), SendError> {
        self.side.take_failure()?;
        self.settle_all();
        match self.give_out() {
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
        if self.side.control.wanted() > 0 && Instant::now() < until {
            return Ok(false);
        }
        for at in 0..self.receivers.len() {
            let one = &mut self.receivers[at];
            if one.ended {
                continue;
            }
            // Everything is settled, so there is room.
            let Some(claim) = one.ring.claim(0) else { return Ok(false) };
            one.ring.commit(claim, Kind::End, 0);
            one.ended = true;
            self.ring_bell(at);
        }
        Ok(true)
    }

    fn sleeps(&mut self, link: LinkId, position: u64) {
        let Some(at) = self.position(link) else { return };
        let WritingSide { bell, control, counters, .. } = &mut self.side;
        let one = &mut self.receivers[at];
        one.reader.sleeps((position, one.ring.head()), bell, control, counters);
    }

    fn join(&mut self, met: Met<()>) {
        let (id, largest) = (met.hello.id, u64::from(met.hello.max_message_bytes));
        let most = if met.is_other { MOST_WINDOW_OF_OTHERS } else { MOST_WINDOW };
        let messages = met.hello.window_messages.clamp(1, most) as usize;
        let bytes = u64::from(self.side.setup.options.prefetch_bytes.max(1));
        let readers = self.receivers.iter().map(|one| &one.reader);
        let Some(guest) = self.side.admit(met, readers) else { return };
        let mut ring = match geometry::ring(&self.side.setup, geometry::QUEUE, false) {
            Ok(ring) => ring,
            Err(error) => return self.side.put_off(guest.link, error),
        };
        let Some(reader) = self.side.welcome(guest, (0, 0), Some(ring.memory())) else { return };
        self.met = true;
        // Who calls waits for the answer, and the other way round.
        ring.set_to_line(self.returned.is_some());
        if self.asks {
            ring.set_wanted(Sleeps::OnDescriptor.number());
        }
        let window = Window { messages, bytes };
        room_for_one(&mut self.receivers);
        self.receivers.push(Receiver::new((id, reader), ring, window, largest));
    }

    /// What this end has counted.
    fn counts(&self) -> Counts {
        let links = self.receivers.iter().map(|one| LinkCounts {
            number: one.ring.number(),
            behind: Some(one.unsettled() as u64),
            behind_bytes: Some(one.ring.head() - one.reader.cursor.seen()),
            ..counting::link(&self.side.control, one.link())
        });
        Counts {
            acknowledged: Some(self.acknowledged),
            rejected: Some(self.rejected),
            waiting: Some(self.backlog.len() as u64),
            links: links.collect(),
            ..self.side.counts()
        }
    }

    /// What went wrong on the control path, and whether the caller wants to be interrupted.
    pub(super) fn check(&mut self) -> Result<(), SendError> {
        self.side.check()
    }
}

impl Opened for SenderCore {
    type Offer = WriterOffer;
    type Outside = Lending;

    const NEEDS_PEER: bool = true;

    fn open(setup: Setup) -> Result<Self, Error> {
        Ok(Self::on(WritingSide::open(setup, Pattern::Queue, None)?))
    }

    fn control_path(&self) -> &Control<WriterOffer> {
        &self.side.control
    }

    /// Whether there is nobody to be met first: no message of a queue is missed.
    fn has_met(&self) -> bool {
        true
    }

    fn peers(&self) -> usize {
        self.receivers.len()
    }
}

impl Core for SenderCore {
    fn is_ready(&mut self) -> bool {
        self.side.has_news()
            || self.receivers.iter().any(|one| one.reader.has_moved(one.ring.head()))
    }

    fn arm(&mut self, how: Sleeps) -> Option<(Place, u32)> {
        self.side.counters.sleeps += 1;
        let alone = self.receivers.len() == 1;
        let how = if alone { how } else { Sleeps::OnDescriptor };
        self.armed = true;
        for one in &self.receivers {
            one.ring.count(&self.side.counters);
        }
        self.want(Some(how));
        if self.is_ready() {
            return None;
        }
        match &self.receivers[..] {
            [one] => Some(one.reader.place()),
            _ => Some((Place::Own, 0)),
        }
    }

    fn disarm(&mut self, late: bool) {
        self.side.counters.late += u64::from(late);
        self.armed = false;
        self.asks = !self.backlog.is_empty();
        self.want(self.asks.then_some(Sleeps::OnDescriptor));
    }

    fn control(&mut self) -> bool {
        let mut news = false;
        for event in self.side.control.turn() {
            news |= event.is_news();
            match event {
                Event::Met(met) => self.join(met),
                Event::Gone(link) => {
                    self.lose(link, false);
                    self.side.control.part(link);
                }
                Event::Reject(link, number) => self.reject(link, number),
                Event::Broke(link, problem) => self.turn_away(link, &problem),
                Event::Sleeps(link, position) => self.sleeps(link, position),
                // It has others.
                Event::Denied { .. } if !self.receivers.is_empty() => {}
                Event::Asked(socket) => {
                    self.settle_all();
                    counting::answer(&socket, &self.counts());
                }
                other => self.side.note(other),
            }
        }
        if news && !self.backlog.is_empty() {
            // What is left waits for room.
            let _ = self.give_out();
        }
        news
    }

    fn nudge(&mut self) {
        self.side.control.nudge();
    }
}
