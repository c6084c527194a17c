//! The subscribing end of a topic in a log: a place in each lane.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use switchboard_kernel::io::{self, Deadline, Interest};

use super::named::Named;
use super::open_topic;
use super::watch::{LONGEST, Watch};
use crate::error::{Error, RecvError};
use crate::log::folder::Folder;
use crate::log::gone::Standing;
use crate::log::reader::{LaneReader, Step};
use crate::pattern::queue::Rejection;
use crate::pattern::topic::Start;
use crate::transport::{Raw, Receipt, Setup, wait_or_cancel};

/// Messages taken from one lane in a row.
const IN_A_ROW: usize = 256;

#[derive(Debug)]
pub(crate) struct FileSubscriber {
    setup: Setup,
    folder: Arc<Folder>,
    standing: Standing,
    watch: Watch,
    lanes: Vec<LaneReader>,
    lanes_known: Option<u64>,
    turn: usize,
    in_a_row: usize,
    bytes: Vec<u8>,
    /// Messages from before this moment are passed over.
    since_ns: u64,
    /// Missing before the next message.
    missing: u64,
    /// What is missing is told by its report alone, not with the next message too.
    by_acknowledgement: bool,
    reports: VecDeque<RecvError>,
    named: Option<Named>,
}

impl FileSubscriber {
    pub(super) fn open(setup: &Setup, start: Start) -> Result<Self, Error> {
        let folder = open_topic(setup)?;
        let durability = setup.address.query.durability.unwrap_or_default();
        let (named, report) = match &setup.address.query.reader {
            Some(name) => {
                let (named, report) = Named::open(&folder, name, durability)?;
                (Some(named), report)
            }
            None => (None, None),
        };
        let mut subscriber = Self {
            setup: setup.again(),
            watch: Watch::new(&folder)?,
            standing: Standing::of(&folder)?,
            folder,
            lanes: Vec::new(),
            lanes_known: None,
            turn: 0,
            in_a_row: 0,
            bytes: Vec::new(),
            since_ns: 0,
            missing: 0,
            by_acknowledgement: false,
            reports: report.into_iter().collect(),
            named,
        };
        subscriber.begin(start)?;
        Ok(subscriber)
    }

    /// Finds the place in each lane that there is now. Lanes that come later are read whole.
    fn begin(&mut self, start: Start) -> Result<(), Error> {
        self.find_lanes()?;
        if self.named.as_ref().is_some_and(|named| !named.is_new()) {
            // It goes on where it was, wherever others begin.
            return Ok(());
        }
        if let Start::Time(time) = start {
            let since = time.duration_since(std::time::UNIX_EPOCH);
            self.since_ns = since.map_or(0, |since: Duration| since.as_nanos() as u64);
        }
        let mut places = Vec::new();
        for lane in &mut self.lanes {
            match start {
                Start::Oldest => lane.begin_at_oldest()?,
                Start::Time(_) => lane.begin_at_time(self.since_ns)?,
                Start::Number(sequence) => lane.skip_to(sequence),
                Start::New => lane.go_to_end()?,
            }
            if self.named.is_some() {
                let place = match start {
                    Start::New => lane.reached().max(1),
                    _ => first_from(&self.folder, lane.lane(), start, self.since_ns)?,
                };
                places.push((lane.lane(), place));
            }
        }
        self.named.as_mut().map_or(Ok(()), |named| named.begin(&places))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        self.folder.here()?;
        if let Some(named) = &mut self.named {
            named.ask();
            named.keep_if_due()?;
        }
        if self.take_one(with)? {
            return Ok(true);
        }
        self.report()?;
        if self.watch.clear() {
            self.standing.check()?;
        }
        if let Some(named) = &mut self.named {
            named.keep()?;
        }
        if self.watch.is_armed() {
            self.folder.raise();
            self.watch.ring_after(LONGEST);
            if self.take_one(with)? {
                return Ok(true);
            }
            self.report()?;
        }
        Ok(false)
    }

