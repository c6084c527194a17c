//! What ends say of themselves to who looks: exact, in every state, and nothing is left or changed by it.

use std::time::Duration;

use rustix::process::Signal;
use switchboard::counters::{Channel, Counts, End, LinkCounts, look};
use switchboard::{ErrorKind, Options};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};

/// Role: an end that does what it is told: `send N`, `take N`, `borrow N`, `settle N`.
pub(crate) fn counted(arguments: &[String]) {
    let pattern = Pattern::parse(&arguments[0]);
    let options = || Options::default().linger(Some(Duration::from_millis(10)));
    if arguments[1] == "writes" {
        let mut writer = ends::writer(pattern, &arguments[2], options()).expect("a writer");
        report("open");
        let mut number = 0;
        while let Some(line) = instruction() {
            let (word, count) = line.split_once(' ').expect("two words");
            assert_eq!(word, "send");
            for _ in 0..count.parse::<u64>().expect("a number") {
                number += 1;
                writer.send_bytes(&ends::message(1, number, 100)).expect("sent");
            }
            report("done");
        }
        return;
    }
    let mut reader = ends::reader(pattern, &arguments[2], options()).expect("a reader");
    report("open");
    let mut held = Vec::new();
    while let Some(line) = instruction() {
        let (word, count) = line.split_once(' ').expect("two words");
        let mut left = count.parse::<usize>().expect("a number");
        while left > 0 {
            if word == "settle" {
                reader.acknowledge(held.remove(0)).expect("settled");
                left -= 1;
                continue;
            }
            if word == "borrow" {
                let _ = reader.borrow_timeout(DEADLINE).expect("a message");
                left -= 1;
                continue;
            }
            match reader.recv_timeout(DEADLINE) {
                Ok(delivery) => {
                    held.push(delivery);
                    left -= 1;
                }
                Err(switchboard::RecvError::Gap { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        report("done");
    }
}

fn end(pattern: &str, side: &str, address: &str) -> Child {
    let mut child = Child::role("shm-counted-end", &[pattern, side, address]);
    child.expect("open");
    child
}

fn tell(child: &mut Child, line: &str) {
    child.tell(line);
    child.expect("done");
}

fn address(scratch: &Scratch, more: &str) -> String {
    format!("shm:counted/x?scope={}{more}", scratch.join("scope").display())
}

fn seen(address: &str) -> Channel {
    look(&address.parse().expect("an address"), DEADLINE).expect("a channel")
}

fn of<'a>(channel: &'a Channel, role: &str) -> (&'a End, &'a Counts) {
    let end = channel.ends.iter().find(|end| end.role == role).expect("an end of this role");
    (end, end.answer.as_ref().unwrap_or_else(|why| panic!("{role}: {why}")))
}

fn only(counts: &Counts) -> &LinkCounts {
    let [link] = &counts.links[..] else { panic!("{counts:?}") };
    link
}

#[test]
fn a_topic_counts_what_was_sent_received_and_is_behind() {
    is_counted("take");
}

#[test]
fn what_was_borrowed_is_counted_at_once() {
    is_counted("borrow");
}

fn is_counted(take: &str) {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let mut publisher = end("topic", "writes", &address);
    let mut subscriber = end("topic", "reads", &address);
    tell(&mut publisher, "send 10");
    tell(&mut subscriber, &format!("{take} 4"));
    let channel = seen(&address);
    assert_eq!((channel.ends.len(), channel.left_out), (2, 0));
    let (writer, counts) = of(&channel, "publisher");
    assert_eq!((writer.pid, writer.pattern), (Some(publisher.id()), "topic"));
    assert_eq!(writer.uid, Some(switchboard_kernel::process::effective_user_id()));
    assert_eq!((counts.sent, counts.sent_bytes, counts.late), (Some(10), Some(1000), 0));
    let link = only(counts);
    assert_eq!((link.number, link.behind), (10, Some(6)));
    assert!(
        link.behind_bytes.is_some_and(|bytes| (6 * 104..=10 * 128).contains(&bytes)),
        "{link:?}"
    );
    let (reader, theirs) = of(&channel, "subscriber");
    assert_eq!(link.peer, reader.id);
    assert!(link.name.starts_with(&format!("process {} (", subscriber.id())), "{link:?}");
    assert_eq!((theirs.received, theirs.dropped), (Some(4), Some(0)));
    assert_eq!((only(theirs).number, only(theirs).received), (4, Some(4)));
    assert_eq!(only(theirs).peer, writer.id);
    // Looking changes nothing: whoever looks again finds the same.
    let again = seen(&address);
    assert_eq!(of(&again, "publisher").1.sent, Some(10));
    assert_eq!(of(&again, "subscriber").1.received, Some(4));
    tell(&mut subscriber, &format!("{take} 6"));
    let channel = seen(&address);
    assert_eq!(only(of(&channel, "publisher").1).behind, Some(0));
    // What a link had counts when it is gone, too.
    drop(publisher);
    let gone = std::iter::repeat_with(|| seen(&address)).find(|channel| channel.ends.len() == 1);
    assert_eq!(of(&gone.expect("a channel"), "subscriber").1.received, Some(10));
}

#[test]
fn what_was_overwritten_is_dropped() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let lossy = format!("{address}&overflow=drop-oldest&capacity=4096");
    let mut publisher = end("topic", "writes", &lossy);
    let mut subscriber = end("topic", "reads", &address);
    tell(&mut publisher, "send 1000");
    tell(&mut subscriber, "take 1");
    let channel = seen(&address);
    let (_, counts) = of(&channel, "subscriber");
    let link = only(counts);
    let (received, dropped) = (link.received.unwrap_or(0), link.dropped.unwrap_or(0));
    assert_eq!((counts.received, received), (Some(1), 1));
    assert!(dropped > 900 && counts.dropped == Some(dropped), "{counts:?}");
    assert_eq!(link.number, received + dropped);
    assert_eq!(only(of(&channel, "publisher").1).behind, Some(1000 - link.number));
}

#[test]
fn a_queue_counts_what_is_settled_and_what_is_not() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let mut sender = end("queue", "writes", &address);
    let mut receiver = end("queue", "reads", &address);
    tell(&mut sender, "send 10");
    tell(&mut receiver, "take 5");
    tell(&mut receiver, "settle 3");
    let channel = seen(&address);
    let (_, counts) = of(&channel, "sender");
    assert_eq!((counts.sent, counts.acknowledged, counts.rejected), (Some(10), Some(3), Some(0)));
    assert_eq!((only(counts).behind, counts.waiting, counts.dropped), (Some(7), Some(0), None));
    let (_, theirs) = of(&channel, "receiver");
    assert_eq!((theirs.received, only(theirs).behind, theirs.sent), (Some(5), Some(2), None));
    // Its messages wait for somebody else.
    receiver.kill();
    let waits = |channel: &Channel| of(channel, "sender").1.waiting == Some(7);
    let after = std::iter::repeat_with(|| seen(&address)).find(waits).expect("a channel");
    let (_, counts) = of(&after, "sender");
    assert_eq!((counts.sent, counts.acknowledged, counts.links.len()), (Some(10), Some(3), 0));
    let mut receiver = end("queue", "reads", &address);
    tell(&mut receiver, "take 7");
    tell(&mut receiver, "settle 7");
    let counts = seen(&address);
    assert_eq!(of(&counts, "sender").1.acknowledged, Some(10));
    assert_eq!(of(&counts, "sender").1.sent, Some(10));
}

#[test]
fn who_is_stopped_is_seen_by_its_peer() {
    let scratch = Scratch::new();
    let address = address(&scratch, "");
    let mut publisher = end("topic", "writes", &address);
    let subscriber = end("topic", "reads", &address);
    subscriber.stop();
    tell(&mut publisher, "send 3");
    let parsed = address.parse().expect("an address");
    let channel = look(&parsed, Duration::from_secs(3)).expect("a channel");
    let stopped = channel.ends.iter().find(|end| end.role == "subscriber").expect("it is there");
    assert_eq!(stopped.pid, Some(subscriber.id()));
    let why = stopped.answer.as_ref().expect_err("it is stopped");
    assert!(why.starts_with("does not answer"), "{why}");
    let link = only(of(&channel, "publisher").1);
    assert_eq!((link.number, link.behind), (3, None));
    assert!(link.behind_bytes.is_some_and(|bytes| bytes >= 3 * 104), "{link:?}");
    subscriber.signal(Signal::CONT);
    assert_eq!(only(of(&seen(&address), "publisher").1).behind, Some(3));
}

#[test]
fn nothing_is_made_where_nobody_is() {
    let scratch = Scratch::new();
    for address in [address(&scratch, ""), "unix:/run/x.sock".to_owned()] {
        let expected =
            if address.starts_with("shm") { ErrorKind::NotFound } else { ErrorKind::NotSupported };
        let address = address.parse().expect("an address");
        assert_eq!(look(&address, DEADLINE).expect_err("nobody").kind(), expected);
    }
    assert!(!scratch.join("scope").exists());
}
