//! Peers that write at random whatever they can write, all the time, while honest messages flow.
//!
//! `cargo xtask prove hostile` runs this for longer: `SWITCHBOARD_HOSTILE_SECONDS`. What is random follows from
//! a seed, which is said when something fails: `SWITCHBOARD_HOSTILE_SEED` takes it again.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use switchboard_kernel::shared_memory::OwnMemory;
use switchboard_kernel::unix_socket;
use switchboard_shm::layout::{PAGE_BYTES, reader, writer};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::skip::say;

use super::memory::CAPACITY_BYTES;
use super::peer::{END, FILLED, LyingReader, LyingWriter, MESSAGE, PREFIXED, header};
use super::scene::Scene;
use crate::transport::shm::datagram::{Datagram, WAKE};
use crate::transport::shm::hello::{Pattern, Role};
use crate::transport::shm::tests::raw::Raw;

/// For each kind of liar.
const QUICK: Duration = Duration::from_millis(800);

/// Liars at a time.
const LIARS: u64 = 2;

/// What the one who is lied to may have more meanwhile.
const MORE_KIB: u64 = 64 << 10;
const MORE_DESCRIPTORS: u64 = 64;

fn seconds() -> Option<u64> {
    let asked = std::env::var("SWITCHBOARD_HOSTILE_SECONDS").ok()?;
    Some(asked.parse().expect("a number of seconds"))
}

pub(super) fn seed() -> u64 {
    if let Ok(seed) = std::env::var("SWITCHBOARD_HOSTILE_SEED") {
        return seed.parse().expect("a number");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    now.as_nanos() as u64
}

/// How long liars of each kind go on.
pub(super) fn lasts() -> Duration {
    seconds().map_or(QUICK, Duration::from_secs)
}

/// Says the seed when a check fails.
pub(super) struct Seed(pub(super) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("what was random came from SWITCHBOARD_HOSTILE_SEED={}", self.0));
        }
    }
}

/// Numbers that look random and are the same for the same seed (xorshift64*, Vigna 2016).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end.max(1)
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Anything, numbers at the ends of all, small ones, and headers that are nearly right.
    pub(super) fn word(&mut self, number: u64) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => 0,
            2 => self.below(1000) * 8,
            3 => u64::MAX - self.below(64),
            4 => 1 << self.below(64),
            5 => (u64::MAX / 2).wrapping_add(self.below(64)).wrapping_sub(32),
            6 => header(self.below(16), self.below(9000), self.below(4)),
            _ => {
                let kind = (1 + self.below(5)) | (self.below(2) * FILLED);
                header(kind, self.below(100), number.wrapping_add(self.below(3)))
            }
        }
    }
}

