//! Messages that are built and looked at where they lie, while their writer wants the room again.
//!
//! A caller writes and reads them as plain bytes. So besides the words there is a cell of loom's for each room:
//! loom notices when two have it at a time, and also when one has it after the other and nothing orders the two.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::arena::{Arena, InFlight, PLACE_BYTES, Place};
use super::cursor::{OwnCursor, Unsettled};
use super::layout::{LINE_WORDS, PAGE_BYTES};
use super::ring::{Kind, Next, Prefix, RingReader};
use super::words::Words;
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

    fn release(&mut self, number: u64, reader: &mut RingReader<Memory>) {
        if let Release::Next = self.how {
            self.page.store(reader.cursor_if_moved().expect("behind the message"));
        } else {
            self.unsettled.settle(number, &self.page);
        }
    }
}

/// Where the large message of a number lies; a subscriber takes them in turns in a lane, by the short cut, and the long way.
fn next_place(reader: &mut RingReader<Memory>, how: Release, number: u64) -> Place {
    let way = if let Release::Next = how { number % 3 } else { 0 };
    let mut lane = reader.lane(8).with_arena(8);
    loop {
        if way == 1 {
            let found = reader.next_in_arena();
            let place = found.map(|(words, end)| (Place::from_words(words).unwrap().1, end));
            if let Some((place, end)) = place {
                reader.pass(end);
                return place;
            }
        } else if way == 2 {
            let memory = reader.memory().words();
            if let Next::Other = lane.take(memory) {
                let (place, end) = lane.next_in_arena(memory).expect("a large message");
                lane.pass_in_arena(end);
                assert_eq!(lane.next_in_arena(memory), None, "one behind it");
                reader.pass_lane(&lane);
                return place;
            }
        } else if let Some(frame) = reader.poll().unwrap() {
            let mut bytes = [0; PLACE_BYTES];
            reader.copy(&frame, 0, &mut bytes);
            reader.advance(&frame);
            return Place::from_bytes(&bytes).unwrap().1;
        }
        thread::yield_now();
    }
}

/// So many large messages, and fewer blocks. What is granted takes each second frame.
fn borrowed_from_blocks(how: Release, messages: u64, blocks: usize) {
    model(move || {
        let (mut writer, mut reader) = ring_of(16 * CAPACITY, false);
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
                let bytes = PLACE_BYTES as u64;
                let granted = writer.grant();
                if number % 2 == 0 && granted.has_room(bytes) {
                    writer.write_granted(&granted, place.to_words(Prefix::default()));
                    in_flight.add(block, granted.end_of(bytes));
                    writer.commit_granted(&granted, Kind::InArena, (bytes, bytes));
                } else {
                    let claim = writer.claim(bytes).expect("room for all places");
                    writer.write(&claim, 0, &place.to_bytes(Prefix::default()));
                    in_flight.add(block, claim.end());
                    writer.commit(claim, Kind::InArena, bytes);
                }
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
            let place = next_place(&mut reader, how, number);
            releasing.took(reader.position());
            look(number, &place);
            held.push((number, place));
            if matches!(how, Release::FirstLast) && number == 1 {
                continue;
            }
            while let Some((number, place)) = held.pop() {
                // Until now it is this side's.
                look(number, &place);
                releasing.release(number, &mut reader);
            }
        }
        writing.join().unwrap();
        assert!(reader.poll().unwrap().is_none(), "something that was there before");
    });
}

#[test]
fn a_block_that_a_subscriber_has_borrowed_is_not_built_in() {
    borrowed_from_blocks(Release::Next, 3, 1);
    borrowed_from_blocks(Release::Next, 3, 2);
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
    borrowed_from_ring(2, 8, false, 6);
}

#[test]
fn room_of_lines_that_is_borrowed_is_not_built_in() {
    borrowed_from_ring(LINE_WORDS, 8, true, 5);
}

#[test]
fn room_of_two_lines_that_is_borrowed_is_not_built_in() {
    borrowed_from_ring(2 * LINE_WORDS, 72, true, 5);
}

/// The same of messages in the ring, each of which takes so many words: four fit, and further ones come. What is granted is
/// built in without a claim, and what comes in a lane is taken without the reader.
fn borrowed_from_ring(frame_words: usize, payload_bytes: usize, to_line: bool, messages: u64) {
    model(move || {
        let (mut writer, mut reader) = ring_of(frame_words as u64 * 32, false);
        writer.set_to_line(to_line);
        let (own, mut peer) = page();
        let slot = move |word: usize| word % (frame_words * 4) / frame_words;
        let rooms: Vec<Room> = (0..4).map(|_| Room::new()).collect();
        let looked_at = rooms.clone();
        // The other words of a payload are not looked at: a model keeps a history of each.
        let ends = move |word: usize| [word, word + payload_bytes / 8 - 1];
        let writing = thread::spawn(move || {
            let memory = writer.memory().clone();
            let build = |word: usize, number: u64| {
                rooms[slot(word)].build();
                for word in ends(word) {
                    copy::copy_in(&memory.words()[word..], &(number * 7).to_le_bytes());
                }
            };
            let mut granted = writer.grant();
            for number in 1..=messages {
                if let Some(word) = granted.room(memory.words(), payload_bytes) {
                    build(word, number);
                    let bytes = (payload_bytes as u64, payload_bytes as u64);
                    writer.commit_granted(&granted, Kind::Message, bytes);
                } else {
                    let claim = loop {
                        if let Some(claim) = writer.claim(payload_bytes as u64) {
                            break claim;
                        }
                        let cursor = peer.load(writer.head()).unwrap();
                        writer.set_smallest_cursor(cursor);
                        thread::yield_now();
                    };
                    build(writer.payload_index(&claim), number);
                    writer.commit(claim, Kind::Message, payload_bytes as u64);
                }
                if writer.lacks_room_ahead() {
                    let cursor = peer.load(writer.head()).unwrap();
                    writer.set_smallest_cursor(cursor);
                    writer.clear_ahead(payload_bytes as u64);
                }
                granted = writer.grant();
            }
        });
        for number in 1..=messages {
            let mut lane = reader.lane(payload_bytes as u64);
            // In turns by the two short cuts, and the long way.
            let word = loop {
                let found = match number % 3 {
                    0 => reader.next_message(payload_bytes as u64).map(|(word, _)| word),
                    1 => reader.poll().unwrap().map(|frame| {
                        reader.advance(&frame);
                        reader.payload_index(&frame)
                    }),
                    _ => match lane.take(reader.memory().words()) {
                        Next::Message(word, _) => Some(word),
                        Next::Nothing => None,
                        Next::Other => panic!("a plain message"),
                    },
                };
                match found {
                    Some(word) => break word,
                    None => thread::yield_now(),
                }
            };
            for word in ends(word) {
                looked_at[slot(word)].look();
                let mut bytes = [0; 8];
                copy::copy_out(&reader.memory().words()[word..], &mut bytes);
                assert_eq!(u64::from_le_bytes(bytes), number * 7, "the payload of another message");
            }
            if lane.taken() > 0 {
                reader.pass_lane(&lane);
            }
            own.store(reader.cursor_if_moved().unwrap());
        }
        writing.join().unwrap();
        assert!(reader.poll().unwrap().is_none(), "something that was there before");
    });
}
