//! The reading end of an event or a state: a feed of each writer, and how this end sleeps.
//!
//! What differs, what an entry is, is in `listener.rs` and `state_reader.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use switchboard_kernel::membarrier;
use switchboard_kernel::shared_memory::{Doorbell, PeerMemory};
use switchboard_shm::Misbehaved;
use switchboard_shm::barrier::Sleeper;
use switchboard_shm::bell::{self, Sleeps};
use switchboard_shm::cursor::{Counters, OwnCursor};
use switchboard_shm::feed::FeedReader;
use switchboard_shm::layout::feed as layout;
use switchboard_shm::values::{MOST_SEGMENTS, SEGMENT_BYTES};

use super::control::{Control, Event, LinkId, Met, Welcome};
use super::counting;
use super::endpoint::Core;
use super::ends::{End, Opened};
use super::hello::{Id, Pattern, Role};
use super::meeting::{OF_ONE_USER, check_of_one_user};
use super::memory::{Bell, Own, Theirs, Unusable};
use super::offer::{Page, ReaderOffer};
use super::park::Place;
use super::writing::kept_out;
use crate::counters::{Counts, LinkCounts};
use crate::error::{Error, ErrorKind, WaitError};
use crate::transport::Setup;

/// What a pattern keeps of all writers, and of each.
pub(crate) trait Following: fmt::Debug + Default + Send + 'static {
    const PATTERN: Pattern;
    /// Whether it is of no use without a writer.
    const NEEDS_PEER: bool;

    type Each: fmt::Debug + Send;

    /// A writer has welcomed this end, with a gift where the pattern has one.
    fn begin(welcome: Option<Theirs>) -> Result<Self::Each, Misbehaved>;

    /// Takes what a writer has changed.
    fn take(&mut self, one: &mut Followed<Self::Each>) -> Result<(), Misbehaved>;

    /// Whether something was taken that the program has not.
    fn holds(&self) -> bool;

    /// A writer is gone.
    fn left(&mut self, _link: LinkId) {}
}

/// A writer, as its reader knows it.
#[derive(Debug)]
pub(crate) struct Followed<E> {
    pub(super) link: LinkId,
    pub(super) feed: FeedReader<Theirs>,
    /// Segments that came, in their order.
    pub(super) segments: Vec<Theirs>,
    page: OwnCursor<Own>,
    bell: Bell,
    /// This end's byte in the doorbell.
    slot: usize,
    sleeper: Sleeper,
    /// Counts this end's sleeps, for the doorbell.
    turn: u8,
    counters: Counters,
    gone: bool,
    pub(super) kept: E,
}

/// A writer that has not welcomed us yet.
#[derive(Debug)]
struct Pending {
    link: LinkId,
    page: OwnCursor<Own>,
    bell: Bell,
    feed: FeedReader<Theirs>,
    segments: Vec<Theirs>,
}

/// Of what there is to tell, so much is kept.
const MOST_REPORTS: usize = 256;

#[derive(Debug)]
pub(crate) struct FollowerCore<F: Following> {
    pub(super) setup: Setup,
    pub(super) control: Control<ReaderOffer>,
    pub(super) writers: Vec<Followed<F::Each>>,
    pending: Vec<Pending>,
    reports: VecDeque<Error>,
    cancelled: bool,
    armed: bool,
    sleeps: u64,
    late: u64,
    pub(super) kept: F,
}

impl<F: Following> FollowerCore<F> {
    /// Takes what all writers have changed.
    pub(super) fn gather(&mut self) {
        let mut at = 0;
        while let Some(one) = self.writers.get_mut(at) {
            if one.feed.has_changed() {
                match self.kept.take(one) {
                    Ok(()) => one.counters.received += 1,
                    Err(what) => {
                        self.turn_away(at, what.0);
                        continue;
                    }
                }
            }
            if self.writers[at].gone {
                let one = self.writers.remove(at);
                self.kept.left(one.link);
                self.control.part(one.link);
                continue;
            }
            at += 1;
        }
    }

