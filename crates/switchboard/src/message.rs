//! Messages: what can be sent, and how it becomes bytes.
//!
//! | type | on the wire | fits |
//! |---|---|---|
//! | [`Bytes`], [`Text`] | the bytes themselves | any bytes; programs that are not ours |
//! | a plain type | its memory; every bit pattern is valid | the same type, of the same size and alignment |
//! | [`Json<T>`] | JSON text | any JSON |
//!
//! Peers exchange a [`Schema`] when they meet: a mismatch is an error that names both.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What identifies a message's layout between peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Equal for equal layouts; 0 for bytes.
    pub fingerprint: u64,
    /// The name shown when two do not fit.
    pub name: String,
}

impl Schema {
    /// The schema of bytes, which anything can be.
    #[must_use]
    pub fn bytes() -> Self {
        Self { fingerprint: 0, name: String::new() }
    }

    /// A schema from everything that must be equal on both sides.
    #[must_use]
    pub fn of(name: &str) -> Self {
        // FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/. Detects mistakes, not attacks.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { fingerprint: hash.max(1), name: name.to_owned() }
    }
}

/// Why bytes are not a message of the expected type, or a value cannot become one.
#[derive(Debug)]
pub struct EncodingError(String);

impl EncodingError {
    /// An error with this explanation.
    #[must_use]
    pub fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

impl fmt::Display for EncodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EncodingError {}

/// A value that can be sent.
///
/// Implemented for plain types (zerocopy's `FromBytes + IntoBytes + Immutable + KnownLayout`), for
/// [`Bytes`], [`Text`] and [`Json`].
pub trait Message: Sized {
    /// What both sides must agree on.
    fn schema() -> Schema;

    /// Calls `with` with the message's bytes.
    ///
    /// # Errors
    /// When the value has no encoding.
    fn encode<R>(&self, with: impl FnOnce(&[u8]) -> R) -> Result<R, EncodingError>;

    /// The message of these bytes.
    ///
    /// # Errors
    /// When they are none.
    fn decode(bytes: &[u8]) -> Result<Self, EncodingError>;
}

impl<T> Message for T
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    fn schema() -> Schema {
        Schema::of(&format!(
            "{} ({} bytes, aligned to {}, {}-endian)",
            std::any::type_name::<T>(),
            size_of::<T>(),
            align_of::<T>(),
            if cfg!(target_endian = "little") { "little" } else { "big" },
        ))
    }

    fn encode<R>(&self, with: impl FnOnce(&[u8]) -> R) -> Result<R, EncodingError> {
        Ok(with(self.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, EncodingError> {
        T::read_from_bytes(bytes).map_err(|_| {
            EncodingError::new(format!(
                "{} bytes, where {} takes {}",
                bytes.len(),
                std::any::type_name::<T>(),
                size_of::<T>()
            ))
        })
    }
}

/// Bytes, of any length, as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Message for Bytes {
    fn schema() -> Schema {
        Schema::bytes()
    }

    fn encode<R>(&self, with: impl FnOnce(&[u8]) -> R) -> Result<R, EncodingError> {
        Ok(with(&self.0))
    }

    fn decode(bytes: &[u8]) -> Result<Self, EncodingError> {
        Ok(Self(bytes.to_vec()))
    }
}

impl Deref for Bytes {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl<T: Into<Vec<u8>>> From<T> for Bytes {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

/// Text in UTF-8. Bytes that are not are an error for the receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub String);

impl Message for Text {
    fn schema() -> Schema {
        Schema::bytes()
    }

    fn encode<R>(&self, with: impl FnOnce(&[u8]) -> R) -> Result<R, EncodingError> {
        Ok(with(self.0.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, EncodingError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| EncodingError::new(format!("not UTF-8: {error}")))?;
        Ok(Self(text.to_owned()))
    }
}

/// A value as JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned> Message for Json<T> {
    fn schema() -> Schema {
        Schema::bytes()
    }

    fn encode<R>(&self, with: impl FnOnce(&[u8]) -> R) -> Result<R, EncodingError> {
        let text = serde_json::to_vec(&self.0)
            .map_err(|error| EncodingError::new(format!("no JSON for this value: {error}")))?;
        Ok(with(&text))
    }

    fn decode(bytes: &[u8]) -> Result<Self, EncodingError> {
        serde_json::from_slice(bytes)
            .map(Self)
            .map_err(|error| EncodingError::new(format!("not the expected JSON: {error}")))
    }
}
