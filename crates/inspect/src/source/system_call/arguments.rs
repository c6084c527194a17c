//! What the arguments of a system call point at in the memory of who calls, taken apart: sets of descriptors, locks, operations, addresses.
//!
//! Source: `poll(2)`, `select(2)`, `fcntl_locking(2)`, `semop(2)`, `sendmsg(2)`, `unix(7)`. The process can write anything there at any
//! moment: whatever the bytes are, something is made of them, or nothing.

/// Entries of `struct pollfd`: descriptor, events. What is left of an entry is none.
#[must_use]
pub fn poll_entries(bytes: &[u8]) -> Vec<(i32, u16)> {
    let entry = |entry: &[u8]| Some((int(entry, 0)?, u16::from_ne_bytes(two(entry, 4)?)));
    bytes.chunks_exact(8).filter_map(entry).collect()
}

/// The descriptors below `count` that are in an `fd_set`.
#[must_use]
pub fn select_set(bytes: &[u8], count: usize) -> Vec<i32> {
    let is_in = |fd: &usize| bytes.get(fd / 8).is_some_and(|byte| byte >> (fd % 8) & 1 == 1);
    let all = (0..count.min(bytes.len().saturating_mul(8))).filter(is_in);
    all.filter_map(|fd| i32::try_from(fd).ok()).collect()
}

/// A `struct flock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLock {
    /// Alone, not shared.
    pub exclusive: bool,
    /// What the beginning counts from: `SEEK_SET`, `SEEK_CUR`, `SEEK_END`.
    pub whence: i16,
    /// The beginning.
    pub start: i64,
    /// How many bytes; 0: to the end.
    pub len: i64,
}

/// A `struct flock`; none if it is not whole.
#[must_use]
pub fn record_lock(bytes: &[u8]) -> Option<RecordLock> {
    const F_RDLCK: i16 = 0;
    Some(RecordLock {
        exclusive: short(bytes, 0)? != F_RDLCK,
        whence: short(bytes, 2)?,
        start: long(bytes, 8)?.cast_signed(),
        len: long(bytes, 16)?.cast_signed(),
    })
}

/// A `struct sembuf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SemaphoreOperation {
    /// Which of the set.
    pub index: u16,
    /// What is added; 0: it waits for 0.
    pub change: i16,
    /// `SEM_UNDO`: it is undone at the end of its process.
    pub undone: bool,
}

/// Entries of `struct sembuf`. What is left of an entry is none.
#[must_use]
pub fn semaphore_operations(bytes: &[u8]) -> Vec<SemaphoreOperation> {
    const SEM_UNDO: i16 = 0x1000;
    let entry = |entry: &[u8]| {
        Some(SemaphoreOperation {
            index: u16::from_ne_bytes(two(entry, 0)?),
            change: short(entry, 2)?,
            undone: short(entry, 4)? & SEM_UNDO != 0,
        })
    };
    bytes.chunks_exact(6).filter_map(entry).collect()
}

/// Where a `struct msghdr` has an address, and how long that is; none if it is not whole.
#[must_use]
pub fn message_address(bytes: &[u8]) -> Option<(u64, u64)> {
    // The length has 32 bits, and a gap after it.
    Some((long(bytes, 0)?, long(bytes, 8)? & u64::from(u32::MAX)))
}

/// The name in a `struct sockaddr_un`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixName<'a> {
    /// A path, without the zero at its end.
    Path(&'a [u8]),
    /// A name that is no file, without the zero at its beginning.
    Abstract(&'a [u8]),
}

/// The name in a `struct sockaddr_un`; none if it has none, or is of another family.
#[must_use]
pub fn unix_name(bytes: &[u8]) -> Option<UnixName<'_>> {
    const AF_UNIX: u16 = 1;
    let (family, name) = bytes.split_first_chunk()?;
    if u16::from_ne_bytes(*family) != AF_UNIX {
        return None;
    }
    match name {
        [] => None,
        [0, name @ ..] => Some(UnixName::Abstract(name)),
        path => path.split(|&byte| byte == 0).next().map(UnixName::Path),
    }
}

fn two(bytes: &[u8], at: usize) -> Option<[u8; 2]> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok()
}

fn short(bytes: &[u8], at: usize) -> Option<i16> {
    two(bytes, at).map(i16::from_ne_bytes)
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_is_taken_apart() {
        let polled = [3_i32.to_ne_bytes(), [4, 0, 0, 0], (-1_i32).to_ne_bytes(), [1, 32, 9, 9]];
        assert_eq!(poll_entries(&polled.concat()), [(3, 4), (-1, 0x2001)]);
        assert_eq!(poll_entries(&polled.concat()[..15]), [(3, 4)]);
        assert_eq!(select_set(&[0b101, 0, 0, 0, 0, 0, 0, 0x80], 64), [0, 2, 63]);
        assert_eq!(select_set(&[0xff], 3), [0, 1, 2]);
        assert_eq!(select_set(&[0xff], usize::MAX).len(), 8);

        let lock = [&[1, 0, 2, 0, 0, 0, 0, 0][..], &(-7_i64).to_ne_bytes(), &9_i64.to_ne_bytes()];
        let expected = RecordLock { exclusive: true, whence: 2, start: -7, len: 9 };
        assert_eq!(record_lock(&lock.concat()), Some(expected));
        assert_eq!(record_lock(&lock.concat()[..23]), None);

        let operations = semaphore_operations(&[1, 0, 0xff, 0xff, 0, 0x10, 9, 9]);
        assert_eq!(operations, [SemaphoreOperation { index: 1, change: -1, undone: true }]);

        let header = [77_u64.to_ne_bytes(), (0xabcd_0000_0000 + 12_u64).to_ne_bytes()].concat();
        assert_eq!(message_address(&header), Some((77, 12)));
        assert_eq!(message_address(&header[..15]), None);

        assert_eq!(unix_name(b"\x01\0/run/x\0rest"), Some(UnixName::Path(b"/run/x")));
        assert_eq!(unix_name(b"\x01\0\0name\0"), Some(UnixName::Abstract(b"name\0")));
        for none in [&b"\x02\0/run/x"[..], b"\x01\0", b"\x01", b""] {
            assert_eq!(unix_name(none), None);
        }
    }
}
