//! Framings: how messages are told apart on a stream of bytes.
//!
//! A link has frames of its own. The foreign framings speak no hello, so a program that knows
//! nothing of Switchboard can be the other side. Like the link, they do no I/O.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

/// How messages are told apart on a stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Switchboard's own: hello, acknowledgements, an end that is told from a death.
    Link,
    /// Each message is a line ended by `\n`. A message that contains `\n` is refused. A last line
    /// without `\n` is a message too.
    Lines,
    /// Each message follows its length as four bytes, most significant first.
    Length,
    /// Bytes as they come: a message ends wherever a read ended. For streams of bytes, not for
    /// messages. On packets, one packet is one message.
    Raw,
}

impl Framing {
    /// The framing of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Link, Self::Lines, Self::Length, Self::Raw]
            .into_iter()
            .find(|framing| framing.name() == name)
    }

    /// Its name in an address.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Lines => "lines",
            Self::Length => "length",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes read from a descriptor and not yet taken: one growing buffer, filled at its end and
/// consumed at its start.
#[derive(Debug, Default)]
pub(crate) struct InBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// A buffer that grew beyond this is given back when it is empty.
const KEPT_BYTES: usize = 2 << 20;

/// How much room a read is given at least. A larger frame grows the buffer while it arrives.
const READ_BYTES: usize = 256 * 1024;

impl InBuffer {
    /// What has been read and not taken.
    #[inline]
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Takes `n` bytes off the front.
    #[inline]
    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Takes `n` bytes off the front; they can be looked at with [`taken`](Self::taken) until the
    /// next call that needs [`room`](Self::room).
    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> usize {
        let start = self.start;
        self.start += n;
        debug_assert!(self.start <= self.end);
        start
    }

    /// Bytes that were [taken](Self::take).
    #[inline]
    pub(crate) fn taken(&self, start: usize, n: usize) -> &[u8] {
        &self.bytes[start..start + n]
    }

    /// Room to read into. `whole` is the length of the item at the front, where it is known: the
    /// buffer grows towards it as its bytes arrive, never ahead of a peer's mere announcement by
    /// more than a doubling.
    pub(crate) fn room(&mut self, whole: Option<usize>) -> &mut [u8] {
        self.room_for_packet(whole, 0)
    }

    /// As [`room`](Self::room), for a packet of up to `packet` bytes, which holds what it holds: also
    /// more than the rest of the item at the front.
    pub(crate) fn room_for_packet(&mut self, whole: Option<usize>, packet: usize) -> &mut [u8] {
        let unread = self.end - self.start;
        if unread == 0 {
            (self.start, self.end) = (0, 0);
        }
        let (wanted, exact) = match whole {
            Some(whole) if whole > READ_BYTES / 4 => (whole.min(unread * 2 + READ_BYTES), true),
            _ => (unread + READ_BYTES / 2, false),
        };
        let wanted = wanted.max(unread + packet);
        if self.start > 0 && self.start + wanted > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = unread;
        }
        if wanted.max(READ_BYTES) > self.bytes.len() {
            self.bytes.resize(wanted.max(READ_BYTES), 0);
        }
        // A large item is read to its end and no further, so that nothing has to be moved after.
        let limit = if exact { self.start + wanted } else { self.bytes.len() };
        &mut self.bytes[self.end..limit]
    }

    /// Room for `len` bytes, of a peer that is not known yet: no more memory than that.
    pub(crate) fn room_to_greet(&mut self, len: usize) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.bytes.len() < self.end + len {
            self.bytes.resize(self.end + len, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// Says that `n` bytes were read into [`room`](Self::room).
    pub(crate) fn filled(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Gives back the memory of an unusually large frame.
    pub(crate) fn shrink(&mut self) {
        if self.start == self.end && self.bytes.len() > KEPT_BYTES {
            *self = Self::default();
        }
    }
}

/// Why a message does not fit its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unframable {
    /// A line cannot contain a line feed.
    ContainsNewline,
    /// Raw bytes cannot say "nothing".
    Empty,
    /// It would not be written whole, and other writers could come in between.
    NotWhole { limit_bytes: usize },
}

/// One side of a foreign framing: bytes to write, and messages out of bytes read.
#[derive(Debug)]
pub(crate) struct Foreign {
    framing: Framing,
    /// On packets each message is one packet and nothing needs to be added to it.
    packets: bool,
    /// Writes of at most this many bytes that never split a message, for pipes with many writers.
    atomic_bytes: Option<usize>,
    largest: usize,
    pub(crate) input: InBuffer,
    /// Lengths of packets in `input`, oldest first.
    packet_lens: VecDeque<usize>,
    /// How far the front of `input` has been searched for the end of a line.
    searched: usize,
    ended: bool,
    out: VecDeque<Block>,
    /// Bytes written of the block at the front.
    written: usize,
    out_bytes: usize,
    unwritten_messages: u64,
    written_messages: u64,
}

/// Whole messages that go out together.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    messages: u64,
}

/// Small messages are gathered into writes of this size.
const GATHER_BYTES: usize = 64 * 1024;

impl Foreign {
    pub(crate) fn new(framing: Framing, packets: bool, largest: usize) -> Self {
        Self {
            framing,
            packets,
            atomic_bytes: None,
            largest,
            input: InBuffer::default(),
            packet_lens: VecDeque::new(),
            searched: 0,
            ended: false,
            out: VecDeque::new(),
            written: 0,
            out_bytes: 0,
            unwritten_messages: 0,
            written_messages: 0,
        }
    }

    /// Writes hold whole messages and at most `bytes`.
    pub(crate) fn keep_whole(&mut self, bytes: usize) {
        self.atomic_bytes = Some(bytes);
    }

