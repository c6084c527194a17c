//! The subscribing end of a topic: a ring of each publisher.

use switchboard_shm::Misbehaved;
use switchboard_shm::ring::{Kind, RingReader};

use super::control::Control;
use super::hello::Pattern;
use super::large::Found;
use super::memory::Theirs;
use super::offer::ReaderOffer;
use super::reading::{IN_A_ROW, ReaderCore, Reading, Taken, Writer};
use crate::transport::{Raw, Receipt};

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
}

impl Reading for Subscription {
    const PATTERN: Pattern = Pattern::Topic;

    fn begin(_: &RingReader<Theirs>, _: u64) -> Result<Self, Misbehaved> {
        Ok(Self::default())
    }

    #[inline]
    fn take(
        one: &mut Publisher,
        control: &Control<ReaderOffer>,
        scratch: &mut Vec<u8>,
        with: &mut dyn FnMut(Raw<'_>),
    ) -> Result<Taken, Misbehaved> {
        if let Some((payload, number)) = one.kept.held.take() {
            hand_out(one, &payload, number, with);
            return Ok(Taken::Message);
        }
        one.left_off = false;
        if one.ring.is_lossy() {
            take_lossy(one, control, scratch, with)
        } else {
            take_next(one, control, scratch, with)
        }
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

/// Takes a message of a publisher that waits for its subscribers.
#[inline]
fn take_next(
    one: &mut Publisher,
    control: &Control<ReaderOffer>,
    scratch: &mut Vec<u8>,
    with: &mut dyn FnMut(Raw<'_>),
) -> Result<Taken, Misbehaved> {
    for _ in 0..IN_A_ROW {
        let Some(frame) = one.ring.poll()? else {
            store_if_moved(one, control);
            return Ok(Taken::Nothing);
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
            Kind::InArena => match one.segments.read(&one.ring, &frame, one.largest, scratch)? {
                Found::Message(_) => &mut scratch[..],
                Found::TooLarge => {
                    one.kept.missing += 1;
                    one.ring.advance(&frame);
                    store_after_step(one, control);
                    continue;
                }
                // Its segment is still on the way.
                Found::NotYet => {
                    one.lacks_segment = true;
                    return Ok(Taken::Nothing);
                }
            },
            Kind::End => {
                one.ended = true;
                one.ring.advance(&frame);
                return Ok(Taken::Nothing);
            }
            Kind::Prefixed | Kind::Pad => {
                return Err(Misbehaved("a frame of a queue"));
            }
        };
        let taken = if payload.len() > one.largest {
            one.kept.missing += 1;
            None
        } else {
            Some(pass_on(one, payload, frame.number, with))
        };
        one.ring.advance(&frame);
        store_after_step(one, control);
        if let Some(taken) = taken {
            return Ok(taken);
        }
    }
    one.left_off = true;
    Ok(Taken::Nothing)
}

/// Hands a message out; if some are missing before it, that is said first.
#[inline]
fn pass_on(
    one: &mut Publisher,
    payload: &[u8],
    number: u64,
    with: &mut dyn FnMut(Raw<'_>),
) -> Taken {
    if one.kept.missing > 0 {
        one.kept.held = Some((payload.to_vec(), number));
        return Taken::Gap(one.kept.missing);
    }
    hand_out(one, payload, number, with);
    Taken::Message
}

#[inline]
fn hand_out(one: &mut Publisher, payload: &[u8], number: u64, with: &mut dyn FnMut(Raw<'_>)) {
    one.counters.received += 1;
    let lost_before = std::mem::take(&mut one.kept.missing);
    let receipt = Receipt { connection: one.link, sequence: number };
    with(Raw { receipt, lost_before, ..Raw::bare(payload) });
}

/// Takes a message of a publisher that overwrites what was not read.
#[cold]
fn take_lossy(
    one: &mut Publisher,
    control: &Control<ReaderOffer>,
    scratch: &mut Vec<u8>,
    with: &mut dyn FnMut(Raw<'_>),
) -> Result<Taken, Misbehaved> {
    for _ in 0..IN_A_ROW {
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
            Ok(Some(_)) if matches!(in_arena, Some(Found::NotYet)) => {
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
                if scratch.len() > largest || matches!(in_arena, Some(Found::TooLarge)) {
                    one.kept.missing += 1;
                    continue;
                }
                return Ok(pass_on(one, scratch, frame.number, with));
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

/// Gives room back after each step through the ring.
#[inline]
fn store_after_step(one: &mut Publisher, control: &Control<ReaderOffer>) {
    if let Some(cursor) = one.ring.cursor_after_step() {
        one.store_cursor(cursor, control);
    }
}

/// Gives room back that the writer does not know of.
fn store_if_moved(one: &mut Publisher, control: &Control<ReaderOffer>) {
    if let Some(cursor) = one.ring.cursor_if_moved() {
        one.store_cursor(cursor, control);
    }
}
