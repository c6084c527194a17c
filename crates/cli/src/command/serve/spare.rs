//! Descriptors that are kept back for the next process: else clients, each of whom has some, could take the last ones, and all of them wait
//! for a process that cannot be started.

use std::os::fd::{AsFd, OwnedFd};

use switchboard_kernel::io;

/// What starting a process takes for a moment: both ends of its standard input and output and of a pipe that says whether it could be
/// started, its descriptor, and what the programs of a search path are looked at with.
const COUNT: usize = 10;

/// Descriptors that stand for others.
#[derive(Debug, Default)]
pub(super) struct Spare {
    kept: Vec<OwnedFd>,
}

impl Spare {
    /// Keeps as many as there are to be, or as many as can be had; copies of this one.
    pub(super) fn keep(&mut self, of: impl AsFd) {
        while self.kept.len() < COUNT {
            let Ok(copy) = io::duplicate(&of) else { return };
            self.kept.push(copy);
        }
    }

    /// Lets them go, for what is started now.
    pub(super) fn release(&mut self) {
        self.kept.clear();
    }
}