/// Lets liars do this for a while, and looks that all others go on.
fn scribble(pattern: Pattern, victim: Role, query: &str, lie: fn(&mut Random, &Path, Pattern)) {
    let seed = Seed(seed());
    let lasts = lasts();
    let io_thread = seed.0.is_multiple_of(2);
    let query = format!("&max-message=1MiB{query}");
    let mut scene = Scene::with(pattern, victim, &query, io_thread);
    scene.begin("at random");
    scene.victim.forgive();
    let before = scene.victim.resources();
    let (begin, lies) = (Instant::now(), AtomicU64::new(0));
    let (mut most, mut longest) = (before, Duration::ZERO);
    std::thread::scope(|scope| {
        let base = scene.scratch.path().to_owned();
        let running: Vec<_> = (0..LIARS)
            .map(|liar| {
                let (base, lies, mut random) = (&base, &lies, Random::new(seed.0 ^ liar << 60));
                let base = base.clone();
                scope.spawn(move || {
                    while begin.elapsed() < lasts {
                        lie(&mut random, &base, pattern);
                        lies.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        while running.iter().any(|liar| !liar.is_finished()) {
            longest = longest.max(scene.goes_on());
            let now = scene.victim.resources();
            most.resident_kib = most.resident_kib.max(now.resident_kib);
            most.descriptors = most.descriptors.max(now.descriptors);
            assert!(now.resident_kib < before.resident_kib + MORE_KIB, "{before:?}: {now:?}");
            assert!(now.descriptors < before.descriptors + MORE_DESCRIPTORS, "{before:?}: {now:?}");
        }
    });
    let told = scene.victim.told();
    let kib = (before.resident_kib, most.resident_kib);
    tell(&format!(
        "{} lies to a {pattern:?} {victim:?} ({query}, thread: {io_thread}), told {told} times; longest pause {longest:?}; {} to {} KiB, \
         {} to {} descriptors; seed {}",
        lies.load(SeqCst),
        kib.0,
        kib.1,
        before.descriptors,
        most.descriptors,
        seed.0
    ));
    assert!(lies.load(SeqCst) > 10, "{} lies", lies.load(SeqCst));
    assert_eq!(told > 0, victim == Role::Reader, "who reads is told: {told}");
    scene.end();
}

/// Says it to `cargo xtask prove hostile`, if that asks, by the file that it reads, as a line that is no result of killstep.
pub(super) fn tell(text: &str) {
    if seconds().is_none() {
        return;
    }
    let file = std::env::var_os("SWITCHBOARD_KILLS");
    let file = file.and_then(|path| OpenOptions::new().append(true).open(path).ok());
    match file {
        Some(mut file) => {
            let _ = writeln!(file, "0\t0\thostile: {text}");
        }
        None => say(text),
    }
}

#[test]
fn publishers_that_scribble_disturb_nobody() {
    scribble(Pattern::Topic, Role::Reader, "", writes);
}

#[test]
fn senders_that_scribble_disturb_nobody() {
    scribble(Pattern::Queue, Role::Reader, "", writes);
}

#[test]
fn subscribers_that_scribble_disturb_nobody() {
    scribble(Pattern::Topic, Role::Writer, "", reads);
}

/// To one that drops the oldest, and so waits for nobody.
#[test]
fn subscribers_that_scribble_disturb_no_publisher_that_drops() {
    scribble(Pattern::Topic, Role::Writer, "&overflow=drop-oldest", reads);
}

#[test]
fn receivers_that_scribble_disturb_nobody() {
    scribble(Pattern::Queue, Role::Writer, "", reads);
}

pub(super) fn is_open(raw: &Raw) -> bool {
    let said = unix_socket::send(&raw.0, &WAKE);
    said.is_ok() || said.is_err_and(|error| error.name() == "EAGAIN")
}

/// One link of a writer, as long as its reader bears it.
fn writes(random: &mut Random, base: &Path, pattern: Pattern) {
    let lossy = pattern == Pattern::Topic && random.below(2) == 0;
    let mut liar = LyingWriter::meet(base, pattern, lossy);
    liar.position = random.one_of(&[0, 4096, (1 << 32) - 4096, (u64::MAX / 2) & !7]);
    liar.number = random.one_of(&[0, 1, (1 << 32) - 5, u64::MAX / 2]);
    liar.ring.words()[writer::TAIL_WORD].store(liar.position, SeqCst);
    let slot = random.below(64) as u32;
    liar.welcome(slot, liar.position, liar.number);
    // Some lie at once, and others when they are known.
    let honest = random.below(200);
    for _ in 0..random.below(400) {
        if random.below(20) == 0 && !is_open(&liar.raw) {
            return;
        }
        if random.below(200) < honest {
            tells_the_truth(random, &mut liar, lossy);
        } else {
            writes_at_random(random, &mut liar);
        }
    }
    if random.below(2) == 0 {
        liar.frame(END, b"");
    }
}

/// As an honest writer, which waits for its reader.
fn tells_the_truth(random: &mut Random, liar: &mut LyingWriter, lossy: bool) {
    let len = random.one_of(&[0, 8, 60, 500, 4000]);
    let room = len + 64;
    let since = Instant::now();
    while !lossy && liar.position.wrapping_sub(liar.read()) > CAPACITY_BYTES as u64 - room {
        if since.elapsed() > Duration::from_millis(5) {
            return;
        }
        liar.raw.wake();
        std::thread::yield_now();
    }
    let payload = vec![random.next() as u8; len as usize];
    match random.below(8) {
        0 if liar.segments.len() < 20 => {
            let bytes = PAGE_BYTES << random.below(5);
            liar.try_segment(OwnMemory::create("liar", bytes).expect("memory"));
        }
        1 if !liar.segments.is_empty() => {
            let segment = random.below(liar.segments.len() as u64);
            liar.in_arena(segment, random.below(256) * 8, random.below(2000));
        }
        2 if len >= 8 && liar.pattern == Pattern::Queue => {
            liar.ring.words()[writer::PRIORITIES_WORD].store(1, SeqCst);
            liar.frame(PREFIXED, &payload);
        }
        _ => liar.frame(MESSAGE, &payload),
    }
}

/// One of all the things that it can write.
fn writes_at_random(random: &mut Random, liar: &mut LyingWriter) {
    let word = random.word(liar.number);
    match random.below(12) {
        0 => liar.put(liar.position, word),
        1 => liar.put(liar.position + random.below(16) * 8, word),
        2 => liar.ring.words()[random.below(512) as usize].store(word, SeqCst),
        3 => {
            let known = [writer::PRIORITIES_WORD, writer::TAIL_WORD, writer::WANTED_WORD];
            liar.ring.words()[random.one_of(&known)].store(word, SeqCst);
        }
        4 => {
            let ahead = random.below(4 * CAPACITY_BYTES as u64) & !7;
            liar.ring.words()[writer::TAIL_WORD].store(liar.position + ahead, SeqCst);
        }
        5 => {
            let words = liar.ring.words();
            for _ in 0..2000 {
                let at = random.below(words.len() as u64) as usize;
                words[at].store(random.word(liar.number), SeqCst);
            }
        }
        6 => liar.bell.words()[random.below(512) as usize].store(word, SeqCst),
        7 => {
            let numbers = (random.word(0), random.word(0), random.word(0));
            liar.in_arena(numbers.0 % 1030, numbers.1, numbers.2);
        }
        8 => {
            if let Some(segment) = liar.segments.last() {
                segment.words().iter().for_each(|place| place.store(word, SeqCst));
            }
        }
        9 => {
            let kind = 1 + random.below(15);
            let frame = header(kind, random.below(9000), liar.number + 1);
            liar.put(liar.position, frame);
        }
        10 => says_at_random(random, &liar.raw, true),
        _ => {
            // A payload that changes is nobody's but the liar's.
            let begin = liar.position.saturating_sub(random.below(4096)) & !7;
            liar.word(begin).store(word, SeqCst);
        }
    }
}

pub(super) fn says_at_random(random: &mut Random, raw: &Raw, may_leave: bool) {
    let number = random.word(0);
    // Who leaves a queue in peace has settled what its bits say: so this is not for those.
    let datagram = match random.below(if may_leave { 8 } else { 6 }) {
        0 => Datagram::Reject { number },
        1 => Datagram::Taken { number },
        6 => Datagram::Leave,
        7 => Datagram::Refuse("no".into()),
        4 => Datagram::Welcome { slot: number as u32, position: random.word(0), number },
        5 => {
            let bytes: Vec<u8> = (0..random.below(1100)).map(|_| random.next() as u8).collect();
            let _ = unix_socket::send(&raw.0, &bytes);
            return;
        }
        _ => Datagram::Wake,
    };
    raw.say_it(&datagram, &[]);
}

/// One link of a reader.
fn reads(random: &mut Random, base: &Path, pattern: Pattern) {
    let mut liar = LyingReader::open(base, pattern);
    for _ in 0..random.below(600) {
        if random.below(20) == 0 && !is_open(&liar.raw) {
            return;
        }
        liar.read_on();
        if pattern == Pattern::Topic {
            liar.cursor(liar.position);
        }
        reads_at_random(random, &liar, pattern);
    }
    // What it said of a queue's messages is not to count, for others are to get all: so it lies once more.
    liar.cursor(u64::MAX - 7);
    let since = Instant::now();
    while pattern == Pattern::Queue && is_open(&liar.raw) {
        assert!(since.elapsed() < DEADLINE, "a cursor that jumps is not seen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn reads_at_random(random: &mut Random, liar: &LyingReader, pattern: Pattern) {
    let word = random.word(0);
    match random.below(10) {
        0..3 => {
            // A cursor says what is settled, and so is no nonsense in itself.
            let at = random.below(512) as usize;
            if at != reader::CURSOR_WORD {
                liar.page.words()[at].store(word, SeqCst);
            }
        }
        3 => {
            let at = reader::SETTLED_WORD + random.below(8) as usize;
            liar.page.words()[at].store(word, SeqCst);
        }
        4..6 => liar.bell.words()[random.below(512) as usize].store(word, SeqCst),
        6 => liar.bell.words()[random.below(8) as usize].store(word, SeqCst),
        7 => liar.ring_bell(random.below(16) as usize, random.below(256)),
        8 if random.below(8) == 0 => says_at_random(random, &liar.raw, pattern == Pattern::Topic),
        8 if pattern == Pattern::Queue => {
            let number = random.below(40);
            liar.raw.say_it(&Datagram::Reject { number }, &[]);
        }
        _ if random.below(100) == 0 && pattern == Pattern::Topic => liar.cursor(word),
        _ => {}
    }
}
