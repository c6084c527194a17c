//! The ring in one thread: what comes out is what went in, whatever the sizes, and near the end of the
//! numbers too.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use switchboard_shm::barrier::Busy;
use switchboard_shm::layout::{self, writer};
use switchboard_shm::ring::{
    Ahead, Gathering, Kind, Next, RingReader, RingWriter, largest_payload,
};
use switchboard_shm::{AtomicU64, Misbehaved, Words, copy_in, copy_out};

type Memory = Arc<Vec<AtomicU64>>;

const CAPACITY: u64 = 4096;
const GATHERED_BYTES: u64 = CAPACITY / 8;
const LARGEST: usize = largest_payload(CAPACITY) as usize;

fn memory(capacity: u64) -> Memory {
    let words = layout::writer_bytes(capacity as usize) / 8;
    Arc::new((0..words).map(|_| AtomicU64::new(0)).collect())
}

fn pair(lossy: bool, position: u64, number: u64) -> (RingWriter<Memory>, RingReader<Memory>) {
    let memory = memory(CAPACITY);
    let writer =
        RingWriter::create_at(memory.clone(), 2, CAPACITY, lossy, Busy::Fences, (position, number))
            .unwrap();
    let reader = RingReader::open(memory, writer.head(), number).unwrap();
    (writer, reader)
}

fn send(writer: &mut RingWriter<Memory>, message: &[u8]) -> bool {
    let Some(claim) = writer.claim(message.len() as u64) else { return false };
    writer.write(&claim, 0, message);
    writer.commit(claim, Kind::Message, message.len() as u64);
    true
}

/// Room that is claimed and written to, of which nothing becomes, or only the first bytes.
fn scribble(writer: &mut RingWriter<Memory>, len: usize, first: Option<&[u8]>) -> bool {
    let Some(claim) = writer.claim(len as u64) else { return false };
    writer.write(&claim, 0, &nonsense(len));
    if let Some(first) = first {
        writer.write(&claim, 0, first);
        writer.commit(claim, Kind::Message, first.len() as u64);
    }
    true
}

fn receive(reader: &mut RingReader<Memory>) -> Option<Vec<u8>> {
    let frame = reader.poll().unwrap()?;
    let mut bytes = vec![0; frame.payload_bytes as usize];
    reader.copy(&frame, 0, &mut bytes);
    reader.advance(&frame);
    Some(bytes)
}

/// Gathers a message: what does not fit behind those that wait is with the next ones.
fn gather(writer: &mut RingWriter<Memory>, gathering: &mut Gathering, message: &[u8]) -> bool {
    if gathering.add(writer.memory().words(), message) {
        return true;
    }
    writer.commit_gathered(gathering);
    *gathering = writer.gather(GATHERED_BYTES);
    if gathering.add(writer.memory().words(), message) {
        return true;
    }
    assert!(!writer.commit_gathered(gathering));
    false
}

/// What would be a message of length 1, again and again.
fn nonsense(len: usize) -> Vec<u8> {
    (1_u64 | 1 << 28 | 1 << 32).to_le_bytes().repeat(len.div_ceil(8))[..len].to_vec()
}

/// Sends a message where room was granted for more, which was written to before, and given up once.
fn send_granted(writer: &mut RingWriter<Memory>, message: &[u8], room_bytes: usize) -> bool {
    let granted = writer.grant();
    let memory = writer.memory().clone();
    let Some(word) = granted.room(memory.words(), room_bytes) else { return false };
    copy_in(&memory.words()[word..], &nonsense(room_bytes));
    writer.give_up(&granted.claim(room_bytes as u64));
    // It is not granted again as what is clean.
    let granted = writer.grant();
    assert_eq!(granted.room(memory.words(), room_bytes), Some(word));
    copy_in(&memory.words()[word..], message);
    writer.commit_granted(&granted, Kind::Message, (message.len() as u64, room_bytes as u64));
    true
}

/// Up to so many messages, in a lane.
fn take_in_lane(reader: &mut RingReader<Memory>, most: usize) -> Vec<Vec<u8>> {
    let mut lane = reader.lane(reader.largest_payload());
    let mut all = Vec::new();
    while all.len() < most
        && let Next::Message(word, len) = lane.take(reader.memory().words())
    {
        let mut bytes = vec![0; len];
        copy_out(&reader.memory().words()[word..], &mut bytes);
        all.push(bytes);
    }
    assert_eq!((lane.taken(), lane.number()), (all.len() as u64, reader.number() + lane.taken()));
    reader.pass_lane(&lane);
    all
}

