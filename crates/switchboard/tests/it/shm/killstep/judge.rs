//! What survivors must find when the victim is dead, or has gone on its way: docs/design/shm.md, "What if a
//! process dies here" and "How long things live".

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use switchboard::SendError;

use super::super::ends::message;
use super::operations::{Act, End, Others};
use super::survivor::{
    Heard, LAST, PATIENCE, Reader, SURVIVOR, Sleeping, Survivors, THIRD, in_time,
};
use super::victim::VICTIM;

impl Survivors {
    /// The victim is stopped: the others go on as if it were not there.
    pub(super) fn go_on(&mut self) -> Result<(), String> {
        if self.operation.end.writes() {
            self.third_writes()
        } else if self.operation.end == End::Receiver {
            self.third_receives()
        } else if self.operation.others == Others::Asleep {
            // A publisher that waits for whoever is stopped: so it should.
            Ok(())
        } else {
            self.third_subscribes()
        }
    }

    /// Another writer comes, is heard, and goes.
    fn third_writes(&mut self) -> Result<(), String> {
        let mut third = self.writer()?;
        let message = message(THIRD, 1, self.operation.len_bytes);
        let sent = third.wait_for_peers(1, Some(PATIENCE));
        let sent = sent.and_then(|()| third.send_bytes(&message));
        sent.map_err(|error| format!("a third writer: {error}"))?;
        self.wake_up()?;
        for reader in self.readers.iter_mut().filter(|reader| reader.numbers(THIRD).is_empty()) {
            reader.until("a third writer's message", |heard| {
                matches!(heard, Heard::Message { from: THIRD, .. })
            })?;
        }
        third.close().map_err(|error| format!("a third writer: {error}"))
    }

    fn third_receives(&mut self) -> Result<(), String> {
        let mut third = self.reader()?;
        third.is_met()?;
        self.wake_up()?;
        self.send(1)?;
        let sent = self.sent;
        third.until(
            "what was sent then",
            |heard| matches!(heard, Heard::Message { number, .. } if *number == sent),
        )?;
        self.readers.push(third);
        Ok(())
    }

    fn third_subscribes(&mut self) -> Result<(), String> {
        let third = self.reader()?;
        third.is_met()?;
        self.keep_up()?;
        self.readers.push(third);
        // What the victim reads is overwritten, if it can be; and if not, as much as can be beside it.
        for _ in 0..self.operation.more_than_fit() {
            if !self.operation.drops() && !self.has_room()? {
                break;
            }
            self.publish_and_read()?;
        }
        Ok(())
    }

    /// Whether a message could be published now.
    fn has_room(&mut self) -> Result<bool, String> {
        let writer = self.writer.as_mut().ok_or("no writer")?;
        match writer.try_loan_bytes(self.operation.len_bytes) {
            // It is given back unsent.
            Ok(_) => Ok(true),
            Err(SendError::Full | SendError::Slow { .. }) => Ok(false),
            Err(error) => Err(format!("no room: {error}")),
        }
    }

    /// Whether all is as it should be. `ended`: the operation is complete. How many messages were found
    /// committed, or settled.
    pub(super) fn judge(&mut self, ended: bool) -> Result<u64, String> {
        let judged = match self.operation.end {
            End::Publisher | End::Sender => self.after_writer(ended),
            End::Subscriber => self.after_subscriber().map(|()| 0),
            End::Receiver => self.after_receiver(ended),
        };
        judged.map_err(|wrong| {
            let heard: Vec<&Vec<Heard>> = self.readers.iter().map(|reader| &reader.heard).collect();
            format!("{wrong}; heard: {heard:?}")
        })
    }

    fn after_writer(&mut self, ended: bool) -> Result<u64, String> {
        let mut done = 0;
        let took = self.wake_up()?;
        self.idle = None;
        if self.operation.act == Act::Join {
            // Whether it was there is seen by its death alone, which may be yet to come.
            self.no_more_than_a_death()?;
        } else {
            for reader in &mut self.readers {
                reader.until("the end", |heard| *heard == Heard::Ended)?;
            }
            for reader in &self.readers {
                done += self.heard_of_victim(reader, ended)?;
            }
        }
        self.last_exchange()?;
        self.nothing_is_left()?;
        in_time(took).map(|()| done)
    }

