//! What a process has of the kernel: descriptors, and mappings of shared memory.
//!
//! Source: `proc_pid_fd(5)`, `proc_pid_maps(5)`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many there are, by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Things(BTreeMap<String, usize>);

impl Things {
    /// Those of this process now.
    pub(super) fn here() -> Self {
        let mut things = Self::default();
        for entry in std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten() {
            if let Ok(target) = std::fs::read_link(entry.path()) {
                // Sockets and pipes have numbers of their own.
                let target = target.display().to_string();
                let kind = target.split_once(":[").map_or(&*target, |(kind, _)| kind);
                things.add(format!("descriptor {kind}"));
            }
        }
        let maps = std::fs::read_to_string("/proc/self/maps").expect("mappings");
        for mapping in maps.lines().filter(|mapping| mapping.contains("/memfd:")) {
            let name = mapping.rsplit_once("/memfd:").map_or("", |(_, name)| name);
            let modes = mapping.split(' ').nth(1).unwrap_or_default();
            things.add(format!("mapping {modes} {name}"));
        }
        things
    }

    /// Those of this process, once they stay the same for a while.
    pub(super) fn at_rest() -> Self {
        const LOOKS: u32 = 20;
        let (mut things, mut same) = (Self::here(), 0);
        for _ in 0..100 * LOOKS {
            std::thread::sleep(Duration::from_millis(5));
            let now = Self::here();
            same = if now == things { same + 1 } else { 0 };
            if same == LOOKS {
                break;
            }
            things = now;
        }
        things
    }

    fn add(&mut self, thing: String) {
        *self.0.entry(thing).or_default() += 1;
    }

    /// How many there are of one kind.
    pub(super) fn count(&self, thing: &str) -> usize {
        self.0.get(thing).copied().unwrap_or(0)
    }

    /// These, and so many more of one kind.
    pub(super) fn and(mut self, thing: &str, more: usize) -> Self {
        let count = self.0.entry(thing.to_owned()).or_default();
        *count = count.saturating_add(more);
        self
    }

    /// Waits until this process has no more than these; else what there is more.
    pub(super) fn come_back(&self, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            let more = Self::here().beyond(self);
            if more.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(format!("left: {}", more.join(", ")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn beyond(&self, before: &Self) -> Vec<String> {
        let more = self.0.iter().filter(|(thing, now)| **now > before.count(thing));
        more.map(|(thing, now)| format!("{thing} ({now}, before {})", before.count(thing)))
            .collect()
    }
}
