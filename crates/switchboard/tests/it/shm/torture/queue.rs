//! Senders and receivers of a queue, until they are killed.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard::{Bytes, Delivery, Receiver, RecvError, SendError, Sender, Ticket};

use super::desk::{Channel, Desk, PATIENCE, dead};
use super::ledger::{Phase, ROUND, Tag};

/// Sends rounds of messages, each until all of it is settled.
pub(super) fn send(desk: &mut Desk) {
    loop {
        let options = desk.options().max_deliveries(u16::MAX);
        let address = desk.address(Channel::Queue);
        let mut sender = Channel::Queue.writer(&address, options).expect("a sender");
        let life = desk.ledger.begin_life(desk.seat);
        let is_over = loop {
            match desk.ledger.phase() {
                Phase::Work => {}
                Phase::Settle => desk.settle(|| drop(sender.drive())),
                Phase::CloseWriters | Phase::Close => break true,
            }
            if let Err(what) = round(desk, &mut sender, life) {
                desk.must(Err(what));
            }
            if desk.once_in(20) {
                break false;
            }
        };
        match sender.close() {
            Ok(()) => desk.ledger.end_life(life),
            Err(error) => desk.must(Err(format!("a sender does not close: {error:?}"))),
        }
        if is_over {
            return;
        }
    }
}

/// A round. All messages are settled at its end.
fn round(desk: &mut Desk, sender: &mut Sender<Bytes>, life: u32) -> Result<(), String> {
    let count = u32::try_from(desk.random.below(u64::from(ROUND))).unwrap_or(0) + 1;
    let round = desk.ledger.begin_round(desk.seat, count);
    // Where there are priorities, receivers look for messages in another way.
    let is_urgent = desk.seat.is_multiple_of(2);
    for index in 0..count {
        let priority = if is_urgent && desk.once_in(4) { 1 + desk.random.below(3) } else { 0 };
        let tag = Tag {
            seat: desk.seat as u32,
            life,
            process: std::process::id(),
            round,
            index,
            priority: priority as u32,
        };
        let message = tag.message(desk.len_bytes());
        let sent = match desk.random.below(5) {
            _ if priority > 0 => sender.send_bytes_with_priority(&message, tag.priority),
            0 => sender.send_bytes(&message),
            1 => sender.feed(&message),
            2 => build(desk, sender, &message),
            _ => match sender.try_send(&Bytes(message.clone())) {
                Err(SendError::Full) => sender.send_timeout(&Bytes(message), PATIENCE),
                sent => sent,
            },
        };
        sent.map_err(|error| format!("message {index} is not sent: {error:?}"))?;
        desk.beat();
        desk.pause();
    }
    sender.push().map_err(|error| format!("push: {error:?}"))?;
    sender.flush(Some(PATIENCE)).map_err(|error| {
        let left = sender.unacknowledged();
        format!("{left} of {count} messages are not settled: {error:?}")
    })?;
    desk.beat();
    desk.ledger.end_round(desk.seat, count)
}

/// Builds a message where it is read; sometimes twice, since the first one is not sent.
pub(super) fn build(
    desk: &mut Desk,
    sender: &mut Sender<Bytes>,
    message: &[u8],
) -> Result<(), SendError> {
    if desk.once_in(4) {
        let mut loan = sender.loan_bytes_timeout(message.len() + 100, PATIENCE)?;
        loan.fill(0xff);
    }
    let mut loan = sender.loan_bytes_timeout(message.len() + 8, PATIENCE)?;
    loan[..message.len()].copy_from_slice(message);
    loan.send_first(message.len())
}

/// What a receiver has of one sender.
#[derive(Debug, Default)]
struct Story {
    process: u32,
    received: u64,
    /// The last one of each priority, of those that came for the first time: round and number.
    last: BTreeMap<u32, (u32, u32)>,
}

/// All that a receiver has heard, by the lives of senders.
type Stories = BTreeMap<u32, Story>;

/// Receives, and settles what it has in any order.
pub(super) fn receive(desk: &mut Desk) {
    loop {
        let prefetch = 1 + desk.random.below(64) as u32;
        let options = desk.options().prefetch(prefetch);
        let address = desk.address(Channel::Queue);
        let mut receiver = Channel::Queue.reader(&address, options).expect("a receiver");
        let mut stories = Stories::new();
        let mut held = Vec::new();
        loop {
            if desk.ledger.phase() == Phase::Close {
                settle(desk, &mut receiver, &mut held);
                return;
            }
            let outcome = match desk.random.below(8) {
                0 if held.is_empty() => take_batch(desk, &mut receiver, &mut stories),
                1 if held.is_empty() => borrow(desk, &mut receiver, &mut stories),
                _ => take(desk, &mut receiver, &mut stories, &mut held),
            };
            match outcome {
                Ok(()) => desk.beat(),
                Err(RecvError::Empty | RecvError::Ended) => settle(desk, &mut receiver, &mut held),
                Err(error) => desk.must(judge(&error, &mut stories)),
            }
            if held.len() as u64 > desk.random.below(u64::from(prefetch)) {
                settle(desk, &mut receiver, &mut held);
            }
            if desk.once_in(1000) && desk.ledger.phase() == Phase::Work {
                // What it holds goes to others.
                break;
            }
        }
    }
}

