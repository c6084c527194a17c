//! Writers and readers that are killed.

use std::time::Duration;

use switchboard::State;
use switchboard_testkit::child::{Child, report};

use super::{ask, each_row_of, open_writer, reading, writing};

#[test]
fn one_writer_at_a_time_and_death_lets_go() {
    each_row_of("state", |place| {
        let mut first = writing(&place.address);
        assert_eq!(ask(&mut first, "set first"), "done");
        let refused = open_writer(&place.address).expect_err("a second writer");
        assert_eq!(refused.kind(), switchboard::ErrorKind::AddressInUse, "{refused}");
        assert!(refused.to_string().contains(&format!("process {}", first.id())), "{refused}");
        first.kill();
        let mut heir = open_writer(&place.address).expect("the lock of a dead process");
        heir.set(b"second").expect("set");
        let mut late = Child::role("state-writer", &[&place.address]);
        let said = late.line().expect("an answer");
        let holder = format!("process {} is its writer", std::process::id());
        assert!(said.starts_with("error AddressInUse") && said.contains(&holder), "{said}");
        drop(heir);
        assert_eq!(ask(&mut writing(&place.address), "version"), "Some(2)");
    });
}

/// The bytes of the value with this number: each length, and no two alike.
fn pattern(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let len = (number * 7919 % 60_000) as usize;
    bytes.extend((0..len).map(|at| (at as u64 ^ number) as u8));
    bytes
}

/// Role: sets values as fast as it can, until it is killed.
pub(crate) fn storm(arguments: &[String]) {
    let mut writer = State::open(&arguments[0]).and_then(|state| state.writer()).expect("a writer");
    report("open");
    loop {
        let next = writer.version().unwrap_or_default() + 1;
        writer.set(&pattern(next)).expect("set");
    }
}

/// Role: looks at every value it can get, until it is told to say how many were whole.
pub(crate) fn storm_watcher(arguments: &[String]) {
    let mut reader = State::open(&arguments[0]).and_then(|state| state.reader()).expect("a reader");
    report("open");
    let (mut newest, mut seen, mut quiet) = (0, 0_u64, 0);
    // Silence means that the last writer is dead.
    while quiet < 2 {
        let Ok(value) = reader.watch_timeout(Duration::from_secs(1)) else {
            quiet += 1;
            continue;
        };
        quiet = 0;
        assert!(!value.restored && value.version > newest, "{} after {newest}", value.version);
        assert!(value.bytes == pattern(value.version), "half a value: {}", value.version);
        (newest, seen) = (value.version, seen + 1);
    }
    report(format!("{newest} {seen}"));
}

#[test]
fn killed_while_setting_no_value_is_ever_half() {
    each_row_of("state", |place| {
        let address = place.with("?size=64KiB");
        drop(open_writer(&address).expect("made"));
        let mut watchers: Vec<Child> =
            (0..2).map(|_| Child::role("storm-watcher", &[&address])).collect();
        watchers.iter_mut().for_each(|watcher| watcher.expect("open"));
        for round in 0..25 {
            let mut writer = Child::role("storm", &[&address]);
            writer.expect("open");
            // Killed at whatever it is doing then.
            std::thread::sleep(Duration::from_micros(round * 137));
            writer.kill();
            let mut reader = super::open_reader(&address).expect("a reader");
            let value = reader.get().expect("a value");
            assert!(!value.restored);
            let whole = value.version == 0 || value.bytes == pattern(value.version);
            assert!(whole, "half a value: {}", value.version);
        }
        for watcher in &mut watchers {
            let said = watcher.line().expect("every value was whole");
            let seen: u64 = said.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
            assert!(seen > 0, "{said}");
        }
    });
}

#[test]
fn a_killed_reader_is_no_matter() {
    each_row_of("state", |place| {
        let mut writer = writing(&place.address);
        let mut reader = reading(&place.address);
        assert_eq!(ask(&mut reader, "forever"), "watching");
        reader.kill();
        assert_eq!(ask(&mut writer, "set on and on"), "done");
        assert_eq!(ask(&mut reading(&place.address), "get"), "value 1 9 on and on");
    });
}
