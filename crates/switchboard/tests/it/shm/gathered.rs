//! Messages that a publisher was fed, or sends in one call: they wait for others, and go out together.

use switchboard::{Bytes, Options, Overflow, Receiver, RecvError, Sender};
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};

/// So much waits at most, with 8 bytes for each message.
const MOST_BYTES: usize = 4 << 10;

fn address(scratch: &Scratch, query: &str) -> String {
    format!("shm:channel?scope={}{query}", scratch.join("scope").display())
}

fn writer(address: &str, options: Options) -> Sender<Bytes> {
    ends::writer(Pattern::Topic, address, options).expect("a publisher")
}

fn reader(address: &str) -> Receiver<Bytes> {
    ends::reader(Pattern::Topic, address, Options::default()).expect("a subscriber")
}

fn feed(writer: &mut Sender<Bytes>, number: u64) {
    writer.feed(&ends::message(1, number, 64)).expect("accepted");
}

/// The number of the next message, if one is there.
fn next(reader: &mut Receiver<Bytes>) -> Option<u64> {
    match reader.try_recv() {
        Ok(delivery) => Some(ends::read(&delivery.message.0).expect("a whole message").1),
        Err(RecvError::Empty) => None,
        Err(error) => panic!("{error}"),
    }
}

fn all(reader: &mut Receiver<Bytes>) -> Vec<u64> {
    std::iter::from_fn(|| next(reader)).collect()
}

