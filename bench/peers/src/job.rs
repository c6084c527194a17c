//! What is measured, and what one process of a measurement is told to do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::figures::size;

/// Figures by name: what a process found out.
pub(crate) type Report = BTreeMap<String, f64>;

/// What is asked about a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// Half of a round trip, both sides polling
    Latency,
    /// A call and its reply: a round trip, both sides polling
    Service,
    /// Messages a second, all of them received
    Stream,
    /// Publishing to processes that subscribe and do not read
    Publish,
    /// Half of a round trip, both sides sleeping in between
    Sleep,
    /// From opening to the first message received
    Open,
}

impl Measure {
    pub(crate) const ALL: [Self; 6] =
        [Self::Latency, Self::Service, Self::Stream, Self::Publish, Self::Sleep, Self::Open];

    /// The figure that is compared.
    pub(crate) fn figure(self) -> &'static str {
        match self {
            Self::Latency | Self::Service | Self::Sleep => "p50_ns",
            Self::Stream => "per_second",
            Self::Publish => "each_ns",
            Self::Open => "p50_us",
        }
    }
}

/// How payload is written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Manner {
    /// As the contender does it with the least work
    Best,
    /// Written where the receiver reads it, which reads it there
    InPlace,
    /// From a buffer of the sender's into one of the receiver's
    Copied,
    /// Loaned, sent and received; nobody looks inside
    Untouched,
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) measure: Measure,
    pub(crate) bytes: usize,
    pub(crate) manner: Manner,
    pub(crate) same_core: bool,
    /// Processes that subscribe; 1 unless publishing is measured.
    pub(crate) subscribers: usize,
}

impl Case {
    fn new(measure: Measure, bytes: usize, manner: Manner) -> Self {
        Self { measure, bytes, manner, same_core: false, subscribers: 1 }
    }

    /// All cases of a measure.
    pub(crate) fn all(measure: Measure, subscribers: &[usize]) -> Vec<Self> {
        let new = |bytes, manner| Self::new(measure, bytes, manner);
        match measure {
            Measure::Latency => [8, 64, 256, 1 << 10, 4 << 10, 8 << 10, 64 << 10]
                .map(|bytes| new(bytes, Manner::Best))
                .into_iter()
                .chain([new(1 << 20, Manner::Untouched)])
                .collect(),
            Measure::Service => vec![new(32, Manner::Best)],
            Measure::Stream => vec![
                new(64, Manner::Best),
                new(64 << 10, Manner::Copied),
                new(64 << 10, Manner::InPlace),
            ],
            Measure::Publish => {
                let with = |&subscribers| Self { subscribers, ..new(64, Manner::Best) };
                subscribers.iter().map(with).collect()
            }
            Measure::Sleep => {
                [true, false].map(|same_core| Self { same_core, ..new(64, Manner::Best) }).to_vec()
            }
            Measure::Open => vec![new(64, Manner::Best)],
        }
    }

    /// What the columns are called.
    pub(crate) fn name(&self) -> String {
        match (self.measure, self.manner) {
            (Measure::Publish, _) if self.subscribers == 1 => "1 subscriber".to_owned(),
            (Measure::Publish, _) => format!("{} subscribers", self.subscribers),
            (Measure::Sleep, _) if self.same_core => "same core".to_owned(),
            (Measure::Sleep, _) => "two cores".to_owned(),
            (_, Manner::Best) => size(self.bytes),
            (_, Manner::InPlace) => format!("{} in place", size(self.bytes)),
            (_, Manner::Copied) => format!("{} copied", size(self.bytes)),
            (_, Manner::Untouched) => format!("{} untouched", size(self.bytes)),
        }
    }
}

/// Which process of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    /// Begins: sends first, publishes
    Near,
    /// Answers, or receives
    Far,
    /// Subscribes and does nothing more
    Idle,
}

/// What one process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) contender: String,
    pub(crate) case: Case,
    pub(crate) side: Side,
    pub(crate) count: usize,
    pub(crate) warm_up: usize,
    pub(crate) cpu: Option<usize>,
    /// Who started it: it does not outlive that process.
    pub(crate) parent: i32,
    /// Begins every name that this measurement makes outside its folder.
    pub(crate) prefix: String,
    /// Different for each run.
    pub(crate) run: u64,
    /// In memory; removed when all is over.
    pub(crate) folder: PathBuf,
    /// What the bare programs cycle through: with messages of up to a quarter of it, and with larger ones.
    pub(crate) footprints_bytes: (usize, usize),
}
