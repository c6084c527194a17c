//! What every row that carries topics has to keep: who gets what, who may come when, and how it ends.
//!
//! [`Meeting::publisher`] and [`Meeting::subscriber`] play the ends. Where one side binds an address, the
//! other connects to it, and there is one that binds.

mod death;
mod hostile;
mod slow;

use std::time::Duration;

use switchboard::{Bytes, RecvError, Topic};
use switchboard_testkit::child::{Child, instruction, report};

use super::contents::{contents, digest, mixed_len};
use super::{End, Haul, Meeting, each_topic};

impl Meeting {
    /// Whether a publisher knows how much it dropped for whom.
    fn counts_drops(&self) -> bool {
        self.row.scheme != "shm"
    }

    /// Whether the ends of a topic see one another, and end with one another.
    fn has_peers(&self) -> bool {
        self.row.capabilities.says_end
    }

    /// Whether an end knows what process a peer is.
    fn tells_processes(&self) -> bool {
        !self.row.capabilities.crosses_hosts
    }

    /// What an end calls another one, or how that begins.
    fn name_of(&self, end: &End) -> String {
        match self.tells_processes() {
            true => format!("process {} (", end.child.id()),
            false => format!("{}:127.", self.row.scheme),
        }
    }

    /// Whether one side binds and the others connect to it.
    fn one_binds(&self) -> bool {
        self.row.options.contains(&"bind")
    }

    /// Makes a publisher wait for its subscribers; a log waits for nobody.
    fn meet(&self, publisher: &mut End, subscribers: usize) {
        publisher.must(&format!("meet {subscribers}"), "met");
    }

    /// Closes a publisher and checks how its subscriber learns of it.
    fn ends(&self, publisher: &mut End, subscriber: &mut End) {
        publisher.tell("close");
        let learns = if self.has_peers() { "error Ended" } else { "empty" };
        subscriber.must(if self.has_peers() { "timeout 15000" } else { "timeout 50" }, learns);
        publisher.expect("closed");
    }
}

/// Receives until nothing more comes, or all have ended.
fn everything(meeting: &Meeting, subscriber: &mut End) -> Haul {
    subscriber.recv_all(Duration::from_millis(if meeting.has_peers() { 15_000 } else { 500 }))
}

/// How many messages the gaps of a haul are.
fn missing(haul: &Haul) -> u64 {
    let gaps = haul.errors.iter().filter(|error| error.starts_with("error Gap"));
    gaps.map(|gap| number_after(gap, "missing: ")).sum()
}

