//! The table of a queue in its file: locked, read, and written so that a death leaves one whole copy.

use std::fs::File;
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use switchboard_kernel::file_lock::Guard;
use switchboard_kernel::folder_file::Access;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::mmap;

use crate::error::{Error, ErrorKind};
use crate::log::Durability;
use crate::log::folder::{Folder, TABLE, byte_lock};
use crate::log::reader::LaneReader;
use crate::log::table::{CLAIMS, COPIES_AT, LANES, LEAST_BYTES, MOST_BYTES, Table};

/// How long the table may stay locked by one that does nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file, with the locks that this receiver holds in it.
#[derive(Debug)]
pub(super) struct SharedTable {
    folder: Arc<Folder>,
    file: File,
    durability: Durability,
    /// For each lane: up to which message senders that wait for room were last told that all are settled.
    told: [AtomicU64; LANES],
}

/// A table that nobody else changes, until it is dropped.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    shared: &'a SharedTable,
    pub(super) table: Table,
    /// Whether both copies were as they should be.
    pub(super) found: Found,
    _guard: Guard<'a>,
}

/// What was found of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Both hold.
    Whole,
    /// One copy is damaged: the table may be an older one.
    Half,
    /// Neither copy holds: it begins anew.
    Nothing,
}

impl SharedTable {
    pub(super) fn open(folder: &Arc<Folder>, durability: Durability) -> Result<Self, Error> {
        let file = loop {
            match folder.open_file(TABLE, Access::ReadWrite) {
                Ok(file) => break file,
                Err(error) if error.name() == "ENOENT" => {}
                Err(error) => return Err(folder.cannot_open(TABLE, error)),
            }
            if let Some(file) = make(folder, durability)? {
                break file;
            }
        };
        let told = [const { AtomicU64::new(0) }; LANES];
        Ok(Self { folder: Arc::clone(folder), file, durability, told })
    }