    /// Queues a message for writing.
    pub(crate) fn push(&mut self, payload: &[u8]) -> Result<(), Unframable> {
        let (before, after): (&[u8], &[u8]) = match self.framing {
            _ if self.packets => (&[], &[]),
            Framing::Lines if payload.contains(&b'\n') => return Err(Unframable::ContainsNewline),
            Framing::Lines => (&[], b"\n"),
            Framing::Length => (&(payload.len() as u32).to_be_bytes(), &[]),
            Framing::Raw | Framing::Link => (&[], &[]),
        };
        if payload.is_empty() && (self.packets || self.framing == Framing::Raw) {
            return Err(Unframable::Empty);
        }
        let len = before.len() + payload.len() + after.len();
        if let Some(limit) = self.atomic_bytes.filter(|limit| len > *limit) {
            return Err(Unframable::NotWhole { limit_bytes: limit - before.len() - after.len() });
        }
        let gather = self.atomic_bytes.unwrap_or(GATHER_BYTES);
        let fits = !self.packets
            && self.out.back().is_some_and(|last| last.bytes.len() + len <= gather)
            // A block of which a part is written stays as it is: atomic writes go out whole.
            && !(self.out.len() == 1 && self.written > 0);
        if !fits {
            let room = if len < gather / 2 { gather } else { len };
            self.out.push_back(Block { bytes: Vec::with_capacity(room), messages: 0 });
        }
        if let Some(last) = self.out.back_mut() {
            last.bytes.extend_from_slice(before);
            last.bytes.extend_from_slice(payload);
            last.bytes.extend_from_slice(after);
            last.messages += 1;
        }
        self.out_bytes += len;
        self.unwritten_messages += 1;
        Ok(())
    }

    /// Bytes queued and not written.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.out_bytes
    }

    /// What to write next; on packets and atomic pipes in exactly this piece.
    pub(crate) fn unwritten(&self) -> Option<&[u8]> {
        self.out.front().map(|block| &block.bytes[self.written..])
    }

    /// Says that `n` bytes of [`unwritten`](Self::unwritten) were written.
    pub(crate) fn wrote(&mut self, n: usize) {
        self.written += n;
        self.out_bytes -= n;
        if self.out.front().is_some_and(|block| self.written >= block.bytes.len())
            && let Some(block) = self.out.pop_front()
        {
            self.unwritten_messages -= block.messages;
            self.written_messages += block.messages;
            self.written = 0;
        }
    }

    /// Messages queued that the kernel has not taken. They are counted by the block of up to 64 KiB
    /// that they go out in: those of a block that is written in part count as unwritten.
    pub(crate) fn unwritten_messages(&self) -> u64 {
        self.unwritten_messages
    }

    /// Messages that the kernel took.
    pub(crate) fn written_messages(&self) -> u64 {
        self.written_messages
    }

    /// Says that a packet of `len` bytes was read into the buffer.
    pub(crate) fn filled_packet(&mut self, len: usize) {
        self.input.filled(len);
        self.packet_lens.push_back(len);
    }

    /// Says that the other side closed: what is left is the last message.
    pub(crate) fn end_of_input(&mut self) {
        self.ended = true;
    }

    /// The length of the item at the front, with its framing, where it is known.
    pub(crate) fn whole(&self) -> Option<usize> {
        match self.framing {
            Framing::Length if !self.packets => {
                let header = self.input.unread().first_chunk::<4>()?;
                Some(4 + (u32::from_be_bytes(*header) as usize).min(self.largest))
            }
            _ => None,
        }
    }

    /// The next whole message. Its bytes stay in place until the next read.
    ///
    /// # Errors
    /// What the other side did that its framing does not allow.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, String> {
        let found = if self.packets {
            self.packet_lens.pop_front().map(|len| (0..len, len))
        } else {
            match self.framing {
                Framing::Lines => self.next_line()?,
                Framing::Length => self.next_counted()?,
                Framing::Raw | Framing::Link => {
                    let len = self.input.unread().len().min(self.largest);
                    (len > 0).then_some((0..len, len))
                }
            }
        };
        let Some((payload, whole)) = found else { return Ok(None) };
        let start = self.input.take(whole);
        Ok(Some(&self.input.taken(start, whole)[payload]))
    }

    fn next_line(&mut self) -> Result<Option<(Range<usize>, usize)>, String> {
        let bytes = self.input.unread();
        let found = memchr::memchr(b'\n', &bytes[self.searched..]);
        let (len, after) = match found {
            Some(at) => (self.searched + at, 1),
            None if self.ended && !bytes.is_empty() => (bytes.len(), 0),
            None => {
                if bytes.len() > self.largest {
                    return Err(format!("a line is longer than {} bytes", self.largest));
                }
                self.searched = bytes.len();
                return Ok(None);
            }
        };
        if len > self.largest {
            return Err(format!("a line is longer than {} bytes", self.largest));
        }
        self.searched = 0;
        Ok(Some((0..len, len + after)))
    }

    fn next_counted(&mut self) -> Result<Option<(Range<usize>, usize)>, String> {
        let bytes = self.input.unread();
        let Some(header) = bytes.first_chunk::<4>() else {
            return if self.ended && !bytes.is_empty() {
                Err(format!("the stream ends after {} bytes of a length", bytes.len()))
            } else {
                Ok(None)
            };
        };
        let len = u32::from_be_bytes(*header) as usize;
        if len > self.largest {
            return Err(format!("a message of {len} bytes; at most {} are taken", self.largest));
        }
        if bytes.len() < 4 + len {
            return if self.ended {
                Err(format!("the stream ends after {} of {len} bytes", bytes.len() - 4))
            } else {
                Ok(None)
            };
        }
        Ok(Some((4..4 + len, 4 + len)))
    }
}
