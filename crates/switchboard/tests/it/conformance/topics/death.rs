//! SIGKILL of publishers and subscribers, while messages flow.

use std::time::Duration;

use rustix::process::Signal;

use super::super::contents::Random;
use super::super::death::{Seed, a_moment};
use super::super::{End, Haul, each_topic};
use super::{everything, missing, problems};

#[test]
fn a_killed_publisher_leaves_a_prefix_and_is_reported() {
    each_topic(|meeting| {
        let seed = Seed(Random::seed());
        let mut random = Random::new(seed.0);
        for round in 0..4 {
            let mut publisher = meeting.publisher("", "");
            let mut subscribers = [meeting.subscriber("", ""), meeting.subscriber("", "")];
            meeting.meet(&mut publisher, 2);
            if meeting.has_peers() {
                let tell = |end: &mut End| end.tell(&format!("recv {} 15000", u64::MAX));
                subscribers.iter_mut().for_each(tell);
            }
            publisher.tell(&format!("pour {round} {}", 30 + random.below(3000)));
            let mut acknowledged = acknowledged_in(&publisher.line()).expect("it pours");
            a_moment(&mut random, 20);
            publisher.kill();
            if !meeting.has_peers() {
                // What nobody has to be there for is all there, and nobody says when that was all.
                let rest = publisher.child.remaining_lines();
                acknowledged = rest
                    .iter()
                    .filter_map(|line| acknowledged_in(line))
                    .fold(acknowledged, u64::max);
            }
            for subscriber in &mut subscribers {
                let haul = if meeting.has_peers() {
                    subscriber.haul()
                } else {
                    // All from the beginning. Each publisher before this one may have left an unfinished
                    // message, which is said in between.
                    let mut haul = Haul::default();
                    for _ in 0..=round {
                        let some = subscriber.recv_all(Duration::from_millis(300));
                        let said = !problems(&some).is_empty();
                        haul.got.extend(some.got);
                        haul.errors.extend(some.errors);
                        if !said {
                            break;
                        }
                    }
                    haul
                };
                let numbers = haul.of(round);
                let count = numbers.len() as u64;
                assert!(count > 0, "{acknowledged} acknowledged in round {round}: {haul:?}");
                let first_wrong = (0..count).zip(&numbers).find(|(wanted, got)| wanted != *got);
                assert_eq!(
                    first_wrong, None,
                    "a prefix, of {acknowledged} in round {round}: {:?}",
                    haul.errors
                );
                let problems = problems(&haul);
                if meeting.has_peers() {
                    let [died] = problems.as_slice() else { panic!("{:?}", haul.errors) };
                    assert!(died.starts_with("error PeerDied"), "{died}");
                    assert!(died.contains(&format!("received: {count} }}")), "{count}: {died}");
                    let name = meeting.name_of(&publisher);
                    assert!(died.contains(&name), "{name}: {died}");
                    assert!(haul.errors.last().expect("an end").starts_with("error Ended"));
                } else {
                    let is_unfinished = |said: &&&String| said.contains("of an unfinished message");
                    let unfinished = problems.iter().filter(is_unfinished).count();
                    assert!(count >= acknowledged, "{count} of {acknowledged} acknowledged");
                    assert_eq!(unfinished, problems.len(), "{problems:?}");
                    assert!(unfinished as u64 <= round, "{problems:?}");
                }
            }
        }
    });
}

/// How many messages a publisher that pours says are acknowledged.
fn acknowledged_in(line: &str) -> Option<u64> {
    line.strip_prefix("acknowledged ")?.parse().ok()
}

#[test]
fn one_publisher_of_two_dies_and_the_other_goes_on() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let (bind, connect) = if meeting.one_binds() { ("?bind", "?connect") } else { ("", "") };
        let mut subscriber = meeting.subscriber(bind, "");
        let mut publishers = [meeting.publisher(connect, ""), meeting.publisher(connect, "")];
        subscriber.tell("recv 20 15000");
        for (n, publisher) in (1..).zip(&mut publishers) {
            meeting.meet(publisher, 1);
            publisher.must(&format!("stream {n} 0 10 100"), "streamed");
        }
        assert_eq!(subscriber.haul().got.len(), 20);
        let [first, second] = &mut publishers;
        first.kill();
        let died = subscriber.must("timeout 15000", "error PeerDied");
        assert!(died.contains("received: 10 }"), "{died}");
        second.must("send 2 10 100", "sent");
        assert_eq!(subscriber.recv(1).of(2), [10]);
        meeting.ends(second, &mut subscriber);
    });
}