    pub(crate) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        let most = self.named.as_ref().map_or(most, |named| named.room().min(most));
        let mut count = 0;
        while count < most
            && self.folder.is_here()
            && self.reports.is_empty()
            && self.take_one(with).unwrap_or(false)
        {
            count += 1;
        }
        count
    }

    fn report(&mut self) -> Result<(), RecvError> {
        self.reports.pop_front().map_or(Ok(()), Err)
    }

    fn take_one(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        if !self.reports.is_empty() {
            return Ok(false);
        }
        self.find_lanes()?;
        let count = self.lanes.len();
        if self.in_a_row >= IN_A_ROW {
            self.in_a_row = 0;
            self.turn += 1;
        }
        for step in 0..count {
            let at = (self.turn + step) % count;
            let lane = &mut self.lanes[at];
            loop {
                self.bytes.clear();
                match lane.next(&mut self.bytes)? {
                    Step::Message { time_ns, .. } if time_ns < self.since_ns => {}
                    Step::Message { sequence, time_ns, .. } => {
                        let receipt = Receipt { connection: lane.lane().into(), sequence };
                        let missing = std::mem::take(&mut self.missing);
                        let lost_before = if self.by_acknowledgement { 0 } else { missing };
                        let published_ns = time_ns;
                        with(Raw { receipt, lost_before, published_ns, ..Raw::bare(&self.bytes) });
                        if let Some(named) = &mut self.named {
                            named.give(lane.lane(), sequence);
                        }
                        self.in_a_row = if step == 0 { self.in_a_row + 1 } else { 1 };
                        self.turn = at;
                        return Ok(true);
                    }
                    Step::Damage { problem, missing } => {
                        self.missing = self.missing.saturating_add(missing);
                        self.reports.push_back(RecvError::Damaged { problem, missing });
                        return Ok(false);
                    }
                    Step::Nothing => break,
                }
            }
        }
        Ok(false)
    }

    fn find_lanes(&mut self) -> Result<(), Error> {
        let generation = self.folder.generation();
        if self.lanes_known == Some(generation) {
            return Ok(());
        }
        self.lanes_known = Some(generation);
        for (lane, _) in self.folder.segments()? {
            if !self.lanes.iter().any(|known| known.lane() == lane) {
                let place = self.named.as_ref().map_or(1, |named| named.place(lane));
                let reader = LaneReader::at_message(Arc::clone(&self.folder), lane, place);
                self.lanes.push(reader.counting_again());
            }
        }
        Ok(())
    }

    /// From now on a message counts as taken when it is acknowledged, not when the next one is asked
    /// for.
    pub(crate) fn count_acknowledged(&mut self) {
        self.by_acknowledgement = true;
        if let Some(named) = &mut self.named {
            named.count_acknowledged();
        }
    }

    pub(crate) fn acknowledge(&mut self, receipt: Receipt) -> Result<bool, RecvError> {
        self.folder.here()?;
        let Some(named) = &mut self.named else { return Ok(true) };
        let taken = named.acknowledge(receipt.connection as u32, receipt.sequence);
        named.keep_if_due()?;
        Ok(taken)
    }

    pub(crate) fn acknowledge_all(&mut self, receipts: &[Receipt]) -> Result<(), RecvError> {
        self.folder.here()?;
        let Some(named) = &mut self.named else { return Ok(()) };
        for receipt in receipts {
            named.acknowledge(receipt.connection as u32, receipt.sequence);
        }
        Ok(named.keep_if_due()?)
    }

    /// Nobody else has the message, so that it counts as taken: it would hold up the place for ever.
    /// Unless the subscriber is being interrupted; then the next one of its name gets it again.
    pub(crate) fn reject(&mut self, receipt: Receipt) -> Result<Rejection, RecvError> {
        let now = Deadline::after(Duration::ZERO);
        let is_interrupted = |cancel| io::wait_for(cancel, Interest::Readable, now);
        let cancel = self.setup.options.cancel.as_ref();
        if !cancel.is_some_and(|cancel| is_interrupted(cancel).unwrap_or(false)) {
            self.acknowledge(receipt)?;
        }
        Ok(Rejection::NotTaken)
    }

    /// Keeps the place under its name.
    pub(crate) fn flush(&mut self) -> Result<(), RecvError> {
        self.folder.here()?;
        let Some(named) = &mut self.named else { return Ok(()) };
        named.ask();
        Ok(named.keep()?)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        self.folder.here()?;
        // The bell has to be asked for before it is slept on.
        if self.watch.arm() || !self.reports.is_empty() {
            return Ok(());
        }
        let cancel = self.setup.options.cancel.as_ref();
        match wait_or_cancel(self.watch.fd(), Interest::Readable, cancel, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RecvError::Interrupted),
            Err(error) => Err(self.folder.kernel("cannot wait", error).into()),
        }
    }
}

/// The number of the first message of a lane that a subscriber who begins so is given; of the next one
/// where there is none yet.
fn first_from(folder: &Arc<Folder>, lane: u32, start: Start, since_ns: u64) -> Result<u64, Error> {
    let mut reader = LaneReader::at_message(Arc::clone(folder), lane, 1);
    let most = match start {
        Start::Number(sequence) => {
            reader.skip_to(sequence);
            sequence.max(1)
        }
        Start::Time(_) => {
            reader.begin_at_time(since_ns)?;
            u64::MAX
        }
        _ => {
            reader.begin_at_oldest()?;
            u64::MAX
        }
    };
    let (mut bytes, mut passed) = (Vec::new(), None);
    loop {
        bytes.clear();
        match reader.next(&mut bytes)? {
            Step::Message { sequence, time_ns, .. } if time_ns < since_ns => {
                passed = Some(sequence.saturating_add(1));
            }
            // What is damaged before it is for the subscriber to find.
            Step::Message { sequence, .. } => return Ok(passed.unwrap_or(sequence).min(most)),
            Step::Damage { .. } => {}
            Step::Nothing => return Ok(passed.unwrap_or(reader.reached()).clamp(1, most)),
        }
    }
}
