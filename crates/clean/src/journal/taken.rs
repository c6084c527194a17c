//! Messages of a POSIX queue on their way into a body: the kernel itself receives them there, so that who is killed meanwhile has lost none.
//!
//! Source: docs/design/clean.md, "Killed in the middle"; `mq_receive(3)`, `mq_overview(7)` (what reading a queue's descriptor says).
//!
//! A frame (see [`super::body`]) that is being received has a length of all ones. Until the kernel wrote one, its priority is none that there is;
//! behind it stand how many bytes and messages the queue had before, which tell how long the message is, should the process be
//! killed before it writes that down. Its place is filled with bytes that tell it nearly as well, if the queue was used by others since.

use std::fs::File;
use std::os::fd::AsFd;

use switchboard_kernel::mmap::{Mapping, Mode, reserve};
use switchboard_kernel::posix_mq::MessageQueue;

use super::body::{HEADER_BYTES, Message, damaged, sizes};
use crate::error::{Error, Reason, Result};

const BEING_RECEIVED: u32 = u32::MAX;

/// A priority that none has: the kernel has not written one yet.
const NO_PRIORITY: u32 = u32::MAX;

/// What a place is filled with before a message is received there: a message is unlikely to end alike. As a length, four of these are
/// longer than any message, and less than [`BEING_RECEIVED`].
fn filling(at: usize) -> u8 {
    let mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 33) as u8 & 0x7e) | 1
}

/// A body that messages are received into.
#[derive(Debug)]
pub(crate) struct TakenFrames {
    memory: Mapping,
    capacity: usize,
    room_bytes: usize,
    at: usize,
    filling: Vec<u8>,
}

/// What a queue has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
}

impl Waiting {
    pub(crate) fn of(queue: &MessageQueue) -> Result<Self> {
        let attributes = queue.attributes().map_err(|error| Error::call("looking at it", error))?;
        let mut text = [0; 128];
        let read = rustix::io::pread(queue, &mut text[..], 0);
        let len = read.map_err(|errno| Error::errno("looking at it", "pread", errno))?;
        // `QSIZE:12 NOTIFY:0 …`: the bytes of all messages.
        let text = std::str::from_utf8(&text[..len]).unwrap_or_default();
        let number = text.strip_prefix("QSIZE:").and_then(|rest| rest.split_whitespace().next());
        let bytes = number.and_then(|number| number.parse().ok());
        let bytes = bytes.ok_or_else(|| {
            Error::new(Reason::Failed, format!("the kernel says no size of the queue: {text:?}"))
        })?;
        Ok(Self { messages: attributes.waiting_messages, bytes })
    }
}

impl TakenFrames {
    /// How large a body for so many messages is.
    pub(crate) fn bytes(messages: u32, longest: u32) -> u64 {
        let each = HEADER_BYTES as u64 + u64::from(longest).next_multiple_of(8);
        // One more frame of zeroes ends it.
        (u64::from(messages) + 1).saturating_mul(each)
    }

    /// Room for so many, in a body that is empty.
    pub(crate) fn new(body: &File, messages: u32, longest: u32) -> Result<Self> {
        let failed = |error| Error::call("keeping what it holds", error);
        let bytes = Self::bytes(messages, longest);
        reserve(body, bytes).map_err(failed)?;
        Self::mapped(body, bytes, longest)
    }

    fn mapped(body: &File, bytes: u64, longest: u32) -> Result<Self> {
        let failed = |error| Error::call("keeping what it holds", error);
        let capacity = usize::try_from(bytes).unwrap_or(usize::MAX);
        let memory =
            Mapping::of_file(body.as_fd(), Mode::ReadWrite, 0, capacity).map_err(failed)?;
        let room_bytes = usize::try_from(longest).unwrap_or(usize::MAX).min(capacity);
        let filling = (0..room_bytes).map(filling).collect();
        Ok(Self { memory, capacity, room_bytes, at: 0, filling })
    }

    /// Goes on behind the messages that are in a body, which it gives back; one that was being received when the process was killed is
    /// one of them from now on. `now` is what the queue has in it, if it is there.
    pub(crate) fn resume(
        body: &File,
        (messages, longest): (u32, u32),
        now: Option<Waiting>,
    ) -> Result<(Self, Vec<Message>)> {
        let found = body.metadata().map_err(|error| Error::io("what it held", &error))?.len();
        let mut bytes = found;
        if now.is_some() && found < Self::bytes(messages, longest) {
            bytes = Self::bytes(messages, longest);
            reserve(body, bytes).map_err(|error| Error::call("keeping what it holds", error))?;
        }
        if bytes == 0 {
            return Err(damaged("it is empty"));
        }
        let mut frames = Self::mapped(body, bytes, longest)?;
        let mut messages = Vec::new();
        while let Some(message) = frames.next(now)? {
            messages.push(message);
        }
        Ok((frames, messages))
    }

