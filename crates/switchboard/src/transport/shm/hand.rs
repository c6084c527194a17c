//! What the caller of a reading end has in hand: messages, copied or where they lie.
//!
//! A message is taken inside of the core, and looked at outside: whatever the caller does with it, the process's
//! I/O thread is not kept out meanwhile.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use switchboard_kernel::shared_memory::{self, PeerMemory};
use switchboard_shm::ring::{Ahead, Frame, Lane, Next, RingReader};
use switchboard_shm::{Misbehaved, Words};

use super::control::LinkId;
use super::memory::Theirs;
use crate::transport::{Raw, Receipt};

/// How messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Copied,
    /// Copied out of the ring, whose room is needed for others; in a block where they lie, if they can be left there: until the
    /// next one is taken, or they are given back.
    LentInBlocks,
    /// Where they lie, if they can be left there: until the next one is taken.
    Lent,
}

impl Manner {
    /// Whether the caller needs the room no more as soon as the message was taken.
    #[inline]
    pub(super) fn copies(self, is_in_block: bool) -> bool {
        match self {
            Self::Copied => true,
            Self::LentInBlocks => !is_in_block,
            Self::Lent => false,
        }
    }
}

/// What is known of a message that was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) receipt: Receipt,
    pub(super) deliveries: u16,
    pub(super) priority: u16,
    pub(super) lost_before: u64,
    pub(super) place: Place,
}

impl Found {
    /// Of a message about which there is nothing more to say.
    #[inline]
    pub(super) fn set_plain(&mut self, link: LinkId, number: u64) {
        self.receipt = Receipt { connection: link, sequence: number };
        (self.deliveries, self.priority, self.lost_before) = (0, 0, 0);
    }
}

/// Where its bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Copied, so many bytes.
    Copied(usize),
    /// In the ring.
    Ring,
    /// In a segment.
    Segment,
}

impl Default for Place {
    fn default() -> Self {
        Self::Copied(0)
    }
}

/// The last message that was taken, and its memory: for as long as the caller may look, whatever becomes of the
/// link.
///
/// The message is written here part by part, and not returned: to move it around would cost more than all else.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    pub(super) found: Found,
    /// Where the next messages come, if that is known.
    open: Option<Open>,
    patience: Patience,
    /// How many were taken there: for who asks the core.
    taken: Arc<AtomicU64>,
    copied: Vec<u8>,
    ring: Option<(LinkId, shared_memory::Place<PeerMemory>)>,
    /// Messages in that ring, from the one after this number on, that the caller looks at one by one.
    ahead: Vec<Ahead>,
    before_ahead: u64,
    segment: Option<(LinkId, u32, shared_memory::Place<PeerMemory>)>,
    /// A message was left in its block, where `take_large` found it.
    was_in_block: bool,
}

/// So many messages are looked at before their room is given back.
const MOST_AHEAD: usize = 64;

/// Where the next messages of a reader's only writer come, in the ring that is in hand.
#[derive(Debug)]
struct Open {
    lane: Lane,
    /// When this was opened nothing was there, and all that was read was given back.
    is_quiet: bool,
    /// So often calls still look again before they say that nothing came.
    looks: u32,
    /// There is nothing else to be looked at, as far as the control path knew at this count.
    news: u32,
}

/// What there is for who looks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A message, which was taken.
    Message,
    /// Nothing.
    Nothing,
    /// Nothing, and what was read is to be given back.
    Rest,
    /// What only the core knows.
    Other,
}

/// So often at most it is looked for the next message after one, before the caller is told that there is none.
const MOST_LOOKS: u32 = 16;
/// Where that was in vain, it is tried again after so many messages.
const TRIES_AGAIN: u32 = 64;

/// How often it is looked for the next message: less where that was in vain, and then not at all.
#[derive(Debug)]
struct Patience {
    looks: u32,
    messages: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { looks: MOST_LOOKS, messages: 0 }
    }
}

impl Patience {
    /// How often this time.
    #[inline(always)]
    fn looks(&mut self) -> u32 {
        if self.looks > 0 { self.looks } else { self.looks_again() }
    }

    #[inline(never)]
    fn looks_again(&mut self) -> u32 {
        self.messages = (self.messages + 1) % TRIES_AGAIN;
        if self.messages == 0 { MOST_LOOKS } else { 0 }
    }

    /// What was looked for came.
    #[inline(always)]
    fn was_right(&mut self) {
        self.looks = MOST_LOOKS;
    }

    #[inline]
    fn was_in_vain(&mut self) {
        self.looks /= 2;
    }
}

/// Whoever looks again at once has its next looks under way when the line is taken from it to be written: they are all
/// thrown away then, and that takes longer than this.
#[inline]
fn pause() {
    std::hint::spin_loop();
}

