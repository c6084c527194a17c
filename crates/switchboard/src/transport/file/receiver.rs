//! The receiving end of a queue in a log.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use switchboard_kernel::io::{Deadline, Interest};

use super::open_folder;
use super::shared_table::{Found, SharedTable, prune_settled};
use super::watch::{LONGEST, SOON, Watch};
use crate::error::{Error, RecvError};
use crate::log::folder::Folder;
use crate::log::reader::{LaneReader, Step};
use crate::log::segment::Pattern;
use crate::log::table::{Claim, LANES, Table};
use crate::transport::{Raw, Receipt, Setup, wait_or_cancel};

#[derive(Debug)]
pub(crate) struct FileReceiver {
    setup: Setup,
    folder: Arc<Folder>,
    table: SharedTable,
    watch: Watch,
    /// A place in each lane that there is.
    lanes: Vec<LaneReader>,
    /// The folder's generation when lanes were last looked for.
    lanes_known: Option<u64>,
    /// The lane whose turn it is.
    turn: usize,
    held: Vec<Held>,
    /// Taken and not handed out.
    ready: VecDeque<Item>,
    bytes: Vec<u8>,
    /// How often messages were rejected here.
    rejections: HashMap<(u32, u64), u16>,
    /// Settled, and not in the table.
    unwritten: u32,
    rejected: u64,
    look_for_dead: bool,
    /// For lanes with several segments: the oldest may go when everything before this message is
    /// settled.
    prune_at: Vec<(u32, u64)>,
    /// The folder's generation when that was found out.
    prune_known: Option<u64>,
    reports: VecDeque<RecvError>,
}

/// A claim of this receiver.
#[derive(Debug)]
struct Held {
    index: usize,
    lane: u32,
    deliveries: u32,
    first: u64,
    /// For each message from `first` on, whether it is settled. Its end is the claim's end.
    settled: VecDeque<bool>,
}

/// A message that was taken.
#[derive(Debug)]
struct Item {
    lane: u32,
    sequence: u64,
    deliveries: u16,
    redelivered: bool,
    payload: Range<usize>,
}

impl Held {
    fn end(&self) -> u64 {
        self.first + self.settled.len() as u64
    }

    fn settle(&mut self, sequence: u64) -> bool {
        let Some(at) = sequence.checked_sub(self.first) else { return false };
        match self.settled.get_mut(at as usize) {
            Some(settled) => !std::mem::replace(settled, true),
            None => false,
        }
    }

    fn is_settled(&self, sequence: u64) -> bool {
        let at = sequence.checked_sub(self.first);
        at.and_then(|at| self.settled.get(at as usize)).copied().unwrap_or(true)
    }

    /// As it goes into the table. What is settled at its front is forgotten.
    fn claim(&mut self) -> Claim {
        while self.settled.front() == Some(&true) {
            self.settled.pop_front();
            self.first += 1;
        }
        let mut claim = Claim {
            lane: self.lane,
            deliveries: self.deliveries,
            first: self.first,
            end: self.end(),
            settled: 0,
        };
        claim.settle(|sequence| self.is_settled(sequence));
        claim
    }
}

