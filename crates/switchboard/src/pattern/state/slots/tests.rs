//! The layout on its own: killed at every store, damaged at every byte, lied about, at its limits.

use switchboard_kernel::mmap::Mapping;

use super::*;

const CAPACITY: u32 = 100;

fn memory() -> (Mapping, Geometry) {
    let len = usize::try_from(object_bytes(CAPACITY)).expect("a length");
    let memory = Mapping::anonymous(len).expect("memory");
    let geometry = Geometry::prepare(&memory, Some(CAPACITY), || false).expect("prepared");
    (memory, geometry)
}

fn value(version: u64) -> Vec<u8> {
    let len = 1 + version as usize * 37 % CAPACITY as usize;
    (0..len).map(|at| (at as u64 * 7 + version * 31) as u8 | 1).collect()
}

fn load(memory: &Memory, geometry: Geometry) -> (u64, Vec<u8>) {
    let found = geometry.load(memory).expect("a whole value");
    assert!(!found.restored);
    (found.version, found.bytes)
}

#[test]
fn what_was_set_is_read() {
    let (memory, geometry) = memory();
    assert_eq!(load(&memory, geometry), (0, Vec::new()));
    let mut writer = Writer::new(&memory, geometry).expect("a writer");
    for version in 1..=300 {
        writer.set(&memory, &value(version)).expect("set");
        assert_eq!(load(&memory, geometry), (version, value(version)));
    }
    for len in [0, 1, CAPACITY as usize] {
        let bytes = vec![b'x'; len];
        writer.set(&memory, &bytes).expect("set");
        assert_eq!(load(&memory, geometry).1, bytes);
    }
    let before = load(&memory, geometry);
    let too_long = vec![b'x'; CAPACITY as usize + 1];
    let refused = writer.set(&memory, &too_long);
    assert!(matches!(refused, Err(Problem::TooLarge { capacity: CAPACITY })), "{refused:?}");
    assert_eq!(load(&memory, geometry), before);
    let again = Writer::new(&memory, geometry).expect("a writer");
    assert_eq!(again.version(), before.0);
}

/// A writer is killed before each of its stores, byte by byte: readers have the old value whole
/// until the very last store, and the next writer goes on.
#[test]
fn a_writer_killed_at_any_store_is_never_seen() {
    for first in [1, 2] {
        let mut stores = 0;
        for alive in 0.. {
            let (memory, geometry) = memory();
            let mut writer = Writer::new(&memory, geometry).expect("a writer");
            for version in 1..=first {
                writer.set(&memory, &value(version)).expect("set");
            }
            let mut left = alive;
            let go_on = || {
                left -= 1;
                left >= 0
            };
            let next = first + 1;
            let done = geometry.store(&memory, next, &value(next), 1, go_on).expect("stored");
            let shown = if done { next } else { first };
            assert_eq!(load(&memory, geometry), (shown, value(shown)), "killed at {alive}");
            let mut heir = Writer::new(&memory, geometry).expect("the next writer");
            assert_eq!(load(&memory, geometry), (shown, value(shown)), "killed at {alive}");
            heir.set(&memory, b"the heir's").expect("set");
            assert_eq!(load(&memory, geometry), (shown + 1, b"the heir's".to_vec()));
            stores += 1;
            if done {
                break;
            }
        }
        assert!(stores > 15, "{stores} places to be killed at");
    }
}

/// A writer sets two values, the second of them where the first half of the copy came from, and the second half is
/// that one's: the version says so, also when it happens again and again. Damage is something else, and looks like it.
#[test]
fn what_is_overwritten_while_it_is_copied_is_copied_again() {
    let (memory, geometry) = memory();
    let mut writer = Writer::new(&memory, geometry).expect("a writer");
    writer.set(&memory, &[1; CAPACITY as usize]).expect("set");
    for times in 1..10 {
        let mut left = times;
        let found = geometry.load_by(&memory, |at, bytes| {
            let (first, second) = bytes.split_at_mut(bytes.len() / 2);
            memory.read_at(at, first)?;
            if left > 0 {
                left -= 1;
                for _ in 0..2 {
                    let next = writer.version() as u8 + 1;
                    writer.set(&memory, &[next; CAPACITY as usize]).expect("set");
                }
            }
            memory.read_at(at + first.len(), second)
        });
        let (found, newest) = (found.expect("a value"), writer.version());
        let expected = Found {
            bytes: vec![newest as u8; CAPACITY as usize],
            version: newest,
            restored: false,
        };
        assert_eq!((left, found), (0, expected), "overwritten {times} times");
    }
}

