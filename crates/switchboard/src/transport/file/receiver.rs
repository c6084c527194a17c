//! The receiving end of a queue in a log.

mod given_back;
mod held;
mod share;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use switchboard_kernel::io::{Deadline, Interest};

use self::share::Share;
use super::open_folder;
use super::shared_table::{Found, SharedTable, prune_settled};
use super::watch::{LONGEST, SOON, Watch};
use crate::error::{Error, RecvError};
use crate::log::folder::Folder;
use crate::log::gone::Standing;
use crate::log::reader::LaneReader;
use crate::log::segment::Pattern;
use crate::log::table::Table;
use crate::pattern::queue::Rejection;
use crate::transport::{Raw, Receipt, Setup, wait_or_cancel};

#[derive(Debug)]
pub(crate) struct FileReceiver {
    setup: Setup,
    folder: Arc<Folder>,
    standing: Standing,
    table: SharedTable,
    watch: Watch,
    /// A place in each lane that there is.
    lanes: Vec<LaneReader>,
    /// The folder's generation when lanes were last looked for.
    lanes_known: Option<u64>,
    /// The lane whose turn it is.
    turn: usize,
    share: Share,
    look_for_dead: bool,
    /// For lanes with several segments: the oldest may go when everything before this message is
    /// settled.
    prune_at: Vec<(u32, u64)>,
    /// The folder's generation when that was found out.
    prune_known: Option<u64>,
}

