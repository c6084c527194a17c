//! The reading end of either pattern: whose turn it is, what is told between messages, and how it sleeps.
//!
//! What a pattern keeps of each writer, and how it takes a message, is its [`Reading`]: `subscriber.rs` and
//! `receiver.rs`.

mod links;
mod reports;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use switchboard_kernel::membarrier;
use switchboard_shm::Misbehaved;
use switchboard_shm::bell::Sleeps;
use switchboard_shm::ring::{Ahead, Lane, RingReader};

use super::control::{Control, Event, LinkId};
use super::counting;
use super::endpoint::Core;
use super::ends::Opened;
use super::hand::{Hand, Manner};
use super::hello::{Id, Pattern, Role};
use super::memory::Theirs;
use super::offer::{Page, ReaderOffer};
use super::park::Place;
use super::writing::{denied, kept_out};
use crate::error::{Error, RecvError};
use crate::transport::Setup;

pub(crate) use links::Writer;
use links::{Past, Pending};
use reports::Reports;

/// Messages of one writer in a row, so that a fast one cannot hide the others.
pub(super) const IN_A_ROW: u32 = 256;

/// What a pattern keeps of each writer, and how it takes a message.
pub(crate) trait Reading: fmt::Debug + Send + Sized + 'static {
    const PATTERN: Pattern;

    /// Begins after the message of a number.
    ///
    /// # Errors
    /// The ring is none of this pattern.
    fn begin(ring: &RingReader<Theirs>, number: u64) -> Result<Self, Misbehaved>;

    /// Takes one message of a writer into the caller's hand, if there is one.
    fn take(
        writer: &mut Writer<Self>,
        control: &Control<ReaderOffer>,
        manner: Manner,
        hand: &mut Hand,
    ) -> Result<Taken, Misbehaved>;

    /// Takes the next message into the caller's hand, if there is nothing particular about it: a short cut, after
    /// which [`take`](Self::take) does the rest.
    fn take_plain(
        writer: &mut Writer<Self>,
        control: &Control<ReaderOffer>,
        manner: Manner,
        hand: &mut Hand,
    ) -> bool;

    /// Where the next messages of the only writer come, if the caller may take them by itself.
    #[inline]
    fn lane(_writer: &Writer<Self>) -> Option<Lane> {
        None
    }

    /// The last message that the caller took by itself lies in a block.
    fn has_taken_block(&mut self) {}

    /// The caller will not look at the last message any more, which lies in a block.
    fn is_done_with_block(_writer: &mut Writer<Self>, _control: &Control<ReaderOffer>) {}

    /// Whether messages are [looked at](Self::look_ahead) before they are taken.
    const LOOKS_AHEAD: bool = false;

    /// Messages that are there, and that [`take_plain`](Self::take_plain) would take one by one: where they are, for
    /// which there is so much room. How many there are. Nothing is taken.
    #[inline]
    fn look_ahead(_writer: &Writer<Self>, _places: &mut [Ahead]) -> usize {
        0
    }

    /// So many of them were taken, up to this one.
    #[inline]
    fn pass_ahead(
        _writer: &mut Writer<Self>,
        _control: &Control<ReaderOffer>,
        (_count, _last): (usize, &Ahead),
    ) {
    }

    /// Takes a message where something else than turns says whose is next.
    #[inline]
    fn take_out_of_turn(
        _core: &mut ReaderCore<Self>,
        _manner: Manner,
        _hand: &mut Hand,
    ) -> Option<Result<bool, RecvError>> {
        None
    }

    /// Whether something left the ring that was not handed out.
    fn holds(&self) -> bool;

    /// Whether it takes more from the ring.
    fn takes_more(&self) -> bool {
        true
    }

    /// Messages that are missing, of which the caller was not told.
    fn missing(&self) -> u64 {
        0
    }

    /// Messages that were taken and are not settled, where there is such a thing.
    fn unsettled(&self) -> Option<usize> {
        None
    }

    /// The caller is about to sleep.
    fn before_sleep(_writer: &mut Writer<Self>, _control: &Control<ReaderOffer>) {}

    /// A writer has a message again that was given back.
    fn taken_back(_core: &mut ReaderCore<Self>, _link: LinkId, _number: u64) {}
}

/// What one writer had.
pub(crate) enum Taken {
    Message,
    Nothing,
    /// So many are missing before the next one.
    Gap(u64),
}

