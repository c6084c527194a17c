//! At length under `cargo xtask prove event` and `prove state`, for a second or a little longer otherwise: no wake-up is
//! lost, no value is torn, and reading costs the same whatever the writer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use switchboard::{Event, Listener, Occurrence, State, WaitError};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::skip::say;
use switchboard_testkit::{DEADLINE, unique};

fn seconds() -> Duration {
    let asked = std::env::var("SWITCHBOARD_PROOF_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(1))
}

/// Waits for the next event of an id. One that nobody wakes is woken by the backstop after a second, and counted.
fn next(listener: &mut Listener, expected: u64) {
    let occurrence = wait(listener);
    assert_eq!((occurrence.id, occurrence.count), (0, 1), "round {expected}");
}

/// What comes next. A processor may be stuck for longer than a deadline (the kernel says so: "workqueue lockup"), and then
/// who is bound to it answers late; what is lost never comes.
fn wait(listener: &mut Listener) -> Occurrence {
    match listener.wait_timeout(DEADLINE) {
        Err(WaitError::TimedOut) => listener.wait_timeout(DEADLINE).expect("a lost notification"),
        result => result.expect("a notification"),
    }
}

/// Role: answers each event with one, until it is told that those were all.
pub(crate) fn echo(arguments: &[String]) {
    let [asks, answers] = [0, 1].map(|at| Event::open(&arguments[at]).expect("an event"));
    let mut listener = asks.listener().expect("a listener");
    let mut notifier = answers.notifier().expect("a notifier");
    report("open");
    let mut rounds = 0;
    loop {
        let occurrence = wait(&mut listener);
        if occurrence.id == 1 {
            break;
        }
        assert_eq!(occurrence.count, 1);
        notifier.notify().expect("notified");
        rounds += 1;
    }
    report(format!("{rounds}"));
    assert_eq!(instruction().as_deref(), Some("close"));
}

/// How many sleeps of the ends of a channel nobody ended although there was something.
fn late(address: &str) -> (u64, u64) {
    let address = address.parse().expect("an address");
    let channel = switchboard::counters::look(&address, DEADLINE).expect("ends");
    let counts = channel.ends.iter().map(|end| end.answer.as_ref().expect("an answer"));
    counts.fold((0, 0), |(late, waits), one| (late + one.late, waits + one.waits))
}

/// How often the processors of this thread did nothing for anybody for a while, although asked every few milliseconds: as
/// long as a sleep that counts as late, or nearly. Who is given no processor wakes nobody.
pub(super) struct Stalls {
    over: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    counter: JoinHandle<()>,
}

impl Stalls {
    pub(super) fn begin() -> Self {
        let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (Arc::clone(&over), Arc::clone(&count));
        let counter = std::thread::spawn(move || {
            let mut last = Instant::now();
            while !told.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                let now = Instant::now();
                if now.duration_since(last) > Duration::from_millis(500) {
                    counted.fetch_add(1, Relaxed);
                }
                last = now;
            }
        });
        Self { over, count, counter }
    }

    /// How many sleeps may have been late for want of a processor: either side may sleep through each stall.
    pub(super) fn excuse(&self) -> u64 {
        2 * self.count.load(Relaxed)
    }

    pub(super) fn end(self) -> u64 {
        self.over.store(true, Relaxed);
        self.counter.join().expect("counted");
        self.count.load(Relaxed)
    }
}

/// Rounds of a short run, at least. Where both are on one processor each round has a sleep or two: of wake-ups that are
/// lost once in a thousand times there are 20 among them.
const ROUNDS: u64 = 20_000;
/// Late sleeps of a short run among other tests that do not fail it, as many as a quarter of a lost wake-up in a
/// thousand. One of 35,456 rounds was seen on a busy machine, without a stall of this process; whether the other one
/// was kept off the processor then is not known.
const SPARE: u64 = ROUNDS / 1000 / 4;

fn ping_pong(starter: &[&str], name: &str) -> (u64, u64) {
    let stalls = Stalls::begin();
    // In full each counts.
    let in_full = seconds() > Duration::from_secs(1);
    let (spare, enough) = if in_full { (0, 0) } else { (SPARE, ROUNDS) };
    let [asks, answers] = ["asks", "answers"].map(|what| format!("shm:{}", unique(what)));
    let mut echo = Child::role_under(starter, "event-echo", &[&asks, &answers]);
    echo.expect("open");
    let mut listener = Event::open(&answers).and_then(|event| event.listener()).expect("an end");
    let mut notifier = Event::open(&asks).and_then(|event| event.notifier()).expect("an end");
    let (started, mut rounds, mut longest) = (Instant::now(), 0_u64, Duration::ZERO);
    let (mut last, mut next_look) = (started, seconds());
    let (lost, sleeps) = loop {
        for _ in 0..64 {
            notifier.notify().expect("notified");
            next(&mut listener, rounds);
            rounds += 1;
        }
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut last, now));
        longest = longest.max(took);
        // To look takes as long as some rounds.
        if now.duration_since(started) < next_look {
            continue;
        }
        next_look += Duration::from_millis(200);
        let ((late_asks, waits), (late_answers, more)) = (late(&asks), late(&answers));
        let (lost, sleeps) = (late_asks + late_answers, waits + more);
        if rounds >= enough || lost > stalls.excuse() + spare {
            break (lost, sleeps);
        }
    };
    let took = started.elapsed();
    notifier.notify_id(1).expect("notified");
    assert_eq!(echo.line().as_deref(), Some(rounds.to_string().as_str()));
    echo.tell("close");
    let stalls = stalls.end();
    let what = format!(
        "{rounds} rounds, 64 of them took {longest:?} at most, {sleeps} sleeps, {stalls} stalls"
    );
    assert!(lost <= 2 * stalls + spare, "{lost} sleeps that nobody ended: {what}");
    say(&format!("{name}: {what}; {:.1} s, {lost} late in a stall", took.as_secs_f64()));
    (rounds, sleeps)
}

