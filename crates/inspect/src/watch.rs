//! Looking again and again, as a live view does: what cannot have changed since the last look is not read again.
//!
//! Source: docs/design/inspect.md, "Reading"; docs/design/top.md, "What a refresh costs".

use std::time::Duration;

use crate::collect::Request;
use crate::model::Snapshot;
use crate::waits::Before;

/// A row of looks at the machine. Each gives a whole [`Snapshot`], in which a wait is *steady* if it was there at the look before.
///
/// ```
/// use std::time::Duration;
/// use switchboard_inspect::{Request, Watch};
///
/// let mut watch = Watch::new(Duration::from_millis(50));
/// let request = Request::everything();
/// let first = watch.look(&request);
/// let second = watch.look(&request);
/// assert!(second.since_boot_ms >= first.since_boot_ms);
/// ```
#[derive(Debug)]
pub struct Watch {
    gap: Duration,
    before: Before,
}

impl Watch {
    /// None yet. The first look that asks for waits looks at them twice, so long apart.
    #[must_use]
    pub fn new(gap: Duration) -> Self {
        Self { gap, before: Before::default() }
    }

    /// Looks. Blocks for as long as reading takes, the first time for the gap, too. Requests may differ from look to look, but all have to
    /// ask for waits, or none.
    #[must_use]
    pub fn look(&mut self, request: &Request) -> Snapshot {
        let request = Request { gap: Some(self.gap), ..request.clone() };
        request.look(Some(&mut self.before))
    }
}
