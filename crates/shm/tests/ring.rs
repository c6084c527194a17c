//! The ring in one thread: what comes out is what went in, whatever the sizes, and near the end of the
//! numbers too.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use switchboard_shm::layout::{self, writer};
use switchboard_shm::ring::{Kind, RingReader, RingWriter};
use switchboard_shm::{AtomicU64, Misbehaved};

type Memory = Arc<Vec<AtomicU64>>;

const CAPACITY: u64 = 4096;

fn memory(capacity: u64) -> Memory {
    let words = layout::writer_bytes(capacity as usize) / 8;
    Arc::new((0..words).map(|_| AtomicU64::new(0)).collect())
}

fn pair(lossy: bool, position: u64, number: u64) -> (RingWriter<Memory>, RingReader<Memory>) {
    let memory = memory(CAPACITY);
    let writer =
        RingWriter::create_at(memory.clone(), 2, CAPACITY, lossy, position, number).unwrap();
    let reader = RingReader::open(memory, writer.head(), number).unwrap();
    (writer, reader)
}

fn send(writer: &mut RingWriter<Memory>, message: &[u8]) -> bool {
    let Some(claim) = writer.claim(message.len() as u64) else { return false };
    writer.write(&claim, 0, message);
    writer.commit(claim, Kind::Message, message.len() as u64);
    true
}

fn receive(reader: &mut RingReader<Memory>) -> Option<Vec<u8>> {
    let frame = reader.poll().unwrap()?;
    let mut bytes = vec![0; frame.payload_bytes as usize];
    reader.copy(&frame, 0, &mut bytes);
    reader.advance(&frame);
    Some(bytes)
}

fn message(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number as usize * 31 + at) as u8 | 1).collect()
}

proptest! {
    #[test]
    fn what_is_sent_is_received(
        sizes in prop::collection::vec((0..1016_usize, 0..4_usize), 1..400),
        begin in prop_oneof![Just(0), 0..CAPACITY * 4, Just((u64::MAX / 4) & !7), Just((1 << 32) - 64)],
        number in prop_oneof![Just(0_u64), Just(u64::from(u32::MAX) - 3), Just(u64::MAX / 2)],
    ) {
        let (mut writer, mut reader) = pair(false, begin, number);
        let (mut sent, mut received) = (0, 0);
        for (size, taken) in &sizes {
            let mut wanted = Some(message(sent, *size));
            while let Some(next) = wanted.take() {
                if send(&mut writer, &next) {
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
            for _ in 0..*taken {
                let Some(bytes) = receive(&mut reader) else { break };
                prop_assert_eq!(&bytes, &message(received, bytes.len()));
                received += 1;
            }
        }
        while let Some(bytes) = receive(&mut reader) {
            prop_assert_eq!(&bytes, &message(received, bytes.len()));
            received += 1;
        }
        prop_assert_eq!(sent, received);
        prop_assert_eq!(reader.number(), number + sent);
    }

    #[test]
    fn a_reader_that_is_overtaken_counts_what_is_missing(
        sizes in prop::collection::vec((0..1016_usize, 0..3_usize), 1..400),
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
            prop_assert!(send(&mut writer, &message(sent as u64, *size)));
            for _ in 0..*taken {
                take(&mut reader).unwrap();
            }
        }
        while take(&mut reader).unwrap() {}
        prop_assert_eq!(seen + missing, sizes.len() as u64);
    }

    #[test]
    fn a_peers_nonsense_is_an_answer_and_never_a_panic(
        words in prop::collection::vec(any::<u64>(), 64),
        places in prop::collection::vec(0..512_usize, 64),
        lossy in any::<bool>(),
    ) {
        let (mut writer, mut reader) = pair(lossy, 0, 0);
        for n in 0..5 {
            send(&mut writer, &message(n, 100));
        }
        let memory = writer.memory().clone();
        for (word, place) in words.into_iter().zip(places) {
            memory[writer::RING_WORD + place].store(word, Relaxed);
            if word % 7 == 0 {
                memory[writer::TAIL_WORD].store(word, Relaxed);
            }
        }
        for _ in 0..600 {
            let mut bytes = Vec::new();
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
            prop_assert!(frame.payload_bytes < CAPACITY / 4);
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
