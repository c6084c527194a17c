//! What the caller of a reading end has in hand: messages, copied or where they lie.
//!
//! A message is taken inside of the core, and looked at outside: whatever the caller does with it, the process's
//! I/O thread is not kept out meanwhile.

use std::sync::atomic::Ordering::Relaxed;

use switchboard_shm::ring::{Ahead, Frame, RingReader};
use switchboard_shm::{Misbehaved, Words};

use super::control::LinkId;
use super::memory::Theirs;
use crate::transport::{Raw, Receipt};

/// How messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Copied,
    /// Where they lie, if they can be left there: until the next one is taken.
    Lent,
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
    /// From a word of the ring on.
    Ring { word: usize, len: usize },
    /// From a word of a segment on.
    Segment { word: usize, len: usize },
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
    /// Nothing is where the next message will be, as far as is known.
    is_empty: bool,
    /// Where that is: the word is 0 until there is something.
    empty: Option<Empty>,
    copied: Vec<u8>,
    ring: Option<(LinkId, Theirs)>,
    /// Messages in that ring, from the one after this number on, that the caller looks at one by one.
    ahead: Vec<Ahead>,
    before_ahead: u64,
    segment: Option<(LinkId, u32, Theirs)>,
}

/// So many messages are looked at before their room is given back.
const MOST_AHEAD: usize = 64;

/// Of a reader's only writer.
#[derive(Debug)]
struct Empty {
    link: LinkId,
    ring: Theirs,
    word: usize,
    /// Nothing is there, as far as the control path knew at this count.
    news: u32,
}

impl Hand {
    /// Whether nothing came since nothing was found. Costs two loads.
    #[inline]
    pub(super) fn is_empty(&self, news: u32) -> bool {
        self.is_empty
            && self.empty.as_ref().is_some_and(|empty| {
                let word = empty.ring.words().get(empty.word);
                // Whoever finds something reads it again, and acquires.
                empty.news == news && word.is_some_and(|word| word.load(Relaxed) == 0)
            })
    }

    /// Nothing was found in the only ring there is. `news`: the count from before that was looked at.
    #[inline]
    pub(super) fn found_nothing(&mut self, link: LinkId, ring: &RingReader<Theirs>, news: u32) {
        let word = ring.polled_index();
        self.is_empty = true;
        match &mut self.empty {
            Some(empty) if empty.link == link => (empty.word, empty.news) = (word, news),
            empty => {
                let ring = ring.memory().clone();
                *empty = Some(Empty { link, ring, word, news });
            }
        }
    }

    /// Something else is to be looked at.
    #[inline]
    pub(super) fn found_something(&mut self) {
        self.is_empty = false;
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

    /// Its bytes.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        let found = match self.found.place {
            Place::Copied(len) => self.copied.get(..len),
            Place::Ring { word, len } => {
                self.ring.as_ref().and_then(|(_, ring)| ring.0.bytes(word, len))
            }
            Place::Segment { word, len } => {
                self.segment.as_ref().and_then(|(_, _, segment)| segment.0.bytes(word, len))
            }
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
        self.found.place = match manner {
            Manner::Copied => {
                let words = &ring.memory().words()[word..];
                switchboard_shm::copy_out(words, self.room(len));
                Place::Copied(len)
            }
            Manner::Lent => {
                self.hold(link, ring);
                Place::Ring { word, len }
            }
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
        self.ring = Some((link, ring.memory().clone()));
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
            switchboard_shm::copy_out(&ring.words()[word..], &mut self.copied[..len]);
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
        self.found.place = match manner {
            Manner::Copied => {
                switchboard_shm::copy_out(words, self.room(len));
                Place::Copied(len)
            }
            Manner::Lent => {
                let held = self.segment.as_ref().map(|(link, index, _)| (*link, *index));
                if held != Some((link, index)) {
                    self.segment = Some((link, index, segment.clone()));
                }
                Place::Segment { word: place.offset as usize / 8, len }
            }
        };
        Ok(())
    }
}
