//! A run that is read: what it removed, what it left half done, and what it holds.
//!
//! Source: docs/design/clean.md, "The journal". Nothing in it is trusted: whoever has the user's rights can write there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use switchboard_kernel::folder_file::{self, Access};
use switchboard_kernel::private_folder;

use super::run::{LOG, append, lock, unlock};
use super::{Entry, FORMAT, Line, MOST_OBJECTS, Waiting, body, line};
use crate::error::{Error, Reason, Result};

/// A longer log is none.
const LONGEST_LOG: u64 = 256 << 20;

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was closed, and nothing says that it was opened again or removed.
    Closed,
    /// It was about to be removed.
    Removing,
    /// Its messages were being put back.
    Returning,
    /// It is gone.
    Removed,
    /// It stayed.
    Opened,
    /// It was about to be made again.
    Restoring,
    /// It is there again, as this.
    Restored(String),
}

/// An object of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it was.
    pub entry: Entry,
    /// What became of it.
    pub state: State,
    /// Bytes of its body and their CRC-32C; none: it was not saved.
    pub body: Option<(u64, u32)>,
    pub(crate) hidden: Option<String>,
    /// The last message that was about to be put back, and what the queue had in it then.
    pub(crate) sending: Option<(u32, Waiting)>,
}

/// A run that was read.
#[derive(Debug)]
pub struct SavedRun {
    /// Its name.
    pub name: String,
    /// When it began, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The IPC namespace that it worked in.
    pub ipc: Option<u64>,
    /// Its objects, by number.
    pub objects: BTreeMap<u32, Kept>,
    /// The log ends in the middle of a line, or with something that is none.
    pub is_torn: bool,
    folder: OwnedFd,
    log: File,
}

impl SavedRun {
    pub(super) fn read(parent: &OwnedFd, name: &str) -> Result<Self> {
        let damaged = |why: String| Error::new(Reason::Damaged, format!("run {name}: {why}"));
        let failed = |error| Error::call(&format!("run {name}"), error);
        let folder = private_folder::open_at(parent, OsStr::new(name)).map_err(failed)?;
        let log = folder_file::open(&folder, OsStr::new(LOG), Access::ReadWrite).map_err(failed)?;
        let log = File::from(log);
        let mut text = Vec::new();
        let read = (&log).take(LONGEST_LOG).read_to_end(&mut text);
        read.map_err(|error| Error::io(&format!("run {name}"), &error))?;
        let (lines, is_torn) = line::lines(&text);
        let mut lines = lines.into_iter();
        let Some(Line::Begun { format, unix_ms, ipc }) = lines.next() else {
            return Err(damaged("its log has no beginning".to_owned()));
        };
        if format != FORMAT {
            return Err(damaged(format!("format {format}, and this program reads {FORMAT}")));
        }
        let name = name.to_owned();
        let objects = BTreeMap::new();
        let mut run = Self { name, unix_ms, ipc, objects, is_torn, folder, log };
        lines.for_each(|line| run.take(line));
        Ok(run)
    }

    fn take(&mut self, line: Line) {
        let (number, state) = match line {
            Line::Object { entry, hidden } if entry.number <= MOST_OBJECTS => {
                let number = entry.number;
                let (state, body, sending) = (State::Closed, None, None);
                let kept = Kept { entry, state, body, hidden, sending };
                self.objects.entry(number).or_insert(kept);
                return;
            }
            Line::Saved { number, bytes, crc } => {
                if let Some(kept) = self.objects.get_mut(&number) {
                    kept.body = Some((bytes, crc));
                }
                return;
            }
            Line::Sending { number, index, messages, bytes } => {
                if let Some(kept) = self.objects.get_mut(&number) {
                    kept.sending = Some((index, Waiting { messages, bytes }));
                }
                return;
            }
            Line::Removing { number } => (number, State::Removing),
            Line::Returning { number } => (number, State::Returning),
            Line::Removed { number } => (number, State::Removed),
            Line::Opened { number } => (number, State::Opened),
            Line::Restoring { number } => (number, State::Restoring),
            Line::Restored { number, object } => {
                let object = switchboard_inspect::text::tamed(object);
                (number, State::Restored(object))
            }
            Line::Begun { .. } | Line::Object { .. } => return,
        };
        if let Some(kept) = self.objects.get_mut(&number) {
            kept.state = state;
        }
    }

    /// Keeps other processes from working on it.
    ///
    /// # Errors
    /// [`Reason::InUse`]: one does.
    pub fn lock(&self) -> Result<()> {
        lock(&self.log)
    }

    /// The body of an object; not checked.
    pub(crate) fn body(&self, number: u32) -> Result<File> {
        let name = body::name(number);
        let open = folder_file::open(&self.folder, OsStr::new(&name), Access::ReadWrite);
        open.map(File::from).map_err(|error| Error::call("what it held", error))
    }

    pub(crate) fn write(&self, line: &Line) -> Result<()> {
        append(&self.log, line)
    }
}

impl Drop for SavedRun {
    fn drop(&mut self) {
        unlock(&self.log);
    }
}

/// Bytes of contents that a run holds on the disk.
pub(super) fn held_bytes(parent: &OwnedFd, name: &str) -> u64 {
    let Ok(folder) = private_folder::open_at(parent, OsStr::new(name)) else { return 0 };
    let entries = folder_file::entries(&folder).unwrap_or_default();
    let sizes = entries.into_iter().filter_map(|(name, _)| {
        let file = folder_file::open(&folder, &name, Access::Read).ok()?;
        Some(File::from(file).metadata().ok()?.blocks().saturating_mul(512))
    });
    sizes.sum()
}

/// Removes a run.
pub(super) fn forget(parent: &OwnedFd, name: &str) -> Result<()> {
    let failed = |error| Error::call(&format!("run {name}"), error);
    let folder = private_folder::open_at(parent, OsStr::new(name)).map_err(failed)?;
    let log = folder_file::open(&folder, OsStr::new(LOG), Access::ReadWrite).map(File::from);
    if let Ok(log) = &log {
        lock(log)?;
        unlock(log);
    }
    let mut names = private_folder::names(&folder).map_err(failed)?;
    // The log last: what is left of a run that was removed in part is still one.
    names.sort_by_key(|name| name == LOG);
    for file in names {
        folder_file::remove(&folder, &file).map_err(failed)?;
    }
    private_folder::remove_at(parent, OsStr::new(name)).map_err(failed).map(drop)
}
