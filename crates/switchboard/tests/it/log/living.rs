//! The disk lies where a sender lives and goes on, and somebody reads: what it hit is missing, and nothing else.

use std::os::unix::fs::FileExt;

use switchboard::{Bytes, Queue, Receiver, RecvError, Sender, Start, Topic};
use switchboard_testkit::Scratch;

use super::{payload, segments, used_bytes};

/// Segments that a few messages fill.
const SHORT: &str = "?segment=4096";

/// How the log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Subscriber,
    Named,
    Queue,
}

/// What a reader has had so far.
#[derive(Debug, Default)]
struct Had {
    payloads: Vec<Vec<u8>>,
    reports: Vec<String>,
    missing: u64,
}

impl Had {
    /// All that there is now.
    fn take_all(&mut self, from: &mut Receiver<Bytes>) {
        loop {
            match from.try_recv() {
                Ok(delivery) => {
                    self.payloads.push(delivery.message.0.clone());
                    from.acknowledge(delivery).expect("acknowledged");
                }
                Err(RecvError::Damaged { problem, missing }) => {
                    self.reports.push(problem);
                    self.missing += missing;
                }
                Err(RecvError::Empty) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn ends(scratch: &Scratch, reader: Reader, query: &str) -> (Sender<Bytes>, Receiver<Bytes>) {
    let address = format!("file:{}{query}", scratch.join("log").display());
    if reader == Reader::Queue {
        let queue = Queue::<Bytes>::open(&address).expect("a queue");
        return (queue.sender().expect("a sender"), queue.receiver().expect("a receiver"));
    }
    let topic = Topic::<Bytes>::open(&address).expect("a topic");
    let publisher = topic.publisher().expect("a publisher");
    let name = if reader == Reader::Named { "&reader=joe" } else { "" };
    let topic = Topic::<Bytes>::open(&format!("{address}{name}")).expect("a topic");
    (publisher.into(), topic.subscriber(Start::Oldest).expect("a subscriber").into())
}

/// Flips a bit of a byte, counted from where the last frame begins, of a log with three messages and a batch of four.
/// What it has hit is found or not, and then many more are sent: into the same segment, or beyond.
fn hit(at: usize, reader: Reader, more: u64, looks: bool) {
    let what = format!("byte {at}, {reader:?}, {more} more, {looks}");
    let scratch = Scratch::new();
    let (mut sender, mut from) = ends(&scratch, reader, SHORT);
    let mut had = Had::default();
    (1..=3).for_each(|number| sender.send_bytes(&payload(number)).expect("sent"));
    had.take_all(&mut from);
    let [segment] = &segments(&scratch.join("log"))[..] else { panic!("{what}: one segment") };
    let begin = used_bytes(segment);
    (4..=7).for_each(|number| sender.feed(&payload(number)).expect("accepted"));
    sender.push().expect("sent");
    let end = used_bytes(segment);
    if begin + at >= end + 8 {
        return;
    }
    let file = std::fs::File::options().read(true).write(true).open(segment).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, (begin + at) as u64).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1 << (at % 8)], (begin + at) as u64).expect("flipped");
    if looks {
        had.take_all(&mut from);
    }
    for number in 8..8 + more {
        match number % 3 {
            0 => sender.feed(&payload(number)).expect("accepted"),
            _ => sender.send_bytes(&payload(number)).expect("sent"),
        }
        if looks && number % 5 == 0 {
            had.take_all(&mut from);
        }
    }
    sender.push().expect("sent");
    had.take_all(&mut from);
    let last = 7 + more;
    let of = |numbers: &[u64]| -> Vec<Vec<u8>> { numbers.iter().map(|n| payload(*n)).collect() };
    let all: Vec<u64> = (1..=last).collect();
    let without_the_batch: Vec<u64> =
        all.iter().copied().filter(|n| !(4..=7).contains(n)).collect();
    let is_hit = begin + at < end;
    if had.payloads == of(&all) {
        assert!(!is_hit, "{what}: {had:?}");
        assert_eq!(had.missing, 0, "{what}: {had:?}");
    } else {
        assert!(is_hit, "{what}: {had:?}");
        assert_eq!(had.payloads, of(&without_the_batch), "{what}: {:?}", had.reports);
        assert_eq!((had.missing, had.reports.is_empty()), (4, false), "{what}: {had:?}");
    }
    drop((sender, from));
    if reader != Reader::Subscriber {
        let (_sender, mut from) = ends(&scratch, reader, SHORT);
        let mut rest = Had::default();
        rest.take_all(&mut from);
        assert!(rest.payloads.is_empty(), "{what}: again {rest:?}");
    }
}

#[test]
fn what_follows_a_hit_is_read_while_its_sender_lives() {
    for reader in [Reader::Subscriber, Reader::Named, Reader::Queue] {
        for (more, looks) in [(9, true), (9, false), (200, true), (200, false)] {
            let step = if more > 100 { 41 } else { 7 };
            (0..400).step_by(step).for_each(|at| hit(at, reader, more, looks));
        }
    }
}

/// A byte behind the last frame says that there is one. What is written there then comes, and nothing is missing.
#[test]
fn a_word_where_nothing_was_sent_costs_nothing() {
    for reader in [Reader::Subscriber, Reader::Named, Reader::Queue] {
        let scratch = Scratch::new();
        let (mut sender, mut from) = ends(&scratch, reader, SHORT);
        let mut had = Had::default();
        (1..=3).for_each(|number| sender.send_bytes(&payload(number)).expect("sent"));
        had.take_all(&mut from);
        let [segment] = &segments(&scratch.join("log"))[..] else { panic!("one segment") };
        let end = used_bytes(segment) as u64;
        let file = std::fs::File::options().write(true).open(segment).expect("a segment");
        file.write_all_at(&[1], end + 7).expect("written");
        had.take_all(&mut from);
        assert_eq!(had.reports.len(), 1, "{reader:?}: {had:?}");
        for number in 4..=50 {
            sender.send_bytes(&payload(number)).expect("sent");
            had.take_all(&mut from);
        }
        assert_eq!(had.payloads, (1..=50).map(payload).collect::<Vec<_>>(), "{reader:?}");
        assert_eq!(had.missing, 0, "{reader:?}: {had:?}");
    }
}

/// A reader that finds the damage while the sender sends: what comes meanwhile is not passed over.
#[test]
fn nothing_that_comes_during_a_search_is_missed() {
    const COUNT: usize = 300;
    for (round, reader) in
        [Reader::Subscriber, Reader::Queue].into_iter().cycle().take(20).enumerate()
    {
        let scratch = Scratch::new();
        let (mut sender, mut from) = ends(&scratch, reader, "");
        (0..2).for_each(|_| sender.send_bytes(&[9; 8000]).expect("sent"));
        let [segment] = &segments(&scratch.join("log"))[..] else { panic!("one segment") };
        let file = std::fs::File::options().write(true).open(segment).expect("a segment");
        file.write_all_at(&[8], 64 + 8032 + 500).expect("written");
        let mut had = Had::default();
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                for number in 0..COUNT {
                    sender.send_bytes(&number.to_le_bytes().repeat(1000)).expect("sent");
                }
            });
            while !sending.is_finished() {
                had.take_all(&mut from);
            }
        });
        had.take_all(&mut from);
        let numbers: Vec<usize> = had.payloads[1..]
            .iter()
            .map(|bytes| usize::from_le_bytes(bytes[..8].try_into().expect("a number")))
            .collect();
        let all = numbers.iter().copied().eq(0..COUNT);
        assert!(all, "round {round}, {reader:?}: {} came, {:?}", numbers.len(), had.reports);
        assert_eq!(had.missing, 1, "round {round}, {reader:?}: {:?}", had.reports);
    }
}

/// A large message that is nothing but zeros is hit in its header: what follows begins far behind all that is not zero.
#[test]
fn what_follows_many_zeros_is_found() {
    let scratch = Scratch::new();
    let (mut sender, mut from) = ends(&scratch, Reader::Subscriber, "");
    sender.send_bytes(&vec![0; 3 << 20]).expect("sent");
    let [segment] = &segments(&scratch.join("log"))[..] else { panic!("one segment") };
    let file = std::fs::File::options().write(true).open(segment).expect("a segment");
    file.write_all_at(&[0xFF], 64 + 20).expect("written");
    let mut had = Had::default();
    had.take_all(&mut from);
    assert_eq!((had.payloads.len(), had.missing), (0, 1), "{:?}", had.reports);
    sender.send_bytes(&payload(2)).expect("sent");
    had.take_all(&mut from);
    assert_eq!((had.payloads, had.missing), (vec![payload(2)], 1), "{:?}", had.reports);
}
