//! SIGKILL of either side at random moments, while messages flow.

use std::collections::BTreeSet;
use std::time::Duration;

use super::contents::Random;
use super::many::times;
use super::{End, Got, Haul, Meeting, each_row};

/// Says the seed when a check fails.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            switchboard_testkit::skip::say(&format!("the moments came from the seed {}", self.0));
        }
    }
}

pub(crate) fn a_moment(random: &mut Random, most_ms: u64) {
    // Not for luck: the moment of death is what varies, and every one of them has to do.
    std::thread::sleep(Duration::from_micros(random.below(most_ms * 1000)));
}

#[test]
fn a_killed_sender_leaves_a_prefix() {
    each_row(|meeting| {
        let seed = Seed(Random::seed());
        let mut random = Random::new(seed.0);
        for round in 0..3 {
            let mut here = Meeting::new(meeting.row, meeting.name.contains("pipe"));
            let mut receiver = here.receiver("");
            let mut sender = here.sender("");
            let idle = if here.tells_the_end() && here.row.scheme != "udp" { 15_000 } else { 300 };
            receiver.tell(&format!("recv {} {idle}", u64::MAX));
            let len = 30 + random.below(3000);
            sender.tell(&format!("pour {round} {len}"));
            assert!(sender.line().starts_with("acknowledged"));
            a_moment(&mut random, 20);
            sender.kill();
            let haul = receiver.haul();
            let acknowledged = acknowledged(&sender.child.remaining_lines());
            a_prefix(&here, &haul, round, acknowledged);
        }
    });
}

/// The last count that a sender reported before it died.
fn acknowledged(lines: &[String]) -> u64 {
    let counts = lines.iter().filter_map(|line| line.strip_prefix("acknowledged "));
    counts.map(|count| count.parse().expect("a number")).max().unwrap_or(0)
}

fn a_prefix(meeting: &Meeting, haul: &Haul, sender: u64, acknowledged: u64) {
    let numbers = haul.of(sender);
    assert_eq!(numbers.len(), haul.got.len(), "every message is whole");
    let count = numbers.len() as u64;
    if meeting.row.capabilities.reliable {
        assert!(numbers.into_iter().eq(0..count), "a prefix");
        // Where nothing is acknowledged, the kernel took it, and the receiver lives.
        assert!(count >= acknowledged, "{count} arrived, {acknowledged} were acknowledged");
    } else {
        assert!(numbers.is_sorted_by(|a, b| a < b), "in order");
        let last = haul.of(sender).last().map_or(0, |last| last + 1);
        assert_eq!(count + haul.lost(), last, "what is missing is counted");
    }
    let died: Vec<&String> =
        haul.errors.iter().filter(|error| error.starts_with("error PeerDied")).collect();
    if meeting.is_link() {
        let [died] = died.as_slice() else { panic!("one death: {:?}", haul.errors) };
        assert!(died.contains(&format!("received: {count} }}")), "{count}: {died}");
        let end = haul.errors.last().expect("an end");
        assert!(end.starts_with("error Ended"), "{end}");
    } else {
        assert!(died.is_empty(), "{died:?}");
    }
}

/// A stream of messages over several receivers that are killed one after the other.
#[test]
fn a_killed_receiver_loses_nothing_that_was_acknowledged() {
    each_row(|meeting| {
        let seed = Seed(Random::seed());
        let mut random = Random::new(seed.0);
        if meeting.is_given() {
            return the_only_receiver_dies(meeting, &mut random);
        }
        let count = if meeting.row.capabilities.redelivers { 12_000 } else { 6000 };
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("retry");
        sender.tell(&format!("stream 1 0 {count} 200"));
        let mut hauls = Vec::new();
        for _ in 0..3 {
            hauls.push(killed_in_between(meeting, &mut receiver, &mut random));
            receiver = meeting.receiver("");
        }
        let last = last_of_all(meeting, &mut sender, &mut receiver, count);
        hauls.push(last);
        let redelivers = meeting.row.capabilities.redelivers;
        if redelivers {
            redelivered(meeting, &hauls, count)
        } else {
            at_most_once(meeting, &hauls, count)
        }
    });
}

/// What a receiver reported as acknowledged until it was killed.
fn killed_in_between(meeting: &Meeting, receiver: &mut End, random: &mut Random) -> Haul {
    // Datagrams that nobody waits for are gone: the stream may be over by now.
    let idle = if meeting.row.capabilities.reliable { 20_000 } else { 300 };
    receiver.tell(&format!("recv {} {idle}", u64::MAX));
    let mut haul = Haul::default();
    haul.take(&receiver.line(), receiver.lines);
    a_moment(random, 15);
    receiver.kill();
    for line in receiver.child.remaining_lines() {
        // The last line may be cut, by the death.
        if Got::parse(&line).is_some_and(|got| got.tag.is_some()) {
            haul.take(&line, receiver.lines);
        }
    }
    haul
}

