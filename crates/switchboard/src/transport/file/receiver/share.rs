//! What one receiver has of a queue, and how it takes more: under the table's lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::super::shared_table::{Found, Locked, SharedTable};
use super::given_back::GivenBack;
use super::held::{Held, Item};
use crate::error::{Error, RecvError};
use crate::log::folder::Folder;
use crate::log::reader::{LaneReader, Step};
use crate::log::table::{Claim, LANES, MOST_RETURNED, Returned, Table};
use crate::transport::Receipt;

/// The most messages in one claim.
const MOST_CLAIMED: u64 = 1 << 20;
/// The most claims that one receiver uses for messages that were given back and lie apart.
const MOST_APART: usize = 4;

const HALF: &str = "one copy of the queue's table is damaged; messages that were received last may \
                    come again, marked";
const NOTHING: &str = "the queue's table is damaged; every message that is still there comes again, \
                       marked";
const SENSELESS: &str = "a claim in the queue's table makes no sense; what it held is passed over";

/// The messages of one receiver.
#[derive(Debug)]
pub(super) struct Share {
    folder: Arc<Folder>,
    pub(super) held: Vec<Held>,
    /// Taken and not handed out.
    pub(super) ready: VecDeque<Item>,
    pub(super) bytes: Vec<u8>,
    pub(super) given_back: GivenBack,
    /// There are messages in the table that may come again here, and were not taken yet.
    pub(super) left: bool,
    /// Where the last of those that were given back was read: the next one is often behind it.
    place: Option<LaneReader>,
    /// Settled, and not in the table.
    pub(super) unwritten: u32,
    /// Rejected for good, and not in the table.
    pub(super) rejected: u64,
    pub(super) reports: VecDeque<RecvError>,
    most_bytes: usize,
}

impl Share {
    pub(super) fn new(folder: &Arc<Folder>, most_bytes: u32) -> Self {
        Self {
            folder: Arc::clone(folder),
            held: Vec::new(),
            ready: VecDeque::new(),
            bytes: Vec::new(),
            given_back: GivenBack::default(),
            left: false,
            place: None,
            unwritten: 0,
            rejected: 0,
            reports: VecDeque::new(),
            most_bytes: most_bytes.max(1) as usize,
        }
    }

    /// Messages taken, not settled and not given back.
    pub(super) fn outstanding(&self) -> usize {
        let unsettled: usize = self.held.iter().map(Held::unsettled).sum();
        unsettled.saturating_sub(self.given_back.kept.len())
    }

    /// How often a message of this receiver was delivered before; `None` when it is not its own.
    pub(super) fn deliveries(&self, receipt: Receipt) -> Option<u32> {
        let (lane, sequence) = (receipt.connection as u32, receipt.sequence);
        let held = self.held.iter().find(|held| held.lane == lane && !held.is_settled(sequence));
        held.map(|held| held.deliveries)
    }

    /// Notes that a message is settled. Whether it was not.
    pub(super) fn settle(&mut self, receipt: Receipt) -> bool {
        let settled = settle(&mut self.held, receipt.connection as u32, receipt.sequence);
        self.unwritten += u32::from(settled);
        settled
    }

    /// Gives a message back, to be put into the table with the next change.
    pub(super) fn give_back(&mut self, receipt: Receipt, deliveries: u32, pause: Option<u32>) {
        let (lane, sequence) = (receipt.connection as u32, receipt.sequence);
        self.given_back.note(Returned { lane, deliveries, sequence }, pause);
        self.unwritten += 1;
    }

    /// Brings the table up to date with what this receiver did, and repairs it where that is needed.
    pub(super) fn settle_up(&mut self, locked: &mut Locked<'_>) -> Result<(), Error> {
        match locked.found {
            Found::Whole => {}
            Found::Half => self.mark_all(&mut locked.table)?,
            Found::Nothing => self.begin_anew(&mut locked.table)?,
        }
        let held = &mut self.held;
        let table = &mut locked.table;
        self.given_back.put_into(table, |lane, sequence| settle(held, lane, sequence));
        for held in &mut self.held {
            table.claims[held.index] = held.claim();
        }
        table.rejected += std::mem::take(&mut self.rejected);
        self.unwritten = 0;
        Ok(())
    }

