//! The receiving end of a queue: a ring of each sender.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Acquire;

use switchboard_kernel::shared_memory::{Doorbell, PeerMemory};
use switchboard_shm::Misbehaved;
use switchboard_shm::bell::{self, Sleeps};
use switchboard_shm::cursor::{Counters, OwnCursor, Unsettled};
use switchboard_shm::ring::{Frame, Kind, PREFIX_BYTES, Prefix, RingReader};

use super::control::{Control, Event, LinkId, Met, Page, ReaderOffer, Welcome};
use super::endpoint::Core;
use super::geometry;
use super::hello::{Pattern, Role};
use super::large::{Found, Segments};
use super::memory::{Bell, Own, Theirs};
use super::park::Place;
use super::sender::MOST_WINDOW;
use super::waking::wake_writer;
use crate::error::{Error, RecvError};
use crate::transport::{Raw, Receipt, Setup};

/// Messages of one sender in a row, so that a fast one cannot hide the others.
const IN_A_ROW: u32 = 256;

/// A sender, as its receiver knows it.
#[derive(Debug)]
struct Sender {
    link: LinkId,
    ring: RingReader<Theirs>,
    segments: Segments,
    page: OwnCursor<Own>,
    bell: Bell,
    slot: usize,
    /// Counts its sleeps, for the doorbell.
    turn: u8,
    /// What was seen in the ring, in its order, and is not settled.
    unsettled: Unsettled,
    /// What was seen and not handed out: only where there are priorities.
    seen: Vec<(Frame, Prefix)>,
    counters: Counters,
    /// The largest message that this side takes.
    largest: usize,
    ended: bool,
    gone: bool,
}

/// A sender that has not welcomed us yet.
#[derive(Debug)]
struct Pending {
    link: LinkId,
    page: OwnCursor<Own>,
    bell: Bell,
    segments: Segments,
}

#[derive(Debug)]
pub(super) struct ReceiverCore {
    setup: Setup,
    control: Control<ReaderOffer>,
    senders: Vec<Sender>,
    pending: Vec<Pending>,
    current: usize,
    in_a_row: u32,
    scratch: Vec<u8>,
    reports: VecDeque<RecvError>,
    /// Senders that ended, died or were turned away.
    left: u64,
    cancelled: bool,
    armed: bool,
}

impl ReceiverCore {
    /// Whether it is of no use without a peer.
    pub(super) const NEEDS_PEER: bool = true;

    pub(super) fn open(setup: Setup) -> Result<Self, Error> {
        let offer = ReaderOffer { setup: setup.again() };
        let control = Control::open(&setup, Pattern::Queue, Role::Reader, offer)?;
        Ok(Self {
            setup,
            control,
            senders: Vec::new(),
            pending: Vec::new(),
            current: 0,
            in_a_row: 0,
            scratch: Vec::new(),
            reports: VecDeque::new(),
            left: 0,
            cancelled: false,
            armed: false,
        })
    }

    pub(super) fn control(&self) -> &Control<ReaderOffer> {
        &self.control
    }

    /// Whether there is nobody to be met first: no message of a queue is missed.
    #[expect(clippy::unused_self, reason = "the other ends look")]
    pub(super) fn has_met(&self) -> bool {
        true
    }

    pub(super) fn peers(&self) -> usize {
        self.senders.iter().filter(|one| !one.gone && !one.ended).count()
    }

