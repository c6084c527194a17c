//! Publishers and subscribers of two topics, until they are killed: one waits for slow subscribers, the other
//! one drops the oldest messages.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard::{Bytes, Receiver, RecvError, SendError, Sender};

use super::desk::{Channel, Desk, PATIENCE, dead, process};
use super::ledger::{Phase, Tag};
use super::queue::build;

/// A publisher's end, and its life.
struct Publishing {
    channel: Channel,
    sender: Sender<Bytes>,
    life: u32,
    number: u32,
    /// How many were accepted last that perhaps wait for others: they are lost if it dies.
    fed: u32,
}

/// The longest message that waits for others when it is fed.
const LONGEST_THAT_WAITS: usize = 1 << 10;

impl Publishing {
    /// After another life of this process, if there was one.
    fn open(desk: &mut Desk, channel: Channel, before: Option<u32>) -> Self {
        if let Some(before) = before {
            desk.ledger.is_one_of_several(before);
        }
        let options = desk.options();
        let sender = channel.writer(&desk.address(channel), options);
        let sender = sender.expect("a publisher");
        let life = desk.ledger.begin_life(desk.seat);
        if before.is_some() {
            desk.ledger.is_one_of_several(life);
        }
        Self { channel, sender, life, number: 0, fed: 0 }
    }

    /// Publishes one message. That there is no room for it at once is no fault.
    fn publish(&mut self, desk: &mut Desk) -> Result<(), String> {
        let tag = Tag {
            seat: desk.seat as u32,
            life: self.life,
            process: std::process::id(),
            round: 0,
            index: self.number + 1,
            priority: 0,
        };
        let message = Bytes(tag.message(desk.len_bytes()));
        desk.ledger.begin(self.life);
        let way = desk.random.below(4);
        let waits =
            way == 1 && self.channel == Channel::Block && message.0.len() <= LONGEST_THAT_WAITS;
        let sent = match way {
            0 => self.sender.try_send(&message),
            1 => self.sender.feed(&message.0),
            2 => build(desk, &mut self.sender, &message.0),
            _ => self.sender.send_timeout(&message, PATIENCE),
        };
        match sent {
            Ok(()) => {
                self.fed += 1;
                if !waits {
                    self.all_sent(desk);
                }
                self.number += 1;
                desk.beat();
                Ok(())
            }
            Err(SendError::Full | SendError::Slow { .. }) => {
                desk.ledger.not_begun(self.life);
                self.flush(desk)
            }
            Err(error) => Err(format!("{:?}: message {}: {error:?}", self.channel, tag.index)),
        }
    }

    /// Waits until all subscribers have everything.
    fn flush(&mut self, desk: &Desk) -> Result<(), String> {
        let flushed = self.sender.flush(Some(PATIENCE));
        flushed.map_err(|error| format!("{:?}: not taken: {error:?}", self.channel))?;
        self.all_sent(desk);
        Ok(())
    }

    /// All that was accepted can be seen by the subscribers, whatever happens to this process.
    fn all_sent(&mut self, desk: &Desk) {
        desk.ledger.sent(self.life, std::mem::take(&mut self.fed));
    }

    fn close(self, desk: &Desk) {
        let closed = self.sender.close();
        desk.must(closed.map_err(|error| format!("a publisher does not close: {error:?}")));
    }
}

/// Publishes to a topic.
pub(super) fn publish(desk: &mut Desk, channel: Channel) {
    let mut end = Publishing::open(desk, channel, None);
    loop {
        match desk.ledger.phase() {
            Phase::Work => {}
            Phase::Settle => desk.settle(|| drop(end.sender.drive())),
            Phase::CloseWriters | Phase::Close => return end.close(desk),
        }
        let published = end.publish(desk);
        desk.must(published);
        if desk.once_in(300) {
            let flushed = end.flush(desk);
            desk.must(flushed);
        }
        if desk.once_in(2000) {
            let before = end.life;
            end.close(desk);
            end = Publishing::open(desk, channel, Some(before));
        }
        desk.pause();
    }
}

/// What a subscriber has of one publisher.
#[derive(Debug, Default)]
struct Story {
    process: u32,
    received: u64,
    last: u64,
}

struct Subscribing {
    channel: Channel,
    receiver: Receiver<Bytes>,
    /// By the lives of publishers.
    stories: BTreeMap<u32, Story>,
    /// What was told to be missing, by the process, and is not known to be before which message. Of a process
    /// that had several lives it is not said of which.
    missing: BTreeMap<u32, Vec<u64>>,
}

impl Subscribing {
    fn open(desk: &mut Desk, channel: Channel) -> Self {
        let options = desk.options();
        let receiver = channel.reader(&desk.address(channel), options);
        let (stories, missing) = Default::default();
        Self { channel, receiver: receiver.expect("a subscriber"), stories, missing }
    }

