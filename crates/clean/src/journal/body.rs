//! What an object held, as a file: memory as it is, or messages one after the other.
//!
//! Source: docs/design/clean.md, "The journal".
//!
//! A message is a frame at a multiple of 8: its type or priority in 8 bytes, its length and its CRC-32C in 4 each, its bytes. All
//! little-endian. A length of all ones says that the message was being received when the process was killed.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use switchboard_kernel::mmap::{Mapping, Mode, reserve};
use switchboard_kernel::posix_mq::MessageQueue;

use crate::error::{Error, Reason, Result};

/// The name of a body.
pub(super) fn name(number: u32) -> String {
    format!("{number:05}.body")
}

/// How much of memory is copied at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// Copies memory into a body; blocks of zeroes become holes. Gives the CRC-32C of all of it.
pub(crate) fn copy_memory(
    body: &File,
    len_bytes: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<u32> {
    let failed = |error| Error::io("keeping what it holds", &error);
    body.set_len(len_bytes).map_err(failed)?;
    let (mut block, mut at, mut crc) = (vec![0; BLOCK_BYTES], 0, 0);
    while at < len_bytes {
        let len = usize::try_from(len_bytes - at).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        read(at, &mut block[..len])?;
        crc = crc32c::crc32c_append(crc, &block[..len]);
        if block[..len].iter().any(|&byte| byte != 0) {
            body.write_all_at(&block[..len], at).map_err(failed)?;
        }
        at += len as u64;
    }
    Ok(crc)
}

/// Copies a body back, leaving out blocks of zeroes; checks its length and CRC-32C before the first byte is written.
pub(crate) fn write_back(
    body: &File,
    (len_bytes, crc): (u64, u32),
    mut write: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    check(body, (len_bytes, crc))?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0;
    while at < len_bytes {
        let len = usize::try_from(len_bytes - at).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        body.read_exact_at(&mut block[..len], at).map_err(|error| damaged(&error.to_string()))?;
        if block[..len].iter().any(|&byte| byte != 0) {
            write(at, &block[..len])?;
        }
        at += len as u64;
    }
    Ok(())
}

/// Whether a body is what the log says.
pub(crate) fn check(body: &File, (len_bytes, crc): (u64, u32)) -> Result<()> {
    let found = body.metadata().map_err(|error| Error::io("what it held", &error))?.len();
    if found != len_bytes {
        return Err(damaged(&format!("{found} bytes, not {len_bytes}")));
    }
    let mut block = vec![0; BLOCK_BYTES];
    let (mut at, mut now) = (0, 0);
    while at < len_bytes {
        let len = usize::try_from(len_bytes - at).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        body.read_exact_at(&mut block[..len], at).map_err(|error| damaged(&error.to_string()))?;
        now = crc32c::crc32c_append(now, &block[..len]);
        at += len as u64;
    }
    if now != crc { Err(damaged("the checksum is wrong")) } else { Ok(()) }
}

fn damaged(why: &str) -> Error {
    Error::new(Reason::Damaged, format!("what the journal has of it is damaged: {why}"))
}

/// A message: its type or priority, and its bytes.
pub(crate) type Message = (i64, Vec<u8>);

const HEADER_BYTES: usize = 16;
const BEING_RECEIVED: u32 = u32::MAX;

/// Messages in a body.
#[derive(Debug)]
pub(crate) struct Frames;

impl Frames {
    /// Writes messages that are at hand; gives the CRC-32C of the whole.
    pub(crate) fn write(body: &File, messages: &[Message]) -> Result<u32> {
        let failed = |error| Error::io("keeping what it holds", &error);
        let mut out = BufWriter::new(body);
        let mut crc = 0;
        for (kind, text) in messages {
            let mut frame = Vec::with_capacity(HEADER_BYTES + text.len() + 8);
            frame.extend_from_slice(&kind.to_le_bytes());
            frame.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
            frame.extend_from_slice(&crc32c::crc32c(text).to_le_bytes());
            frame.extend_from_slice(text);
            frame.resize(frame.len().next_multiple_of(8), 0);
            crc = crc32c::crc32c_append(crc, &frame);
            out.write_all(&frame).map_err(failed)?;
        }
        out.flush().map_err(failed)?;
        Ok(crc)
    }

    /// Reads messages, at most so many, of at most so many bytes each. One that was being received is last, with as much as can be told.
    pub(crate) fn read(body: &File, most: u32, longest: usize) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        let mut from = BufReader::new(body);
        while u32::try_from(messages.len()).unwrap_or(u32::MAX) < most {
            let mut header = [0; HEADER_BYTES];
            if from.read_exact(&mut header).is_err() || header == [0; HEADER_BYTES] {
                break;
            }
            let (kind, rest) = header.split_at(8);
            let (len, crc) = rest.split_at(4);
            let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
            let kind = i64::from_le_bytes(kind.try_into().unwrap_or_default());
            if number(len) == BEING_RECEIVED {
                messages.extend(interrupted(&mut from, kind, longest));
                break;
            }
            let len = usize::try_from(number(len)).unwrap_or(usize::MAX);
            if len > longest {
                return Err(damaged("a message is longer than any of its queue"));
            }
            let mut text = vec![0; len.next_multiple_of(8)];
            from.read_exact(&mut text).map_err(|error| damaged(&error.to_string()))?;
            text.truncate(len);
            if crc32c::crc32c(&text) != number(crc) {
                return Err(damaged("the checksum of a message is wrong"));
            }
            messages.push((kind, text));
        }
        Ok(messages)
    }
}