fn number_after(text: &str, what: &str) -> u64 {
    let rest = text.split(what).nth(1).unwrap_or_else(|| panic!("{what} in {text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Anything but the end and gaps.
fn problems(haul: &Haul) -> Vec<&String> {
    let fine = ["error Ended", "error Empty", "error Gap"];
    haul.errors.iter().filter(|error| !fine.iter().any(|start| error.starts_with(start))).collect()
}

#[test]
fn every_subscriber_gets_everything_of_every_publisher_in_its_order() {
    each_topic(|meeting| {
        // Where one side binds, there is one of it.
        let shapes: &[_] = if meeting.one_binds() { &[(1, 3), (2, 1)] } else { &[(2, 3)] };
        for (publishers, subscribers) in shapes.iter().copied() {
            let many = meeting.one_binds() && publishers > 1;
            let (bind, connect) = if many { ("?bind", "?connect") } else { ("", "") };
            let mut subscribers: Vec<End> =
                (0..subscribers).map(|_| meeting.subscriber(bind, "")).collect();
            for subscriber in &mut subscribers {
                subscriber.tell(&format!("recv {} 10000", publishers * 400));
            }
            let mut publishers: Vec<End> =
                (0..publishers).map(|_| meeting.publisher(connect, "")).collect();
            for end in &mut publishers {
                meeting.meet(end, subscribers.len());
            }
            let largest = meeting.largest().min(150_000);
            for (n, end) in (1..).zip(&mut publishers) {
                end.tell(&format!("mixed {n} 0 200 {largest}"));
            }
            for (n, end) in (1..).zip(&mut publishers) {
                end.expect("streamed");
                end.must(&format!("fed {n} 200 300 {largest}"), "streamed");
                end.must(&format!("each {n} 300 400 {largest}"), "streamed");
            }
            for subscriber in &mut subscribers {
                let haul = subscriber.haul();
                assert_eq!(haul.got.len(), publishers.len() * 400, "{:?}", haul.errors);
                for publisher in 1..=publishers.len() as u64 {
                    // Those that are too short for a tag are told apart by their contents alone.
                    let mut got = haul.got.iter().map(|got| (got.len, got.digest));
                    let all = (0..400).all(|n| {
                        let len = mixed_len(n, largest);
                        let sent = digest(&contents(publisher, n, len, false));
                        got.any(|found| found == (len, sent))
                    });
                    assert!(all, "publisher {publisher}, in its order");
                }
            }
            for end in &mut publishers {
                end.tell("close");
            }
            for subscriber in subscribers.iter_mut().filter(|_| meeting.has_peers()) {
                subscriber.must("timeout 15000", "error Ended");
            }
            publishers.iter_mut().for_each(|end| end.expect("closed"));
        }
    });
}

#[test]
fn messages_of_every_length_arrive_whole() {
    each_topic(|meeting| {
        let mut publisher = meeting.publisher("", "");
        let mut subscriber = meeting.subscriber("", "");
        meeting.meet(&mut publisher, 1);
        let largest = meeting.largest();
        let lens = [0, 1, 16, 65_519, 65_520, 65_536, 262_144, largest - 1, largest];
        for (n, len) in (0..).zip(lens) {
            publisher.tell(&format!("send 1 {n} {len}"));
            let haul = subscriber.recv(1);
            assert_eq!((haul.got[0].len, haul.errors.len()), (len, 0), "{haul:?}");
            publisher.expect("sent");
        }
        publisher.must(&format!("send 1 9 {}", largest + 1), "error TooLarge");
        meeting.ends(&mut publisher, &mut subscriber);
    });
}

#[test]
fn either_side_starts_first_and_nobody_is_needed() {
    each_topic(|meeting| {
        let mut publisher = meeting.publisher("", "");
        // Who is not there yet misses it; a log keeps it.
        publisher.must("send 1 0 100", "sent");
        let mut subscriber = meeting.subscriber("", "");
        let first = u64::from(meeting.has_peers());
        // It is there: no message has to show that first.
        publisher.tell("stream 1 1 20 100");
        let haul = subscriber.recv(20 - first);
        assert!(haul.of(1).into_iter().eq(first..20), "{haul:?}");
        publisher.expect("streamed");
        meeting.ends(&mut publisher, &mut subscriber);
        // The other way round; the name is free again.
        let mut subscriber = meeting.subscriber("", "");
        subscriber.tell("until 2:19 15000");
        let mut publisher = meeting.publisher("", "");
        meeting.meet(&mut publisher, 1);
        publisher.tell("stream 2 0 20 100");
        // A log has those of the other one, too.
        let haul = subscriber.haul();
        assert!(haul.of(2).into_iter().eq(0..20), "{haul:?}");
        publisher.expect("streamed");
        meeting.ends(&mut publisher, &mut subscriber);
    });
}

/// A publisher moves when it publishes, be that rarely: who subscribes meanwhile is not put off.
#[test]
fn a_publisher_that_is_idle_for_long_is_still_joined() {
    each_topic(|meeting| {
        let mut publisher = meeting.publisher("", "");
        let mut subscriber = meeting.subscriber("", "");
        // Longer than a hello may take where it is waited for.
        subscriber.must("timeout 11000", "empty");
        subscriber.tell("recv 1 15000");
        publisher.must("send 1 0 100", "sent");
        assert_eq!(subscriber.haul().of(1), [0]);
        meeting.ends(&mut publisher, &mut subscriber);
    });
}

#[test]
fn what_is_not_there_is_not_waited_for_without_wanting_to() {
    each_topic(|meeting| {
        let mut subscriber = meeting.start("subscriber", "", "no-wait");
        let answer = subscriber.line();
        assert!(answer.starts_with("error") && answer.contains("kind: NotFound"), "{answer}");
    });
}

#[test]
fn late_subscribers_get_the_history_first() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let mut publisher = meeting.publisher("?history=3", "");
        publisher.must("stream 1 0 10 1000", "streamed");
        let mut late = meeting.subscriber("", "");
        publisher.must("send 1 10 1000", "sent");
        assert_eq!(late.recv(4).of(1), [7, 8, 9, 10]);
        let mut later = meeting.subscriber("", "");
        publisher.must("drive", "driven");
        assert_eq!(later.recv(3).of(1), [8, 9, 10]);
        // It ends with its publisher.
        publisher.tell("close");
        for subscriber in [&mut late, &mut later] {
            subscriber.must("timeout 15000", "error Ended");
        }
        publisher.expect("closed");
        let mut next = meeting.publisher("?history=3", "");
        let mut subscriber = meeting.subscriber("", "");
        next.must("send 2 0 100", "sent");
        assert_eq!(subscriber.recv(1).of(2), [0]);
        // Not more than 4 MiB of it.
        next.tell("stream 2 1 3 3000000");
        assert_eq!(subscriber.recv(2).of(2), [1, 2]);
        next.expect("streamed");
        let mut late = meeting.subscriber("", "");
        next.tell("send 2 3 100");
        assert_eq!(late.recv(2).of(2), [2, 3]);
        next.expect("sent");
    });
}

