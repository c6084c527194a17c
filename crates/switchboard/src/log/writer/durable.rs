//! When messages count as acknowledged: what `?durability=` asks for.

use switchboard_kernel::mmap;

use super::{Durability, LaneWriter};
use crate::error::Error;

const EIO: i32 = 5;
const PAGE: u64 = 4095;

impl LaneWriter {
    /// Whether everything accepted is as durable as asked.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable == self.offset && self.batch.is_empty()
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
                mmap::start_write_back(&self.file, from, self.offset - from).map_err(Into::into)
            }
            Durability::Synced => self.sync(),
        };
        result.map_err(|error| {
            self.folder.system("fdatasync", "cannot write messages to the disk", error)
        })?;
        self.durable = self.offset;
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
