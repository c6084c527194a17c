//! The receiving end of a queue: a ring of each sender.

use switchboard_shm::Misbehaved;
use switchboard_shm::cursor::Unsettled;
use switchboard_shm::ring::{Frame, Kind, PREFIX_BYTES, Prefix, RingReader};

use super::control::{Control, LinkId};
use super::hand::{Hand, Manner};
use super::hello::Pattern;
use super::large::Large;
use super::memory::Theirs;
use super::offer::ReaderOffer;
use super::reading::{ReaderCore, Reading, Taken, Writer};
use super::sender::MOST_WINDOW;
use crate::error::RecvError;
use crate::transport::Receipt;

const TOO_LONG: Misbehaved = Misbehaved("a message longer than was asked for");

/// After so many messages a receiver has gone a step without sleeping.
const STEP_MESSAGES: u64 = 64;

pub(crate) type ReceiverCore = ReaderCore<Reception>;

/// A sender, as its receiver knows it.
type Sender = Writer<Reception>;

/// What a receiver keeps of each sender.
#[derive(Debug)]
pub(crate) struct Reception {
    /// What was seen in the ring, in its order, and is not settled.
    unsettled: Unsettled,
    /// What was seen and not handed out: only where there are priorities.
    seen: Vec<(Frame, Prefix)>,
}

impl Reading for Reception {
    const PATTERN: Pattern = Pattern::Queue;

    fn begin(ring: &RingReader<Theirs>, number: u64) -> Result<Self, Misbehaved> {
        if ring.is_lossy() {
            return Err(Misbehaved("it gave a ring that is none of a queue"));
        }
        Ok(Self { unsettled: Unsettled::new(number + 1), seen: Vec::new() })
    }

    #[inline]
    fn take(
        one: &mut Sender,
        _: &Control<ReaderOffer>,
        manner: Manner,
        hand: &mut Hand,
    ) -> Result<Taken, Misbehaved> {
        let frame = if one.ring.has_priorities() || one.kept.holds() {
            one.highest()?
        } else {
            one.next()?
        };
        let Some(frame) = frame else { return Ok(Taken::Nothing) };
        let prefix = one.hand_out(&frame, one.manner(manner), hand)?;
        count(one);
        let found = &mut hand.found;
        found.receipt = Receipt { connection: one.link, sequence: frame.number };
        (found.deliveries, found.priority) = (prefix.deliveries, prefix.priority);
        found.lost_before = 0;
        Ok(Taken::Message)
    }

    #[inline(always)]
    fn take_plain(
        one: &mut Sender,
        _: &Control<ReaderOffer>,
        manner: Manner,
        hand: &mut Hand,
    ) -> bool {
        let kept = &mut one.kept;
        if one.ended || kept.holds() || !kept.takes_more() || one.ring.has_priorities() {
            return false;
        }
        let Some((word, len)) = one.ring.next_message(one.largest_plain) else { return false };
        kept.unsettled.take(one.ring.position());
        hand.take_at(manner, one.link, &one.ring, (word, len));
        count(one);
        hand.found.set_plain(one.link, one.ring.number());
        true
    }

    #[inline]
    fn take_out_of_turn(
        core: &mut ReceiverCore,
        manner: Manner,
        hand: &mut Hand,
    ) -> Option<Result<bool, RecvError>> {
        let senders = &core.writers;
        let urgent = senders.len() > 1 && senders.iter().any(|one| one.ring.has_priorities());
        urgent.then(|| core.take_highest(manner, hand))
    }

    fn holds(&self) -> bool {
        !self.seen.is_empty()
    }

    fn takes_more(&self) -> bool {
        self.unsettled.len() < MOST_WINDOW as usize
    }

    fn unsettled(&self) -> Option<usize> {
        Some(self.unsettled.len() - self.seen.len().min(self.unsettled.len()))
    }

    fn taken_back(core: &mut ReceiverCore, link: LinkId, number: u64) {
        core.acknowledge(Receipt { connection: link, sequence: number });
    }
}

/// Counts a message that was taken.
#[inline]
fn count(one: &mut Sender) {
    one.counters.received += 1;
    if one.counters.received.is_multiple_of(STEP_MESSAGES) {
        one.step();
    }
}

impl ReceiverCore {
    /// Takes the most urgent message of all senders.
    #[cold]
    fn take_highest(&mut self, manner: Manner, hand: &mut Hand) -> Result<bool, RecvError> {
        let mut best: Option<(usize, u16)> = None;
        for at in 0..self.writers.len() {
            if let Err(what) = self.writers[at].look_ahead() {
                self.turn_away(at, what.0);
                return self.nothing();
            }
            let highest =
                self.writers[at].kept.seen.iter().map(|(_, prefix)| prefix.priority).max();
            if let Some(highest) = highest
                && best.is_none_or(|(_, priority)| highest > priority)
            {
                best = Some((at, highest));
            }
        }
        if let Some((at, _)) = best {
            match Reception::take(&mut self.writers[at], &self.control, manner, hand) {
                Ok(Taken::Message) => return Ok(true),
                Ok(_) => {}
                Err(what) => self.turn_away(at, what.0),
            }
        }
        self.nothing()
    }