#[test]
fn who_follows_gets_what_the_next_publisher_says() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let mut subscriber = meeting.subscriber("", "follow");
        for round in 0..5 {
            subscriber.tell("recv 10 15000");
            let mut publisher = meeting.publisher("", "");
            meeting.meet(&mut publisher, 1);
            publisher.must(&format!("stream {round} 0 10 100"), "streamed");
            publisher.close();
            let haul = subscriber.haul();
            assert!(haul.of(round).into_iter().eq(0..10), "{haul:?}");
        }
        subscriber.must("timeout 30", "empty");
    });
}

/// A publisher that is opened and closed again and again, while somebody tries to join it: the subscriber
/// meets one of them, or none; it never takes an end for a death.
#[test]
fn who_comes_while_a_publisher_goes_ends_or_waits() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        for _ in 0..10 {
            let mut publisher = meeting.publisher("?history=1", "");
            publisher.must("send 1 0 100", "sent");
            let mut subscriber = meeting.start("subscriber", "", "");
            publisher.close();
            subscriber.expect("open");
            let haul = subscriber.recv_all(Duration::from_millis(100));
            assert!(problems(&haul).is_empty(), "{haul:?}");
            if haul.errors == ["error Empty nothing arrived in time"] {
                // It still waits, and finds the next one.
                subscriber.tell("recv 1 15000");
                let mut publisher = meeting.publisher("", "");
                meeting.meet(&mut publisher, 1);
                publisher.must("send 2 0 100", "sent");
                assert_eq!(subscriber.haul().of(2), [0]);
                meeting.ends(&mut publisher, &mut subscriber);
            }
        }
    });
}

#[test]
fn a_second_binder_is_told_who_has_the_name() {
    each_topic(|meeting| {
        if !meeting.one_binds() {
            return;
        }
        let publisher = meeting.publisher("", "");
        for (role, query) in [("publisher", ""), ("subscriber", "?bind")] {
            let answer = meeting.start(role, query, "").line();
            assert!(answer.contains("kind: AddressInUse"), "{answer}");
            let holder = format!("process {} (", publisher.child.id());
            assert!(answer.contains(&holder), "{holder}: {answer}");
        }
        drop(publisher);
        meeting.publisher("", "");
    });
}