    /// The table may be an older one: what was handed out since comes again, marked.
    fn mark_all(&mut self, table: &mut Table) -> Result<(), Error> {
        for (lane, ..) in self.lanes()? {
            let mut reader = LaneReader::at_message(Arc::clone(&self.folder), lane, 1);
            reader.go_to_end()?;
            table.again[lane as usize % LANES] = reader.expected();
        }
        self.left = true;
        self.say(HALF);
        Ok(())
    }

    /// Neither copy of the table holds: every message that is still there comes again, marked.
    fn begin_anew(&mut self, table: &mut Table) -> Result<(), Error> {
        let mut found = Vec::new();
        let mut any = false;
        for (lane, ..) in self.lanes()? {
            let at = lane as usize % LANES;
            let mut reader = LaneReader::at_message(Arc::clone(&self.folder), lane, 1);
            reader.go_to_end()?;
            let end = reader.expected();
            let (first, damage) = self.first_message(lane)?;
            if first.is_some() {
                // Nobody comes by there again.
                found.extend(damage);
            }
            any |= first.is_some();
            table.next[at] = first.unwrap_or(end);
            table.again[at] = end;
        }
        // Of a log without a message nothing is lost.
        if any {
            self.left = true;
            self.say(NOTHING);
            self.reports.extend(found);
        }
        Ok(())
    }

    fn lanes(&self) -> Result<Vec<(u32, u64)>, Error> {
        let mut lanes = self.folder.segments()?;
        lanes.dedup_by_key(|(lane, _)| *lane);
        Ok(lanes)
    }

    /// The number of the oldest message of a lane that is there, and what is damaged before it.
    fn first_message(&self, lane: u32) -> Result<(Option<u64>, Vec<RecvError>), Error> {
        let mut reader = LaneReader::at_message(Arc::clone(&self.folder), lane, 1);
        reader.begin_at_oldest()?;
        let (mut bytes, mut damage) = (Vec::new(), Vec::new());
        loop {
            match reader.next(&mut bytes)? {
                Step::Message { sequence, .. } => return Ok((Some(sequence), damage)),
                Step::Damage { problem, missing } => {
                    damage.push(RecvError::Damaged { problem, missing });
                }
                Step::Nothing => return Ok((None, damage)),
            }
        }
    }

    fn say(&mut self, problem: &str) {
        self.reports.push_back(RecvError::Damaged { problem: problem.to_owned(), missing: 0 });
    }

    /// Takes over the claims of dead receivers: their messages come again, marked.
    pub(super) fn take_over(
        &mut self,
        shared: &SharedTable,
        table: &mut Table,
        room: &mut usize,
    ) -> Result<(), Error> {
        for index in 0..table.claims.len() {
            let claim = table.claims[index];
            let ours = self.held.iter().any(|held| held.index == index);
            if claim.is_empty() || ours || *room == 0 || !shared.try_hold(index)? {
                continue;
            }
            let Some(len) = claim.end.checked_sub(claim.first).filter(|len| *len <= MOST_CLAIMED)
            else {
                // No receiver claims so many.
                table.claims[index] = Claim::default();
                self.say(SENSELESS);
                continue;
            };
            let settled: VecDeque<bool> =
                (0..len).map(|at| claim.is_settled(claim.first + at)).collect();
            let deliveries = claim.deliveries.saturating_add(1);
            let mut held =
                Held { index, lane: claim.lane, deliveries, first: claim.first, settled };
            let mut reader =
                LaneReader::at_message(Arc::clone(&self.folder), claim.lane, claim.first);
            self.read_claimed(&mut reader, &mut held)?;
            *room = room.saturating_sub(held.unsettled());
            table.claims[index] = held.claim();
            self.held.push(held);
        }
        Ok(())
    }

    /// Reads the messages of a claim that are not settled. What is missing counts as settled.
    fn read_claimed(&mut self, reader: &mut LaneReader, held: &mut Held) -> Result<(), Error> {
        let end = held.end();
        let mut found = VecDeque::from(vec![false; held.settled.len()]);
        loop {
            let start = self.bytes.len();
            match reader.next(&mut self.bytes)? {
                Step::Message { sequence, .. } if sequence < end => {
                    if held.is_settled(sequence) {
                        self.bytes.truncate(start);
                    } else {
                        found[(sequence - held.first) as usize] = true;
                        self.push(held.lane, sequence, held.deliveries, false, start);
                    }
                    if sequence + 1 == end {
                        break;
                    }
                }
                Step::Damage { problem, missing } => {
                    self.reports.push_back(RecvError::Damaged { problem, missing });
                }
                Step::Message { .. } | Step::Nothing => {
                    self.bytes.truncate(start);
                    break;
                }
            }
        }
        for (settled, found) in held.settled.iter_mut().zip(found) {
            *settled |= !found;
        }
        Ok(())
    }

