//! Processes of `serve` that were asked to end, with all that they started: a group of processes each.
//!
//! The first process of a group is not reaped before the group has ended: so its number stays its own, and a
//! signal to the group reaches nobody else (`kill(2)`, `setpgid(2)`).

use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::pidfd;
use switchboard_kernel::process::{self, Child};
use switchboard_kernel::signal::{self, Signal};

use crate::program::GRACE;

/// How often it is looked whether those who have ended have left others behind.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long those who were killed are waited for.
const KILLED_MOST: Duration = Duration::from_secs(1);

/// A group of processes, by its first one.
#[derive(Debug)]
pub(super) struct Group {
    first: Child,
    /// When it was asked to end.
    ending: Option<Instant>,
    killed: bool,
}

impl Group {
    /// That of a child which was started as the first of a new group.
    pub(super) fn of(first: Child) -> Self {
        Self { first, ending: None, killed: false }
    }

    pub(super) fn first(&mut self) -> &mut Child {
        &mut self.first
    }

    /// Asks all of them to end, and makes them after a while.
    pub(super) fn end(&mut self) {
        if self.ending.is_none() {
            self.signal(Signal::TERM);
        }
        let since = *self.ending.get_or_insert_with(Instant::now);
        if since.elapsed() >= GRACE && !std::mem::replace(&mut self.killed, true) {
            self.signal(Signal::KILL);
        }
    }

    fn signal(&self, signal: Signal) {
        // Those that have ended meanwhile, or became another user's, are not there to be signalled.
        let _ = signal::send_group(self.first.id(), signal);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// How long until those that were asked to end are made to; `None`: nothing is due.
    pub(super) fn ending_for(&self) -> Option<Duration> {
        let since = self.ending.filter(|_| !self.killed)?;
        Some(GRACE.saturating_sub(since.elapsed()))
    }

    /// Whether the first one has ended; nothing is reaped.
    pub(super) fn first_has_ended(&self) -> bool {
        pidfd::is_dead(self.first.pidfd()).unwrap_or(true)
    }

    /// Whether all of them have ended, as far as can be seen.
    fn has_ended(&self) -> bool {
        let all = process::group(self.first.id()).unwrap_or_default();
        self.first_has_ended() && all.iter().all(|one| one.state == 'Z')
    }
}

/// Those that were asked to end, and have nobody else to care for them.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    groups: Vec<Group>,
}

impl Leaving {
    /// Sees a group to its end.
    pub(super) fn add(&mut self, mut group: Group) {
        group.end();
        if !group.has_ended() {
            self.groups.push(group);
        }
    }

    /// Kills those whose time is over, and forgets those that have ended.
    pub(super) fn look(&mut self) {
        for group in &mut self.groups {
            group.end();
        }
        // Before it is over there is nothing to do, and looking takes a while.
        self.groups.retain(|group| !(group.killed && group.first_has_ended()));
    }

    /// How long nothing is to be done.
    pub(super) fn patience(&self) -> Option<Duration> {
        let of = |group: &Group| Some(group.ending_for().unwrap_or(LOOK_AGAIN));
        self.groups.iter().filter_map(of).min()
    }

    /// Waits for the end of all of them.
    pub(super) fn wait(&mut self) {
        loop {
            self.groups.iter_mut().for_each(Group::end);
            self.groups.retain(|group| !group.has_ended());
            let Some(group) = self.groups.first_mut() else { return };
            if group.killed {
                // They end at once, unless they are stuck in the kernel. The first one is waited for in any case.
                let since = Instant::now();
                while !group.has_ended() && since.elapsed() < KILLED_MOST {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let _ = group.first.wait(Deadline::NEVER);
                self.groups.remove(0);
                continue;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}
