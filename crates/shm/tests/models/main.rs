//! Models in loom: every order in which a writer and readers may come, and every value that a memory as weak
//! as C11's may show them, up to a bound.
//!
//! Source: Norris and Demsky, "CDSchecker: checking concurrent data structures written with C/C++ atomics",
//! OOPSLA 2013, which is what loom does. The algorithms are the product's own files, included here by their
//! paths, over loom's atomics. What is modelled is the futex: a lock and a condition, with the comparison made
//! under the lock, as the kernel makes it. What loom does not show: a store that becomes visible before a load
//! that comes before it in the program.

mod feeds;
mod held;

/// What the product's files are made of, in a model.
mod atomic {
    use std::cell::Cell;
    use std::sync::atomic::Ordering::SeqCst;

    pub(crate) use loom::sync::atomic::{AtomicU64, fence};

    thread_local! {
        /// Somebody may call for barriers, so that the order of the program counts: a fence on each side
        /// stands for that. Where nobody does, there is none. (Threads of a model run on one of the system's.)
        pub(crate) static BARRIERS: Cell<bool> = const { Cell::new(true) };
    }

    pub(crate) fn light_fence() {
        if BARRIERS.get() {
            fence(SeqCst);
        }
    }

    /// What `membarrier` does.
    pub(crate) fn everywhere() {
        assert!(BARRIERS.get(), "nobody was to call for a barrier here");
        fence(SeqCst);
    }

    /// Small ones: a model keeps a history of each word.
    pub(crate) const PAGE_BYTES: usize = 512;
    pub(crate) const LEAST_CAPACITY_BYTES: u64 = 64;
    pub(crate) const RECENT_CHANGES: u64 = 2;
    pub(crate) const SPARE_BLOCKS: usize = 1;
    pub(crate) const LOOKS: u32 = 3;
}

/// What the product has in assembly.
mod machine {
    use std::sync::atomic::Ordering::Relaxed;

    use crate::atomic::AtomicU64;

    pub(crate) const LONG_BYTES: usize = 49;

    pub(crate) fn store_all(words: &[AtomicU64], bytes: &[[u8; 8]]) {
        words
            .iter()
            .zip(bytes)
            .for_each(|(word, chunk)| word.store(u64::from_le_bytes(*chunk), Relaxed));
    }

    pub(crate) fn load_all(words: &[AtomicU64], bytes: &mut [[u8; 8]]) {
        words.iter().zip(bytes).for_each(|(word, chunk)| *chunk = word.load(Relaxed).to_le_bytes());
    }

    pub(crate) fn will_write(_: &AtomicU64) {}

    pub(crate) fn will_read(_: &AtomicU64) {}
}

macro_rules! product {
    ($($path:literal $name:ident;)*) => {$(
        #[path = $path]
        #[allow(dead_code, unreachable_pub, unused_imports, reason = "the models use a part of it")]
        mod $name;
    )*};
}

product! {
    "../../src/arena.rs" arena;
    "../../src/barrier.rs" barrier;
    "../../src/bell.rs" bell;
    "../../src/copy.rs" copy;
    "../../src/cursor.rs" cursor;
    "../../src/feed.rs" feed;
    "../../src/layout.rs" layout;
    "../../src/misbehaved.rs" misbehaved;
    "../../src/ring/mod.rs" ring;
    "../../src/values.rs" values;
    "../../src/words.rs" words;
}

use atomic::AtomicU64;
use copy::{copy_in, copy_out};
use misbehaved::Misbehaved;
use words::Words;

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Instant;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use barrier::{Busy, Sleeper};
use bell::{FutexWord, Sleeps};
use cursor::{OwnCursor, PeerCursor, Unsettled};
use layout::{PAGE_BYTES, reader, writer, writer_bytes};
use ring::{Ahead, Gathering, Kind, RingReader, RingWriter};

#[derive(Clone)]
struct Memory(Arc<Vec<AtomicU64>>);

impl Words for Memory {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

impl Memory {
    fn new(bytes: usize) -> Self {
        Self(Arc::new((0..bytes / 8).map(|_| AtomicU64::new(0)).collect()))
    }
}

/// What the kernel does for those who sleep on words.
#[derive(Clone)]
struct Futex(Arc<(Mutex<()>, Condvar)>);

impl Futex {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(()), Condvar::new())))
    }

    fn wait(&self, word: &AtomicU64, expected: u64) {
        let guard = self.0.0.lock().unwrap();
        if word.load(Relaxed) == expected {
            drop(self.0.1.wait(guard).unwrap());
        }
    }

    fn wake(&self) {
        let _guard = self.0.0.lock().unwrap();
        self.0.1.notify_all();
    }
}