    /// Takes one message, or a report, if there is one in time.
    fn take(&mut self, desk: &mut Desk) {
        let timeout = desk.timeout();
        if desk.once_in(4) {
            return self.take_many(desk, timeout);
        }
        let taken = if desk.once_in(4) {
            self.receiver.borrow_timeout(timeout).map(|borrowed| {
                let (tag, lost) = (Tag::read(&borrowed), borrowed.lost_before());
                desk.pause();
                let again = Tag::read(&borrowed);
                (tag.filter(|tag| again == Some(*tag)), lost, borrowed.redelivered())
            })
        } else {
            self.receiver.recv_timeout(timeout).map(|delivery| {
                let tag = Tag::read(&delivery.message.0);
                (tag, delivery.lost_before, delivery.redelivered)
            })
        };
        match taken {
            Ok((tag, lost, redelivered)) => {
                desk.beat();
                desk.must(self.note(desk, tag, lost, redelivered));
            }
            Err(error) => self.not_taken(desk, &error),
        }
    }

    /// Takes as many as there are.
    fn take_many(&mut self, desk: &mut Desk, timeout: Duration) {
        let mut taken = Vec::new();
        let outcome = self.receiver.recv_each(200, Some(timeout), |incoming, _| {
            taken.push((Tag::read(incoming.bytes), incoming.lost_before, incoming.redelivered));
            desk.pause();
            false
        });
        for (tag, lost, redelivered) in taken {
            desk.beat();
            desk.must(self.note(desk, tag, lost, redelivered));
        }
        if let Err(error) = outcome {
            self.not_taken(desk, &error);
        }
    }

    fn not_taken(&mut self, desk: &Desk, error: &RecvError) {
        match error {
            RecvError::Empty | RecvError::Ended => {}
            RecvError::Gap { peer, missing } if self.channel == Channel::DropOldest => {
                match process(peer) {
                    Some(process) => self.missing.entry(process).or_default().push(*missing),
                    None => desk.must(Err(format!("{missing} are missing of {peer:?}"))),
                }
            }
            error => desk.must(self.judge(desk, error)),
        }
    }

    fn note(
        &mut self,
        desk: &Desk,
        tag: Option<Tag>,
        lost: u64,
        redelivered: bool,
    ) -> Result<(), String> {
        let tag = tag.ok_or("a torn message, or one that changed while it was borrowed")?;
        let told = self.missing.entry(tag.process).or_default();
        let at = told.iter().position(|told| *told == lost);
        let all = told.clone();
        let is_told = (lost == 0 || at.map(|at| told.remove(at)).is_some())
            && (told.is_empty() || !desk.ledger.is_only_one(tag.life));
        let number = u64::from(tag.index);
        let story = self.stories.entry(tag.life).or_default();
        story.process = tag.process;
        let is_next = story.received == 0 || number == story.last + lost + 1;
        story.received += 1;
        story.last = number;
        if is_next && is_told && !redelivered {
            return Ok(());
        }
        let story = &self.stories[&tag.life];
        let what = format!("{tag:?}, {lost} missing, told {all:?}, marked {redelivered}");
        Err(format!("{:?}: {what}, in {story:?}", self.channel))
    }

    /// Whether a death came after all that was published.
    fn judge(&mut self, desk: &Desk, error: &RecvError) -> Result<(), String> {
        let Some((process, received)) = dead(error) else {
            return Err(format!("{:?}: {error:?}", self.channel));
        };
        let told = self.missing.remove(&process).unwrap_or_default();
        let missing = told.last().copied().unwrap_or(0);
        if received == 0 {
            return Ok(());
        }
        let of_it = self.stories.iter().rev().filter(|(_, story)| story.process == process);
        let Some((&life, story)) = of_it.clone().find(|(_, story)| story.received == received)
        else {
            let of_it: Vec<_> = of_it.collect();
            return Err(format!("{:?}: {error:?}, and it had {of_it:?}", self.channel));
        };
        let total = story.last + missing;
        // What is missing may be of another life.
        let least = if desk.ledger.is_only_one(life) { total } else { story.last };
        match desk.ledger.sent_by(life) {
            Some((sent, begun)) if total < u64::from(sent) || least > u64::from(begun) => {
                Err(format!(
                    "{:?}: a publisher died after {sent} to {begun} messages, and there were {total}: \
                     {missing} missing after {story:?}",
                    self.channel
                ))
            }
            _ => {
                self.stories.remove(&life);
                Ok(())
            }
        }
    }
}

/// Subscribes to a topic.
pub(super) fn subscribe(desk: &mut Desk, channel: Channel) {
    let mut end = Subscribing::open(desk, channel);
    while desk.ledger.phase() != Phase::Close {
        end.take(desk);
        if desk.once_in(5000) && desk.ledger.phase() == Phase::Work {
            drop(end);
            end = Subscribing::open(desk, channel);
        }
        desk.pause();
    }
}
