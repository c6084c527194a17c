//! The publishing end of a topic: one ring for all subscribers.

mod history;
mod large;
mod pace;

use std::time::{Duration, Instant};

use switchboard_kernel::membarrier;
use switchboard_shm::barrier::{Busy, Sleeper};
use switchboard_shm::bell::{self, FutexWord, Sleeps};
use switchboard_shm::ring::{Claim, Counters, Kind, RingWriter};

use super::control::{Control, Event, LinkId, Met};
use super::counting;
use super::endpoint::Core;
use super::ends::{Lends, Opened};
use super::geometry;
use super::hello::Pattern;
use super::lending::Lending;
use super::memory::{Bell, Own};
use super::offer::WriterOffer;
use super::park::Place;
use super::room_for_one;
use super::waking::wake_readers;
use super::writing::{Reader, WritingSide};
use crate::counters::{Counts, LinkCounts};
use crate::error::{Error, SendError};
use crate::options::Overflow;
use crate::transport::Setup;

use history::History;
use pace::Pace;

#[derive(Debug)]
pub(crate) struct PublisherCore {
    side: WritingSide,
    ring: RingWriter<Own>,
    subscribers: Vec<Reader>,
    /// How many words of the doorbell have a subscriber.
    bell_words: usize,
    history: History,
    /// The link of the subscriber that keeps the ring full.
    slowest: Option<LinkId>,
    /// No message follows.
    ended: bool,
    /// What subscribers know of this end's sleeps.
    sleeper: Sleeper,
    pace: Pace,
}

/// So long a subscriber of another user may hold its publisher up without taking anything.
const EVICTED_AFTER: Duration = Duration::from_secs(5);
const HELD_UP: &str = "it is of another user, and has taken nothing for 5 seconds while its publisher \
                       waited for it";

/// Longer messages do not wait for others.
pub(super) const LARGEST_GATHERED: usize = 1024;
/// So much waits at most, with the headers, and not more than an eighth of the ring: readers have something to do
/// while the next are written.
const MOST_GATHERED_BYTES: u64 = 4 << 10;

/// Of so many subscribers the cursors are looked at before there is a message for which that is needed.
const FEW: usize = 8;

/// The one ring of a topic stands for all links.
const OF_TOPIC: LinkId = 0;

impl PublisherCore {
    /// Messages that some subscriber has not taken, where it is waited for.
    pub(super) fn pending(&mut self) -> u64 {
        if self.ring.is_lossy() {
            return 0;
        }
        let cursor = self.look_at_cursors();
        self.ring.messages_from(cursor)
    }