/// Role: a subscriber that waits for each message, and says which it was.
pub(crate) fn subscriber(arguments: &[String]) {
    let mut receiver = reader(&arguments[0]);
    report("here");
    loop {
        match receiver.recv_timeout(DEADLINE) {
            Ok(delivery) => report(format_args!("{:?}", ends::read(&delivery.message.0))),
            Err(RecvError::Ended) => return report("the end"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn expect(child: &mut Child, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        child.expect(&format!("Some((1, {number}))"));
    }
}

#[test]
fn what_is_fed_waits_for_the_push() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let mut child = Child::role("shm-fed-subscriber", &[&address]);
    child.expect("here");
    let (mut writer, mut beside) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(2, Some(DEADLINE)).expect("subscribers");
    for number in 1..=3 {
        feed(&mut writer, number);
        assert_eq!(next(&mut beside), None, "it was not pushed");
    }
    assert_eq!(writer.sent(), 3);
    writer.push().expect("sent");
    // Who sleeps is woken, although it was not the last message that it slept on.
    expect(&mut child, 1..=3);
    assert_eq!(all(&mut beside), [1, 2, 3]);
    // Any other send takes along what waits, and comes after it.
    feed(&mut writer, 4);
    writer.send_bytes(&ends::message(1, 5, 64)).expect("sent");
    expect(&mut child, 4..=5);
    assert_eq!(all(&mut beside), [4, 5]);
    feed(&mut writer, 6);
    // The room that is lent is behind what waits.
    let mut loan = writer.loan_bytes(64).expect("room");
    expect(&mut child, [6]);
    loan.copy_from_slice(&ends::message(1, 7, 64));
    loan.send().expect("sent");
    expect(&mut child, [7]);
    assert_eq!(all(&mut beside), [6, 7]);
    feed(&mut writer, 8);
    writer.drive().expect("sent");
    expect(&mut child, [8]);
    assert_eq!(all(&mut beside), [8]);
    // And so does the end.
    feed(&mut writer, 9);
    writer.close().expect("closed");
    expect(&mut child, [9]);
    child.expect("the end");
    assert!(child.wait().success());
}

#[test]
fn much_does_not_wait_and_an_end_that_is_dropped_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let (mut writer, mut beside) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    let together = MOST_BYTES as u64 / 72;
    for number in 1..=together {
        feed(&mut writer, number);
        assert_eq!(next(&mut beside), None);
    }
    feed(&mut writer, together + 1);
    assert_eq!(all(&mut beside), (1..=together).collect::<Vec<_>>(), "the next one waits");
    // Long ones do not wait either, and nor does what was fed before.
    writer.feed(&ends::message(1, together + 2, 2000)).expect("accepted");
    assert_eq!(all(&mut beside), [together + 1, together + 2]);
    feed(&mut writer, together + 3);
    drop(writer);
    assert_eq!(all_until_the_end(&mut beside), [together + 3]);
}

fn all_until_the_end(reader: &mut Receiver<Bytes>) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        match reader.recv_timeout(DEADLINE) {
            Ok(delivery) => numbers.push(ends::read(&delivery.message.0).expect("whole").1),
            Err(RecvError::Ended) => return numbers,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_full_ring_holds_the_publisher_up_and_loses_nothing() {
    const COUNT: u64 = 3000;
    let scratch = Scratch::new();
    for capacity in ["&capacity=4096", "&capacity=32KiB"] {
        let address = address(&scratch, capacity);
        let mut child = Child::role("shm-fed-subscriber", &[&address]);
        child.expect("here");
        let mut writer = writer(&address, Options::default());
        writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
        let feeding = std::thread::spawn(move || {
            for number in 1..=COUNT {
                let len = 16 + (number % 200) as usize;
                writer.feed(&ends::message(1, number, len)).expect("accepted");
            }
            writer.flush(Some(DEADLINE)).expect("all is taken");
            assert_eq!(writer.unacknowledged(), 0);
            writer.close().expect("closed");
        });
        expect(&mut child, 1..=COUNT);
        child.expect("the end");
        feeding.join().expect("no panic");
        assert!(child.wait().success());
    }
}

#[test]
fn what_does_not_fit_into_a_frame_does_not_wait() {
    let scratch = Scratch::new();
    // The largest frame of this ring carries 1,032 bytes.
    let address = address(&scratch, "&capacity=4096");
    let (mut writer, mut beside) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    for (number, len) in (1..).zip([1023, 1024, 1025, 1031, 1032, 1033, 1040]) {
        writer.feed(&ends::message(1, number, len)).expect("accepted");
        writer.push().expect("sent");
        // The memory of one that is no frame comes on another way.
        let delivery = beside.recv_timeout(DEADLINE).expect("a message");
        assert_eq!(ends::read(&delivery.message.0), Some((1, number)), "{len} bytes");
    }
    assert_eq!(writer.peers(), 1);
}

#[test]
fn what_waits_is_counted_and_an_end_that_panics_shows_it() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let (mut writer, mut beside) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    feed(&mut writer, 1);
    feed(&mut writer, 2);
    assert_eq!((writer.sent(), writer.unacknowledged()), (2, 2));
    writer.push().expect("sent");
    assert_eq!(writer.unacknowledged(), 2);
    assert_eq!(all(&mut beside), [1, 2]);
    feed(&mut writer, 3);
    let panicked = std::thread::spawn(move || {
        let _writer = writer;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panicked.join().is_err());
    assert_eq!(next(&mut beside), Some(3));
}

#[test]
fn a_large_message_that_waits_for_room_holds_back_nothing() {
    const LARGE: usize = 4 << 20;
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let (mut writer, mut slow) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    let large = vec![7; LARGE];
    let mut filled = 0;
    while writer.try_send(&Bytes(large.clone())).is_ok() {
        filled += 1;
    }
    let mut fast = reader(&address);
    writer.wait_for_peers(2, Some(DEADLINE)).expect("subscribers");
    feed(&mut writer, 1);
    assert_eq!(next(&mut fast), None);
    assert!(writer.try_send(&Bytes(large)).is_err(), "there is no room");
    assert_eq!(next(&mut fast), Some(1));
    for _ in 0..filled {
        assert_eq!(slow.try_recv().expect("a message").message.0.len(), LARGE);
    }
    assert_eq!(all(&mut slow), [1]);
}

#[test]
fn who_comes_before_the_push_gets_what_waits() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let mut writer = writer(&address, Options::default());
    feed(&mut writer, 1);
    let mut late = reader(&address);
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    feed(&mut writer, 2);
    writer.push().expect("sent");
    let first = late.recv_timeout(DEADLINE).expect("a message");
    assert_eq!(ends::read(&first.message.0), Some((1, 1)));
    assert_eq!(all(&mut late), [2]);
}

#[test]
fn nothing_waits_where_messages_are_dropped_or_kept() {
    let scratch = Scratch::new();
    let plain = address(&scratch, "");
    let kept = plain.replacen("shm:channel", "shm:kept", 1) + "&history=4";
    for (address, overflow) in [(plain, Overflow::DropOldest), (kept, Overflow::Block)] {
        let options = Options::default().overflow(overflow);
        let (mut writer, mut beside) = (writer(&address, options), reader(&address));
        writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
        feed(&mut writer, 1);
        assert_eq!(all(&mut beside), [1], "{address}");
    }
}

/// What writes messages of these numbers, and says then that there are no more.
fn numbered(numbers: impl IntoIterator<Item = u64>) -> impl FnMut(&mut [u8]) -> Option<usize> {
    let mut numbers = numbers.into_iter();
    move |room| {
        room.copy_from_slice(&ends::message(1, numbers.next()?, room.len()));
        Some(room.len())
    }
}

#[test]
fn one_call_sends_many() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let (mut writer, mut beside) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    assert_eq!(writer.send_each(64, |_| None).expect("sent"), 0);
    assert_eq!(next(&mut beside), None);
    // What was fed comes first, and nothing waits afterwards. More than goes out at a time.
    feed(&mut writer, 1);
    assert_eq!(writer.send_each(64, numbered(2..=200)).expect("sent"), 199);
    assert_eq!(writer.sent(), 200);
    assert_eq!(all(&mut beside), (1..=200).collect::<Vec<_>>());
    // Of each only so much as was written, and not more than there was room for.
    let mut lengths = [0, 1, 7, 8, 9, 63, 64, 65, usize::MAX].into_iter();
    let sent = writer.send_each(64, |room| {
        room.fill(5);
        lengths.next()
    });
    assert_eq!(sent.expect("sent"), 9);
    let received = std::iter::from_fn(|| beside.try_recv().ok());
    let received: Vec<_> = received.map(|delivery| delivery.message.0).collect();
    let lengths = [0, 1, 7, 8, 9, 63, 64, 64, 64];
    assert_eq!(received, lengths.map(|len| vec![5; len]));
}

