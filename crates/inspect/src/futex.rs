//! What a word is on which a thread sleeps: a mutex and its owner, a semaphore, another thread's end.
//!
//! Source: `futex(2)`; the C library's `struct_mutex.h`, `struct_rwlock.h`, `internaltypes.h`: in a mutex the lock is at 0, the
//! recursion at 4, the owner's thread id at 8, the number of users at 12, the kind at 16 and, of robust ones, a list from 24 to 40; in a
//! read-write lock, readers at 0, the words slept on at 8 and 12, the writer at 24; in a thread's descriptor (`descr.h`), a link of a list
//! and then the thread id, on which who joins it sleeps. Locks of other libraries look different, and have no owner here.

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
/// Beside the command: the time limit, if there is one, is a time of day. The C library says so even where there is none; others that sleep
/// by `FUTEX_WAIT_BITSET`, as Rust's standard library does, do not.
const CLOCK_REALTIME: u64 = 256;
/// In a mutex's kind: how it is locked again, robust, priority-inheriting, with a ceiling, for several processes.
const RECURSIVE: u32 = 1;
const ROBUST: u32 = 16;
const INHERITING: u32 = 32;
const CEILING: u32 = 64;
const PROCESS_SHARED: u32 = 128;
/// No kind has more bits.
const KINDS: u32 = 1024;
/// No thread has a larger id (`PID_MAX_LIMIT`).
const LARGEST_ID: u32 = 1 << 22;
/// More users than any mutex has. The upper half of an address is larger.
const MOST_USERS: u32 = 0xfff;

/// What the word of a `futex(2)` call with these arguments is, in words; none if the call does not wait. `lives`: whether a thread has this
/// id and could own it.
#[must_use]
pub fn in_words(
    arguments: &[u64; 6],
    memory: &Memory,
    lives: impl Fn(u32) -> bool,
) -> Option<String> {
    Some(format!("{:?}", Futex::of(arguments)?.what(memory, lives)))
}

/// The same of each entry of `futex_waitv(2)`. What is left of an entry is none.
#[must_use]
pub fn entries_in_words(
    entries: &[u8],
    memory: &Memory,
    lives: impl Fn(u32) -> bool,
) -> Vec<String> {
    let all = entries.chunks_exact(24).filter_map(|entry| Futex::of_entry(entry, false));
    all.map(|futex| format!("{:?}", futex.what(memory, &lives))).collect()
}

impl Futex {
    /// The arguments of `futex(2)`; none if it does not wait.
    pub(crate) fn of(arguments: &[u64; 6]) -> Option<Self> {
        let operation = arguments[1] & 0x1ff;
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
        let owner = word & TID;
        let kind = memory.word(self.address.saturating_add(16)).unwrap_or(0);
        // A condition's word can look alike.
        let sound = kind & ROBUST != 0 && kind < KINDS && owner <= LARGEST_ID;
        if owner != 0 && (lives(owner) || sound) {
            return Use::Owned { owner, what: "robust mutex", proof: sound };
        }
        Use::Other
    }

    fn plain(&self, memory: &Memory, lives: impl Fn(u32) -> bool) -> Use {
        let at = |offset| memory.word(self.address.saturating_add(offset));
        let list = memory.bytes(self.address.saturating_add(24), 16);
        let (Some(depth), Some(owner), Some(users), Some(kind), Some(list)) =
            (at(4), at(8), at(12), at(16), list)
        else {
            return Use::Other;
        };
        // Small numbers lie next to many words: all of it has to look like a mutex of this kind. The lock of a `FILE` does not.
        let sound = kind < KINDS
            && kind & (ROBUST | INHERITING | CEILING) == 0
            && (depth == 0 || kind & 3 == RECURSIVE)
            && (1..=MOST_USERS).contains(&users)
            && list.iter().all(|&byte| byte == 0);
        // Who has ended had it only if it is for several processes, which is said in the kind, too.
        let for_several = kind & PROCESS_SHARED != 0 && !self.is_private();
        let proof = lives(owner) || for_several && owner <= LARGEST_ID;
        if owner != 0 && sound && proof {
            return Use::Owned { owner, what: "mutex", proof };
        }
        Use::Other
    }

    fn bitset(&self, word: u32, memory: &Memory, lives: impl Fn(u32) -> bool) -> Use {
        if self.operation & CLOCK_REALTIME == 0 && !self.timed {
            return Use::Other;
        }
        // The kernel clears that word, and wakes whoever sleeps on it in any process.
        if !self.is_private()
            && self.expected > 3
            && word == self.expected
            && lives(word)
            && self.is_in_a_descriptor(memory)
        {
            return Use::Join(word);
        }
        if self.expected == 0 && word == 0 {
            let waiting = memory.word(self.address.saturating_add(4)).unwrap_or(0);
            let kind = memory.word(self.address.saturating_add(8)).unwrap_or(1);
            if (1..=0xffff).contains(&waiting) && (kind == 0 || kind == 128) {
                return Use::Semaphore;
            }
        }
        if self.expected == 2 && word == 2 && self.timed {
            // Without a limit a mutex is waited for in another way.
            if let found @ Use::Owned { .. } = self.plain(memory, &lives) {
                return found;
            }
        }
        self.read_write(memory, lives)
    }

