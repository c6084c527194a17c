//! Where a tortured end sits: its number, the ledger, and what all ends do alike.

use std::time::Duration;

use switchboard::{Bytes, Error, Options, Receiver, RecvError, Sender};

use super::super::ends::{self, Pattern};
use super::ledger::{Ledger, Of, Phase};
use crate::conformance::contents::Random;

/// Nothing that an end waits for takes longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// One end's place.
pub(super) struct Desk {
    pub(super) ledger: Ledger,
    pub(super) seat: usize,
    pub(super) random: Random,
    scope: String,
}

/// What there is to talk about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Queue,
    /// A topic that waits for its subscribers.
    Block,
    /// A topic that does not.
    DropOldest,
}

impl Channel {
    /// Of a ring so small that it is full now and then, and that messages of 2 KiB are large ones.
    fn address(self, scope: &str) -> String {
        let (name, overflow) = match self {
            Self::Queue => ("queue", ""),
            Self::Block => ("block", "&overflow=block"),
            Self::DropOldest => ("drop-oldest", "&overflow=drop-oldest"),
        };
        format!("shm:{name}?scope={scope}&capacity=8192{overflow}")
    }

    fn pattern(self) -> Pattern {
        if self == Self::Queue { Pattern::Queue } else { Pattern::Topic }
    }

    /// A sender or a publisher.
    pub(super) fn writer(self, address: &str, options: Options) -> Result<Sender<Bytes>, Error> {
        ends::writer(self.pattern(), address, options)
    }

    /// A receiver or a subscriber.
    pub(super) fn reader(self, address: &str, options: Options) -> Result<Receiver<Bytes>, Error> {
        ends::reader(self.pattern(), address, options)
    }
}

impl Desk {
    pub(super) fn new(ledger: Ledger, seat: usize, scope: &str) -> Self {
        let random = Random::new(Random::seed() ^ seat as u64 ^ u64::from(std::process::id()));
        Self { ledger, seat, random, scope: scope.to_owned() }
    }

    pub(super) fn address(&self, channel: Channel) -> String {
        channel.address(&self.scope)
    }

    /// Of an end that is driven by its caller now and then.
    pub(super) fn options(&mut self) -> Options {
        Options::default().linger(Some(PATIENCE)).follow(true).io_thread(self.random.below(4) > 0)
    }

    /// Whether something that happens once in so many times happens now.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        self.random.below(times) == 0
    }

    /// How long a message is: one in eight is large.
    pub(super) fn len_bytes(&mut self) -> usize {
        let most = if self.once_in(8) { 6000 } else { 300 };
        usize::try_from(self.random.below(most)).unwrap_or_default()
    }

    /// How long to wait for a message: mostly for a moment, sometimes for longer than anybody sleeps who is not
    /// woken.
    pub(super) fn timeout(&mut self) -> Duration {
        if self.once_in(2) {
            Duration::from_micros(self.random.below(5000))
        } else {
            Duration::from_millis(1500)
        }
    }

    /// Does nothing for a moment, most of the time for none.
    pub(super) fn pause(&mut self) {
        if self.once_in(16) {
            std::thread::sleep(Duration::from_micros(self.random.below(500)));
        }
    }

    pub(super) fn beat(&self) {
        self.ledger.beat(self.seat);
    }

    /// Says that it has closed for good.
    pub(super) fn gone(&self) {
        self.ledger.of_seat(self.seat, Of::Gone).store(1, std::sync::atomic::Ordering::SeqCst);
    }

    /// Says that something does not hold.
    pub(super) fn must(&self, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            self.ledger.fail(&format!("seat {}: {what}", self.seat));
        }
    }

    /// In [`Phase::Settle`]: `look` is done now and then, until another phase comes.
    pub(super) fn settle(&self, mut look: impl FnMut()) {
        let waits = self.ledger.of_seat(self.seat, Of::Waits);
        waits.store(1, std::sync::atomic::Ordering::SeqCst);
        while self.ledger.phase() == Phase::Settle {
            look();
            self.beat();
            std::thread::sleep(Duration::from_millis(1));
        }
        waits.store(0, std::sync::atomic::Ordering::SeqCst);
    }
}

/// The process that a report is about, and how many messages it says there were of it: `process 12 (name)`.
pub(super) fn dead(error: &RecvError) -> Option<(u32, u64)> {
    let RecvError::PeerDied { peer, received } = error else { return None };
    Some((process(peer)?, *received))
}

/// The process that a peer's description names.
pub(super) fn process(peer: &str) -> Option<u32> {
    peer.strip_prefix("process ")?.split(' ').next()?.parse().ok()
}