/// The last receiver takes what is left.
fn last_of_all(meeting: &Meeting, sender: &mut End, receiver: &mut End, count: u64) -> Haul {
    if meeting.row.capabilities.redelivers && meeting.tells_the_end() {
        receiver.tell(&format!("recv {} 20000", u64::MAX));
        sender.expect("streamed");
        sender.close();
    } else if meeting.row.capabilities.redelivers {
        sender.expect("streamed");
        sender.close();
        // What dead receivers had comes within half a second.
        receiver.tell(&format!("recv {} 2000", u64::MAX));
    } else {
        // A last message shows the end on every one of these.
        receiver.tell(&format!("until 1:{count} 2000"));
        sender.expect("streamed");
        sender.must(&format!("send 1 {count} 200"), "sent");
    }
    receiver.haul()
}

fn redelivered(meeting: &Meeting, hauls: &[Haul], count: u64) {
    let all: BTreeSet<u64> = hauls.iter().flat_map(|haul| haul.of(1)).collect();
    assert!(all.into_iter().eq(0..count), "nothing is missing");
    let mut seen = BTreeSet::new();
    for got in hauls.iter().flat_map(|haul| &haul.got) {
        let n = got.tag.expect("a tag").1;
        assert!(seen.insert(n) || got.redelivered, "message {n} came again, unmarked");
    }
    let unmarked = hauls.iter().flat_map(|haul| &haul.got).filter(|got| !got.redelivered);
    let unmarked = times(unmarked.map(|got| got.tag.expect("a tag").1));
    assert!(unmarked.values().all(|times| *times == 1), "nothing unmarked comes twice");
    let last = hauls.last().expect("a haul");
    let end = if meeting.tells_the_end() { "error Ended" } else { "error Empty" };
    assert!(last.errors.iter().all(|error| error.starts_with(end)), "{:?}", last.errors);
}

fn at_most_once(meeting: &Meeting, hauls: &[Haul], count: u64) {
    let all = times(hauls.iter().flat_map(|haul| haul.of(1)));
    assert!(all.values().all(|times| *times == 1), "nothing comes twice");
    let deaths = hauls.len() as u64 - 1;
    // What a dead receiver can have taken along: one message of a queue object; what waited in its
    // socket; what was in the pipe, and read and written ahead (a message takes 201 bytes).
    let each = match meeting.row.scheme {
        "mq" | "sysv" => 1,
        "unix-dgram" => max_dgram_qlen() + 2,
        "fifo" => (64 + 256 + 256) * 1024 / 201 + 1,
        _ => u64::MAX / 4,
    };
    let missing = count - all.range(..count).count() as u64;
    assert!(missing <= deaths * each, "{missing} are missing after {deaths} deaths");
}

fn max_dgram_qlen() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap_or_default();
    text.trim().parse().unwrap_or(10)
}

/// On a given descriptor there is no other receiver: the sender learns of the death.
fn the_only_receiver_dies(meeting: &mut Meeting, random: &mut Random) {
    let mut receiver = meeting.receiver("");
    let mut sender = meeting.sender("");
    sender.tell("pour 1 200");
    let haul = killed_in_between(meeting, &mut receiver, random);
    let lines = sender.child.line_within(switchboard_testkit::DEADLINE);
    let mut line = lines.expect("something said");
    while line.starts_with("acknowledged") {
        line = sender.line();
    }
    assert!(line.starts_with("error PeerDied"), "{line}");
    let numbers = haul.of(1);
    let count = numbers.len() as u64;
    assert!(numbers.into_iter().eq(0..count), "a prefix");
    let after = sender.ask("timeout 1 0 10 100");
    assert!(!after.starts_with("sent"), "{after}");
}

#[test]
fn a_sender_killed_between_a_message_and_its_end_is_not_taken_for_ended() {
    each_row(|meeting| {
        if !meeting.is_link() {
            return;
        }
        let mut receiver = meeting.receiver("");
        let mut sender = meeting.sender("");
        sender.tell("send 1 0 50");
        let haul = receiver.recv(1);
        assert_eq!(haul.of(1), [0]);
        sender.expect("sent");
        sender.kill();
        let death = receiver.ask("timeout 15000");
        assert!(death.starts_with("error PeerDied"), "{death}");
        assert!(death.contains("received: 1 }"), "{death}");
        receiver.must("timeout 15000", "error Ended");
    });
}
