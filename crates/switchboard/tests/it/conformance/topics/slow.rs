//! Subscribers that are slow, or stopped: what each policy does to the publisher, to them and to others.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use switchboard_testkit::child::Child;

use super::super::{End, Meeting, each_topic};
use super::{everything, missing, number_after, problems};

/// So much waits at most in these tests, beyond what a socket holds.
const CAPACITY: &str = "capacity=256KiB";

/// A publisher with this policy, one that reads all the time, and one that does not yet.
fn fast_and_slow(meeting: &mut Meeting, overflow: &str) -> (End, End, End) {
    let mut publisher = meeting.publisher(&format!("?{CAPACITY}&overflow={overflow}"), "");
    let mut fast = meeting.subscriber("", "");
    let slow = meeting.subscriber("", "");
    meeting.meet(&mut publisher, 2);
    fast.tell(&format!("recv {} 15000", u64::MAX));
    (publisher, fast, slow)
}

/// Sends messages of 1000 bytes without waiting until this subscriber is what stops it. How many.
fn fill(meeting: &Meeting, publisher: &mut End, slow: &End) -> u64 {
    let mut taken = 0;
    loop {
        let full = publisher.must("fill 1 1000", "slow ");
        taken += number_after(&full, "slow ");
        let is_named = full.contains(&meeting.name_of(slow));
        if is_named && meeting.tells_processes() {
            return taken;
        }
        // On a loaded machine the other one can be the slowest for a while.
        // And over TCP a kernel may take more a while later.
        let while_ms = if meeting.tells_processes() { 20 } else { 500 };
        let later = publisher.must(&format!("timeout 9 9 1000 {while_ms}"), "s");
        if is_named && later.starts_with("slow") {
            return taken;
        }
    }
}

#[test]
fn block_waits_for_the_slowest_and_says_who_it_is() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let (mut publisher, mut fast, mut slow) = fast_and_slow(meeting, "block");
        let before = publisher.resident_kib();
        let taken = fill(meeting, &mut publisher, &slow);
        // The message is given back, and nobody has it.
        let late = publisher.must("timeout 2 0 1000 100", "slow ");
        assert!(late.contains(&meeting.name_of(&slow)), "{late}");
        assert!((90..5000).contains(&number_after(&late, "slow ")), "{late}");
        assert!(publisher.count("unacknowledged") > 0);
        let grown = publisher.resident_kib().saturating_sub(before);
        assert!(grown < 4096, "it grew by {grown} KiB");
        publisher.tell("send 3 0 1000");
        slow.tell(&format!("recv {} 15000", u64::MAX));
        publisher.expect("sent");
        publisher.must("flush 15000", "flushed");
        assert_eq!(publisher.count("unacknowledged"), 0);
        publisher.close();
        for subscriber in [&mut fast, &mut slow] {
            let haul = subscriber.haul();
            assert_eq!((haul.of(1).len() as u64, haul.of(2).len()), (taken, 0));
            assert_eq!(haul.of(3), [0]);
            assert_eq!(haul.errors, ["error Ended every sender has ended"]);
        }
    });
}

#[test]
fn drop_oldest_drops_for_the_slow_one_alone_and_tells_it_how_much() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let (mut publisher, mut fast, mut slow) = fast_and_slow(meeting, "drop-oldest");
        let before = publisher.resident_kib();
        publisher.must("stream 1 0 6000 1000", "streamed");
        let grown = publisher.resident_kib().saturating_sub(before);
        assert!(grown < 4096, "it grew by {grown} KiB");
        assert!(publisher.count("dropped") > 0 || !meeting.counts_drops(), "6 MB were published");
        publisher.tell("close");
        let haul = everything(meeting, &mut slow);
        publisher.expect("closed");
        let numbers = haul.of(1);
        assert!(numbers.is_sorted_by(|a, b| a < b), "in order");
        assert_eq!(numbers.last(), Some(&5999), "the newest are kept");
        assert!(missing(&haul) > 0);
        assert_eq!(numbers.len() as u64 + missing(&haul), 6000, "gaps are exact");
        assert_eq!(haul.errors.last().expect("an end"), "error Ended every sender has ended");
        assert!(problems(&haul).is_empty(), "{:?}", problems(&haul));
        let haul = fast.haul();
        assert_eq!(haul.of(1).len() as u64 + missing(&haul), 6000);
        assert!(problems(&haul).is_empty(), "{:?}", problems(&haul));
    });
}