    pub(super) fn published(&self) -> u64 {
        self.ring.number()
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

    /// Publishes what waits for others, and makes room for more, where messages of up to so many bytes may wait. Whether
    /// there is room for one.
    #[inline(never)]
    pub(super) fn gather(&mut self, len: usize, lending: &mut Lending) -> bool {
        self.send_off(lending);
        let is_small = len <= LARGEST_GATHERED && len as u64 <= self.ring.largest_payload();
        if !is_small || self.ring.is_lossy() || self.history.is_wanted() {
            return false;
        }
        let most = MOST_GATHERED_BYTES.min(self.ring.capacity() / 8);
        lending.gather(OF_TOPIC, &mut self.ring, most);
        lending.gathering.room(len).is_some()
    }

    /// Publishes what waits for others.
    #[inline]
    pub(super) fn send_off(&mut self, lending: &mut Lending) {
        // One that was forgotten.
        if lending.is_out() {
            self.cancel_loan(lending);
        }
        lending.revoke();
        lending.give_spare_back(&mut self.side.blocks);
        if lending.gathers() {
            self.commit_gathered(lending);
        }
    }

    #[inline(never)]
    fn commit_gathered(&mut self, lending: &mut Lending) {
        let bytes = lending.gathering.bytes();
        lending.gathered += lending.gathering.messages();
        if self.ring.commit_gathered(&mut lending.gathering) {
            self.side.counters.bytes += bytes;
            self.ring_bell();
        }
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
        if self.history.is_wanted() {
            self.history.keep(self.ring.head(), self.ring.number(), len);
        }
        self.side.counters.bytes += len;
        self.ring.commit(claim, kind, frame_bytes);
        self.ring_bell();
    }

    /// Whether the next loan may get its room before it is asked for.
    #[inline(always)]
    fn lends_ahead(&self) -> bool {
        !self.ring.is_lossy() && !self.history.is_wanted()
    }

    /// Looks who sleeps for what was committed.
    #[inline]
    fn ring_bell(&mut self) {
        let Self { side, ring, subscribers, .. } = self;
        let WritingSide { bell, control, counters, .. } = side;
        bell::after_commit(bell, self.bell_words, ring.busy(), |index, word| {
            wake(subscribers, control, counters, (index, word), bell);
        });
    }

    /// Where a subscriber that comes now begins, and the number before.
    fn begin(&mut self) -> (u64, u64) {
        let kept = self.history.begin_from(self.ring.oldest());
        kept.unwrap_or((self.ring.head(), self.ring.number()))
    }

    /// Looks how far the subscribers are. An error where that leaves no room.
    #[cold]
    fn make_room(&mut self, len: u64) -> Result<(), SendError> {
        let cursor = self.turn();
        if !self.ring.is_held_up_by(cursor, len) {
            self.slowest = None;
            return Ok(());
        }
        self.evict();
        Err(SendError::Full)
    }

    /// The same for a message like the last one, before there is one.
    #[cold]
    fn make_room_ahead(&mut self, len: u64) {
        self.turn();
        // Nobody waits for anyone.
        self.slowest = None;
        self.ring.clear_ahead(len);
    }

    fn turn(&mut self) -> u64 {
        let cursor = self.look_at_cursors();
        self.ring.set_smallest_cursor(cursor);
        self.pace.turn(cursor, &mut self.ring);
        if self.sleeper.step() {
            self.ring.set_wanted(0);
        }
        cursor
    }

    /// The subscriber that keeps the ring full.
    pub(super) fn slow_peer(&self) -> Option<String> {
        self.slowest.map(|link| self.side.control.peer_name(link))
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
        self.side.control.turn_away(link, why);
        self.forget(link);
    }

    fn sleeps(&mut self, link: LinkId, position: u64) {
        let Self { side, ring, subscribers, .. } = self;
        let WritingSide { bell, control, counters, .. } = side;
        if let Some(one) = subscribers.iter_mut().find(|one| one.link == link) {
            one.sleeps((position, ring.head()), bell, control, counters);
        }
    }

    /// Turns a subscriber of another user away that takes nothing while this end waits for it.
    fn evict(&mut self) {
        let slowest = self.subscribers.iter_mut().find(|one| Some(one.link) == self.slowest);
        let Some(one) = slowest.filter(|one| one.is_other) else { return };
        let (now, seen) = (Instant::now(), one.cursor.seen());
        match one.holds_up {
            Some((since, at)) if at == seen => {
                if now.duration_since(since) < EVICTED_AFTER {
                    return;
                }
                let link = one.link;
                self.side.control.evict(link, HELD_UP);
                self.forget(link);
            }
            _ => one.holds_up = Some((now, seen)),
        }
    }

    fn forget(&mut self, link: LinkId) {
        self.subscribers.retain(|subscriber| subscriber.link != link);
        self.bell_words = self.words_of_bell();
    }

    fn words_of_bell(&self) -> usize {
        self.subscribers.iter().map(|subscriber| subscriber.slot / 8 + 1).max().unwrap_or(0)
    }

    fn join(&mut self, met: Met<()>) {
        let Some(guest) = self.side.admit(met, self.subscribers.iter()) else { return };
        let begin = self.begin();
        let Some(subscriber) = self.side.welcome(guest, begin, None) else { return };
        room_for_one(&mut self.subscribers);
        self.subscribers.push(subscriber);
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
        // Who only sends, and never waits, is told now.
        self.side.take_denial()?;
        let claim = match self.claim(0) {
            Ok(claim) => claim,
            Err(SendError::Full) => return Ok(false),
            Err(error) => return Err(error),
        };
        self.ring.commit(claim, Kind::End, 0);
        self.ring_bell();
        self.count();
        self.ended = true;
        Ok(true)
    }

    /// What this end has counted.
    fn counts(&mut self) -> Counts {
        let head = self.ring.head();
        let number = self.ring.number();
        let lossy = self.ring.is_lossy();
        let links = self.subscribers.iter().map(|one| LinkCounts {
            number,
            // Who lies is dealt with when its cursor counts for something. Where the oldest is dropped a
            // reader's cursor means nothing.
            behind_bytes: (!lossy).then(|| head - one.cursor.peek(head).unwrap_or(head)),
            ..counting::link(&self.side.control, one.link)
        });
        Counts {
            sent: Some(self.ring.number() - u64::from(self.ended)),
            links: links.collect(),
            ..self.side.counts()
        }
    }

    /// Stores the counters.
    fn count(&mut self) {
        self.side.counters.messages = self.ring.number();
        self.ring.count(&self.side.counters);
    }

    /// What went wrong on the control path, and whether the caller wants to be interrupted.
    pub(super) fn check(&mut self) -> Result<(), SendError> {
        self.side.check()
    }
}

/// Wakes those of eight readers that sleep.
#[cold]
fn wake(
    subscribers: &mut [Reader],
    control: &Control<WriterOffer>,
    counters: &mut Counters,
    (index, word): (usize, u64),
    bell: &Bell,
) {
    let mut on_futex = false;
    for one in subscribers.iter_mut().filter(|one| one.slot / 8 == index) {
        let Some(raised) = bell::in_word(word, one.slot) else { continue };
        on_futex |= one.wake(raised, control, counters);
    }
    if on_futex {
        // Who is behind has something to read, and is awake.
        wake_readers(bell, FutexWord::SHARED);
    }
}

impl Lends for PublisherCore {
    #[inline(always)]
    fn lend_plain(&mut self, len: usize, lending: &mut Lending) -> bool {
        if len as u64 > self.ring.largest_payload() {
            return self.lend_block(len, lending);
        }
        let Some(claim) = self.ring.claim(len as u64) else { return false };
        let word = self.ring.payload_index(&claim);
        lending.in_ring((OF_TOPIC, self.ring.memory()), claim, word);
        true
    }