const QUEUE: u32 = 1;
/// The smallest ring: four frames of a word each, of which one is as large as a frame may be.
const CAPACITY: u64 = 64;

fn ring(lossy: bool) -> (RingWriter<Memory>, RingReader<Memory>) {
    ring_of(CAPACITY, lossy)
}

fn ring_of(capacity: u64, lossy: bool) -> (RingWriter<Memory>, RingReader<Memory>) {
    let memory = Memory::new(writer_bytes(capacity as usize));
    let writer =
        RingWriter::create(memory.clone(), QUEUE, capacity, lossy, Busy::TakesPart).unwrap();
    let reader = RingReader::open(memory, 0, 0).unwrap();
    (writer, reader)
}

fn page() -> (OwnCursor<Memory>, PeerCursor<Memory>) {
    let memory = Memory::new(PAGE_BYTES);
    let own = OwnCursor::create(memory.clone(), Busy::TakesPart);
    let peer = PeerCursor::open(memory, 0).unwrap();
    (own, peer)
}

fn put(writer: &mut RingWriter<Memory>, number: u64) -> bool {
    let Some(claim) = writer.claim(8) else { return false };
    writer.write(&claim, 0, &(number * 7).to_le_bytes());
    writer.commit(claim, Kind::Message, 8);
    true
}

fn take(reader: &mut RingReader<Memory>) -> Option<u64> {
    let frame = reader.poll().unwrap()?;
    let mut bytes = [0; 8];
    reader.copy(&frame, 0, &mut bytes);
    reader.advance(&frame);
    assert_eq!(u64::from_le_bytes(bytes), frame.number * 7, "the payload of another message");
    Some(frame.number)
}

/// Takes what is there, looked at before it goes on. How many messages that were.
fn take_ahead(reader: &mut RingReader<Memory>) -> usize {
    let mut places = [Ahead::default(); 3];
    let seen = reader.look_ahead(8, &mut places);
    for (number, place) in (reader.number() + 1..).zip(&places[..seen]) {
        let mut bytes = [0; 8];
        copy_out(&reader.memory().words()[place.word..], &mut bytes);
        assert_eq!(u64::from_le_bytes(bytes), number * 7, "the payload of another message");
    }
    if let Some(last) = places[..seen].last() {
        reader.pass_ahead(seen, last);
    }
    seen
}

/// Runs a model in every order within bounds, and says how many there were. `SWITCHBOARD_MODELS=all` asks for more
/// switches away from a thread that could go on.
#[allow(clippy::print_stdout)]
fn model(check: impl Fn() + Sync + Send + 'static) {
    let all = std::env::var_os("SWITCHBOARD_MODELS").is_some_and(|asked| asked == "all");
    let switches = if all { 5 } else { 3 };
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    let (runs, started) =
        (std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)), Instant::now());
    let counted = std::sync::Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        check();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!(
        "{name}: {} runs, {switches} switches, {:.1} s",
        runs.load(Relaxed),
        started.elapsed().as_secs_f64()
    );
}

#[test]
fn what_is_committed_is_read_whole_and_in_order() {
    model(|| {
        let (mut writer, mut reader) = ring(false);
        let writing = thread::spawn(move || {
            assert!(put(&mut writer, 1) && put(&mut writer, 2) && put(&mut writer, 3));
        });
        let mut last = 0;
        for _ in 0..4 {
            if let Some(number) = take(&mut reader) {
                assert_eq!(number, last + 1);
                last = number;
            }
        }
        writing.join().unwrap();
        while let Some(number) = take(&mut reader) {
            last = number;
        }
        assert_eq!(last, 3);
    });
}

