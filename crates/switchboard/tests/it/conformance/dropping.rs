//! Senders that are dropped instead of closed: they wait for what is unsettled, and for nothing else.

use std::time::Duration;

use rustix::process::Signal;

use super::each_row;

#[test]
fn a_sender_that_sent_nothing_is_dropped_without_a_receiver() {
    each_row(|meeting| {
        let mut sender = meeting.sender("");
        sender.must("drop", "dropped");
    });
}

#[test]
fn dropping_waits_for_what_is_not_acknowledged() {
    each_row(|meeting| {
        if !meeting.acknowledges() {
            return;
        }
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        sender.tell("send 1 0 100");
        receiver.tell("hold 1 15000");
        assert_eq!(receiver.haul().of(1), [0]);
        sender.expect("sent");
        sender.tell("drop");
        let early = sender.child.line_within(Duration::from_millis(100));
        assert_eq!(early, None, "the message is not acknowledged yet");
        receiver.must("acknowledge", "done");
        sender.expect("dropped");
        receiver.must("timeout 15000", "error Ended");
    });
}

/// The receiver stands still, so nothing answers the end; it finds the end, then the hang-up.
#[test]
fn dropping_waits_for_no_answer_once_all_is_settled() {
    each_row(|meeting| {
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        sender.tell("send 1 0 100");
        assert_eq!(receiver.recv(1).of(1), [0]);
        sender.expect("sent");
        sender.must("flush 15000", "flushed");
        receiver.child.signal(Signal::STOP);
        sender.must("drop", "dropped");
        sender.kill();
        receiver.child.signal(Signal::CONT);
        if meeting.tells_the_end() {
            receiver.must("timeout 15000", "error Ended");
        } else {
            receiver.must("timeout 50", "empty");
        }
    });
}

/// It is there and gone before the receiver looks: an end, not a death.
#[test]
fn a_sender_that_leaves_unheard_has_ended() {
    each_row(|meeting| {
        if !meeting.is_link() {
            return;
        }
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        if meeting.row.scheme == "tcp" {
            // Its connection is decided a moment later.
            sender.must("flush 15000", "flushed");
            sender.must("drive", "driven");
        }
        sender.must("drop", "dropped");
        sender.kill();
        let answer = receiver.ask("timeout 1000");
        let unmet = meeting.row.scheme == "tcp" && answer.starts_with("empty");
        assert!(answer.starts_with("error Ended") || unmet, "{answer}");
    });
}