#[derive(Debug)]
pub(crate) struct ReaderCore<P> {
    setup: Setup,
    pub(super) control: Control<ReaderOffer>,
    pub(super) writers: Vec<Writer<P>>,
    pending: Vec<Pending>,
    /// Whose turn it is.
    pub(super) current: usize,
    in_a_row: u32,
    reports: Reports,
    /// What is missing before the next message, found behind others that one call is about.
    gap: Option<RecvError>,
    /// Writers that ended, died or were turned away.
    left: u64,
    /// A writer that was there, and that this side's own rules do not let in: for a client, if no other is.
    kept_out: Option<Error>,
    is_of_client: bool,
    cancelled: bool,
    armed: bool,
    /// How often the caller slept, and how often nobody ended that.
    sleeps: u64,
    late: u64,
    past: Past,
    /// There was no room for the memory of a writer, and that was told.
    short: bool,
    /// Whose messages the caller last took by itself, and how many of which this does not know.
    lane: Option<LinkId>,
    taken: Arc<AtomicU64>,
}

impl<P: Reading> ReaderCore<P> {
    /// Opens it under this ID, for another pattern that reads so.
    pub(super) fn open_as(setup: Setup, (pattern, id): (Pattern, Id)) -> Result<Self, Error> {
        let offer = ReaderOffer { setup: setup.again() };
        let control = Control::open_as(&setup, (pattern, Role::Reader, id), offer)?;
        Ok(Self {
            setup,
            control,
            writers: Vec::new(),
            pending: Vec::new(),
            current: 0,
            in_a_row: 0,
            reports: Reports::default(),
            gap: None,
            left: 0,
            kept_out: None,
            is_of_client: pattern == Pattern::Answers,
            cancelled: false,
            armed: false,
            sleeps: 0,
            late: 0,
            past: Past::default(),
            short: false,
            lane: None,
            taken: Arc::default(),
        })
    }

    /// The writers that are there, and those of whom not all was read.
    pub(super) fn links_by_id(&self) -> Vec<(Id, LinkId)> {
        let known = |link| Some((self.control.id_of(link)?, link));
        self.writers.iter().filter_map(|one| known(one.link)).collect()
    }

    /// Who writes over a link.
    pub(super) fn id_of(&self, link: LinkId) -> Option<Id> {
        self.control.id_of(link)
    }

    /// What is known of who writes over a link.
    pub(super) fn name_and_id(&self, link: LinkId) -> Option<(String, Id)> {
        Some((self.control.peer_name(link), self.control.id_of(link)?))
    }

    /// After this message it is another writer's turn. Whether the same one has a further message.
    #[inline]
    pub(super) fn end_turn(&mut self) -> bool {
        self.in_a_row = IN_A_ROW;
        let at = if self.writers.len() == 1 { 0 } else { self.current };
        self.writers.get(at).is_some_and(Writer::has_message)
    }

    /// Takes the next message into the caller's hand, if it is that of the only writer and there is nothing
    /// particular about it: a short cut, after which [`take`](Self::take) does the rest.
    #[inline(always)]
    pub(super) fn take_plain(&mut self, manner: Manner, hand: &mut Hand, news: u32) -> bool {
        self.catch_up(hand);
        let [only] = &mut self.writers[..] else { return false };
        let taken = P::take_plain(only, &self.control, manner, hand);
        if taken
            && manner == Manner::Lent
            && let Some(lane) = P::lane(only)
        {
            self.lane = Some(only.link);
            hand.open(lane, news);
        }
        taken
    }

    /// Goes on behind what the caller has taken by itself, if there is something.
    #[inline(always)]
    pub(super) fn catch_up(&mut self, hand: &mut Hand) {
        if let Some((link, lane)) = hand.close()
            && lane.taken() > 0
        {
            self.pass(link, &lane);
        }
    }

    #[inline(never)]
    fn pass(&mut self, link: LinkId, lane: &Lane) {
        self.taken.store(0, Relaxed);
        match self.writers.iter_mut().find(|one| one.link == link) {
            Some(one) => {
                one.ring.pass_lane(lane);
                one.counters.received += lane.taken();
                if lane.is_in_arena() {
                    one.kept.has_taken_block();
                }
            }
            // It was turned away meanwhile.
            None => self.past.received += lane.taken(),
        }
    }

    /// Looks for plain messages of the only writer, for the caller's hand. How many there are; nothing is taken.
    #[inline(always)]
    pub(super) fn look_ahead(&mut self, most: usize, hand: &mut Hand) -> usize {
        self.catch_up(hand);
        let [only] = &mut self.writers[..] else { return 0 };
        // Before the caller looks at the others, one by one.
        P::is_done_with_block(only, &self.control);
        let seen = P::look_ahead(only, hand.ahead(most));
        if seen > 0 {
            hand.looks_at(only.link, &only.ring);
        }
        seen
    }

