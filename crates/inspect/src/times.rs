//! When an object was made, changed and used, as far as the kernel keeps that.
//!
//! Source: `shmctl(2)`, `semctl(2)`, `msgctl(2)`, `statx(2)`. The times of System V objects are whole seconds. A clock that is set
//! moves them against the start of processes, which is counted since boot.

use serde::{Deserialize, Serialize};

/// Times of an object, in milliseconds since 1970; none where the kernel keeps none, or it was not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Made: files, where the file system keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_ms: Option<u64>,
    /// Made, or its owner, mode or (of semaphores) values were set since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_ms: Option<u64>,
    /// Used last: attached or detached, operated on, sent or received, written or read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_ms: Option<u64>,
}

impl Times {
    /// Nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The latest of them.
    #[must_use]
    pub fn latest_ms(&self) -> Option<u64> {
        self.made_ms.max(self.changed_ms).max(self.used_ms)
    }

    /// Of a System V object: seconds, 0 for never.
    #[must_use]
    pub fn of_seconds(changed: u64, used: u64) -> Self {
        let ms = |seconds: u64| (seconds != 0).then(|| seconds.saturating_mul(1000));
        Self { made_ms: None, changed_ms: ms(changed), used_ms: ms(used) }
    }
}