    fn lend(&mut self, len: usize, lending: &mut Lending) -> Result<(), SendError> {
        self.send_off(lending);
        if len as u64 > self.ring.largest_payload() {
            return self.lend_large(len, lending);
        }
        let claim = self.claim(len as u64)?;
        let word = self.ring.payload_index(&claim);
        lending.in_ring((OF_TOPIC, self.ring.memory()), claim, word);
        Ok(())
    }

    #[inline(always)]
    fn commit_plain(&mut self, len: usize, lending: &mut Lending) -> bool {
        if let Some((granted, room)) = lending.take_granted() {
            let len = len.min(room) as u64;
            self.ring.commit_granted(granted, Kind::Message, (len, room as u64));
            self.side.counters.bytes += len;
            self.ring_bell();
        } else {
            let Some(claim) = lending.take_plain() else {
                return self.commit_lent_block(len, lending);
            };
            let len = len.min(lending.len) as u64;
            self.commit(claim, Kind::Message, len, len);
        }
        if self.ring.lacks_room_ahead() && self.subscribers.len() <= FEW {
            self.make_room_ahead(len.min(lending.len) as u64);
        }
        if self.lends_ahead() {
            lending.grant(self.ring.grant());
        }
        true
    }

    fn commit_loan(&mut self, len: usize, lending: &mut Lending) {
        // There is nothing more particular about a loan than that.
        self.commit_plain(len, lending);
    }

    fn cancel_loan(&mut self, lending: &mut Lending) {
        if let Some(claim) = lending.take() {
            self.ring.give_up(&claim);
        }
        if let Some(block) = lending.block.take() {
            self.side.blocks.give_back(block);
        }
    }
}

impl Opened for PublisherCore {
    type Offer = WriterOffer;
    type Outside = Lending;

    const NEEDS_PEER: bool = false;

    fn open(setup: Setup) -> Result<Self, Error> {
        let lossy = setup.options.overflow == Overflow::DropOldest;
        let mut ring = geometry::ring(&setup, geometry::TOPIC, lossy)?;
        // Until it is known that subscribers are behind.
        ring.set_to_line(!lossy);
        let fd = ring.memory().0.take_read_only_fd();
        let fd = fd.map_err(|error| setup.system("cannot give memory away", error))?;
        let history = History::new(setup.options.history_messages);
        Ok(Self {
            side: WritingSide::open(setup, Pattern::Topic, Some(fd))?,
            ring,
            subscribers: Vec::new(),
            bell_words: 0,
            history,
            slowest: None,
            ended: false,
            // Whoever of them fences by itself does no harm.
            sleeper: Sleeper::new(Busy::TakesPart),
            pace: Pace::default(),
        })
    }

    fn control_path(&self) -> &Control<WriterOffer> {
        &self.side.control
    }

    /// Whether everybody who was found has joined.
    fn has_met(&self) -> bool {
        self.side.control.wanted() == 0
    }

    fn peers(&self) -> usize {
        self.subscribers.len()
    }
}

impl Core for PublisherCore {
    fn is_ready(&mut self) -> bool {
        if self.side.has_news() {
            return true;
        }
        let Some(slowest) = self.slowest else { return false };
        let head = self.ring.head();
        let subscriber = self.subscribers.iter().find(|one| one.link == slowest);
        subscriber.is_none_or(|one| one.has_moved(head))
    }

    fn arm(&mut self, how: Sleeps) -> Option<(Place, u32)> {
        self.side.counters.sleeps += 1;
        self.count();
        let slowest = self.slowest;
        let slowest = self.subscribers.iter().find(|one| Some(one.link) == slowest);
        let place = slowest.map_or((Place::Own, 0), Reader::place);
        self.ring.set_wanted(how.number());
        self.sleeper.pass(membarrier::everywhere);
        if self.is_ready() {
            return None;
        }
        Some(place)
    }

    fn disarm(&mut self, late: bool) {
        self.side.counters.late += u64::from(late);
        self.ring.set_wanted(self.sleeper.awake());
    }

    fn control(&mut self) -> bool {
        let mut news = false;
        for event in self.side.control.turn() {
            news |= event.is_news();
            match event {
                Event::Met(met) => self.join(met),
                Event::Gone(link) => {
                    self.forget(link);
                    self.side.control.part(link);
                }
                Event::Broke(link, problem) => self.turn_away(link, &problem),
                Event::Asked(socket) => counting::answer(&socket, &self.counts()),
                Event::Sleeps(link, position) => self.sleeps(link, position),
                // It has others.
                Event::Denied { .. } if !self.subscribers.is_empty() => {}
                other => self.side.note(other),
            }
        }
        news
    }

    fn nudge(&mut self) {
        self.side.control.nudge();
    }
}
