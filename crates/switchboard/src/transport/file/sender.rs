//! The sending end of a log: of a queue or of a topic.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_kernel::io::{Deadline, Interest};

use super::capacity::Capacity;
use super::named;
use super::retention::Retention;
use super::shared_table::{self, prune_settled, read_unlocked};
use super::watch::{LONGEST, Watch};
use super::{open_folder, segment_bytes};
use crate::error::{Error, SendError};
use crate::log::folder::Folder;
use crate::log::frame::LARGEST_PAYLOAD_BYTES;
use crate::log::gone::Standing;
use crate::log::segment::Pattern;
use crate::log::table::Table;
use crate::log::writer::{LaneWriter, Manner, Refusal, is_full, largest_payload_bytes};
use crate::transport::{Setup, wait_or_cancel};

/// How often a sender looks whether the log is still there.
const LOOK: Duration = Duration::from_secs(1);

/// How long receivers may take to let go of a segment that was removed, where a disk is full.
const LET_GO_WITHIN: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct FileSender {
    setup: Setup,
    folder: Arc<Folder>,
    standing: Standing,
    looked_at: Instant,
    writer: LaneWriter,
    watch: Watch,
    manner: Manner,
    /// What a topic keeps; `None` where it keeps everything.
    retention: Option<Retention>,
    /// What a queue holds.
    capacity: Capacity,
    limit_bytes: usize,
    appended: u64,
    acknowledged: u64,
    /// Something was appended since others were told.
    is_untold: bool,
    /// The last message found no room.
    is_full: bool,
}