    fn no_more_than_a_death(&self) -> Result<(), String> {
        for reader in &self.readers {
            for heard in &reader.heard {
                if !matches!(
                    heard,
                    Heard::Died { received: 0 } | Heard::Ended | Heard::Message { from: THIRD, .. }
                ) {
                    return Err(format!("{heard:?} of somebody who came"));
                }
            }
        }
        Ok(())
    }

    /// What a reader has of the victim: all that was committed, once, whole, in order; then its death or its
    /// end. How many that are.
    fn heard_of_victim(&self, reader: &Reader, ended: bool) -> Result<u64, String> {
        let operation = self.operation;
        let mut numbers = reader.numbers(VICTIM);
        let received = numbers.len() as u64;
        let deaths: Vec<u64> = reader.deaths().collect();
        let said_end = operation.act == Act::Leave && (ended || deaths.is_empty());
        if deaths != if said_end { vec![] } else { vec![received] } {
            return Err(format!("deaths with {deaths:?}, after {received} messages"));
        }
        if operation.act == Act::GiveOutAgain {
            return self.given_out_again(reader, ended);
        }
        if operation.act == Act::SendUrgent {
            let urgent = operation.before + 1;
            // While it was stopped, others may have been read before it was there.
            let together = reader.numbers(THIRD).is_empty();
            if together && numbers.contains(&urgent) && numbers[0] != urgent {
                return Err("the urgent message did not come first".to_owned());
            }
            numbers.sort_unstable();
        }
        let total = reader.without_a_hole(VICTIM, &numbers)?;
        let most = match operation.act {
            Act::Send(count) | Act::Feed(count) | Act::SendEach(count) | Act::Loans(count) => {
                operation.before + count
            }
            Act::SendUrgent | Act::Loan => operation.before + 1,
            _ => operation.before,
        };
        let least = if ended { most } else { operation.before };
        if !(least..=most).contains(&total) {
            return Err(format!("{total} messages, and {least} to {most} were committed"));
        }
        Ok(total)
    }

    /// Of what another receiver left, the first so many come marked, once.
    fn given_out_again(&self, reader: &Reader, ended: bool) -> Result<u64, String> {
        let of = |again: bool| -> Vec<u64> {
            let numbers = reader.heard.iter().filter_map(|heard| match heard {
                Heard::Message { from: VICTIM, number, deliveries, .. } => {
                    (*deliveries == u16::from(again)).then_some(*number)
                }
                _ => None,
            });
            numbers.collect()
        };
        let (own, again) = (of(false), of(true));
        let left: Vec<u64> = (1..=self.operation.before).filter(|n| !own.contains(n)).collect();
        let as_it_should = own.len() as u64 == self.operation.before / 2
            && own.is_sorted_by(|a, b| a < b)
            && left.starts_with(&again)
            && (!ended || left == again)
            && (own.len() + again.len()) == reader.numbers(VICTIM).len();
        if !as_it_should {
            return Err(format!("own {own:?}, left and given again {again:?}"));
        }
        Ok(again.len() as u64)
    }

    fn after_subscriber(&mut self) -> Result<(), String> {
        let took = self.wake_up()?;
        self.keep_up()?;
        let there = self.readers.len();
        self.until_peers(there)?;
        // The dead one holds nobody up.
        for _ in 0..self.operation.more_than_fit() {
            self.publish_and_read()?;
        }
        // Its place in the doorbell is another's now.
        let late = self.reader()?;
        late.is_met()?;
        self.until_peers(there + 1)?;
        let woken = self.wakes(late)?;
        for reader in &self.readers {
            let numbers = reader.numbers(SURVIVOR);
            let total = reader.without_a_hole(SURVIVOR, &numbers)?;
            if total != self.sent {
                return Err(format!("{total} of {} messages", self.sent));
            }
        }
        self.close()?;
        self.nothing_is_left()?;
        in_time(took.max(woken))
    }

