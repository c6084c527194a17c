//! Snapshots as JSON, written and read again.
//!
//! Source: docs/design/inspect.md, "Snapshots". A file that says it is one may be anything: it is checked, and its text made safe.

use std::fmt;

use serde_json::Value;

use crate::model::{FORMAT, Snapshot};
use crate::text::tamed;

/// Why a file is no snapshot.
#[derive(Debug)]
pub enum LoadError {
    /// It is no JSON, or lacks something.
    NotASnapshot(serde_json::Error),
    /// It was written by a program of another version.
    OtherFormat(u64),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASnapshot(error) => write!(f, "this is no snapshot: {error}"),
            Self::OtherFormat(format) => {
                write!(f, "this is a snapshot of format {format}; this program reads {FORMAT}")
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl Snapshot {
    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and lists can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From JSON.
    ///
    /// # Errors
    /// [`LoadError`] when it is none, or of another format.
    pub fn from_json(json: &[u8]) -> Result<Self, LoadError> {
        let value: Value = serde_json::from_slice(json).map_err(LoadError::NotASnapshot)?;
        if let Some(format) = value.get("format").and_then(Value::as_u64)
            && format != u64::from(FORMAT)
        {
            return Err(LoadError::OtherFormat(format));
        }
        let mut snapshot: Self =
            serde_json::from_value(tame(value)).map_err(LoadError::NotASnapshot)?;
        // Look-ups count on it.
        snapshot.processes.sort_by_key(|process| process.pid);
        snapshot.processes.dedup_by_key(|process| process.pid);
        Ok(snapshot)
    }
}

fn tame(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(tamed(text)),
        Value::Array(values) => Value::Array(values.into_iter().map(tame).collect()),
        Value::Object(values) => Value::Object(
            values.into_iter().map(|(name, value)| (tamed(name), tame(value))).collect(),
        ),
        other => other,
    }
}
