//! The links of a reading end: a writer is met, welcomes this end, gives segments, and goes.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use switchboard_kernel::shared_memory::{Doorbell, PeerMemory};
use switchboard_shm::Misbehaved;
use switchboard_shm::barrier::Sleeper;
use switchboard_shm::bell::{self, FutexWord, Sleeps};
use switchboard_shm::cursor::{Counters, OwnCursor};
use switchboard_shm::ring::RingReader;

use super::super::room_for_one;
use super::{ReaderCore, Reading};
use crate::counters::{Counts, LinkCounts};
use crate::error::RecvError;
use crate::transport::shm::control::{Control, LinkId, Met, Welcome};
use crate::transport::shm::counting;
use crate::transport::shm::datagram::Datagram;
use crate::transport::shm::geometry;
use crate::transport::shm::hand::Manner;
use crate::transport::shm::hello::Pattern;
use crate::transport::shm::large::Segments;
use crate::transport::shm::memory::{Bell, Own, Theirs, Unusable};
use crate::transport::shm::offer::{Page, ReaderOffer};
use crate::transport::shm::park::Place;
use crate::transport::shm::waking::wake_writer;

/// Much shorter than a publisher waits for a subscriber of another user that takes nothing.
const CERTAIN_FOR: Duration = Duration::from_secs(1);

/// A writer, as its reader knows it.
#[derive(Debug)]
pub(crate) struct Writer<P> {
    pub(in crate::transport::shm) link: LinkId,
    pub(in crate::transport::shm) ring: RingReader<Theirs>,
    pub(in crate::transport::shm) segments: Segments,
    pub(in crate::transport::shm) page: OwnCursor<Own>,
    /// None of a writer of another user: it is told of sleeps.
    bell: Option<Bell>,
    /// This end's byte in the doorbell.
    slot: usize,
    /// It is of another user: nothing is lent in place.
    is_other: bool,
    /// When it saw this end take something, if it is of another user.
    certain: Instant,
    /// What the writer knows of this end's sleeps.
    pub(super) sleeper: Sleeper,
    /// Counts this end's sleeps, for the doorbell.
    turn: u8,
    pub(in crate::transport::shm) counters: Counters,
    /// Wake-ups given to the writer.
    wakes: Cell<u64>,
    /// The largest message that this side takes.
    pub(in crate::transport::shm) largest: usize,
    /// The largest of those that are in the ring.
    pub(in crate::transport::shm) largest_plain: u64,
    /// It said its end.
    pub(in crate::transport::shm) ended: bool,
    /// It is dead, or its connection is.
    gone: bool,
    /// Of one that is gone: nothing more can be read of it.
    ended_early: bool,
    /// Its next message is in a segment that has not come.
    pub(in crate::transport::shm) lacks_segment: bool,
    /// The reader left off in the middle, so that others have their turn.
    pub(in crate::transport::shm) left_off: bool,
    /// What the pattern keeps of it.
    pub(in crate::transport::shm) kept: P,
}

/// A writer that has not welcomed us yet.
#[derive(Debug)]
pub(super) struct Pending {
    link: LinkId,
    page: OwnCursor<Own>,
    bell: Option<Bell>,
    is_other: bool,
    /// That of a topic; a queue's comes with the welcome.
    ring: Option<Theirs>,
    segments: Segments,
}

impl<P: Reading> ReaderCore<P> {
    /// A writer said its hello, with its doorbell, and the ring of a topic.
    pub(super) fn join(&mut self, met: Met<Page>) {
        let (link, page) = (met.link, met.made.cursor);
        let is_other = met.is_other;
        let gave_bell = met.descriptors.len() == met.hello.descriptors();
        let mut descriptors = met.descriptors.into_iter();
        let bell = gave_bell.then(|| descriptors.next()).flatten();
        // One that another user writes, too, is not used.
        let bell = bell.filter(|_| !is_other).map(bell_of).transpose();
        let ring = descriptors.next().map(|fd| ring_of(fd, NO_MEMORY)).transpose();
        match (bell, ring) {
            (Ok(bell), Ok(ring)) => {
                let segments = Segments::default();
                room_for_one(&mut self.pending);
                self.pending.push(Pending { link, page, bell, is_other, ring, segments });
            }
            (Err(why), _) | (_, Err(why)) => self.cannot_use(link, why),
        }
    }

    /// What a peer gave is of no use. If this side has no room for it the link is put off, which is told once.
    fn cannot_use(&mut self, link: LinkId, why: Unusable) {
        let error = match why {
            Unusable::Wrong(what) => return self.refuse(link, what.0),
            Unusable::Short(error) => error,
        };
        self.control.put_off(link);
        if !std::mem::replace(&mut self.short, true) {
            self.reports.push(RecvError::Failed(self.setup.system(NO_ROOM, error)));
        }
    }

