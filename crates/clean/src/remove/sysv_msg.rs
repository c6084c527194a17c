//! System V queues. The kernel does not say who waits for one: that is looked for in /proc.
//!
//! Source: `msgctl(2)`, `msgop(2)` (`MSG_COPY`); docs/design/clean.md.

use switchboard_inspect::source::sysv::Table;
use switchboard_kernel::sysv_msg::{Buffer, MessageQueue};

use super::{Facts, LEAST_AGE, Object, Options, changed, check_age, check_owner, in_use};
use crate::error::{Error, Reason, Result};
use crate::holders;
use crate::journal::{Frames, Message, Run, Size};
use crate::sysvipc::{Row, row};

pub(super) struct Queue {
    queue: MessageQueue,
    found: Row,
    max_bytes: u64,
    partial: bool,
    messages: Vec<Message>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn look(id: i32, options: Options) -> Result<Self> {
        let found = row(Table::Messages, id)?;
        check_owner(&[found.id("uid"), found.id("cuid")])?;
        check_age(found.newest(), options.min_age.max(LEAST_AGE))?;
        let queue = MessageQueue::from_id(id);
        let status = queue.status().map_err(|error| Error::call("reading it", error))?;
        let (partial, messages) = (options.partial, Vec::new());
        let max_bytes = status.max_bytes;
        let queue = Self { queue, found, max_bytes, partial, messages, is_closed: false };
        queue.nobody_waits()?;
        Ok(queue)
    }

    fn check(&self) -> Result<()> {
        let now = row(Table::Messages, self.queue.id())?;
        for column in ["key", "cuid", "cbytes", "qnum", "lspid", "lrpid", "stime", "rtime"] {
            if now.number(column) != self.found.number(column) {
                return Err(changed(column));
            }
        }
        Ok(())
    }

    fn nobody_waits(&self) -> Result<()> {
        let seen = holders::of_queue(self.queue.id());
        match seen.by {
            Some(by) => Err(in_use(by)),
            None if seen.unreadable > 0 && !self.partial => Err(Error::new(
                Reason::Unseen,
                format!(
                    "whether somebody waits for it: {} processes cannot be read",
                    seen.unreadable
                ),
            )),
            None => Ok(()),
        }
    }

    /// Copies of all messages, before the mode keeps an ordinary user from reading.
    fn copy(&mut self) -> Result<()> {
        let count = u32::try_from(self.found.number("qnum")).unwrap_or(u32::MAX);
        let bytes = usize::try_from(self.found.number("cbytes")).unwrap_or(0);
        let mut buffer = Buffer::with_capacity(bytes);
        for index in 0..count {
            let kind = self.queue.peek(index, &mut buffer);
            let kind = kind.map_err(|error| Error::call("reading its messages", error))?;
            self.messages.push((kind, buffer.text().to_vec()));
        }
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        let (owner, group) = (self.found.id("uid"), self.found.id("gid"));
        let set = self.queue.set_permissions(owner, group, mode, self.max_bytes);
        set.map_err(|error| Error::call("closing it", error))
    }
}

impl Object for Queue {
    fn facts(&self) -> Facts {
        let row = &self.found;
        Facts {
            key: row.key(),
            identity: (u64::from(row.id("cuid")), 0),
            owner: row.id("uid"),
            group: row.id("gid"),
            mode: row.id("perms") & 0o777,
            size: Size::Texts(self.max_bytes, u64::try_from(row.number("qnum")).unwrap_or(0)),
            hides: false,
        }
    }

    fn close(&mut self, _: &str) -> Result<()> {
        self.copy()?;
        self.is_closed = true;
        self.set_mode(0)?;
        self.check()?;
        self.nobody_waits()
    }

    fn save(&mut self, run: &mut Run, number: u32) -> Result<(Option<std::fs::File>, u32)> {
        let bytes = self.messages.iter().map(|(_, text)| text.len() as u64 + 24).sum();
        let body = run.body(number, bytes)?;
        let crc = Frames::write(&body, &self.messages)?;
        Ok((Some(body), crc))
    }

    fn remove(&mut self) -> Result<Option<String>> {
        self.check()?;
        let removed = self.queue.remove();
        removed.map_err(|error| Error::call("removing it", error)).map(|()| None)
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        if !std::mem::take(&mut self.is_closed) {
            return Ok(());
        }
        match self.set_mode(self.found.id("perms") & 0o777) {
            Err(error) if row(Table::Messages, self.queue.id()).is_ok() => Err(error),
            _ => Ok(()),
        }
    }
}
