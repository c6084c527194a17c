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
        let reliable = meeting.row.capabilities.reliable;
        // Datagrams show a sender only once it has sent: all seen so far may have ended by then.
        let mut receiver = meeting.receiver(if reliable { "" } else { "follow" });
        let mut senders: Vec<End> = (0..SENDERS).map(|_| meeting.sender("")).collect();
        // All are there before the first one ends, so that none of them is left out.
        for (sender, end) in (1..).zip(&mut senders) {
            end.tell(&format!("stream {sender} 0 {EACH} 40"));
        }
        let tells = meeting.tells_the_end() && reliable;
        let idle = if tells { 10_000 } else { 1000 };
        receiver.tell(&format!("recv {} {idle}", SENDERS * EACH));
        senders.iter_mut().for_each(|end| {
            end.expect("streamed");
            end.tell("close");
        });
        let haul = receiver.haul();
        let mut lost = haul.lost();
        for sender in 1..=SENDERS {
            let numbers = haul.of(sender);
            assert!(numbers.is_sorted_by(|a, b| a < b), "sender {sender}: {numbers:?}");
            let first = numbers.first().copied().unwrap_or(0);
            lost -= first;
            lost -= numbers.windows(2).map(|pair| pair[1] - pair[0] - 1).sum::<u64>();
            if reliable {
                assert!(numbers.into_iter().eq(0..EACH), "sender {sender}: {:?}", haul.errors);
            }
        }
        assert_eq!(lost, 0, "what is missing between messages is counted, and nothing else");
        if tells {
            assert!(haul.errors.is_empty(), "{:?}", haul.errors);
            receiver.must("timeout 15000", "error Ended");
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
        let anybody = meeting.row.scheme == "shm";
        let connected = capabilities.bidirectional || anybody;
        if !connected && !capabilities.outlives_processes {
            // One socket or descriptor has one reader, and `restart` shows that a second is refused.
            // Two readers of a FIFO tear its lines apart, whatever anybody does.
            assert!(meeting.is_given() || !meeting.row.capabilities.redelivers);
            return;
        }
        let one_binds = connected && !anybody;
        let (bind, connect) = if one_binds { ("?bind", "?connect") } else { ("", "") };
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
        let mut sends = [(0, 0), (1, 5), (2, 1), (3, 5), (4, 0)]
            .map(|(n, priority)| format!("priority 1 {n} {priority}"))
            .into_iter();
        let (order, priorities) = if meeting.row.capabilities.priorities {
            ([1, 3, 2, 0, 4], [5, 5, 1, 0, 0])
        } else {
            ([0, 1, 2, 3, 4], [0; 5])
        };
        let (mut receiver, mut sender);
        if meeting.row.capabilities.outlives_processes {
            // All are in the queue before the first one is received.
            sender = meeting.sender("");
            sends.by_ref().for_each(|send| assert_eq!(sender.ask(&send), "sent"));
            receiver = meeting.receiver("");
        } else {
            receiver = meeting.receiver("");
            sender = meeting.sender("");
            sends.by_ref().for_each(|send| sender.tell(&send));
            if meeting.row.capabilities.priorities {
                // All are there before the first one is received.
                (0..5).for_each(|_| sender.expect("sent"));
            }
        }
        let haul = receiver.recv(5);
        assert_eq!(haul.of(1), order, "{:?}", haul.errors);
        assert!(haul.got.iter().map(|got| got.priority).eq(priorities));
    });
}

/// How often each number came.
pub(crate) fn times(numbers: impl IntoIterator<Item = u64>) -> BTreeMap<u64, u32> {
    let mut times = BTreeMap::new();
    numbers.into_iter().for_each(|n| *times.entry(n).or_default() += 1);
    times
}