    /// It said where to begin.
    pub(super) fn welcome(&mut self, link: LinkId, welcome: Welcome) {
        let Some(at) = self.pending.iter().position(|one| one.link == link) else {
            return self.broke(link, "it said welcome out of turn");
        };
        let pending = self.pending.swap_remove(at);
        match self.open_link(pending, welcome) {
            Ok(writer) => {
                self.short = false;
                self.control.opened(link);
                room_for_one(&mut self.writers);
                self.writers.push(writer);
            }
            Err(why) => self.cannot_use(link, why),
        }
    }

    fn open_link(&self, pending: Pending, welcome: Welcome) -> Result<Writer<P>, Unusable> {
        let Pending { link, page, bell, is_other, ring, segments } = pending;
        let slot = welcome.slot as usize;
        if slot >= bell::READERS {
            return Err(Misbehaved("it gave a slot that cannot be").into());
        }
        let ring = match (ring, welcome.ring) {
            (Some(ring), None) => ring,
            (None, Some(fd)) => ring_of(fd, NO_RING)?,
            _ => return Err(Misbehaved(NO_RING).into()),
        };
        let ring = RingReader::open(ring, welcome.position, welcome.number)?;
        let kept = P::begin(&ring, welcome.number)?;
        page.store(welcome.position);
        let largest = u64::from(self.setup.largest_message_bytes());
        Ok(Writer {
            link,
            largest: largest as usize,
            // What is lent is a copy, which the short cut does not make.
            largest_plain: if is_other { 0 } else { largest.min(ring.largest_payload()) },
            sleeper: Sleeper::new(ring.busy()),
            ring,
            segments,
            page,
            bell,
            slot,
            is_other,
            certain: Instant::now(),
            turn: 0,
            counters: Counters::default(),
            wakes: Cell::new(0),
            ended: false,
            gone: false,
            ended_early: false,
            lacks_segment: false,
            left_off: false,
            kept,
        })
    }

    pub(super) fn segment(&mut self, link: LinkId, index: u32, fd: OwnedFd) {
        let segments = match self.position(link) {
            Some(at) => {
                let one = &mut self.writers[at];
                // If it is another one that is waited for, that will be noticed again.
                one.lacks_segment = false;
                Some(&mut one.segments)
            }
            None => {
                let mut pending = self.pending.iter_mut().filter(|one| one.link == link);
                pending.next().map(|one| &mut one.segments)
            }
        };
        if let Some(segments) = segments
            && let Err(what) = segments.add(index, fd)
        {
            self.broke(link, what.0);
        }
    }

    /// Looks for segments that messages are in. They were sent before the messages, so they wait on the control
    /// path, or never come.
    pub(super) fn fetch_segments(&mut self) {
        while let Some(at) = self.writers.iter().position(|one| one.lacks_segment) {
            let link = self.writers[at].link;
            for event in self.control.hear(link) {
                self.note(event);
            }
            let Some(at) = self.position(link) else { continue };
            let one = &mut self.writers[at];
            if !std::mem::take(&mut one.lacks_segment) {
                continue;
            }
            match one.segments.map_waiting() {
                Ok(true) => {}
                // It gave up this link before: what else is in its ring nobody can read.
                Ok(false) if one.gone => one.ended_early = true,
                Ok(false) => self.turn_away(at, "a message in a segment that never came"),
                Err(Unusable::Wrong(what)) => self.turn_away(at, what.0),
                // The message stays where it is: each call that would take it is told.
                Err(Unusable::Short(error)) => {
                    let error = self.setup.system("no room for a large message", error);
                    self.reports.push(RecvError::Failed(error));
                }
            }
        }
    }

    /// Its process died, or its connection ended: what is in its ring is still read.
    pub(super) fn gone(&mut self, link: LinkId) {
        self.pending.retain(|one| one.link != link);
        match self.position(link) {
            Some(at) => self.writers[at].gone = true,
            None => self.control.part(link),
        }
    }

    /// Parts with writers of whom everything was read.
    pub(super) fn bury(&mut self) {
        let mut index = 0;
        while let Some(one) = self.writers.get(index) {
            if !one.is_read() {
                index += 1;
                continue;
            }
            let one = self.writers.remove(index);
            self.left_by(&one);
            self.control.part(one.link);
        }
    }