    fn publish_and_read(&mut self) -> Result<(), String> {
        self.send(1)?;
        let sent = self.sent;
        for reader in &mut self.readers {
            reader.until(
                "what was published after",
                |heard| matches!(heard, Heard::Message { number, .. } if *number == sent),
            )?;
        }
        Ok(())
    }

    /// A message wakes whoever has come last.
    fn wakes(&mut self, mut late: Reader) -> Result<Duration, String> {
        // What it has of the history comes first.
        while late.next(Duration::ZERO)?.is_some() {}
        let sleeping = Sleeping::begin(late)?;
        self.send(1)?;
        let since = Instant::now();
        drop(sleeping.woken()?);
        let took = since.elapsed();
        self.until_peers(self.readers.len())?;
        self.keep_up()?;
        Ok(took)
    }

    /// Waits until the writer has so many readers.
    fn until_peers(&mut self, count: usize) -> Result<(), String> {
        let writer = self.writer.as_mut().ok_or("no writer")?;
        let since = Instant::now();
        loop {
            writer.drive().map_err(|error| format!("the writer: {error}"))?;
            let there = writer.peers();
            if there == count {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("the writer has {there} readers, and not {count}"));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn after_receiver(&mut self, ended: bool) -> Result<u64, String> {
        let next = self.reader()?;
        next.is_met()?;
        self.readers.push(next);
        let took = self.wake_up()?;
        self.settle_all()?;
        let done = self.each_message_once(ended)?;
        let acknowledged = self.writer.as_ref().map_or(0, |writer| writer.acknowledged());
        if acknowledged != self.sent {
            return Err(format!("{acknowledged} of {} are acknowledged", self.sent));
        }
        self.close()?;
        self.nothing_is_left()?;
        in_time(took).map(|()| done)
    }

    /// The sender waits until all it sent is settled, while receivers receive.
    fn settle_all(&mut self) -> Result<(), String> {
        let mut writer = self.writer.take().ok_or("no writer")?;
        let flushing = std::thread::spawn(move || {
            let flushed = writer.flush(Some(PATIENCE));
            (writer, flushed.map_err(|error| format!("not settled: {error}")))
        });
        while !flushing.is_finished() {
            for reader in &mut self.readers {
                reader.next(Duration::from_millis(1))?;
            }
        }
        let (writer, flushed) = flushing.join().map_err(|_| "the sender panicked")?;
        self.writer = Some(writer);
        flushed
    }

    /// What the victim has acknowledged comes never again; all else comes once, marked if it was with it. How
    /// many it has acknowledged.
    fn each_message_once(&self, ended: bool) -> Result<u64, String> {
        let operation = self.operation;
        let mut got: BTreeMap<u64, u16> = BTreeMap::new();
        for heard in self.readers.iter().flat_map(|reader| &reader.heard) {
            let Heard::Message { from: SURVIVOR, number, deliveries, .. } = heard else {
                return Err(format!("{heard:?} where nobody died who writes"));
            };
            if got.insert(*number, *deliveries).is_some() {
                return Err(format!("message {number} came twice"));
            }
        }
        let settles: Vec<u64> = match operation.act {
            Act::Acknowledge(numbers) => numbers.to_vec(),
            Act::ReceiveEach(count) => (operation.taken + 1..=operation.taken + count).collect(),
            Act::BorrowAndAcknowledge => vec![operation.taken + 1],
            _ => Vec::new(),
        };
        let missing: Vec<u64> = (operation.settled + 1..=self.sent)
            .filter(|number| !got.contains_key(number))
            .collect();
        let least = if ended { settles.len() } else { 0 };
        let done = (least..=settles.len()).find(|done| {
            let mut settled = settles[..*done].to_vec();
            settled.sort_unstable();
            settled == missing
        });
        let Some(done) = done.filter(|_| got.keys().all(|number| *number > operation.settled))
        else {
            return Err(format!("missing {missing:?}, got {got:?}"));
        };
        for (number, deliveries) in got {
            let before = u16::from(operation.again && number <= operation.before);
            // What a receiver has come for, unless another came for it too.
            let has_come = ended && operation.act == Act::Join && self.readers.len() == 1;
            let was_there = number <= operation.before || has_come;
            let least = before + u16::from(was_there);
            let rejected = match operation.act {
                Act::Reject(one) => one == number,
                Act::BorrowAndReject => number == operation.taken + 1,
                _ => false,
            };
            let most = before + 1 + u16::from(rejected);
            if !(least..=most).contains(&deliveries) {
                return Err(format!(
                    "message {number} is marked {deliveries}, not {least} to {most}"
                ));
            }
        }
        Ok(done as u64)
    }

    /// Others of the victim's kind are as welcome as ever.
    fn last_exchange(&mut self) -> Result<(), String> {
        let mut last = self.writer()?;
        let message = message(LAST, 1, self.operation.len_bytes);
        let sent = last.wait_for_peers(self.readers.len(), Some(PATIENCE));
        let sent = sent.and_then(|()| last.send_bytes(&message));
        sent.map_err(|error| format!("the last writer: {error}"))?;
        let is_it = |heard: &Heard| matches!(heard, Heard::Message { from: LAST, .. });
        for reader in &mut self.readers {
            reader.until("the last writer's message", is_it)?;
        }
        if self.operation.act == Act::Join {
            self.no_more_than_a_death_but(LAST)?;
        }
        self.writer = Some(last);
        self.close()
    }

    fn no_more_than_a_death_but(&mut self, last: u64) -> Result<(), String> {
        for reader in &mut self.readers {
            reader
                .heard
                .retain(|heard| !matches!(heard, Heard::Message { from, .. } if *from == last));
            if reader.deaths().count() > 1 {
                return Err("more than one death".to_owned());
            }
        }
        self.no_more_than_a_death()
    }

    /// The writer says its end, and readers hear it.
    fn close(&mut self) -> Result<(), String> {
        let writer = self.writer.take().ok_or("no writer")?;
        writer.close().map_err(|error| format!("closing: {error}"))?;
        for reader in &mut self.readers {
            reader.until("the end", |heard| *heard == Heard::Ended)?;
        }
        Ok(())
    }

    /// The ends go, and with them their folder.
    fn nothing_is_left(&mut self) -> Result<(), String> {
        let Some((_, rest)) = self.address.split_once("scope=") else { return Ok(()) };
        let scope = rest.split('&').next().unwrap_or_default();
        let folder = Path::new(scope).join("shm/channel");
        let heard: Vec<Vec<Heard>> = self.readers.drain(..).map(|reader| reader.heard).collect();
        let left: Vec<_> = std::fs::read_dir(&folder)
            .map(|names| names.flatten().map(|name| name.file_name()).collect())
            .unwrap_or_default();
        if folder.exists() {
            return Err(format!("the folder is left, with {left:?}; heard: {heard:?}"));
        }
        Ok(())
    }
}

impl Reader {
    /// Waits until it has met a writer.
    fn is_met(&self) -> Result<(), String> {
        let since = Instant::now();
        while self.receiver.peers() == 0 {
            if since.elapsed() > PATIENCE {
                return Err("a reader has met nobody".to_owned());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    fn deaths(&self) -> impl Iterator<Item = u64> {
        self.heard.iter().filter_map(|heard| match heard {
            Heard::Died { received } => Some(*received),
            _ => None,
        })
    }

    /// That a writer's messages come one after the other, but for those that were told to be missing; how many
    /// there were in all.
    fn without_a_hole(&self, of: u64, numbers: &[u64]) -> Result<u64, String> {
        let mut missing = 0;
        let mut told = 0;
        let mut last = numbers.first().filter(|_| self.is_late).map_or(0, |first| first - 1);
        let mut numbers = numbers.iter();
        for heard in &self.heard {
            match heard {
                Heard::Gap(count) => told += count,
                Heard::Message { from, deliveries, lost_before, .. } if *from == of => {
                    let number = *numbers.next().ok_or("fewer numbers than messages")?;
                    if *deliveries != 0 {
                        return Err(format!("message {number} is marked"));
                    }
                    missing += lost_before;
                    if number != last + lost_before + 1 || missing != told {
                        return Err(format!("message {number} after {last}"));
                    }
                    last = number;
                }
                _ => {}
            }
        }
        Ok(last + (told - missing))
    }
}
