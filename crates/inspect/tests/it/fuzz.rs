//! Every parser on text that nobody meant: what the kernel really says, changed at random, and what is made of numbers, words and marks
//! that parsers look for. What is understood in a new way is kept and changed further.
//!
//! `cargo xtask prove fuzz-inspect` runs this for longer: `SWITCHBOARD_FUZZ_SECONDS`, each parser. What is random follows from a seed, which is
//! said when something fails, with the text: `SWITCHBOARD_FUZZ_SEED` takes it again.

mod memory;
mod noise;
mod parsers;
mod seeds;
mod snapshots;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use switchboard_testkit::skip::say;

use noise::{Noise, changed};
use parsers::{Parser, TABLE};

/// For each parser.
fn seconds() -> f64 {
    let asked = std::env::var("SWITCHBOARD_FUZZ_SECONDS").ok();
    asked.and_then(|seconds| seconds.parse().ok()).unwrap_or(0.15)
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
    let (seed, each) = (seed(), Duration::from_secs_f64(seconds()));
    for parser in TABLE.iter().chain(memory::TABLE) {
        let (texts, ways) = fuzz(parser, seed, each);
        say(&format!("{}: {texts} texts, understood in {ways} ways", parser.name));
        assert!(ways > 1, "{}: whatever is read, it is all the same", parser.name);
    }
}