#[test]
fn proof_event_each_wake_up_arrives() {
    ping_pong(&[], "events");
}

/// Both on one processor, so that each sleeps each time.
#[test]
fn proof_event_each_wake_up_arrives_on_one_processor() {
    let allowed = rustix::thread::sched_getaffinity(None).expect("processors");
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|&at| allowed.is_set(at)).expect("one");
    let mut only = rustix::thread::CpuSet::new();
    only.set(first);
    // Of this thread, which ends with the test.
    rustix::thread::sched_setaffinity(None, &only).expect("pinned");
    let starter = ["taskset", "-c", &first.to_string()];
    let (rounds, sleeps) = ping_pong(&starter, "events, on one processor");
    assert!(sleeps >= rounds / 2, "{sleeps} sleeps in {rounds} rounds");
}

/// A value that says its number in every word.
fn value(number: u64, words: usize) -> Vec<u8> {
    (0..words as u64).flat_map(|at| (number ^ at).to_le_bytes()).collect()
}

fn is_whole(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let first = words.first().map_or(0, |word| u64::from_le_bytes(*word));
    rest.is_empty()
        && words.iter().enumerate().all(|(at, word)| u64::from_le_bytes(*word) ^ at as u64 == first)
}

/// Role: sets a value of so many words as fast as it can while it is told to, `go`, and stops at `stop`.
pub(crate) fn storm(arguments: &[String]) {
    let mut writer = State::open(&arguments[0]).and_then(|state| state.writer()).expect("a writer");
    let words: usize = arguments[1].parse().expect("a number");
    writer.set_key("key", &value(0, words)).expect("set");
    report("open");
    let mut number = 0_u64;
    while instruction().is_some_and(|order| order == "go") {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(instruction().as_deref(), Some("stop"));
                stop.store(true, Relaxed);
            });
            let mut bytes = value(0, words);
            while !stop.load(Relaxed) {
                for _ in 0..256 {
                    number += 1;
                    for (at, word) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                        *word = (number ^ at as u64).to_le_bytes();
                    }
                    writer.set_key("key", &bytes).expect("set");
                }
            }
        });
        report(format!("{number}"));
    }
}

/// Reads for so long: how often, and the longest of a sample.
fn read_for(
    reader: &mut switchboard::pattern::state::Reader,
    time: Duration,
) -> (u64, Duration, Vec<Duration>) {
    let (started, mut reads, mut newest) = (Instant::now(), 0_u64, 0);
    let mut samples = Vec::new();
    while started.elapsed() < time {
        let before = Instant::now();
        for _ in 0..64 {
            let value = reader.get_key("key").expect("read").expect("a value");
            assert!(is_whole(&value.bytes), "a torn value, version {}", value.version);
            assert!(value.version >= newest, "{} after {newest}", value.version);
            newest = value.version;
        }
        reads += 64;
        if samples.len() < 1 << 20 {
            samples.push(before.elapsed() / 64);
        }
    }
    samples.sort_unstable();
    (reads, started.elapsed(), samples)
}

fn storm_of(words: usize) {
    let address = format!("shm:{}", unique("storm"));
    let mut writer = Child::role("key-storm", &[address.clone(), words.to_string()]);
    writer.expect("open");
    let mut reader = State::open(&address).and_then(|state| state.reader()).expect("a reader");
    let (quiet, took, samples) = read_for(&mut reader, Duration::from_millis(300));
    let cost = |reads: u64, took: Duration| took.as_nanos() as f64 / reads as f64;
    let median = |samples: &[Duration]| samples.get(samples.len() / 2).copied().unwrap_or_default();
    let before = (cost(quiet, took), median(&samples));
    writer.tell("go");
    let (reads, took, samples) = read_for(&mut reader, seconds());
    writer.tell("stop");
    let sets: u64 = writer.line().and_then(|line| line.parse().ok()).expect("a number");
    assert!(sets > 0);
    say(&format!(
        "{} bytes: {reads} reads, none torn, while {sets} were set in {:.1} s; a read {:.0} ns \
         (median {:?}), with nothing set {:.0} ns (median {:?})",
        words * 8,
        took.as_secs_f64(),
        cost(reads, took),
        median(&samples),
        before.0,
        before.1,
    ));
}

#[test]
fn proof_state_no_value_is_torn() {
    storm_of(8);
}

#[test]
fn proof_state_no_large_value_is_torn() {
    storm_of(2048);
}