    /// What is to be said once everything was taken.
    pub(super) fn check(&mut self) -> Result<(), WaitError> {
        if let Some(error) = self.reports.pop_front() {
            return Err(WaitError::Failed(error));
        }
        if std::mem::take(&mut self.cancelled) {
            let now = self.setup.is_cancelled();
            self.control.watch_cancel()?;
            if now {
                return Err(WaitError::Interrupted);
            }
        }
        Ok(())
    }

    pub(super) fn turn_away(&mut self, at: usize, problem: &str) {
        let one = self.writers.remove(at);
        self.kept.left(one.link);
        self.refuse(one.link, problem);
    }

    fn refuse(&mut self, link: LinkId, problem: &str) {
        let peer = self.control.peer_name(link);
        self.control.turn_away(link, problem);
        self.report(ErrorKind::PeerMisbehaved, format!("{peer} misbehaved: {problem}"));
    }

    pub(super) fn report(&mut self, kind: ErrorKind, problem: String) {
        self.tell(Error::new(kind, &self.setup.address, problem));
    }

    fn tell(&mut self, error: Error) {
        if self.reports.len() >= MOST_REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(error);
    }

    fn join(&mut self, met: Met<Page>) {
        let (link, page) = (met.link, met.made.cursor);
        if met.is_other {
            return self.control.turn_away(link, OF_ONE_USER);
        }
        let mut descriptors = met.descriptors.into_iter();
        let bell = descriptors.next().ok_or(Unusable::Wrong(Misbehaved(NO_MEMORY)));
        let bell = bell.and_then(|fd: OwnedFd| {
            Doorbell::received(fd).map(Bell).map_err(|error| Unusable::of(error, NO_MEMORY))
        });
        let feed = descriptors.next().ok_or(Unusable::Wrong(Misbehaved(NO_MEMORY)));
        let feed =
            feed.and_then(|fd| Ok(FeedReader::open(map(&fd, FEED_BYTES)?, F::PATTERN as u32)?));
        match bell.and_then(|bell| Ok((bell, feed?))) {
            Ok((bell, feed)) => {
                self.pending.push(Pending { link, page, bell, feed, segments: Vec::new() });
            }
            Err(why) => self.cannot_use(link, why),
        }
    }

    /// What a writer gave is of no use: its fault, or for want of room here.
    fn cannot_use(&mut self, link: LinkId, why: Unusable) {
        match why {
            Unusable::Wrong(what) => self.refuse(link, what.0),
            Unusable::Short(error) => {
                self.control.put_off(link);
                let error = self.setup.system("no room for the memory of a peer", error);
                self.tell(error);
            }
        }
    }

    fn welcome(&mut self, link: LinkId, welcome: Welcome) {
        let Some(at) = self.pending.iter().position(|one| one.link == link) else {
            return self.broke(link, "it said welcome out of turn");
        };
        let Pending { link, page, bell, feed, segments } = self.pending.swap_remove(at);
        let slot = welcome.slot as usize;
        let gift = welcome.ring.map(|fd| map(&fd, super::feeding::GIFT_BYTES)).transpose();
        let kept = gift.and_then(|gift| {
            if slot >= bell::READERS {
                return Err(Misbehaved("it gave a slot that cannot be").into());
            }
            Ok(F::begin(gift)?)
        });
        match kept {
            Ok(kept) => {
                self.control.opened(link);
                let sleeper = Sleeper::new(feed.busy());
                self.writers.push(Followed {
                    link,
                    feed,
                    segments,
                    page,
                    bell,
                    slot,
                    sleeper,
                    turn: 0,
                    counters: Counters::default(),
                    gone: false,
                    kept,
                });
            }
            Err(why) => self.cannot_use(link, why),
        }
    }