#[test]
fn one_call_waits_for_room_and_loses_nothing() {
    const COUNT: u64 = 3000;
    for (capacity, len) in [("4096", 64), ("32KiB", 200), ("32KiB", 1500)] {
        let scratch = Scratch::new();
        let address = address(&scratch, &format!("&capacity={capacity}"));
        let mut child = Child::role("shm-fed-subscriber", &[&address]);
        child.expect("here");
        let mut writer = writer(&address, Options::default());
        writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
        let sending = std::thread::spawn(move || {
            let sent = writer.send_each(len, numbered(1..=COUNT)).expect("sent");
            assert_eq!(sent as u64, COUNT);
            writer.close().expect("closed");
        });
        expect(&mut child, 1..=COUNT);
        child.expect("the end");
        sending.join().expect("no panic");
        assert!(child.wait().success());
    }
}

#[test]
fn what_was_written_before_a_panic_waits() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let (mut writer, mut beside) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    let mut two = numbered(1..=2);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        writer.send_each(64, |room| {
            two(room).or_else(|| std::panic::resume_unwind(Box::new("on purpose")))
        })
    }));
    assert!(panicked.is_err());
    assert_eq!((writer.sent(), next(&mut beside)), (2, None));
    feed(&mut writer, 3);
    writer.push().expect("sent");
    assert_eq!(all(&mut beside), [1, 2, 3]);
}