#[test]
fn what_is_gathered_is_seen_together_and_in_order() {
    model(|| {
        // An eighth of it has room for all of them.
        let (mut writer, mut reader) = ring_of(8 * CAPACITY, false);
        let writing = thread::spawn(move || {
            assert!(put(&mut writer, 1));
            let mut gathering = writer.gather(64);
            assert!(gathering.add(writer.memory().words(), &14_u64.to_le_bytes()));
            assert!(gathering.add(writer.memory().words(), &21_u64.to_le_bytes()));
            assert!(writer.commit_gathered(&mut gathering));
        });
        let mut last = 0;
        for _ in 0..2 {
            if let Some(number) = take(&mut reader) {
                assert_eq!(number, last + 1);
                last = number;
            }
        }
        if last == 2 {
            assert_eq!(take_ahead(&mut reader), 1, "it was there before the second one was");
        }
        writing.join().unwrap();
        take_ahead(&mut reader);
        assert_eq!(reader.number(), 3);
    });
}

#[test]
fn what_was_overwritten_is_never_handed_out() {
    model(|| {
        let (mut writer, mut reader) = ring(true);
        let writing = thread::spawn(move || {
            for number in 1..=5 {
                assert!(put(&mut writer, number));
            }
        });
        let (mut seen, mut missing) = (0, 0);
        let mut look = |reader: &mut RingReader<Memory>, tries: u32| {
            for _ in 0..tries {
                let mut bytes = Vec::new();
                match reader.take_lossy(&mut bytes, |_, _, _| Ok(())).unwrap() {
                    Ok(Some(frame)) => {
                        let payload = u64::from_le_bytes(bytes.try_into().unwrap());
                        assert_eq!(payload, frame.number * 7, "the payload of another message");
                        reader.advance(&frame);
                        seen += 1;
                        missing += frame.missing;
                    }
                    Ok(None) => {}
                    Err(overtaken) => reader.catch_up(overtaken).unwrap(),
                }
            }
        };
        look(&mut reader, 2);
        writing.join().unwrap();
        look(&mut reader, 8);
        assert_eq!(seen + missing, 5);
    });
}

#[test]
fn a_reader_that_sleeps_is_woken() {
    is_woken(false);
}

#[test]
fn a_reader_that_sleeps_is_woken_for_what_was_gathered() {
    is_woken(true);
}

fn is_woken(gathers: bool) {
    model(move || {
        let (mut writer, mut reader) = ring(false);
        let bell = Memory::new(PAGE_BYTES);
        let futex = Futex::new();
        let (ring_bell, kernel) = (bell.clone(), futex.clone());
        let writing = thread::spawn(move || {
            let look = |busy| {
                bell::after_commit(&ring_bell, 1, busy, |_, word| {
                    assert!(bell::in_word(word, 3).is_some());
                    FutexWord::SHARED.change_for_wake(&ring_bell);
                    kernel.wake();
                });
            };
            let mut gathering = if gathers { writer.gather(64) } else { Gathering::default() };
            for number in 1..=2_u64 {
                if gathers {
                    assert!(gathering.add(writer.memory().words(), &(number * 7).to_le_bytes()));
                } else {
                    assert!(put(&mut writer, number));
                    look(writer.busy());
                }
            }
            if gathers {
                assert!(writer.commit_gathered(&mut gathering));
                look(writer.busy());
            }
        });
        let mut last = 0;
        let mut turn = 0;
        let mut sleeper = Sleeper::new(reader.busy());
        while last < 2 {
            if let Some(number) = take(&mut reader) {
                last = number;
                // It goes on for long without a sleep: the next one needs a barrier again.
                if (0..8).any(|_| sleeper.step()) {
                    bell::lower(&bell, 3, &mut sleeper);
                }
                continue;
            }
            turn += 1;
            let there = FutexWord::SHARED.before_sleep(&bell);
            bell::raise(&bell, 3, Sleeps::OnFutex, turn, &mut sleeper);
            sleeper.pass(atomic::everywhere);
            if reader.polled_word().load(Acquire) == 0 {
                futex.wait(FutexWord::SHARED.word(&bell), there.into());
            }
            bell::awake(&bell, 3, &mut sleeper);
        }
        writing.join().unwrap();
    });
}

