//! The writing end of an event or a state: one feed for all readers. The end never waits for any of them.
//!
//! What differs, what an entry is, is in `notifier.rs` and `state_writer.rs`.

use std::fmt;

use switchboard_kernel::shared_memory::OwnMemory;
use switchboard_shm::bell::{self, Sleeps};
use switchboard_shm::feed::FeedWriter;
use switchboard_shm::layout::feed as layout;

use super::control::{Control, Event, LinkId, Met};
use super::counting;
use super::endpoint::Core;
use super::ends::Opened;
use super::geometry;
use super::hello::Pattern;
use super::meeting::{OF_ONE_USER, check_of_one_user};
use super::memory::{Own, wake_all};
use super::offer::WriterOffer;
use super::park::Place;
use super::writing::{Reader, WritingSide};
use crate::counters::{Counts, LinkCounts};
use crate::error::{Error, SendError};
use crate::transport::Setup;

/// What the entries are, and what is given to a reader that comes.
pub(crate) trait Feeding: fmt::Debug + Send + Sized + 'static {
    const PATTERN: Pattern;
    /// Whether it is of no use without a reader.
    const NEEDS_PEER: bool;

    fn open(setup: &Setup) -> Result<Self, Error>;

    /// What a reader is given with its welcome; `None`: there is no memory for it.
    fn gift(&mut self, feed: &FeedWriter<Own>, first: bool) -> Result<Option<Own>, Error>;

    /// Segments that readers need, in their order.
    fn segments(&self) -> Vec<&Own> {
        Vec::new()
    }

    /// The last reader has gone.
    fn left_alone(&mut self, _feed: &FeedWriter<Own>) {}
}

#[derive(Debug)]
pub(crate) struct FeedCore<F> {
    pub(super) side: WritingSide,
    pub(super) feed: FeedWriter<Own>,
    readers: Vec<Reader>,
    /// How many words of the doorbell have a reader.
    bell_words: usize,
    pub(super) kept: F,
}

impl<F: Feeding> FeedCore<F> {
    /// Changes an entry, and wakes who sleeps for it.
    #[inline]
    pub(super) fn change(&mut self, at: u64, value: u64, len: u64) {
        self.feed.change(at, value);
        self.side.counters.messages += 1;
        self.side.counters.bytes += len;
        let Self { side, feed, readers, .. } = self;
        let WritingSide { bell, control, counters, .. } = side;
        bell::after_commit(bell, self.bell_words, feed.busy(), |index, word| {
            wake(readers, control, counters, (index, word), feed);
        });
    }

    /// Gives a segment that was added just now to all readers.
    pub(super) fn give_segment(&self, index: u32, memory: &Own) {
        for reader in &self.readers {
            self.side.control.give_segment(reader.link, index, memory);
        }
    }

    pub(super) fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// What went wrong on the control path.
    pub(super) fn check(&mut self) -> Result<(), SendError> {
        self.side.check()
    }

    fn join(&mut self, met: Met<()>) {
        if met.is_other {
            return self.side.control.turn_away(met.link, OF_ONE_USER);
        }
        let Some(guest) = self.side.admit(met, self.readers.iter()) else { return };
        let gift = match self.kept.gift(&self.feed, self.readers.is_empty()) {
            Ok(gift) => gift,
            Err(error) => return self.side.put_off(guest.link, error),
        };
        // First what values lie in: once it is welcome it looks for those.
        for (index, memory) in self.kept.segments().into_iter().enumerate() {
            // One that takes none hangs up, and that shows.
            self.side.control.give_segment(guest.link, index as u32, memory);
        }
        let Some(reader) = self.side.welcome(guest, (0, 0), gift.as_ref()) else { return };
        self.readers.push(reader);
        self.bell_words = self.words_of_bell();
    }

    fn forget(&mut self, link: LinkId) {
        let before = self.readers.len();
        self.readers.retain(|reader| reader.link != link);
        self.bell_words = self.words_of_bell();
        if before > 0 && self.readers.is_empty() {
            self.kept.left_alone(&self.feed);
        }
    }