    /// The next message that is there already.
    fn next(&mut self, now: Option<Waiting>) -> Result<Option<Message>> {
        let text = self.at + HEADER_BYTES;
        if text > self.capacity {
            return Ok(None);
        }
        let header = self.read(self.at, HEADER_BYTES)?;
        let number =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap_or_default());
        let (priority, len) = (number(0), number(8));
        let room = self.room_bytes.min(self.capacity - text);
        if len == BEING_RECEIVED {
            if priority == NO_PRIORITY {
                return Ok(None);
            }
            let all = self.read(text, room)?;
            let before = (number(12), number(4));
            let len =
                now.and_then(|now| exactly(before, now, room)).unwrap_or_else(|| guessed(&all));
            self.commit(len, &all[..len])?;
            return Ok(Some((i64::from(priority), all[..len].to_vec())));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if header[8..] == [0; 8] || len > room {
            // The end; or what the place of the message before was filled with.
            return Ok(None);
        }
        if number(4) != 0 {
            self.write(self.at + 4, &[0; 4])?;
        }
        let bytes = self.read(text, len)?;
        if header[8..] != sizes(&bytes) {
            return Err(damaged("the checksum of a message is wrong"));
        }
        self.at = text + len.next_multiple_of(8);
        Ok(Some((i64::from(priority), bytes)))
    }

    fn read(&self, at: usize, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        if len > 0 {
            let read = self.memory.read_at(at, &mut bytes);
            read.map_err(|error| Error::call("what it held", error))?;
        }
        Ok(bytes)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.memory.write_at(at, bytes).map_err(|error| Error::call("keeping a message", error))
    }

    /// Receives one; `false`: there is none, or no room for it.
    pub(crate) fn receive(&mut self, queue: &MessageQueue) -> Result<bool> {
        let Some(len) = self.take(queue)? else { return Ok(false) };
        let bytes = self.read(self.at + HEADER_BYTES, len)?;
        self.commit(len, &bytes)?;
        Ok(true)
    }

    /// The kernel puts one into its place, and nobody wrote down yet how long it is.
    pub(crate) fn take(&mut self, queue: &MessageQueue) -> Result<Option<usize>> {
        let text = self.at + HEADER_BYTES;
        if text + self.room_bytes.next_multiple_of(8) > self.capacity {
            return Ok(None);
        }
        let before = Waiting::of(queue)?;
        self.write(text, &self.filling)?;
        let halves = |low: u32, high: u32| ((u64::from(high) << 32) | u64::from(low)).to_le_bytes();
        // What it is comes last, in one store.
        self.write(self.at, &halves(NO_PRIORITY, low(before.bytes)))?;
        self.write(self.at + 8, &halves(BEING_RECEIVED, before.messages))?;
        let received = queue.try_recv_into(&self.memory, text, self.room_bytes, self.at);
        received.map(Some).or_else(|error| {
            self.write(self.at + 8, &[0; 8])?;
            self.write(self.at, &[0; 8])?;
            self.write(text, &vec![0; self.room_bytes])?;
            let empty = error.name() == "EAGAIN";
            if empty { Ok(None) } else { Err(Error::call("keeping a message", error)) }
        })
    }

    /// The message that was received is whole: its length and sum are one store.
    fn commit(&mut self, len: usize, bytes: &[u8]) -> Result<()> {
        let text = self.at + HEADER_BYTES;
        self.write(self.at + 8, &sizes(bytes))?;
        self.write(self.at + 4, &[0; 4])?;
        let padded = len.next_multiple_of(8);
        let end = (text + padded).min(self.capacity);
        self.write(text + len, &vec![0; end - text - len])?;
        self.at = text + padded;
        Ok(())
    }

    /// Cuts the body to what it holds; gives the CRC-32C of that.
    pub(crate) fn finish(self, body: &File) -> Result<u32> {
        let all = self.read(0, self.at.min(self.capacity))?;
        drop(self.memory);
        let cut = body.set_len(all.len() as u64);
        cut.map_err(|error| Error::io("keeping what it holds", &error))?;
        Ok(crc32c::crc32c(&all))
    }
}