/// Whoever slept before calls for no barrier again: its word says so, and the other side fences.
#[test]
fn a_reader_that_slept_lately_is_woken_without_a_barrier() {
    model(|| {
        let (mut writer, mut reader) = ring(false);
        let (bell, futex) = (Memory::new(PAGE_BYTES), Futex::new());
        let mut sleeper = Sleeper::new(reader.busy());
        atomic::BARRIERS.set(true);
        sleeper.pass(atomic::everywhere);
        bell::awake(&bell, 3, &mut sleeper);
        atomic::BARRIERS.set(false);
        let (ring_bell, kernel) = (bell.clone(), futex.clone());
        let writing = thread::spawn(move || {
            assert!(put(&mut writer, 1));
            bell::after_commit(&ring_bell, 1, writer.busy(), |_, _| {
                FutexWord::of(3).change_for_wake(&ring_bell);
                kernel.wake();
            });
        });
        while take(&mut reader).is_none() {
            let there = FutexWord::of(3).before_sleep(&bell);
            bell::raise(&bell, 3, Sleeps::OnFutex, 1, &mut sleeper);
            sleeper.pass(atomic::everywhere);
            if reader.polled_word().load(Acquire) == 0 {
                futex.wait(FutexWord::of(3).word(&bell), there.into());
            }
            bell::awake(&bell, 3, &mut sleeper);
        }
        writing.join().unwrap();
        atomic::BARRIERS.set(true);
    });
}

#[test]
fn two_readers_that_share_a_word_of_the_doorbell_are_both_woken() {
    model(|| {
        let (mut writer, reader) = ring(false);
        let bell = Memory::new(PAGE_BYTES);
        let futex = Futex::new();
        let readers: Vec<_> = (0..2)
            .map(|slot| {
                let memory = reader.memory().clone();
                let (bell, futex) = (bell.clone(), futex.clone());
                thread::spawn(move || {
                    let reader = RingReader::open(memory, 0, 0).unwrap();
                    let mut sleeper = Sleeper::new(reader.busy());
                    let mut turn = 0;
                    while reader.polled_word().load(Acquire) == 0 {
                        turn += 1;
                        let there = FutexWord::SHARED.before_sleep(&bell);
                        bell::raise(&bell, slot, Sleeps::OnFutex, turn, &mut sleeper);
                        sleeper.pass(atomic::everywhere);
                        if reader.polled_word().load(Acquire) == 0 {
                            futex.wait(FutexWord::SHARED.word(&bell), there.into());
                        }
                        bell::awake(&bell, slot, &mut sleeper);
                    }
                })
            })
            .collect();
        assert!(put(&mut writer, 1));
        bell::after_commit(&bell, 1, writer.busy(), |_, word| {
            assert!((0..2).any(|slot| bell::in_word(word, slot).is_some()));
            FutexWord::SHARED.change_for_wake(&bell);
            futex.wake();
        });
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_writer_that_waits_for_room_is_woken() {
    model(|| {
        let (mut writer, mut reader) = ring(false);
        let (own, mut peer) = page();
        let futex = Futex::new();
        let kernel = futex.clone();
        // Full: a header's room is kept.
        assert!((1..=3).all(|number| put(&mut writer, number)));
        let wanted = reader.memory().clone();
        let reading = thread::spawn(move || {
            assert_eq!(take(&mut reader), Some(1));
            own.store(reader.position());
            if own.writer_sleeps(&wanted.words()[writer::WANTED_WORD]).is_some() {
                kernel.wake();
            }
        });
        let mut sleeper = Sleeper::new(peer.busy());
        while !put(&mut writer, 4) {
            let cursor = peer.load(writer.head()).unwrap();
            writer.set_smallest_cursor(cursor);
            if put(&mut writer, 4) {
                break;
            }
            writer.set_wanted(Sleeps::OnFutex.number());
            sleeper.pass(atomic::everywhere);
            if peer.peek(writer.head()) == Ok(cursor) {
                futex.wait(&peer.memory().words()[reader::CURSOR_WORD], cursor);
            }
            writer.set_wanted(sleeper.awake());
        }
        reading.join().unwrap();
    });
}

#[test]
fn what_is_settled_is_settled_whatever_the_order() {
    model(|| {
        let (own, mut peer) = page();
        let mut unsettled = Unsettled::new(1);
        for number in 1..=3 {
            unsettled.take(number * 16);
        }
        unsettled.settle(2, &own);
        assert!(peer.is_marked(2) && peer.load(48) == Ok(0));
        let settling = thread::spawn(move || {
            unsettled.settle(1, &own);
            unsettled.settle(3, &own);
        });
        // What a sender finds whose receiver dies at this moment.
        let marked = peer.is_marked(2);
        let cursor = peer.load(48).unwrap();
        assert!([0, 32, 48].contains(&cursor), "{cursor}");
        assert!(!marked || cursor != 16);
        settling.join().unwrap();
        assert_eq!(peer.load(48), Ok(48));
        assert!(!peer.is_marked(2));
    });
}