#[test]
fn a_killed_subscriber_holds_nobody_up() {
    each_topic(|meeting| {
        let seed = Seed(Random::seed());
        let mut random = Random::new(seed.0);
        let mut publisher = meeting.publisher("", "");
        let mut survivor = meeting.subscriber("", "");
        let mut victims: Vec<End> = (0..3).map(|_| meeting.subscriber("", "")).collect();
        meeting.meet(&mut publisher, 4);
        survivor.tell("until 1:7999 15000");
        for victim in &mut victims {
            victim.tell(&format!("recv {} 15000", u64::MAX));
        }
        publisher.tell("stream 1 0 8000 300");
        for victim in &mut victims {
            a_moment(&mut random, 20);
            victim.kill();
        }
        publisher.expect("streamed");
        let haul = survivor.haul();
        assert!(haul.of(1).into_iter().eq(0..8000), "{:?}", haul.errors);
        assert!(haul.errors.is_empty(), "{:?}", haul.errors);
        if meeting.has_peers() {
            assert_eq!(publisher.count("peers"), 1);
        }
        meeting.ends(&mut publisher, &mut survivor);
    });
}

/// It holds the publisher up, and then it dies: the publisher goes on at once.
#[test]
fn a_stopped_subscriber_that_dies_lets_the_publisher_go_on() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let mut publisher = meeting.publisher("?capacity=64KiB", "");
        let mut survivor = meeting.subscriber("", "");
        let mut victim = meeting.subscriber("", "");
        meeting.meet(&mut publisher, 2);
        victim.child.signal(Signal::STOP);
        survivor.tell("until 1:999 15000");
        publisher.tell("stream 1 0 1000 2000");
        let early = publisher.child.line_within(Duration::from_millis(200));
        assert_eq!(early, None, "2 MB do not fit");
        victim.kill();
        publisher.expect("streamed");
        let haul = survivor.haul();
        assert!(haul.of(1).into_iter().eq(0..1000), "{:?}", haul.errors);
        meeting.ends(&mut publisher, &mut survivor);
    });
}

/// A publisher that connects goes on with the next subscriber, and the history comes first.
#[test]
fn a_publisher_that_connects_finds_the_next_subscriber() {
    each_topic(|meeting| {
        if !meeting.one_binds() {
            return;
        }
        let mut publisher = meeting.publisher("?connect&history=2", "");
        publisher.must("stream 1 0 5 100", "streamed");
        for round in 1..4 {
            let mut subscriber = meeting.subscriber("?bind", "");
            subscriber.tell("recv 3 15000");
            meeting.meet(&mut publisher, 1);
            let n = 4 + round;
            publisher.must(&format!("send 1 {n} 100"), "sent");
            assert_eq!(subscriber.haul().of(1), [n - 2, n - 1, n]);
            subscriber.kill();
            // It notices when it looks.
            while publisher.count("peers") > 0 {
                publisher.must("drive", "driven");
            }
        }
        publisher.close();
    });
}

#[test]
fn a_publisher_that_is_dropped_says_its_end() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let mut publisher = meeting.publisher("", "");
        let mut subscriber = meeting.subscriber("", "");
        meeting.meet(&mut publisher, 1);
        subscriber.child.signal(Signal::STOP);
        publisher.must("stream 1 0 50 100", "streamed");
        publisher.must("drop", "dropped");
        publisher.kill();
        subscriber.child.signal(Signal::CONT);
        let haul = everything(meeting, &mut subscriber);
        assert!(haul.of(1).into_iter().eq(0..50), "{haul:?}");
        assert_eq!((missing(&haul), problems(&haul).len()), (0, 0), "{:?}", haul.errors);
    });
}
