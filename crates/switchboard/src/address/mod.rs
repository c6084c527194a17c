//! Addresses: `scheme:rest?option=value&option`, the names where processes meet.
//!
//! `scheme:rest` and `scheme://rest` are the same. `%XX` stands for a byte in `rest`, so that a path
//! with a question mark can be written (`%3F`). The schemes and the options that each takes come
//! from the table of transports, [`crate::transport::TABLE`].
//!
//! An [`AddressError`] points at the part that is wrong:
//!
//! ```text
//! unix:/run/x.sock?mod=0640
//!                  ^^^ unknown option; unix: takes bind, connect, framing, …
//! ```

mod query;
mod target;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

pub use query::OPTIONS;
pub(crate) use query::Query;
pub(crate) use query::SYSTEM_SCOPE;
use query::parse_option;
pub(crate) use target::Target;
pub use target::TargetForm;
use target::parse_target;

use crate::transport::{TABLE, Transport};

/// The longest address taken, in bytes.
pub const LONGEST_ADDRESS_BYTES: usize = 8192;

/// A parsed and checked address. Make one with [`str::parse`].
///
/// ```
/// use switchboard::Address;
///
/// let address: Address = "unix:/run/engine.sock?mode=0640".parse()?;
/// assert_eq!(address.scheme(), "unix");
/// assert_eq!(address.to_string(), "unix:/run/engine.sock?mode=0640");
/// # Ok::<(), switchboard::AddressError>(())
/// ```
#[derive(Clone)]
pub struct Address {
    text: String,
    transport: &'static Transport,
    pub(crate) target: Target,
    pub(crate) query: Query,
}

impl Address {
    /// The scheme: the word before the first colon.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.transport.scheme
    }

    /// The transport's row in the table.
    #[must_use]
    pub fn transport(&self) -> &'static Transport {
        self.transport
    }

    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The file system path that the address names, if it names one.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        match &self.target {
            Target::Path(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({:?})", self.text)
    }
}

/// Why a text is not an address, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    part: Range<usize>,
    problem: String,
}

impl AddressError {
    fn new(text: &str, part: Range<usize>, problem: impl Into<String>) -> Self {
        let end = part.end.min(text.len());
        Self { text: text.to_owned(), part: part.start.min(end)..end, problem: problem.into() }
    }

    /// The bytes of the address that are wrong.
    #[must_use]
    pub fn part(&self) -> Range<usize> {
        self.part.clone()
    }

    /// What is wrong with them, and what would be right.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Control characters would move the marks; and a terminal must not obey an address.
        let clean = |part: &str| -> String {
            part.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        };
        let before = clean(self.text.get(..self.part.start).unwrap_or_default());
        let wrong = clean(self.text.get(self.part.clone()).unwrap_or_default());
        let after = clean(self.text.get(self.part.end..).unwrap_or_default());
        let indent = before.chars().count();
        let marks = wrong.chars().count().max(1);
        writeln!(f, "not an address:")?;
        writeln!(f, "  {before}{wrong}{after}")?;
        write!(f, "  {:indent$}{} {}", "", "^".repeat(marks), self.problem)
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > LONGEST_ADDRESS_BYTES {
            let shown: String = text.chars().take(60).collect();
            return Err(AddressError::new(
                &shown,
                0..shown.len(),
                format!("… is {} bytes long; at most {LONGEST_ADDRESS_BYTES}", text.len()),
            ));
        }
        if let Some(at) = text.find('\0') {
            return Err(AddressError::new(text, at..at + 1, "a name cannot hold a NUL byte"));
        }
        let Some(colon) = text.find(':') else {
            return Err(AddressError::new(
                text,
                0..text.len(),
                format!("no scheme; write it as unix:{text}, or with one of: {}", schemes()),
            ));
        };
        let scheme = &text[..colon];
        let Some(transport) = TABLE.iter().find(|row| row.scheme == scheme) else {
            return Err(AddressError::new(
                text,
                0..colon,
                format!("unknown scheme; known: {}", schemes()),
            ));
        };
        let mut start = colon + 1;
        if text[start..].starts_with("//") && transport.target != TargetForm::QueueName {
            // "unix:///run/x" is "unix:/run/x"; "mq://jobs" is "mq:/jobs" below.
            start += 2;
        } else if text[start..].starts_with("//") {
            start += 1;
        }
        let question = text[start..].find('?').map_or(text.len(), |at| start + at);
        let target = parse_target(text, start..question, transport)?;
        let mut query = Query::default();
        let mut at = question + 1;
        let mut names: Vec<&str> = Vec::new();
        while at <= text.len() && question < text.len() {
            let end = text[at..].find('&').map_or(text.len(), |n| at + n);
            parse_option(text, at..end, transport, &mut query)?;
            // One of two values would go unheeded, and nobody could tell which.
            let name = text[at..end].split('=').next().unwrap_or_default();
            if names.contains(&name) {
                return Err(AddressError::new(text, at..end, format!("{name} is given twice")));
            }
            names.push(name);
            at = end + 1;
        }
        Ok(Self { text: text.to_owned(), transport, target, query })
    }
}

/// The known schemes, for messages.
fn schemes() -> String {
    TABLE.iter().map(|row| row.scheme).collect::<Vec<_>>().join(", ")
}
