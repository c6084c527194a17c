//! Messages that are built and looked at where they lie, while their writer wants the room again.
//!
//! A caller writes and reads them as plain bytes. So besides the words there is a cell of loom's for each room:
//! loom notices when two have it at a time, and also when one has it after the other and nothing orders the two.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::arena::{Arena, InFlight, PLACE_BYTES, Place};
use super::cursor::{OwnCursor, Unsettled};
use super::layout::{self, PAGE_BYTES};
use super::ring::{Kind, Prefix, RingReader};
use super::{CAPACITY, Memory, copy, model, page, ring_of};

/// What callers do with the bytes of a room.
#[derive(Clone)]
struct Room(Arc<UnsafeCell<()>>);

impl Room {
    fn new() -> Self {
        Self(Arc::new(UnsafeCell::new(())))
    }

    fn build(&self) {
        self.0.with_mut(drop);
    }

    fn look(&self) {
        self.0.with(drop);
    }
}

/// How a reader says that it has done with a message.
#[derive(Clone, Copy, Debug)]
enum Release {
    /// A subscriber: its cursor moves when it takes the next one.
    Next,
    /// A receiver acknowledges them, each before the next.
    InOrder,
    /// A receiver acknowledges the first one last.
    FirstLast,
}

/// A reader's page, and what it has not settled.
struct Releasing {
    how: Release,
    page: OwnCursor<Memory>,
    unsettled: Unsettled,
}

impl Releasing {
    fn new(how: Release, page: OwnCursor<Memory>) -> Self {
        Self { how, page, unsettled: Unsettled::new(1) }
    }

    fn took(&mut self, end: u64) {
        self.unsettled.take(end);
    }

    fn release(&mut self, number: u64, reader: &RingReader<Memory>) {
        if let Release::Next = self.how {
            self.page.store(reader.position());
        } else {
            self.unsettled.settle(number, &self.page);
        }
    }
}

/// So many large messages, and fewer blocks.
fn borrowed_from_blocks(how: Release, messages: u64, blocks: usize) {
    model(move || {
        let (mut writer, mut reader) = ring_of(4 * CAPACITY, false);
        let (own, mut peer) = page();
        let segment = Memory::new(blocks * PAGE_BYTES);
        let rooms: Vec<Room> = (0..blocks).map(|_| Room::new()).collect();
        let (lent, looked_at) = (segment.clone(), rooms.clone());
        let writing = thread::spawn(move || {
            let (mut arena, mut in_flight) = (Arena::default(), InFlight::default());
            arena.add(segment, 8);
            for number in 1..=messages {
                let block = loop {
                    if let Some(block) = arena.take(8) {
                        break block;
                    }
                    let before = in_flight.count();
                    in_flight.reclaim(peer.load(writer.head()).unwrap(), &mut arena);
                    if in_flight.count() == before {
                        thread::yield_now();
                    }
                };
                let place = arena.place(&block, 8);
                rooms[place.offset as usize / PAGE_BYTES].build();
                copy::copy_in(arena.room(&block), &(number * 9).to_le_bytes());
                let claim = writer.claim(PLACE_BYTES as u64).expect("room for all places");
                writer.write(&claim, 0, &place.to_bytes(Prefix::default()));
                in_flight.add(block, claim.end());
                writer.commit(claim, Kind::InArena, PLACE_BYTES as u64);
            }
        });
        let mut releasing = Releasing::new(how, own);
        let look = |number: u64, place: &Place| {
            looked_at[place.offset as usize / PAGE_BYTES].look();
            let mut bytes = [0; 8];
            copy::copy_out(place.words(&lent).unwrap(), &mut bytes);
            assert_eq!(u64::from_le_bytes(bytes), number * 9, "the payload of another message");
        };
        let mut held: Vec<(u64, Place)> = Vec::new();
        for number in 1..=messages {
            let frame = loop {
                match reader.poll().unwrap() {
                    Some(frame) => break frame,
                    None => thread::yield_now(),
                }
            };
            let mut bytes = [0; PLACE_BYTES];
            reader.copy(&frame, 0, &mut bytes);
            reader.advance(&frame);
            releasing.took(reader.position());
            let (_, place) = Place::from_bytes(&bytes).unwrap();
            look(number, &place);
            held.push((number, place));
            if matches!(how, Release::FirstLast) && number == 1 {
                continue;
            }
            while let Some((number, place)) = held.pop() {
                // Until now it is this side's.
                look(number, &place);
                releasing.release(number, &reader);
            }
        }
        writing.join().unwrap();
    });
}

#[test]
fn a_block_that_a_subscriber_has_borrowed_is_not_built_in() {
    borrowed_from_blocks(Release::Next, 3, 1);
}

#[test]
fn a_block_that_a_receiver_has_borrowed_is_not_built_in() {
    borrowed_from_blocks(Release::InOrder, 3, 1);
}

#[test]
fn a_block_is_not_built_in_before_those_before_it_are_settled() {
    borrowed_from_blocks(Release::FirstLast, 4, 2);
}

#[test]
fn room_that_is_borrowed_is_not_built_in() {
    borrowed_from_ring(2, false);
}

#[test]
fn room_of_lines_that_is_borrowed_is_not_built_in() {
    borrowed_from_ring(layout::LINE_BYTES as usize / 8, true);
}

/// The same of messages in the ring, each of which takes so many words: four fit, and a fifth one comes.
fn borrowed_from_ring(frame_words: usize, to_line: bool) {
    model(move || {
        let (mut writer, mut reader) = ring_of(frame_words as u64 * 32, false);
        writer.set_to_line(to_line);
        let (own, mut peer) = page();
        let slot = move |word: usize| word % (frame_words * 4) / frame_words;
        let rooms: Vec<Room> = (0..4).map(|_| Room::new()).collect();
        let looked_at = rooms.clone();
        let writing = thread::spawn(move || {
            for number in 1..=5_u64 {
                let claim = loop {
                    if let Some(claim) = writer.claim(8) {
                        break claim;
                    }
                    let cursor = peer.load(writer.head()).unwrap();
                    writer.set_smallest_cursor(cursor);
                    thread::yield_now();
                };
                rooms[slot(writer.payload_index(&claim))].build();
                writer.write(&claim, 0, &(number * 7).to_le_bytes());
                writer.commit(claim, Kind::Message, 8);
            }
        });
        for number in 1..=5_u64 {
            // In turns by the short cut, and the long way.
            let word = loop {
                let found = if number % 2 == 0 {
                    reader.next_message(8).map(|(word, _)| word)
                } else {
                    reader.poll().unwrap().map(|frame| {
                        reader.advance(&frame);
                        reader.payload_index(&frame)
                    })
                };
                match found {
                    Some(word) => break word,
                    None => thread::yield_now(),
                }
            };
            for _ in 0..2 {
                looked_at[slot(word)].look();
                let mut bytes = [0; 8];
                copy::copy_out(&super::Words::words(reader.memory())[word..], &mut bytes);
                assert_eq!(u64::from_le_bytes(bytes), number * 7, "the payload of another message");
            }
            own.store(reader.position());
        }
        writing.join().unwrap();
    });
}