    /// Takes one message, if there is one.
    #[inline]
    pub(super) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        let count = self.senders.len();
        if self.in_a_row >= IN_A_ROW {
            self.in_a_row = 0;
            self.current += 1;
        }
        if count > 1 && self.senders.iter().any(|one| one.ring.has_priorities()) {
            return self.take_highest(with);
        }
        for step in 0..count {
            let at = (self.current + step) % count;
            match self.senders[at].take(&mut self.scratch, with) {
                Ok(true) => {
                    self.current = at;
                    self.in_a_row = if step == 0 { self.in_a_row + 1 } else { 1 };
                    return Ok(true);
                }
                Ok(false) => {}
                Err(what) => {
                    self.turn_away(at, what.0);
                    break;
                }
            }
        }
        self.nothing()
    }

    /// Takes the most urgent message of all senders.
    #[cold]
    fn take_highest(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        let mut best: Option<(usize, u16)> = None;
        for at in 0..self.senders.len() {
            if let Err(what) = self.senders[at].look_ahead() {
                self.turn_away(at, what.0);
                return self.nothing();
            }
            let highest = self.senders[at].seen.iter().map(|(_, prefix)| prefix.priority).max();
            if let Some(highest) = highest
                && best.is_none_or(|(_, priority)| highest > priority)
            {
                best = Some((at, highest));
            }
        }
        let Some((at, _)) = best else { return self.nothing() };
        match self.senders[at].take(&mut self.scratch, with) {
            Ok(true) => Ok(true),
            Ok(false) => self.nothing(),
            Err(what) => {
                self.turn_away(at, what.0);
                self.nothing()
            }
        }
    }

    /// Up to `most` further messages of the sender that the last one came from.
    pub(super) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        let Some(one) = self.senders.get_mut(self.current) else { return 0 };
        self.in_a_row = IN_A_ROW;
        let mut count = 0;
        while count < most {
            match one.take(&mut self.scratch, with) {
                Ok(true) => count += 1,
                Ok(false) => break,
                Err(what) => {
                    let at = self.current;
                    self.turn_away(at, what.0);
                    break;
                }
            }
        }
        count
    }

    #[cold]
    fn nothing(&mut self) -> Result<bool, RecvError> {
        self.bury();
        if let Some(report) = self.reports.pop_front() {
            return Err(report);
        }
        if std::mem::take(&mut self.cancelled) {
            let now = self.setup.is_cancelled();
            self.control.watch_cancel()?;
            if now {
                return Err(RecvError::Interrupted);
            }
        }
        if self.is_over() { Err(RecvError::Ended) } else { Ok(false) }
    }

    /// Whether every sender that joined has ended or died.
    fn is_over(&self) -> bool {
        !self.setup.options.follow
            && self.left > 0
            && self.senders.is_empty()
            && self.pending.is_empty()
    }

    /// Parts with senders of whom everything was read.
    fn bury(&mut self) {
        let mut index = 0;
        while let Some(one) = self.senders.get(index) {
            let done = one.ended || (one.gone && one.polled() == 0 && one.seen.is_empty());
            if !done {
                index += 1;
                continue;
            }
            let one = self.senders.remove(index);
            self.left += 1;
            if !one.ended {
                let peer = self.control.peer_name(one.link);
                let received = one.counters.received;
                self.reports.push_back(RecvError::PeerDied { peer, received });
            }
            self.control.part(one.link);
        }
    }

    fn turn_away(&mut self, at: usize, problem: &str) {
        let one = self.senders.remove(at);
        // Who has said nothing yet is nobody whose end is an end.
        self.left += u64::from(one.counters.received > 0);
        self.refuse(one.link, problem);
    }

    /// Ends the link of a peer that broke the protocol, however far it is.
    fn broke(&mut self, link: LinkId, problem: &str) {
        self.pending.retain(|one| one.link != link);
        match self.senders.iter().position(|one| one.link == link) {
            Some(at) => self.turn_away(at, problem),
            None => self.refuse(link, problem),
        }
    }

    fn refuse(&mut self, link: LinkId, problem: &str) {
        let peer = self.control.peer_name(link);
        self.control.turn_away(link, problem);
        self.reports.push_back(RecvError::PeerMisbehaved { peer, problem: problem.to_owned() });
    }

    fn find(&mut self, link: LinkId) -> Option<&mut Sender> {
        let hint = self.current;
        match self.senders.get(hint) {
            Some(one) if one.link == link => self.senders.get_mut(hint),
            _ => self.senders.iter_mut().find(|one| one.link == link),
        }
    }

    /// Settles a message. Whether its sender is still there to know.
    #[inline]
    pub(super) fn acknowledge(&mut self, receipt: Receipt) -> bool {
        let Some(at) = self.senders.iter().position(|one| one.link == receipt.connection) else {
            return false;
        };
        let one = &mut self.senders[at];
        let known = one.unsettled.contains(receipt.sequence);
        if one.unsettled.settle(receipt.sequence, &one.page) {
            wake_writer(&one.page, &one.ring, &self.control, one.link);
        }
        known
    }

    /// Settles many: a writer that waits is looked for once.
    pub(super) fn acknowledge_all(&mut self, receipts: &[Receipt]) {
        for run in receipts.chunk_by(|a, b| a.connection == b.connection) {
            let Some(at) = self.senders.iter().position(|one| one.link == run[0].connection) else {
                continue;
            };
            let one = &mut self.senders[at];
            let mut moved = false;
            for receipt in run {
                moved |= one.unsettled.settle(receipt.sequence, &one.page);
            }
            if moved {
                wake_writer(&one.page, &one.ring, &self.control, one.link);
            }
        }
    }

    /// Gives a message back. Whether its sender is there to take it.
    pub(super) fn reject(&mut self, receipt: Receipt) -> bool {
        let link = receipt.connection;
        let known = self.find(link).is_some_and(|one| one.unsettled.contains(receipt.sequence));
        known && self.control.reject(link, receipt.sequence)
    }

    fn join(&mut self, met: Met<Page>) {
        let link = met.link;
        let page = met.made.cursor;
        match met.descriptors.into_iter().next().map(Doorbell::received) {
            Some(Ok(bell)) => self.pending.push(Pending {
                link,
                page,
                bell: Bell(bell),
                segments: Segments::default(),
            }),
            _ => self.refuse(link, "it gave no doorbell that can be trusted"),
        }
    }

    fn welcome(&mut self, link: LinkId, welcome: Welcome) {
        let Some(at) = self.pending.iter().position(|one| one.link == link) else {
            return self.broke(link, "it said welcome out of turn");
        };
        let Pending { page, bell, segments, .. } = self.pending.swap_remove(at);
        let slot = welcome.slot as usize;
        let memory = welcome.ring.map(|fd| PeerMemory::received(fd, geometry::RING_BYTES));
        let Some(Ok(memory)) = memory else {
            return self.refuse(link, "it gave no ring that can be trusted");
        };
        let ring = match RingReader::open(Theirs(memory), welcome.position, welcome.number) {
            Ok(ring) if !ring.is_lossy() && slot < bell::READERS => ring,
            Ok(_) => return self.refuse(link, "it gave a ring that is none of a queue"),
            Err(what) => return self.refuse(link, what.0),
        };
        page.store(welcome.position);
        self.senders.push(Sender {
            link,
            unsettled: Unsettled::new(welcome.number + 1),
            ring,
            segments,
            page,
            bell,
            slot,
            turn: 0,
            seen: Vec::new(),
            counters: Counters::default(),
            largest: self.setup.largest_message_bytes() as usize,
            ended: false,
            gone: false,
        });
    }

    fn segment(&mut self, link: LinkId, index: u32, fd: std::os::fd::OwnedFd) {
        let pending = self.pending.iter_mut().filter(|one| one.link == link);
        let open = self.senders.iter_mut().filter(|one| one.link == link);
        let segments =
            pending.map(|one| &mut one.segments).chain(open.map(|one| &mut one.segments)).next();
        if let Some(segments) = segments
            && let Err(what) = segments.add(index, fd)
        {
            self.broke(link, what.0);
        }
    }

    fn gone(&mut self, link: LinkId) {
        self.pending.retain(|one| one.link != link);
        match self.find(link) {
            Some(one) => one.gone = true,
            None => self.control.part(link),
        }
    }

    /// The sender has a message again that was given back.
    fn taken(&mut self, link: LinkId, number: u64) {
        self.acknowledge(Receipt { connection: link, sequence: number });
    }
}

