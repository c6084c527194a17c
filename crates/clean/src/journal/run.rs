//! A run that is being written.
//!
//! Source: docs/design/clean.md, "The journal".

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use switchboard_kernel::{folder_file, private_folder};

use super::{Entry, FORMAT, Line, MOST_OBJECTS, line, unix_ms};
use crate::error::{Error, Reason, Result};

/// A run; its log is locked as long as this lives.
#[derive(Debug)]
pub struct Run {
    parent: OwnedFd,
    folder: OwnedFd,
    log: File,
    name: String,
    left_bytes: u64,
    next: u32,
    removed: u32,
}

/// The log's name.
pub(super) const LOG: &str = "log";

impl Run {
    pub(super) fn begin(parent: &OwnedFd, name: String, left_bytes: u64) -> Result<Self> {
        let failed = |error| Error::call("beginning a run in the journal", error);
        let copy = parent.try_clone().map_err(|error| Error::io("journal", &error))?;
        let folder = private_folder::make_at(parent, OsStr::new(&name)).map_err(failed)?;
        let log = File::from(folder_file::create(&folder, OsStr::new(LOG)).map_err(failed)?);
        lock(&log)?;
        let run = Self { parent: copy, folder, log, name, left_bytes, next: 1, removed: 0 };
        let ipc = switchboard_inspect::source::folder::Folder::open("/proc/self").ok();
        let ipc = ipc.and_then(|own| own.namespace("ns/ipc"));
        run.write(&Line::Begun { format: FORMAT, unix_ms: unix_ms(), ipc })?;
        folder_file::sync(parent).map_err(failed)?;
        Ok(run)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How much more it may hold.
    #[must_use]
    pub fn left_bytes(&self) -> u64 {
        self.left_bytes
    }

    /// Ends it. One that removed nothing goes.
    ///
    /// # Errors
    /// [`Reason::Failed`].
    pub fn end(self) -> Result<()> {
        if self.removed > 0 {
            return self.sync();
        }
        unlock(&self.log);
        super::saved::forget(&self.parent, &self.name)
    }

    /// The number of the next object.
    pub(crate) fn number(&mut self) -> Result<u32> {
        if self.next > MOST_OBJECTS {
            let why = format!("a run has at most {MOST_OBJECTS} objects: run it again");
            return Err(Error::new(Reason::TooLarge, why));
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    pub(crate) fn enter(&mut self, entry: Entry, hidden: Option<String>) -> Result<()> {
        self.write(&Line::Object { entry, hidden })
    }

    /// A new file for what an object holds.
    pub(crate) fn body(&mut self, number: u32, most_bytes: u64) -> Result<File> {
        if most_bytes > self.left_bytes {
            return Err(Error::new(
                Reason::TooLarge,
                format!(
                    "it holds {most_bytes} bytes, and the journal has room for {}: see --journal-limit and `switchboard restore --forget`",
                    self.left_bytes
                ),
            ));
        }
        let made = folder_file::create(&self.folder, OsStr::new(&super::body::name(number)));
        made.map(File::from).map_err(|error| Error::call("keeping what it holds", error))
    }

    /// What is in the body counts, and is on the disk.
    pub(crate) fn saved(&mut self, number: u32, body: Option<&File>, crc: u32) -> Result<u64> {
        let failed = |error| Error::io("keeping what it holds", &error);
        let mut bytes = 0;
        if let Some(body) = body {
            body.sync_all().map_err(failed)?;
            bytes = body.metadata().map_err(failed)?.len();
            self.left_bytes = self.left_bytes.saturating_sub(bytes);
        }
        self.write(&Line::Saved { number, bytes, crc })?;
        self.write(&Line::Removing { number })?;
        self.sync()?;
        Ok(bytes)
    }

    pub(crate) fn removed(&mut self, number: u32) -> Result<()> {
        self.removed += 1;
        self.write(&Line::Removed { number })
    }

    /// It stays, and what its body has is of no use.
    pub(crate) fn opened(&mut self, number: u32) -> Result<()> {
        let written = self.write(&Line::Opened { number });
        let _ = folder_file::remove(&self.folder, OsStr::new(&super::body::name(number)));
        written
    }

    pub(crate) fn write(&self, line: &Line) -> Result<()> {
        append(&self.log, line)
    }

    fn sync(&self) -> Result<()> {
        let failed = |error| Error::io("writing the journal", &error);
        self.log.sync_data().map_err(failed)?;
        folder_file::sync(&self.folder).map_err(|error| Error::call("writing the journal", error))
    }
}

/// Adds a line with one write.
pub(super) fn append(mut log: &File, line: &Line) -> Result<()> {
    use std::io::{Seek, SeekFrom};
    let too_long = || Error::new(Reason::TooLarge, "what there is to write of it is too long");
    let bytes = line::written(line).ok_or_else(too_long)?;
    let failed = |error| Error::io("writing the journal", &error);
    log.seek(SeekFrom::End(0)).map_err(failed)?;
    log.write_all(&bytes).map_err(failed)
}

impl Drop for Run {
    fn drop(&mut self) {
        unlock(&self.log);
    }
}

/// Lets go of a log for good: a child that was forked this moment has the lock, too, until it starts its program.
pub(super) fn unlock(log: &File) {
    let _ = rustix::fs::flock(log, FlockOperation::Unlock);
}

/// Takes a log for this process; whoever has it is at work.
pub(super) fn lock(log: &File) -> Result<()> {
    match rustix::fs::flock(log, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            Err(Error::new(Reason::InUse, "another process is at work on this run"))
        }
        Err(errno) => Err(Error::errno("journal", "flock", errno)),
    }
}
