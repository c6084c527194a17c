//! Waits that end: by their deadline, or by the cancel descriptor.

use std::time::{Duration, Instant};

use switchboard_testkit::DEADLINE;

use super::{End, each_row};

#[test]
fn receiving_gives_up_near_its_deadline() {
    each_row(|meeting| {
        let mut receiver = meeting.receiver("");
        let _sender = meeting.sender("");
        for timeout in [0, 1, 60, 150] {
            let answer = receiver.must(&format!("timeout {timeout}"), "empty ");
            let took: u64 = answer["empty ".len()..].parse().expect("a number");
            assert!((timeout..timeout + 3000).contains(&took), "{took} ms instead of {timeout}");
        }
    });
}

#[test]
fn the_cancel_descriptor_interrupts_a_receiver() {
    each_row(|meeting| {
        let mut receiver = meeting.receiver("cancel");
        let _sender = meeting.sender("");
        interrupted(&mut receiver, "block");
    });
}

#[test]
fn the_cancel_descriptor_interrupts_a_sender() {
    each_row(|meeting| {
        // Datagrams over UDP never wait for anybody: there is nothing to interrupt.
        if !meeting.row.capabilities.reliable {
            return;
        }
        let _receiver = meeting.receiver("");
        let mut sender = meeting.sender_at(meeting.small(), "cancel");
        let len = meeting.largest().min(8000);
        interrupted(&mut sender, &format!("block {len}"));
    });
}

/// Cancels a call once it sleeps in the kernel.
pub(crate) fn interrupted(end: &mut End, block: &str) {
    let blocking = end.must(block, "blocking ");
    let thread = &blocking["blocking ".len()..];
    let stat = format!("/proc/{}/task/{thread}/stat", end.child.id());
    let since = Instant::now();
    // Twice asleep in a row: a sender fills what it fills before that.
    let mut asleep = 0;
    while asleep < 3 {
        assert!(since.elapsed() < DEADLINE, "it never waits");
        let stat = std::fs::read_to_string(&stat).expect("a thread");
        let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
        asleep = if state == Some("S") { asleep + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(2));
    }
    let since = Instant::now();
    end.tell("cancel");
    let answer = end.line();
    assert!(answer.starts_with("error Interrupted"), "{answer}");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}