    fn segment(&mut self, link: LinkId, index: u32, fd: &OwnedFd) {
        let writers = self.writers.iter_mut().filter(|one| one.link == link);
        let pending = self.pending.iter_mut().filter(|one| one.link == link);
        let mut all =
            writers.map(|one| &mut one.segments).chain(pending.map(|one| &mut one.segments));
        let Some(segments) = all.next() else { return };
        if index as usize != segments.len() || segments.len() >= MOST_SEGMENTS {
            return self.broke(link, "a segment out of turn");
        }
        match map(fd, SEGMENT_BYTES) {
            Ok(memory) => segments.push(memory),
            Err(Unusable::Wrong(what)) => self.broke(link, what.0),
            Err(why) => {
                self.drop_link(link);
                self.cannot_use(link, why);
            }
        }
    }

    fn drop_link(&mut self, link: LinkId) {
        self.pending.retain(|one| one.link != link);
        self.writers.retain(|one| one.link != link);
        self.kept.left(link);
    }

    /// Ends the link of a peer that broke the protocol, however far it is.
    fn broke(&mut self, link: LinkId, problem: &str) {
        if self.control.has(link) {
            self.drop_link(link);
            self.refuse(link, problem);
        }
    }

    fn gone(&mut self, link: LinkId) {
        self.pending.retain(|one| one.link != link);
        match self.writers.iter_mut().find(|one| one.link == link) {
            Some(one) => one.gone = true,
            None => self.control.part(link),
        }
    }

    fn counts(&self) -> Counts {
        let links = self.writers.iter().map(|one| LinkCounts {
            number: one.feed.seen(),
            ..counting::link(&self.control, one.link)
        });
        let (waits, late) = (self.sleeps, self.late);
        Counts { waits, late, links: links.collect(), ..Counts::default() }
    }

    pub(super) fn note(&mut self, event: Event<Page>) {
        match event {
            Event::Asked(socket) => counting::answer(&socket, &self.counts()),
            Event::Met(met) => self.join(met),
            Event::Welcome(link, welcome) => self.welcome(link, welcome),
            Event::Segment(link, index, fd) => self.segment(link, index, &fd),
            Event::Gone(link) => self.gone(link),
            Event::Broke(link, problem) => self.broke(link, &problem),
            Event::Taken(..) | Event::Reject(..) | Event::Wake | Event::Sleeps(..) => {}
            Event::Denied { peer, problem } => {
                self.report(ErrorKind::PermissionDenied, format!("{peer}: {problem}"));
            }
            // What it has written stays as it was: nothing of it is taken back.
            Event::TurnedAway(link, _) if !self.control.has(link) => {}
            Event::TurnedAway(link, problem) => {
                let peer = self.control.peer_name(link);
                self.report(ErrorKind::Mismatch, format!("{peer} does not fit: {problem}"));
            }
            // Whoever comes and may not is written down, and ends nobody's wait.
            Event::KeptOut { came: true, .. } => {}
            Event::KeptOut { peer, problem, .. } => {
                if self.writers.is_empty() && self.pending.is_empty() {
                    self.tell(kept_out(&self.setup.address, &peer, &problem));
                }
            }
            Event::Refused { peer, problem } => {
                self.report(ErrorKind::Mismatch, format!("{peer} does not fit: {problem}"));
            }
            Event::Full { peer, problem } => {
                let problem = format!("{peer} refused one link more: {problem}");
                self.report(ErrorKind::LimitReached, problem);
            }
            Event::Misbehaved { peer, problem } => {
                self.report(ErrorKind::PeerMisbehaved, format!("{peer} misbehaved: {problem}"));
            }
            Event::Cancelled => self.cancelled = true,
            Event::Failed(error) => self.tell(error),
        }
    }
}

const NO_MEMORY: &str = "it gave no memory that can be trusted";

/// Bytes of a feed.
const FEED_BYTES: std::ops::RangeInclusive<usize> = layout::bytes(*layout::CAPACITY.start())
    as usize
    ..=layout::bytes(*layout::CAPACITY.end()) as usize;

fn map(fd: &OwnedFd, sizes: std::ops::RangeInclusive<usize>) -> Result<Theirs, Unusable> {
    PeerMemory::map(fd, sizes).map(Theirs).map_err(|error| Unusable::of(error, NO_MEMORY))
}

impl<F: Following> Opened for FollowerCore<F> {
    type Offer = ReaderOffer;
    type Outside = ();

