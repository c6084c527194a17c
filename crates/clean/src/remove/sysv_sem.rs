//! Sets of System V semaphores. Who waits is counted by the kernel; who has taken a count and will give it back is not known to anybody.
//!
//! Source: `semctl(2)`; docs/design/clean.md.

use switchboard_inspect::source::sysv::Table;
use switchboard_kernel::sysv_sem::SemaphoreSet;

use super::{Facts, LEAST_AGE, Object, Options, changed, check_age, check_owner, in_use};
use crate::error::{Error, Result};
use crate::holders::lives;
use crate::journal::{Run, Size};
use crate::sysvipc::{Row, row};

pub(super) struct Set {
    set: SemaphoreSet,
    found: Row,
    values: Vec<u16>,
    is_closed: bool,
}

impl Set {
    pub(super) fn look(id: i32, options: Options) -> Result<Self> {
        let found = row(Table::Semaphores, id)?;
        check_owner(&[found.id("uid"), found.id("cuid")])?;
        check_age(found.newest(), options.min_age.max(LEAST_AGE))?;
        let set = SemaphoreSet::from_id(id);
        let values = set.values().map_err(|error| Error::call("reading its counts", error))?;
        Ok(Self { set, found, values, is_closed: false })
    }

    fn check(&self) -> Result<()> {
        let now = row(Table::Semaphores, self.set.id())?;
        for column in ["key", "cuid", "nsems", "otime"] {
            if now.number(column) != self.found.number(column) {
                return Err(changed(column));
            }
        }
        let failed = |error| Error::call("reading its counts", error);
        if self.set.values().map_err(failed)? != self.values {
            return Err(changed("its counts"));
        }
        let used = now.number("otime").max(now.number("ctime"));
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
                return Err(in_use(format!("{} wait for semaphore {index}", more + zero)));
            }
        }
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        let (owner, group) = (self.found.id("uid"), self.found.id("gid"));
        let set = self.set.set_permissions(owner, group, mode);
        set.map_err(|error| Error::call("closing it", error))
    }
}

/// The owner can read, and nobody can operate.
pub(crate) const CLOSED_MODE: u32 = 0o400;

impl Object for Set {
    fn facts(&self) -> Facts {
        let row = &self.found;
        Facts {
            key: row.key(),
            identity: (u64::from(row.id("cuid")), 0),
            owner: row.id("uid"),
            group: row.id("gid"),
            mode: row.id("perms") & 0o777,
            size: Size::Counts(row.id("nsems")),
            hides: false,
        }
    }

    fn close(&mut self, _: &str) -> Result<()> {
        self.check()?;
        self.is_closed = true;
        self.set_mode(CLOSED_MODE)?;
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
        let removed = self.set.remove();
        removed.map_err(|error| Error::call("removing it", error)).map(|()| None)
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        if !std::mem::take(&mut self.is_closed) {
            return Ok(());
        }
        match self.set_mode(self.found.id("perms") & 0o777) {
            Err(error) if row(Table::Semaphores, self.set.id()).is_ok() => Err(error),
            _ => Ok(()),
        }
    }
}
