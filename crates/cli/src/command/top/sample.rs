//! What one look shows: the machine, channels, limits, and what there was at the look before, for rates.
//!
//! Source: docs/design/top.md.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard::counters::{Around, Counts, End};
use switchboard_inspect::analysis::rates::{Rates, between};
use switchboard_inspect::{Kind, Limit, Snapshot, text};

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) now: Arc<Snapshot>,
    pub(super) before: Option<Arc<Snapshot>>,
    /// None: nobody asked for them.
    pub(super) channels: Option<Arc<Channels>>,
    pub(super) channels_before: Option<Arc<Channels>>,
    /// As they were looked at last.
    pub(super) limits: Arc<Vec<Limit>>,
    /// How long the look took.
    pub(super) took: Duration,
}

/// The channels at a moment.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) at: Instant,
    pub(super) around: Around,
}

impl Sample {
    /// Of a look at a machine, with nothing before it.
    pub(super) fn of(now: Snapshot) -> Self {
        let limits = Arc::new(now.limits.clone());
        Self {
            now: Arc::new(now),
            before: None,
            channels: None,
            channels_before: None,
            limits,
            took: Duration::ZERO,
        }
    }

    /// The rates since the look before.
    pub(super) fn rates(&self) -> Rates<'_> {
        self.before.as_ref().map_or_else(Rates::default, |before| between(before, &self.now))
    }

    /// How much of it could be seen: `412 of 530 processes`.
    pub(super) fn coverage(&self) -> String {
        let coverage = &self.now.coverage;
        let all = text::counted(coverage.processes.into(), "process", "processes");
        format!("{} of {all}", coverage.readable)
    }

    /// What an end said of itself at the look before, and how long ago that was.
    pub(super) fn end_before(&self, end: &End) -> Option<(&Counts, Duration)> {
        let (now, before) = self.channels.as_ref().zip(self.channels_before.as_ref())?;
        let elapsed = now.at.checked_duration_since(before.at)?;
        let channels = before.around.channels.iter();
        let found = channels.flat_map(|one| &one.channel.ends).find(|other| other.id == end.id)?;
        Some((found.answer.as_ref().ok()?, elapsed))
    }

    /// How many ends of `shm:` there are whose channel was not found: their sockets are known, not where they meet.
    pub(super) fn ends_elsewhere(&self) -> usize {
        let Some(channels) = &self.channels else { return 0 };
        let mut found: HashMap<&str, ()> = HashMap::new();
        for end in channels.around.channels.iter().flat_map(|one| &one.channel.ends) {
            if let Some(begin) = end.id.get(..ID_BEGIN) {
                found.insert(begin, ());
            }
        }
        let listens = |object: &&switchboard_inspect::Object| {
            object.kind == Kind::Unix && object.is_listening()
        };
        let sockets = self.now.objects.iter().filter(listens);
        let mut elsewhere: Vec<&str> = sockets
            .filter_map(|socket| socket.names.iter().find_map(|name| id_begin(name)))
            .filter(|begin| !found.contains_key(begin))
            .collect();
        // Both rings of a service's end have its id.
        elsewhere.sort_unstable();
        elsewhere.dedup();
        elsewhere.len()
    }
}

/// So many digits of an end's id are in the name that its socket was bound by.
const ID_BEGIN: usize = 28;

/// The beginning of the id in the name that a socket of an end was bound by: `.t.p.`, 28 digits of it, a dot and 16 others.
fn id_begin(name: &str) -> Option<&str> {
    let last = name.rsplit('/').next()?;
    let rest = last.strip_prefix('.')?;
    let (kind, rest) = rest.split_at_checked(4)?;
    let kind_is = kind.bytes().enumerate().all(|(at, byte)| match at {
        1 | 3 => byte == b'.',
        _ => byte.is_ascii_lowercase(),
    });
    let (begin, digits) = rest.split_once('.')?;
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (kind_is && begin.len() == ID_BEGIN && digits.len() == 16 && hex(begin) && hex(digits))
        .then_some(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ends() {
        let name = "/proc/self/fd/17/.t.p.feeb35ecc72f7a3311fe86799384.3369e7702ec148b0";
        assert_eq!(id_begin(name), Some("feeb35ecc72f7a3311fe86799384"));
        for other in [
            "",
            "/",
            "/run/x.sock",
            ".t.p.",
            ".t.p.feeb35ecc72f7a3311fe86799384",
            ".t.p.feeb35ecc72f7a3311fe8679938X.3369e7702ec148b0",
            ".txp.feeb35ecc72f7a3311fe86799384.3369e7702ec148b0",
            ".ü",
        ] {
            assert_eq!(id_begin(other), None, "{other}");
        }
    }
}
