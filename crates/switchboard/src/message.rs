//! Messages: what can be sent, and how it becomes bytes.
//!
//! | type | on the wire | fits |
//! |---|---|---|
//! | [`Bytes`], [`Text`] | the bytes themselves | any bytes; programs that are not ours |
//! | a plain type | its memory; every bit pattern is valid | a type of the same path, size, alignment and byte order |
//! | [`Plain<T>`] | the same | one that gives itself the same [name](Named), of the same size and byte order |
//! | [`Json<T>`] | JSON text | any JSON |
//!
//! Peers over a link exchange a [`Schema`] when they meet: a mismatch is an error that names both. It
//! finds mistakes, and not all of them:
//!
//! - That of a plain type covers its path (`crate::module::Type`), size and alignment, **not its fields**.
//!   Two of the same size that were swapped, or a `u64` that became an `f64`, are not noticed. Its path
//!   is the compiler's word, so both programs should take the type from one crate.
//! - [`Bytes`], [`Text`] and [`Json`] have none: any of them fits any other, and what cannot be decoded
//!   is an error of that message.
//! - Without a link (queue objects, datagrams, foreign framings) nothing is compared.

mod in_place;

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use in_place::InPlace;

/// What identifies a type of message between peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Equal where both sides may talk; 0 for bytes. See the [module](self) for what it covers.
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
/// [`Plain`], [`Bytes`], [`Text`] and [`Json`].
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
        let (size, alignment) = (size_of::<T>(), align_of::<T>());
        let name = std::any::type_name::<T>();
        Schema::of(&format!("{name} ({size} bytes, aligned to {alignment}, {BYTE_ORDER})"))
    }

    fn encode<R>(&self, with: impl FnOnce(&[u8]) -> R) -> Result<R, EncodingError> {
        Ok(with(self.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, EncodingError> {
        plain(bytes, std::any::type_name::<T>())
    }
}

const BYTE_ORDER: &str =
    if cfg!(target_endian = "little") { "little-endian" } else { "big-endian" };

fn plain<T: FromBytes>(bytes: &[u8], name: &str) -> Result<T, EncodingError> {
    T::read_from_bytes(bytes).map_err(|_| {
        let (len, size) = (bytes.len(), size_of::<T>());
        EncodingError::new(format!("{len} bytes, where {name} takes {size}"))
    })
}

/// The name that a plain type gives itself, for [`Plain`].
pub trait Named {
    /// The same in every program that means the same fields in the same order: with a version, as in
    /// `"org.example.reading/1"`, which is raised when the fields change.
    const NAME: &'static str;
}

/// A plain type under a [name of its own](Named), so that programs which each define it can talk, and a
/// change of its fields can be told.
///
/// Its memory is sent as it is. The schema is the name, the size and the byte order.
///
/// ```
/// use switchboard::{Message, Named, Plain};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[repr(C)]
/// struct Reading {
///     celsius: f64,
///     sensor: u64,
/// }
///
/// impl Named for Reading {
///     const NAME: &'static str = "org.example.reading/1";
/// }
///
/// assert_eq!(Plain::<Reading>::schema().name, "org.example.reading/1 (16 bytes, little-endian)");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Plain<T>(pub T);

impl<T> Message for Plain<T>
where
    T: Named + FromBytes + IntoBytes + Immutable + KnownLayout,
{
    fn schema() -> Schema {
        Schema::of(&format!("{} ({} bytes, {BYTE_ORDER})", T::NAME, size_of::<T>()))
    }

    fn encode<R>(&self, with: impl FnOnce(&[u8]) -> R) -> Result<R, EncodingError> {
        Ok(with(self.0.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, EncodingError> {
        plain(bytes, T::NAME).map(Self)
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
///
/// It has no schema: a receiver of another type, or of text, is let in, and JSON that is not a `T` is an
/// error of that message.
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