    /// Whether the word is the id in a thread's descriptor: right before it stands a link of the list of all threads, to which both
    /// neighbours lead back.
    fn is_in_a_descriptor(&self, memory: &Memory) -> bool {
        let Some(link) = self.address.checked_sub(16) else { return false };
        let (next, previous) = (memory.long(link), memory.long(link + 8));
        let back = next.and_then(|next| memory.long(next.checked_add(8)?));
        let forth = previous.and_then(|previous| memory.long(previous));
        back == Some(link) && forth == Some(link)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::folder::Folder;

    const REALTIME_BITSET: u64 = WAIT_BITSET | CLOCK_REALTIME;

    /// What a word of this process is, on which somebody sleeps so.
    fn what(words: &[u32], at: usize, operation: u64, expected: u32, living: &[u32]) -> Use {
        let own = Folder::open("/proc/self").expect("this process");
        let address = words[at..].as_ptr().addr() as u64;
        let futex = Futex::of(&[address, operation, expected.into(), 0, 0, 0]).expect("a wait");
        futex.what(&Memory::of(&own), |tid| living.contains(&tid))
    }

    #[test]
    fn a_number_alone_is_no_thread() {
        // A link whose neighbours are itself, and the id: a descriptor, as far as that goes.
        let mut words = [0_u64; 5];
        let link = words.as_ptr().addr() as u64;
        (words[0], words[1], words[2]) = (link, link, 4711);
        let own = Folder::open("/proc/self").expect("this process");
        let memory = Memory::of(&own);
        let of = |operation, lives: &dyn Fn(u32) -> bool| {
            let futex = Futex::of(&[link + 16, operation, 4711, 0, 0, 0]).expect("a wait");
            futex.what(&memory, lives)
        };
        assert_eq!(of(REALTIME_BITSET, &|tid| tid == 4711), Use::Join(4711));
        assert_eq!(of(REALTIME_BITSET, &|_| false), Use::Other);
        assert_eq!(of(REALTIME_BITSET | PRIVATE, &|_| true), Use::Other);
        // As Rust's standard library sleeps.
        assert_eq!(of(WAIT_BITSET | PRIVATE, &|_| true), Use::Other);
        words[1] += 8;
        assert_eq!(of(REALTIME_BITSET, &|_| true), Use::Other, "{words:?}");
        // A count that happens to be some thread's number, with anything around it.
        for operation in [WAIT_BITSET, WAIT_BITSET | PRIVATE, REALTIME_BITSET] {
            assert_eq!(what(&[0, 0, 0, 0, 5, 0, 0, 0], 4, operation, 5, &[5]), Use::Other);
        }
    }

    #[test]
    fn a_mutex_looks_like_one_all_over() {
        // Lock, recursion, owner, users, kind, spins, list.
        let mutex = |words: [u32; 5]| {
            let mut all = [0; 10];
            all[..5].copy_from_slice(&words);
            all
        };
        let owned = |owner| Use::Owned { owner, what: "mutex", proof: true };
        for (words, operation, expected) in [
            ([2, 0, 77, 1, 0], WAIT | PRIVATE, owned(77)),
            ([2, 3, 77, 4, 1], WAIT | PRIVATE, owned(77)),
            ([2, 0, 77, 1, 128], WAIT, owned(77)),
            // Its owner is gone; of one that is not for several processes, that is no owner.
            ([2, 0, 99, 1, 128], WAIT, owned(99)),
            ([2, 0, 99, 1, 0], WAIT | PRIVATE, Use::Other),
            ([2, 0, LARGEST_ID + 1, 1, 128], WAIT, Use::Other),
            // The lock of a `FILE`: how often, and the address of who has it.
            ([2, 1, 701_179_712, 0x7f29, 0], WAIT | PRIVATE, Use::Other),
            ([2, 1, 77, 0x7f29, 0], WAIT | PRIVATE, Use::Other),
            ([2, 1, 77, 1, 0], WAIT | PRIVATE, Use::Other),
            // What Rust's standard library waits for in the same state, with three numbers in it.
            ([2, 0, 77, 1, 0], WAIT_BITSET | PRIVATE, Use::Other),
            ([2, 0, 77, 1, 32], WAIT | PRIVATE, Use::Other),
        ] {
            let found = what(&mutex(words), 0, operation, 2, &[77]);
            assert_eq!(found, expected, "{words:?} {operation:#x}");
        }
        let mut listed = mutex([2, 0, 77, 1, 0]);
        listed[7] = 1;
        assert_eq!(what(&listed, 0, WAIT | PRIVATE, 2, &[77]), Use::Other);
    }

    #[test]
    fn robust_words() {
        let robust = |word: u32, kind: u32, living: &[u32]| {
            what(&[word, 0, 0, 0, kind, 0], 0, WAIT, word, living)
        };
        let owned = |owner, proof| Use::Owned { owner, what: "robust mutex", proof };
        assert_eq!(robust(WAITERS | 77, 16 | 128, &[77]), owned(77, true));
        assert_eq!(robust(WAITERS | 99, 16 | 128, &[77]), owned(99, true));
        // It says nothing of itself: the number may be a count.
        assert_eq!(robust(WAITERS | 77, 0, &[77]), owned(77, false));
        assert_eq!(robust(WAITERS | 99, 0, &[77]), Use::Other);
        assert_eq!(robust(WAITERS | (LARGEST_ID + 1), 16, &[77]), Use::Other);
    }
}
