//! When messages count as acknowledged: what `?durability=` asks for.

use switchboard_kernel::mmap;

use super::{Durability, LaneWriter};
use crate::error::Error;

const EIO: i32 = 5;
const PAGE: u64 = 4095;
/// The disk begins with so many bytes of what will be synced, or more.
const BEGIN_BYTES: u64 = 256 << 10;

impl LaneWriter {
    /// Whether everything accepted is as durable as asked.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable == self.offset && self.batch.is_empty()
    }

    /// Lets the disk begin with what will be synced, while more is gathered, where that is much.
    pub(crate) fn begin_sync(&mut self) {
        let from = self.begun.max(self.durable) & !PAGE;
        // The next frame is written to the rest of the last page.
        let until = self.offset & !PAGE;
        if self.manner.durability == Durability::Synced && until >= from + BEGIN_BYTES {
            let begun = mmap::start_write_back(&self.file, from, until - from);
            self.note_lost(begun);
            self.begun = until;
        }
    }

    /// Waits for what the disk began with.
    pub(super) fn finish_begun(&mut self) {
        if self.begun > self.waited {
            let from = self.waited & !PAGE;
            let finished = mmap::wait_for_write_back(&self.file, from, self.begun - from);
            self.note_lost(finished);
            self.waited = self.begun;
        }
    }

    /// What could not be written may be lost, and `fdatasync` need not know of it then. Where it cannot be asked for ahead,
    /// nothing is.
    fn note_lost(&mut self, result: switchboard_kernel::Result<()>) {
        if let Err(error) = result
            && matches!(error.name(), "EIO" | "ENOSPC" | "EDQUOT")
        {
            self.unsynced.get_or_insert(EIO);
        }
    }

    /// Writes out what waits, and does what the durability asks for.
    pub(crate) fn make_durable(&mut self) -> Result<(), Error> {
        self.write_out()?;
        if self.is_durable() {
            return Ok(());
        }
        let result = match self.manner.durability {
            Durability::Memory => Ok(()),
            Durability::Written => {
                let from = self.durable & !PAGE;
                self.begun = self.offset;
                mmap::start_write_back(&self.file, from, self.offset - from).map_err(Into::into)
            }
            Durability::Synced => self.sync(),
        };
        result.map_err(|error| {
            self.folder.system("fdatasync", "cannot write messages to the disk", error)
        })?;
        self.sync_name()?;
        self.durable = self.offset;
        Ok(())
    }

    /// With the first messages of a segment: its header went to the disk with them, and its name does now. That of the
    /// log is there since the writer was opened.
    fn sync_name(&mut self) -> Result<(), Error> {
        if self.manner.durability == Durability::Synced && !self.is_name_synced {
            // As with messages: what failed once may be lost.
            self.folder.sync_names_in().inspect_err(|_| self.unsynced = Some(EIO))?;
            self.is_name_synced = true;
        }
        Ok(())
    }

    /// Once this failed it fails for ever: the kernel reports an error once, and may have dropped what it
    /// could not write.
    fn sync(&mut self) -> std::io::Result<()> {
        let errno = match self.unsynced {
            Some(errno) => errno,
            None => match self.file.sync_data() {
                Ok(()) => {
                    self.syncs = self.syncs.saturating_add(1);
                    return Ok(());
                }
                Err(error) => error.raw_os_error().unwrap_or(EIO),
            },
        };
        self.unsynced = Some(errno);
        Err(std::io::Error::from_raw_os_error(errno))
    }
}
