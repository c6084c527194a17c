//! The bytes that an inotify descriptor gives, and the events in them.
//!
//! Source: `inotify(7)` (`struct inotify_event`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Mask, Watch};
use crate::error::Result;

/// What one read took from the queue.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'buffer> {
    /// A watch saw something.
    Seen {
        /// Which one.
        watch: Watch,
        /// What.
        what: Mask,
        /// Whether it happened to a folder.
        is_folder: bool,
        /// The same number in the two events of one renaming; 0 in all others.
        cookie: u32,
        /// The name in the watched folder; none if it happened to the watched file itself.
        name: Option<&'buffer OsStr>,
    },
    /// `IN_IGNORED`: the watch is gone: removed, or its file is, or it was for one event only.
    Removed {
        /// Which one.
        watch: Watch,
    },
    /// `IN_UNMOUNT`: the file system was unmounted; [`Event::Removed`] follows.
    Unmounted {
        /// Which watch was on it.
        watch: Watch,
    },
    /// `IN_Q_OVERFLOW`: the queue was full, and events after the ones before this are lost.
    Overflow,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffer {
    /// Room for 16 KiB: some hundred events.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(16 << 10)
    }

    /// Room for this many bytes, and for one event at least. An event is 16 bytes, and a name of
    /// up to 255 bytes more, rounded up to a multiple of 16.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes.max(HEADER_BYTES + LONGEST_NAME_BYTES)], filled: 0 }
    }

    /// The events that the last read took, in the order in which they happened.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        let mut rest = &self.bytes[..self.filled];
        std::iter::from_fn(move || {
            let (event, after) = split(rest)?;
            rest = after;
            Some(event)
        })
    }

    pub(super) fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<usize> {
        self.filled = 0;
        self.filled = read(&mut self.bytes)?;
        Ok(self.filled)
    }
}

/// `wd`, `mask`, `cookie` and `len`.
const HEADER_BYTES: usize = 16;
/// `NAME_MAX`, and the NUL.
const LONGEST_NAME_BYTES: usize = 256;

/// The first event, and what comes after it.
fn split(bytes: &[u8]) -> Option<(Event<'_>, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let word = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (watch, bits, cookie) = (Watch(word(0).cast_signed()), word(4), word(8));
    let (padded, rest) = rest.split_at_checked(usize::try_from(word(12)).ok()?)?;
    let event = if bits & libc::IN_Q_OVERFLOW != 0 {
        Event::Overflow
    } else if bits & libc::IN_IGNORED != 0 {
        Event::Removed { watch }
    } else if bits & libc::IN_UNMOUNT != 0 {
        Event::Unmounted { watch }
    } else {
        let name = padded.split(|byte| *byte == 0).next().filter(|name| !name.is_empty());
        Event::Seen {
            watch,
            what: Mask::of_event(bits),
            is_folder: bits & libc::IN_ISDIR != 0,
            cookie,
            name: name.map(OsStr::from_bytes),
        }
    };
    Some((event, rest))
}