impl Open {
    #[inline(always)]
    fn is_quiet(&self) -> bool {
        self.is_quiet && self.lane.taken() == 0
    }
}

impl Hand {
    /// Takes the next message where it lies, if it is a plain one, and nothing else is to be looked at first.
    #[inline(always)]
    pub(super) fn next(&mut self, news: u32) -> Seen {
        let Self { open: Some(open), ring: Some((link, ring)), .. } = self else {
            return Seen::Other;
        };
        if open.news != news {
            return Seen::Other;
        }
        let words = ring.memory().words();
        let mut looked = false;
        loop {
            match open.lane.take(words) {
                Next::Message(word, len) => {
                    if looked {
                        self.patience.was_right();
                    }
                    open.looks = self.patience.looks();
                    self.taken.store(open.lane.taken(), Relaxed);
                    ring.show(word, len);
                    self.found.place = Place::Ring;
                    self.found.set_plain(*link, open.lane.number());
                    return Seen::Message;
                }
                Next::Other => return self.next_block().map_or(Seen::Other, |()| Seen::Message),
                Next::Nothing => {
                    // What was read is given back before that is all there is to say.
                    if open.looks == 0 && !open.is_quiet() {
                        return Seen::Rest;
                    }
                    pause();
                    if open.looks == 0 {
                        return Seen::Nothing;
                    }
                    open.looks -= 1;
                    looked = true;
                    if open.looks == 0 {
                        self.patience.was_in_vain();
                    }
                }
            }
        }
    }

    /// Takes the next message where it lies, if it is in a block of the segment that is in hand.
    #[inline(never)]
    fn next_block(&mut self) -> Option<()> {
        let Self { open: Some(open), ring: Some((link, ring)), .. } = self else { return None };
        let (place, end) = open.lane.next_in_arena(ring.memory().words())?;
        let (held, index, segment) = self.segment.as_mut()?;
        let is_held = (*held, *index) == (*link, place.segment);
        if !is_held || !segment.show(place.offset as usize / 8, place.len as usize) {
            return None;
        }
        open.lane.pass_in_arena(end);
        // What follows is the core's, which gives the block back.
        open.looks = 0;
        self.taken.store(open.lane.taken(), Relaxed);
        self.found.place = Place::Segment;
        self.found.set_plain(*link, open.lane.number());
        Some(())
    }

    /// Whether nothing came since nothing was found.
    #[inline(always)]
    pub(super) fn is_empty(&self, news: u32) -> bool {
        let (Some(open), Some((_, ring))) = (&self.open, &self.ring) else { return false };
        let is_empty =
            open.news == news && open.is_quiet() && open.lane.is_empty(ring.memory().words());
        if is_empty {
            pause();
        }
        is_empty
    }

    /// Nothing was found in the only ring there is; what comes there next comes here. `news`: the count from before that was
    /// looked at.
    #[inline]
    pub(super) fn found_nothing(
        &mut self,
        link: LinkId,
        ring: &RingReader<Theirs>,
        lane: Lane,
        news: u32,
    ) {
        self.hold(link, ring);
        self.open = Some(Open { lane, is_quiet: true, looks: 0, news });
    }

    /// The messages behind the one that was lent last, from the only ring there is, come here.
    #[inline]
    pub(super) fn open(&mut self, lane: Lane, news: u32) {
        let looks = self.patience.looks();
        self.open = Some(Open { lane, is_quiet: false, looks, news });
    }

    /// An empty one. `taken`: where it says how many messages were taken of which the core does not know.
    pub(super) fn counting(taken: Arc<AtomicU64>) -> Self {
        Self { taken, ..Self::default() }
    }

    /// Where the next messages come is known no more. What was taken there, and over which link.
    #[inline(always)]
    pub(super) fn close(&mut self) -> Option<(LinkId, Lane)> {
        Some((self.ring.as_ref()?.0, self.open.take()?.lane))
    }

