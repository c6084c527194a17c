//! Events and states over `shm:`: what only they have.

use std::time::Duration;

use switchboard::pattern::state::Reader;
use switchboard::{ErrorKind, Event, Options, State};
use switchboard_testkit::child::{Child, instruction, report};
use switchboard_testkit::{DEADLINE, unique};

/// Role: a writer of keys, as told: `set KEY VALUE`.
pub(crate) fn key_writer(arguments: &[String]) {
    let mut writer = State::open(&arguments[0]).and_then(|state| state.writer()).expect("a writer");
    report("open");
    while let Some(order) = instruction() {
        let mut words = order.split(' ').skip(1);
        let (key, value) = (words.next().expect("a key"), words.next().expect("a value"));
        report(match writer.set_key(key, value.as_bytes()) {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("{:?} {error}", error.kind()),
        });
    }
}

fn ask(child: &mut Child, order: &str) -> String {
    child.tell(order);
    child.line().expect("an answer")
}

#[test]
fn one_writer_for_each_key_and_death_lets_go() {
    let address = format!("shm:{}", unique("keys"));
    let mut writers: Vec<Child> = (0..2)
        .map(|_| {
            let mut child = Child::role("key-writer", &[&address]);
            child.expect("open");
            child
        })
        .collect();
    assert_eq!(ask(&mut writers[0], "set a 1"), "done");
    assert_eq!(ask(&mut writers[1], "set b 2"), "done");
    let said = ask(&mut writers[1], "set a 3");
    assert!(said.starts_with("AddressInUse") && said.contains("\"a\""), "{said}");
    assert_eq!(ask(&mut writers[0], "set a 4"), "done");
    let mut reader = State::open(&address).and_then(|state| state.reader()).expect("a reader");
    let get = |reader: &mut Reader, key| {
        reader
            .get_key(key)
            .expect("read")
            .map(|value| String::from_utf8(value.bytes).expect("text"))
    };
    assert_eq!(
        (get(&mut reader, "a"), get(&mut reader, "b")),
        (Some("4".into()), Some("2".into()))
    );
    writers[0].kill();
    // The kernel let go of the key: another one sets it.
    assert_eq!(ask(&mut writers[1], "set a 5"), "done");
    let value = reader.watch_key("a", Some(DEADLINE)).expect("a change");
    assert_eq!(value.bytes, b"5");
    assert_eq!(get(&mut reader, "b"), Some("2".into()));
    let again = State::open(&address).and_then(|state| state.writer());
    let refused = again.and_then(|mut writer| writer.set_key("b", b"x")).expect_err("it has one");
    assert_eq!(refused.kind(), ErrorKind::AddressInUse, "{refused}");
}

/// Of a key that has gone over to another writer no older value is read, also before the reader has heard that the first one is gone.
#[test]
fn no_value_of_one_that_was_killed_is_read_after_that_of_another() {
    for round in 0..20 {
        let address = format!("shm:{}", unique("over"));
        let [mut first, mut second] = [(); 2].map(|()| Child::role("key-writer", &[&address]));
        first.expect("open");
        second.expect("open");
        assert_eq!(ask(&mut first, "set a 4"), "done");
        assert_eq!(ask(&mut second, "set b 2"), "done");
        // It hears of nothing but when it looks.
        let options = Options::default().io_thread(false);
        let mut reader =
            State::open_with(&address, options).and_then(|state| state.reader()).expect("a reader");
        let get = |reader: &mut Reader, key| {
            reader.get_key(key).expect("read").map(|value| value.bytes).unwrap_or_default()
        };
        reader.wait_for_writer(Some(DEADLINE)).expect("a writer");
        while get(&mut reader, "a") != b"4" || get(&mut reader, "b") != b"2" {
            reader.watch_any(Some(DEADLINE)).expect("a change");
        }
        first.kill();
        assert_eq!(ask(&mut second, "set a 5"), "done");
        let value = reader.watch_key("a", Some(DEADLINE)).expect("a change");
        assert_eq!(value.bytes, b"5", "round {round}");
        assert_eq!(get(&mut reader, "a"), b"5", "round {round}");
        assert_eq!(ask(&mut second, "set a 6"), "done");
        assert_eq!(get(&mut reader, "a"), b"6", "round {round}");
    }
}

