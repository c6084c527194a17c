//! The place that a subscriber keeps under a name (`?reader=NAME`): in the file `readers/NAME`, which
//! is locked while one uses it.
//!
//! What is given counts as taken when the next message is asked for, or when it is acknowledged; the
//! place that is kept is never after what was taken. `docs/design/log.md` says how often it is kept.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, RecvError};
use crate::log::Durability;
use crate::log::folder::{Folder, READERS};
use crate::log::places::{Kept, Places};
use crate::log::progress::Progress;

/// The place is kept after so many messages: as many come again after a death.
const MOST_UNKEPT: usize = 256;
/// The place is kept after so long, when messages come slower than that.
const LONGEST_UNKEPT: Duration = Duration::from_secs(1);

/// A place that is kept under a name.
#[derive(Debug)]
pub(super) struct Named {
    folder: Arc<Folder>,
    durability: Durability,
    file: File,
    places: Places,
    is_new: bool,
    /// How far it is, in the lanes of which it was given something.
    progress: Vec<(u32, Progress)>,
    /// What is given counts when it is acknowledged, not when the next message is asked for.
    by_acknowledgement: bool,
    /// Messages given since the place was kept.
    given: usize,
    /// Something was given since the next message was asked for.
    is_open: bool,
    /// Something was taken since the place was kept.
    changed: bool,
    kept_at: Instant,
}

impl Named {
    /// Opens the place of this name, with what is wrong with it.
    ///
    /// # Errors
    /// `AddressInUse` when another subscriber uses the name.
    pub(super) fn open(
        folder: &Arc<Folder>,
        name: &str,
        durability: Durability,
    ) -> Result<(Self, Option<RecvError>), Error> {
        let path = folder.make_readers()?.join(name);
        let file = folder.open_or_make(&path)?;
        if !folder.try_lock(&file, 0)? {
            let problem = format!("a subscriber uses the name {name} already (?reader=)");
            return Err(Error::new(ErrorKind::AddressInUse, &folder.address, problem));
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &file, &mut bytes)
            .map_err(|error| folder.system("cannot read the place", error))?;
        let kept = Places::parse(&bytes);
        let report = (kept == Kept::Damaged).then(|| {
            let problem = format!(
                "the place of the reader {name} is damaged; every message that is still there comes \
                 again"
            );
            RecvError::Damaged { problem, missing: 0 }
        });
        let is_new = kept == Kept::Nothing;
        let places = match kept {
            Kept::Places(places) => *places,
            Kept::Nothing | Kept::Damaged => Places::BEFORE_ALL,
        };
        let named = Self {
            folder: Arc::clone(folder),
            durability,
            file,
            places,
            is_new,
            progress: Vec::new(),
            by_acknowledgement: false,
            given: 0,
            is_open: false,
            changed: false,
            kept_at: Instant::now(),
        };
        Ok((named, report))
    }

    /// Whether nobody of this name has been here before.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Its place in a lane: before the first message where the lane is new to it.
    pub(super) fn place(&self, lane: u32) -> u64 {
        self.places.get(lane).unwrap_or(1)
    }

    /// Sets where it begins in each lane, and keeps that.
    pub(super) fn begin(&mut self, at: &[(u32, u64)]) -> Result<(), Error> {
        for (lane, place) in at {
            self.places.set(*lane, *place);
        }
        // Both copies: from now on the file needs no more room.
        self.write()?;
        self.write()
    }

    /// From now on a message counts as taken when it is acknowledged.
    pub(super) fn count_acknowledged(&mut self) {
        self.by_acknowledgement = true;
    }

    /// How many messages may be given before the next one has to be asked for.
    pub(super) fn room(&self) -> usize {
        MOST_UNKEPT.saturating_sub(self.given)
    }

    /// A message is given.
    pub(super) fn give(&mut self, lane: u32, sequence: u64) {
        let at = self.progress.iter().position(|(of, _)| *of == lane).unwrap_or_else(|| {
            self.progress.push((lane, Progress::at(self.place(lane))));
            self.progress.len() - 1
        });
        self.progress[at].1.give(sequence);
        self.given += 1;
        self.is_open = true;
    }

    /// A message is acknowledged. Whether it was not.
    pub(super) fn acknowledge(&mut self, lane: u32, sequence: u64) -> bool {
        let mut of = self.progress.iter_mut().filter(|(of, _)| *of == lane);
        let taken = of.any(|(_, progress)| progress.take(sequence));
        self.changed |= taken;
        taken
    }

    /// The next message is asked for: what was given before counts as taken.
    pub(super) fn ask(&mut self) {
        if !self.by_acknowledgement && std::mem::take(&mut self.is_open) {
            self.progress.iter_mut().for_each(|(_, progress)| progress.take_all());
            self.changed = true;
        }
    }

    /// Keeps the place if it is time to.
    pub(super) fn keep_if_due(&mut self) -> Result<(), Error> {
        let due =
            self.changed && (self.given >= MOST_UNKEPT || self.kept_at.elapsed() >= LONGEST_UNKEPT);
        if due { self.keep() } else { Ok(()) }
    }

    /// Keeps the place, if it has changed.
    pub(super) fn keep(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        for (lane, progress) in &self.progress {
            self.places.set(*lane, progress.place());
        }
        self.given = 0;
        self.kept_at = Instant::now();
        self.write()
    }

    fn write(&mut self) -> Result<(), Error> {
        let (at, bytes) = self.places.next_copy();
        let written = self.file.write_all_at(&bytes, at).and_then(|()| match self.durability {
            Durability::Synced => self.file.sync_data(),
            Durability::Memory | Durability::Written => Ok(()),
        });
        written.map_err(|error| self.folder.system("cannot keep the place", error))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // Who panics has not done with the last messages.
        if !std::thread::panicking() {
            self.ask();
        }
        // If it fails, the next one of this name gets some messages again.
        let _ = self.keep();
        Folder::unlock(&self.file, 0);
    }
}

/// How far named subscribers are in a lane at most: no message may have a number below. Places that
/// this process may not read are left out.
pub(super) fn furthest(folder: &Folder, lane: u32) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder.path().join(READERS)) else { return 1 };
    let places = entries.flatten().filter_map(|entry| {
        let bytes = std::fs::read(entry.path()).ok()?;
        match Places::parse(&bytes) {
            Kept::Places(places) => places.get(lane),
            Kept::Nothing | Kept::Damaged => None,
        }
    });
    places.fold(1, u64::max)
}