    /// The caller will not look any more at what was taken, and left in its block.
    pub(super) fn is_done_with_blocks(&mut self) {
        for one in &mut self.writers {
            P::is_done_with_block(one, &self.control);
        }
    }

    /// So many of them were taken.
    #[inline(always)]
    pub(super) fn pass_ahead(&mut self, count: usize, hand: &Hand) {
        // Others may have come meanwhile, and this one may have been turned away.
        let Some((link, last)) = hand.seen_ahead(count) else { return };
        if let Some(one) = self.writers.iter_mut().find(|one| one.link == link) {
            P::pass_ahead(one, &self.control, (count, last));
        }
    }

    /// Takes one message into the caller's hand, if there is one. `news`: how often the control path had brought
    /// something, before this.
    pub(super) fn take(
        &mut self,
        manner: Manner,
        hand: &mut Hand,
        news: u32,
    ) -> Result<bool, RecvError> {
        self.catch_up(hand);
        if let Some(gap) = self.gap.take() {
            return Err(gap);
        }
        let [only] = &mut self.writers[..] else { return self.take_in_turn(manner, hand) };
        match P::take(only, &self.control, manner, hand) {
            Ok(Taken::Message) if only.is_other() => {
                return if self.is_whole(0) { Ok(true) } else { self.nothing() };
            }
            Ok(Taken::Message) => return Ok(true),
            Ok(Taken::Nothing) => {
                let quiet = !only.is_over() && !only.lacks_segment && !self.cancelled;
                if quiet && self.reports.is_empty() {
                    if !only.ring.is_lossy() && !only.has_message() {
                        let lane = P::lane(only).unwrap_or_else(|| only.ring.lookout());
                        self.lane = Some(only.link);
                        hand.found_nothing(only.link, &only.ring, lane, news);
                    }
                    return Ok(false);
                }
            }
            Ok(Taken::Gap(missing)) => return Err(self.gap(0, missing)),
            Err(what) => self.turn_away(0, what.0),
        }
        self.nothing()
    }

    /// The same, where there are several writers, or none.
    fn take_in_turn(&mut self, manner: Manner, hand: &mut Hand) -> Result<bool, RecvError> {
        let count = self.writers.len();
        if self.in_a_row >= IN_A_ROW {
            self.in_a_row = 0;
            self.current += 1;
        }
        if let Some(taken) = P::take_out_of_turn(self, manner, hand) {
            return taken;
        }
        for step in 0..count {
            let at = (self.current + step) % count;
            match P::take(&mut self.writers[at], &self.control, manner, hand) {
                Ok(Taken::Message) => {
                    self.current = at;
                    self.in_a_row = if step == 0 { self.in_a_row + 1 } else { 1 };
                    return if self.is_whole(at) { Ok(true) } else { self.nothing() };
                }
                Ok(Taken::Nothing) => {}
                Ok(Taken::Gap(missing)) => return Err(self.gap(at, missing)),
                Err(what) => {
                    self.turn_away(at, what.0);
                    break;
                }
            }
        }
        self.nothing()
    }

    /// Takes a further message of the writer that the last one came from.
    pub(super) fn take_more(&mut self, manner: Manner, hand: &mut Hand) -> bool {
        self.catch_up(hand);
        let at = if self.writers.len() == 1 { 0 } else { self.current };
        self.in_a_row = IN_A_ROW;
        let Some(one) = self.writers.get_mut(at) else { return false };
        match P::take(one, &self.control, manner, hand) {
            Ok(Taken::Message) => return self.is_whole(at),
            Ok(Taken::Nothing) => {}
            Ok(Taken::Gap(missing)) => {
                self.gap = Some(self.gap(at, missing));
            }
            Err(what) => self.turn_away(at, what.0),
        }
        false
    }

