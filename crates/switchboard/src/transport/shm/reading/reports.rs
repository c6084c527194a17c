//! What is to be told to the caller between messages, bounded: peers come, lie and die also while it is not
//! there to hear of them.

use std::collections::VecDeque;

use crate::error::RecvError;

/// So many wait; of what comes after, only the number is told.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: VecDeque<RecvError>,
    /// What is left out after them.
    more: u64,
}

impl Reports {
    pub(super) fn push(&mut self, report: RecvError) {
        if self.more == 0 && self.waiting.len() < MOST {
            self.waiting.push_back(report);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<RecvError> {
        self.waiting.pop_front().or_else(|| match std::mem::take(&mut self.more) {
            0 => None,
            more => Some(RecvError::PeerMisbehaved {
                peer: "a crowd of peers".to_owned(),
                problem: format!("there was more of them to tell than is kept: {more} reports"),
            }),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.more == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted() {
        let mut reports = Reports::default();
        for missing in 1..=MOST as u64 + 7 {
            reports.push(RecvError::Gap { peer: String::new(), missing });
        }
        for expected in 1..=MOST as u64 {
            let report = reports.pop();
            assert!(matches!(report, Some(RecvError::Gap { missing, .. }) if missing == expected));
        }
        assert!(!reports.is_empty());
        let last = reports.pop().map(|report| report.to_string()).unwrap_or_default();
        assert!(last.ends_with("than is kept: 7 reports"), "{last}");
        assert!(reports.is_empty() && reports.pop().is_none());
    }
}