/// A message that was being received: it ends where the filling begins. None: not even its beginning was there.
fn interrupted(from: &mut impl Read, kind: i64, longest: usize) -> Option<Message> {
    let mut text = vec![0; longest];
    from.read_exact(&mut text).ok()?;
    let end = (0..longest).rev().find(|&at| text[at] != filling(at)).map_or(0, |at| at + 1);
    if end == 0 && kind == NO_PRIORITY {
        return None;
    }
    text.truncate(end);
    Some((kind & 0xffff_ffff, text))
}

/// A priority that none has: the kernel has not written one yet.
const NO_PRIORITY: i64 = 0xffff_ffff;

/// What a place is filled with before a message is received there: a message is unlikely to end alike.
fn filling(at: usize) -> u8 {
    let mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) as u8 | 1
}

/// A body that messages of a POSIX queue are received into by the kernel itself.
#[derive(Debug)]
pub(crate) struct MappedFrames {
    memory: Mapping,
    room_bytes: usize,
    at: usize,
    filling: Vec<u8>,
}

impl MappedFrames {
    /// How large a body for so many messages is.
    pub(crate) fn bytes(messages: u32, longest: u32) -> u64 {
        let each = HEADER_BYTES as u64 + u64::from(longest).next_multiple_of(8);
        // One more frame of zeroes ends it.
        (u64::from(messages) + 1).saturating_mul(each)
    }

    pub(crate) fn new(body: &File, messages: u32, longest: u32) -> Result<Self> {
        let failed = |error| Error::call("keeping what it holds", error);
        let bytes = Self::bytes(messages, longest);
        reserve(body, bytes).map_err(failed)?;
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let memory = Mapping::of_file(body.as_fd(), Mode::ReadWrite, 0, len).map_err(failed)?;
        let room_bytes = usize::try_from(longest).unwrap_or(usize::MAX);
        let filling = (0..room_bytes).map(filling).collect();
        Ok(Self { memory, room_bytes, at: 0, filling })
    }