fn take(
    desk: &mut Desk,
    receiver: &mut Receiver<Bytes>,
    stories: &mut Stories,
    held: &mut Vec<(Tag, Delivery<Bytes>)>,
) -> Result<(), RecvError> {
    // Who holds messages waits for others only for a moment: their senders wait for it.
    let timeout = if held.is_empty() { desk.timeout() } else { Duration::from_millis(1) };
    let delivery = receiver.recv_timeout(timeout)?;
    if let Some(tag) = note(desk, &delivery.message.0, delivery.redelivered, stories) {
        held.push((tag, delivery));
    }
    Ok(())
}

/// Takes what is there and acknowledges it at once.
fn take_batch(
    desk: &mut Desk,
    receiver: &mut Receiver<Bytes>,
    stories: &mut Stories,
) -> Result<(), RecvError> {
    let mut tags: Vec<(Tag, Ticket)> = Vec::new();
    let most = 1 + desk.random.below(20) as usize;
    let timeout = desk.timeout();
    receiver.recv_each(most, Some(timeout), |incoming, ticket| {
        if let Some(tag) = note(desk, incoming.bytes, incoming.redelivered, stories) {
            desk.ledger.acknowledging(&tag);
            tags.push((tag, ticket));
        }
        true
    })?;
    tags.iter().for_each(|(tag, _)| desk.ledger.acknowledged(tag));
    Ok(())
}

/// Looks at a message where it lies, and settles it.
fn borrow(
    desk: &mut Desk,
    receiver: &mut Receiver<Bytes>,
    stories: &mut Stories,
) -> Result<(), RecvError> {
    let borrowed = receiver.borrow_timeout(desk.timeout())?;
    let tag = note(desk, &borrowed, borrowed.redelivered(), stories);
    desk.pause();
    if Tag::read(&borrowed) != tag {
        desk.must(Err(format!("{tag:?} changed while it was borrowed")));
    }
    let Some(tag) = tag else { return borrowed.acknowledge() };
    if desk.once_in(30) {
        return borrowed.reject().map(drop);
    }
    desk.ledger.acknowledging(&tag);
    borrowed.acknowledge()?;
    desk.ledger.acknowledged(&tag);
    Ok(())
}

/// Writes down that a message came.
fn note(desk: &Desk, bytes: &[u8], redelivered: bool, stories: &mut Stories) -> Option<Tag> {
    let Some(tag) = Tag::read(bytes) else {
        desk.must(Err(format!("a torn message of {} bytes", bytes.len())));
        return None;
    };
    let story = stories.entry(tag.life).or_default();
    story.process = tag.process;
    story.received += 1;
    if !redelivered {
        let before = story.last.insert(tag.priority, (tag.round, tag.index));
        if before.is_some_and(|before| before >= (tag.round, tag.index)) {
            desk.must(Err(format!("{tag:?} came after {before:?}")));
        }
    }
    desk.must(desk.ledger.received(&tag, redelivered));
    Some(tag)
}

/// Settles all that is held, in one of many ways.
fn settle(desk: &mut Desk, receiver: &mut Receiver<Bytes>, held: &mut Vec<(Tag, Delivery<Bytes>)>) {
    let in_order = desk.once_in(2);
    while !held.is_empty() {
        let at = if in_order { 0 } else { desk.random.below(held.len() as u64) as usize };
        let (tag, delivery) = held.remove(at);
        let settled = if desk.once_in(30) {
            receiver.reject(delivery).map(drop)
        } else {
            desk.ledger.acknowledging(&tag);
            let settled = receiver.acknowledge(delivery).map(drop);
            desk.ledger.acknowledged(&tag);
            settled
        };
        desk.must(settled.map_err(|error| format!("{tag:?} is not settled: {error:?}")));
        desk.pause();
    }
}

/// Whether what a receiver was told is as it was.
fn judge(error: &RecvError, stories: &mut Stories) -> Result<(), String> {
    let Some((process, received)) = dead(error) else { return Err(format!("{error:?}")) };
    let is_it = |story: &Story| story.process == process && story.received == received;
    let life = stories.iter().rev().find(|(_, story)| is_it(story)).map(|(life, _)| *life);
    match life {
        Some(life) => drop(stories.remove(&life)),
        None if received > 0 => return Err(format!("{error:?}, after {stories:?}")),
        None => {}
    }
    Ok(())
}
