//! System V objects: /proc/sysvipc, and semctl for counts.
//!
//! Source: `sysvipc(7)`, `proc_sysvipc(5)`, `semctl(2)`, `msgctl(2)`.

use switchboard_kernel::sysv_msg;
use switchboard_kernel::sysv_sem::SemaphoreSet;

use super::numbers::{decimal, octal, signed, small, words};

/// A row of one of the tables; what a table does not have is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The key; 0 is private.
    pub key: u32,
    /// The identifier.
    pub id: i32,
    /// Permission bits, and 0o1000 for a segment that goes with its last user.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// Bytes of a segment, bytes in a queue, semaphores of a set.
    pub size: u64,
    /// Messages in a queue, attachments of a segment.
    pub count: u64,
    /// Who made the segment, or sent last.
    pub first: u32,
    /// Who attached or detached last, or received last.
    pub last: u32,
    /// The user who made it.
    pub maker_uid: u32,
    /// When it was made, or its owner, mode or values were set: seconds since 1970.
    pub changed: u64,
    /// When it was used last, likewise; 0 for never.
    pub used: u64,
}

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Queues.
    Messages,
    /// Sets.
    Semaphores,
    /// Segments.
    Memory,
}

impl Table {
    /// Its file.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Messages => "/proc/sysvipc/msg",
            Self::Semaphores => "/proc/sysvipc/sem",
            Self::Memory => "/proc/sysvipc/shm",
        }
    }
}

/// Reads a table; the first line has titles.
#[must_use]
pub fn table(kind: Table, text: &[u8]) -> Vec<Row> {
    text.split(|&byte| byte == b'\n').skip(1).filter_map(|line| row(kind, line)).collect()
}

fn row(kind: Table, line: &[u8]) -> Option<Row> {
    let parts: Vec<&[u8]> = words(line).take(20).collect();
    let number = |at: usize| parts.get(at).and_then(|word| decimal(word));
    let id = |at: usize| parts.get(at).and_then(|word| small(word));
    // The key is written as a signed number.
    let key = signed(parts.first()?)?;
    let key = u32::try_from(key & 0xffff_ffff).ok()?;
    let mut row = Row {
        key,
        id: i32::try_from(id(1)?).ok()?,
        mode: u32::try_from(octal(parts.get(2)?)?).ok()?,
        size: number(3)?,
        ..Row::default()
    };
    match kind {
        Table::Messages => {
            (row.count, row.first, row.last) = (number(4)?, id(5)?, id(6)?);
            (row.uid, row.gid, row.maker_uid) = (id(7)?, id(8)?, id(9)?);
            (row.used, row.changed) = (number(11)?.max(number(12)?), number(13)?);
        }
        Table::Semaphores => {
            (row.uid, row.gid, row.maker_uid) = (id(4)?, id(5)?, id(6)?);
            (row.used, row.changed) = (number(8)?, number(9)?);
        }
        Table::Memory => {
            (row.first, row.last, row.count) = (id(4)?, id(5)?, number(6)?);
            (row.uid, row.gid, row.maker_uid) = (id(7)?, id(8)?, id(9)?);
            (row.used, row.changed) = (number(11)?.max(number(12)?), number(13)?);
        }
    }
    Some(row)
}

/// One semaphore of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Its count.
    pub value: u16,
    /// Who operated on it last.
    pub last: Option<u32>,
    /// How many wait until it grows, and until it is zero.
    pub waiting: (u32, u32),
}

/// The most semaphores of a set that are looked at.
pub const MOST_COUNTS: u64 = 256;

/// The counts of a set of this IPC namespace; none without permission.
#[must_use]
pub fn counts(row: &Row) -> Option<Vec<Count>> {
    let set = SemaphoreSet::from_id(row.id);
    let indexes = 0..u16::try_from(row.size.min(MOST_COUNTS)).unwrap_or(0);
    let each = indexes.map(|index| {
        Some(Count {
            value: set.value(index).ok()?,
            last: set.last_process(index).ok()?,
            waiting: set.waiting(index).ok()?,
        })
    });
    each.collect()
}

/// The most bytes that a queue of this IPC namespace takes; none without permission.
#[must_use]
pub fn queue_limit(row: &Row) -> Option<u64> {
    sysv_msg::MessageQueue::from_id(row.id).status().ok().map(|status| status.max_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let text = b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n\
 -559038737          3  1600                  4096    10    11      2     7     8     9     8 20 30 25\nx\n";
        let found = table(Table::Memory, text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].key, found[0].id, found[0].mode), (0xdead_beef, 3, 0o1600));
        assert_eq!((found[0].first, found[0].last, found[0].count), (10, 11, 2));
        assert_eq!((found[0].maker_uid, found[0].used, found[0].changed), (9, 30, 25));
        let text = b"t\n 1 2 600 4 5 6 7 8 9 0 0 0 0 0\n";
        let found = table(Table::Messages, text);
        assert_eq!((found[0].size, found[0].count, found[0].uid), (4, 5, 8));
        let text = b"t\n 1 2 600 4 5 6 7 8 90 80\n";
        let found = table(Table::Semaphores, text);
        assert_eq!((found[0].maker_uid, found[0].used, found[0].changed), (7, 90, 80));
    }
}
