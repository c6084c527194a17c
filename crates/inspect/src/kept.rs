//! What is kept of processes that do not run, from look to look: what they hold cannot have changed.
//!
//! Source: docs/design/inspect.md, "Reading"; the kernel's `Documentation/scheduler/sched-stats.rst`.
//!
//! A process that was not given a processor between two looks has opened, closed and mapped nothing. What it holds was read in between,
//! so it is still true, and at the next look, too, unless it has run by then. Others can change what a descriptor says: those that
//! have something to say are read each time. They can also rename or remove files that it has open, so all is read again after some looks.

use std::sync::Arc;

use crate::collect::Found;
use crate::model::Process;
use crate::source::descriptors::{Descriptor, Plain, What};
use crate::source::folder::Folder;
use crate::source::maps::Mapped;
use crate::source::process::Stat;
use crate::source::schedule;
use crate::waits::Asleep;

/// What a process holds is read again after so many looks, whether it ran or not; not that of all at the same one.
const MOST_LOOKS: u32 = 10;

/// A process that did not run between two looks.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    what: Arc<Held>,
    /// How often it was taken for true.
    looks: u32,
}

#[derive(Debug)]
struct Held {
    process: Process,
    asleep: Vec<Asleep>,
    descriptors: Vec<Descriptor>,
    files: Vec<Plain>,
    mapped: Vec<Mapped>,
}

impl Kept {
    /// What was read of a process, if it is worth to be kept: nothing of it ran since the look before, and nothing of it changes by
    /// others. `was_kept`: until now, which was too long.
    pub(crate) fn of(found: &Found, was_kept: bool) -> Option<Self> {
        let process = &found.process;
        let worth = process.readable
            && !process.io_uring
            && !found.asleep.is_empty()
            && found.asleep.iter().all(Asleep::is_as_before)
            && found.descriptors.iter().all(|one| stays(&one.what));
        worth.then(|| Self {
            what: Arc::new(Held {
                process: process.clone(),
                asleep: found.asleep.clone(),
                descriptors: found.descriptors.clone(),
                files: found.files.clone(),
                mapped: found.mapped.clone(),
            }),
            looks: if was_kept { 0 } else { process.pid % MOST_LOOKS },
        })
    }

    /// The process again, if it is the same one and none of its threads ran.
    pub(crate) fn again(
        &self,
        folder: &Folder,
        stat: &Stat,
        buffer: &mut Vec<u8>,
    ) -> Option<Found> {
        let Held { process, asleep, descriptors, files, mapped } = &*self.what;
        let count = usize::try_from(stat.threads).ok()?;
        let is_same = process.started_ticks == stat.started_ticks
            && process.state == stat.state
            && process.threads.len() == count;
        if !is_same || self.looks >= MOST_LOOKS {
            return None;
        }
        for (thread, asleep) in process.threads.iter().zip(asleep) {
            if count == 1 {
                folder.read_record(c"schedstat", buffer).ok()?;
            } else {
                folder.read_record(format!("task/{}/schedstat", thread.tid), buffer).ok()?;
            }
            if schedule::runs(buffer)? != asleep.runs? {
                return None;
            }
        }
        let mut process = process.clone();
        process.parent = stat.parent;
        Some(Found {
            process,
            asleep: asleep.clone(),
            descriptors: descriptors.clone(),
            files: files.clone(),
            mapped: mapped.clone(),
            in_flight: Vec::new(),
            rings: Vec::new(),
            kept: Some(Self { what: Arc::clone(&self.what), looks: self.looks + 1 }),
        })
    }
}

/// Whether nobody else changes what is known of it.
fn stays(what: &What) -> bool {
    match what {
        What::Pipe { .. }
        | What::Socket(_)
        | What::Epoll(_)
        | What::Signalfd(_)
        | What::Inotify(_)
        | What::Master(_)
        | What::Slave(_) => true,
        What::File(file) => file.locks.is_empty() && !file.kind.is_some_and(crate::Kind::is_memory),
        What::Eventfd(..) | What::Timerfd(_) | What::Pidfd(..) | What::IoUring => false,
    }
}
