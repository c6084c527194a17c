//! Peers of events and of states that lie, with a feed, values and a doorbell of their own: what they say is told by
//! their name, they are gone, and others do not notice.

mod scribble;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::{Release, SeqCst};
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::process;
use switchboard_kernel::shared_memory::{Doorbell, OwnMemory};
use switchboard_shm::layout::feed as layout;
use switchboard_shm::layout::{PAGE_BYTES, VERSION, reader};
use switchboard_shm::values::UNIT_BYTES;
use switchboard_testkit::{DEADLINE, Scratch};

use super::memory::{self, Made};
use super::peer::{dial, hello, say_hello};
use super::scene::own_scratch;
use crate::error::{Error, ErrorKind, WaitError};
use crate::message::{Bytes, Message as _};
use crate::options::Options;
use crate::transport::Setup;
use crate::transport::shm::datagram::Datagram;
use crate::transport::shm::hello::{Pattern, Role};
use crate::transport::shm::tests::raw::Raw;
use crate::transport::shm::{ShmListener, ShmNotifier, ShmStateReader, ShmStateWriter};

/// Of a liar's feed.
const CAPACITY: u64 = 256;
/// What one of the honest says, and no liar.
const HONEST: u64 = 0xfeed_0000_0000_0001;
const HONEST_KEY: &str = "honest";
const KEY: &str = "key";
/// A value that is longer than the one who is lied to takes.
const MOST_BYTES: usize = 4096;
const SEGMENT_BYTES: usize = 16 << 10;
const WORDS_OF_UNIT: usize = UNIT_BYTES as usize / 8;

/// An honest reader, who is lied to, and an honest writer.
enum Pair {
    Event(ShmListener, ShmNotifier),
    State(ShmStateReader, ShmStateWriter, u64),
}

impl Pair {
    fn open(pattern: Pattern) -> (Scratch, Self) {
        let scratch = own_scratch();
        let query = format!("?scope={}&max-message={MOST_BYTES}", scratch.path().display());
        let setup = Setup::new(
            format!("shm:channel{query}").parse().expect("an address"),
            Options::default(),
            Bytes::schema(),
        );
        let mut pair = if pattern == Pattern::Event {
            let listener = ShmListener::open(&setup).expect("a listener");
            Self::Event(listener, ShmNotifier::open(&setup).expect("a notifier"))
        } else {
            let writer = ShmStateWriter::open(&setup).expect("a writer");
            let reader = ShmStateReader::open(&setup).expect("a reader").begin();
            Self::State(reader.expect("a reader"), writer, 0)
        };
        pair.goes_on();
        (scratch, pair)
    }

    /// What the one who is lied to says, and what it has read of the liar.
    fn look(&mut self) -> Option<Error> {
        match self {
            Self::Event(listener, _) => listener.try_wait().err(),
            Self::State(reader, ..) => match reader.watch_any(Deadline::after(Duration::ZERO)) {
                Err(WaitError::Failed(error)) => Some(error),
                _ => reader.keys().err().or_else(|| reader.get(KEY).err()),
            },
        }
    }

    fn peers(&self) -> usize {
        match self {
            Self::Event(listener, _) => listener.peers(),
            Self::State(reader, ..) => reader.peers(),
        }
    }

    /// Waits until it has taken the changes of a liar, which are none to complain of.
    #[track_caller]
    fn until_seen(&mut self, liar: &LyingFeed) {
        let since = Instant::now();
        let mut seen = None;
        while seen != Some(liar.changes) {
            assert!(since.elapsed() < DEADLINE, "its changes are not seen");
            assert_eq!(self.look().map(|error| error.to_string()), None);
            // It is the last one that came.
            seen = match self {
                Self::Event(listener, _) => {
                    listener.ask_core(|core| core.writers.last().map(|one| one.feed.seen()))
                }
                Self::State(reader, ..) => {
                    reader.ask_core(|core| core.writers.last().map(|one| one.feed.seen()))
                }
            }
            .flatten();
        }
    }

