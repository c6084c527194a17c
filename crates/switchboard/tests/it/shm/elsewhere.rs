//! Who comes while the caller of an end is elsewhere: in its own work, or in the midst of another end's call.

use std::time::{Duration, Instant};

use switchboard::{Options, Receiver, RecvError};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};

fn address(scratch: &Scratch, name: &str, more: &str) -> String {
    format!("shm:{name}?scope={}{more}", scratch.join("scope").display())
}

/// The numbers of so many messages of one writer.
fn numbers(receiver: &mut Receiver<switchboard::Bytes>, count: usize) -> Vec<u64> {
    let next = |_| {
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
        let (_, number) = ends::read(&delivery.message.0).expect("a whole message");
        receiver.acknowledge(delivery).expect("acknowledged");
        number
    };
    (0..count).map(next).collect()
}

/// Role: publishes ten messages, and is elsewhere from then on but when it is told to look around.
pub(crate) fn publisher(arguments: &[String]) {
    let options = Options::default().io_thread(arguments[1] == "thread");
    let mut publisher = ends::writer(Pattern::Topic, &arguments[0], options).expect("a publisher");
    for number in 1..=10 {
        publisher.send_bytes(&ends::message(3, number, 100)).expect("sent");
    }
    report("sent");
    while let Some(line) = instruction() {
        assert_eq!(line, "look");
        publisher.drive().expect("driven");
        report(publisher.peers());
    }
    publisher.close().expect("closed");
}

fn late(address: &str) -> Receiver<switchboard::Bytes> {
    ends::reader(Pattern::Topic, address, Options::default()).expect("a late subscriber")
}

#[test]
fn a_late_subscriber_gets_the_history_while_the_publisher_is_elsewhere() {
    let scratch = Scratch::new();
    let address = address(&scratch, "history", "&history=4");
    let mut publisher = Child::role("shm-elsewhere", &[address.as_str(), "thread"]);
    publisher.expect("sent");
    // The publisher's only other thread waits for a line.
    let mut subscriber = late(&address);
    assert_eq!(numbers(&mut subscriber, 4), [7, 8, 9, 10]);
    assert!(matches!(subscriber.try_recv(), Err(RecvError::Empty)));
    assert!(publisher.wait().success());
    assert!(matches!(subscriber.recv_timeout(DEADLINE), Err(RecvError::Ended)));
}

#[test]
fn without_the_thread_it_gets_it_when_the_publisher_is_called() {
    let scratch = Scratch::new();
    let address = address(&scratch, "history", "&history=4");
    let mut publisher = Child::role("shm-elsewhere", &[address.as_str(), "caller"]);
    publisher.expect("sent");
    let begun = Instant::now();
    let mut subscriber = late(&address);
    // It counts as open although nobody answered.
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(subscriber.peers(), 0);
    assert!(matches!(subscriber.recv_timeout(Duration::from_millis(50)), Err(RecvError::Empty)));
    let until = Instant::now() + DEADLINE;
    loop {
        publisher.tell("look");
        if publisher.line().as_deref() == Some("1") {
            break;
        }
        assert!(Instant::now() < until, "they do not meet");
    }
    assert_eq!(numbers(&mut subscriber, 4), [7, 8, 9, 10]);
    assert!(publisher.wait().success());
    assert!(matches!(subscriber.recv_timeout(DEADLINE), Err(RecvError::Ended)));
}

/// Role: takes so many messages, having waited for the word to open.
pub(crate) fn joins_later(arguments: &[String]) {
    report("ready");
    assert_eq!(instruction().as_deref(), Some("open"));
    let pattern = Pattern::parse(&arguments[0]);
    let mut receiver = ends::reader(pattern, &arguments[1], Options::default()).expect("a reader");
    report("open");
    let numbers = numbers(&mut receiver, arguments[2].parse().expect("a number"));
    report(format_args!("{numbers:?}"));
}

/// A relay: each message that it is shown goes on at once, to a queue of whose receivers none is there yet.
#[test]
fn a_relay_waits_for_its_next_peer_within_a_message() {
    for (pattern, driven) in [
        (Pattern::Queue, true),
        (Pattern::Topic, true),
        (Pattern::Queue, false),
        (Pattern::Topic, false),
    ] {
        let scratch = Scratch::new();
        let (from, to) = (address(&scratch, "from", ""), address(&scratch, "to", ""));
        let options = || Options::default().io_thread(driven);
        let mut source = ends::writer(pattern, &from, Options::default()).expect("a source");
        let mut receiver = ends::reader(pattern, &from, options()).expect("a relay's receiver");
        let mut sender = ends::writer(Pattern::Queue, &to, options()).expect("a relay's sender");
        let mut sink = Child::role("shm-joins-later", &["queue", &to, "3"]);
        sink.expect("ready");
        while source.peers() == 0 {
            assert!(matches!(
                receiver.recv_timeout(Duration::from_millis(1)),
                Err(RecvError::Empty)
            ));
        }
        for number in 1..=3 {
            source.send_bytes(&ends::message(5, number, 100)).expect("sent");
        }
        let mut relayed = 0;
        while relayed < 3 {
            let shown = receiver.recv_each(3, Some(DEADLINE), |incoming, _| {
                if relayed == 0 {
                    // Only now does anybody come; this waits until they have met, and it is taken.
                    sink.tell("open");
                }
                sender.send_bytes(incoming.bytes).expect("relayed");
                sender.flush(Some(DEADLINE)).expect("acknowledged");
                relayed += 1;
                true
            });
            shown.unwrap_or_else(|error| panic!("{pattern:?}, {driven}: {error}"));
        }
        sink.expect("open");
        sink.expect("[1, 2, 3]");
        sender.close().expect("closed");
        drop(receiver);
        source.close().expect("closed");
    }
}