/// As [`a_writer_killed_at_any_store_is_never_seen`], while the memory is prepared: what is left of
/// that is all zeroes but for two words.
#[test]
fn half_prepared_memory_is_prepared_again() {
    let (whole, geometry) = memory();
    for words in [
        vec![LAYOUT_AT],
        vec![LAYOUT_AT, CAPACITY_AT],
        vec![LAYOUT_AT, CAPACITY_AT, HEADER_BYTES + CHECKSUM_AT],
    ] {
        let half = Mapping::anonymous(whole.len()).expect("memory");
        for at in words {
            let word = whole.load_u32(at).expect("a word");
            half.atomic_u32(at).expect("a word").store(word, Ordering::Relaxed);
        }
        assert_eq!(Geometry::read(&half).expect("zeroes"), None);
        assert_eq!(Geometry::prepare(&half, Some(CAPACITY), || false).expect("prepared"), geometry);
        assert_eq!(load(&half, geometry), (0, Vec::new()));
    }
}

/// Whatever byte is damaged, a reader gives the newest value, or the newest that is whole and says so.
#[test]
fn every_damaged_byte_is_noticed() {
    let (memory, geometry) = memory();
    let mut writer = Writer::new(&memory, geometry).expect("a writer");
    writer.set(&memory, &value(1)).expect("set");
    writer.set(&memory, &value(2)).expect("set");
    let mut restored = 0;
    for at in CURRENT_AT..memory.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut byte = [0];
            memory.read_at(at, &mut byte).expect("a byte");
            memory.write_at(at, &[byte[0] ^ flip]).expect("a byte");
            match geometry.load(&memory) {
                Ok(found) if found.restored => {
                    // If only the word is damaged, the newest value is still there.
                    let newest = if at < HEADER_BYTES { 2 } else { 1 };
                    assert_eq!((found.version, found.bytes), (newest, value(newest)), "byte {at}");
                    restored += 1;
                }
                found => {
                    let found = found.expect("one slot is whole");
                    assert_eq!((found.version, found.bytes), (2, value(2)), "byte {at}");
                }
            }
            memory.write_at(at, &byte).expect("a byte");
        }
    }
    assert!(restored > 100, "{restored}");
}

/// A state that was set once: what memory is prepared with does not stand for it.
#[test]
fn a_first_value_that_is_damaged_was_set_all_the_same() {
    let (memory, geometry) = memory();
    Writer::new(&memory, geometry).expect("a writer").set(&memory, &value(1)).expect("set");
    let (slot, len) = (geometry.slot(1), value(1).len());
    let whole: Vec<_> = [CURRENT_AT..CURRENT_AT + 4, slot..slot + 16]
        .into_iter()
        .chain(std::iter::once(slot + SLOT_HEAD_BYTES..slot + SLOT_HEAD_BYTES + len))
        .flatten()
        .collect();
    for at in whole {
        let mut byte = [0];
        memory.read_at(at, &mut byte).expect("a byte");
        for bit in 0..8 {
            memory.write_at(at, &[byte[0] ^ 1 << bit]).expect("flipped");
            match geometry.load(&memory) {
                Ok(found) if (at, bit) == (CURRENT_AT, 0) => assert_eq!(found.version, 0),
                Ok(found) => {
                    assert_eq!((found.version, found.bytes), (1, value(1)), "{at} {bit}");
                    assert!(found.restored, "{at} {bit}");
                }
                Err(problem) => assert!(matches!(problem, Problem::Damaged), "{at} {bit}"),
            }
            memory.write_at(at, &byte).expect("restored");
        }
    }
    assert_eq!(load(&memory, geometry), (1, value(1)));
}

#[test]
fn a_new_writer_mends_what_is_damaged() {
    let (memory, geometry) = memory();
    let mut writer = Writer::new(&memory, geometry).expect("a writer");
    for version in 1..=3 {
        writer.set(&memory, &value(version)).expect("set");
    }
    let newest = geometry.slot(3) + SLOT_HEAD_BYTES;
    memory.write_at(newest, &[0]).expect("a byte");
    let mut writer = Writer::new(&memory, geometry).expect("a writer");
    assert_eq!(load(&memory, geometry), (2, value(2)));
    writer.set(&memory, b"new").expect("set");
    // 3 may have been seen with another value.
    assert_eq!(load(&memory, geometry), (5, b"new".to_vec()));

    for slot in [geometry.slot(0), geometry.slot(1)] {
        memory.write_at(slot + SLOT_HEAD_BYTES, &[0]).expect("a byte");
    }
    assert!(matches!(geometry.load(&memory), Err(Problem::Damaged)));
    let mut writer = Writer::new(&memory, geometry).expect("a writer");
    let (version, bytes) = load(&memory, geometry);
    assert!(version > 5 && bytes.is_empty(), "{version}");
    writer.set(&memory, b"again").expect("set");
    assert_eq!(load(&memory, geometry), (version + 1, b"again".to_vec()));
}

