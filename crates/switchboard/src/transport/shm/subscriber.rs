//! The subscribing end of a topic: a ring of each publisher.

use switchboard_shm::ring::{Ahead, Kind, Lane, RingReader};
use switchboard_shm::{Misbehaved, copy_out};

use super::control::Control;
use super::hand::{Hand, Manner, Place};
use super::hello::Pattern;
use super::large::Large;
use super::memory::Theirs;
use super::offer::ReaderOffer;
use super::reading::{IN_A_ROW, ReaderCore, Reading, Taken, Writer};
use crate::transport::Receipt;

pub(crate) type SubscriberCore = ReaderCore<Subscription>;

/// A publisher, as its subscriber knows it.
type Publisher = Writer<Subscription>;

/// What a subscriber keeps of each publisher.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    /// Messages that are missing before the next one.
    missing: u64,
    /// The next one, when what is missing before it was told.
    held: Option<(Vec<u8>, u64)>,
    /// The last message lies in a block, which is its publisher's again once this one is done with it: blocks are
    /// few, and large. So its room is given back before the next one, not with the eighth of the ring.
    has_block: bool,
    /// Where it was when it had last gone a step without sleeping.
    stepped: u64,
    /// Nothing is missing or held, and nothing is overwritten.
    is_plain: bool,
}

impl Reading for Subscription {
    const PATTERN: Pattern = Pattern::Topic;
    const LOOKS_AHEAD: bool = true;

    fn begin(_: &RingReader<Theirs>, _: u64) -> Result<Self, Misbehaved> {
        Ok(Self::default())
    }

    #[inline]
    fn take(
        one: &mut Publisher,
        control: &Control<ReaderOffer>,
        manner: Manner,
        hand: &mut Hand,
    ) -> Result<Taken, Misbehaved> {
        if let Some((payload, number)) = one.kept.held.take() {
            hand.keep(payload);
            hand_out(one, number, hand);
            return Ok(Taken::Message);
        }
        one.left_off = false;
        if one.ring.is_lossy() {
            return take_lossy(one, control, hand);
        }
        let taken = take_next(one, control, one.manner(manner), hand);
        one.kept.is_plain = one.kept.missing == 0 && one.kept.held.is_none();
        taken
    }

    #[inline(always)]
    fn take_plain(
        one: &mut Publisher,
        control: &Control<ReaderOffer>,
        manner: Manner,
        hand: &mut Hand,
    ) -> bool {
        if !one.kept.is_plain {
            return false;
        }
        // What was lent is the caller's until now.
        give_back(one, control);
        let Some((word, len)) = one.ring.next_message(one.largest_plain) else {
            return take_block(one, control, manner, hand);
        };
        hand.take_at(manner, one.link, &one.ring, (word, len));
        if manner.copies(false) {
            store_after_step(one, control);
        }
        one.counters.received += 1;
        hand.found.set_plain(one.link, one.ring.number());
        true
    }

    #[inline(always)]
    fn lane(one: &Publisher) -> Option<Lane> {
        // The first one is taken by the core, which is to know whether there ever was one; so is what follows a block,
        // whose room is given back at once.
        let is_plain = one.kept.is_plain && !one.kept.has_block && one.counters.received > 0;
        let lane = || one.ring.lane(one.largest_plain).with_arena(one.largest as u64);
        (is_plain && one.largest_plain > 0).then(lane)
    }

    fn has_taken_block(&mut self) {
        self.has_block = true;
    }

    #[inline]
    fn is_done_with_block(one: &mut Publisher, control: &Control<ReaderOffer>) {
        if one.kept.has_block {
            give_back(one, control);
        }
    }

    #[inline(always)]
    fn look_ahead(one: &Publisher, places: &mut [Ahead]) -> usize {
        if one.kept.is_plain { one.ring.look_ahead(one.largest_plain, places) } else { 0 }
    }

    #[inline(always)]
    fn pass_ahead(
        one: &mut Publisher,
        control: &Control<ReaderOffer>,
        (count, last): (usize, &Ahead),
    ) {
        one.ring.pass_ahead(count, last);
        one.counters.received += count as u64;
        give_back(one, control);
    }

    fn holds(&self) -> bool {
        self.held.is_some()
    }

    fn missing(&self) -> u64 {
        self.missing
    }

    fn before_sleep(one: &mut Publisher, control: &Control<ReaderOffer>) {
        store_if_moved(one, control);
    }
}

/// Takes the next message, if it is in a block, and there is nothing particular about it: a short cut.
#[inline(never)]
fn take_block(
    one: &mut Publisher,
    control: &Control<ReaderOffer>,
    manner: Manner,
    hand: &mut Hand,
) -> bool {
    let manner = one.manner(manner);
    let Some((words, end)) = one.ring.next_in_arena() else { return false };
    let Ok((_, place)) = switchboard_shm::arena::Place::from_words(words) else { return false };
    if place.len > one.largest as u64 || one.segments.take(manner, one.link, &place, hand).is_err()
    {
        return false;
    }
    one.ring.pass(end);
    one.kept.has_block = true;
    if manner.copies(true) {
        give_back(one, control);
    }
    one.counters.received += 1;
    hand.found.set_plain(one.link, one.ring.number());
    true
}

