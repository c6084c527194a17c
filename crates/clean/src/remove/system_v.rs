//! What System V objects have in common: a row of a table that everybody may read, and a mode that keeps others out.
//!
//! Source: `shmctl(2)`, `semctl(2)`, `msgctl(2)` (`IPC_SET`); docs/design/clean.md.

use std::time::Duration;

use switchboard_inspect::source::sysv::Table;
use switchboard_kernel::Result as Called;

use super::{Facts, changed, check_age, check_owner};
use crate::error::{Error, Result};
use crate::journal::Size;
use crate::sysvipc::{Row, row};

/// The times of System V objects are whole seconds: only what is older than that shows by its time that it was used meanwhile.
pub(super) const LEAST_AGE: Duration = Duration::from_secs(2);

/// What gives an object of an id an owner, a group and a mode.
pub(super) type SetPermissions<'a> = &'a dyn Fn(u32, u32, u32) -> Called<()>;

/// An object as its row was when it was looked at.
#[derive(Debug)]
pub(super) struct Listed {
    table: Table,
    pub(super) id: i32,
    pub(super) found: Row,
    is_closed: bool,
}

impl Listed {
    /// One that is there, and this user's.
    pub(super) fn look(table: Table, id: i32) -> Result<Self> {
        let found = row(table, id)?;
        check_owner(&[found.id("uid"), found.id("cuid")])?;
        Ok(Self { table, id, found, is_closed: false })
    }

    /// Refuses what was made or used within this time.
    pub(super) fn is_old(&self, least: Duration) -> Result<()> {
        check_age(self.found.newest(), least)
    }

    /// Its row now, which is as it was in these columns.
    pub(super) fn unchanged(&self, columns: &[&str]) -> Result<Row> {
        let now = row(self.table, self.id)?;
        match columns.iter().find(|column| now.number(column) != self.found.number(column)) {
            Some(column) => Err(changed(column)),
            None => Ok(now),
        }
    }

    /// What the journal says of it; `maker`: the process that made it, where the kernel keeps that.
    pub(super) fn facts(&self, maker: u32, size: Size) -> Facts {
        let row = &self.found;
        Facts {
            key: row.key(),
            identity: (u64::from(row.id("cuid")), u64::from(maker)),
            owner: row.id("uid"),
            group: row.id("gid"),
            mode: self.mode(),
            size,
            hides: false,
        }
    }

    fn mode(&self) -> u32 {
        self.found.id("perms") & 0o777
    }

    /// With this mode, until [`Listed::open`].
    pub(super) fn close(&mut self, mode: u32, set: SetPermissions<'_>) -> Result<()> {
        self.is_closed = true;
        self.set_mode(mode, set)
    }

    /// As it was, if it is there still.
    pub(super) fn open(&mut self, set: SetPermissions<'_>) -> Result<()> {
        if !std::mem::take(&mut self.is_closed) {
            return Ok(());
        }
        match self.set_mode(self.mode(), set) {
            Err(error) if row(self.table, self.id).is_ok() => Err(error),
            _ => Ok(()),
        }
    }

    fn set_mode(&self, mode: u32, set: SetPermissions<'_>) -> Result<()> {
        let (owner, group) = (self.found.id("uid"), self.found.id("gid"));
        set(owner, group, mode).map_err(|error| Error::call("setting its mode", error))
    }
}

/// What came of the one call that cannot be undone.
pub(super) fn removed(called: Called<()>) -> Result<Option<String>> {
    called.map_err(|error| Error::call("removing it", error)).map(|()| None)
}
