//! Messages that a receiver gives back.

use super::each_row;

#[test]
fn a_rejected_message_comes_again_until_the_limit() {
    each_row(|meeting| {
        let redelivers = meeting.takes_back();
        let mut receiver = meeting.receiver("deliveries=3");
        let mut sender = meeting.sender("deliveries=3");
        sender.tell("send 1 0 100");
        if !redelivers {
            receiver.tell("hold 1 15000");
            assert_eq!(receiver.haul().of(1), [0]);
            sender.expect("sent");
            assert_eq!(receiver.ask("reject"), "rejected not taken", "nobody could");
            receiver.expect("done");
            receiver.must("timeout 30", "empty");
            return;
        }
        for deliveries in 0..3 {
            receiver.tell("hold 1 15000");
            let haul = receiver.haul();
            if deliveries == 0 {
                sender.expect("sent");
                sender.tell("flush 15000");
            }
            let [got] = haul.got.as_slice() else { panic!("{haul:?}") };
            assert_eq!(got.tag, Some((1, 0)));
            assert_eq!(got.deliveries, deliveries);
            assert_eq!(got.redelivered, deliveries > 0);
            // Over a link the sender counts, and says so; in a log the receiver does.
            let last = deliveries == 2 && !meeting.acknowledges();
            let fate = if last { "rejected for good" } else { "rejected back" };
            assert_eq!(receiver.ask("reject"), fate);
            receiver.expect("done");
        }
        sender.expect("flushed");
        // A log is not told what became of a message.
        let told = if meeting.acknowledges() { (1, 0) } else { (0, 1) };
        assert_eq!((sender.count("rejected"), sender.count("acknowledged")), told);
        sender.tell("send 1 1 100");
        assert_eq!(receiver.recv(1).of(1), [1], "what follows is not held up");
        sender.expect("sent");
        if !meeting.acknowledges() {
            meeting.finish(&mut sender, &mut receiver);
            return;
        }
        sender.tell("close");
        receiver.must("timeout 15000", "error Ended");
        let answer = sender.line();
        assert!(answer.starts_with("close-error unacknowledged=0 rejected=1"), "{answer}");
        assert!(answer.contains("1 message was rejected"), "{answer}");
    });
}

/// A window of one message: what cannot be decoded must not keep it.
#[test]
fn a_message_that_cannot_be_decoded_is_given_back_and_the_next_ones_come() {
    each_row(|meeting| {
        let mut receiver = meeting.start("json-receiver", "", "prefetch=1,deliveries=2");
        receiver.expect("open");
        let mut sender = meeting.sender("deliveries=2");
        sender.tell("text nonsense");
        // In a log it waits for another receiver.
        let times = if meeting.acknowledges() { 2 } else { 1 };
        assert_eq!(receiver.ask("15000"), "encoding nonsense");
        sender.expect("sent");
        sender.tell("text [7]");
        for _ in 1..times {
            assert_eq!(receiver.ask("15000"), "encoding nonsense", "it is given out again");
        }
        assert_eq!(receiver.ask("15000"), "json [7]");
        sender.expect("sent");
        sender.tell("close");
        if meeting.acknowledges() {
            receiver.must("15000", "error Ended");
            let answer = sender.line();
            assert!(answer.starts_with("close-error unacknowledged=0 rejected=1"), "{answer}");
        } else {
            sender.expect("closed");
        }
    });
}

#[test]
fn acknowledgements_may_come_in_any_order() {
    each_row(|meeting| {
        if !meeting.takes_back() {
            return;
        }
        let mut receiver = meeting.receiver("prefetch=8");
        let mut sender = meeting.sender("");
        sender.tell("stream 1 0 20 100");
        receiver.tell("hold 8 15000");
        assert_eq!(receiver.haul().of(1), [0, 1, 2, 3, 4, 5, 6, 7]);
        // The window is used up: nothing more comes before something is settled.
        receiver.must("timeout 30", "empty");
        receiver.must("acknowledge-backwards", "done");
        let haul = receiver.recv(12);
        assert!(haul.of(1).into_iter().eq(8..20), "{haul:?}");
        sender.expect("streamed");
        sender.must("flush 15000", "flushed");
        assert_eq!(sender.count("acknowledged"), 20);
        meeting.finish(&mut sender, &mut receiver);
    });
}
