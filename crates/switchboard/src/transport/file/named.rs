//! The place that a subscriber keeps under a name (`?reader=NAME`): in the file `readers/NAME`, which
//! is locked while one uses it.
//!
//! What is given counts as taken when the next message is asked for, or when it is acknowledged; the
//! place that is kept is never after what was taken. `docs/design/log.md` says how often it is kept.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_kernel::folder_file::{self as files, Access};

use crate::error::{Error, ErrorKind, RecvError};
use crate::log::Durability;
use crate::log::folder::Folder;
use crate::log::places::{FILE_BYTES, Kept, Places};
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
    name: String,
    /// The folder `readers`.
    readers: OwnedFd,
    /// None for a new name, until its place is [begun](Self::begin).
    file: Option<File>,
    places: Places,
    /// Both copies hold.
    is_whole: bool,
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
        let readers = folder.make_readers()?;
        let file = match files::open(&readers, OsStr::new(name), Access::ReadWrite) {
            Ok(file) => Some(File::from(file)),
            Err(error) if error.name() == "ENOENT" => None,
            Err(error) => return Err(folder.cannot_open(name, error)),
        };
        let mut kept = None;
        if let Some(file) = &file {
            if !folder.try_lock(file, 0)? {
                return Err(is_used(folder, name));
            }
            let read = read(file);
            kept = Some(read.map_err(|error| {
                folder.system("pread", &format!("cannot read the place of {name}"), error)
            })?);
        }
        let damage = match &kept {
            None | Some(Kept::Whole(_)) => None,
            Some(Kept::Half(_)) => {
                Some(("one copy of ", "messages that were received last may come again"))
            }
            Some(Kept::Damaged) => Some(("", "every message that is still there comes again")),
        };
        let report = damage.map(|(part, effect)| {
            let problem = format!("{part}the place of the reader {name} is damaged; {effect}");
            RecvError::Damaged { problem, missing: 0 }
        });
        let is_whole = report.is_none();
        let places = match kept {
            Some(Kept::Whole(places) | Kept::Half(places)) => *places,
            None | Some(Kept::Damaged) => Places::BEFORE_ALL,
        };
        let named = Self {
            folder: Arc::clone(folder),
            durability,
            name: name.to_owned(),
            readers,
            file,
            places,
            is_whole,
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
        self.file.is_none()
    }

    /// Its place in a lane: before the first message where the lane is new to it.
    pub(super) fn place(&self, lane: u32) -> u64 {
        self.places.get(lane).unwrap_or(1)
    }

    /// Sets where a new name begins in each lane, and keeps that. The file has its name when both copies are in
    /// it: one without is damaged.
    pub(super) fn begin(&mut self, at: &[(u32, u64)]) -> Result<(), Error> {
        for (lane, place) in at {
            self.places.set(*lane, *place);
        }
        let folder = Arc::clone(&self.folder);
        let hidden = folder.make_hidden(0)?;
        folder.try_lock(&hidden.file, 0)?;
        // From now on the file needs no more room.
        self.is_whole = false;
        self.write_to(&hidden.file)?;
        match hidden.show(&self.readers, &self.name) {
            Ok(file) => self.file = Some(file),
            Err(error) if error.name() == "EEXIST" => return Err(is_used(&folder, &self.name)),
            Err(error) => return Err(folder.kernel("cannot keep the place", error)),
        }
        if self.durability == Durability::Synced {
            files::sync(&self.readers)
                .map_err(|error| folder.kernel("cannot write the place to the disk", error))?;
            folder.sync_names()?;
        }
        Ok(())
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
        let Some(file) = self.file.take() else { return Ok(()) };
        let written = self.write_to(&file);
        self.file = Some(file);
        written
    }

    /// Writes the copy that does not count; where one does not hold, both.
    fn write_to(&mut self, file: &File) -> Result<(), Error> {
        for _ in 0..if self.is_whole { 1 } else { 2 } {
            let (at, bytes) = self.places.next_copy();
            file.write_all_at(&bytes, at)
                .map_err(|error| self.folder.system("pwrite", "cannot keep the place", error))?;
            if self.durability == Durability::Synced {
                file.sync_data().map_err(|error| {
                    self.folder.system("fdatasync", "cannot keep the place", error)
                })?;
            }
        }
        self.is_whole = true;
        Ok(())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // A child of fork would give its parent's name away.
        if !self.folder.is_here() {
            return;
        }
        // Who panics has not done with the last messages.
        if !std::thread::panicking() {
            self.ask();
        }
        // If it fails, the next one of this name gets some messages again.
        let _ = self.keep();
        if let Some(file) = &self.file {
            Folder::unlock(file, 0);
        }
    }
}

fn is_used(folder: &Folder, name: &str) -> Error {
    let problem = format!("a subscriber uses the name {name} already (?reader=)");
    Error::new(ErrorKind::AddressInUse, &folder.address, problem)
}

/// What a file holds, however long it is.
fn read(file: &File) -> io::Result<Kept> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(Places::parse(&bytes))
}

/// How far named subscribers are in a lane at most: no message may have a number below. Places that
/// this process may not read are left out.
pub(super) fn furthest(folder: &Folder, lane: u32) -> u64 {
    let Ok(readers) = folder.readers() else { return 1 };
    let Ok(entries) = files::entries(&readers) else { return 1 };
    let places = entries.into_iter().filter_map(|(name, _)| {
        let file = File::from(files::open(&readers, &name, Access::Read).ok()?);
        match read(&file).ok()? {
            Kept::Whole(places) | Kept::Half(places) => places.get(lane),
            Kept::Damaged => None,
        }
    });
    places.fold(1, u64::max)
}