#[test]
fn a_gap_is_told_once_before_what_follows_it() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let mut publisher = meeting.publisher("?capacity=1000&overflow=drop-oldest", "");
        let mut sampler = Child::role("topic-sampler", &[meeting.address()]);
        sampler.expect("open");
        meeting.meet(&mut publisher, 1);
        publisher.must("send 1 0 100", "sent");
        sampler.tell("next");
        sampler.expect("sample 1 lost 0");
        publisher.must("stream 1 1 4000 1000", "streamed");
        publisher.must("drive", "driven");
        let dropped = publisher.count("dropped");
        assert!(dropped > 0 || !meeting.counts_drops());
        publisher.tell("close");
        let (mut expected, mut gaps) = (2, 0);
        while expected <= 4000 {
            sampler.tell("next");
            let mut said = sampler.line().expect("a sample");
            let mut lost = 0;
            if said.starts_with("gap") {
                lost = number_after(&said, "gap ");
                gaps += lost;
                expected += lost;
                sampler.tell("next");
                said = sampler.line().expect("a sample");
            }
            assert_eq!(said, format!("sample {expected} lost {lost}"));
            expected += 1;
        }
        assert!(gaps > 0 && (gaps == dropped || !meeting.counts_drops()));
        sampler.tell("next");
        sampler.expect("Ended");
        publisher.expect("closed");
    });
}

#[test]
fn fail_fails_at_once_and_goes_on_when_there_is_room() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let (mut publisher, mut fast, mut slow) = fast_and_slow(meeting, "fail");
        let taken = fill(meeting, &mut publisher, &slow);
        // A send that would wait does not either.
        let since = Instant::now();
        let failed = publisher.must("send 2 0 1000", "error Slow");
        assert!(failed.contains("is too slow"), "{failed}");
        let late = publisher.must("timeout 2 0 1000 20000", "slow ");
        assert!(
            since.elapsed() < Duration::from_secs(10) && late.contains(&meeting.name_of(&slow)),
            "{late}"
        );
        slow.tell(&format!("recv {} 15000", u64::MAX));
        publisher.must("flush 15000", "flushed");
        publisher.must("send 3 0 1000", "sent");
        publisher.close();
        for subscriber in [&mut fast, &mut slow] {
            let haul = subscriber.haul();
            assert_eq!((haul.of(1).len() as u64, haul.of(2).len()), (taken, 0), "for nobody");
            assert_eq!((haul.of(3), missing(&haul)), (vec![0], 0));
        }
    });
}

#[test]
fn a_stopped_subscriber_is_a_slow_one_until_it_goes_on() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        for overflow in ["block", "drop-oldest", "fail"] {
            let (mut publisher, mut fast, mut slow) = fast_and_slow(meeting, overflow);
            slow.tell(&format!("recv {} 15000", u64::MAX));
            slow.child.signal(Signal::STOP);
            match overflow {
                "drop-oldest" => drop(publisher.must("stream 1 0 2000 1000", "streamed")),
                _ => drop(fill(meeting, &mut publisher, &slow)),
            }
            slow.child.signal(Signal::CONT);
            publisher.must("flush 15000", "flushed");
            publisher.must("send 2 0 1000", "sent");
            publisher.close();
            let (fast, slow) = (fast.haul(), slow.haul());
            assert_eq!((fast.of(2), slow.of(2)), (vec![0], vec![0]), "{overflow}");
            let all = |haul: &super::Haul| haul.of(1).len() as u64 + missing(haul);
            assert_eq!(all(&fast), all(&slow), "{overflow}");
            assert!(overflow == "drop-oldest" || missing(&slow) == 0);
            assert!(problems(&fast).is_empty() && problems(&slow).is_empty(), "{slow:?}");
        }
    });
}