/// Up to so many messages that are there.
fn look_ahead(reader: &mut RingReader<Memory>, most: usize) -> Vec<Vec<u8>> {
    let mut places = vec![Ahead::default(); most];
    let (before, largest) = (reader.position(), reader.largest_payload());
    let seen = reader.look_ahead(largest, &mut places);
    assert_eq!(reader.position(), before);
    let read = |place: &Ahead| {
        let mut bytes = vec![0; place.len];
        copy_out(&reader.memory().words()[place.word..], &mut bytes);
        bytes
    };
    let all = places[..seen].iter().map(read).collect();
    if let Some(last) = places[..seen].last() {
        reader.pass_ahead(seen, last);
    }
    all
}

fn message(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number as usize * 31 + at) as u8 | 1).collect()
}

/// What a peer may say: anything, numbers at the ends of all, and headers that are nearly right.
fn peers_word() -> impl Strategy<Value = u64> {
    let header = |(kind, len, number): (u64, u64, u64)| len | kind << 28 | number << 32;
    prop_oneof![
        any::<u64>(),
        (0..100_u64).prop_map(|n| n * 8),
        (0..100_u64).prop_map(|n| u64::MAX - n),
        (0..100_u64).prop_map(|n| u64::MAX / 2 - 50 + n),
        (0..64_u32).prop_map(|bit| 1 << bit),
        (0..16_u64, 0..1200_u64, 0..8_u64).prop_map(header),
        (1..3_u64, 0..200_u64, any::<u64>()).prop_map(header),
        (9..11_u64, 0..200_u64, 0..8_u64).prop_map(header),
    ]
}

