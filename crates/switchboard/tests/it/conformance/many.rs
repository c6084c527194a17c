//! Many senders at once, and many receivers where the transport has them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{End, Haul, each_row};

const SENDERS: u64 = 4;
const EACH: u64 = 150;

#[test]
fn many_senders_lose_nothing_and_keep_their_order() {
    each_row(|meeting| {
        if !meeting.row.capabilities.many_senders {
            // Both ends of its descriptor are taken: there is no place for another.
            assert!(meeting.is_given());
            return;
        }
        let capabilities = meeting.row.capabilities;
        let mut receiver = meeting.receiver("");
        let mut senders: Vec<End> = (0..SENDERS).map(|_| meeting.sender("")).collect();
        // All are there before the first one ends, so that none of them is left out.
        for (sender, end) in (1..).zip(&mut senders) {
            end.tell(&format!("stream {sender} 0 {EACH} 40"));
        }
        let tells = meeting.tells_the_end() && capabilities.reliable;
        let idle = if tells { 10_000 } else { 1000 };
        receiver.tell(&format!("recv {} {idle}", SENDERS * EACH));
        let closing = |end: &mut End| {
            end.expect("streamed");
            end.tell("close");
        };
        senders.iter_mut().for_each(closing);
        let haul = receiver.haul();
        if capabilities.reliable {
            assert!(haul.errors.is_empty(), "{:?}", haul.errors);
        }
        let mut lost = haul.lost();
        for sender in 1..=SENDERS {
            let numbers = haul.of(sender);
            assert!(numbers.is_sorted_by(|a, b| a < b), "sender {sender}: {numbers:?}");
            lost -= numbers.windows(2).map(|pair| pair[1] - pair[0] - 1).sum::<u64>();
            if capabilities.reliable {
                assert!(numbers.into_iter().eq(0..EACH), "sender {sender}");
            }
        }
        if capabilities.reliable {
            assert_eq!(lost, 0);
        }
        if meeting.tells_the_end() {
            loop {
                let answer = receiver.ask(&format!("timeout {idle}"));
                // A datagram that says the end can be lost as well.
                let lost = answer.starts_with("empty") && !capabilities.reliable;
                if lost || answer.starts_with("error Ended") {
                    break;
                }
                // What a datagram transport lost at the end, it says now.
                assert!(answer.contains("lost") && !capabilities.reliable, "{answer}");
            }
        }
        senders.iter_mut().for_each(|end| end.expect("closed"));
    });
}

#[test]
fn many_receivers_share_the_messages() {
    const RECEIVERS: u64 = 3;
    const MESSAGES: u64 = 300;
    each_row(|meeting| {
        let capabilities = meeting.row.capabilities;
        let connected = capabilities.bidirectional;
        if !connected && !capabilities.outlives_processes {
            // One socket, pipe or descriptor has one reader: a second one is refused, or given
            // nothing whole; see `restart` for the refusal.
            return;
        }
        let (bind, connect) = if connected { ("?bind", "?connect") } else { ("", "") };
        let mut sender = meeting.sender_at(bind, "");
        let options = "prefetch=4";
        let mut receivers: Vec<End> =
            (0..RECEIVERS).map(|_| meeting.receiver_at(connect, options)).collect();
        for receiver in &mut receivers {
            let most = u64::MAX;
            receiver.tell(&format!("recv {most} {}", if connected { 15_000 } else { 500 }));
        }
        if connected {
            wait_for_peers(&mut sender, RECEIVERS);
        }
        sender.tell(&format!("stream 1 0 {MESSAGES} 100"));
        sender.expect("streamed");
        sender.close();
        let hauls: Vec<Haul> = receivers.iter_mut().map(End::haul).collect();
        let mut all: Vec<u64> = hauls.iter().flat_map(|haul| haul.of(1)).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..MESSAGES), "each message once");
        for haul in &hauls {
            assert!(haul.of(1).is_sorted(), "in order for each receiver");
            assert!(haul.got.iter().all(|got| !got.redelivered));
            if connected {
                assert!(!haul.got.is_empty(), "a receiver that was there got nothing");
                assert!(haul.errors.iter().all(|e| e.starts_with("error Ended")), "{haul:?}");
            }
        }
    });
}

/// Waits until so many receivers said hello.
fn wait_for_peers(sender: &mut End, peers: u64) {
    let since = std::time::Instant::now();
    while sender.count("peers") < peers {
        assert!(since.elapsed() < switchboard_testkit::DEADLINE, "not all connected");
        sender.must("drive", "driven");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn priorities_overtake_where_the_row_has_them() {
    each_row(|meeting| {
        if meeting.is_given() || !meeting.row.capabilities.priorities {
            return;
        }
        let mut sender = meeting.sender("");
        for (n, priority) in [(0, 0), (1, 5), (2, 1), (3, 5), (4, 0)] {
            sender.must(&format!("priority 1 {n} {priority}"), "sent");
        }
        let mut receiver = meeting.receiver("");
        let haul = receiver.recv(5);
        assert_eq!(haul.of(1), [1, 3, 2, 0, 4]);
        let priorities: Vec<u32> = haul.got.iter().map(|got| got.priority).collect();
        assert_eq!(priorities, [5, 5, 1, 0, 0]);
    });
}

/// How often each number came.
pub(crate) fn times(numbers: impl IntoIterator<Item = u64>) -> BTreeMap<u64, u32> {
    let mut times = BTreeMap::new();
    numbers.into_iter().for_each(|n| *times.entry(n).or_default() += 1);
    times
}