/// What is in shared memory stays there for who has it mapped.
#[test]
fn closing_takes_nothing_from_a_stopped_subscriber() {
    let mut meeting = Meeting::of("shm");
    let (mut publisher, mut fast, mut slow) = fast_and_slow(&mut meeting, "fail");
    slow.child.signal(Signal::STOP);
    let taken = fill(&meeting, &mut publisher, &slow);
    publisher.must("close", "closed");
    publisher.kill();
    slow.child.signal(Signal::CONT);
    slow.tell(&format!("recv {} 15000", u64::MAX));
    for subscriber in [&mut fast, &mut slow] {
        let haul = subscriber.haul();
        assert_eq!((haul.of(1).len() as u64, missing(&haul)), (taken, 0));
        assert_eq!(haul.errors, ["error Ended every sender has ended"]);
    }
}

/// Under a policy that waits for nobody, its end does not either, for long.
#[test]
fn closing_leaves_a_stopped_subscriber_behind() {
    each_topic(|meeting| {
        if !meeting.has_peers() || meeting.row.scheme == "shm" {
            return;
        }
        for (overflow, does, done) in
            [("drop-oldest", "close", "closed"), ("fail", "drop", "dropped")]
        {
            let (mut publisher, mut fast, mut slow) = fast_and_slow(meeting, overflow);
            slow.child.signal(Signal::STOP);
            publisher.ask("fill 1 1000");
            let since = Instant::now();
            publisher.must(does, done);
            let took = since.elapsed();
            assert!(
                took > Duration::from_millis(500) && took < Duration::from_secs(10),
                "{took:?}"
            );
            let haul = fast.haul();
            assert!(problems(&haul).is_empty(), "{overflow}: {:?}", problems(&haul));
            slow.child.signal(Signal::CONT);
            let haul = everything(meeting, &mut slow);
            // What the kernel had for it arrives; that more was to come shows as a death.
            assert!(problems(&haul)[0].starts_with("error PeerDied"), "{:?}", haul.errors);
        }
        // Under block it is waited for, as long as the linger says.
        let mut publisher = meeting.publisher("", "linger=300");
        let slow = meeting.subscriber("", "");
        meeting.meet(&mut publisher, 1);
        publisher.must("fill 1 10000", "slow ");
        let error = publisher.must("close", "close-error unacknowledged=");
        assert!(
            number_after(&error, "unacknowledged=") > 0 && error.contains(&meeting.name_of(&slow))
        );
    });
}

#[test]
fn what_is_too_long_for_one_is_a_gap_to_it_alone() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let mut publisher = meeting.publisher("", "");
        let mut any = meeting.subscriber("", "");
        let mut short = meeting.subscriber("?max-message=1000", "");
        meeting.meet(&mut publisher, 2);
        for (n, len) in (0..).zip([1000, 1001, 70_000, 5, 300_000, 1000, 2000]) {
            publisher.tell(&format!("send 1 {n} {len}"));
            assert_eq!(any.recv(1).of(1), [n]);
            publisher.expect("sent");
        }
        publisher.tell("close");
        let haul = everything(meeting, &mut short);
        assert_eq!((haul.of(1), missing(&haul)), (vec![0, 3, 5], 4), "{:?}", haul.errors);
        assert!(problems(&haul).is_empty());
        any.must("timeout 15000", "error Ended");
        publisher.expect("closed");
    });
}

/// Nobody runs a thread, and yet a long message does not stay half written for one that reads.
#[test]
fn a_long_message_goes_out_at_once_to_who_reads() {
    each_topic(|meeting| {
        if !meeting.has_peers() {
            return;
        }
        let mut publisher = meeting.publisher("?overflow=drop-oldest", "");
        let mut reading = meeting.subscriber("", "");
        meeting.meet(&mut publisher, 1);
        for n in 0..20 {
            reading.tell("recv 1 15000");
            publisher.must(&format!("send 1 {n} 1000000"), "sent");
            // On a loaded machine the reader may not run in time; then it goes on when it is told to.
            let since = Instant::now();
            while publisher.count("unacknowledged") > 0 {
                assert!(since.elapsed() < switchboard_testkit::DEADLINE, "never");
                publisher.must("drive", "driven");
            }
            assert_eq!(reading.haul().of(1), [n]);
        }
        meeting.ends(&mut publisher, &mut reading);
    });
}