proptest! {
    #[test]
    fn what_is_sent_is_received(
        sizes in prop::collection::vec((0..LARGEST, 0..8_usize), 1..400),
        begin in prop_oneof![Just(0), 0..CAPACITY * 4, Just((u64::MAX / 4) & !7), Just((1 << 32) - 64)],
        number in prop_oneof![Just(0_u64), Just(u64::from(u32::MAX) - 3), Just(u64::MAX / 2)],
    ) {
        let (mut writer, mut reader) = pair(false, begin, number);
        let (mut sent, mut received) = (0, 0);
        let mut gathering = Gathering::default();
        for (size, taken) in &sizes {
            // Packed or not, by chance.
            writer.set_to_line(size % 3 == 0);
            if size % 4 != 2 || size % 5 == 0 {
                writer.commit_gathered(&mut gathering);
            }
            if size % 5 == 0 {
                scribble(&mut writer, size * 7 % LARGEST, None);
            }
            let mut wanted = Some(message(sent, *size));
            while let Some(next) = wanted.take() {
                let is_sent = match size % 4 {
                    1 => scribble(&mut writer, (size * 2).min(LARGEST), Some(&next)),
                    // What does not fit as it is is sent.
                    2 => gather(&mut writer, &mut gathering, &next) || send(&mut writer, &next),
                    3 => {
                        send_granted(&mut writer, &next, (size + size % 7 * 9).min(LARGEST))
                            || send(&mut writer, &next)
                    }
                    _ => send(&mut writer, &next),
                };
                if is_sent {
                    sent += 1;
                } else {
                    // As much as is there, so that there is room.
                    while let Some(bytes) = receive(&mut reader) {
                        prop_assert_eq!(&bytes, &message(received, bytes.len()));
                        received += 1;
                    }
                    let cursor = reader.position();
                    prop_assert_eq!(cursor, writer.head());
                    writer.set_smallest_cursor(cursor);
                    wanted = Some(next);
                }
            }
            for bytes in look_ahead(&mut reader, *taken / 3) {
                prop_assert_eq!(&bytes, &message(received, bytes.len()));
                received += 1;
            }
            for bytes in take_in_lane(&mut reader, *taken / 3) {
                prop_assert_eq!(&bytes, &message(received, bytes.len()));
                received += 1;
            }
            for _ in 0..*taken / 3 {
                let Some(bytes) = receive(&mut reader) else { break };
                prop_assert_eq!(&bytes, &message(received, bytes.len()));
                received += 1;
            }
            prop_assert!(reader.number() <= writer.number(), "it was not committed");
        }
        let is_gathered = gathering.messages() > 0;
        prop_assert_eq!(is_gathered, writer.commit_gathered(&mut gathering));
        while let Some(bytes) = receive(&mut reader) {
            prop_assert_eq!(&bytes, &message(received, bytes.len()));
            received += 1;
        }
        prop_assert_eq!(sent, received);
        prop_assert_eq!(reader.number(), number + sent);
    }

    #[test]
    fn a_reader_that_is_overtaken_counts_what_is_missing(
        sizes in prop::collection::vec((0..LARGEST, 0..3_usize), 1..400),
        begin in prop_oneof![Just(0), Just((u64::MAX / 4) & !7)],
        number in prop_oneof![Just(0_u64), Just(u64::from(u32::MAX) - 3)],
    ) {
        let (mut writer, mut reader) = pair(true, begin, number);
        let (mut seen, mut missing) = (0_u64, 0_u64);
        let mut take = |reader: &mut RingReader<Memory>| -> Result<bool, Misbehaved> {
            loop {
                let mut bytes = Vec::new();
                match reader.take_lossy(&mut bytes, |_, _, _| Ok(()))? {
                    Err(overtaken) => reader.catch_up(overtaken)?,
                    Ok(None) => return Ok(false),
                    Ok(Some(frame)) => {
                        reader.advance(&frame);
                        missing += frame.missing;
                        seen += 1;
                        assert_eq!(bytes, message(frame.number - number - 1, bytes.len()));
                        return Ok(true);
                    }
                }
            }
        };
        for (sent, (size, taken)) in sizes.iter().enumerate() {
            writer.set_to_line(size % 3 == 0);
            prop_assert!(send(&mut writer, &message(sent as u64, *size)));
            for _ in 0..*taken {
                take(&mut reader).unwrap();
            }
        }
        while take(&mut reader).unwrap() {}
        prop_assert_eq!(seen + missing, sizes.len() as u64);
    }

    #[test]
    fn a_ring_that_cannot_be_is_not_opened(
        said in prop::collection::vec((0..8_usize, peers_word()), 0..4),
        words in 0..2000_usize,
        position in peers_word(),
        number in peers_word(),
    ) {
        let memory: Memory = Arc::new((0..words).map(|_| AtomicU64::new(0)).collect());
        let right = [writer::MAGIC, 1, CAPACITY, 1];
        for (index, word) in right.into_iter().enumerate().chain(said) {
            if let Some(place) = memory.get(index) {
                place.store(word, Relaxed);
            }
        }
        if let Ok(mut reader) = RingReader::open(memory, position, number) {
            prop_assert!(reader.poll().is_ok());
        }
    }

    #[test]
    fn a_peers_nonsense_is_an_answer_and_never_a_panic(
        words in prop::collection::vec((0..512_usize, peers_word()), 64),
        tails in prop::collection::vec(peers_word(), 64),
        begin in prop_oneof![Just(0_u64), Just((u64::MAX / 2 - 64) & !7)],
        number in prop_oneof![Just(0_u64), Just(u64::MAX / 2)],
        lossy in any::<bool>(),
    ) {
        let (mut writer, mut reader) = pair(lossy, begin, number);
        for n in 0..5 {
            send(&mut writer, &message(n, 100));
        }
        let memory = writer.memory().clone();
        for (place, word) in words {
            memory[writer::RING_WORD + place].store(word, Relaxed);
        }
        let mut tails = tails.into_iter();
        for _ in 0..600 {
            if let Some(tail) = tails.next() {
                memory[writer::TAIL_WORD].store(tail, Relaxed);
            }
            let mut bytes = Vec::new();
            if !lossy {
                let _ = take_in_lane(&mut reader, 3);
            }
            let found = if lossy {
                match reader.take_lossy(&mut bytes, |_, _, _| Ok(())) {
                    Ok(Err(overtaken)) => {
                        if reader.catch_up(overtaken).is_err() { break }
                        continue;
                    }
                    Ok(Ok(found)) => found,
                    Err(_) => break,
                }
            } else {
                match reader.poll() {
                    Ok(found) => found,
                    Err(_) => break,
                }
            };
            let Some(frame) = found else { break };
            prop_assert!(frame.payload_bytes <= LARGEST as u64);
            prop_assert!(reader.payload(&frame).len() as u64 * 8 >= frame.payload_bytes);
            reader.advance(&frame);
        }
    }
}

#[test]
fn a_full_ring_takes_nothing_until_its_reader_goes_on() {
    let (mut writer, mut reader) = pair(false, 0, 0);
    let mut sent = 0;
    while send(&mut writer, &message(sent, 56)) {
        sent += 1;
    }
    // 64 bytes each, and room for a header after the last one.
    assert_eq!(sent, CAPACITY / 64 - 1);
    assert_eq!(receive(&mut reader), Some(message(0, 56)));
    assert!(!send(&mut writer, &message(sent, 56)));
    writer.set_smallest_cursor(reader.position());
    assert!(send(&mut writer, &message(sent, 56)));
}

#[test]
fn what_was_lent_and_not_sent_is_no_message() {
    let (mut writer, mut reader) = pair(false, 0, 0);
    writer.set_to_line(true);
    let mut number = 0;
    for _ in 0..20 {
        for len in [8, 8, 8, 64, 64, 8] {
            for lent in [8, 64, 120, 500] {
                scribble(&mut writer, lent, None);
            }
            while !send(&mut writer, &message(number, len)) {
                writer.set_smallest_cursor(reader.position());
            }
            assert_eq!(receive(&mut reader), Some(message(number, len)), "{number}");
            assert_eq!(receive(&mut reader), None, "after {number}");
            number += 1;
        }
    }
}