    #[track_caller]
    fn until_peers(&mut self, count: usize) {
        let since = Instant::now();
        while self.peers() != count {
            assert_eq!(self.look().map(|error| error.to_string()), None);
            assert!(since.elapsed() < DEADLINE, "{} peers", self.peers());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// It says this of the liar, which is this process.
    #[track_caller]
    fn until_told(&mut self, problem: &str) {
        let since = Instant::now();
        let error = loop {
            if let Some(error) = self.look() {
                break error;
            }
            assert!(since.elapsed() < DEADLINE, "nothing is said of {problem:?}");
            std::thread::sleep(Duration::from_millis(1));
        };
        let name = process::command_name(std::process::id()).expect("a name");
        let liar = format!("process {} ({name}) misbehaved: ", std::process::id());
        let said = error.to_string();
        assert_eq!(error.kind(), ErrorKind::PeerMisbehaved, "{said}");
        assert!(said.contains(&liar) && said.contains(problem), "{said}, not {problem}");
    }

    /// What the honest one says now is there, once, and whole.
    #[track_caller]
    fn goes_on(&mut self) {
        let since = Instant::now();
        match self {
            Self::Event(listener, notifier) => {
                notifier.notify(HONEST, 1).expect("notified");
                loop {
                    match listener.try_wait() {
                        Ok(Some(one)) if one.id == HONEST => return assert_eq!(one.count, 1),
                        Ok(_) => {}
                        Err(error) => assert_of_liar(&error),
                    }
                    assert!(since.elapsed() < DEADLINE, "a lost notification");
                }
            }
            Self::State(reader, writer, number) => {
                *number += 1;
                let value: Vec<u8> = (0..64).flat_map(|at| (*number ^ at).to_le_bytes()).collect();
                writer.set(HONEST_KEY, &value).expect("set");
                loop {
                    match reader.get(HONEST_KEY) {
                        Ok(Some((bytes, _))) if bytes == value => return,
                        // It may not have met its writer yet.
                        Ok(None) if *number == 1 => {}
                        Ok(other) => panic!("{other:?} where {number} was set"),
                        Err(error) => assert_of_liar(&error),
                    }
                    assert!(since.elapsed() < DEADLINE, "a lost value");
                }
            }
        }
    }
}

/// It broke the protocol, or refused.
#[track_caller]
fn assert_of_liar(error: &Error) {
    let kind = error.kind();
    assert!(matches!(kind, ErrorKind::PeerMisbehaved | ErrorKind::Mismatch), "{error}");
}

/// A feed that is as it should be, and empty.
fn feed(pattern: Pattern) -> Made {
    Made {
        len_bytes: layout::bytes(CAPACITY) as usize,
        words: vec![
            (layout::MAGIC_WORD, layout::MAGIC),
            (layout::KIND_WORD, u64::from(VERSION) | (pattern as u64) << 32),
            (layout::CAPACITY_WORD, CAPACITY),
        ],
        ..memory::ring(1)
    }
}

/// Counts to begin with: so many, in a page.
fn counts(count: u64) -> Made {
    Made { words: vec![(0, count)], ..memory::segment(PAGE_BYTES) }
}

/// A notifier, or a writer of values, that lies.
struct LyingFeed {
    raw: Raw,
    bell: Doorbell,
    feed: OwnMemory,
    pattern: Pattern,
    segments: Vec<OwnMemory>,
    entries: u64,
    changes: u64,
}

impl LyingFeed {
    /// Meets the reader that is there.
    fn meet(base: &Path, pattern: Pattern) -> Self {
        let bell = Doorbell::create().expect("a doorbell");
        let feed_bytes = layout::bytes(CAPACITY) as usize;
        let memory = OwnMemory::create("liar", feed_bytes).expect("memory");
        for (index, word) in feed(pattern).words {
            memory.words()[index].store(word, Release);
        }
        let raw = dial(base, pattern, Role::Reader);
        let (bell_fd, feed_fd) = (bell.fd().expect("a descriptor"), memory.read_only_fd());
        let feed_fd = feed_fd.expect("a descriptor");
        say_hello(&raw, &hello(pattern, Role::Writer), &[bell_fd.as_fd(), feed_fd.as_fd()]);
        let _ = raw.take().expect("an answer");
        let (entries, changes) = (0, 0);
        Self { raw, bell, feed: memory, pattern, segments: Vec::new(), entries, changes }
    }

    /// As [`meet`](Self::meet), and the link is open.
    fn open(base: &Path, pattern: Pattern) -> Self {
        let mut liar = Self::meet(base, pattern);
        liar.welcome(1, &counts(0).make());
        if pattern == Pattern::State {
            liar.segment();
        }
        liar
    }

    fn welcome(&self, slot: u32, gift: &OwnedFd) -> bool {
        let welcome = Datagram::Welcome { slot, position: 0, number: 0 };
        let gift = [gift.as_fd()];
        let gift = if self.pattern == Pattern::Event { &gift[..] } else { &[] };
        self.raw.say_it(&welcome, gift)
    }

    fn segment(&mut self) {
        let memory = OwnMemory::create("liar", SEGMENT_BYTES).expect("memory");
        let fd = memory.read_only_fd().expect("a descriptor");
        if self.give(self.segments.len() as u32, fd.as_fd()) {
            self.segments.push(memory);
        }
    }

    fn give(&self, index: u32, fd: BorrowedFd<'_>) -> bool {
        self.raw.say_it(&Datagram::Segment { index, len_bytes: SEGMENT_BYTES as u64 }, &[fd])
    }

    fn put(&self, index: usize, word: u64) {
        self.feed.words()[index].store(word, SeqCst);
    }

    /// An entry, as it should be.
    fn add(&mut self, name: u64) -> u64 {
        let at = self.entries;
        self.put(layout::entry_word(at), name);
        self.entries += 1;
        self.put(layout::COUNT_WORD, self.entries);
        at
    }

    /// A change, as it should be.
    fn change(&mut self, at: u64, value: u64) {
        self.put(layout::entry_word(at) + 1, value);
        self.put(layout::recent_word(self.changes), at);
        self.changes += 1;
        self.put(layout::CHANGES_WORD, self.changes);
        self.raw.wake();
    }

    /// Writes a block: what an entry says of it.
    fn block(&self, unit: usize, version: u64, at: u64, bytes: &[u8]) -> u64 {
        let words = &self.segments[0].words()[unit * WORDS_OF_UNIT..];
        words[0].store(version, SeqCst);
        words[1].store(bytes.len() as u64 | at << 32, SeqCst);
        for (word, chunk) in words[2..].iter().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(eight), SeqCst);
        }
        unit as u64 | version << 34
    }

