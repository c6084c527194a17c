//! What a message of a service says: a word, and what follows it.
//!
//! ```text
//! calls     0  u64  the call's number, and in the highest byte what is said of it
//!           8  u64  only with a time: how long the client waits, in microseconds
//!           …       the request; of a grant: u64, how long the part was
//! answers   0  u64  the same
//!           8  …    the part or reply; of a failure: u16 code, u16 length, text, details
//! ```

use crate::link::{Failure, cut, failure_body, failure_of};
use crate::transport::Setup;

/// What is said of a call.
pub(super) const CALL: u8 = 1;
pub(super) const CALL_WITH_TIME: u8 = 2;
pub(super) const CANCEL: u8 = 3;
pub(super) const GRANT: u8 = 4;
pub(super) const PART: u8 = 5;
pub(super) const REPLY: u8 = 6;
pub(super) const DONE: u8 = 7;
pub(super) const FAIL: u8 = 8;

/// The word that each message begins with.
pub(super) const WORD_BYTES: usize = 8;
/// The longest that comes before a request.
pub(super) const MOST_BEFORE: usize = 16;

/// The setup of the rings below a service: what comes before a request does not count as its length.
pub(super) fn below(setup: &Setup) -> Setup {
    let mut below = setup.again();
    let more = |most: Option<u32>| most.map(|most| most.saturating_add(MOST_BEFORE as u32));
    below.address.query.max_message_bytes = more(below.address.query.max_message_bytes);
    below.options.max_message_bytes = more(below.options.max_message_bytes);
    below
}

/// The longest request or reply of an end whose rings take messages as long as this.
pub(super) fn longest(message_bytes: u64) -> usize {
    (message_bytes as usize).saturating_sub(MOST_BEFORE)
}

const NUMBER_BITS: u32 = 56;

/// The word that a message begins with.
#[inline]
pub(super) fn word(kind: u8, number: u64) -> u64 {
    number | u64::from(kind) << NUMBER_BITS
}

/// A message so far: its word alone.
pub(super) fn begin(kind: u8, number: u64) -> Vec<u8> {
    word(kind, number).to_le_bytes().to_vec()
}

/// What a message says, its number, and what follows; none if it is too short.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<8>()?;
    let word = u64::from_le_bytes(*word);
    Some(((word >> NUMBER_BITS) as u8, word & ((1 << NUMBER_BITS) - 1), rest))
}

/// A number that follows.
pub(super) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

/// The longest reply to an end that takes so many bytes behind a word.
pub(super) fn reply_within(room: usize) -> usize {
    room.saturating_sub(MOST_BEFORE - WORD_BYTES)
}

/// A failure for an end that takes so many bytes behind a word: its text is cut, and details that do not fit are left out.
pub(super) fn failure_within(room: usize, code: u16, text: &str, details: &[u8]) -> Vec<u8> {
    let room = room.saturating_sub(failure_body(code, "", &[]).len());
    let text = cut(text, room);
    let details = if text.len() + details.len() <= room { details } else { &[] };
    failure_body(code, text, details)
}

/// The failure that follows.
pub(super) fn failure(bytes: &[u8]) -> Option<Failure> {
    failure_of(bytes)
}
