//! States: what every row that carries them has to keep, between processes.

mod bare;
mod death;
mod live;
mod refusals;

use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard::pattern::state::{Reader, Writer};
use switchboard::{Error, Options, State, Value, WaitError};
use switchboard_kernel::pipe;
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::{Child, instruction, report};

use crate::place::{Place, each_row_of};

pub(crate) use death::{storm, storm_watcher};
pub(crate) use refusals::{small_files, stranger};

fn failed(error: &Error) -> String {
    format!("error {:?} {error} {}", error.kind(), error.advice().unwrap_or_default())
}

fn told(value: &Value) -> String {
    let shown = &value.bytes[..value.bytes.len().min(60)];
    let restored = if value.restored { " restored" } else { "" };
    let (version, len) = (value.version, value.bytes.len());
    format!("value {version} {len} {}{restored}", shown.escape_ascii())
}

/// Role: the writer, as told: `set TEXT`, `fill NUMBER`, `sync`, `version`.
pub(crate) fn writer(arguments: &[String]) {
    let state = State::open(&arguments[0]).expect("a state");
    let mut writer = match state.writer() {
        Ok(writer) => writer,
        Err(error) => return report(failed(&error)),
    };
    report(format!("open {}", writer.capacity_bytes()));
    while let Some(order) = live::next_order(&mut writer) {
        let (what, text) = order.split_once(' ').unwrap_or((&order, ""));
        let result = match what {
            "set" => writer.set(text.as_bytes()),
            "key" => {
                let (key, text) = text.split_once(' ').expect("a key and a value");
                writer.set_key(key, text.as_bytes())
            }
            "keys" => (0..text.parse().expect("a number"))
                .try_for_each(|n: u32| writer.set_key(&format!("key{n}"), &n.to_le_bytes())),
            "fill" => writer.set(&vec![b'x'; text.parse().expect("a number")]),
            "sync" => writer.sync(),
            "version" => {
                report(format!("{:?}", writer.version()));
                continue;
            }
            other => panic!("{other}"),
        };
        report(result.map_or_else(|error| failed(&error), |()| "done".to_owned()));
    }
}

/// Role: a reader, as told: `get`, `watch MILLISECONDS`, `forever`, `cancel MILLISECONDS`.
pub(crate) fn reader(arguments: &[String]) {
    let (cancel, trip) = pipe::pipe().expect("a pipe");
    let options = Options::default().cancel(Some(Arc::new(cancel)));
    let state = State::open_with(&arguments[0], options).expect("a state");
    let mut reader = match state.reader() {
        Ok(reader) => reader,
        Err(error) => return report(failed(&error)),
    };
    report("open");
    let mut trip = Some(trip);
    let watched = |result: Result<Value, WaitError>| match result {
        Ok(value) => told(&value),
        Err(WaitError::Failed(error)) => failed(&error),
        Err(error) => format!("{error:?}"),
    };
    while let Some(order) = instruction() {
        let (what, number) = order.split_once(' ').unwrap_or((&order, "0"));
        let time = Duration::from_millis(number.parse().unwrap_or_default());
        match what {
            "get" => report(reader.get().map_or_else(|error| failed(&error), |v| told(&v))),
            "of" | "any" | "see" | "count" | "writer" => report(live::asked(&mut reader, &order)),
            "watch" => report(watched(reader.watch_timeout(time))),
            "forever" => {
                report("watching");
                report(watched(reader.watch()));
            }
            "cancel" => {
                let (trip, since) = (trip.take(), Instant::now());
                std::thread::spawn(move || {
                    std::thread::sleep(time);
                    drop(trip);
                });
                let result = watched(reader.watch());
                report(format!("{result} {}", since.elapsed().as_millis()));
            }
            other => panic!("{other}"),
        }
    }
}

fn ask(child: &mut Child, order: &str) -> String {
    child.tell(order);
    // Of a hundred thousand keys, on a machine that does much else.
    child.line_within(4 * DEADLINE).expect("an answer")
}

fn writing(address: &str) -> Child {
    let mut child = Child::role("state-writer", &[address]);
    let said = child.line().expect("an answer");
    assert!(said.starts_with("open "), "{said}");
    child
}