#[test]
fn a_panic_between_messages_that_are_received_loses_none() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let (mut writer, mut beside) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    writer.send_each(64, numbered(1..=100)).expect("sent");
    let mut seen = Vec::new();
    for stop in [1, 2, 3, 70, 71] {
        ends::panic_at(&mut beside, &mut seen, stop);
    }
    seen.extend(all(&mut beside));
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());
}

#[test]
fn who_comes_while_many_are_looked_at_makes_none_come_twice() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let (mut first, mut beside) = (writer(&address, Options::default()), reader(&address));
    first.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    first.send_each(64, numbered(1..=100)).expect("sent");
    let mut second = None;
    let mut seen = Vec::new();
    let mut note = |incoming: switchboard::Incoming<'_>| {
        let (_, number) = ends::read(incoming.bytes).expect("a whole message");
        seen.push(number);
        if number == 50 {
            // The subscriber's I/O thread joins it, while its caller is in the middle of the others.
            let mut writer = writer(&address, Options::default());
            writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
            second = Some(writer);
        }
    };
    while beside
        .recv_each(1000, Some(std::time::Duration::ZERO), |incoming, _| {
            note(incoming);
            false
        })
        .is_ok()
    {}
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());
    second.expect("it came").send_bytes(&ends::message(1, 101, 64)).expect("sent");
    let last = beside.recv_timeout(DEADLINE).expect("a message");
    assert_eq!(ends::read(&last.message.0), Some((1, 101)));
}

#[test]
fn room_is_given_back_while_many_are_looked_at() {
    let scratch = Scratch::new();
    let address = address(&scratch, "&capacity=32KiB");
    let (mut writer, mut beside) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    let message = |number| Bytes(ends::message(1, number, 500));
    let filled =
        (1..).find(|&number| writer.try_send(&message(number)).is_err()).expect("full") - 1;
    let mut seen = 0;
    while seen < filled {
        beside
            .recv_each(1000, Some(DEADLINE), |incoming, _| {
                seen += 1;
                assert_eq!(ends::read(incoming.bytes), Some((1, seen)));
                // More than an eighth of the ring is read.
                if seen == 20 {
                    writer.try_send(&message(filled + 1)).expect("room");
                }
                false
            })
            .expect("messages");
    }
    assert_eq!(next(&mut beside), Some(filled + 1).filter(|_| seen == filled));
}

#[test]
fn one_call_waits_for_no_more_room_than_its_messages_need() {
    let scratch = Scratch::new();
    let full = address(&scratch, "&capacity=4096");
    let exact = full.replacen("shm:channel", "shm:exact", 1);
    let (mut writer_of_full, _beside) = (writer(&full, Options::default()), reader(&full));
    writer_of_full.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    let message = |number| Bytes(ends::message(1, number, 56));
    let fit =
        (1..).find(|&number| writer_of_full.try_send(&message(number)).is_err()).expect("full") - 1;
    let (mut writer, mut beside) = (writer(&exact, Options::default()), reader(&exact));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    // This thread is the subscriber, too: it would wait for itself.
    assert_eq!(writer.send_each(56, numbered(1..=fit)).expect("sent") as u64, fit);
    assert_eq!(all(&mut beside), (1..=fit).collect::<Vec<_>>());
}

#[test]
fn what_waits_is_shown_before_the_publisher_waits() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let (mut writer, mut beside) = (writer(&address, Options::default()), reader(&address));
    writer.wait_for_peers(1, Some(DEADLINE)).expect("a subscriber");
    feed(&mut writer, 1);
    let short = std::time::Duration::from_millis(1);
    assert!(writer.wait_for_peers(2, Some(short)).is_err(), "there is one");
    assert_eq!(next(&mut beside), Some(1));
}
