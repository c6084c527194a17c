//! The datagrams of the control path: what they are made of, and every check of what came. No I/O.
//!
//! Source: `docs/design/shm.md`, "Datagrams of the control path". One seqpacket datagram each, at most
//! 1 KiB; little-endian; u32 kind first.
//!
//! | kind | from | content | descriptors |
//! |---|---|---|---|
//! | 1 Hello | both | [`Hello`] | writer: doorbell, and the ring of a topic; reader: its page |
//! | 2 Welcome | writer | slot u32, 0 u32, position u64, number u64 | the ring of a queue |
//! | 3 Segment | writer | index u32, bytes u64 | the segment |
//! | 4 Wake | both | | |
//! | 5 Reject | receiver | number u64 | |
//! | 6 Taken | sender | number u64 | |
//! | 7 Refuse | both | text, at most 512 bytes | |
//! | 8 Leave | reader | | |
//! | 9 Full | both | as Refuse | |
//! | 10 Denied | both, in place of a Hello | as Refuse | |
//! | 11 Sleeps | reader without a doorbell | position u64 | |

use switchboard_shm::bell;

use super::hello::{Hello, Pattern, Role, end_name};
use crate::link::{cut, printable};

/// The longest datagram.
pub(crate) const LONGEST_BYTES: usize = 1024;
/// Descriptors that come with a datagram at most.
pub(crate) const MOST_DESCRIPTORS: usize = 2;
/// Links of an endpoint at most: a byte of the doorbell each.
pub(crate) const MOST_LINKS: usize = bell::READERS;
/// [`Datagram::Wake`], encoded.
pub(crate) const WAKE: [u8; 4] = 4_u32.to_le_bytes();

const LONGEST_REASON: usize = 512;

/// One datagram, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    /// Who I am and what I take. The first of each side, and only the first.
    Hello(Hello),
    /// The link is open.
    Welcome {
        /// The reader's byte of the doorbell.
        slot: u32,
        /// Where it begins in the ring.
        position: u64,
        /// The number of the message before that.
        number: u64,
    },
    /// A further segment of the arena.
    Segment { index: u32, len_bytes: u64 },
    /// There is something in the shared memory to look at.
    Wake,
    /// This message is given back.
    Reject { number: u64 },
    /// A message that was given back is with its sender again.
    Taken { number: u64 },
    /// I close this connection, and why.
    Refuse(String),
    /// I go, and am not dead.
    Leave,
    /// As `Refuse`: my rules do not allow what you do.
    Denied(String),
    /// I have no byte in your doorbell, have read up to this position, and am about to sleep.
    Sleeps { position: u64 },
    /// As `Refuse`: I have as many links as may be, and that is no matter of who fits whom.
    Full(String),
}

/// Why a datagram is not taken. The connection closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It broke the protocol: what it did.
    Misbehaved(String),
    /// The two cannot talk, and why.
    Mismatch(String),
}

impl Fault {
    pub(super) fn misbehaved(problem: impl Into<String>) -> Self {
        Self::Misbehaved(problem.into())
    }

    /// What is wrong.
    pub(crate) fn problem(&self) -> &str {
        let (Self::Misbehaved(problem) | Self::Mismatch(problem)) = self;
        problem
    }
}

