//! System V memory. The kernel counts who has it attached, exactly.
//!
//! Source: `shmctl(2)`, `shmop(2)`; docs/design/clean.md.

use switchboard_inspect::source::sysv::Table;
use switchboard_kernel::sysv_shm::{Access, Attachment, Segment as Memory};

use super::system_v::{Listed, removed};
use super::{Facts, Object, Options, in_use};
use crate::error::{Error, Reason, Result};
use crate::journal::{Run, Size, copy_memory};
use crate::sysvipc::{Row, row};

pub(super) struct Segment {
    memory: Memory,
    listed: Listed,
    attached: Option<Attachment>,
}

impl Segment {
    pub(super) fn look(id: i32, options: Options) -> Result<Self> {
        let listed = Listed::look(Table::Memory, id)?;
        is_free(&listed.found, 0)?;
        listed.is_old(options.min_age)?;
        Ok(Self { memory: Memory::from_id(id), listed, attached: None })
    }

    /// Still the same, and attached so often.
    fn check(&self, times: i64) -> Result<()> {
        let now = self.listed.unchanged(&["key", "cuid", "cpid", "size", "dtime"])?;
        is_free(&now, times)?;
        let last = now.id("lpid");
        if times > 0 && last != std::process::id() {
            return Err(in_use(format!("process {last} attached it this moment")));
        }
        Ok(())
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
        let row = &self.listed.found;
        let bytes = u64::try_from(row.number("size")).unwrap_or(0);
        self.listed.facts(row.id("cpid"), Size::Bytes(bytes))
    }

    fn close(&mut self, _: &str) -> Result<()> {
        let attached = self.memory.attach(Access::ReadOnly);
        self.attached = Some(attached.map_err(|error| Error::call("reading it", error))?);
        self.check(1)?;
        self.listed.close(0, &|uid, gid, mode| self.memory.set_permissions(uid, gid, mode))?;
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
        removed(self.memory.remove())?;
        // Attached here it is still there, and says who else came.
        let others = row(Table::Memory, self.listed.id).map(|row| row.number("nattch") - 1);
        let note = others.ok().filter(|&others| others > 0);
        Ok(note.map(|others| {
            format!(
                "{others} attached it at the very last moment: they keep it until they detach it"
            )
        }))
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        self.attached = None;
        self.listed.open(&|uid, gid, mode| self.memory.set_permissions(uid, gid, mode))
    }
}