    /// Receives one; `false`: there is none.
    pub(crate) fn receive(&mut self, queue: &MessageQueue) -> Result<bool> {
        let failed = |error| Error::call("keeping a message", error);
        let text = self.at + HEADER_BYTES;
        self.memory.write_at(text, &self.filling).map_err(failed)?;
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&NO_PRIORITY.to_le_bytes());
        header[8..12].copy_from_slice(&BEING_RECEIVED.to_le_bytes());
        self.memory.write_at(self.at, &header).map_err(failed)?;
        let received = queue.try_recv_into(&self.memory, text, self.room_bytes, self.at);
        let len = match received {
            Ok(len) => len,
            Err(error) => {
                let zeroes = vec![0; HEADER_BYTES + self.room_bytes];
                self.memory.write_at(self.at, &zeroes).map_err(failed)?;
                return if error.name() == "EAGAIN" { Ok(false) } else { Err(failed(error)) };
            }
        };
        // What lies behind the message, up to the next frame, counts in the checksum of the whole.
        let end = len.next_multiple_of(8).min(self.room_bytes.next_multiple_of(8));
        self.memory.write_at(text + len, &vec![0; end - len]).map_err(failed)?;
        let mut bytes = vec![0; len];
        self.memory.read_at(text, &mut bytes).map_err(failed)?;
        let mut sizes = [0; 8];
        sizes[..4].copy_from_slice(&u32::try_from(len).unwrap_or(0).to_le_bytes());
        sizes[4..].copy_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        self.memory.write_at(self.at + 8, &sizes).map_err(failed)?;
        self.at = text + end;
        Ok(true)
    }

    /// Cuts the body to what it holds; gives the CRC-32C of that.
    pub(crate) fn finish(self, body: &File) -> Result<u32> {
        let mut all = vec![0; self.at];
        let failed = |error| Error::call("keeping what it holds", error);
        if !all.is_empty() {
            self.memory.read_at(0, &mut all).map_err(failed)?;
        }
        let len = self.at as u64;
        drop(self.memory);
        body.set_len(len).map_err(|error| Error::io("keeping what it holds", &error))?;
        Ok(crc32c::crc32c(&all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom};

    #[test]
    fn messages_come_back_and_lies_do_not() {
        let body = tempfile::tempfile().expect("a file");
        let messages = vec![(3, b"one".to_vec()), (1, Vec::new()), (i64::MAX, vec![7; 100])];
        let crc = Frames::write(&body, &messages).expect("written");
        let len = body.metadata().expect("a size").len();
        check(&body, (len, crc)).expect("whole");
        let read = |longest| {
            (&body).seek(SeekFrom::Start(0)).expect("the start");
            Frames::read(&body, 10, longest)
        };
        assert_eq!(read(100).expect("messages"), messages);
        assert_eq!(read(99).expect_err("too long").reason(), Reason::Damaged);
        body.write_all_at(b"X", 17).expect("written");
        assert_eq!(read(100).expect_err("changed").reason(), Reason::Damaged);
        assert_eq!(check(&body, (len, crc)).expect_err("changed").reason(), Reason::Damaged);
        assert_eq!(check(&body, (len + 1, crc)).expect_err("cut").reason(), Reason::Damaged);
    }

    #[test]
    fn a_message_that_was_being_received() {
        let body = tempfile::tempfile().expect("a file");
        let mut frame = vec![0; HEADER_BYTES + 64];
        for (at, byte) in frame[HEADER_BYTES..].iter_mut().enumerate() {
            *byte = filling(at);
        }
        frame[8..12].copy_from_slice(&BEING_RECEIVED.to_le_bytes());
        frame[..8].copy_from_slice(&NO_PRIORITY.to_le_bytes());
        let read = |frame: &[u8]| {
            body.write_all_at(frame, 0).expect("written");
            (&body).seek(SeekFrom::Start(0)).expect("the start");
            Frames::read(&body, 4, 64).expect("messages")
        };
        assert_eq!(read(&frame), []);
        frame[..4].copy_from_slice(&9_u32.to_le_bytes());
        frame[HEADER_BYTES..HEADER_BYTES + 5].copy_from_slice(b"hello");
        assert_eq!(read(&frame), [(9, b"hello".to_vec())]);
    }

    #[test]
    fn memory_with_holes() {
        let body = tempfile::tempfile().expect("a file");
        let mut memory = vec![0; 3 * BLOCK_BYTES + 5];
        memory[2 * BLOCK_BYTES] = 1;
        let from = |at: u64, block: &mut [u8]| {
            let at = usize::try_from(at).expect("an offset");
            block.copy_from_slice(&memory[at..at + block.len()]);
            Ok(())
        };
        let crc = copy_memory(&body, memory.len() as u64, from).expect("copied");
        let mut back = vec![0; memory.len()];
        write_back(&body, (memory.len() as u64, crc), |at, block| {
            let at = usize::try_from(at).expect("an offset");
            back[at..at + block.len()].copy_from_slice(block);
            Ok(())
        })
        .expect("copied back");
        assert!(back == memory);
    }
}