fn reading(address: &str) -> Child {
    let mut child = Child::role("state-reader", &[address]);
    child.expect("open");
    child
}

fn open_writer(address: &str) -> Result<Writer, Error> {
    State::open(address).expect("an address").writer()
}

fn open_reader(address: &str) -> Result<Reader, Error> {
    State::open(address).expect("an address").reader()
}

#[test]
fn what_is_set_is_got() {
    each_row_of("state", |place| {
        let mut writer = writing(&place.with("?size=1000"));
        let mut reader = reading(&place.address);
        assert_eq!(ask(&mut reader, "get"), "value 0 0 ");
        assert_eq!(ask(&mut writer, "set hello"), "done");
        assert_eq!(ask(&mut reader, "get"), "value 1 5 hello");
        assert_eq!(ask(&mut writer, "fill 1000"), "done");
        assert_eq!(ask(&mut reader, "get"), format!("value 2 1000 {}", "x".repeat(60)));
        assert_eq!(ask(&mut writer, "set "), "done");
        assert_eq!(ask(&mut reader, "get"), "value 3 0 ");
        assert_eq!(ask(&mut writer, "version"), "Some(3)");
        assert_eq!(ask(&mut writer, "sync"), "done");
        let answer = ask(&mut writer, "fill 1001");
        assert!(answer.starts_with("error LimitReached"), "{answer}");
        assert!(answer.contains("1000 bytes") && answer.contains("?size="), "{answer}");
        assert_eq!(ask(&mut reader, "get"), "value 3 0 ");
    });
}

#[test]
fn watchers_are_woken() {
    each_row_of("state", |place| {
        let mut writer = writing(&place.address);
        let mut watchers: Vec<Child> = (0..3).map(|_| reading(&place.address)).collect();
        for round in 1..=5 {
            for watcher in &mut watchers {
                assert_eq!(ask(watcher, "forever"), "watching");
            }
            assert_eq!(ask(&mut writer, &format!("set round {round}")), "done");
            for watcher in &mut watchers {
                watcher.expect(&format!("value {round} 7 round {round}"));
            }
        }
        // What was set before it looked is a change, and only the newest counts.
        assert_eq!(ask(&mut writer, "set a"), "done");
        assert_eq!(ask(&mut writer, "set b"), "done");
        assert_eq!(ask(&mut watchers[0], "watch 0"), "value 7 1 b");
        assert_eq!(ask(&mut watchers[1], "get"), "value 7 1 b");
        for watcher in &mut watchers[..2] {
            let since = Instant::now();
            assert_eq!(ask(watcher, "watch 70"), "TimedOut");
            assert!(since.elapsed() >= Duration::from_millis(70));
            let answer = ask(watcher, "cancel 30");
            let took = answer.strip_prefix("Interrupted ").expect(&answer).parse::<u64>();
            assert!((30..5000).contains(&took.expect("a number")), "{answer}");
        }
    });
}

#[test]
fn a_value_outlives_its_processes() {
    each_row_of("state", |place| {
        let mut writer = writing(&place.address);
        assert_eq!(ask(&mut writer, "set still here"), "done");
        writer.kill();
        assert_eq!(ask(&mut reading(&place.address), "get"), "value 1 10 still here");
        let mut writer = writing(&place.address);
        assert_eq!(ask(&mut writer, "set and changed"), "done");
        assert_eq!(ask(&mut reading(&place.address), "get"), "value 2 11 and changed");
    });
}

#[test]
fn what_is_unlinked_stays_with_those_who_have_it() {
    each_row_of("state", |place| {
        let mut writer = writing(&place.address);
        let mut reader = reading(&place.address);
        switchboard::object::unlink(&place.parsed("")).expect("unlinked");
        assert_eq!(ask(&mut writer, "set alone"), "done");
        assert_eq!(ask(&mut reader, "get"), "value 1 5 alone");
        let mut other = writing(&place.address);
        assert_eq!(ask(&mut other, "set new"), "done");
        assert_eq!(ask(&mut reader, "get"), "value 1 5 alone");
        assert_eq!(ask(&mut reading(&place.address), "get"), "value 1 3 new");
    });
}