    /// Locks and reads it; `None` when somebody else has it locked.
    pub(super) fn try_lock(&self) -> Result<Option<Locked<'_>>, Error> {
        let guard = byte_lock(0)
            .try_lock(&self.file)
            .map_err(|error| self.folder.kernel("cannot lock the queue's table", error))?;
        guard.map(|guard| self.locked(guard)).transpose()
    }

    /// Locks and reads it, waiting for others; they have it for a moment each.
    pub(super) fn lock(&self) -> Result<Locked<'_>, Error> {
        let guard = byte_lock(0)
            .lock_until(&self.file, Deadline::after(PATIENCE))
            .map_err(|error| self.folder.kernel("cannot lock the queue's table", error))?;
        let Some(guard) = guard else {
            let problem = "another receiver has kept the queue's table locked for 5 s";
            return Err(Error::new(ErrorKind::System, &self.folder.address, problem)
                .hint("is it stopped? `lslocks` shows who it is"));
        };
        self.locked(guard)
    }

    fn locked<'a>(&'a self, guard: Guard<'a>) -> Result<Locked<'a>, Error> {
        let failed = |error| self.folder.system("pread", "cannot read the queue's table", error);
        let (table, found) = read(&self.file).map_err(failed)?;
        Ok(Locked { shared: self, table, found, _guard: guard })
    }

    /// A claim that nobody uses or whose holder is dead becomes this receiver's.
    pub(super) fn try_hold(&self, claim: usize) -> Result<bool, Error> {
        self.folder.try_lock(&self.file, 1 + claim as u64)
    }

    /// Lets go of a claim of this receiver.
    pub(super) fn let_go(&self, claim: usize) {
        Folder::unlock(&self.file, 1 + claim as u64);
    }

    /// An empty claim for this receiver, which has those in `held` already.
    pub(super) fn free_claim(
        &self,
        table: &Table,
        is_held: impl Fn(usize) -> bool,
    ) -> Result<Option<usize>, Error> {
        for claim in (0..CLAIMS).filter(|claim| !is_held(*claim)) {
            if table.claims[claim].is_empty() && self.try_hold(claim)? {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// The error of a receiver for which no claim is left.
    pub(super) fn no_claim(&self) -> Error {
        let problem =
            format!("{CLAIMS} receivers use this queue at the same time; it takes no more");
        Error::new(ErrorKind::LimitReached, &self.folder.address, problem)
    }
}

impl Locked<'_> {
    /// Writes the table into the copy that does not count. A death in between leaves the other.
    /// After damage, both are written.
    pub(super) fn write(&mut self) -> Result<(), Error> {
        for _ in 0..if self.found == Found::Whole { 1 } else { 2 } {
            self.table.generation += 1;
            let shared = self.shared;
            write_copy(&shared.file, &self.table, shared.durability).map_err(|error| {
                shared.folder.system("pwrite", "cannot write the queue's table", error)
            })?;
        }
        self.found = Found::Whole;
        if self.table.next.iter().any(|next| *next > 1) {
            self.shared.folder.note_received();
        }
        self.tell_of_room();
        Ok(())
    }

    /// A lane counts for nothing once all that was handed out of it is settled: who waits for room looks again.
    fn tell_of_room(&self) {
        if !self.shared.folder.is_room_wanted() {
            return;
        }
        let mut is_news = false;
        for (lane, told) in self.shared.told.iter().enumerate() {
            let next = self.table.next[lane];
            if self.table.settled_before(lane as u32) == next {
                is_news |= told.swap(next, Relaxed) != next;
            }
        }
        if is_news {
            self.shared.folder.tell_of_room();
        }
    }
}

fn write_copy(file: &File, table: &Table, durability: Durability) -> io::Result<()> {
    let at = COPIES_AT[(table.generation % 2) as usize];
    file.write_all_at(&table.to_bytes(), at)?;
    if durability == Durability::Synced { file.sync_data() } else { Ok(()) }
}

/// Makes the table of a queue that has none, for its receivers. A sender whose own files may not be so long goes
/// without: the first receiver makes it then.
pub(super) fn make_if_missing(folder: &Folder, durability: Durability) -> Result<(), Error> {
    match folder.open_file(TABLE, Access::Read) {
        Err(error) if error.name() == "ENOENT" => match make(folder, durability) {
            Err(error) if error.system_name() == Some("EFBIG") => Ok(()),
            made => made.map(drop),
        },
        // What is wrong with it, who reads it says.
        _ => Ok(()),
    }
}

/// Makes the file, with both copies in it before it has its name: a file without one is damaged. Of
/// several that make it at the same time one wins; `None` for the others.
fn make(folder: &Folder, durability: Durability) -> Result<Option<File>, Error> {
    // Where messages were received before, there was a table: one without copies says that.
    let is_new = !was_received_from(folder)?;
    let hidden = folder.make_hidden(0)?;
    // All that it ever takes: who receives from a full disk makes room there.
    match mmap::reserve(&hidden.file, COPIES_AT[1] + MOST_BYTES as u64) {
        Err(error) if error.kind() != switchboard_kernel::ErrorKind::NotSupported => {
            return Err(folder.kernel("cannot reserve room for the queue's table", error));
        }
        _ => {}
    }
    let mut table = Table::default();
    let written = (0..2).filter(|_| is_new).try_for_each(|_| {
        table.generation += 1;
        write_copy(&hidden.file, &table, durability)
    });
    written.map_err(|error| folder.system("pwrite", "cannot make the queue's table", error))?;
    let file = match hidden.show(folder, TABLE) {
        Ok(file) => file,
        Err(error) if error.name() == "EEXIST" => return Ok(None),
        Err(error) => return Err(folder.kernel("cannot make the queue's table", error)),
    };
    if durability == Durability::Synced {
        folder.sync_names()?;
    }
    Ok(Some(file))
}

/// Whether messages were received already: that is noted, or a lane does not begin with its first one any more.
fn was_received_from(folder: &Folder) -> Result<bool, Error> {
    if folder.was_received_from() {
        return Ok(true);
    }
    let segments = folder.segments()?;
    let mut oldest = segments.chunk_by(|a, b| a.0 == b.0).filter_map(|lane| lane.first());
    let begins_later = |(lane, number): &(u32, u64)| {
        folder.header(*lane, *number).is_some_and(|header| header.first_sequence > 1)
    };
    Ok(oldest.any(begins_later))
}

/// The table as it is now, which others may change meanwhile; a new one where there is none.
pub(super) fn read_unlocked(folder: &Folder) -> Result<Table, Error> {
    match folder.open_file(TABLE, Access::Read) {
        Ok(file) => Ok(read(&file)
            .map_err(|error| folder.system("pread", "cannot read the queue's table", error))?
            .0),
        Err(error) if error.name() == "ENOENT" => Ok(Table::default()),
        Err(error) => Err(folder.cannot_open(TABLE, error)),
    }
}

fn read(file: &File) -> io::Result<(Table, Found)> {
    let first = read_copy(file, COPIES_AT[0])?;
    let second = read_copy(file, COPIES_AT[1])?;
    let found = match (&first, &second) {
        (Some(_), Some(_)) => Found::Whole,
        (None, None) => Found::Nothing,
        _ => Found::Half,
    };
    Ok((Table::newer(first, second).unwrap_or_default(), found))
}

fn read_copy(file: &File, at: u64) -> io::Result<Option<Table>> {
    let mut bytes = vec![0; LEAST_BYTES];
    let len = match read_up_to(file, &mut bytes, at)? {
        LEAST_BYTES => Table::len_bytes(&bytes),
        _ => None,
    };
    let Some(len) = len else { return Ok(None) };
    bytes.resize(len, 0);
    let rest = read_up_to(file, &mut bytes[LEAST_BYTES..], at + LEAST_BYTES as u64)?;
    Ok(if LEAST_BYTES + rest == len { Table::parse(&bytes) } else { None })
}

/// Reads until the buffer is full, or the file ends. How many bytes that were.
fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], at + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == Io::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Removes segments of which every message is settled; whether there was one. The newest of each lane stays.
pub(super) fn prune_settled(folder: &Arc<Folder>, table: &Table) -> Result<bool, Error> {
    let segments = folder.segments()?;
    let mut removed = false;
    for pair in segments.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        let (lane, number) = pair[0];
        let next = LaneReader::at_message(Arc::clone(folder), lane, 1).peek(pair[1].1);
        if next.is_some_and(|next| next.first_sequence <= table.settled_before(lane)) {
            removed |= folder.remove_segment(lane, number)?;
        }
    }
    if removed {
        folder.changed();
    }
    Ok(removed)
}
