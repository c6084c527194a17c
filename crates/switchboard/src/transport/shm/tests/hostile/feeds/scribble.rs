//! Peers of events and of states that write at random whatever they can write, all the time.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use switchboard_shm::layout::feed as layout;
use switchboard_testkit::DEADLINE;

use super::super::scribble::{Random, Seed, is_open, lasts, says_at_random, seed, tell};
use super::{CAPACITY, LyingFeed, LyingFollower, Pair, assert_of_liar};
use crate::transport::shm::hello::Pattern;

/// Lets liars write at random into all they can write, and looks that the honest go on meanwhile.
fn scribble(pattern: Pattern, lie: fn(&mut Random, &Path, Pattern)) {
    let seed = Seed(seed());
    let (scratch, mut pair) = Pair::open(pattern);
    let begin = Instant::now();
    let (mut told, mut rounds, mut longest) = (0_u64, 0_u64, Duration::ZERO);
    let lies = std::thread::scope(|scope| {
        let base = scratch.path();
        let liar = scope.spawn(|| {
            let (mut random, mut lies) = (Random::new(seed.0), 0_u64);
            while begin.elapsed() < lasts() {
                lie(&mut random, base, pattern);
                lies += 1;
            }
            lies
        });
        while !liar.is_finished() {
            let before = Instant::now();
            if let Some(error) = pair.look() {
                assert_of_liar(&error);
                told += 1;
            }
            pair.goes_on();
            longest = longest.max(before.elapsed());
            rounds += 1;
        }
        liar.join().expect("lies")
    });
    tell(&format!(
        "{lies} lies to {pattern:?}, told {told} times, in {rounds} rounds of at most {longest:?}; seed {}",
        seed.0
    ));
    let since = Instant::now();
    while pair.peers() > 1 {
        let _ = pair.look();
        assert!(since.elapsed() < DEADLINE, "{} peers", pair.peers());
    }
    pair.goes_on();
}

/// One link of a notifier or of a writer of values, as long as its reader bears it.
fn writes(random: &mut Random, base: &Path, pattern: Pattern) {
    let mut liar = LyingFeed::open(base, pattern);
    let honest = random.below(100);
    for _ in 0..random.below(400) {
        if random.below(20) == 0 && !is_open(&liar.raw) {
            return;
        }
        if random.below(100) < honest {
            tells_the_truth(random, &mut liar);
        } else {
            writes_at_random(random, &mut liar);
        }
    }
}

fn tells_the_truth(random: &mut Random, liar: &mut LyingFeed) {
    if liar.entries == 0 || (liar.entries < 40 && random.below(4) == 0) {
        let id = 1000 + liar.entries;
        match liar.pattern {
            Pattern::Event => liar.add(id),
            _ => liar.key(liar.entries as usize, format!("key{id}").as_bytes()),
        };
        return;
    }
    let at = random.below(liar.entries);
    let value = match liar.pattern {
        Pattern::Event => liar.changes + 1,
        _ => {
            let len = random.below(1000) as usize;
            liar.block(64 + 16 * random.below(8) as usize, 2 + liar.changes, at, &vec![1; len])
        }
    };
    liar.change(at, value);
}

/// One of all the things that it can write.
fn writes_at_random(random: &mut Random, liar: &mut LyingFeed) {
    let word = random.word(liar.changes);
    match random.below(10) {
        0 => liar.put(layout::CHANGES_WORD, word),
        1 => liar.put(layout::COUNT_WORD, word),
        2 => liar.put(layout::recent_word(liar.changes), word),
        3 => liar.put(layout::entry_word(random.below(CAPACITY)) + 1, word),
        4 => liar.put(layout::entry_word(random.below(CAPACITY)), word),
        5 => {
            let words = liar.feed.words();
            for _ in 0..200 {
                words[random.below(words.len() as u64) as usize].store(random.word(0), SeqCst);
            }
        }
        6 => liar.bell.words()[random.below(512) as usize].store(word, SeqCst),
        7 if !liar.segments.is_empty() => {
            let words = liar.segments[0].words();
            for _ in 0..200 {
                words[random.below(words.len() as u64) as usize].store(random.word(0), SeqCst);
            }
        }
        8 => says_at_random(random, &liar.raw, true),
        _ => {
            // It changes all the time, and says so.
            for _ in 0..300 {
                liar.change(random.below(CAPACITY), random.word(liar.changes));
            }
        }
    }
}

/// One link of a listener or of a reader of values.
fn reads(random: &mut Random, base: &Path, pattern: Pattern) {
    let liar = LyingFollower::open(base, pattern);
    for _ in 0..random.below(400) {
        if random.below(20) == 0 && !is_open(&liar.raw) {
            return;
        }
        let word = random.word(0);
        match random.below(4) {
            0 => liar.page.words()[random.below(512) as usize].store(word, SeqCst),
            1 => liar.bell.words()[random.below(512) as usize].store(word, SeqCst),
            2 => liar.bell.words()[random.below(8) as usize].store(word, SeqCst),
            _ if random.below(8) == 0 => {
                says_at_random(random, &liar.raw, true);
            }
            _ => std::thread::yield_now(),
        }
    }
}

#[test]
fn notifiers_that_scribble_disturb_nobody() {
    scribble(Pattern::Event, writes);
}

#[test]
fn writers_of_values_that_scribble_disturb_nobody() {
    scribble(Pattern::State, writes);
}

#[test]
fn listeners_that_scribble_disturb_nobody() {
    scribble(Pattern::Event, reads);
}

#[test]
fn readers_of_values_that_scribble_disturb_nobody() {
    scribble(Pattern::State, reads);
}
