//! What a word is on which a thread sleeps: a mutex and its owner, a semaphore, another thread's end.
//!
//! Source: `futex(2)`; the C library's `struct_mutex.h`, `struct_rwlock.h`, `internaltypes.h`: in a mutex the lock is at 0, the
//! owner's thread id at 8, the number of users at 12 and the kind at 16; in a read-write lock, readers at 0, the words slept on at 8
//! and 12, the writer at 24. Locks of other libraries look different, and have no owner here.

use crate::source::memory::Memory;

/// A wait on a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Futex {
    pub(crate) address: u64,
    operation: u64,
    expected: u32,
    pub(crate) timed: bool,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A lock whose owner's thread id is known. `proof`: whether the word itself says so, not just what lies next to it.
    Owned { owner: u32, what: &'static str, proof: bool },
    /// The end of a thread.
    Join(u32),
    /// A lock that readers hold: how many.
    Readers(u32),
    /// A semaphore at 0.
    Semaphore,
    /// Something else: a condition, a barrier, a lock of another library.
    Other,
}

const PRIVATE: u64 = 128;
const WAIT: u64 = 0;
const LOCK_PI: u64 = 6;
const WAIT_BITSET: u64 = 9;
const WAIT_REQUEUE_PI: u64 = 11;
const LOCK_PI2: u64 = 13;
const WAITERS: u32 = 0x8000_0000;
const TID: u32 = 0x3fff_ffff;
/// In a mutex's kind.
const PROCESS_SHARED: u32 = 128;

impl Futex {
    /// The arguments of `futex(2)`; none if it does not wait.
    pub(crate) fn of(arguments: &[u64; 6]) -> Option<Self> {
        let operation = arguments[1] & 0xff;
        let command = operation & 0x7f;
        let waits = [WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2].contains(&command);
        waits.then_some(Self {
            address: arguments[0],
            operation,
            expected: u32::try_from(arguments[2] & 0xffff_ffff).unwrap_or(0),
            timed: arguments[3] != 0,
        })
    }

    /// An entry of `futex_waitv(2)`.
    pub(crate) fn of_entry(entry: &[u8], timed: bool) -> Option<Self> {
        let expected = u32::from_ne_bytes(entry.get(..4)?.try_into().ok()?);
        let address = u64::from_ne_bytes(entry.get(8..16)?.try_into().ok()?);
        let flags = u32::from_ne_bytes(entry.get(16..20)?.try_into().ok()?);
        let operation = WAIT_BITSET | u64::from(flags) & PRIVATE;
        Some(Self { address, operation, expected, timed })
    }

    /// Whether only threads of the same process can be meant.
    pub(crate) fn is_private(&self) -> bool {
        self.operation & PRIVATE != 0
    }

    fn command(&self) -> u64 {
        self.operation & 0x7f
    }

    /// What the word is; `lives` says whether a thread that could own it has this id.
    pub(crate) fn what(&self, memory: &Memory, lives: impl Fn(u32) -> bool) -> Use {
        let Some(word) = memory.word(self.address) else { return Use::Other };
        match self.command() {
            LOCK_PI | LOCK_PI2 if word & TID != 0 => {
                Use::Owned { owner: word & TID, what: "priority-inheriting mutex", proof: true }
            }
            WAIT if self.expected & WAITERS != 0 && self.expected & TID != 0 => {
                self.robust(word, memory, lives)
            }
            WAIT if self.expected == 2 && word == 2 => self.plain(memory, lives),
            WAIT_BITSET => self.bitset(word, memory, lives),
            _ => Use::Other,
        }
    }

    fn robust(&self, word: u32, memory: &Memory, lives: impl Fn(u32) -> bool) -> Use {
        const ROBUST: u32 = 16;
        let owner = word & TID;
        let kind = memory.word(self.address.saturating_add(16)).unwrap_or(0);
        // A condition's word can look alike.
        let sound = kind & ROBUST != 0 && kind < 1024;
        if owner != 0 && (lives(owner) || sound) {
            return Use::Owned { owner, what: "robust mutex", proof: sound };
        }
        Use::Other
    }

    fn plain(&self, memory: &Memory, lives: impl Fn(u32) -> bool) -> Use {
        let at = |offset| memory.word(self.address.saturating_add(offset));
        let (Some(owner), Some(users), Some(kind)) = (at(8), at(12), at(16)) else {
            return Use::Other;
        };
        let sound = kind < 1024 && (1..=0xffff).contains(&users);
        if owner != 0 && owner <= TID && sound {
            // Small numbers lie next to many words. That it is for several processes is said in the kind, too.
            let for_several = kind & PROCESS_SHARED != 0 && !self.is_private();
            return Use::Owned { owner, what: "mutex", proof: lives(owner) || for_several };
        }
        Use::Other
    }

    fn bitset(&self, word: u32, memory: &Memory, lives: impl Fn(u32) -> bool) -> Use {
        if self.expected > 3 && word == self.expected && lives(word) {
            return Use::Join(word);
        }
        if self.expected == 0 && word == 0 {
            let waiting = memory.word(self.address.saturating_add(4)).unwrap_or(0);
            let kind = memory.word(self.address.saturating_add(8)).unwrap_or(1);
            if (1..=0xffff).contains(&waiting) && (kind == 0 || kind == 128) {
                return Use::Semaphore;
            }
        }
        if self.expected == 2 && word == 2 {
            // A timed lock of a mutex.
            if let found @ Use::Owned { proof: true, .. } = self.plain(memory, &lives) {
                return found;
            }
        }
        self.read_write(memory, lives)
    }

    fn read_write(&self, memory: &Memory, lives: impl Fn(u32) -> bool) -> Use {
        if !matches!(self.expected, 1..=3) {
            return Use::Other;
        }
        let Some(start) =
            self.address.checked_sub(if self.address.is_multiple_of(8) { 8 } else { 12 })
        else {
            return Use::Other;
        };
        let at = |offset| memory.word(start.saturating_add(offset));
        let (Some(readers), Some(writer), Some(shared)) = (at(0), at(24), at(28)) else {
            return Use::Other;
        };
        if shared > 1 {
            return Use::Other;
        }
        if writer != 0 && writer <= TID && lives(writer) {
            return Use::Owned { owner: writer, what: "read-write lock", proof: true };
        }
        let readers = readers >> 3;
        if writer == 0 && (1..=0xffff).contains(&readers) {
            return Use::Readers(readers);
        }
        Use::Other
    }
}
