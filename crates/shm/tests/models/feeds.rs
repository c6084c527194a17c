//! Feeds and values: no change is missed, no sleeper is left asleep, no value is torn.

use std::sync::atomic::Ordering::Acquire;

use loom::thread;

use crate::barrier::{Busy, Sleeper};
use crate::bell::{self, Sleeps};
use crate::feed::{Changed, Entry, FeedReader, FeedWriter};
use crate::layout::feed as layout;
use crate::values::{Read, Values, read};
use crate::words::Words;
use crate::{Futex, Memory, atomic, model};

const EVENT: u32 = 4;

fn feed(entries: u64) -> (FeedWriter<Memory>, FeedReader<Memory>) {
    let memory = Memory::new(layout::bytes(entries) as usize);
    let mut writer = FeedWriter::create(memory.clone(), EVENT, entries, Busy::TakesPart).unwrap();
    for name in 0..entries {
        assert_eq!(writer.add(Entry { name, value: 0 }), Some(name));
    }
    (writer, FeedReader::open(memory, EVENT).unwrap())
}

/// Takes what has changed, and looks at those entries.
fn look(reader: &mut FeedReader<Memory>, known: &mut [u64]) {
    let mut changed = Vec::new();
    let found = reader.take(|at| changed.push(at)).unwrap();
    if found == Changed::Any {
        changed = (0..known.len() as u64).collect();
    }
    for at in changed {
        let value = reader.entry(at).value;
        assert!(value >= known[at as usize], "an entry goes back");
        known[at as usize] = value;
    }
}

#[test]
fn a_change_is_never_missed() {
    model(|| {
        let (mut writer, mut reader) = feed(3);
        // More than are remembered, each of another entry.
        let writing = thread::spawn(move || (0..3).for_each(|at| writer.change(at, 1)));
        let mut known = [0; 3];
        look(&mut reader, &mut known);
        look(&mut reader, &mut known);
        writing.join().unwrap();
        look(&mut reader, &mut known);
        assert_eq!(known, [1, 1, 1]);
        assert!(!reader.has_changed());
    });
}

/// What is added while a reader looks is counted before it changes.
#[test]
fn an_entry_that_is_added_is_there_when_it_changed() {
    model(|| {
        let memory = Memory::new(layout::bytes(2) as usize);
        let mut writer = FeedWriter::create(memory.clone(), EVENT, 2, Busy::TakesPart).unwrap();
        let mut reader = FeedReader::open(memory, EVENT).unwrap();
        let writing = thread::spawn(move || {
            let at = writer.add(Entry { name: 7, value: 0 }).unwrap();
            writer.change(at, 3);
        });
        let mut changed = Vec::new();
        assert_eq!(reader.take(|at| changed.push(at)), Ok(Changed::These));
        if let [at] = changed[..] {
            assert_eq!(reader.entry(at), Entry { name: 7, value: 3 });
        }
        if reader.count() == Ok(1) {
            assert_eq!(reader.entry(0).name, 7);
        }
        writing.join().unwrap();
    });
}

#[test]
fn a_listener_that_sleeps_is_woken() {
    model(|| {
        let (mut writer, mut reader) = feed(1);
        let (bell, futex) = (Memory::new(64), Futex::new());
        let (ring_bell, kernel) = (bell.clone(), futex.clone());
        let writing = thread::spawn(move || {
            for value in 1..=2 {
                writer.change(0, value);
                bell::after_commit(&ring_bell, 1, writer.busy(), |_, _| kernel.wake());
            }
        });
        let (mut known, mut turn) = ([0], 0);
        let mut sleeper = Sleeper::new(reader.busy());
        while known[0] < 2 {
            look(&mut reader, &mut known);
            if known[0] == 2 {
                break;
            }
            turn += 1;
            bell::raise(&bell, 3, Sleeps::OnFutex, turn, &mut sleeper);
            sleeper.pass(atomic::everywhere);
            if !reader.has_changed() {
                let word = &reader.memory().words()[layout::CHANGES_WORD];
                futex.wait(word, reader.seen());
            }
            bell::awake(&bell, 3, &mut sleeper);
        }
        writing.join().unwrap();
    });
}

/// Blocks are used again as soon as one is spare, so that what is copied is overwritten meanwhile.
#[test]
fn a_value_is_whole_and_not_older_than_the_last() {
    model(|| {
        let (mut writer, reader) = feed(1);
        let mut values = Values::default();
        let segment = Memory::new(512);
        values.add(segment.clone());
        let writing = thread::spawn(move || {
            let mut newest = None;
            for version in 1..=3_u64 {
                let spot = values.take(16).unwrap();
                let bytes = [(version * 7).to_le_bytes(), (version * 9).to_le_bytes()].concat();
                let name = values.write(spot, 0, version, &bytes);
                writer.change(0, name);
                if let Some(spot) = newest.replace(spot) {
                    values.give_back(spot, 16);
                }
            }
        });
        let look = || {
            let mut bytes = Vec::new();
            match read(0, || reader.entry(0).value, |_| Some(&segment), 16, &mut bytes) {
                Ok(Read::Value(version)) => {
                    let words = [(version * 7).to_le_bytes(), (version * 9).to_le_bytes()];
                    assert_eq!(bytes, words.concat(), "a torn value");
                    version
                }
                Ok(Read::Nothing) => 0,
                Ok(Read::NoSegment(_)) => panic!("there is one"),
                // It has not looked often enough: the models give it few looks.
                Err(what) => {
                    assert_eq!(what.0, "a value that is never whole");
                    0
                }
            }
        };
        let first = look();
        let second = look();
        assert!(second >= first || second == 0);
        writing.join().unwrap();
        assert_eq!(look(), 3);
        let _ = reader.memory().words()[layout::CHANGES_WORD].load(Acquire);
    });
}
