//! The subscribing end of a topic: a ring of each publisher.

use std::collections::VecDeque;

use switchboard_kernel::shared_memory::PeerMemory;
use switchboard_shm::Misbehaved;
use switchboard_shm::bell::{self, Sleeps};
use switchboard_shm::cursor::{Counters, OwnCursor};
use switchboard_shm::ring::{Kind, RingReader};

use super::control::{Control, Event, LinkId, Met, Page, ReaderOffer, Welcome};
use super::endpoint::Core;
use super::geometry;
use super::hello::{Pattern, Role};
use super::large::{Found, Segments};
use super::memory::{Bell, Own, Theirs};
use super::park::Place;
use super::waking::store_cursor;
use crate::error::{Error, RecvError};
use crate::transport::{Raw, Receipt, Setup};

/// Messages of one publisher in a row, so that a fast one cannot hide the others.
const IN_A_ROW: u32 = 256;

/// A publisher, as its subscriber knows it.
#[derive(Debug)]
struct Publisher {
    link: LinkId,
    ring: RingReader<Theirs>,
    segments: Segments,
    page: OwnCursor<Own>,
    bell: Bell,
    slot: usize,
    /// Counts its sleeps, for the doorbell.
    turn: u8,
    counters: Counters,
    /// Messages that are missing before the next one.
    missing: u64,
    /// The next one, when what is missing before it was told.
    held: Option<(Vec<u8>, u64)>,
    /// The largest message that this side takes.
    largest: usize,
    /// It said its end.
    ended: bool,
    /// It is dead, or its connection is.
    gone: bool,
}

/// A publisher that has not welcomed us yet.
#[derive(Debug)]
struct Pending {
    link: LinkId,
    page: OwnCursor<Own>,
    ring: Theirs,
    bell: Bell,
    segments: Segments,
}

#[derive(Debug)]
pub(super) struct SubscriberCore {
    setup: Setup,
    control: Control<ReaderOffer>,
    publishers: Vec<Publisher>,
    pending: Vec<Pending>,
    current: usize,
    in_a_row: u32,
    scratch: Vec<u8>,
    reports: VecDeque<RecvError>,
    /// Publishers that ended, died or were turned away.
    left: u64,
    cancelled: bool,
    armed: bool,
}

/// What one publisher had.
enum Taken {
    Message,
    Nothing,
    /// So many are missing before the next one.
    Gap(u64),
    Misbehaved(Misbehaved),
}

impl SubscriberCore {
    /// Whether it is of no use without a peer.
    pub(super) const NEEDS_PEER: bool = true;

