//! The subscribing end of a topic in a log: a place in each lane.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use switchboard_kernel::io::{Deadline, Interest};

use super::open_folder;
use super::watch::{LONGEST, Watch};
use crate::error::{Error, ErrorKind, RecvError};
use crate::log::folder::Folder;
use crate::log::places::Places;
use crate::log::reader::{LaneReader, Step};
use crate::log::segment::Pattern;
use crate::pattern::topic::Start;
use crate::transport::{Raw, Receipt, Setup, wait_or_cancel};

/// Messages taken from one lane in a row.
const IN_A_ROW: usize = 256;

#[derive(Debug)]
pub(crate) struct FileSubscriber {
    setup: Setup,
    folder: Arc<Folder>,
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
    reports: VecDeque<RecvError>,
    named: Option<Named>,
}

/// A place that is kept under a name.
#[derive(Debug)]
struct Named {
    file: File,
    places: Places,
    changed: bool,
}

impl FileSubscriber {
    pub(super) fn open(setup: &Setup, start: Start) -> Result<Self, Error> {
        let folder = open_folder(setup, Pattern::Topic)?;
        let named = match &setup.address.query.reader {
            Some(name) => Some(Named::open(&folder, name)?),
            None => None,
        };
        let mut subscriber = Self {
            setup: setup.again(),
            watch: Watch::new(&folder)?,
            folder,
            lanes: Vec::new(),
            lanes_known: None,
            turn: 0,
            in_a_row: 0,
            bytes: Vec::new(),
            since_ns: match start {
                Start::Time(time) => time
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |since: Duration| since.as_nanos() as u64),
                _ => 0,
            },
            missing: 0,
            reports: VecDeque::new(),
            named,
        };
        subscriber.begin(start)?;
        Ok(subscriber)
    }

    /// Finds the place in each lane that there is now. Lanes that come later are read whole.
    fn begin(&mut self, start: Start) -> Result<(), Error> {
        let saved: HashMap<u32, u64> =
            self.named.as_ref().map(|named| named.places.all().collect()).unwrap_or_default();
        self.find_lanes()?;
        for lane in &mut self.lanes {
            let number = lane.lane();
            if let Some(sequence) = saved.get(&number) {
                lane.skip_to(*sequence);
                continue;
            }
            match start {
                Start::Oldest | Start::Time(_) => lane.begin_at_oldest()?,
                Start::Number(sequence) => lane.skip_to(sequence),
                Start::New => lane.go_to_end()?,
            }
        }
        Ok(())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        if self.take_one(with)? {
            return Ok(true);
        }
        self.report()?;
        self.watch.clear();
        self.save()?;
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
        let mut count = 0;
        while count < most && self.reports.is_empty() && self.take_one(with).unwrap_or(false) {
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
                        let lost_before = std::mem::take(&mut self.missing);
                        let published_ns = time_ns;
                        with(Raw { receipt, lost_before, published_ns, ..Raw::bare(&self.bytes) });
                        if let Some(named) = &mut self.named {
                            named.places.set(lane.lane(), sequence + 1);
                            named.changed = true;
                        }
                        self.in_a_row = if step == 0 { self.in_a_row + 1 } else { 1 };
                        self.turn = at;
                        return Ok(true);
                    }
                    Step::Damage { problem, missing } => {
                        self.missing += missing;
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
                self.lanes.push(LaneReader::at_message(Arc::clone(&self.folder), lane, 1));
            }
        }
        Ok(())
    }

    /// Keeps the place under its name.
    fn save(&mut self) -> Result<(), Error> {
        let Some(named) = &mut self.named else { return Ok(()) };
        if !std::mem::take(&mut named.changed) {
            return Ok(());
        }
        let (at, bytes) = named.places.next_copy();
        named
            .file
            .write_all_at(&bytes, at)
            .map_err(|error| self.folder.system("cannot keep the place", error))
    }

    pub(crate) fn flush(&mut self) -> Result<(), RecvError> {
        Ok(self.save()?)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
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

impl Drop for FileSubscriber {
    fn drop(&mut self) {
        // If it fails, the next one of this name gets some messages again.
        let _ = self.save();
    }
}

impl Named {
    fn open(folder: &Folder, name: &str) -> Result<Self, Error> {
        let path = folder.make_readers()?.join(name);
        let file = folder.open_or_make(&path)?;
        if !folder.try_lock(&file, 0)? {
            let problem = format!("a subscriber uses the name {name} already (?reader=)");
            return Err(Error::new(ErrorKind::AddressInUse, &folder.address, problem));
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &file, &mut bytes)
            .map_err(|error| folder.system("cannot read the place", error))?;
        Ok(Self { file, places: Places::parse(&bytes), changed: false })
    }
}