    /// Says how a writer that is there no more has left.
    fn left_by(&mut self, one: &Writer<P>) {
        self.left += 1;
        self.past.add(one);
        let peer = || self.control.peer_name(one.link);
        let missing = one.kept.missing();
        if missing > 0 {
            self.reports.push(RecvError::Gap { peer: peer(), missing });
        }
        if !one.ended {
            let received = one.counters.received + self.taken_from(one.link);
            self.reports.push(RecvError::PeerDied { peer: peer(), received });
        }
    }

    /// Ends the link of a peer that broke the protocol, however far it is.
    pub(super) fn broke(&mut self, link: LinkId, problem: &str) {
        if !self.control.has(link) {
            return;
        }
        self.pending.retain(|one| one.link != link);
        match self.position(link) {
            Some(at) => self.turn_away(at, problem),
            None => self.refuse(link, problem),
        }
    }

    /// Whether a message that was just copied is what its writer wrote. One of another user turns this end away when
    /// it takes nothing for seconds, as while it is stopped, and writes over what was not read: before it does, it
    /// says so.
    #[inline]
    pub(super) fn is_whole(&mut self, at: usize) -> bool {
        let one = &self.writers[at];
        !one.is_other || one.certain.elapsed() < CERTAIN_FOR || self.is_waited_for(at)
    }

    #[cold]
    fn is_waited_for(&mut self, at: usize) -> bool {
        let link = self.writers[at].link;
        for event in self.control.hear(link) {
            self.note(event);
        }
        let Some(at) = self.position(link) else { return false };
        let one = &mut self.writers[at];
        // It takes something: from here on the time begins anew.
        P::before_sleep(one, &self.control);
        one.certain = Instant::now();
        true
    }

    /// A writer has turned this end away: what is in its ring may be overwritten by now.
    pub(super) fn turned_away(&mut self, link: LinkId, problem: String) {
        if !self.control.has(link) {
            return;
        }
        let peer = self.control.peer_name(link);
        self.reports.push(RecvError::PeerRefused { peer, problem });
        self.pending.retain(|one| one.link != link);
        if let Some(at) = self.position(link) {
            let one = self.writers.remove(at);
            self.left_by(&one);
        }
    }

    /// Ends the link of a writer that broke the protocol, if it has not ended it before: whom it waits for no more
    /// finds nonsense in its ring.
    pub(in crate::transport::shm) fn turn_away(&mut self, at: usize, problem: &str) {
        let link = self.writers[at].link;
        for event in self.control.hear(link) {
            self.note(event);
        }
        let Some(at) = self.position(link) else { return };
        let one = self.writers.remove(at);
        self.past.add(&one);
        // Who has said nothing yet is nobody whose end is an end.
        self.left += u64::from(one.counters.received > 0);
        self.refuse(one.link, problem);
    }

    /// The same, where the caller knows already.
    pub(in crate::transport::shm) fn drop_liar(&mut self, at: usize, problem: &str) {
        let one = self.writers.remove(at);
        self.left += u64::from(one.counters.received > 0);
        self.control.turn_away(one.link, problem);
    }

    fn refuse(&mut self, link: LinkId, problem: &str) {
        let peer = self.control.peer_name(link);
        self.control.turn_away(link, problem);
        self.reports.push(RecvError::PeerMisbehaved { peer, problem: problem.to_owned() });
    }

    /// Where the writer of a link is.
    #[inline]
    pub(in crate::transport::shm) fn position(&self, link: LinkId) -> Option<usize> {
        self.writers.iter().position(|one| one.link == link)
    }
}

/// What was counted on links that are closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    pub(super) received: u64,
    missed: u64,
    wakes: u64,
}

impl Past {
    fn add<P>(&mut self, one: &Writer<P>) {
        self.received += one.counters.received;
        self.missed += one.counters.missed;
        self.wakes += one.wakes.get();
    }
}

impl<P: Reading> ReaderCore<P> {
    /// Messages of a writer that the caller took by itself, and of which this does not know yet.
    fn taken_from(&self, link: LinkId) -> u64 {
        if self.lane == Some(link) { self.taken.load(Relaxed) } else { 0 }
    }

    /// What this end has counted.
    pub(super) fn counts(&self) -> Counts {
        let mut all = self.past;
        let mut counts = Counts { waits: self.sleeps, late: self.late, ..Counts::default() };
        let is_topic = P::PATTERN == Pattern::Topic;
        for one in &self.writers {
            all.add(one);
            let taken = self.taken_from(one.link);
            all.received += taken;
            counts.links.push(LinkCounts {
                number: one.ring.number() + taken,
                received: Some(one.counters.received + taken),
                dropped: is_topic.then_some(one.counters.missed),
                behind: one.kept.unsettled().map(|unsettled| unsettled as u64),
                ..counting::link(&self.control, one.link)
            });
        }
        counts.received = Some(all.received);
        counts.dropped = is_topic.then_some(all.missed);
        counts.wake_ups = all.wakes;
        counts
    }
}