    /// A key, as it should be, with a value that was not set.
    fn key(&mut self, unit: usize, key: &[u8]) -> u64 {
        let name = self.block(unit, 1, self.entries, key);
        self.add(name)
    }

    /// A key, whose value the entry says this of.
    fn set(&mut self, value: u64) {
        let at = self.key(0, KEY.as_bytes());
        self.change(at, value);
    }
}

/// What a liar does on a link that is open, what is said of it, and of which patterns it can be said.
type Lie = (&'static str, fn(&mut LyingFeed, &mut Pair), &'static str);

const FEED_LIES: &[Lie] = &[
    (
        "changes back",
        |liar, pair| {
            // A state's entry has no value yet.
            let at = if liar.pattern == Pattern::Event { liar.add(7) } else { liar.key(0, b"k") };
            liar.change(at, 0);
            liar.change(at, 0);
            pair.until_seen(liar);
            liar.put(layout::CHANGES_WORD, 1);
        },
        "it counts changes back",
    ),
    (
        "an entry that is not there",
        |liar, _| {
            liar.put(layout::recent_word(0), 9);
            liar.put(layout::CHANGES_WORD, 1);
        },
        "a change of an entry that is not there",
    ),
    (
        "more entries than there is room for",
        |liar, _| {
            liar.put(layout::COUNT_WORD, CAPACITY + 1);
            liar.put(layout::CHANGES_WORD, 1);
        },
        "it counts entries that cannot be",
    ),
    (
        "entries back",
        |liar, pair| {
            let at = if liar.pattern == Pattern::Event { liar.add(7) } else { liar.key(0, b"k") };
            liar.change(at, 0);
            pair.until_seen(liar);
            liar.put(layout::COUNT_WORD, 0);
            liar.change(at, 0);
        },
        "it counts entries that cannot be",
    ),
    (
        "welcome twice",
        |liar, _| assert!(liar.welcome(2, &counts(0).make())),
        "it said welcome out of turn",
    ),
    (
        "a segment out of turn",
        |liar, _| {
            let memory = memory::segment(SEGMENT_BYTES).make();
            assert!(liar.give(7, memory.as_fd()));
        },
        "a segment out of turn",
    ),
    (
        "a segment that may shrink",
        |liar, _| {
            let (_, memory) = memory::wrong(&memory::segment(SEGMENT_BYTES)).swap_remove(1);
            assert!(liar.give(liar.segments.len() as u32, memory.as_fd()));
        },
        "it gave no memory that can be trusted",
    ),
    (
        "a rejection",
        |liar, _| assert!(liar.raw.say_it(&Datagram::Reject { number: 1 }, &[])),
        "a rejection from a ",
    ),
    (
        "an answer to a rejection",
        |liar, _| assert!(liar.raw.say_it(&Datagram::Taken { number: 1 }, &[])),
        "an answer to a rejection from a ",
    ),
    (
        "a sleep",
        |liar, _| assert!(liar.raw.say_it(&Datagram::Sleeps { position: 0 }, &[])),
        "a sleep from a ",
    ),
    (
        "a second hello",
        |liar, _| {
            let hello = Datagram::Hello(hello(liar.pattern, Role::Writer));
            let fds = [liar.bell.fd().expect("a descriptor"); 2];
            assert!(liar.raw.say_it(&hello, &fds));
        },
        "a second hello",
    ),
];

