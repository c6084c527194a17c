//! POSIX queues. A lease says exactly whether anybody else has one open; its messages can only be read by receiving them.
//!
//! Source: `mq_overview(7)`, `fcntl(2)` (leases); docs/design/clean.md.

use rustix::fs::{Mode, Stat};
use switchboard_kernel::lease;
use switchboard_kernel::posix_mq::{self, Access, Attributes, MessageQueue};

use super::memory_file::{is_what_it_was, stat};
use super::{Facts, Object, Options, changed, check_age, check_owner, in_use};
use crate::error::{Error, Reason, Result};
use crate::journal::{Frames, MappedFrames, Message, Run, Size};
use crate::target::Target;

pub(super) struct Queue {
    name: String,
    queue: MessageQueue,
    found: Stat,
    attributes: Attributes,
    is_leased: bool,
    mode_is_closed: bool,
    /// What was taken out of it; while that is going on, with its memory.
    taken: Option<std::fs::File>,
    frames: Option<MappedFrames>,
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
        let (is_leased, mode_is_closed, taken, frames) = (false, false, None, None);
        Ok(Self { name, queue, found, attributes, is_leased, mode_is_closed, taken, frames })
    }

    fn still_alone(&self) -> Result<()> {
        let wanted = lease::is_wanted(&self.queue);
        if wanted.map_err(|error| Error::call("looking whether somebody wants it", error))? {
            return Err(in_use("somebody opens it this moment"));
        }
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
        match lease::take(&self.queue) {
            Ok(()) => self.is_leased = true,
            Err(error) if error.name() == "EAGAIN" => {
                return Err(in_use("somebody has it open, or it is in flight in a socket"));
            }
            Err(error) => return Err(Error::call("a lease on it", error)),
        }
        Ok(())
    }

    fn messages(&self) -> Result<Vec<Message>> {
        let Some(body) = &self.taken else { return Ok(Vec::new()) };
        let rewound = std::io::Seek::rewind(&mut &*body);
        rewound.map_err(|error| Error::io("what was taken of it", &error))?;
        let longest = usize::try_from(self.attributes.message_size_bytes).unwrap_or(usize::MAX);
        Frames::read(body, self.attributes.max_messages, longest)
    }
}

/// Puts messages into a queue, in their order, before what has come into it meanwhile. Of what is in it, so many may be the first of
/// them, which were put back already.
pub(crate) fn give_back(
    queue: &MessageQueue,
    messages: Vec<Message>,
    already: usize,
) -> Result<()> {
    let failed = |error| Error::call("giving its messages back", error);
    let attributes = queue.attributes().map_err(failed)?;
    let mut buffer = vec![0; usize::try_from(attributes.message_size_bytes).unwrap_or(0)];
    let mut there = Vec::new();
    for _ in 0..attributes.waiting_messages {
        match queue.try_recv(&mut buffer) {
            Ok((len, priority)) => there.push((i64::from(priority), buffer[..len].to_vec())),
            Err(error) if error.name() == "EAGAIN" => break,
            Err(error) => return Err(failed(error)),
        }
    }
    let back = there.iter().zip(&messages).take(already).take_while(|(a, b)| a == b).count();
    for (priority, text) in messages.iter().chain(&there[back..]) {
        let priority = u32::try_from(*priority).unwrap_or(0);
        queue.try_send(text, priority).map_err(failed)?;
    }
    Ok(())
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
        let bytes = MappedFrames::bytes(waiting_messages, message_size_bytes);
        let body = run.body(number, bytes)?;
        let copy = body.try_clone().map_err(|error| Error::io("keeping what it holds", &error))?;
        let frames = MappedFrames::new(&body, waiting_messages, message_size_bytes)?;
        self.taken = Some(copy);
        let frames = self.frames.insert(frames);
        for _ in 0..waiting_messages {
            if lease::is_wanted(&self.queue).unwrap_or(true) {
                return Err(in_use("somebody opens it this moment"));
            }
            if !frames.receive(&self.queue)? {
                return Err(changed("the number of its messages"));
            }
        }
        let crc = self.frames.take().map_or(Ok(0), |frames| frames.finish(&body))?;
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
            give_back(&self.queue, self.messages()?, 0)?;
            let note = "somebody opened it at the very last moment: they have it and its messages, without its name";
            return Ok(Some(note.to_owned()));
        }
        Ok(None)
    }

    fn open(&mut self, run: &mut Run, number: u32) -> Result<()> {
        if let (Some(mut frames), Some(body)) = (self.frames.take(), &self.taken) {
            // What is left joins what was taken, so that all can be sent in the old order.
            while frames.receive(&self.queue)? {}
            frames.finish(body)?;
        }
        if self.taken.is_some() {
            run.returning(number)?;
            give_back(&self.queue, self.messages()?, 0)?;
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
