//! A frame's header, read once and checked.

use crate::Misbehaved;
use crate::layout::{LINE_BYTES, WORD_BYTES};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message.
    Message,
    /// Nothing, up to the end of the ring.
    Pad,
    /// A [`Prefix`], then a message.
    Prefixed,
    /// A [`Prefix`], then where in the arena the message lies.
    InArena,
    /// Nothing: no message follows.
    End,
}

impl Kind {
    const fn number(self) -> u64 {
        match self {
            Self::Message => 1,
            Self::Pad => 2,
            Self::Prefixed => 3,
            Self::InArena => 4,
            Self::End => 5,
        }
    }

    const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Message,
            2 => Self::Pad,
            3 => Self::Prefixed,
            4 => Self::InArena,
            5 => Self::End,
            _ => return None,
        })
    }
}

const LENGTH_BITS: u32 = 28;
const KIND_BITS: u32 = 3;
/// The next frame begins at a line of the cache.
pub(super) const TO_LINE: u64 = 1 << 31;
pub(super) const NUMBER_SHIFT: u32 = 32;

/// What positions of frames are multiples of, less one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unit(u64);

impl Unit {
    pub(super) const WORD: Self = Self(WORD_BYTES - 1);
    pub(super) const LINE: Self = Self(LINE_BYTES - 1);

    /// Of a header.
    #[inline]
    pub(super) const fn of(header: u64) -> Self {
        if header & TO_LINE == 0 { Self::WORD } else { Self::LINE }
    }

    #[inline]
    pub(super) const fn is_line(self) -> bool {
        self.0 == Self::LINE.0
    }

    /// So many bytes a frame is filled up with at most.
    #[inline]
    pub(super) const fn rest(self) -> u64 {
        self.0
    }

    /// As the header says it.
    #[inline]
    const fn flag(self) -> u64 {
        (self.0 & (LINE_BYTES / 2)) * (TO_LINE / (LINE_BYTES / 2))
    }
}

/// The word of a header. Its low half is never 0.
#[inline]
pub(super) const fn header(kind: Kind, payload_bytes: u64, number: u64, unit: Unit) -> u64 {
    payload_bytes | unit.flag() | kind.number() << LENGTH_BITS | number << NUMBER_SHIFT
}

/// The header of a message, as that of a frame of another kind.
#[inline(always)]
pub(super) const fn as_kind(of_message: u64, kind: Kind) -> u64 {
    of_message ^ (Kind::Message.number() ^ kind.number()) << LENGTH_BITS
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) payload_bytes: u64,
    pub(super) number_low: u32,
    pub(super) unit: Unit,
}

impl Header {
    /// `None` for 0: nothing is there yet.
    #[inline]
    pub(super) fn parse(word: u64) -> Result<Option<Self>, Misbehaved> {
        if word == 0 {
            return Ok(None);
        }
        let kind = Kind::from_number(word >> LENGTH_BITS & ((1 << KIND_BITS) - 1))
            .ok_or(Misbehaved("a frame of a kind that nobody knows"))?;
        let payload_bytes = word & ((1 << LENGTH_BITS) - 1);
        let number_low = (word >> NUMBER_SHIFT) as u32;
        Ok(Some(Self { kind, payload_bytes, number_low, unit: Unit::of(word) }))
    }
}

/// Bytes of a frame with this payload, its header included.
#[inline]
pub(super) const fn frame_bytes(payload_bytes: u64) -> u64 {
    8 + payload_bytes.next_multiple_of(8)
}

/// Where a frame ends that begins at a position.
#[inline]
pub(super) const fn frame_end(begin: u64, payload_bytes: u64, Unit(rest): Unit) -> u64 {
    (begin + WORD_BYTES + payload_bytes + rest) & !rest
}

/// A committed frame, as a reader found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries; never a pad.
    pub kind: Kind,
    /// Length of the payload.
    pub payload_bytes: u64,
    /// Number of the message; of an end, that of the last one.
    pub number: u64,
    /// How many messages before it were overwritten unread; 0 in a ring that loses nothing.
    pub missing: u64,
    /// Position of the payload.
    pub(super) payload: u64,
    /// Position after the frame.
    pub(super) end: u64,
}

impl Frame {
    /// Position after the frame: what a cursor says of somebody who is done with it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// Length of a [`Prefix`].
pub const PREFIX_BYTES: usize = 8;

/// What some messages have in front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// The highest goes first.
    pub priority: u16,
    /// How often it was delivered before.
    pub deliveries: u16,
}

impl Prefix {
    /// As it lies in the ring.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PREFIX_BYTES] {
        let number = u64::from(self.priority) | u64::from(self.deliveries) << 16;
        number.to_le_bytes()
    }

    /// From the ring; what is reserved is not looked at.
    #[must_use]
    pub fn from_bytes(bytes: [u8; PREFIX_BYTES]) -> Self {
        let number = u64::from_le_bytes(bytes);
        Self { priority: number as u16, deliveries: (number >> 16) as u16 }
    }
}
