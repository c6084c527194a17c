//! Every parser on text that nobody meant: what the kernel really says, changed at random, and what is made of numbers, words and marks
//! that parsers look for. What is understood in a new way is kept and changed further.
//!
//! `cargo xtask prove fuzz-inspect` runs this for longer: `SWITCHBOARD_FUZZ_SECONDS` for each parser, or `SWITCHBOARD_FUZZ_TOTAL_SECONDS` for
//! all of them together. As many are read at once as there are processors, or `SWITCHBOARD_FUZZ_AT_ONCE`. What is random follows from a seed,
//! which is said when something fails, with the text: `SWITCHBOARD_FUZZ_SEED` takes it again.

mod memory;
mod noise;
mod parsers;
mod seeds;
mod snapshots;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use switchboard_testkit::skip::say;

use noise::{Noise, changed};
use parsers::{Parser, TABLE};

/// For each of so many parsers, of which so many are read at once.
fn time(parsers: usize, at_once: usize) -> Duration {
    let asked = |name| {
        let seconds: Option<f64> = std::env::var(name).ok().and_then(|text| text.parse().ok());
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    };
    let turns = u32::try_from(parsers.div_ceil(at_once)).expect("few");
    let total = asked("SWITCHBOARD_FUZZ_TOTAL_SECONDS").map(|total| total / turns);
    total.or_else(|| asked("SWITCHBOARD_FUZZ_SECONDS")).unwrap_or(Duration::from_millis(150))
}

/// How many are read at once.
fn at_once() -> usize {
    let asked = std::env::var("SWITCHBOARD_FUZZ_AT_ONCE").ok();
    let asked =
        asked.and_then(|number| number.parse().ok()).filter(|number| (1..=64).contains(number));
    asked.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}

fn seed() -> u64 {
    let asked = std::env::var("SWITCHBOARD_FUZZ_SEED").ok();
    asked.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| u64::from(now.subsec_nanos()) | 1)
    })
}

/// Reads what is made of a parser's seeds, until the time is over; how many texts, and how many ways they were understood in.
fn fuzz(parser: &Parser, seed: u64, time: Duration) -> (u64, usize) {
    const MOST_KEPT: usize = 4000;
    let mut texts = (parser.seeds)();
    assert!(!texts.is_empty(), "{}: nothing to begin with", parser.name);
    let mut ways: HashSet<u64> = texts.iter().map(|text| (parser.read)(text)).collect();
    let (mut noise, mut count, start) = (Noise(seed), 0, Instant::now());
    // However busy the machine is, some are read.
    while count < 300 || start.elapsed() < time {
        let text = changed(&mut noise, &texts);
        let read = catch_unwind(AssertUnwindSafe(|| (parser.read)(&text)));
        let way = read.unwrap_or_else(|panic| {
            say(&format!(
                "{}, with SWITCHBOARD_FUZZ_SEED={seed}: \"{}\"",
                parser.name,
                text.escape_ascii()
            ));
            resume_unwind(panic)
        });
        if ways.insert(way) && texts.len() < MOST_KEPT {
            texts.push(text);
        }
        count += 1;
    }
    (count, ways.len())
}

#[test]
fn fuzz_inspect_every_parser() {
    let parsers: Vec<&Parser> = TABLE.iter().chain(memory::TABLE).collect();
    let at_once = at_once();
    let (seed, each) = (seed(), time(parsers.len(), at_once));
    let next = AtomicUsize::new(0);
    let work = || {
        // Each is taken once; nothing else is shared.
        while let Some(parser) = parsers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (texts, ways) = fuzz(parser, seed, each);
            say(&format!("{}: {texts} texts, understood in {ways} ways", parser.name));
            assert!(ways > 1, "{}: whatever is read, it is all the same", parser.name);
        }
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        // What one panicked with is this test's own.
        all.into_iter().for_each(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)));
    });
}
