//! What a link of an event or of a state carries: that something happened, and newest values.
//!
//! `docs/design/event.md` and `docs/design/state-links.md` draw the frames and say what follows.

use super::frame::{HEADER_BYTES, Header, KEY_PREFIX_BYTES, Kind, LONGEST_KEY};
use super::{Event, Link, LinkError, Pattern, Role, State};

impl Link {
    /// Says that something happened, so many times.
    pub fn notify(&mut self, id: u64, count: u64) {
        self.outbox.push_control(Kind::Notify, id, &count.to_le_bytes());
    }

    /// Says the newest value of a key. The caller has checked the length of both.
    pub fn value(&mut self, key: &str, version: u64, bytes: &[u8]) {
        let key = &key.as_bytes()[..key.len().min(LONGEST_KEY)];
        let mut first = Vec::with_capacity(KEY_PREFIX_BYTES + key.len());
        first.extend_from_slice(&(key.len() as u16).to_le_bytes());
        first.extend_from_slice(key);
        self.outbox.push_pieces(Kind::Value, version, &first, bytes);
    }

    /// Says that all that was set when the reader joined has been said.
    pub fn known(&mut self) {
        self.outbox.push_control(Kind::Known, 0, &[]);
    }

    /// Whether a frame, which is whole, is one of an event or a state, where nothing else may come.
    pub(super) fn is_of_news(&self, kind: Kind) -> bool {
        matches!(self.local.pattern, Pattern::Event | Pattern::State)
            && self.state == State::Open
            && !matches!(kind, Kind::Hello | Kind::Refuse)
    }

    /// Checks a frame of an event or a state.
    pub(super) fn check_news(&mut self, header: Header, whole: usize) -> Result<(), LinkError> {
        let listens = self.local.role == Role::Receiver;
        let body = &self.input.unread()[HEADER_BYTES..whole];
        let problem = match (header.kind, self.local.pattern) {
            (Kind::Notify, Pattern::Event) if listens => match count_of(body) {
                Some(0) | None => "a notification that counts nothing",
                Some(_) => return Ok(()),
            },
            (Kind::Value, Pattern::State) if listens => match value_of(body) {
                None => "a value whose key cannot be",
                Some((_, bytes)) if bytes.len() > self.local.max_message_bytes as usize => {
                    "a value that is longer than this side takes"
                }
                Some(_) if header.sequence == 0 => "a value without a version",
                Some(_) => return Ok(()),
            },
            (Kind::Known, Pattern::State) if listens && !self.begun => {
                self.begun = true;
                return Ok(());
            }
            (kind, _) => {
                return Err(self.misbehaved(format!("a frame {kind:?} where none may come")));
            }
        };
        Err(self.misbehaved(problem.to_owned()))
    }

    /// What a frame means that was checked.
    pub(super) fn news_event(&mut self, header: Header, whole: usize) -> Event<'_> {
        let start = self.input.take(whole);
        let body = &self.input.taken(start, whole)[HEADER_BYTES..];
        match header.kind {
            Kind::Notify => {
                Event::Notified { id: header.sequence, count: count_of(body).unwrap_or(1) }
            }
            Kind::Value => {
                let (key, bytes) = value_of(body).unwrap_or_default();
                Event::Value { key, version: header.sequence, bytes }
            }
            _ => Event::Known,
        }
    }
}

fn count_of(body: &[u8]) -> Option<u64> {
    body.try_into().ok().map(u64::from_le_bytes)
}

/// The key and the value in these bytes; `None` if they do not fit.
fn value_of(body: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = body.split_first_chunk::<KEY_PREFIX_BYTES>()?;
    let (key, bytes) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    let key = std::str::from_utf8(key).ok()?;
    is_key(key).then_some((key, bytes))
}

/// Whether this can be a key: at most 255 bytes of text, without control characters. The empty one is that
/// of the state's own value.
pub(crate) fn is_key(key: &str) -> bool {
    key.len() <= LONGEST_KEY && !key.chars().any(char::is_control)
}