impl Datagram {
    /// Its bytes. Names and reasons that are too long are cut.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.kind().to_le_bytes());
        match self {
            Self::Hello(hello) => hello.write(&mut bytes),
            Self::Welcome { slot, position, number } => {
                bytes.extend_from_slice(&slot.to_le_bytes());
                bytes.extend_from_slice(&[0; 4]);
                bytes.extend_from_slice(&position.to_le_bytes());
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            Self::Segment { index, len_bytes } => {
                bytes.extend_from_slice(&index.to_le_bytes());
                bytes.extend_from_slice(&len_bytes.to_le_bytes());
            }
            Self::Reject { number } | Self::Taken { number } => {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            Self::Sleeps { position } => bytes.extend_from_slice(&position.to_le_bytes()),
            Self::Refuse(reason) | Self::Full(reason) | Self::Denied(reason) => {
                bytes.extend_from_slice(cut(reason, LONGEST_REASON).as_bytes());
            }
            Self::Wake | Self::Leave => {}
        }
        bytes
    }

    fn kind(&self) -> u32 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome { .. } => 2,
            Self::Segment { .. } => 3,
            Self::Wake => 4,
            Self::Reject { .. } => 5,
            Self::Taken { .. } => 6,
            Self::Refuse(_) => 7,
            Self::Leave => 8,
            Self::Full(_) => 9,
            Self::Denied(_) => 10,
            Self::Sleeps { .. } => 11,
        }
    }

    /// Reads the first datagram of a peer, which came with so many descriptors: Hello, Refuse or Full.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode_first(bytes: &[u8], descriptors: usize) -> Result<Self, Fault> {
        let datagram = Self::decode(bytes)?;
        let expected = match &datagram {
            // A writer gives no doorbell to a reader of another user.
            Self::Hello(hello)
                if hello.role == Role::Writer && descriptors + 1 == hello.descriptors() =>
            {
                descriptors
            }
            Self::Hello(hello) => hello.descriptors(),
            Self::Refuse(_) | Self::Full(_) | Self::Denied(_) => 0,
            other => {
                return Err(Fault::misbehaved(format!("{} before its hello", other.name())));
            }
        };
        datagram.check_descriptors(expected, descriptors)
    }

    /// Reads any further datagram of a peer of this role, which came with so many descriptors.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode_next(
        bytes: &[u8],
        descriptors: usize,
        pattern: Pattern,
        from: Role,
    ) -> Result<Self, Fault> {
        let datagram = Self::decode(bytes)?;
        let (may, expected) = match (&datagram, pattern, from) {
            (Self::Hello(_), ..) => return Err(Fault::misbehaved("a second hello")),
            (Self::Welcome { .. }, Pattern::Topic | Pattern::State, Role::Writer) => (true, 0),
            (Self::Welcome { .. }, _, Role::Writer) => (true, 1),
            (Self::Segment { .. }, _, Role::Writer) => (true, 1),
            (Self::Reject { .. }, Pattern::Queue, Role::Reader)
            | (Self::Taken { .. }, Pattern::Queue, Role::Writer)
            | (Self::Leave | Self::Sleeps { .. }, _, Role::Reader)
            | (Self::Wake | Self::Refuse(_), ..) => (true, 0),
            _ => (false, 0),
        };
        if !may {
            let end = end_name(pattern, from);
            return Err(Fault::misbehaved(format!("{} from {end}", datagram.name())));
        }
        datagram.check_descriptors(expected, descriptors)
    }

    fn check_descriptors(self, expected: usize, came: usize) -> Result<Self, Fault> {
        if came != expected {
            let name = self.name();
            let problem = format!("{name} with {came} descriptors where {expected} belong to it");
            return Err(Fault::Misbehaved(problem));
        }
        Ok(self)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "a hello",
            Self::Welcome { .. } => "a welcome",
            Self::Segment { .. } => "a segment",
            Self::Wake => "a wake-up",
            Self::Reject { .. } => "a rejection",
            Self::Taken { .. } => "an answer to a rejection",
            Self::Refuse(_) => "a refusal",
            Self::Leave => "a leave",
            Self::Denied(_) => "a denial",
            Self::Sleeps { .. } => "a sleep",
            Self::Full(_) => "a refusal of one link more",
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() > LONGEST_BYTES {
            let problem = format!("a datagram of more than {LONGEST_BYTES} bytes");
            return Err(Fault::Misbehaved(problem));
        }
        let mut fields = Fields(bytes);
        let datagram = match fields.u32()? {
            1 => return Hello::parse(&mut fields).map(Self::Hello),
            2 => Self::welcome(&mut fields)?,
            3 => Self::segment(&mut fields)?,
            4 => Self::Wake,
            5 => Self::Reject { number: fields.message_number()? },
            6 => Self::Taken { number: fields.message_number()? },
            7 => return reason(fields.0).map(Self::Refuse),
            8 => Self::Leave,
            9 => return reason(fields.0).map(Self::Full),
            10 => return reason(fields.0).map(Self::Denied),
            11 => Self::Sleeps { position: fields.u64()? },
            kind => {
                return Err(Fault::Misbehaved(format!("a datagram of unknown kind {kind}")));
            }
        };
        if !fields.0.is_empty() {
            return Err(Fault::Misbehaved(format!("{} that is too long", datagram.name())));
        }
        Ok(datagram)
    }

    fn welcome(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let slot = fields.u32()?;
        fields.zero()?;
        let (position, number) = (fields.u64()?, fields.u64()?);
        if slot as usize >= MOST_LINKS {
            return Err(Fault::Misbehaved(format!("a welcome to slot {slot}")));
        }
        if !position.is_multiple_of(8) {
            return Err(Fault::Misbehaved(format!("a welcome to position {position}")));
        }
        Ok(Self::Welcome { slot, position, number })
    }

    fn segment(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let (index, len_bytes) = (fields.u32()?, fields.u64()?);
        if len_bytes == 0 {
            return Err(Fault::misbehaved("a segment without bytes"));
        }
        Ok(Self::Segment { index, len_bytes })
    }
}

fn reason(text: &[u8]) -> Result<String, Fault> {
    if text.len() > LONGEST_REASON {
        let problem = format!("a refusal of more than {LONGEST_REASON} bytes");
        return Err(Fault::Misbehaved(problem));
    }
    Ok(printable(text, LONGEST_REASON))
}

/// What is left of a datagram. Each field is read once.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or_else(too_short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.take().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        self.take().map(u64::from_le_bytes)
    }

    /// A length (u16) and so many bytes.
    pub(super) fn text(&mut self) -> Result<&'a [u8], Fault> {
        let len = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(len).ok_or_else(too_short)?;
        self.0 = rest;
        Ok(text)
    }

    /// The number of a message; they count from 1.
    fn message_number(&mut self) -> Result<u64, Fault> {
        match self.u64()? {
            0 => Err(Fault::misbehaved("a message number 0")),
            number => Ok(number),
        }
    }

    fn zero(&mut self) -> Result<(), Fault> {
        match self.u32()? {
            0 => Ok(()),
            other => Err(Fault::Misbehaved(format!("{other} where 0 has to be"))),
        }
    }
}

fn too_short() -> Fault {
    Fault::misbehaved("a datagram that is too short")
}