/// Takes a message of a publisher that waits for its subscribers.
#[inline]
fn take_next(
    one: &mut Publisher,
    control: &Control<ReaderOffer>,
    manner: Manner,
    hand: &mut Hand,
) -> Result<Taken, Misbehaved> {
    // What was lent is the caller's until now.
    give_back(one, control);
    for _ in 0..IN_A_ROW {
        let Some(frame) = one.ring.poll()? else {
            store_if_moved(one, control);
            return Ok(Taken::Nothing);
        };
        let fits = match frame.kind {
            Kind::Message if frame.payload_bytes <= one.largest as u64 => {
                hand.take(manner, one.link, &one.ring, &frame, 0);
                true
            }
            Kind::Message => false,
            Kind::InArena => match one.segments.find(&one.ring, &frame, one.largest)? {
                Large::Message(_, place) => {
                    one.segments.take(manner, one.link, &place, hand)?;
                    one.kept.has_block = true;
                    true
                }
                Large::TooLong => false,
                // Its segment is still on the way.
                Large::NotYet => {
                    one.lacks_segment = true;
                    return Ok(Taken::Nothing);
                }
            },
            // It stays the last one: nothing is read behind it.
            Kind::End => {
                one.ended = true;
                return Ok(Taken::Nothing);
            }
            Kind::Prefixed | Kind::Pad => {
                return Err(Misbehaved("a frame of a queue"));
            }
        };
        one.ring.advance(&frame);
        if manner.copies(one.kept.has_block) {
            give_back(one, control);
        }
        if fits {
            let taken = pass_on(one, frame.number, hand);
            // What is held back is a copy.
            if matches!(taken, Taken::Gap(_)) && one.kept.has_block {
                give_back(one, control);
            }
            return Ok(taken);
        }
        one.kept.missing += 1;
        one.counters.missed += 1;
    }
    one.left_off = true;
    Ok(Taken::Nothing)
}

/// Hands out what is in hand; if some are missing before it, that is said first.
#[inline]
fn pass_on(one: &mut Publisher, number: u64, hand: &mut Hand) -> Taken {
    if one.kept.missing > 0 {
        one.kept.held = Some((hand.bytes().to_vec(), number));
        return Taken::Gap(one.kept.missing);
    }
    hand_out(one, number, hand);
    Taken::Message
}

#[inline]
fn hand_out(one: &mut Publisher, number: u64, hand: &mut Hand) {
    one.counters.received += 1;
    let found = &mut hand.found;
    found.receipt = Receipt { connection: one.link, sequence: number };
    (found.deliveries, found.priority) = (0, 0);
    found.lost_before = std::mem::take(&mut one.kept.missing);
}

/// Takes a message of a publisher that overwrites what was not read: always a copy.
#[cold]
fn take_lossy(
    one: &mut Publisher,
    control: &Control<ReaderOffer>,
    hand: &mut Hand,
) -> Result<Taken, Misbehaved> {
    for _ in 0..IN_A_ROW {
        if one.ended {
            return Ok(Taken::Nothing);
        }
        let bytes = hand.cleared();
        let segments = &one.segments;
        let mut in_arena = None;
        let largest = one.largest;
        let found = one.ring.take_lossy(bytes, |ring, frame, bytes| {
            if frame.kind == Kind::InArena {
                let large = segments.find(ring, frame, largest)?;
                in_arena = Some(large);
                if let Large::Message(_, place) = large
                    && let Some(segment) = segments.get(&place)
                {
                    bytes.clear();
                    bytes.resize(place.len as usize, 0);
                    copy_out(place.words(segment)?, bytes);
                }
            }
            Ok(())
        });
        let len = bytes.len();
        let frame = match found? {
            Err(overtaken) => {
                one.ring.catch_up(overtaken)?;
                continue;
            }
            Ok(None) => {
                store_if_moved(one, control);
                return Ok(Taken::Nothing);
            }
            // Its segment is still on the way.
            Ok(Some(_)) if matches!(in_arena, Some(Large::NotYet)) => {
                one.lacks_segment = true;
                return Ok(Taken::Nothing);
            }
            Ok(Some(frame)) => frame,
        };
        one.kept.missing += frame.missing;
        one.counters.missed += frame.missing;
        one.ring.advance(&frame);
        match frame.kind {
            Kind::Message | Kind::InArena => {
                if len > largest || matches!(in_arena, Some(Large::TooLong)) {
                    one.kept.missing += 1;
                    one.counters.missed += 1;
                    continue;
                }
                hand.found.place = Place::Copied(len);
                return Ok(pass_on(one, frame.number, hand));
            }
            Kind::End => {
                one.ended = true;
                return Ok(Taken::Nothing);
            }
            Kind::Prefixed | Kind::Pad => {
                return Err(Misbehaved("a frame of a queue"));
            }
        }
    }
    one.left_off = true;
    Ok(Taken::Nothing)
}

/// Gives back what the caller is done with: a block at once, the ring's room by the eighth.
#[inline]
fn give_back(one: &mut Publisher, control: &Control<ReaderOffer>) {
    if std::mem::take(&mut one.kept.has_block) {
        store_if_moved(one, control);
    } else {
        store_after_step(one, control);
    }
}

/// Gives room back by the eighth of the ring.
#[inline(always)]
fn store_after_step(one: &mut Publisher, control: &Control<ReaderOffer>) {
    if let Some(cursor) = one.ring.cursor_after_step() {
        store_step(one, cursor, control);
    }
}

#[inline(never)]
fn store_step(one: &mut Publisher, cursor: u64, control: &Control<ReaderOffer>) {
    one.store_cursor(cursor, control);
    // Also where it catches up before each eighth: else its publisher fenced for it for ever after one sleep.
    if cursor.wrapping_sub(one.kept.stepped) >= one.ring.capacity() / 8 {
        one.kept.stepped = cursor;
        one.step();
    }
}

/// Gives room back that the writer does not know of.
fn store_if_moved(one: &mut Publisher, control: &Control<ReaderOffer>) {
    if let Some(cursor) = one.ring.cursor_if_moved() {
        store_step(one, cursor, control);
    }
}