impl FileReceiver {
    pub(super) fn open(setup: &Setup) -> Result<Self, Error> {
        let folder = open_folder(setup, Pattern::Queue)?;
        let durability = setup.address.query.durability.unwrap_or_default();
        Ok(Self {
            setup: setup.again(),
            standing: Standing::of(&folder)?,
            table: SharedTable::open(&folder, durability)?,
            watch: Watch::new(&folder)?,
            share: Share::new(&folder, setup.options.prefetch_bytes),
            folder,
            lanes: Vec::new(),
            lanes_known: None,
            turn: 0,
            look_for_dead: true,
            prune_at: Vec::new(),
            prune_known: None,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        self.folder.here()?;
        if self.hand_out(with) {
            return Ok(true);
        }
        self.report()?;
        if self.watch.clear() {
            self.look_for_dead = true;
            self.standing.check()?;
        }
        self.refill_if_there()?;
        let nothing = self.share.ready.is_empty() && self.share.reports.is_empty();
        if self.watch.is_armed() && nothing {
            self.folder.raise();
            self.watch.ring_after(LONGEST);
            self.refill_if_there()?;
        }
        self.report()?;
        Ok(self.hand_out(with))
    }

    pub(crate) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        let mut count = 0;
        while count < most && self.folder.is_here() && self.hand_out(with) {
            count += 1;
        }
        count
    }

    fn report(&mut self) -> Result<(), RecvError> {
        self.share.reports.pop_front().map_or(Ok(()), Err)
    }

    #[inline]
    fn hand_out(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> bool {
        let Some(item) = self.share.ready.pop_front() else { return false };
        with(Raw {
            receipt: Receipt { connection: item.lane.into(), sequence: item.sequence },
            redelivered: item.redelivered,
            deliveries: item.deliveries,
            ..Raw::bare(&self.share.bytes[item.payload])
        });
        true
    }

    /// An error of a log that was removed says that.
    fn refill_if_there(&mut self) -> Result<(), RecvError> {
        let Err(error) = self.refill() else { return Ok(()) };
        self.standing.check()?;
        Err(error)
    }

    /// Takes messages, if there are any and this receiver may have more.
    fn refill(&mut self) -> Result<(), RecvError> {
        if !self.share.ready.is_empty() {
            return Ok(());
        }
        self.share.bytes.clear();
        self.find_lanes()?;
        let prefetch = self.setup.options.prefetch_messages.max(1) as usize;
        let mut room = prefetch.saturating_sub(self.share.outstanding());
        let more = room > 0
            && (self.share.left
                || self.share.given_back.is_due()
                || self.lanes.iter_mut().any(LaneReader::may_have_more));
        if !(more || self.look_for_dead || self.share.unwritten > 0) {
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
        let share = &mut self.share;
        share.settle_up(&mut locked)?;
        if std::mem::take(&mut self.look_for_dead) {
            share.take_over(&self.table, &mut locked.table, room)?;
        }
        share.take_returned(&self.table, &mut locked.table, room)?;
        let count = lanes.len();
        for step in 0..count {
            let lane = &mut lanes[(self.turn + step) % count];
            if *room == 0 {
                break;
            }
            share.take_from(lane, &self.table, &mut locked.table, room)?;
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        if locked.table != before || locked.found != Found::Whole {
            locked.write()?;
        }
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
        let segments = self.folder.segments()?;
        // They are found by name: those of another log in its place are not to be read.
        self.standing.check()?;
        self.lanes_known = Some(generation);
        for (lane, _) in segments {
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
        if self.prune_at.iter().any(settled) {
            prune_settled(&self.folder, table).map(drop)
        } else {
            Ok(())
        }
    }

    pub(crate) fn acknowledge(&mut self, receipt: Receipt) -> Result<bool, RecvError> {
        self.folder.here()?;
        let settled = self.share.settle(receipt);
        self.write_if_due()?;
        Ok(settled)
    }

    pub(crate) fn acknowledge_all(&mut self, receipts: &[Receipt]) -> Result<(), RecvError> {
        self.folder.here()?;
        for receipt in receipts {
            self.share.settle(*receipt);
        }
        self.write_if_due()
    }

    fn write_if_due(&mut self) -> Result<(), RecvError> {
        let due = self.share.unwritten >= self.setup.options.acknowledge_every.max(1);
        if due { self.write_out() } else { Ok(()) }
    }

    /// Puts a message where others take it at once and this receiver after a pause; or, when that was
    /// its last delivery, counts it as rejected for good.
    pub(crate) fn reject(&mut self, receipt: Receipt) -> Result<Rejection, RecvError> {
        self.folder.here()?;
        let Some(before) = self.share.deliveries(receipt) else { return Ok(Rejection::NotTaken) };
        let deliveries = before.saturating_add(1);
        if deliveries >= u32::from(self.setup.options.max_deliveries.max(1)) {
            self.share.rejected += 1;
            self.share.settle(receipt);
            self.write_out()?;
            return Ok(Rejection::ForGood);
        }
        self.share.give_back(receipt, deliveries, Some(deliveries));
        self.tell_given_back()
    }

    /// Puts a message where others take it at once, and this receiver never: it was no delivery.
    pub(crate) fn give_back(&mut self, receipt: Receipt) -> Result<Rejection, RecvError> {
        self.folder.here()?;
        let Some(before) = self.share.deliveries(receipt) else { return Ok(Rejection::NotTaken) };
        self.share.give_back(receipt, before, None);
        self.tell_given_back()
    }

    fn tell_given_back(&mut self) -> Result<Rejection, RecvError> {
        self.write_out()?;
        // Whoever else receives may have it now.
        self.folder.changed();
        Ok(Rejection::GivenBack)
    }

    /// Writes what was settled into the table, and reports what was found damaged: there may be no
    /// further look.
    pub(crate) fn flush(&mut self) -> Result<(), RecvError> {
        self.folder.here()?;
        self.write_out()?;
        self.report()
    }

    fn write_out(&mut self) -> Result<(), RecvError> {
        if self.share.unwritten == 0 && self.share.rejected == 0 {
            return Ok(());
        }
        let mut locked = self.table.lock()?;
        self.share.settle_up(&mut locked)?;
        locked.write()?;
        let table = locked.table.clone();
        drop(locked);
        Ok(self.prune(&table)?)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        self.folder.here()?;
        // The bell has to be asked for before it is slept on.
        let nothing = self.share.ready.is_empty() && self.share.reports.is_empty();
        if self.watch.arm() || !nothing {
            return Ok(());
        }
        let cancel = self.setup.options.cancel.as_ref();
        match wait_or_cancel(self.watch.fd(), Interest::Readable, cancel, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RecvError::Interrupted),
            Err(error) => Err(self.folder.kernel("cannot wait", error).into()),
        }
    }

    /// Gives back what was taken and never handed out, as it was found.
    fn put_back(&mut self) -> Result<(), Error> {
        if self.share.held.is_empty() {
            return Ok(());
        }
        let mut locked = self.table.lock()?;
        if locked.found != Found::Whole {
            // The next receiver repairs it, and can say so.
            return Ok(());
        }
        self.share.put_back(&mut locked.table);
        self.share.settle_up(&mut locked)?;
        locked.write()?;
        drop(locked);
        // Whoever else receives may have these now.
        self.folder.changed();
        Ok(())
    }
}

impl Drop for FileReceiver {
    fn drop(&mut self) {
        // A child of fork would give back what its parent has.
        if !self.folder.is_here() {
            return;
        }
        // If it fails, what is unsettled comes again, marked: nothing is lost.
        let _ = self.put_back();
        self.share.held.iter().for_each(|held| self.table.let_go(held.index));
    }
}