const EVENT_LIES: &[Lie] = &[(
    "notifications back",
    |liar, pair| {
        let at = liar.add(7);
        liar.change(at, 5);
        pair.until_seen(liar);
        liar.change(at, 4);
    },
    "it counts notifications back",
)];

const STATE_LIES: &[Lie] = &[
    ("a block beyond its segment", |liar, _| liar.set(0xff_ffff | 9 << 34), "beyond its segment"),
    (
        "a value longer than its segment",
        |liar, _| {
            let value = liar.block(4, 9, 0, b"");
            liar.segments[0].words()[4 * WORDS_OF_UNIT + 1].store(u64::from(u32::MAX), SeqCst);
            liar.set(value);
        },
        "a value that cannot be",
    ),
    (
        "a value longer than is taken",
        |liar, _| {
            let value = liar.block(4, 9, 0, &[7; MOST_BYTES + 1]);
            liar.set(value);
        },
        "a value that cannot be",
    ),
    (
        "another entry's block",
        |liar, _| {
            let value = liar.block(4, 9, 1, b"x");
            liar.set(value);
        },
        "a value that cannot be",
    ),
    (
        "a version that never fits",
        |liar, _| {
            let value = liar.block(4, 9, 0, b"x");
            liar.set(value + (1 << 34));
        },
        "a value that is never whole",
    ),
    (
        "a value that is always being written",
        |liar, _| {
            let value = liar.block(4, u64::MAX, 0, b"x");
            liar.set(value);
        },
        "a value that is never whole",
    ),
    (
        "a segment that never comes",
        |liar, _| liar.set(4 | 3 << 24 | 9 << 34),
        "a value in a segment that never came",
    ),
    (
        "no key",
        |liar, _| {
            liar.add(0);
        },
        "a key that cannot be",
    ),
    (
        "a key that is no text",
        |liar, _| {
            liar.key(0, &[0xff]);
        },
        "a key that cannot be",
    ),
    (
        "a key of two lines",
        |liar, _| {
            liar.key(0, b"a\nb");
        },
        "a key that cannot be",
    ),
    (
        "a long key",
        |liar, _| {
            liar.key(0, &[b'a'; 256]);
        },
        "a value that cannot be",
    ),
    (
        "a key in a segment that never comes",
        |liar, _| {
            liar.add(4 | 3 << 24 | 9 << 34);
        },
        "a value in a segment that never came",
    ),
    (
        "a key twice",
        |liar, _| {
            liar.key(0, b"a");
            liar.key(8, b"a");
        },
        "a key that is there twice",
    ),
];

/// A liar comes, does this, and is told of and gone; the honest one goes on.
#[track_caller]
fn check(pattern: Pattern, lies: &[Lie]) {
    let (scratch, mut pair) = Pair::open(pattern);
    for (name, lie, problem) in lies {
        let mut liar = LyingFeed::open(scratch.path(), pattern);
        pair.until_peers(2);
        lie(&mut liar, &mut pair);
        pair.until_told(problem);
        liar.raw.until_refused(problem);
        assert_eq!(pair.peers(), 1, "{name}");
        pair.goes_on();
    }
}

#[test]
fn notifiers_that_lie_are_told_of() {
    check(Pattern::Event, FEED_LIES);
    check(Pattern::Event, EVENT_LIES);
}

#[test]
fn writers_of_values_that_lie_are_told_of() {
    check(Pattern::State, FEED_LIES);
    check(Pattern::State, STATE_LIES);
}

/// What is wrong in the memory of a feed.
fn feeds(pattern: Pattern) -> Vec<(&'static str, OwnedFd)> {
    let with = |index, word| feed(pattern).with(index, word).make();
    let other = if pattern == Pattern::Event { Pattern::State } else { Pattern::Event };
    let mut all = vec![
        ("no feed", with(layout::MAGIC_WORD, 0)),
        ("another version", with(layout::KIND_WORD, (pattern as u64) << 32 | 2)),
        ("another pattern", with(layout::KIND_WORD, (other as u64) << 32 | u64::from(VERSION))),
        ("no capacity", with(layout::CAPACITY_WORD, 0)),
        ("twice its capacity", with(layout::CAPACITY_WORD, CAPACITY * 2)),
        ("all the capacity there is", with(layout::CAPACITY_WORD, u64::MAX)),
        ("unknown flags", with(layout::FLAGS_WORD, 2)),
        ("half of it", Made { len_bytes: PAGE_BYTES, ..feed(pattern) }.make()),
    ];
    all.extend(memory::wrong(&feed(pattern)));
    all
}

