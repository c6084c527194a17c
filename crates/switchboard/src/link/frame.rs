//! The bytes of a link: a preface, then frames. `docs/design/link.md` draws them.
//!
//! ```text
//! preface   89 53 57 42 0D 0A 1A 0A      once, first, in each direction
//! frame     0  u32  length of the body in bytes, little-endian
//!           4  u8   kind
//!           5  u8   flags (bit 0: redelivered)
//!           6  u16  deliveries: how often this message was given to a receiver before
//!           8  u64  sequence
//!           16 …    body
//! ```

/// Opens each direction of a link. Like PNG's signature, it is neither text nor valid UTF-8 and
/// shows at once when a channel rewrites line ends.
pub(crate) const PREFACE: [u8; 8] = *b"\x89SWB\r\n\x1a\n";

/// Bytes before a frame's body.
pub(crate) const HEADER_BYTES: usize = 16;

/// The longest body of any frame but a message, and what a service has of them.
pub(crate) const LONGEST_CONTROL_BYTES: usize = 1024;

/// What comes before a request: how long the client waits.
pub(crate) const CALL_PREFIX_BYTES: usize = 8;

/// What comes before a key: its length.
pub(crate) const KEY_PREFIX_BYTES: usize = 2;
/// The longest key of a state, in bytes.
pub(crate) const LONGEST_KEY: usize = 255;

/// The longest text and details of a failure, and what comes before them.
pub(crate) const LONGEST_FAILURE_TEXT: usize = 1024;
pub(crate) const LONGEST_FAILURE_DETAILS: usize = 4096;
const LONGEST_FAILURE_BYTES: usize = 4 + LONGEST_FAILURE_TEXT + LONGEST_FAILURE_DETAILS;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who I am and what I take. The first frame.
    Hello = 1,
    /// A message; the sequence counts from 1 on each link, or at each publisher.
    Message = 2,
    /// Everything up to this sequence is acknowledged.
    AckThrough = 3,
    /// This one message is acknowledged, out of order.
    AckOne = 4,
    /// This one message is given back, for another delivery.
    Reject = 5,
    /// No message follows; the sequence is that of the last one.
    End = 6,
    /// The end was seen and everything before it is settled.
    EndSeen = 7,
    /// I close this link; the body says why.
    Refuse = 8,
    /// Of a topic: the first message that can follow has this number.
    Begin = 9,
    /// Of a service, from here on: a request. The sequence is the call's number on this link.
    Call = 10,
    /// The call is being given to the server's program.
    Started = 11,
    /// A part of a reply; others follow, or the end.
    Part = 12,
    /// The reply, or the last part of it.
    Reply = 13,
    /// The reply ends with the parts that came.
    Done = 14,
    /// The call failed: why.
    Fail = 15,
    /// The client wants no reply any more.
    Cancel = 16,
    /// The client took so many parts and bytes.
    Grant = 17,
    /// Of an event: something happened so many times. The sequence is its id.
    Notify = 18,
    /// Of a state: the newest value of a key. The sequence is its version.
    Value = 19,
    /// Of a state: all that was set when this reader joined has been said.
    Known = 20,
}

impl Kind {
    #[inline]
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Message,
            3 => Self::AckThrough,
            4 => Self::AckOne,
            5 => Self::Reject,
            6 => Self::End,
            7 => Self::EndSeen,
            8 => Self::Refuse,
            9 => Self::Begin,
            10 => Self::Call,
            11 => Self::Started,
            12 => Self::Part,
            13 => Self::Reply,
            14 => Self::Done,
            15 => Self::Fail,
            16 => Self::Cancel,
            17 => Self::Grant,
            18 => Self::Notify,
            19 => Self::Value,
            20 => Self::Known,
            _ => return None,
        })
    }
}

/// A frame's header, read once and checked; what follows uses this copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_bytes: usize,
    pub(crate) kind: Kind,
    pub(crate) redelivered: bool,
    pub(crate) deliveries: u16,
    pub(crate) sequence: u64,
}

impl Header {
    /// A header without flags.
    pub(crate) fn new(kind: Kind, body_bytes: usize, sequence: u64) -> Self {
        Self { body_bytes, kind, redelivered: false, deliveries: 0, sequence }
    }

    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        // The body is at most a u32 long: `Link` refuses longer messages before it comes here.
        bytes[0..4].copy_from_slice(&(self.body_bytes as u32).to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = u8::from(self.redelivered);
        bytes[6..8].copy_from_slice(&self.deliveries.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// The header at the front of `bytes`; `None` while it is incomplete.
    ///
    /// # Errors
    /// An unknown kind or flag, or a body over `largest_message` (or over the limit of its kind).
    #[inline]
    pub(crate) fn parse(bytes: &[u8], largest_message: usize) -> Result<Option<Self>, String> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [l0, l1, l2, l3, kind, flags, d0, d1, sequence @ ..] = *bytes;
        let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let kind =
            Kind::from_byte(kind).ok_or_else(|| format!("a frame of unknown kind {kind}"))?;
        if flags > 1 {
            return Err(format!("a frame with unknown flags {flags:#04x}"));
        }
        let limit = match kind {
            Kind::Message | Kind::Part | Kind::Reply => largest_message,
            Kind::Call => largest_message.saturating_add(CALL_PREFIX_BYTES),
            Kind::Value => largest_message.saturating_add(KEY_PREFIX_BYTES + LONGEST_KEY),
            Kind::Fail => LONGEST_FAILURE_BYTES,
            _ => LONGEST_CONTROL_BYTES,
        };
        if body_bytes > limit {
            return Err(format!("a frame of {body_bytes} bytes where {limit} are allowed"));
        }
        Ok(Some(Self {
            body_bytes,
            kind,
            redelivered: flags & 1 != 0,
            deliveries: u16::from_le_bytes([d0, d1]),
            sequence: u64::from_le_bytes(sequence),
        }))
    }
}
