//! How often the ends of this process slept, and how often nobody woke them: by the counters in their own pages.
//!
//! Source: docs/design/shm.md, "W" and "R"; `proc_pid_maps(5)`, `proc_pid_mem(5)`.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// What memory begins with, and where sleeps are counted in it, and late ones: byte offsets.
const COUNTERS: [(&[u8; 8], usize, usize); 2] = [(b"SWBDRNG1", 216, 232), (b"SWBDCUR1", 272, 280)];

/// Sleeps, and those of them that only the backstop ended although there was something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sleeps {
    pub(super) all: u64,
    pub(super) late: u64,
}

/// What was seen of each piece of memory, by its inode.
#[derive(Debug, Default)]
pub(super) struct Watch(BTreeMap<u64, Sleeps>);

impl Watch {
    /// What was counted since the last look.
    pub(super) fn look(&mut self) -> Sleeps {
        let mut sum = Sleeps::default();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let Ok(memory) = File::open("/proc/self/mem") else { return sum };
        for (inode, now) in maps.lines().filter_map(|line| counted(line, &memory)) {
            let before = self.0.insert(inode, now).unwrap_or_default();
            sum.all += now.all.saturating_sub(before.all);
            sum.late += now.late.saturating_sub(before.late);
        }
        sum
    }
}

/// The counters of a mapping, if it is this process's own.
fn counted(mapping: &str, memory: &File) -> Option<(u64, Sleeps)> {
    let mut fields = mapping.split_whitespace();
    let start = u64::from_str_radix(fields.next()?.split('-').next()?, 16).ok()?;
    // They are on the first page.
    if (fields.next()?, u64::from_str_radix(fields.next()?, 16).ok()?) != ("rw-s", 0) {
        return None;
    }
    let inode = fields.nth(1)?.parse().ok()?;
    // All at once: something else may have come to lie there.
    let mut bytes = [0; 288];
    memory.read_exact_at(&mut bytes, start).ok()?;
    let (_, all, late) = *COUNTERS.iter().find(|(magic, ..)| bytes.starts_with(&magic[..]))?;
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some((inode, Sleeps { all: word(all)?, late: word(late)? }))
}
