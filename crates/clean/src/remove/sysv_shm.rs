//! System V memory. The kernel counts who has it attached, exactly.
//!
//! Source: `shmctl(2)`, `shmop(2)`; docs/design/clean.md.

use switchboard_inspect::source::sysv::Table;
use switchboard_kernel::sysv_shm::{Access, Attachment, Segment as Memory};

use super::{Facts, Object, Options, changed, check_age, check_owner, in_use};
use crate::error::{Error, Reason, Result};
use crate::journal::{Run, Size, copy_memory};
use crate::sysvipc::{Row, row};

pub(super) struct Segment {
    memory: Memory,
    found: Row,
    attached: Option<Attachment>,
    is_closed: bool,
}

impl Segment {
    pub(super) fn look(id: i32, options: Options) -> Result<Self> {
        let found = row(Table::Memory, id)?;
        check_owner(&[found.id("uid"), found.id("cuid")])?;
        is_free(&found, 0)?;
        check_age(found.newest(), options.min_age)?;
        Ok(Self { memory: Memory::from_id(id), found, attached: None, is_closed: false })
    }

    /// Still the same, and attached so often.
    fn check(&self, times: i64) -> Result<()> {
        let now = row(Table::Memory, self.memory.id())?;
        for column in ["key", "cuid", "cpid", "size", "dtime"] {
            if now.number(column) != self.found.number(column) {
                return Err(changed(column));
            }
        }
        is_free(&now, times)?;
        let last = now.id("lpid");
        if times > 0 && last != std::process::id() {
            return Err(in_use(format!("process {last} attached it this moment")));
        }
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        let (owner, group) = (self.found.id("uid"), self.found.id("gid"));
        let set = self.memory.set_permissions(owner, group, mode);
        set.map_err(|error| Error::call("closing it", error))
    }
}

fn is_free(row: &Row, times: i64) -> Result<()> {
    if row.number("perms") & 0o1000 != 0 {
        return Err(in_use("it is removed already, and goes when its last user detaches it"));
    }
    match row.number("nattch") {
        now if now == times => Ok(()),
        now => Err(in_use(format!("it is attached {} times", now - times))),
    }
}

impl Object for Segment {
    fn facts(&self) -> Facts {
        let row = &self.found;
        Facts {
            key: row.key(),
            identity: (u64::from(row.id("cuid")), u64::from(row.id("cpid"))),
            owner: row.id("uid"),
            group: row.id("gid"),
            mode: row.id("perms") & 0o777,
            size: Size::Bytes(u64::try_from(row.number("size")).unwrap_or(0)),
            hides: false,
        }
    }

    fn close(&mut self, _: &str) -> Result<()> {
        let attached = self.memory.attach(Access::ReadOnly);
        self.attached = Some(attached.map_err(|error| Error::call("reading it", error))?);
        self.check(1)?;
        self.is_closed = true;
        self.set_mode(0)?;
        self.check(1)
    }

    fn save(&mut self, run: &mut Run, number: u32) -> Result<(Option<std::fs::File>, u32)> {
        let Some(attached) = &self.attached else {
            return Err(Error::new(Reason::Failed, "it is not attached"));
        };
        let len = attached.len() as u64;
        let body = run.body(number, len)?;
        let crc = copy_memory(&body, len, |at, block| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            attached.read_at(at, block).map_err(|error| Error::call("reading it", error))
        })?;
        Ok((Some(body), crc))
    }

    fn remove(&mut self) -> Result<Option<String>> {
        self.check(1)?;
        self.memory.remove().map_err(|error| Error::call("removing it", error))?;
        // Attached here it is still there, and says who else came.
        let others = row(Table::Memory, self.memory.id()).map(|row| row.number("nattch") - 1);
        let note = others.ok().filter(|&others| others > 0);
        Ok(note.map(|others| {
            format!(
                "{others} attached it at the very last moment: they keep it until they detach it"
            )
        }))
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        self.attached = None;
        if !std::mem::take(&mut self.is_closed) {
            return Ok(());
        }
        match self.set_mode(self.found.id("perms") & 0o777) {
            Err(error) if row(Table::Memory, self.memory.id()).is_ok() => Err(error),
            _ => Ok(()),
        }
    }
}
