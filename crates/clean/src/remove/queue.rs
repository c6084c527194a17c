//! POSIX queues. A lease says exactly whether anybody else has one open; its messages can only be read by receiving them.
//!
//! Source: `mq_overview(7)`, `fcntl(2)` (leases); docs/design/clean.md.

use rustix::fs::{Mode, Stat};
use switchboard_kernel::lease;
use switchboard_kernel::posix_mq::{self, Access, Attributes, MessageQueue};

use super::hidden::{is_what_it_was, stat};
use super::{Facts, Object, Options, changed, check_age, check_owner, in_use};
use crate::error::{Error, Reason, Result};
use crate::journal::{Frames, Line, Message, Run, Size, TakenFrames, Waiting};
use crate::target::Target;

pub(super) struct Queue {
    name: String,
    queue: MessageQueue,
    found: Stat,
    attributes: Attributes,
    is_leased: bool,
    mode_is_closed: bool,
    /// What was taken out of it.
    taken: Option<std::fs::File>,
}

impl Queue {
    pub(super) fn look(target: &Target, options: Options) -> Result<Self> {
        let name = target.place.queue()?;
        let queue = MessageQueue::open(&name, Access::Both);
        let queue = queue.map_err(|error| Error::call("opening it", error))?;
        let found = stat(&queue)?;
        is_what_it_was(&found, target)?;
        check_owner(&[found.st_uid])?;
        check_age(found.st_ctime.max(found.st_mtime), options.min_age)?;
        let attributes = queue.attributes();
        let attributes = attributes.map_err(|error| Error::call("looking at it", error))?;
        let (is_leased, mode_is_closed, taken) = (false, false, None);
        Ok(Self { name, queue, found, attributes, is_leased, mode_is_closed, taken })
    }

    fn still_alone(&self) -> Result<()> {
        super::not_wanted(&self.queue)?;
        if stat(&self.queue)?.st_nlink == 0 {
            return Err(Error::new(Reason::Gone, "somebody else removed it"));
        }
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        let set = rustix::fs::fchmod(&self.queue, Mode::from_raw_mode(mode));
        set.map_err(|errno| Error::errno("closing it", "fchmod", errno))
    }

    fn take_lease(&mut self) -> Result<()> {
        super::lease(&self.queue, "open")?;
        self.is_leased = true;
        Ok(())
    }
}

/// How many messages a queue takes, and how long they may be.
pub(crate) fn geometry(queue: &MessageQueue) -> Result<(u32, u32)> {
    let attributes = queue.attributes().map_err(|error| Error::call("looking at it", error))?;
    Ok((attributes.max_messages, attributes.message_size_bytes))
}

/// Takes what is left in a queue to what was taken out of it before, so that all can be sent in the old order. Nothing is only in this process at any time.
pub(crate) fn join(queue: &MessageQueue, body: &std::fs::File) -> Result<(u64, u32)> {
    let now = Waiting::of(queue)?;
    let (mut frames, messages) = TakenFrames::resume(body, geometry(queue)?, Some(now))?;
    while !messages.is_empty() && frames.receive(queue)? {}
    let crc = frames.finish(body)?;
    let bytes = body.metadata().map_err(|error| Error::io("what was taken of it", &error))?.len();
    Ok((bytes, crc))
}

/// Sends the messages of a body, from one on, after each was noted: who is killed meanwhile is followed by one who knows where to go on.
pub(crate) fn send_from(
    queue: &MessageQueue,
    body: &std::fs::File,
    first: u32,
    mut note: impl FnMut(u32, Waiting) -> Result<()>,
) -> Result<()> {
    for (index, (priority, text)) in (0..).zip(messages_of(queue, body)?) {
        if index < first {
            continue;
        }
        note(index, Waiting::of(queue)?)?;
        let priority = u32::try_from(priority).unwrap_or(0);
        let sent = queue.try_send(&text, priority);
        sent.map_err(|error| Error::call("giving its messages back", error))?;
    }
    Ok(())
}

/// The messages of a body, as many as its queue takes.
pub(crate) fn messages_of(queue: &MessageQueue, body: &std::fs::File) -> Result<Vec<Message>> {
    let (most, longest) = geometry(queue)?;
    Frames::read(body, most, usize::try_from(longest).unwrap_or(usize::MAX))
}

impl Object for Queue {
    fn facts(&self) -> Facts {
        let attributes = &self.attributes;
        Facts {
            key: 0,
            identity: (self.found.st_dev, self.found.st_ino),
            owner: self.found.st_uid,
            group: self.found.st_gid,
            mode: self.found.st_mode & 0o777,
            size: Size::Messages(
                attributes.max_messages,
                attributes.message_size_bytes,
                attributes.waiting_messages,
            ),
            hides: false,
        }
    }

    fn close(&mut self, _: &str) -> Result<()> {
        self.take_lease()?;
        let now = self.queue.attributes();
        let now = now.map_err(|error| Error::call("looking at it", error))?;
        if now.waiting_messages != self.attributes.waiting_messages {
            return Err(changed("the number of its messages"));
        }
        self.still_alone()
    }

    fn save(&mut self, run: &mut Run, number: u32) -> Result<(Option<std::fs::File>, u32)> {
        let Attributes { message_size_bytes, waiting_messages, .. } = self.attributes;
        let bytes = TakenFrames::bytes(waiting_messages, message_size_bytes);
        let body = run.body(number, bytes)?;
        let copy = body.try_clone().map_err(|error| Error::io("keeping what it holds", &error))?;
        let mut frames = TakenFrames::new(&body, waiting_messages, message_size_bytes)?;
        self.taken = Some(copy);
        for _ in 0..waiting_messages {
            if lease::is_wanted(&self.queue).unwrap_or(true) {
                return Err(in_use("somebody opens it this moment"));
            }
            if !frames.receive(&self.queue)? {
                return Err(changed("the number of its messages"));
            }
        }
        let crc = frames.finish(&body)?;
        Ok((Some(body), crc))
    }

    fn remove(&mut self) -> Result<Option<String>> {
        self.still_alone()?;
        self.mode_is_closed = true;
        self.set_mode(0)?;
        self.still_alone()?;
        // With the lease held, an opener would wait for it, and the removal for the opener.
        let _ = lease::give_back(&self.queue);
        self.is_leased = false;
        posix_mq::unlink(&self.name).map_err(|error| Error::call("removing it", error))?;
        if self.take_lease().is_err() {
            if let Some(body) = &self.taken {
                send_from(&self.queue, body, 0, |_, _| Ok(()))?;
            }
            let note = "somebody opened it at the very last moment: they have it and its messages, without its name";
            return Ok(Some(note.to_owned()));
        }
        Ok(None)
    }

    fn open(&mut self, run: &mut Run, number: u32) -> Result<()> {
        if let Some(body) = &self.taken {
            let (bytes, crc) = join(&self.queue, body)?;
            run.write(&Line::Saved { number, bytes, crc })?;
            run.write(&Line::Returning { number })?;
            send_from(&self.queue, body, 0, |index, Waiting { messages, bytes }| {
                run.write(&Line::Sending { number, index, messages, bytes })
            })?;
        }
        self.taken = None;
        if std::mem::take(&mut self.mode_is_closed) {
            self.set_mode(self.found.st_mode & 0o777)?;
        }
        if std::mem::take(&mut self.is_leased) {
            let _ = lease::give_back(&self.queue);
        }
        Ok(())
    }
}
