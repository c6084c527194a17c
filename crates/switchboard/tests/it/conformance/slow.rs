//! A receiver that is slow: its sender waits, loses nothing, and neither needs more memory than their
//! windows.

use super::{Meeting, each_row};

#[test]
fn a_sender_waits_for_a_slow_receiver_and_goes_on() {
    each_row(|meeting| {
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender_at(meeting.small(), "");
        let len = meeting.largest().min(2000);
        // One message is through, so that both have met.
        sender.tell(&format!("send 9 0 {len}"));
        assert_eq!(receiver.recv(1).of(9), [0]);
        sender.expect("sent");
        if !meeting.row.capabilities.reliable {
            // Nothing holds a sender of datagrams back; what does not fit is lost, and counted.
            return;
        }
        let full = sender.must(&format!("fill 1 {len}"), "full ");
        let taken: u64 = full["full ".len()..].parse().expect("a number");
        assert!(taken > 0);
        let late = sender.must(&format!("timeout 1 0 {len} 100"), "full ");
        let took: u64 = late["full ".len()..].parse().expect("a number");
        assert!((90..5000).contains(&took), "Full after {took} ms, of 100");
        sender.tell(&format!("send 2 0 {len}"));
        let haul = receiver.recv(taken + 1);
        sender.expect("sent");
        assert_eq!(haul.of(1).len() as u64, taken, "{:?}", haul.errors);
        assert_eq!(haul.of(2), [0]);
        meeting.finish(&mut sender, &mut receiver);
    });
}

#[test]
fn memory_stays_within_the_window() {
    each_row(|meeting| {
        if !meeting.row.capabilities.reliable {
            return;
        }
        let len = meeting.largest().min(100_000);
        let mut receiver = meeting.receiver("prefetch-bytes=1000000");
        let mut sender = meeting.sender_at(meeting.small(), "");
        sender.tell(&format!("send 9 0 {len}"));
        assert_eq!(receiver.recv(1).of(9), [0]);
        sender.expect("sent");
        let before = (sender.resident_kib(), receiver.resident_kib());
        // Far more than a window is to be sent, and the receiver does not look.
        let full = sender.must(&format!("fill 1 {len}"), "full ");
        sender.must(&format!("timeout 1 0 {len} 50"), "full ");
        let after = (sender.resident_kib(), receiver.resident_kib());
        let grown = after.0.saturating_sub(before.0);
        assert!(grown < 8 * 1024, "{full}: the sender grew by {grown} KiB");
        assert_eq!(after.1.saturating_sub(before.1) / 1024, 0, "the receiver did nothing");
    });
}

#[test]
fn acknowledgements_can_be_gathered() {
    for scheme in ["unix", "tcp"] {
        let mut meeting = Meeting::of(scheme);
        let mut receiver = meeting.receiver("ack-every=16");
        let mut sender = meeting.sender("");
        sender.tell("stream 1 0 500 100");
        let haul = receiver.recv(500);
        assert!(haul.of(1).into_iter().eq(0..500));
        sender.expect("streamed");
        meeting.finish(&mut sender, &mut receiver);
    }
}