    /// Settles a message. Whether its sender is still there to know.
    #[inline]
    pub(super) fn acknowledge(&mut self, receipt: Receipt) -> bool {
        let Some(at) = self.position(receipt.connection) else {
            return false;
        };
        let one = &mut self.writers[at];
        if one.kept.unsettled.settle_oldest(receipt.sequence, &one.page) {
            one.wake(&self.control);
            return true;
        }
        let known = one.kept.unsettled.contains(receipt.sequence);
        if one.kept.unsettled.settle(receipt.sequence, &one.page) {
            one.wake(&self.control);
        }
        known
    }

    /// Settles a message of the only writer, if it is the oldest one; else, or where it is not, as any.
    #[inline(always)]
    pub(super) fn acknowledge_plain(&mut self, receipt: Receipt) {
        if let [only] = &mut self.writers[..]
            && only.kept.unsettled.settle_oldest(receipt.sequence, &only.page)
        {
            only.wake(&self.control);
        } else {
            self.acknowledge(receipt);
        }
    }

    /// Settles many: a writer that waits is looked for once.
    pub(super) fn acknowledge_all(&mut self, receipts: &[Receipt]) {
        for run in receipts.chunk_by(|a, b| a.connection == b.connection) {
            let Some(at) = self.position(run[0].connection) else {
                continue;
            };
            let one = &mut self.writers[at];
            let mut moved = false;
            for receipt in run {
                moved |= one.kept.unsettled.settle(receipt.sequence, &one.page);
            }
            if moved {
                one.wake(&self.control);
            }
        }
    }

    /// Gives a message back. Whether its sender is there to take it.
    pub(super) fn reject(&mut self, receipt: Receipt) -> bool {
        let link = receipt.connection;
        let one = self.position(link).map(|at| &self.writers[at]);
        let known = one.is_some_and(|one| one.kept.unsettled.contains(receipt.sequence));
        known && self.control.reject(link, receipt.sequence)
    }
}

impl Sender {
    /// The next frame of the ring, which is unsettled from now on.
    #[inline]
    fn next(&mut self) -> Result<Option<Frame>, Misbehaved> {
        if self.ended || !self.kept.takes_more() {
            return Ok(None);
        }
        let Some(frame) = self.ring.poll()? else { return Ok(None) };
        if frame.kind == Kind::End {
            self.ended = true;
            self.ring.advance(&frame);
            return Ok(None);
        }
        if frame.kind == Kind::InArena && !self.segments.has(&self.ring, &frame)? {
            // Its segment is still on the way.
            self.lacks_segment = true;
            return Ok(None);
        }
        self.ring.advance(&frame);
        self.kept.unsettled.take(frame.end());
        Ok(Some(frame))
    }

    /// Looks at all that is in the ring.
    fn look_ahead(&mut self) -> Result<(), Misbehaved> {
        while let Some(frame) = self.next()? {
            let prefix = self.prefix(&frame)?;
            self.kept.seen.push((frame, prefix));
        }
        Ok(())
    }

    /// The most urgent message; of equals the first.
    #[cold]
    fn highest(&mut self) -> Result<Option<Frame>, Misbehaved> {
        self.look_ahead()?;
        let best = self.kept.seen.iter().map(|(_, prefix)| prefix.priority).max();
        let at = self.kept.seen.iter().position(|(_, prefix)| Some(prefix.priority) == best);
        Ok(at.map(|at| self.kept.seen.remove(at).0))
    }

    fn prefix(&self, frame: &Frame) -> Result<Prefix, Misbehaved> {
        if frame.kind == Kind::Message {
            return Ok(Prefix::default());
        }
        if frame.payload_bytes < PREFIX_BYTES as u64 {
            return Err(Misbehaved("a frame without its prefix"));
        }
        let mut prefix = [0; PREFIX_BYTES];
        self.ring.copy(frame, 0, &mut prefix);
        Ok(Prefix::from_bytes(prefix))
    }

    /// Takes the message of a frame into the caller's hand.
    #[inline]
    fn hand_out(
        &self,
        frame: &Frame,
        manner: Manner,
        hand: &mut Hand,
    ) -> Result<Prefix, Misbehaved> {
        if frame.kind == Kind::InArena {
            return self.hand_out_large(frame, manner, hand);
        }
        let begin = if frame.kind == Kind::Message { 0 } else { PREFIX_BYTES };
        let prefix = self.prefix(frame)?;
        if frame.payload_bytes > (self.largest + begin) as u64 {
            return Err(TOO_LONG);
        }
        hand.take(manner, self.link, &self.ring, frame, begin);
        Ok(prefix)
    }

    #[cold]
    fn hand_out_large(
        &self,
        frame: &Frame,
        manner: Manner,
        hand: &mut Hand,
    ) -> Result<Prefix, Misbehaved> {
        match self.segments.find(&self.ring, frame, self.largest)? {
            Large::Message(prefix, place) => {
                self.segments.take(manner, self.link, &place, hand)?;
                Ok(prefix)
            }
            Large::TooLong => Err(TOO_LONG),
            Large::NotYet => Err(Misbehaved("a message in a segment that never came")),
        }
    }
}
