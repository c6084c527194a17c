//! The sending end of a log: of a queue or of a topic.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use switchboard_kernel::io::{Deadline, Interest, coarse_time_ns};

use super::named;
use super::shared_table::{self, prune_settled};
use super::watch::{LONGEST, Watch};
use super::{CAPACITY_BYTES, open_folder};
use crate::error::{Error, SendError};
use crate::log::folder::Folder;
use crate::log::frame::LARGEST_PAYLOAD_BYTES;
use crate::log::reader::LaneReader;
use crate::log::segment::Pattern;
use crate::log::table::Table;
use crate::log::writer::{
    LEAST_SEGMENT_BYTES, LaneWriter, Manner, Refusal, SEGMENT_BYTES, largest_payload_bytes,
};
use crate::transport::{Setup, wait_or_cancel};

/// Whoever waits is told after so many bytes, also in the middle of a batch.
const RING_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct FileSender {
    setup: Setup,
    folder: Arc<Folder>,
    writer: LaneWriter,
    watch: Watch,
    manner: Manner,
    limit_bytes: usize,
    appended: u64,
    acknowledged: u64,
    /// Bytes appended since others were told.
    untold_bytes: usize,
    /// The last message found no room.
    is_full: bool,
}

impl FileSender {
    pub(super) fn open(setup: &Setup, pattern: Pattern) -> Result<Self, Error> {
        let query = &setup.address.query;
        let segment_bytes = query.segment_bytes.map_or(SEGMENT_BYTES, u64::from);
        let segment_bytes = segment_bytes.max(LEAST_SEGMENT_BYTES).next_multiple_of(4096);
        let manner = Manner {
            pattern,
            schema: setup.schema.fingerprint,
            segment_bytes,
            durability: query.durability.unwrap_or_default(),
        };
        let folder = open_folder(setup, pattern)?;
        let watch = Watch::new(&folder)?;
        let writer = LaneWriter::open(Arc::clone(&folder), manner, |lane| match pattern {
            Pattern::Queue => Ok(handed_out(&shared_table::read_unlocked(&folder)?, lane)),
            Pattern::Topic => Ok(named::furthest(&folder, lane)),
        })?;
        let limit_bytes =
            largest_payload_bytes(segment_bytes).min(setup.largest_message_bytes() as usize);
        Ok(Self {
            setup: setup.again(),
            folder,
            writer,
            watch,
            manner,
            limit_bytes,
            appended: 0,
            acknowledged: 0,
            untold_bytes: 0,
            is_full: false,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(crate) fn unacknowledged(&self) -> u64 {
        self.appended - self.acknowledged
    }

    /// What a predecessor left unfinished.
    pub(crate) fn remark(&self) -> Option<&str> {
        self.writer.recovered()
    }

    #[inline]
    pub(crate) fn try_send(
        &mut self,
        payload: &[u8],
        _priority: u32,
        more: bool,
    ) -> Result<(), SendError> {
        if payload.len() > self.limit_bytes {
            return Err(SendError::TooLarge {
                len_bytes: payload.len(),
                limit_bytes: self.limit_bytes,
                limit: self.limit().into(),
            });
        }
        loop {
            match self.writer.append(payload) {
                Ok(()) => break,
                Err(Refusal::Failed(error)) => return Err(error.into()),
                Err(Refusal::SegmentFull) => self.next_segment()?,
            }
        }
        self.appended += 1;
        self.untold_bytes += payload.len() + 1;
        if !more || self.untold_bytes >= RING_BYTES {
            self.untold_bytes = 0;
            self.folder.ring();
        }
        if self.writer.is_durable() {
            self.acknowledged = self.appended;
        }
        Ok(())
    }

    /// What sets the largest message.
    #[cold]
    fn limit(&self) -> &'static str {
        if self.limit_bytes == LARGEST_PAYLOAD_BYTES {
            "what a log takes"
        } else if self.limit_bytes == largest_payload_bytes(self.manner.segment_bytes) {
            "what a segment of this log takes (?segment=)"
        } else {
            "what this address takes (?max-message=)"
        }
    }

    /// Goes on in a new segment, if there may be one.
    #[cold]
    fn next_segment(&mut self) -> Result<(), SendError> {
        // What was written so far is told, also if this takes long.
        self.folder.ring();
        match self.manner.pattern {
            Pattern::Queue => self.room_in_queue()?,
            Pattern::Topic => self.retain()?,
        }
        self.writer.rotate()?;
        self.acknowledged = self.appended;
        Ok(())
    }

    /// A queue holds what was not received, up to its capacity.
    fn room_in_queue(&mut self) -> Result<(), SendError> {
        let capacity = self.setup.address.query.capacity_bytes.map_or(CAPACITY_BYTES, u64::from);
        let most = (capacity / self.manner.segment_bytes).max(2) as usize;
        let is_full = |folder: &Folder| folder.segments().map(|found| found.len() >= most);
        if !is_full(&self.folder)? {
            return Ok(());
        }
        // Ask to be told before looking, so that what is removed meanwhile is not missed.
        self.watch.clear();
        self.folder.raise();
        let table = shared_table::read_unlocked(&self.folder)?;
        prune_settled(&self.folder, &table)?;
        if is_full(&self.folder)? {
            self.watch.ring_after(LONGEST);
            self.is_full = true;
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// A topic keeps what its retention says.
    fn retain(&mut self) -> Result<(), SendError> {
        let query = &self.setup.address.query;
        if query.retain.is_none() && query.retain_bytes.is_none() {
            return Ok(());
        }
        let now = Duration::from_nanos(coarse_time_ns());
        let segments = self.folder.segments()?;
        let mut total: u64 = segments.len() as u64 * self.manner.segment_bytes;
        let mut removed = false;
        // The oldest of all lanes first; the newest of each lane stays.
        let mut closed: Vec<(u64, u32, u64)> = segments
            .windows(2)
            .filter(|pair| pair[0].0 == pair[1].0)
            .filter_map(|pair| {
                let reader = LaneReader::at_message(Arc::clone(&self.folder), pair[0].0, 1);
                // When the next one was made, the last message of this one was there.
                Some((reader.peek(pair[1].1)?.made_ns, pair[0].0, pair[0].1))
            })
            .collect();
        closed.sort_unstable();
        for (ended_ns, lane, number) in closed {
            let age = now.saturating_sub(Duration::from_nanos(ended_ns));
            let too_old = query.retain.is_some_and(|retain| age > retain);
            let too_many = query.retain_bytes.is_some_and(|most| total > most);
            if !(too_old || too_many) {
                break;
            }
            self.folder.remove_segment(lane, number)?;
            total -= self.manner.segment_bytes;
            removed = true;
        }
        if removed {
            self.folder.changed();
        }
        Ok(())
    }

    /// Makes what was accepted as durable as asked, and tells whoever waits.
    pub(crate) fn drive(&mut self) -> Result<bool, SendError> {
        if self.untold_bytes > 0 {
            self.untold_bytes = 0;
            self.folder.ring();
        }
        self.writer.make_durable()?;
        self.acknowledged = self.appended;
        Ok(true)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        if std::mem::take(&mut self.is_full) && !self.setup.options.wait {
            return Err(SendError::Full);
        }
        if self.watch.arm() {
            // The bell has to be asked for before it is slept on.
            return Ok(());
        }
        let cancel = self.setup.options.cancel.as_ref();
        match wait_or_cancel(self.watch.fd(), Interest::Readable, cancel, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SendError::Interrupted),
            Err(error) => Err(self.folder.kernel("cannot wait", error).into()),
        }
    }
}

/// How far a queue was handed out in a lane: no message may have a number below.
fn handed_out(table: &Table, lane: u32) -> u64 {
    let claims = table.claims.iter().filter(|claim| claim.lane == lane && !claim.is_empty());
    let next = table.next.get(lane as usize).copied().unwrap_or(1);
    claims.map(|claim| claim.end).fold(next, u64::max)
}

impl Drop for FileSender {
    fn drop(&mut self) {
        // Everything is in the log; whoever waits for it may not know yet.
        let _ = self.drive();
    }
}