    /// Takes messages that were given back, and that this receiver may have.
    pub(super) fn take_returned(
        &mut self,
        shared: &SharedTable,
        table: &mut Table,
        room: &mut usize,
    ) -> Result<(), Error> {
        let now = Instant::now();
        self.left = false;
        let mut at = 0;
        while at < table.returned.len() {
            let message = table.returned[at];
            if !self.given_back.may_take(&message, now) {
                at += 1;
                continue;
            }
            let apart = self.held.iter().filter(|held| held.deliveries > 0 && held.unsettled() > 0);
            let full = *room == 0
                || self.bytes.len() >= self.most_bytes
                || apart.count() >= MOST_APART
                || !self.take_one_returned(message, shared, table)?;
            if full {
                self.left = true;
                break;
            }
            table.returned.remove(at);
            self.given_back.forget(&message);
            *room -= 1;
        }
        self.given_back.looked(table, now);
        if !self.left && table.returned.is_empty() {
            // It has a segment mapped, which takes room on the disk as long as that, whoever removes it.
            self.place = None;
        }
        Ok(())
    }

    /// Takes one message that was given back. Whether there was a claim for it.
    fn take_one_returned(
        &mut self,
        message: Returned,
        shared: &SharedTable,
        table: &mut Table,
    ) -> Result<bool, Error> {
        let Returned { lane, deliveries, sequence } = message;
        let one = VecDeque::from([false]);
        if !self.hold(lane, sequence, deliveries, one, shared, table)? {
            return Ok(false);
        }
        let mut reader = self.reader_at(lane, sequence);
        let found = self.read_one(&mut reader, message)?;
        self.place = Some(reader);
        if !found {
            // It is not there any more, and that was said.
            settle(&mut self.held, lane, sequence);
        }
        Ok(true)
    }

    fn reader_at(&mut self, lane: u32, sequence: u64) -> LaneReader {
        let behind = |reader: &LaneReader| reader.lane() == lane && reader.expected() <= sequence;
        match self.place.take().filter(behind) {
            Some(mut reader) => {
                reader.skip_to(sequence);
                reader
            }
            None => LaneReader::at_message(Arc::clone(&self.folder), lane, sequence),
        }
    }

    /// Reads a message that was given back. Whether it is there.
    fn read_one(&mut self, reader: &mut LaneReader, message: Returned) -> Result<bool, Error> {
        let Returned { lane, deliveries, sequence } = message;
        loop {
            let start = self.bytes.len();
            match reader.next(&mut self.bytes)? {
                Step::Message { sequence: found, .. } if found == sequence => {
                    self.push(lane, sequence, deliveries, false, start);
                    return Ok(true);
                }
                Step::Damage { problem, missing } => {
                    self.reports.push_back(RecvError::Damaged { problem, missing });
                }
                Step::Message { .. } | Step::Nothing => {
                    self.bytes.truncate(start);
                    return Ok(false);
                }
            }
        }
    }