    fn words_of_bell(&self) -> usize {
        self.readers.iter().map(|reader| reader.slot / 8 + 1).max().unwrap_or(0)
    }

    fn counts(&self) -> Counts {
        let number = self.feed.changes();
        let links = self
            .readers
            .iter()
            .map(|one| LinkCounts { number, ..counting::link(&self.side.control, one.link) });
        Counts { links: links.collect(), ..self.side.counts() }
    }
}

/// Wakes those of eight readers that sleep.
#[cold]
fn wake(
    readers: &mut [Reader],
    control: &Control<WriterOffer>,
    counters: &mut switchboard_shm::ring::Counters,
    (index, word): (usize, u64),
    feed: &FeedWriter<Own>,
) {
    let mut on_futex = false;
    for one in readers.iter_mut().filter(|one| one.slot / 8 == index) {
        let Some(raised) = bell::in_word(word, one.slot) else { continue };
        on_futex |= one.wake(raised, control, counters);
    }
    if on_futex {
        // An error is no reason not to go on: readers look by themselves in the end.
        let _ = wake_all(feed.changes_word());
    }
}

impl<F: Feeding> Opened for FeedCore<F> {
    type Offer = WriterOffer;
    type Outside = ();

    const NEEDS_PEER: bool = F::NEEDS_PEER;

    fn open(setup: Setup) -> Result<Self, Error> {
        check_of_one_user(&setup.address)?;
        let feed = geometry::feed(&setup, F::PATTERN as u32)?;
        let fd = feed.memory().0.take_read_only_fd();
        let fd = fd.map_err(|error| setup.system("cannot give memory away", error))?;
        let kept = F::open(&setup)?;
        let side = WritingSide::open(setup, F::PATTERN, Some(fd))?;
        Ok(Self { side, feed, readers: Vec::new(), bell_words: 0, kept })
    }

    fn control_path(&self) -> &Control<WriterOffer> {
        &self.side.control
    }

    /// Whether everybody who was found has joined.
    fn has_met(&self) -> bool {
        self.side.control.wanted() == 0
    }

    fn peers(&self) -> usize {
        self.readers.len()
    }
}

impl<F: Feeding> Core for FeedCore<F> {
    fn is_ready(&mut self) -> bool {
        self.side.has_news()
    }

    fn arm(&mut self, _: Sleeps) -> Option<(Place, u32)> {
        self.side.counters.sleeps += 1;
        let counters = &self.side.counters;
        self.feed.count_up([counters.messages, counters.bytes, counters.wakes]);
        // It waits for nothing in memory: the control path alone brings something.
        if self.is_ready() { None } else { Some((Place::Own, 0)) }
    }

    fn disarm(&mut self, late: bool) {
        self.side.counters.late += u64::from(late);
    }

    fn control(&mut self) -> bool {
        let mut news = false;
        for event in self.side.control.turn() {
            news |= event.is_news();
            match event {
                Event::Asked(socket) => counting::answer(&socket, &self.counts()),
                Event::Met(met) => self.join(met),
                Event::Gone(link) => {
                    self.forget(link);
                    self.side.control.part(link);
                }
                Event::Broke(link, problem) => {
                    self.side.control.turn_away(link, &problem);
                    self.forget(link);
                }
                Event::KeptOut { came: false, peer, problem } if self.readers.is_empty() => {
                    self.side.keeps_out(&peer, &problem);
                }
                other => self.side.note(other),
            }
        }
        news
    }

    fn nudge(&mut self) {
        self.side.control.nudge();
    }
}

/// Memory that is given to one reader, of so many words at least.
pub(super) fn gift_of(setup: &Setup, words: usize) -> Result<OwnMemory, Error> {
    let bytes = (words * 8).next_multiple_of(switchboard_shm::layout::PAGE_BYTES);
    OwnMemory::create("switchboard-counts", bytes)
        .map_err(|error| setup.system("no memory for a reader", error))
}

/// Bytes of what a notifier gives with its welcome.
pub(super) const GIFT_BYTES: std::ops::RangeInclusive<usize> =
    switchboard_shm::layout::PAGE_BYTES..=(*layout::CAPACITY.end() as usize + 512) * 8;