impl Sender {
    fn polled(&self) -> u64 {
        self.ring.polled_word().load(Acquire)
    }

    /// The next frame of the ring, which is unsettled from now on.
    #[inline]
    fn next(&mut self) -> Result<Option<Frame>, Misbehaved> {
        if self.ended || self.unsettled.len() >= MOST_WINDOW as usize {
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
            return Ok(None);
        }
        self.ring.advance(&frame);
        self.unsettled.take(frame.end());
        Ok(Some(frame))
    }

    /// Takes one message. Whether there was one.
    #[inline]
    fn take(
        &mut self,
        scratch: &mut Vec<u8>,
        with: &mut dyn FnMut(Raw<'_>),
    ) -> Result<bool, Misbehaved> {
        let frame = if self.ring.has_priorities() || !self.seen.is_empty() {
            self.highest()?
        } else {
            self.next()?
        };
        let Some(frame) = frame else { return Ok(false) };
        let prefix = self.read(&frame, scratch)?;
        self.counters.received += 1;
        with(Raw {
            receipt: Receipt { connection: self.link, sequence: frame.number },
            redelivered: prefix.deliveries > 0,
            deliveries: prefix.deliveries,
            priority: u32::from(prefix.priority),
            ..Raw::bare(scratch)
        });
        Ok(true)
    }

    /// Looks at all that is in the ring.
    fn look_ahead(&mut self) -> Result<(), Misbehaved> {
        while let Some(frame) = self.next()? {
            let prefix = self.prefix(&frame)?;
            self.seen.push((frame, prefix));
        }
        Ok(())
    }

    /// The most urgent message; of equals the first.
    #[cold]
    fn highest(&mut self) -> Result<Option<Frame>, Misbehaved> {
        self.look_ahead()?;
        let best = self.seen.iter().map(|(_, prefix)| prefix.priority).max();
        let at = self.seen.iter().position(|(_, prefix)| Some(prefix.priority) == best);
        Ok(at.map(|at| self.seen.remove(at).0))
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

    /// Copies the message out.
    #[inline]
    fn read(&self, frame: &Frame, scratch: &mut Vec<u8>) -> Result<Prefix, Misbehaved> {
        let len = frame.payload_bytes as usize;
        if len > self.largest + PREFIX_BYTES {
            return Err(Misbehaved("a message longer than was asked for"));
        }
        match frame.kind {
            Kind::Message => {
                scratch.resize(len, 0);
                self.ring.copy(frame, 0, scratch);
                Ok(Prefix::default())
            }
            Kind::InArena => match self.segments.read(&self.ring, frame, self.largest, scratch)? {
                Found::Message(prefix) => Ok(prefix),
                Found::TooLarge => Err(Misbehaved("a message longer than was asked for")),
                Found::NotYet => Err(Misbehaved("a message in a segment that never came")),
            },
            _ => {
                let prefix = self.prefix(frame)?;
                scratch.resize(len - PREFIX_BYTES, 0);
                self.ring.copy(frame, PREFIX_BYTES, scratch);
                Ok(prefix)
            }
        }
    }
}

impl Core for ReceiverCore {
    fn is_ready(&mut self) -> bool {
        self.cancelled
            || !self.reports.is_empty()
            || self.senders.iter().any(|one| {
                let more = one.unsettled.len() < MOST_WINDOW as usize && one.polled() != 0;
                one.ended || one.gone || more || !one.seen.is_empty()
            })
            || self.is_over()
    }

    fn arm(&mut self, how: Sleeps) -> Option<(Place, u32)> {
        let alone = self.senders.len() == 1;
        let how = if alone { how } else { Sleeps::OnDescriptor };
        self.armed = true;
        for one in &mut self.senders {
            one.counters.sleeps += 1;
            one.page.count(&one.counters);
            one.turn = one.turn.wrapping_add(1);
            bell::raise(&one.bell, one.slot, how, one.turn);
        }
        if self.is_ready() {
            return None;
        }
        if alone && let Some(one) = self.senders.first() {
            let place = Place::Header(one.ring.memory().clone(), one.ring.polled_index());
            return Some((place, 0));
        }
        Some((Place::Own, 0))
    }

    fn disarm(&mut self, late: bool) {
        if std::mem::take(&mut self.armed) {
            for one in &mut self.senders {
                one.counters.late += u64::from(late);
                bell::lower(&one.bell, one.slot);
            }
        }
    }

    fn control(&mut self) -> bool {
        let mut news = false;
        for event in self.control.turn() {
            news = true;
            match event {
                Event::Met(met) => self.join(met),
                Event::Welcome(link, welcome) => self.welcome(link, welcome),
                Event::Segment(link, index, fd) => self.segment(link, index, fd),
                Event::Taken(link, number) => self.taken(link, number),
                Event::Gone(link) => self.gone(link),
                Event::Broke(link, problem) => self.broke(link, &problem),
                Event::Reject(..) | Event::Wake => {}
                Event::Refused { peer, problem } => {
                    self.reports.push_back(RecvError::PeerRefused { peer, problem });
                }
                Event::Misbehaved { peer, problem } => {
                    self.reports.push_back(RecvError::PeerMisbehaved { peer, problem });
                }
                Event::Cancelled => self.cancelled = true,
                Event::Failed(error) => self.reports.push_back(RecvError::Failed(error)),
            }
        }
        news
    }

    fn nudge(&mut self) {
        self.control.nudge();
    }
}