impl<P: Reading> Writer<P> {
    /// Whether nothing follows what is in the ring.
    pub(super) fn is_over(&self) -> bool {
        self.ended || self.gone
    }

    /// Whether a message can be taken.
    pub(super) fn has_message(&self) -> bool {
        self.kept.holds() || self.left_off || (self.kept.takes_more() && !self.is_empty())
    }

    fn is_read(&self) -> bool {
        let is_done = self.ended || (self.gone && (self.ended_early || self.is_empty()));
        is_done && !self.kept.holds()
    }

    /// Whether nothing is in the ring that was not read.
    fn is_empty(&self) -> bool {
        self.polled() == 0 && !self.ring.is_overtaken()
    }

    /// The header at which the next frame will be; acquire, as where the ring is read.
    fn polled(&self) -> u64 {
        self.ring.polled_word().load(Acquire)
    }

    /// Stores the cursor, and wakes the writer if it sleeps for it.
    #[inline]
    pub(in crate::transport::shm) fn store_cursor(
        &self,
        position: u64,
        control: &Control<ReaderOffer>,
    ) {
        self.page.store(position);
        self.wake(control);
    }

    /// Wakes the writer if it sleeps for a cursor that was just stored.
    #[inline]
    pub(in crate::transport::shm) fn wake(&self, control: &Control<ReaderOffer>) {
        if wake_writer(&self.page, &self.ring, control, self.link) {
            self.wakes.set(self.wakes.get() + 1);
        }
    }

    /// Says that this end is about to sleep. The [barrier](Sleeper::pass) comes next.
    pub(super) fn raise_bell(&mut self, how: Sleeps, control: &Control<ReaderOffer>) {
        self.counters.sleeps += 1;
        self.page.count(&self.counters);
        self.turn = self.turn.wrapping_add(1);
        match &self.bell {
            Some(bell) => bell::raise(bell, self.slot, how, self.turn, &mut self.sleeper),
            None => {
                let position = self.ring.position();
                control.say(self.link, &Datagram::Sleeps { position }, &[]);
            }
        }
    }

    pub(super) fn is_other(&self) -> bool {
        self.is_other
    }

    /// Where this end sleeps, and what is there now; none where it has no doorbell.
    pub(super) fn futex_word(&self, is_shared: bool) -> Option<(Place, u32)> {
        let bell = self.bell.as_ref()?;
        let word = if is_shared { FutexWord::SHARED } else { FutexWord::of(self.slot) };
        Some((Place::Doorbell(bell.clone(), word), word.before_sleep(bell)))
    }

    /// Whether this end raises its byte in the doorbell itself.
    pub(super) fn has_bell(&self) -> bool {
        self.bell.is_some()
    }

    /// How a message is taken: of another user always as a copy.
    #[inline]
    pub(in crate::transport::shm) fn manner(&self, asked: Manner) -> Manner {
        if self.is_other { Manner::Copied } else { asked }
    }

    /// Says that it does not sleep any more. `late`: nobody woke it.
    pub(super) fn lower_bell(&mut self, late: bool) {
        self.counters.late += u64::from(late);
        let Some(bell) = &self.bell else { return };
        if self.polled() == 0 || late {
            // No message ended it, or nobody saw the byte as it should be. Who waits in vain now and then costs
            // the writer nothing.
            self.sleeper.forget();
            bell::lower(bell, self.slot, &mut self.sleeper);
        } else {
            bell::awake(bell, self.slot, &mut self.sleeper);
        }
    }

    /// This end has taken much without sleeping.
    #[inline]
    pub(in crate::transport::shm) fn step(&mut self) {
        if self.sleeper.step()
            && let Some(bell) = &self.bell
        {
            bell::lower(bell, self.slot, &mut self.sleeper);
        }
    }
}

const NO_MEMORY: &str = "it gave no memory that can be trusted";
const NO_RING: &str = "it gave no ring that can be trusted";
const NO_ROOM: &str = "no room for the memory of a peer";

/// The doorbell that a writer gave.
fn bell_of(fd: OwnedFd) -> Result<Bell, Unusable> {
    Doorbell::received(fd).map(Bell).map_err(|error| Unusable::of(error, NO_MEMORY))
}

/// The ring that a writer gave; what is said of one that cannot be trusted.
fn ring_of(fd: OwnedFd, wrong: &'static str) -> Result<Theirs, Unusable> {
    let memory = PeerMemory::received(fd, geometry::RING_BYTES);
    memory.map(Theirs).map_err(|error| Unusable::of(error, wrong))
}
