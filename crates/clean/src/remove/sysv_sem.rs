//! Sets of System V semaphores. Who waits is counted by the kernel; who has taken a count and will give it back is not known to anybody.
//!
//! Source: `semctl(2)`; docs/design/clean.md.

use switchboard_inspect::source::sysv::Table;
use switchboard_inspect::text::counted;
use switchboard_kernel::sysv_sem::SemaphoreSet;

use super::system_v::{LEAST_AGE, Listed, removed};
use super::{Facts, Object, Options, changed, in_use};
use crate::error::{Error, Result};
use crate::holders::lives;
use crate::journal::{Run, Size};

pub(super) struct Set {
    set: SemaphoreSet,
    listed: Listed,
    values: Vec<u16>,
}

impl Set {
    pub(super) fn look(id: i32, options: Options) -> Result<Self> {
        let listed = Listed::look(Table::Semaphores, id)?;
        listed.is_old(options.min_age.max(LEAST_AGE))?;
        let set = SemaphoreSet::from_id(id);
        let values = set.values().map_err(|error| Error::call("reading its counts", error))?;
        Ok(Self { set, listed, values })
    }

    fn check(&self) -> Result<()> {
        self.listed.unchanged(&["key", "cuid", "nsems", "otime"])?;
        let failed = |error| Error::call("reading its counts", error);
        if self.set.values().map_err(failed)? != self.values {
            return Err(changed("its counts"));
        }
        let found = &self.listed.found;
        let used = found.number("otime").max(found.number("ctime"));
        for index in 0..self.values.len() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let last = self.set.last_process(index).map_err(failed)?;
            if let Some(last) = last.filter(|&pid| pid != std::process::id() && lives(pid, used)) {
                return Err(in_use(format!(
                    "process {last}, which used semaphore {index} last, lives"
                )));
            }
            let (more, zero) = self.set.waiting(index).map_err(failed)?;
            if more + zero > 0 {
                let some =
                    counted(u64::from(more) + u64::from(zero), "process waits", "processes wait");
                return Err(in_use(format!("{some} for semaphore {index}")));
            }
        }
        Ok(())
    }
}

/// The owner can read, and nobody can operate.
pub(crate) const CLOSED_MODE: u32 = 0o400;

impl Object for Set {
    fn facts(&self) -> Facts {
        self.listed.facts(0, Size::Counts(self.listed.found.id("nsems")))
    }

    fn close(&mut self, _: &str) -> Result<()> {
        self.check()?;
        self.listed
            .close(CLOSED_MODE, &|uid, gid, mode| self.set.set_permissions(uid, gid, mode))?;
        self.check()
    }

    fn save(&mut self, run: &mut Run, number: u32) -> Result<(Option<std::fs::File>, u32)> {
        use std::os::unix::fs::FileExt;
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let body = run.body(number, bytes.len() as u64)?;
        let written = body.write_all_at(&bytes, 0);
        written.map_err(|error| Error::io("keeping its counts", &error))?;
        Ok((Some(body), crc32c::crc32c(&bytes)))
    }

    fn remove(&mut self) -> Result<Option<String>> {
        self.check()?;
        removed(self.set.remove())
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        self.listed.open(&|uid, gid, mode| self.set.set_permissions(uid, gid, mode))
    }
}