/// Gives these with its hello.
fn give(scratch: &Scratch, pair: &mut Pair, pattern: Pattern, bell: &OwnedFd, feed: &OwnedFd) {
    let raw = dial(scratch.path(), pattern, Role::Reader);
    say_hello(&raw, &hello(pattern, Role::Writer), &[bell.as_fd(), feed.as_fd()]);
    pair.until_told("");
    raw.until_refused("");
    pair.goes_on();
}

#[test]
fn feeds_and_doorbells_are_believed_only_as_they_have_to_be() {
    for pattern in [Pattern::Event, Pattern::State] {
        let (scratch, mut pair) = Pair::open(pattern);
        let (right_bell, right_feed) = (memory::bell().make(), feed(pattern).make());
        for (_, feed) in feeds(pattern) {
            give(&scratch, &mut pair, pattern, &right_bell, &feed);
        }
        for (_, bell) in memory::wrong(&memory::bell()) {
            give(&scratch, &mut pair, pattern, &bell, &right_feed);
        }
    }
}

#[test]
fn counts_to_begin_with_are_believed_only_as_they_have_to_be() {
    let (scratch, mut pair) = Pair::open(Pattern::Event);
    let room = PAGE_BYTES as u64 / 8 - 1;
    let beyond = [room + 1, u64::MAX].map(|count| ("more than there is room for", counts(count)));
    let beyond = beyond.map(|(name, made)| (name, made.make()));
    for (_, gift) in beyond.into_iter().chain(memory::wrong(&counts(0))) {
        let liar = LyingFeed::meet(scratch.path(), Pattern::Event);
        assert!(liar.welcome(1, &gift));
        pair.until_told("");
        liar.raw.until_refused("");
        pair.goes_on();
    }
    // All that there is room for is right.
    let liar = LyingFeed::meet(scratch.path(), Pattern::Event);
    assert!(liar.welcome(1, &counts(room).make()));
    pair.until_peers(2);
    pair.goes_on();
}

/// A listener, or a reader of values, that lies.
struct LyingFollower {
    raw: Raw,
    page: OwnMemory,
    bell: Doorbell,
}

impl LyingFollower {
    /// Meets the writer that is there, and is welcomed.
    fn open(base: &Path, pattern: Pattern) -> Self {
        let raw = dial(base, pattern, Role::Writer);
        let page = OwnMemory::create("liar", PAGE_BYTES).expect("memory");
        page.words()[reader::VERSION_WORD].store(u64::from(VERSION), Release);
        page.words()[reader::MAGIC_WORD].store(reader::MAGIC, Release);
        let fd = page.read_only_fd().expect("a descriptor");
        say_hello(&raw, &hello(pattern, Role::Reader), &[fd.as_fd()]);
        let (_, descriptors) = raw.take().expect("an answer");
        loop {
            let (bytes, more) = raw.take().expect("a welcome");
            match Datagram::decode_next(&bytes, more.len(), pattern, Role::Writer) {
                Ok(Datagram::Welcome { .. }) => break,
                // What it is to read comes first.
                Ok(Datagram::Segment { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        let bell = descriptors.into_iter().next().expect("a doorbell");
        Self { raw, page, bell: Doorbell::received(bell).expect("a doorbell") }
    }
}

#[test]
fn listeners_and_readers_that_lie_are_turned_away() {
    for pattern in [Pattern::Event, Pattern::State] {
        let (scratch, mut pair) = Pair::open(pattern);
        let lies = [
            (Datagram::Welcome { slot: 1, position: 0, number: 0 }, "a welcome from a "),
            (Datagram::Segment { index: 0, len_bytes: 8 }, "a segment from a "),
            (Datagram::Reject { number: 1 }, "a rejection from a "),
            (Datagram::Taken { number: 1 }, "an answer to a rejection from a "),
            (Datagram::Hello(hello(pattern, Role::Reader)), "a second hello"),
        ];
        for (lie, problem) in lies {
            let liar = LyingFollower::open(scratch.path(), pattern);
            assert!(liar.raw.say_it(&lie, &[]));
            liar.raw.until_refused(problem);
            pair.goes_on();
        }
        for (_, page) in memory::wrong(&memory::page()) {
            let raw = dial(scratch.path(), pattern, Role::Writer);
            say_hello(&raw, &hello(pattern, Role::Reader), &[page.as_fd()]);
            raw.until_refused("page");
            pair.goes_on();
        }
    }
}