/// The first messages stay whole for who comes late, up to what the writer says.
#[test]
fn what_is_not_overwritten_is_read_by_who_comes_late() {
    let (mut writer, _) = pair(false, 0, 0);
    writer.set_to_line(true);
    // After a long one, lines far ahead are written to; after a short one less.
    let len = |number: u64| match number % 11 {
        0 => 900,
        by if by % 3 == 0 => 8,
        _ => 64,
    };
    let mut begins = Vec::new();
    for number in 0..400 {
        begins.push(writer.head());
        while !send(&mut writer, &message(number, len(number))) {
            writer.set_smallest_cursor(writer.head());
        }
        if number % 7 == 0 {
            scribble(&mut writer, 300, None);
        }
        let oldest = begins.iter().position(|begin| *begin >= writer.oldest()).unwrap();
        let from = (begins[oldest], oldest as u64);
        let mut reader = RingReader::open(writer.memory().clone(), from.0, from.1).unwrap();
        for late in from.1..=number {
            assert_eq!(receive(&mut reader), Some(message(late, len(late))), "{late} of {number}");
        }
    }
}

#[test]
fn an_overtaken_reader_does_not_take_a_zero_for_nothing() {
    // Frames of 64 bytes: now and then the header of the next one will be where the reader polls.
    let (mut writer, mut reader) = pair(true, 0, 0);
    let behind = reader.position();
    assert!(reader.polled_word().load(Relaxed) == 0 && !reader.is_overtaken());
    let mut zeros = 0;
    for number in 0..600 {
        assert!(send(&mut writer, &message(number, 56)));
        if writer.tail() > behind {
            assert!(reader.is_overtaken());
            zeros += u32::from(reader.polled_word().load(Relaxed) == 0);
        }
    }
    assert!(zeros > 0, "the word of the next header came to lie there");
    let mut bytes = Vec::new();
    let overtaken = reader.take_lossy(&mut bytes, |_, _, _| Ok(())).unwrap().unwrap_err();
    reader.catch_up(overtaken).unwrap();
    assert!(!reader.is_overtaken());
    let next = reader.take_lossy(&mut bytes, |_, _, _| Ok(())).unwrap().unwrap().unwrap();
    assert_eq!(bytes, message(next.number - 1, 56));
}

#[test]
fn what_is_gathered_is_seen_together() {
    let (mut writer, mut reader) = pair(false, 0, 0);
    assert!(send(&mut writer, &message(0, 20)));
    assert_eq!(receive(&mut reader), Some(message(0, 20)));
    let begin = writer.head();
    let mut gathering = writer.gather(GATHERED_BYTES);
    for number in 1..4 {
        assert!(gathering.add(writer.memory(), &message(number, 60)));
        assert_eq!(receive(&mut reader), None, "it was not committed");
        assert_eq!((writer.head(), writer.number()), (begin, 1));
    }
    assert_eq!((gathering.messages(), gathering.bytes()), (3, 180));
    assert!(writer.commit_gathered(&mut gathering));
    assert!(!gathering.is_open());
    assert!(!writer.commit_gathered(&mut gathering));
    assert_eq!((writer.head(), writer.number()), (begin + 3 * 72, 4));
    // One by one, and together.
    assert_eq!(receive(&mut reader), Some(message(1, 60)));
    assert_eq!(look_ahead(&mut reader, 10), [message(2, 60), message(3, 60)]);
    assert_eq!(receive(&mut reader), None);
    assert_eq!((writer.head(), writer.number()), (reader.position(), reader.number()));
}

#[test]
fn what_does_not_fit_is_not_gathered() {
    let (mut writer, mut reader) = pair(false, 0, 0);
    // Neither over the end of the ring, nor over what was not read.
    let mut gathering = writer.gather(u64::MAX);
    let mut gathered = 0;
    while gathering.add(writer.memory(), &message(gathered, 100)) {
        gathered += 1;
    }
    assert_eq!(gathered, (CAPACITY - 8) / 112);
    assert_eq!((gathering.messages(), gathering.bytes()), (gathered, gathered * 100));
    writer.commit_gathered(&mut gathering);
    assert!(!writer.gather(u64::MAX).add(writer.memory(), &message(gathered, 100)));
    for number in 0..gathered {
        assert_eq!(receive(&mut reader), Some(message(number, 100)));
    }
    assert_eq!(receive(&mut reader), None);
    writer.set_smallest_cursor(reader.position());
    assert!(!writer.gather(u64::MAX).add(writer.memory(), &message(gathered, 100)), "a pad");
    assert!(send(&mut writer, &message(gathered, 100)), "there is room behind a pad");
    assert_eq!(receive(&mut reader), Some(message(gathered, 100)));
}