#[test]
fn a_queue_that_meets_a_topic_is_refused_with_both_names() {
    each_topic(|meeting| {
        if !meeting.one_binds() {
            return;
        }
        // A publisher has bound it: a sender or receiver connects, and is told.
        let mut publisher = meeting.publisher("", "");
        let mut subscriber = meeting.subscriber("", "");
        meeting.meet(&mut publisher, 1);
        for (role, does) in [("sender", "send 1 0 10"), ("receiver", "timeout 15000")] {
            let mut misfit = meeting.start(role, "?connect", "");
            misfit.expect("open");
            misfit.tell(does);
            publisher.must("drive", "driven");
            let answer = misfit.line();
            assert!(answer.contains("kind: Mismatch"), "{role}: {answer}");
            for part in ["a publisher of a topic", &format!("a {role} of a queue")] {
                assert!(answer.contains(part), "{role}: {part}: {answer}");
            }
        }
        publisher.must("send 1 0 100", "sent");
        assert_eq!(subscriber.recv(1).of(1), [0], "the others do not notice");
        meeting.ends(&mut publisher, &mut subscriber);
        // A receiver has bound it.
        let mut receiver = meeting.receiver("");
        for role in ["publisher", "subscriber"] {
            let mut misfit = meeting.start(role, "?connect", "");
            misfit.expect("open");
            misfit.tell(if role == "publisher" { "meet 1" } else { "timeout 15000" });
            let said = receiver.must("timeout 15000", "error PeerRefused");
            let answer = misfit.line();
            assert!(answer.contains("kind: Mismatch"), "{role}: {answer}");
            for part in ["a receiver of a queue", &format!("a {role} of a topic")] {
                assert!(answer.contains(part) && said.contains(part), "{part}: {answer}; {said}");
            }
        }
    });
}

#[test]
fn options_that_mean_nothing_are_refused() {
    for (role, query, says) in [
        ("sender", "?history=3", "?history= means something for a topic only"),
        ("receiver", "?overflow=fail", "?overflow= means something for a topic only"),
        ("sender", "?capacity=1MiB", "?capacity= means something for a topic only"),
        ("publisher", "?framing=lines", "a topic goes over links"),
        ("subscriber", "?framing=raw", "a topic goes over links"),
    ] {
        let answer = Meeting::of("unix").start(role, query, "").line();
        assert!(answer.contains(says), "{role} {query}: {answer}");
    }
    let topic = Topic::<Bytes>::open("unix:/nowhere/a").expect("a topic");
    let error = topic.subscriber(switchboard::Start::Number(3)).expect_err("not here");
    assert_eq!(error.kind(), switchboard::ErrorKind::NotSupported);
    // Both ends may be given the publisher's options.
    let mut meeting = Meeting::of("unix");
    let mut publisher = meeting.publisher("?history=2&overflow=drop-oldest&capacity=1MiB", "");
    let mut subscriber = meeting.subscriber("?history=2&overflow=drop-oldest&capacity=1MiB", "");
    meeting.meet(&mut publisher, 1);
    meeting.ends(&mut publisher, &mut subscriber);
}

#[test]
fn waits_end_at_their_deadline_and_when_they_are_cancelled() {
    each_topic(|meeting| {
        let mut publisher = meeting.publisher("", "cancel");
        let mut subscriber = meeting.subscriber("", "cancel");
        meeting.meet(&mut publisher, 1);
        for timeout in [0, 60] {
            let answer = subscriber.must(&format!("timeout {timeout}"), "empty ");
            let took: u64 = answer["empty ".len()..].parse().expect("a number");
            assert!((timeout..timeout + 3000).contains(&took), "{took} ms instead of {timeout}");
        }
        super::timeouts::interrupted(&mut subscriber, "block");
        if meeting.has_peers() {
            super::timeouts::interrupted(&mut publisher, "block 8000");
        }
    });
}

