//! What no honest peer does.

use std::fmt;

/// What a peer's memory shows that no honest peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misbehaved(pub &'static str);

impl fmt::Display for Misbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Misbehaved {}