    /// The message.
    #[inline]
    pub(super) fn raw(&self) -> Raw<'_> {
        let Found { receipt, deliveries, priority, lost_before, .. } = self.found;
        Raw {
            payload: self.bytes(),
            receipt,
            redelivered: deliveries > 0,
            deliveries,
            lost_before,
            priority: u32::from(priority),
            published_ns: 0,
        }
    }

    /// Whether a message was left in its block since this was asked last.
    #[inline]
    pub(super) fn was_in_block(&mut self) -> bool {
        std::mem::take(&mut self.was_in_block)
    }

    /// Its bytes.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        let found = match self.found.place {
            Place::Copied(len) => self.copied.get(..len),
            Place::Ring => self.ring.as_ref().map(|(_, ring)| ring.bytes()),
            Place::Segment => self.segment.as_ref().map(|(_, _, segment)| segment.bytes()),
        };
        // Each place was within its memory when it was taken, and the memory does not shrink.
        found.unwrap_or_default()
    }

    /// Room for a copy.
    #[inline(always)]
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.copied.len() < len {
            self.grow(len);
        }
        &mut self.copied[..len]
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        self.copied.resize(len.next_power_of_two(), 0);
    }

    /// For what appends to it; only the last message is in it.
    pub(super) fn cleared(&mut self) -> &mut Vec<u8> {
        self.copied.clear();
        &mut self.copied
    }

    /// Takes a copy that was made before.
    pub(super) fn keep(&mut self, copied: Vec<u8>) {
        self.copied = copied;
        self.found.place = Place::Copied(self.copied.len());
    }

    /// Takes what is behind the first bytes of a frame's payload.
    #[inline]
    pub(super) fn take(
        &mut self,
        manner: Manner,
        link: LinkId,
        ring: &RingReader<Theirs>,
        frame: &Frame,
        begin: usize,
    ) {
        let len = frame.payload_bytes as usize - begin;
        self.take_at(manner, link, ring, (ring.payload_index(frame) + begin / 8, len));
    }

    /// Takes so many bytes from a word of a ring on: it has them.
    #[inline(always)]
    pub(super) fn take_at(
        &mut self,
        manner: Manner,
        link: LinkId,
        ring: &RingReader<Theirs>,
        (word, len): (usize, usize),
    ) {
        self.found.place = if manner.copies(false) {
            let words = &ring.memory().words()[word..];
            switchboard_shm::copy_out(words, self.room(len));
            Place::Copied(len)
        } else {
            self.hold(link, ring);
            if let Some((_, ring)) = &mut self.ring {
                ring.show(word, len);
            }
            Place::Ring
        };
    }

    #[inline(always)]
    fn hold(&mut self, link: LinkId, ring: &RingReader<Theirs>) {
        if self.ring.as_ref().is_none_or(|(held, _)| *held != link) {
            self.hold_another(link, ring);
        }
    }

    #[cold]
    fn hold_another(&mut self, link: LinkId, ring: &RingReader<Theirs>) {
        self.ring = Some((link, shared_memory::Place::nothing_of(ring.memory().0.clone())));
    }

    /// Where to note up to so many messages that the caller looks at one by one.
    #[inline(always)]
    pub(super) fn ahead(&mut self, most: usize) -> &mut [Ahead] {
        if self.ahead.is_empty() {
            self.ahead.resize(MOST_AHEAD, Ahead::default());
        }
        &mut self.ahead[..most.min(MOST_AHEAD)]
    }

    /// They were noted, and are those of this ring that come next.
    #[inline(always)]
    pub(super) fn looks_at(&mut self, link: LinkId, ring: &RingReader<Theirs>) {
        self.hold(link, ring);
        self.before_ahead = ring.number();
    }

    /// Copies one of them.
    #[inline(always)]
    pub(super) fn copy_ahead(&mut self, at: usize) -> Raw<'_> {
        let Ahead { word, len, .. } = self.ahead[at];
        self.room(len);
        if let Some((link, ring)) = &self.ring {
            switchboard_shm::copy_out(&ring.memory().words()[word..], &mut self.copied[..len]);
            self.found.set_plain(*link, self.before_ahead + 1 + at as u64);
        }
        self.found.place = Place::Copied(len);
        self.raw()
    }

    /// The last of so many of them, and the link they came over.
    #[inline(always)]
    pub(super) fn seen_ahead(&self, count: usize) -> Option<(LinkId, &Ahead)> {
        let (link, _) = self.ring.as_ref()?;
        Some((*link, self.ahead.get(count.checked_sub(1)?)?))
    }

    /// Takes a message in a segment.
    pub(super) fn take_large(
        &mut self,
        manner: Manner,
        link: LinkId,
        (index, segment): (u32, &Theirs),
        place: &switchboard_shm::arena::Place,
    ) -> Result<(), Misbehaved> {
        let words = place.words(segment)?;
        let len = place.len as usize;
        self.found.place = if manner.copies(true) {
            switchboard_shm::copy_out(words, self.room(len));
            Place::Copied(len)
        } else {
            let held = self.segment.take_if(|held| (held.0, held.1) == (link, index));
            let segment = || shared_memory::Place::nothing_of(segment.0.clone());
            let (_, _, shown) =
                self.segment.insert(held.unwrap_or_else(|| (link, index, segment())));
            shown.show(place.offset as usize / 8, len);
            self.was_in_block = true;
            Place::Segment
        };
        Ok(())
    }
}