    /// Nothing is there: what is to be said instead.
    #[cold]
    pub(super) fn nothing(&mut self) -> Result<bool, RecvError> {
        self.fetch_segments();
        self.bury();
        if let Some(report) = self.reports.pop() {
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

    /// Whether every writer that joined has ended or died.
    fn is_over(&self) -> bool {
        !self.setup.options.follow
            && self.left > 0
            && self.writers.is_empty()
            && self.pending.is_empty()
    }

    fn note(&mut self, event: Event<Page>) {
        match event {
            Event::Met(met) => self.join(met),
            Event::Welcome(link, welcome) => self.welcome(link, welcome),
            Event::Segment(link, index, fd) => self.segment(link, index, fd),
            Event::Taken(link, number) => P::taken_back(self, link, number),
            Event::Gone(link) => self.gone(link),
            Event::TurnedAway(link, problem) => self.turned_away(link, problem),
            Event::Broke(link, problem) => self.broke(link, &problem),
            Event::Denied { peer, problem } => {
                // Others go on.
                let report = match self.writers.is_empty() && self.pending.is_empty() {
                    true => RecvError::Failed(denied(&self.setup.address, &peer, &problem)),
                    false => RecvError::PeerRefused { peer, problem },
                };
                self.reports.push(report);
            }
            Event::Reject(..) | Event::Wake | Event::Sleeps(..) => {}
            // A client has nobody to tell it but the end of its call: whoever comes and may not ends none.
            Event::KeptOut { peer, problem, came } if self.is_of_client => {
                if !came {
                    self.kept_out = Some(kept_out(&self.setup.address, &peer, &problem));
                }
            }
            Event::Refused { peer, problem }
            | Event::KeptOut { peer, problem, .. }
            | Event::Full { peer, problem } => {
                self.reports.push(RecvError::PeerRefused { peer, problem });
            }
            Event::Misbehaved { peer, problem } => {
                self.reports.push(RecvError::PeerMisbehaved { peer, problem });
            }
            Event::Asked(socket) => counting::answer(&socket, &self.counts()),
            Event::Cancelled => self.cancelled = true,
            Event::Failed(error) => self.reports.push(RecvError::Failed(error)),
        }
    }

    /// Tells of a writer that was kept out, once it is known that nobody else is there. Whether it did.
    fn has_nobody_else(&mut self) -> bool {
        if self.kept_out.is_none() || self.control.wanted() > 0 {
            return false;
        }
        let Some(error) = self.kept_out.take() else { return false };
        let alone = self.writers.is_empty() && self.pending.is_empty();
        if alone {
            self.reports.push(RecvError::Failed(error));
        }
        alone
    }

    fn gap(&self, at: usize, missing: u64) -> RecvError {
        RecvError::Gap { peer: self.control.peer_name(self.writers[at].link), missing }
    }
}

impl<P: Reading> Opened for ReaderCore<P> {
    type Offer = ReaderOffer;
    type Outside = Hand;

    const NEEDS_PEER: bool = true;

    fn open(setup: Setup) -> Result<Self, Error> {
        let id = Id::random().map_err(|error| setup.system("cannot open", error))?;
        Self::open_as(setup, (P::PATTERN, id))
    }

    fn outside(&self) -> Hand {
        Hand::counting(Arc::clone(&self.taken))
    }

    fn control_path(&self) -> &Control<ReaderOffer> {
        &self.control
    }

    /// Whether everybody who was found has said where to begin; no message of a queue is missed.
    fn has_met(&self) -> bool {
        P::PATTERN == Pattern::Queue || (self.control.wanted() == 0 && self.pending.is_empty())
    }

    fn peers(&self) -> usize {
        self.writers.iter().filter(|one| !one.is_over()).count()
    }
}

impl<P: Reading> Core for ReaderCore<P> {
    fn is_ready(&mut self) -> bool {
        self.cancelled
            || !self.reports.is_empty()
            || self.gap.is_some()
            || self.writers.iter().any(|one| one.is_over() || one.has_message())
            || self.is_over()
    }

    fn arm(&mut self, how: Sleeps) -> Option<(Place, u32)> {
        let alone = self.writers.len() == 1;
        let how = if alone { how } else { Sleeps::OnDescriptor };
        self.armed = true;
        self.sleeps += 1;
        let place = match &self.writers[..] {
            [only] => only.futex_word(P::PATTERN == Pattern::Topic),
            _ => None,
        };
        for one in &mut self.writers {
            P::before_sleep(one, &self.control);
            let how = if one.has_bell() { how } else { Sleeps::OnDescriptor };
            one.raise_bell(how, &self.control);
        }
        // One call is enough for all.
        let mut called = false;
        for one in self.writers.iter_mut().filter(|one| one.has_bell()) {
            one.sleeper.pass(|| {
                if !std::mem::replace(&mut called, true) {
                    membarrier::everywhere();
                }
            });
        }
        if self.is_ready() {
            return None;
        }
        Some(place.unwrap_or((Place::Own, 0)))
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
        news |= self.has_nobody_else();
        if news {
            // The dead make way for others, also where the caller does not come.
            self.bury();
        }
        news
    }

    fn nudge(&mut self) {
        self.control.nudge();
    }
}