    pub(super) fn open(setup: Setup) -> Result<Self, Error> {
        let offer = ReaderOffer { setup: setup.again() };
        let control = Control::open(&setup, Pattern::Topic, Role::Reader, offer)?;
        Ok(Self {
            setup,
            control,
            publishers: Vec::new(),
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

    /// Whether everybody who was found has said where to begin.
    pub(super) fn has_met(&self) -> bool {
        self.control.wanted() == 0 && self.pending.is_empty()
    }

    pub(super) fn peers(&self) -> usize {
        self.publishers.iter().filter(|one| !one.gone && !one.ended).count()
    }

    /// Takes one message, if there is one.
    #[inline]
    pub(super) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        let count = self.publishers.len();
        if self.in_a_row >= IN_A_ROW {
            self.in_a_row = 0;
            self.current += 1;
        }
        for step in 0..count {
            let at = (self.current + step) % count;
            match take_from(&mut self.publishers[at], &mut self.control, &mut self.scratch, with) {
                Taken::Message => {
                    self.current = at;
                    self.in_a_row = if step == 0 { self.in_a_row + 1 } else { 1 };
                    return Ok(true);
                }
                Taken::Nothing => {}
                Taken::Gap(missing) => {
                    let peer = self.control.peer_name(self.publishers[at].link);
                    return Err(RecvError::Gap { peer, missing });
                }
                Taken::Misbehaved(what) => {
                    self.turn_away(at, what.0);
                    break;
                }
            }
        }
        self.nothing()
    }

    /// Up to `most` further messages of the publisher that the last one came from.
    pub(super) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        let Some(publisher) = self.publishers.get_mut(self.current) else { return 0 };
        self.in_a_row = IN_A_ROW;
        let mut count = 0;
        while count < most {
            match take_from(publisher, &mut self.control, &mut self.scratch, with) {
                Taken::Message => count += 1,
                Taken::Nothing => break,
                Taken::Gap(missing) => {
                    let peer = self.control.peer_name(publisher.link);
                    self.reports.push_back(RecvError::Gap { peer, missing });
                    break;
                }
                Taken::Misbehaved(what) => {
                    let at = self.current;
                    self.turn_away(at, what.0);
                    break;
                }
            }
        }
        count
    }

    /// Nothing is there: what is to be said instead.
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

    /// Whether every publisher that joined has ended or died.
    fn is_over(&self) -> bool {
        !self.setup.options.follow
            && self.left > 0
            && self.publishers.is_empty()
            && self.pending.is_empty()
    }

    /// Parts with publishers of whom everything was read.
    fn bury(&mut self) {
        let mut index = 0;
        while let Some(one) = self.publishers.get(index) {
            let empty = one.held.is_none() && polled(one) == 0;
            let done = (one.ended && one.held.is_none()) || (one.gone && empty);
            if !done {
                index += 1;
                continue;
            }
            let one = self.publishers.remove(index);
            self.left += 1;
            if one.missing > 0 {
                let peer = self.control.peer_name(one.link);
                self.reports.push_back(RecvError::Gap { peer, missing: one.missing });
            }
            if !one.ended {
                let peer = self.control.peer_name(one.link);
                let received = one.counters.received;
                self.reports.push_back(RecvError::PeerDied { peer, received });
            }
            self.control.part(one.link);
        }
    }

    fn turn_away(&mut self, at: usize, problem: &str) {
        let one = self.publishers.remove(at);
        // Who has said nothing yet is nobody whose end is an end.
        self.left += u64::from(one.counters.received > 0);
        self.refuse(one.link, problem);
    }

    /// Ends the link of a peer that broke the protocol, however far it is.
    fn broke(&mut self, link: LinkId, problem: &str) {
        self.pending.retain(|one| one.link != link);
        match self.publishers.iter().position(|one| one.link == link) {
            Some(at) => self.turn_away(at, problem),
            None => self.refuse(link, problem),
        }
    }

    fn refuse(&mut self, link: LinkId, problem: &str) {
        let peer = self.control.peer_name(link);
        self.control.turn_away(link, problem);
        self.reports.push_back(RecvError::PeerMisbehaved { peer, problem: problem.to_owned() });
    }

    /// A publisher said its hello, with its ring and its doorbell.
    fn join(&mut self, met: Met<Page>) {
        let link = met.link;
        let page = met.made.cursor;
        let mut descriptors = met.descriptors.into_iter();
        let (bell, ring) = (descriptors.next(), descriptors.next());
        let bell = bell.map(switchboard_kernel::shared_memory::Doorbell::received);
        let ring = ring.map(|fd| PeerMemory::received(fd, geometry::RING_BYTES));
        match (bell, ring) {
            (Some(Ok(bell)), Some(Ok(ring))) => self.pending.push(Pending {
                link,
                page,
                ring: Theirs(ring),
                bell: Bell(bell),
                segments: Segments::default(),
            }),
            _ => self.refuse(link, "it gave no memory that can be trusted"),
        }
    }

    /// It said where to begin.
    fn welcome(&mut self, link: LinkId, welcome: &Welcome) {
        let Some(at) = self.pending.iter().position(|one| one.link == link) else {
            return self.broke(link, "it said welcome out of turn");
        };
        let Pending { page, ring, bell, segments, .. } = self.pending.swap_remove(at);
        let slot = welcome.slot as usize;
        if slot >= bell::READERS {
            return self.refuse(link, "it gave a slot that cannot be");
        }
        let ring = match RingReader::open(ring, welcome.position, welcome.number) {
            Ok(ring) => ring,
            Err(what) => return self.refuse(link, what.0),
        };
        page.store(welcome.position);
        self.publishers.push(Publisher {
            link,
            ring,
            segments,
            page,
            bell,
            slot,
            turn: 0,
            counters: Counters::default(),
            missing: 0,
            held: None,
            largest: self.setup.largest_message_bytes() as usize,
            ended: false,
            gone: false,
        });
    }

    fn segment(&mut self, link: LinkId, index: u32, fd: std::os::fd::OwnedFd) {
        let pending = self.pending.iter_mut().filter(|one| one.link == link);
        let open = self.publishers.iter_mut().filter(|one| one.link == link);
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
        if let Some(one) = self.publishers.iter_mut().find(|one| one.link == link) {
            one.gone = true;
        } else {
            self.control.part(link);
        }
    }
}

fn polled(one: &Publisher) -> u64 {
    one.ring.polled_word().load(std::sync::atomic::Ordering::Acquire)
}

#[inline]
fn take_from(
    one: &mut Publisher,
    control: &mut Control<ReaderOffer>,
    scratch: &mut Vec<u8>,
    with: &mut dyn FnMut(Raw<'_>),
) -> Taken {
    if let Some((payload, number)) = one.held.take() {
        hand_out(one, &payload, number, with);
        return Taken::Message;
    }
    if one.ring.is_lossy() {
        return take_lossy(one, control, scratch, with);
    }
    loop {
        let frame = match one.ring.poll() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                if let Some(cursor) = one.ring.cursor_if_moved() {
                    store_cursor(&one.page, cursor, &one.ring, control, one.link);
                }
                return Taken::Nothing;
            }
            Err(what) => return Taken::Misbehaved(what),
        };
        let payload = match frame.kind {
            Kind::Message => {
                let len = frame.payload_bytes as usize;
                if scratch.len() < len {
                    scratch.resize(len.next_power_of_two(), 0);
                }
                let payload = &mut scratch[..len];
                one.ring.copy(&frame, 0, payload);
                payload
            }
            Kind::InArena => match one.segments.read(&one.ring, &frame, one.largest, scratch) {
                Ok(Found::Message(_)) => &mut scratch[..],
                Ok(Found::TooLarge) => {
                    one.missing += 1;
                    one.ring.advance(&frame);
                    continue;
                }
                // Its segment is still on the way.
                Ok(Found::NotYet) => return Taken::Nothing,
                Err(what) => return Taken::Misbehaved(what),
            },
            Kind::End => {
                one.ended = true;
                one.ring.advance(&frame);
                return Taken::Nothing;
            }
            Kind::Prefixed | Kind::Pad => {
                return Taken::Misbehaved(Misbehaved("a frame of a queue"));
            }
        };
        let taken = if payload.len() > one.largest {
            one.missing += 1;
            None
        } else {
            Some(pass_on(one, payload, frame.number, with))
        };
        one.ring.advance(&frame);
        if let Some(cursor) = one.ring.cursor_after_step() {
            store_cursor(&one.page, cursor, &one.ring, control, one.link);
        }
        if let Some(taken) = taken {
            return taken;
        }
    }
}