impl FileSender {
    pub(super) fn open(setup: &Setup, pattern: Pattern) -> Result<Self, Error> {
        let query = &setup.address.query;
        let segment_bytes = segment_bytes(&setup.address);
        let manner = Manner {
            pattern,
            schema: setup.schema.fingerprint,
            segment_bytes,
            durability: query.durability.unwrap_or_default(),
        };
        let folder = open_folder(setup, pattern)?;
        let watch = Watch::new(&folder)?;
        if pattern == Pattern::Queue {
            // Before there is a message: a full disk has no room for it, and only receivers make room.
            shared_table::make_if_missing(&folder, manner.durability)?;
        }
        let mut capacity = Capacity::new(&folder, query, segment_bytes);
        let least = |lane| match pattern {
            Pattern::Queue => Ok(handed_out(&read_unlocked(&folder)?, lane)),
            _ => Ok(named::furthest(&folder, lane)),
        };
        let mut has_room = || match pattern {
            Pattern::Queue => Ok(capacity.has_free_room()? || capacity.has_room(None)?),
            _ => Ok(true),
        };
        let mut writer = LaneWriter::open(Arc::clone(&folder), manner, least, &mut has_room)?;
        let mut retention = Retention::of(query);
        if let Some(retention) = &mut retention {
            retention.apply(&folder, &mut writer)?;
        }
        let limit_bytes =
            largest_payload_bytes(segment_bytes).min(setup.largest_message_bytes() as usize);
        Ok(Self {
            setup: setup.again(),
            standing: Standing::of(&folder)?,
            looked_at: Instant::now(),
            folder,
            writer,
            watch,
            manner,
            retention,
            capacity,
            limit_bytes,
            appended: 0,
            acknowledged: 0,
            is_untold: false,
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

    /// A message that goes out with others which wait already, if nothing else has to be looked at; otherwise
    /// [`try_send`](Self::try_send) does it.
    #[inline]
    pub(crate) fn feed_next(&mut self, payload: &[u8]) -> bool {
        let is_fed = payload.len() <= self.limit_bytes
            && self.folder.is_here()
            && self.writer.gather_next(payload);
        self.appended += u64::from(is_fed);
        is_fed
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
        self.folder.here()?;
        self.retain_if_due()?;
        let mut is_begun_anew = false;
        loop {
            match self.writer.append(payload, more) {
                Ok(()) => break,
                Err(Refusal::Failed(error)) => {
                    if is_begun_anew || !self.begin_anew(&error, payload.len()) {
                        return Err(self.refused(error));
                    }
                    is_begun_anew = true;
                }
                Err(Refusal::Unwritten) => {
                    self.write_out()?;
                    self.writer.begin_sync();
                }
                Err(Refusal::SegmentFull) => {
                    if let Err(error) = self.next_segment() {
                        return Err(match error {
                            SendError::Failed(error) => self.refused(error),
                            other => other,
                        });
                    }
                }
            }
        }
        self.appended += 1;
        self.is_untold = true;
        if more {
            return Ok(());
        }
        if !self.writer.gathers() {
            self.acknowledged = self.appended;
            self.is_untold = false;
            self.folder.ring();
        } else {
            // The message is accepted: what goes wrong now, the next call says.
            let _ = self.write_out();
        }
        Ok(())
    }

    /// Where a disk is full of what was received: goes on in a new segment, so that this one can be removed.
    #[cold]
    fn begin_anew(&mut self, error: &Error, payload_bytes: usize) -> bool {
        if self.manner.pattern != Pattern::Queue || !is_full(error) {
            return false;
        }
        let (lane, next) = self.writer.end();
        let is_drained =
            read_unlocked(&self.folder).is_ok_and(|table| table.settled_before(lane) >= next);
        if !is_drained || self.writer.has_frames() && self.writer.rotate().is_err() {
            return false;
        }
        let pruned =
            read_unlocked(&self.folder).and_then(|table| prune_settled(&self.folder, &table));
        if !pruned.unwrap_or(false) {
            return false;
        }
        // Receivers that sleep have it mapped, and are woken to let go of it.
        let until = Instant::now() + LET_GO_WITHIN;
        while !self.writer.has_room_for(payload_bytes) && Instant::now() < until {
            std::thread::sleep(LET_GO_WITHIN / 50);
        }
        true
    }

    /// A message is not accepted. What was before it is in the log, and is told.
    #[cold]
    fn refused(&mut self, error: Error) -> SendError {
        // If that fails, too, the next call says so.
        let _ = self.drive();
        error.into()
    }

    /// Commits what was accepted, and tells whoever waits.
    #[inline(never)]
    fn write_out(&mut self) -> Result<(), Error> {
        self.writer.write_out()?;
        if !self.writer.gathers() {
            // What is committed is as durable as asked.
            self.acknowledged = self.appended;
        }
        if std::mem::take(&mut self.is_untold) {
            self.folder.ring();
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
        self.standing.check()?;
        if let Err(error) = self.make_room() {
            // What failed may be no more than that the log went meanwhile.
            self.standing.check()?;
            return Err(error);
        }
        self.acknowledged = self.appended;
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), SendError> {
        // What was accepted so far is told, also if this takes long.
        self.write_out()?;
        if self.manner.pattern == Pattern::Queue {
            self.room_in_queue()?;
        }
        self.writer.rotate()?;
        if let Some(retention) = &mut self.retention {
            retention.apply(&self.folder, &mut self.writer)?;
        }
        Ok(())
    }

    /// A queue holds what was not received, up to its capacity.
    fn room_in_queue(&mut self) -> Result<(), SendError> {
        if self.capacity.has_free_room()? {
            return Ok(());
        }
        // Ask to be told before looking, so that what is removed or settled meanwhile is not missed.
        self.watch.clear();
        self.folder.raise_for_room();
        if self.capacity.has_room(Some(self.writer.end()))? {
            return Ok(());
        }
        self.watch.ring_after(LONGEST);
        self.is_full = true;
        Err(SendError::Full)
    }

    /// Removes what a topic does not keep any more, if it is time to look.
    fn retain_if_due(&mut self) -> Result<(), Error> {
        match &mut self.retention {
            Some(retention) if retention.is_due() => {
                retention.apply(&self.folder, &mut self.writer)
            }
            _ => Ok(()),
        }
    }

    /// Makes what was accepted as durable as asked, and tells whoever waits.
    pub(crate) fn drive(&mut self) -> Result<bool, SendError> {
        self.folder.here()?;
        // What nobody can find any more is not to count as sent.
        if self.looked_at.elapsed() >= LOOK {
            self.standing.check()?;
            self.looked_at = Instant::now();
        }
        self.write_out()?;
        self.writer.make_durable()?;
        self.acknowledged = self.appended;
        self.retain_if_due()?;
        Ok(true)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        self.folder.here()?;
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
