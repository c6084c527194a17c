//! Feeds and values whose writer lies: each word is scribbled over, and the reader says so in bounded time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use switchboard_shm::barrier::Busy;
use switchboard_shm::feed::{Changed, Entry, FeedReader, FeedWriter};
use switchboard_shm::layout::feed as layout;
use switchboard_shm::values::{Read, Values, read, read_by};
use switchboard_shm::{AtomicU64, Misbehaved, Words, copy_out};

type Memory = Arc<Vec<AtomicU64>>;

fn memory(bytes: u64) -> Memory {
    Arc::new((0..bytes / 8).map(|_| AtomicU64::new(0)).collect())
}

/// A feed with three entries, of which each changed once, and a reader that knows that.
fn feed() -> (Memory, FeedReader<Memory>) {
    let words = memory(layout::bytes(8));
    let mut writer = FeedWriter::create(Arc::clone(&words), 4, 8, Busy::Fences).expect("a feed");
    for name in 0..3 {
        let at = writer.add(Entry { name, value: 0 }).expect("room");
        writer.change(at, 1);
    }
    let mut reader = FeedReader::open(Arc::clone(&words), 4).expect("a feed");
    assert_eq!(reader.take(|_| {}), Ok(Changed::These));
    (words, reader)
}

fn is_soon<T>(what: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let result = what();
    assert!(since.elapsed() < Duration::from_secs(20), "it took {:?}", since.elapsed());
    result
}

#[test]
fn a_feed_that_cannot_be_is_refused() {
    for (word, lie) in [
        (layout::MAGIC_WORD, 1),
        (layout::KIND_WORD, 5 << 32 | 1),
        (layout::CAPACITY_WORD, 0),
        (layout::CAPACITY_WORD, u64::MAX),
        (layout::CAPACITY_WORD, 1 << 20),
        (layout::FLAGS_WORD, 2),
    ] {
        let (words, _) = feed();
        words[word].store(lie, Relaxed);
        assert!(FeedReader::open(words, 4).is_err(), "{lie} in word {word}");
    }
    assert!(FeedReader::open(memory(8), 4).is_err());
}

#[test]
fn counts_that_cannot_be_are_misbehaviour() {
    for (word, lie) in [
        (layout::CHANGES_WORD, 2),
        (layout::CHANGES_WORD, 0),
        (layout::COUNT_WORD, 2),
        (layout::COUNT_WORD, 9),
        (layout::COUNT_WORD, u64::MAX),
    ] {
        let (words, mut reader) = feed();
        words[word].store(lie, Relaxed);
        let found = is_soon(|| reader.take(|_| {}).and_then(|_| reader.count()));
        assert!(found.is_err(), "{lie} in word {word}: {found:?}");
    }
    let (words, mut reader) = feed();
    words[layout::recent_word(3)].store(3, Relaxed);
    words[layout::CHANGES_WORD].store(4, Relaxed);
    assert!(reader.take(|at| assert!(at < 3)).is_err(), "a change of an entry that is not there");
    // Changes that run away mean no more than that all entries are looked at.
    let (words, mut reader) = feed();
    words[layout::CHANGES_WORD].store(u64::MAX, Relaxed);
    assert_eq!(is_soon(|| reader.take(|_| {})), Ok(Changed::Any));
    assert!(!reader.has_changed());
    let _ = reader.entry(u64::MAX);
}

/// A segment with one value in its first block, and what its entry says.
fn value() -> (Memory, u64) {
    let mut values = Values::default();
    let segment = memory(4096);
    values.add(Arc::clone(&segment));
    let spot = values.take(100).expect("a block");
    let name = values.write(spot, 2, 7, &[5; 100]);
    (segment, name)
}

fn look(segment: &Memory, name: u64, at: u64) -> Result<Read, Misbehaved> {
    let mut bytes = Vec::new();
    let found = is_soon(|| read(at, || name, |_| Some(segment), 1000, &mut bytes));
    assert!(bytes.len() <= 1000);
    found
}

#[test]
fn values_that_cannot_be_are_misbehaviour() {
    let (segment, name) = value();
    assert_eq!(look(&segment, name, 2), Ok(Read::Value(7)));
    assert_eq!(look(&segment, 0, 2), Ok(Read::Nothing));
    assert!(look(&segment, name, 3).is_err(), "another entry's");
    assert!(look(&segment, name | 0x00ff_ffff, 2).is_err(), "beyond its segment");
    for (word, lie) in [
        // Always being written, and never the one that is named.
        (0, u64::MAX),
        (0, 8),
        (1, 1001 | 2 << 32),
        (1, u64::from(u32::MAX) | 2 << 32),
        (1, u64::MAX),
    ] {
        let (segment, name) = value();
        segment[word].store(lie, Relaxed);
        assert!(look(&segment, name, 2).is_err(), "{lie} in word {word}");
    }
    let none = |_: u32| None::<&Memory>;
    let found = read(2, || name, none, 1000, &mut Vec::new());
    assert!(matches!(found, Ok(Read::NoSegment(_))), "{found:?}");
}

/// A version that changes with each look at it: whoever copies gives up.
#[test]
fn a_value_that_never_stays_is_misbehaviour() {
    let (segment, name) = value();
    let lies = AtomicU64::new(7);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                // The same low bits each time, so that it looks like the value that is named.
                segment.words()[0].store(lies.fetch_add(1 << 30, Relaxed), Relaxed);
            }
        });
        for _ in 0..20 {
            // By chance a copy may fall between two lies.
            let found = look(&segment, name, 2);
            assert!(matches!(found, Ok(Read::Value(_)) | Err(Misbehaved(_))), "{found:?}");
        }
        stop.store(true, Relaxed);
    });
}

/// A writer that has no other block left writes to the one that is being copied, between the halves of the copy: the
/// version says so, and the newest value is copied.
#[test]
fn a_value_that_is_overwritten_while_it_is_copied_is_copied_again() {
    const LEN: usize = 48;
    let segment = memory(4096);
    let mut values = Values::default();
    values.add(Arc::clone(&segment));
    let spots = [LEN, LEN].map(|len| values.take(len as u64).expect("a block"));
    let name = AtomicU64::new(0);
    let set = |version: u64| {
        let spot = spots[version as usize % 2];
        name.store(values.write(spot, 2, version, &[version as u8; LEN]), Relaxed);
    };
    let mut newest = 1;
    set(newest);
    for times in 1..20 {
        let (mut left, mut bytes) = (times, Vec::new());
        let halves = |words: &[AtomicU64], bytes: &mut [u8]| {
            let (first, second) = bytes.split_at_mut(LEN / 2);
            copy_out(words, first);
            if left > 0 {
                left -= 1;
                newest += 2;
                set(newest - 1);
                set(newest);
            }
            copy_out(&words[LEN / 2 / 8..], second);
        };
        let entry = || name.load(Relaxed);
        let found = read_by(2, entry, |_| Some(&segment), LEN, &mut bytes, halves);
        assert_eq!((found, left), (Ok(Read::Value(newest)), 0));
        assert_eq!(bytes, [newest as u8; LEN], "a torn value, overwritten {times} times");
    }
}