/// The low half of a number of bytes: two of them differ by the length of a message.
fn low(bytes: u64) -> u32 {
    (bytes & u64::from(u32::MAX)) as u32
}

/// How long the message is that made the difference; none: others used the queue since.
fn exactly(before: (u32, u32), now: Waiting, room: usize) -> Option<usize> {
    let (messages, bytes) = before;
    let len = usize::try_from(bytes.wrapping_sub(low(now.bytes))).ok()?;
    (messages.checked_sub(1) == Some(now.messages) && len <= room).then_some(len)
}

/// A message ends where the filling begins.
fn guessed(text: &[u8]) -> usize {
    (0..text.len()).rev().find(|&at| text[at] != filling(at)).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// A frame of so much room, as it is while a message is received.
    fn being_received(room: usize, before: Waiting) -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES + room];
        for (at, byte) in frame[HEADER_BYTES..].iter_mut().enumerate() {
            *byte = filling(at);
        }
        frame[..4].copy_from_slice(&NO_PRIORITY.to_le_bytes());
        frame[4..8].copy_from_slice(&low(before.bytes).to_le_bytes());
        frame[8..12].copy_from_slice(&BEING_RECEIVED.to_le_bytes());
        frame[12..16].copy_from_slice(&before.messages.to_le_bytes());
        frame
    }

    #[test]
    fn a_message_that_was_being_received() {
        let body = tempfile::tempfile().expect("a file");
        let before = Waiting { messages: 3, bytes: 0x1_0000_0002 };
        let frame = being_received(64, before);
        let found = |frame: &[u8], now: Waiting| {
            body.set_len(0).expect("cut");
            body.write_all_at(frame, 0).expect("written");
            let (taken, messages) = TakenFrames::resume(&body, (4, 64), Some(now)).expect("read");
            taken.finish(&body).expect("finished");
            let strictly = super::super::body::Frames::read(&body, 9, 64).expect("whole");
            assert_eq!(strictly, messages);
            messages
        };
        assert_eq!(found(&frame, before), []);
        let mut frame = frame;
        frame[..4].copy_from_slice(&9_u32.to_le_bytes());
        // Its last byte is what the place was filled with: only the difference tells.
        frame[HEADER_BYTES..HEADER_BYTES + 5].copy_from_slice(b"hell\0");
        frame[HEADER_BYTES + 4] = filling(4);
        let text = frame[HEADER_BYTES..HEADER_BYTES + 5].to_vec();
        let now = Waiting { messages: 2, bytes: 0xffff_fffd };
        assert_eq!(found(&frame, now), [(9, text.clone())]);
        // Somebody has put something in meanwhile: nearly.
        let now = Waiting { messages: 3, bytes: 0x1_0000_0000 };
        assert_eq!(found(&frame, now), [(9, text[..4].to_vec())]);
        frame[..4].copy_from_slice(&0_u32.to_le_bytes());
        let empty = being_received(64, before);
        frame[HEADER_BYTES..].copy_from_slice(&empty[HEADER_BYTES..]);
        let now = Waiting { messages: 2, bytes: before.bytes };
        assert_eq!(found(&frame, now), [(0, Vec::new())]);
    }

    #[test]
    fn behind_a_message_lies_what_its_place_was_filled_with() {
        let body = tempfile::tempfile().expect("a file");
        let mut frame = being_received(64, Waiting { messages: 1, bytes: 3 });
        frame[..4].copy_from_slice(&7_u32.to_le_bytes());
        frame[4..8].copy_from_slice(&[0; 4]);
        frame[8..16].copy_from_slice(&sizes(b"abc"));
        frame[16..19].copy_from_slice(b"abc");
        body.write_all_at(&frame, 0).expect("written");
        let now = Waiting { messages: 0, bytes: 0 };
        let (_, messages) = TakenFrames::resume(&body, (4, 64), Some(now)).expect("read");
        assert_eq!(messages, [(7, b"abc".to_vec())]);
        body.write_all_at(b"x", 17).expect("written");
        let error = TakenFrames::resume(&body, (4, 64), Some(now)).expect_err("changed");
        assert_eq!(error.reason(), Reason::Damaged);
    }

    #[test]
    fn no_filling_is_a_length() {
        let filled: Vec<u8> = (0..100_000).map(filling).collect();
        for four in filled.windows(4) {
            let len = u32::from_le_bytes(four.try_into().expect("four"));
            assert!(len > 16 << 20 && len != BEING_RECEIVED);
        }
    }
}
