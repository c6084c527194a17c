//! Takes looks one after the other, and reads only what is shown.
//!
//! Source: docs/design/top.md, "What a refresh costs".

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard::counters::look_around;
use switchboard_inspect::{Kinds, Limit, Request, Watch};

use super::sample::{Channels, Sample};
use crate::machine::GAP;

/// What a look has to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) channels: bool,
    pub(super) limits: bool,
}

/// How long the ends of channels have to answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// Limits that are not shown are looked at once in so many looks, to say that one is near.
const LIMITS_EVERY: u64 = 10;

/// What is kept from look to look.
#[derive(Debug)]
pub(super) struct Sampler {
    scopes: Vec<PathBuf>,
    watch: Watch,
    last: Option<Sample>,
    looks: u64,
}

impl Sampler {
    /// No look yet. Channels are looked for in these scopes, too.
    pub(super) fn new(scopes: Vec<PathBuf>) -> Self {
        Self { scopes, watch: Watch::new(GAP), last: None, looks: 0 }
    }

    /// Looks. Blocks for as long as reading takes.
    pub(super) fn look(&mut self, wanted: Wanted) -> Sample {
        let started = Instant::now();
        let limits = wanted.limits || self.looks.is_multiple_of(LIMITS_EVERY);
        self.looks += 1;
        let request = Request::of(Kinds::ALL.iter()).waits().traffic();
        let request = if limits { request.limits() } else { request };
        let mut now = self.watch.look(&request);
        let last = self.last.take();
        let known = last.as_ref().map(|last| Arc::clone(&last.limits));
        let limits: Arc<Vec<Limit>> = match known {
            Some(known) if !limits => known,
            _ => Arc::new(std::mem::take(&mut now.limits)),
        };
        let channels = wanted.channels.then(|| {
            let around = look_around(&self.scopes, PATIENCE);
            Arc::new(Channels { at: Instant::now(), around })
        });
        let sample = Sample {
            now: Arc::new(now),
            before: last.as_ref().map(|last| Arc::clone(&last.now)),
            channels,
            channels_before: last.and_then(|last| last.channels),
            limits,
            took: started.elapsed(),
        };
        // What was before the last look is not needed any more.
        self.last = Some(Sample { before: None, channels_before: None, ..sample.clone() });
        sample
    }
}