impl FileReceiver {
    pub(super) fn open(setup: &Setup) -> Result<Self, Error> {
        let folder = open_folder(setup, Pattern::Queue)?;
        let durability = setup.address.query.durability.unwrap_or_default();
        Ok(Self {
            setup: setup.again(),
            table: SharedTable::open(&folder, durability)?,
            watch: Watch::new(&folder)?,
            folder,
            lanes: Vec::new(),
            lanes_known: None,
            turn: 0,
            held: Vec::new(),
            ready: VecDeque::new(),
            bytes: Vec::new(),
            rejections: HashMap::new(),
            unwritten: 0,
            rejected: 0,
            look_for_dead: true,
            prune_at: Vec::new(),
            prune_known: None,
            reports: VecDeque::new(),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        if self.hand_out(with) {
            return Ok(true);
        }
        self.report()?;
        self.look_for_dead |= self.watch.clear();
        self.refill()?;
        if self.watch.is_armed() && self.ready.is_empty() && self.reports.is_empty() {
            self.folder.raise();
            self.watch.ring_after(LONGEST);
            self.refill()?;
        }
        if self.hand_out(with) {
            return Ok(true);
        }
        self.report()?;
        Ok(false)
    }

    pub(crate) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        let mut count = 0;
        while count < most && self.hand_out(with) {
            count += 1;
        }
        count
    }

    fn report(&mut self) -> Result<(), RecvError> {
        self.reports.pop_front().map_or(Ok(()), Err)
    }

    #[inline]
    fn hand_out(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> bool {
        let Some(item) = self.ready.pop_front() else { return false };
        with(Raw {
            receipt: Receipt { connection: item.lane.into(), sequence: item.sequence },
            redelivered: item.redelivered,
            deliveries: item.deliveries,
            ..Raw::bare(&self.bytes[item.payload])
        });
        true
    }

    /// Messages taken and not settled.
    fn outstanding(&self) -> usize {
        let unsettled = |held: &Held| held.settled.iter().filter(|settled| !**settled).count();
        self.held.iter().map(unsettled).sum()
    }

    /// Takes messages, if there are any and this receiver may have more.
    fn refill(&mut self) -> Result<(), RecvError> {
        if !self.ready.is_empty() {
            return Ok(());
        }
        self.bytes.clear();
        self.find_lanes()?;
        let prefetch = self.setup.options.prefetch_messages.max(1) as usize;
        let mut room = prefetch.saturating_sub(self.outstanding());
        let more = room > 0 && self.lanes.iter_mut().any(LaneReader::may_have_more);
        if !(more || self.look_for_dead || self.unwritten > 0) {
            return Ok(());
        }
        let mut lanes = std::mem::take(&mut self.lanes);
        let result = self.refill_locked(&mut lanes, &mut room);
        self.lanes = lanes;
        result.map_err(Into::into)
    }

    fn refill_locked(&mut self, lanes: &mut [LaneReader], room: &mut usize) -> Result<(), Error> {
        let Some(mut locked) = self.table.try_lock()? else {
            self.watch.ring_after(SOON);
            return Ok(());
        };
        let before = locked.table.clone();
        let mut taking = Taking {
            folder: &self.folder,
            shared: &self.table,
            held: &mut self.held,
            ready: &mut self.ready,
            bytes: &mut self.bytes,
            reports: &mut self.reports,
            most_bytes: self.setup.options.prefetch_bytes.max(1) as usize,
        };
        match locked.found {
            Found::Whole => {}
            Found::Half => taking.say(HALF),
            Found::Nothing => taking.begin_anew(&mut locked.table, lanes),
        }
        note_settled(taking.held, &mut locked.table);
        if std::mem::take(&mut self.look_for_dead) {
            taking.take_over(&mut locked.table, room)?;
        }
        let count = lanes.len();
        for step in 0..count {
            let lane = &mut lanes[(self.turn + step) % count];
            if *room == 0 {
                break;
            }
            taking.take_from(lane, &mut locked.table, room)?;
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        locked.table.rejected += std::mem::take(&mut self.rejected);
        if locked.table != before || locked.found != Found::Whole {
            locked.write()?;
            if locked.found != Found::Whole {
                // Both copies hold again.
                locked.write()?;
            }
        }
        self.unwritten = 0;
        let table = locked.table.clone();
        drop(locked);
        self.prune(&table)
    }

    /// Lanes that came since the last look.
    fn find_lanes(&mut self) -> Result<(), Error> {
        let generation = self.folder.generation();
        if self.lanes_known == Some(generation) {
            return Ok(());
        }
        self.lanes_known = Some(generation);
        for (lane, _) in self.folder.segments()? {
            if !self.lanes.iter().any(|known| known.lane() == lane) {
                self.lanes.push(LaneReader::at_message(Arc::clone(&self.folder), lane, 1));
            }
        }
        Ok(())
    }

    /// Removes segments that nobody needs any more.
    fn prune(&mut self, table: &Table) -> Result<(), Error> {
        let generation = self.folder.generation();
        if self.prune_known != Some(generation) {
            self.prune_known = Some(generation);
            self.prune_at.clear();
            for pair in self.folder.segments()?.windows(2) {
                let (lane, next) = pair[1];
                if pair[0].0 != lane || self.prune_at.iter().any(|(known, _)| *known == lane) {
                    continue;
                }
                let reader = LaneReader::at_message(Arc::clone(&self.folder), lane, 1);
                if let Some(header) = reader.peek(next) {
                    self.prune_at.push((lane, header.first_sequence));
                }
            }
        }
        let settled = |(lane, first): &(u32, u64)| table.settled_before(*lane) >= *first;
        if self.prune_at.iter().any(settled) { prune_settled(&self.folder, table) } else { Ok(()) }
    }

    pub(crate) fn acknowledge(&mut self, receipt: Receipt) -> Result<bool, RecvError> {
        let settled = self.settle(receipt);
        self.write_if_due()?;
        Ok(settled)
    }

    pub(crate) fn acknowledge_all(&mut self, receipts: &[Receipt]) -> Result<(), RecvError> {
        for receipt in receipts {
            self.settle(*receipt);
        }
        self.write_if_due()
    }

    /// Notes that a message is settled. Whether it was not.
    fn settle(&mut self, receipt: Receipt) -> bool {
        let (lane, sequence) = (receipt.connection as u32, receipt.sequence);
        let mut held = self.held.iter_mut().filter(|held| held.lane == lane);
        let settled = held.any(|held| held.settle(sequence));
        self.unwritten += u32::from(settled);
        if settled && !self.rejections.is_empty() {
            self.rejections.remove(&(lane, sequence));
        }
        settled
    }

    fn write_if_due(&mut self) -> Result<(), RecvError> {
        let due = self.unwritten >= self.setup.options.acknowledge_every.max(1);
        if due { self.flush() } else { Ok(()) }
    }

    /// Hands a message out again, or counts it as rejected for good.
    pub(crate) fn reject(&mut self, receipt: Receipt) -> Result<bool, RecvError> {
        let (lane, sequence) = (receipt.connection as u32, receipt.sequence);
        let held = self.held.iter().find(|held| held.lane == lane && !held.is_settled(sequence));
        let Some(held) = held else { return Ok(false) };
        let before = u16::try_from(held.deliveries).unwrap_or(u16::MAX);
        let here = self.rejections.entry((lane, sequence)).or_insert(0);
        *here += 1;
        let deliveries = before.saturating_add(*here);
        if deliveries >= self.setup.options.max_deliveries.max(1) {
            self.rejected += 1;
            self.settle(receipt);
            self.flush()?;
            return Ok(true);
        }
        let mut reader = LaneReader::at_message(Arc::clone(&self.folder), lane, sequence);
        let start = self.bytes.len();
        match reader.next(&mut self.bytes)? {
            Step::Message { sequence: found, .. } if found == sequence => {
                let payload = start..self.bytes.len();
                self.ready.push_back(Item {
                    lane,
                    sequence,
                    deliveries,
                    redelivered: true,
                    payload,
                });
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Writes what was settled into the table.
    pub(crate) fn flush(&mut self) -> Result<(), RecvError> {
        if self.unwritten == 0 && self.rejected == 0 {
            return Ok(());
        }
        let mut locked = self.table.lock()?;
        note_settled(&mut self.held, &mut locked.table);
        locked.table.rejected += std::mem::take(&mut self.rejected);
        locked.write()?;
        self.unwritten = 0;
        let table = locked.table.clone();
        drop(locked);
        Ok(self.prune(&table)?)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        // The bell has to be asked for before it is slept on.
        if self.watch.arm() || !(self.ready.is_empty() && self.reports.is_empty()) {
            return Ok(());
        }
        let cancel = self.setup.options.cancel.as_ref();
        match wait_or_cancel(self.watch.fd(), Interest::Readable, cancel, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RecvError::Interrupted),
            Err(error) => Err(self.folder.kernel("cannot wait", error).into()),
        }
    }

    /// Gives back what was taken and never handed out, so that it does not come as redelivered.
    fn give_back(&mut self) -> Result<(), Error> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut locked = self.table.lock()?;
        for held in &mut self.held {
            let unseen =
                self.ready.iter().filter(|item| item.lane == held.lane && !item.redelivered);
            let Some(first) = unseen.map(|item| item.sequence).min() else { continue };
            let next = &mut locked.table.next[held.lane as usize % LANES];
            if *next == held.end() && first >= held.first && first < *next {
                *next = first;
                held.settled.truncate((first - held.first) as usize);
            }
        }
        note_settled(&mut self.held, &mut locked.table);
        locked.table.rejected += std::mem::take(&mut self.rejected);
        locked.write()?;
        drop(locked);
        // Whoever else receives may have these now.
        self.folder.ring();
        Ok(())
    }
}

impl Drop for FileReceiver {
    fn drop(&mut self) {
        // If it fails, what is unsettled comes again, marked: nothing is lost.
        let _ = self.give_back();
    }
}

/// Puts what is settled into the table.
fn note_settled(held: &mut [Held], table: &mut Table) {
    for held in held {
        table.claims[held.index] = held.claim();
    }
}

const HALF: &str =
    "one copy of the queue's table is damaged; what was received last may come again";
const NOTHING: &str = "the queue's table is damaged; every message that is still there comes again";

/// Takes messages into claims, under the table's lock.
struct Taking<'a> {
    folder: &'a Arc<Folder>,
    shared: &'a SharedTable,
    held: &'a mut Vec<Held>,
    ready: &'a mut VecDeque<Item>,
    bytes: &'a mut Vec<u8>,
    reports: &'a mut VecDeque<RecvError>,
    most_bytes: usize,
}

impl Taking<'_> {
    /// Neither copy of the table held: every message that is still there comes again, marked.
    fn begin_anew(&mut self, table: &mut Table, lanes: &[LaneReader]) {
        for held in self.held.iter_mut() {
            held.settled.clear();
        }
        for lane in lanes {
            let mut reader = LaneReader::at_message(Arc::clone(self.folder), lane.lane(), 1);
            let mut bytes = Vec::new();
            // The number after the last message, and the first there is.
            let mut first = None;
            while let Ok(step @ (Step::Message { .. } | Step::Damage { .. })) =
                reader.next(&mut bytes)
            {
                if let Step::Message { sequence, .. } = step {
                    first.get_or_insert(sequence);
                }
                bytes.clear();
            }
            let index = table.claims.iter().position(Claim::is_empty);
            if let (Some(first), Some(index)) = (first, index) {
                let (lane, end) = (lane.lane(), reader.expected());
                table.next[lane as usize % LANES] = end;
                table.claims[index] = Claim { lane, deliveries: 0, first, end, settled: 0 };
            }
        }
        self.say(NOTHING);
    }

    fn say(&mut self, problem: &str) {
        self.reports.push_back(RecvError::Damaged { problem: problem.to_owned(), missing: 0 });
    }

    /// Takes over the claims of dead receivers: their messages come again, marked.
    fn take_over(&mut self, table: &mut Table, room: &mut usize) -> Result<(), Error> {
        for index in 0..table.claims.len() {
            let claim = table.claims[index];
            let ours = self.held.iter().any(|held| held.index == index);
            if claim.is_empty() || ours || *room == 0 || !self.shared.try_hold(index)? {
                continue;
            }
            let Some(len) = claim.end.checked_sub(claim.first).filter(|len| *len <= MOST_CLAIMED)
            else {
                // No receiver claims so many: the table does not make sense here.
                table.claims[index] = Claim::default();
                continue;
            };
            let settled: VecDeque<bool> =
                (0..len).map(|at| claim.is_settled(claim.first + at)).collect();
            let deliveries = claim.deliveries.saturating_add(1);
            let mut held =
                Held { index, lane: claim.lane, deliveries, first: claim.first, settled };
            let mut reader =
                LaneReader::at_message(Arc::clone(self.folder), claim.lane, claim.first);
            self.read_claimed(&mut reader, &mut held)?;
            *room = room.saturating_sub(held.settled.iter().filter(|settled| !**settled).count());
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
            match reader.next(self.bytes)? {
                Step::Message { sequence, .. } if sequence < end => {
                    if held.is_settled(sequence) {
                        self.bytes.truncate(start);
                    } else {
                        found[(sequence - held.first) as usize] = true;
                        let deliveries = u16::try_from(held.deliveries).unwrap_or(u16::MAX);
                        let payload = start..self.bytes.len();
                        let lane = held.lane;
                        self.ready.push_back(Item {
                            lane,
                            sequence,
                            deliveries,
                            redelivered: true,
                            payload,
                        });
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

    /// Takes messages of a lane that nobody has, into a claim.
    fn take_from(
        &mut self,
        lane: &mut LaneReader,
        table: &mut Table,
        room: &mut usize,
    ) -> Result<(), Error> {
        let Some(next) = table.next.get_mut(lane.lane() as usize) else { return Ok(()) };
        if lane.expected() > *next {
            // Somebody gave messages back.
            *lane = LaneReader::at_message(Arc::clone(self.folder), lane.lane(), *next);
        }
        lane.skip_to(*next);
        let first = *next;
        let mut taken = VecDeque::new();
        while *room > 0 && self.bytes.len() < self.most_bytes && (taken.len() as u64) < MOST_CLAIMED
        {
            let start = self.bytes.len();
            match lane.next(self.bytes)? {
                Step::Message { sequence, .. } => {
                    // What is missing before it counts as settled.
                    taken.resize((sequence - first) as usize, true);
                    taken.push_back(false);
                    let payload = start..self.bytes.len();
                    let lane = lane.lane();
                    self.ready.push_back(Item {
                        lane,
                        sequence,
                        deliveries: 0,
                        redelivered: false,
                        payload,
                    });
                    *room -= 1;
                }
                Step::Damage { problem, missing } => {
                    self.reports.push_back(RecvError::Damaged { problem, missing });
                }
                Step::Nothing => break,
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        *next = first + taken.len() as u64;
        self.hold(lane.lane(), first, taken, table)
    }

    /// Adds messages to a claim of this receiver.
    fn hold(
        &mut self,
        lane: u32,
        first: u64,
        taken: VecDeque<bool>,
        table: &mut Table,
    ) -> Result<(), Error> {
        let same = |held: &&mut Held| held.lane == lane && held.deliveries == 0;
        let held = match self.held.iter_mut().filter(same).find(|held| held.end() == first) {
            Some(held) => {
                held.settled.extend(taken);
                held
            }
            None => {
                let empty = self.held.iter().position(|held| held.settled.is_empty());
                let index = match empty {
                    Some(at) => self.held.swap_remove(at).index,
                    None => self.shared.free_claim(table)?,
                };
                self.held.push(Held { index, lane, deliveries: 0, first, settled: taken });
                let Some(held) = self.held.last_mut() else { return Ok(()) };
                held
            }
        };
        table.claims[held.index] = held.claim();
        Ok(())
    }
}

/// The most messages in one claim.
const MOST_CLAIMED: u64 = 1 << 20;