/// What a writer that was killed leaves, the last end removes, whatever keys it has itself.
#[test]
fn files_of_locks_of_the_dead_are_removed() {
    let scratch = switchboard_testkit::Scratch::new();
    let address = format!("shm:dead?scope={}", scratch.join("scope").display());
    let mut writer = Child::role("key-writer", &[&address]);
    writer.expect("open");
    for key in ["a", "b", "c", "d"] {
        assert_eq!(ask(&mut writer, &format!("set {key} 1")), "done");
    }
    writer.kill();
    let mut other = Child::role("key-writer", &[&address]);
    other.expect("open");
    assert_eq!(ask(&mut other, "set a 2"), "done");
    let mut reader = State::open(&address).and_then(|state| state.reader()).expect("a reader");
    reader.wait_for_writer(Some(DEADLINE)).expect("a writer");
    drop(reader);
    drop(other.stdin());
    assert!(other.wait().success());
    // This process's I/O thread lets go of what was closed a moment later.
    let (folder, since) = (scratch.join("scope/shm/dead"), std::time::Instant::now());
    while folder.exists() {
        let left: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
        assert!(since.elapsed() < DEADLINE, "{left:?} are left");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Who has many keys takes those that nobody has, and never those that somebody else has.
#[test]
fn a_writer_of_many_keys_leaves_others_theirs() {
    let address = format!("shm:{}?keys=10000", unique("many"));
    let open = || State::open(&address).and_then(|state| state.writer()).expect("a writer");
    let (mut small, mut large) = (open(), open());
    small.set_key("mine", b"1").expect("set");
    for n in 0..10_000 {
        large.set_key(&format!("key{n}"), b"x").expect("set");
    }
    small.set_key("mine", b"2").expect("still its own");
    let refused = large.set_key("mine", b"x").expect_err("it has a writer");
    assert_eq!(refused.kind(), ErrorKind::AddressInUse, "{refused}");
    let refused = small.set_key("key7", b"x").expect_err("it has a writer");
    assert_eq!(refused.kind(), ErrorKind::AddressInUse, "{refused}");
    drop(large);
    small.set_key("key7", b"x").expect("nobody has it");
}

#[test]
fn keys_and_ids_beyond_their_room_are_refused() {
    let address = format!("shm:{}?keys=3", unique("room"));
    let mut writer = State::open(&address).and_then(|state| state.writer()).expect("a writer");
    for key in ["a", "b", "c"] {
        writer.set_key(key, b"x").expect("set");
    }
    let refused = writer.set_key("d", b"x").expect_err("full");
    assert_eq!(refused.kind(), ErrorKind::LimitReached, "{refused}");
    assert!(refused.advice().is_some_and(|advice| advice.contains("?keys=")));
    writer.set_key("c", b"y").expect("set");
    let address = format!("shm:{}?keys=2", unique("ids"));
    let mut notifier = Event::open(&address).and_then(|event| event.notifier()).expect("an end");
    notifier.notify_id(1).expect("notified");
    notifier.notify_id(2).expect("notified");
    let refused = notifier.notify_id(3).expect_err("full");
    assert_eq!(refused.kind(), ErrorKind::LimitReached, "{refused}");
    notifier.notify_id(2).expect("notified");
}

/// Many more changes than the feed remembers, while nobody looks: all are counted.
#[test]
fn a_listener_that_was_overtaken_counts_all() {
    let address = format!("shm:{}", unique("overtaken"));
    let event = Event::open(&address).expect("an event");
    let mut listener = event.listener().expect("a listener");
    let mut notifier = event.notifier().expect("a notifier");
    for round in 0..100_000_u64 {
        notifier.notify_id(round % 10).expect("notified");
    }
    let mut counts = [0; 10];
    while let Ok(occurrence) = listener.wait_timeout(Duration::from_millis(20)) {
        counts[usize::try_from(occurrence.id).expect("an id")] += occurrence.count;
    }
    assert_eq!(counts, [10_000; 10]);
}

/// Values of all sizes, growing and shrinking: each is read whole, and memory is used again.
#[test]
fn values_of_all_sizes() {
    let address = format!("shm:{}", unique("sizes"));
    let state = State::open(&address).expect("a state");
    let mut writer = state.writer().expect("a writer");
    let mut reader = state.reader().expect("a reader");
    for round in 0..2000_usize {
        let len = [0, 1, 48, 49, 112, 4000, 4097, 100_000][round % 8] + round % 3;
        let value = vec![(round % 251) as u8; len];
        let key = ["a", "b", ""][round % 3];
        writer.set_key(key, &value).expect("set");
        let read = reader.get_key(key).expect("read").expect("a value");
        assert!(read.bytes == value, "{round}: {} bytes of {len}", read.bytes.len());
        assert_eq!(read.version, round as u64 + 1);
    }
    let large = vec![7; 5 << 20];
    for _ in 0..10 {
        writer.set_key("large", &large).expect("set");
        assert!(reader.get_key("large").expect("read").expect("a value").bytes == large);
    }
}