/// Hands a message out; if some are missing before it, that is said first.
#[inline]
fn pass_on(
    one: &mut Publisher,
    payload: &[u8],
    number: u64,
    with: &mut dyn FnMut(Raw<'_>),
) -> Taken {
    if one.missing > 0 {
        one.held = Some((payload.to_vec(), number));
        return Taken::Gap(one.missing);
    }
    hand_out(one, payload, number, with);
    Taken::Message
}

#[inline]
fn hand_out(one: &mut Publisher, payload: &[u8], number: u64, with: &mut dyn FnMut(Raw<'_>)) {
    one.counters.received += 1;
    let lost_before = std::mem::take(&mut one.missing);
    let receipt = Receipt { connection: one.link, sequence: number };
    with(Raw { receipt, lost_before, ..Raw::bare(payload) });
}

/// The same, from a publisher that overwrites what was not read.
#[cold]
fn take_lossy(
    one: &mut Publisher,
    control: &mut Control<ReaderOffer>,
    scratch: &mut Vec<u8>,
    with: &mut dyn FnMut(Raw<'_>),
) -> Taken {
    loop {
        scratch.clear();
        let segments = &one.segments;
        let mut in_arena = None;
        let largest = one.largest;
        let found = one.ring.take_lossy(scratch, |ring, frame, bytes| {
            if frame.kind == Kind::InArena {
                in_arena = Some(segments.read(ring, frame, largest, bytes)?);
            }
            Ok(())
        });
        let frame = match found {
            Err(what) => return Taken::Misbehaved(what),
            Ok(Err(overtaken)) => match one.ring.catch_up(overtaken) {
                Ok(()) => continue,
                Err(what) => return Taken::Misbehaved(what),
            },
            Ok(Ok(None)) => {
                if let Some(cursor) = one.ring.cursor_if_moved() {
                    store_cursor(&one.page, cursor, &one.ring, control, one.link);
                }
                return Taken::Nothing;
            }
            // Its segment is still on the way.
            Ok(Ok(Some(_))) if matches!(in_arena, Some(Found::NotYet)) => return Taken::Nothing,
            Ok(Ok(Some(frame))) => frame,
        };
        one.missing += frame.missing;
        one.counters.missed += frame.missing;
        one.ring.advance(&frame);
        match frame.kind {
            Kind::Message | Kind::InArena => {
                if scratch.len() > largest || matches!(in_arena, Some(Found::TooLarge)) {
                    one.missing += 1;
                    continue;
                }
                return pass_on(one, scratch, frame.number, with);
            }
            Kind::End => {
                one.ended = true;
                return Taken::Nothing;
            }
            Kind::Prefixed | Kind::Pad => {
                return Taken::Misbehaved(Misbehaved("a frame of a queue"));
            }
        }
    }
}

impl Core for SubscriberCore {
    fn is_ready(&mut self) -> bool {
        self.cancelled
            || !self.reports.is_empty()
            || self
                .publishers
                .iter()
                .any(|one| one.ended || one.gone || one.held.is_some() || polled(one) != 0)
            || self.is_over()
    }

    fn arm(&mut self, how: Sleeps) -> Option<(Place, u32)> {
        let alone = self.publishers.len() == 1;
        let how = if alone { how } else { Sleeps::OnDescriptor };
        self.armed = true;
        for one in &mut self.publishers {
            if let Some(cursor) = one.ring.cursor_if_moved() {
                store_cursor(&one.page, cursor, &one.ring, &self.control, one.link);
            }
            one.counters.sleeps += 1;
            one.page.count(&one.counters);
            one.turn = one.turn.wrapping_add(1);
            bell::raise(&one.bell, one.slot, how, one.turn);
        }
        if self.is_ready() {
            return None;
        }
        if alone && let Some(one) = self.publishers.first() {
            let place = Place::Header(one.ring.memory().clone(), one.ring.polled_index());
            return Some((place, 0));
        }
        Some((Place::Own, 0))
    }

    fn disarm(&mut self, late: bool) {
        if std::mem::take(&mut self.armed) {
            for one in &mut self.publishers {
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
                Event::Welcome(link, welcome) => self.welcome(link, &welcome),
                Event::Segment(link, index, fd) => self.segment(link, index, fd),
                Event::Gone(link) => self.gone(link),
                Event::Broke(link, problem) => self.broke(link, &problem),
                Event::Reject(..) | Event::Taken(..) | Event::Wake => {}
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