#[test]
fn lies_in_the_header_are_refused() {
    let lie = |at: usize, bytes: &[u8], expected: &str| {
        let (memory, _) = memory();
        memory.write_at(at, bytes).expect("a lie");
        match Geometry::read(&memory) {
            Err(Problem::NotOurs(problem)) => assert!(problem.contains(expected), "{problem}"),
            other => panic!("{other:?}"),
        }
    };
    lie(0, b"\x7fELF", "something else");
    lie(LAYOUT_AT, &[2], "version 2");
    lie(CAPACITY_AT, &u32::MAX.to_le_bytes(), "claims");
    lie(CAPACITY_AT, &(CAPACITY + 64).to_le_bytes(), "claims");
    let (memory, geometry) = memory();
    let mut writer = Writer::new(&memory, geometry).expect("a writer");
    writer.set(&memory, b"x").and_then(|()| writer.set(&memory, b"y")).expect("set");
    let len = memory.atomic_u32(geometry.slot(2) + LEN_AT).expect("a word");
    len.store(u32::MAX, Ordering::Relaxed);
    assert!(geometry.load(&memory).expect("the one before").restored);
}

#[test]
fn memory_of_somebody_else_is_left_alone() {
    for len in [1, 63, 64, 191] {
        let small = Mapping::anonymous(len).expect("memory");
        assert!(
            matches!(Geometry::prepare(&small, None, || false), Err(Problem::NotOurs(_))),
            "{len}"
        );
    }
    let least = Mapping::anonymous(192).expect("memory");
    assert_eq!(Geometry::prepare(&least, Some(1), || false).expect("prepared").capacity(), 0);
    let foreign = Mapping::anonymous(100_000).expect("memory");
    foreign.write_at(99_999, b"x").expect("a byte");
    assert!(matches!(Geometry::prepare(&foreign, None, || false), Err(Problem::NotOurs(_))));
    foreign.write_at(99_999, b"\0").expect("a byte");
    assert_eq!(Geometry::prepare(&foreign, None, || false).expect("prepared").capacity(), 49_856);
}

/// Versions beyond 32 bits: the word that readers sleep on has only the low half.
#[test]
fn the_low_half_wraps_around() {
    let (memory, geometry) = memory();
    let start = (7 << 32) - 3;
    geometry.store(&memory, start, &value(1), usize::MAX, || true).expect("stored");
    let mut writer = Writer::new(&memory, geometry).expect("a writer");
    for more in 1..=6 {
        writer.set(&memory, &value(more)).expect("set");
        assert_eq!(load(&memory, geometry), (start + more, value(more)));
    }
    let last = BEING_WRITTEN - 1;
    geometry.store(&memory, last, &value(1), usize::MAX, || true).expect("stored");
    let mut writer = Writer::new(&memory, geometry).expect("a writer");
    writer.set(&memory, &value(2)).expect("set");
    assert_eq!(load(&memory, geometry), (1, value(2)));
}

/// A writer at full speed, readers that look at every value they can get.
#[test]
fn readers_never_see_two_values_mixed() {
    let (memory, geometry) = memory();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                threads.spawn(|| {
                    let (mut newest, mut seen) = (0, 0_u64);
                    while !done.load(Ordering::Relaxed) || newest < 20_000 {
                        let (version, bytes) = load(&memory, geometry);
                        assert!(version >= newest, "{version} after {newest}");
                        assert!(version == 0 || bytes == value(version), "{version}");
                        seen += u64::from(version != newest);
                        newest = version;
                    }
                    seen
                })
            })
            .collect();
        let mut writer = Writer::new(&memory, geometry).expect("a writer");
        for version in 1..=20_000 {
            writer.set(&memory, &value(version)).expect("set");
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().expect("a reader") > 0);
        }
    });
}

#[test]
fn only_memory_that_was_found_is_looked_at_and_that_can_be_ended() {
    let memory = Mapping::anonymous(1 << 16).expect("memory");
    memory.write_at((1 << 16) - 1, b"x").expect("written");
    assert!(matches!(Geometry::prepare(&memory, None, || true), Err(Problem::Cancelled)));
    assert!(matches!(Geometry::prepare(&memory, None, || false), Err(Problem::NotOurs(_))));
    Geometry::prepare_new(&memory, None).expect("prepared without a look");
    Geometry::prepare(&memory, None, || true).expect("it is prepared");
}
