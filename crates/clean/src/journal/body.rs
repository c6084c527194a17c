//! What an object held, as a file: memory as it is, or messages one after the other.
//!
//! Source: docs/design/clean.md, "The journal".
//!
//! A message is a frame at a multiple of 8: its type or priority in 8 bytes, its length and the complement of its CRC-32C in 4 each, its bytes. All
//! little-endian. So no frame begins with 16 zeroes: those end the messages.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::FileExt;

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

pub(super) fn damaged(why: &str) -> Error {
    Error::new(Reason::Damaged, format!("what the journal has of it is damaged: {why}"))
}

/// A message: its type or priority, and its bytes.
pub(crate) type Message = (i64, Vec<u8>);

pub(super) const HEADER_BYTES: usize = 16;

/// The last 8 bytes of a header: how long a message is, and its sum.
pub(super) fn sizes(text: &[u8]) -> [u8; 8] {
    let mut sizes = [0; 8];
    sizes[..4].copy_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    sizes[4..].copy_from_slice(&(!crc32c::crc32c(text)).to_le_bytes());
    sizes
}

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
            frame.extend_from_slice(&sizes(text));
            frame.extend_from_slice(text);
            frame.resize(frame.len().next_multiple_of(8), 0);
            crc = crc32c::crc32c_append(crc, &frame);
            out.write_all(&frame).map_err(failed)?;
        }
        out.flush().map_err(failed)?;
        Ok(crc)
    }

    /// Reads messages, at most so many, of at most so many bytes each.
    pub(crate) fn read(mut body: &File, most: u32, longest: usize) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        body.rewind().map_err(|error| Error::io("what it held", &error))?;
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
            let len = usize::try_from(number(len)).unwrap_or(usize::MAX);
            if len > longest {
                return Err(damaged("a message is longer than any of its queue"));
            }
            let mut text = vec![0; len.next_multiple_of(8)];
            from.read_exact(&mut text).map_err(|error| damaged(&error.to_string()))?;
            text.truncate(len);
            if !crc32c::crc32c(&text) != number(crc) {
                return Err(damaged("the checksum of a message is wrong"));
            }
            messages.push((kind, text));
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_and_lies_do_not() {
        let body = tempfile::tempfile().expect("a file");
        // An empty one of the least priority, too.
        let messages =
            vec![(3, b"one".to_vec()), (0, Vec::new()), (0, Vec::new()), (i64::MAX, vec![7; 100])];
        let crc = Frames::write(&body, &messages).expect("written");
        let len = body.metadata().expect("a size").len();
        check(&body, (len, crc)).expect("whole");
        let read = |longest| Frames::read(&body, 10, longest);
        assert_eq!(read(100).expect("messages"), messages);
        assert_eq!(read(99).expect_err("too long").reason(), Reason::Damaged);
        body.write_all_at(b"X", 17).expect("written");
        assert_eq!(read(100).expect_err("changed").reason(), Reason::Damaged);
        assert_eq!(check(&body, (len, crc)).expect_err("changed").reason(), Reason::Damaged);
        assert_eq!(check(&body, (len + 1, crc)).expect_err("cut").reason(), Reason::Damaged);
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
