//! The hello: what each side of a link says about itself before anything else.
//!
//! ```text
//! 0   u16  version                    16  u64  schema fingerprint, 0 for plain bytes
//! 2   u8   pattern (1 queue)          24  u32  largest message taken, in bytes
//! 3   u8   role (1 sender, 2 receiver) 28 u32  window: messages unacknowledged at most
//! 4   u32  reserved, 0                32  u32  window: bytes unacknowledged at most
//! 8   u64  instance: random, new for each endpoint
//! 36  u8   length of the program's name, at most 64, then the name
//!     u16  length of the schema's name, at most 256, then the name
//! ```
//! Unknown bytes after these are ignored: a later version may add fields.

use std::fmt;

/// The version of the link's protocol that this code speaks.
pub(crate) const VERSION: u16 = 1;

const FIXED_BYTES: usize = 36;
const LONGEST_NAME: usize = 64;
const LONGEST_SCHEMA: usize = 256;

/// Which end of a pattern a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends messages of a queue.
    Sender,
    /// Receives messages of a queue.
    Receiver,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sender => "a sender",
            Self::Receiver => "a receiver",
        })
    }
}

/// What one side says about itself. Of a peer's hello nothing is believed beyond its own limits:
/// who it is comes from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which end of the pattern.
    pub role: Role,
    /// Fingerprint of the messages' layout; 0 for bytes, which fit anything.
    pub schema: u64,
    /// The messages' type, for error messages.
    pub schema_name: String,
    /// The largest message it takes, in bytes.
    pub max_message_bytes: u32,
    /// How many messages may be unacknowledged at a time.
    pub window_messages: u32,
    /// How many bytes of messages may be unacknowledged at a time.
    pub window_bytes: u32,
    /// A random number, new for each endpoint.
    pub instance: u64,
    /// The program's own name, unverified.
    pub name: String,
}

impl Hello {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(1);
        bytes.push(match self.role {
            Role::Sender => 1,
            Role::Receiver => 2,
        });
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.instance.to_le_bytes());
        bytes.extend_from_slice(&self.schema.to_le_bytes());
        bytes.extend_from_slice(&self.max_message_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.window_messages.to_le_bytes());
        bytes.extend_from_slice(&self.window_bytes.to_le_bytes());
        let name = cut(&self.name, LONGEST_NAME);
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        let schema = cut(&self.schema_name, LONGEST_SCHEMA);
        bytes.extend_from_slice(&(schema.len() as u16).to_le_bytes());
        bytes.extend_from_slice(schema.as_bytes());
        bytes
    }

    /// Reads a peer's hello.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let short = || "a hello that is too short".to_owned();
        let fixed = bytes.first_chunk::<FIXED_BYTES>().ok_or_else(short)?;
        let u32_at = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let version = u16::from_le_bytes([fixed[0], fixed[1]]);
        if version != VERSION {
            return Err(format!("it speaks version {version} of the link, this side {VERSION}"));
        }
        if fixed[2] != 1 {
            return Err(format!("it speaks pattern {}, this side a queue (1)", fixed[2]));
        }
        let role = match fixed[3] {
            1 => Role::Sender,
            2 => Role::Receiver,
            other => return Err(format!("a hello with unknown role {other}")),
        };
        let rest = &bytes[FIXED_BYTES..];
        let (&len, rest) = rest.split_first().ok_or_else(short)?;
        let (name, rest) = rest.split_at_checked(len.into()).ok_or_else(short)?;
        let (len, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        let len = usize::from(u16::from_le_bytes(*len));
        let (schema_name, _later) = rest.split_at_checked(len).ok_or_else(short)?;
        let hello = Self {
            role,
            instance: u64_at(8),
            schema: u64_at(16),
            max_message_bytes: u32_at(24),
            window_messages: u32_at(28),
            window_bytes: u32_at(32),
            name: printable(name, LONGEST_NAME),
            schema_name: printable(schema_name, LONGEST_SCHEMA),
        };
        if hello.role == Role::Receiver && (hello.window_messages == 0 || hello.window_bytes == 0) {
            return Err("a receiver that takes nothing (its window is 0)".into());
        }
        Ok(hello)
    }
}

/// The longest prefix of at most `most` bytes that ends between characters.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text from a peer, made safe to show.
pub(crate) fn printable(bytes: &[u8], most_chars: usize) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .take(most_chars)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