    /// Takes messages of a lane that nobody has, into a claim.
    pub(super) fn take_from(
        &mut self,
        lane: &mut LaneReader,
        shared: &SharedTable,
        table: &mut Table,
        room: &mut usize,
    ) -> Result<(), Error> {
        let (number, at) = (lane.lane(), lane.lane() as usize);
        let Some(first) = table.next.get(at).copied() else { return Ok(()) };
        if lane.expected() > first {
            // Somebody gave messages back.
            *lane = LaneReader::at_message(Arc::clone(&self.folder), number, first);
        }
        lane.skip_to(first);
        // Up to where the table was damaged, they may have been handed out before.
        let deliveries = u32::from(first < table.again[at]);
        let end = if deliveries > 0 { table.again[at] } else { u64::MAX };
        let (before, taken_before) = (self.bytes.len(), self.ready.len());
        let (mut taken, mut claimed) = (VecDeque::new(), first);
        while *room > self.ready.len() - taken_before
            && self.bytes.len() < self.most_bytes
            && (taken.len() as u64) < MOST_CLAIMED
            && lane.expected() < end
        {
            let start = self.bytes.len();
            match lane.next(&mut self.bytes)? {
                Step::Message { sequence, .. } => {
                    // What is missing between them counts as settled; before the first and after the last
                    // one it is passed over.
                    if taken.is_empty() {
                        claimed = sequence;
                    }
                    taken.resize((sequence - claimed) as usize, true);
                    taken.push_back(false);
                    self.push(number, sequence, deliveries, true, start);
                }
                Step::Damage { problem, missing } => {
                    self.reports.push_back(RecvError::Damaged { problem, missing });
                    if !taken.is_empty() && lane.expected() - claimed >= MOST_CLAIMED {
                        break;
                    }
                }
                Step::Nothing => break,
            }
        }
        let (count, len) = (self.ready.len() - taken_before, taken.len() as u64);
        let next = lane.expected().min(end).max(claimed + len);
        if taken.is_empty() {
            table.next[at] = next;
            return Ok(());
        }
        if !self.hold(number, claimed, deliveries, taken, shared, table)? {
            // Those who have all claims have messages to settle: then there are some again.
            self.ready.truncate(taken_before);
            self.bytes.truncate(before);
            *lane = LaneReader::at_message(Arc::clone(&self.folder), number, first);
            return if self.held.is_empty() { Err(shared.no_claim()) } else { Ok(()) };
        }
        table.next[at] = next;
        *room = room.saturating_sub(count);
        Ok(())
    }

    fn push(&mut self, lane: u32, sequence: u64, deliveries: u32, from_lane: bool, start: usize) {
        self.ready.push_back(Item {
            lane,
            sequence,
            deliveries: u16::try_from(deliveries).unwrap_or(u16::MAX),
            redelivered: !from_lane || deliveries > 0,
            from_lane,
            payload: start..self.bytes.len(),
        });
    }

    /// Adds messages to a claim of this receiver. Whether there is one for them.
    fn hold(
        &mut self,
        lane: u32,
        first: u64,
        deliveries: u32,
        taken: VecDeque<bool>,
        shared: &SharedTable,
        table: &mut Table,
    ) -> Result<bool, Error> {
        let fits = |held: &Held| {
            (held.lane, held.deliveries, held.end()) == (lane, deliveries, first)
                && (held.settled.len() + taken.len()) as u64 <= MOST_CLAIMED
        };
        let at = match self.held.iter().position(fits) {
            Some(at) => at,
            None => {
                let empty = self.held.iter().position(|held| held.settled.is_empty());
                let is_held = |index| self.held.iter().any(|held| held.index == index);
                let index = match empty {
                    Some(at) => Some(self.held.swap_remove(at).index),
                    None => shared.free_claim(table, is_held)?,
                };
                let Some(index) = index else { return Ok(false) };
                self.held.push(Held { index, lane, deliveries, first, settled: VecDeque::new() });
                self.held.len() - 1
            }
        };
        let held = &mut self.held[at];
        held.settled.extend(taken);
        table.claims[held.index] = held.claim();
        Ok(true)
    }

    /// Gives back what was taken and never handed out, as it was found.
    pub(super) fn put_back(&mut self, table: &mut Table) {
        for held in &mut self.held {
            let from_lane = |item: &&Item| {
                item.lane == held.lane && item.from_lane && !held.is_settled(item.sequence)
            };
            let Some(first) = self.ready.iter().filter(from_lane).map(|item| item.sequence).min()
            else {
                continue;
            };
            let next = &mut table.next[held.lane as usize % LANES];
            if *next == held.end() && first >= held.first && first < *next {
                *next = first;
                held.settled.truncate((first - held.first) as usize);
            }
        }
        for item in self.ready.drain(..).filter(|item| !item.from_lane) {
            let Item { lane, sequence, deliveries, .. } = item;
            let deliveries = deliveries.into();
            if table.returned.len() < MOST_RETURNED && settle(&mut self.held, lane, sequence) {
                table.returned.push(Returned { lane, deliveries, sequence });
            }
        }
    }
}

/// Notes that a message is settled. Whether it was not.
fn settle(held: &mut [Held], lane: u32, sequence: u64) -> bool {
    held.iter_mut().filter(|held| held.lane == lane).any(|held| held.settle(sequence))
}