#[test]
fn names_are_gone_when_both_sides_have_ended() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        for first in ["publisher", "subscriber"] {
            let mut ends = [("publisher", None), ("subscriber", None)];
            if first == "subscriber" {
                ends.reverse();
            }
            for (role, end) in &mut ends {
                let started = if *role == "publisher" {
                    meeting.publisher("", "")
                } else {
                    meeting.subscriber("", "")
                };
                *end = Some(started);
            }
            ends.sort_by_key(|(role, _)| *role);
            let [(_, publisher), (_, subscriber)] = ends;
            let (mut publisher, mut subscriber) =
                (publisher.expect("one"), subscriber.expect("one"));
            subscriber.tell("recv 1 15000");
            meeting.meet(&mut publisher, 1);
            publisher.must("send 1 0 100", "sent");
            assert_eq!(subscriber.haul().of(1), [0]);
            meeting.ends(&mut publisher, &mut subscriber);
            subscriber.close();
            let rest: Vec<_> =
                std::fs::read_dir(meeting.scratch.path()).expect("a folder").flatten().collect();
            assert!(rest.is_empty(), "{first} first: {rest:?}");
        }
    });
}

#[test]
fn many_subscribers_come_and_go() {
    each_topic(|meeting| {
        let mut publisher = meeting.publisher("", "");
        let mut crowd = Child::role("topic-crowd", &[meeting.address()]);
        crowd.expect("open");
        meeting.meet(&mut publisher, 100);
        for round in 0..5 {
            publisher.must(&format!("send 1 {round} 500"), "sent");
            crowd.tell("take");
            crowd.expect(&format!("all {round}"));
        }
        crowd.tell("thin out");
        crowd.expect("fewer");
        publisher.must("send 1 5 500", "sent");
        crowd.tell("take");
        crowd.expect("all 5");
        // Whoever has connected is in, however many came since the last message.
        crowd.tell("fill up");
        crowd.expect("more");
        publisher.must("send 1 6 500", "sent");
        crowd.tell("take");
        crowd.expect("all 6");
        crowd.tell("thin out");
        crowd.expect("fewer");
        if meeting.has_peers() {
            let since = std::time::Instant::now();
            while publisher.count("peers") > 50 {
                assert!(since.elapsed() < switchboard_testkit::DEADLINE, "they are not missed");
                publisher.must("drive", "driven");
            }
            assert_eq!(publisher.count("peers"), 50);
        }
    });
}

/// Role: a hundred subscribers.
pub(crate) fn crowd(arguments: &[String]) {
    let topic = Topic::<Bytes>::open(&arguments[0]).expect("a topic");
    let open = |_| topic.subscriber(switchboard::Start::New).expect("a subscriber");
    let mut crowd: Vec<_> = (0..100).map(open).collect();
    report("open");
    while let Some(line) = instruction() {
        if line == "thin out" {
            crowd.truncate(50);
            report("fewer");
            continue;
        }
        if line == "fill up" {
            crowd.extend((50..200).map(open));
            report("more");
            continue;
        }
        let mut numbers = Vec::new();
        for subscriber in &mut crowd {
            let sample = subscriber.recv_timeout(switchboard_testkit::DEADLINE).expect("a message");
            numbers.push(super::contents::tag(&sample.message).expect("a tag").1);
            assert_eq!(sample.number, numbers[0] + 1);
            assert_eq!(sample.lost_before, 0);
        }
        assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
        report(format!("all {}", numbers[0]));
    }
}

/// Role: reports samples as a subscriber has them, one for each line that it is told.
pub(crate) fn sampler(arguments: &[String]) {
    let topic = Topic::<Bytes>::open(&arguments[0]).expect("a topic");
    let mut subscriber = topic.subscriber(switchboard::Start::New).expect("a subscriber");
    report("open");
    while instruction().is_some() {
        match subscriber.recv_timeout(switchboard_testkit::DEADLINE) {
            Ok(sample) => report(format!("sample {} lost {}", sample.number, sample.lost_before)),
            Err(RecvError::Gap { missing, .. }) => report(format!("gap {missing}")),
            Err(error) => report(format!("{error:?}")),
        }
    }
}
