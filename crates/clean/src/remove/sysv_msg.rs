//! System V queues. The kernel does not say who waits for one: that is looked for in /proc.
//!
//! Source: `msgctl(2)`, `msgop(2)` (`MSG_COPY`); docs/design/clean.md.

use switchboard_inspect::source::sysv::Table;
use switchboard_kernel::sysv_msg::{Buffer, MessageQueue};

use super::system_v::{LEAST_AGE, Listed, removed};
use super::{Facts, Object, Options};
use crate::error::{Error, Result};
use crate::holders;
use crate::journal::{Frames, Message, Run, Size};

pub(super) struct Queue {
    queue: MessageQueue,
    listed: Listed,
    max_bytes: u64,
    partial: bool,
    messages: Vec<Message>,
}

impl Queue {
    pub(super) fn look(id: i32, options: Options) -> Result<Self> {
        let listed = Listed::look(Table::Messages, id)?;
        listed.is_old(options.min_age.max(LEAST_AGE))?;
        let queue = MessageQueue::from_id(id);
        let status = queue.status().map_err(|error| Error::call("reading it", error))?;
        let (partial, messages) = (options.partial, Vec::new());
        let queue = Self { queue, listed, max_bytes: status.max_bytes, partial, messages };
        queue.nobody_waits()?;
        Ok(queue)
    }

    fn check(&self) -> Result<()> {
        let columns = ["key", "cuid", "cbytes", "qnum", "lspid", "lrpid", "stime", "rtime"];
        self.listed.unchanged(&columns).map(drop)
    }

    fn nobody_waits(&self) -> Result<()> {
        holders::of_queue(self.listed.id).nobody("whether somebody waits for it", self.partial)
    }

    /// Copies of all messages, before the mode keeps an ordinary user from reading.
    fn copy(&mut self) -> Result<()> {
        let count = u32::try_from(self.listed.found.number("qnum")).unwrap_or(u32::MAX);
        let bytes = usize::try_from(self.listed.found.number("cbytes")).unwrap_or(0);
        let mut buffer = Buffer::with_capacity(bytes);
        for index in 0..count {
            let kind = self.queue.peek(index, &mut buffer);
            let kind = kind.map_err(|error| Error::call("reading its messages", error))?;
            self.messages.push((kind, buffer.text().to_vec()));
        }
        Ok(())
    }
}

impl Object for Queue {
    fn facts(&self) -> Facts {
        let messages = u64::try_from(self.listed.found.number("qnum")).unwrap_or(0);
        self.listed.facts(0, Size::Texts(self.max_bytes, messages))
    }

    fn close(&mut self, _: &str) -> Result<()> {
        self.copy()?;
        let (queue, most) = (&self.queue, self.max_bytes);
        self.listed.close(0, &|uid, gid, mode| queue.set_permissions(uid, gid, mode, most))?;
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
        removed(self.queue.remove())
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        let (queue, most) = (&self.queue, self.max_bytes);
        self.listed.open(&|uid, gid, mode| queue.set_permissions(uid, gid, mode, most))
    }
}