    const NEEDS_PEER: bool = F::NEEDS_PEER;

    fn open(setup: Setup) -> Result<Self, Error> {
        check_of_one_user(&setup.address)?;
        let offer = ReaderOffer { setup: setup.again() };
        let id = Id::random().map_err(|error| setup.system("cannot open", error))?;
        let control = Control::open_as(&setup, (F::PATTERN, Role::Reader, id), offer)?;
        Ok(Self {
            setup,
            control,
            writers: Vec::new(),
            pending: Vec::new(),
            reports: VecDeque::new(),
            cancelled: false,
            armed: false,
            sleeps: 0,
            late: 0,
            kept: F::default(),
        })
    }

    fn control_path(&self) -> &Control<ReaderOffer> {
        &self.control
    }

    fn has_met(&self) -> bool {
        self.control.wanted() == 0 && self.pending.is_empty()
    }

    fn peers(&self) -> usize {
        self.writers.iter().filter(|one| !one.gone).count()
    }
}

impl<F: Following> End<FollowerCore<F>> {
    /// The descriptor for a caller's event loop. Who takes it has perhaps looked already: so peers are to wake it
    /// from now on.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        let is_first = !self.is_by_caller();
        let fd = self.fd();
        if is_first {
            self.ask_core(|core| {
                if core.arm(Sleeps::OnDescriptor).is_none() {
                    core.nudge();
                }
            });
        }
        fd
    }
}

impl<F: Following> Core for FollowerCore<F> {
    fn is_ready(&mut self) -> bool {
        self.cancelled
            || !self.reports.is_empty()
            || self.kept.holds()
            || self.writers.iter().any(|one| one.gone || one.feed.has_changed())
    }

    fn arm(&mut self, how: Sleeps) -> Option<(Place, u32)> {
        let alone = self.writers.len() == 1;
        let how = if alone { how } else { Sleeps::OnDescriptor };
        self.armed = true;
        self.sleeps += 1;
        for one in &mut self.writers {
            one.raise_bell(how);
        }
        // One call is enough for all.
        let mut called = false;
        for one in &mut self.writers {
            one.sleeper.pass(|| {
                if !std::mem::replace(&mut called, true) {
                    membarrier::everywhere();
                }
            });
        }
        if self.is_ready() {
            return None;
        }
        if alone && let Some(one) = self.writers.first() {
            let place = Place::Header(one.feed.memory().clone(), layout::CHANGES_WORD);
            return Some((place, one.feed.seen() as u32));
        }
        Some((Place::Own, 0))
    }

    fn disarm(&mut self, late: bool) {
        if std::mem::take(&mut self.armed) {
            self.late += u64::from(late);
            for one in &mut self.writers {
                one.lower_bell(late);
            }
        }
    }

    fn control(&mut self) -> bool {
        let mut news = false;
        for event in self.control.turn() {
            news |= event.is_news();
            self.note(event);
        }
        if news {
            // The dead make way for others, also where the caller does not come.
            self.gather();
        }
        news
    }

    fn nudge(&mut self) {
        self.control.nudge();
    }
}

impl<E> Followed<E> {
    /// Says that this end is about to sleep. The [barrier](Sleeper::pass) comes next.
    fn raise_bell(&mut self, how: Sleeps) {
        self.counters.sleeps += 1;
        self.page.count(&self.counters);
        self.turn = self.turn.wrapping_add(1);
        bell::raise(&self.bell, self.slot, how, self.turn, &mut self.sleeper);
    }

    /// Says that it does not sleep any more. `late`: nobody woke it.
    fn lower_bell(&mut self, late: bool) {
        self.counters.late += u64::from(late);
        if self.feed.has_changed() && !late {
            bell::awake(&self.bell, self.slot, &mut self.sleeper);
        } else {
            // Nothing ended it, or nobody saw the byte as it should be. Who waits in vain now and then costs the
            // writer nothing.
            self.sleeper.forget();
            bell::lower(&self.bell, self.slot, &mut self.sleeper);
        }
    }
}
