//! The table of a queue in its file: locked, read, and written so that a death leaves one whole copy.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use switchboard_kernel::file_lock::Guard;
use switchboard_kernel::io::Deadline;

use crate::error::{Error, ErrorKind};
use crate::log::Durability;
use crate::log::folder::{Folder, TABLE, byte_lock};
use crate::log::reader::LaneReader;
use crate::log::table::{CLAIMS, TABLE_BYTES, Table};

/// Where the two copies are.
const COPIES_AT: [u64; 2] = [4096, 8192];
/// How long the table may stay locked by one that does nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file, with the locks that this receiver holds in it.
#[derive(Debug)]
pub(super) struct SharedTable {
    folder: Arc<Folder>,
    file: File,
    durability: Durability,
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
    /// Nothing is wrong; or there is no table yet.
    Whole,
    /// One copy is damaged: the table may be an older one.
    Half,
    /// Neither copy holds: it begins anew.
    Nothing,
}

impl SharedTable {
    pub(super) fn open(folder: &Arc<Folder>, durability: Durability) -> Result<Self, Error> {
        let file = folder.open_or_make(&folder.path().join(TABLE))?;
        Ok(Self { folder: Arc::clone(folder), file, durability })
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
        let failed = |error| self.folder.system("cannot read the queue's table", error);
        let (table, found) = read(&self.file).map_err(failed)?;
        Ok(Locked { shared: self, table, found, _guard: guard })
    }

    /// A claim that nobody uses or whose holder is dead becomes this receiver's.
    pub(super) fn try_hold(&self, claim: usize) -> Result<bool, Error> {
        self.folder.try_lock(&self.file, 1 + claim as u64)
    }

    /// An empty claim for this receiver.
    pub(super) fn free_claim(&self, table: &Table) -> Result<usize, Error> {
        for claim in 0..CLAIMS {
            if table.claims[claim].is_empty() && self.try_hold(claim)? {
                return Ok(claim);
            }
        }
        let problem =
            format!("{CLAIMS} receivers use this queue at the same time; it takes no more");
        Err(Error::new(ErrorKind::LimitReached, &self.folder.address, problem))
    }
}

impl Locked<'_> {
    /// Writes the table into the copy that does not count. A death in between leaves the other.
    pub(super) fn write(&mut self) -> Result<(), Error> {
        self.table.generation += 1;
        let at = COPIES_AT[(self.table.generation % 2) as usize];
        let file = &self.shared.file;
        let written = file.write_all_at(&self.table.to_bytes(), at).and_then(|()| {
            if self.shared.durability == Durability::Synced { file.sync_data() } else { Ok(()) }
        });
        written.map_err(|error| self.shared.folder.system("cannot write the queue's table", error))
    }
}

/// The table as it is now, which others may change meanwhile; a new one where there is none.
pub(super) fn read_unlocked(folder: &Folder) -> Result<Table, Error> {
    match File::open(folder.path().join(TABLE)) {
        Ok(file) => Ok(read(&file)
            .map_err(|error| folder.system("cannot read the queue's table", error))?
            .0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Table::default()),
        Err(error) => Err(folder.system("cannot open the queue's table", error)),
    }
}

fn read(file: &File) -> std::io::Result<(Table, Found)> {
    let mut bytes = vec![0; COPIES_AT[1] as usize + TABLE_BYTES];
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], len as u64)? {
            0 => break,
            n => len += n,
        }
    }
    let copies = COPIES_AT.map(|at| &bytes[at as usize..at as usize + TABLE_BYTES]);
    let [first, second] = copies.map(Table::parse);
    // A copy that was never written is all zeros.
    let damaged = copies
        .iter()
        .zip([&first, &second])
        .filter(|(bytes, table)| table.is_none() && bytes.iter().any(|byte| *byte != 0));
    let found = match (damaged.count(), first.is_some() || second.is_some()) {
        (0, _) => Found::Whole,
        (_, true) => Found::Half,
        (_, false) => Found::Nothing,
    };
    Ok((Table::newer(first, second).unwrap_or_default(), found))
}

/// Removes segments of which every message is settled. The newest of each lane stays.
pub(super) fn prune_settled(folder: &Arc<Folder>, table: &Table) -> Result<(), Error> {
    let segments = folder.segments()?;
    let mut removed = false;
    for pair in segments.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        let (lane, number) = pair[0];
        let next = LaneReader::at_message(Arc::clone(folder), lane, 1).peek(pair[1].1);
        if next.is_some_and(|next| next.first_sequence <= table.settled_before(lane)) {
            folder.remove_segment(lane, number)?;
            removed = true;
        }
    }
    if removed {
        folder.changed();
    }
    Ok(())
}
