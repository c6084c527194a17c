//! How fast messages follow each other, and so how far apart they are laid: docs/design/shm.md, "A frame".

use std::time::{Duration, Instant};

use switchboard_shm::ring::RingWriter;

use crate::transport::shm::memory::Own;

/// About what it takes to hand over a message to another processor: who publishes slower than that has
/// subscribers that wait for each of them.
const HAND_OVER: Duration = Duration::from_nanos(100);

/// The time and the number of the last look.
#[derive(Debug, Default)]
pub(super) struct Pace(Option<(Instant, u64)>);

impl Pace {
    /// The subscribers are looked at, once in a turn of the ring: the slowest is at `cursor`.
    pub(super) fn turn(&mut self, cursor: u64, ring: &mut RingWriter<Own>) {
        let (now, number) = (Instant::now(), ring.number());
        let is_slow = self.0.replace((now, number)).is_none_or(|(then, before)| {
            let messages = u32::try_from(number - before).unwrap_or(u32::MAX);
            now - then >= HAND_OVER.saturating_mul(messages)
        });
        // Where somebody is behind, frames are packed at once, so that what is full stays full.
        ring.set_to_line(is_slow && ring.head() - cursor < ring.capacity() / 2);
    }
}
