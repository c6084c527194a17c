//! Who lives through it all, in one process, and what it has of the kernel then; and how all ends sleep.

use std::time::Duration;

use switchboard_testkit::child::{instruction, report};

use super::super::sleeps::Watch;
use super::super::things::Things;
use super::desk::{Desk, PATIENCE};
use super::ledger::{Ledger, Phase};
use super::{CLOSED, COUNT, KINDS, Kind, MORTALS};

/// What the memory of the witness may have grown by: its allocator's, and large messages' that it had under way.
const MEMORY_KIB: u64 = 16 << 10;

/// How often it is looked how the ends of a process slept.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Role: all witnesses. Counts what it has when it is asked, and once more when all are closed.
pub(crate) fn witness(arguments: &[String]) {
    let ledger = Ledger::open(&arguments[0]);
    // The I/O thread of the process stays.
    let unused = Things::here().and("descriptor anon_inode", 2);
    let begin = |(number, kind): (usize, Kind)| {
        let mut desk = Desk::new(ledger.clone(), MORTALS + number, &arguments[1]);
        std::thread::spawn(move || kind.work(&mut desk))
    };
    watch_sleeps(&ledger);
    let ends: Vec<_> = KINDS.into_iter().enumerate().map(begin).collect();
    let mut first: Option<(Things, Memory)> = None;
    while instruction().as_deref() == Some(COUNT) {
        let (things, memory) = (Things::at_rest(), Memory::here());
        match &first {
            None => first = Some((things, memory)),
            Some((things, before)) => {
                if let Err(left) = with_what_is_kept(things).come_back(PATIENCE) {
                    ledger.fail(&format!("the dead have left something: {left}"));
                }
                let after = Memory::here();
                if after.anonymous_kib > before.anonymous_kib + MEMORY_KIB {
                    ledger.fail(&format!("memory was {before:?}, and is {after:?}"));
                }
                report(format_args!("memory of who lived through it: {before:?}, then {after:?}"));
            }
        }
        report(COUNT);
    }
    ends.into_iter().for_each(|end| end.join().expect("an end"));
    if let Err(left) = unused.come_back(PATIENCE) {
        ledger.fail(&format!("after all was closed: {left}"));
    }
    report(CLOSED);
}

/// These; what this process has taken since for large messages of its own, which it keeps until it closes: a
/// descriptor, memory of the writer's, and the same as its reader has it, in the same process; and the memory of
/// the last message that each end looked at or built where it lies.
fn with_what_is_kept(things: &Things) -> Things {
    const OWN: &str = "mapping rw-s switchboard-arena (deleted)";
    let more = Things::here().count(OWN).saturating_sub(things.count(OWN));
    let (readers, queues) = (3, 1);
    [
        (OWN, more),
        ("mapping r--s switchboard-arena (deleted)", more + readers),
        ("descriptor /memfd:switchboard-arena (deleted)", more),
        ("mapping r--s switchboard-ring (deleted)", readers),
        ("mapping rw-s switchboard-ring (deleted)", queues),
        ("descriptor /memfd:switchboard-ring (deleted)", queues),
    ]
    .into_iter()
    .fold(things.clone(), |things, (thing, more)| things.and(thing, more))
}

/// Memory of this process.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    anonymous_kib: u64,
    #[expect(dead_code, reason = "for people to read")]
    shared_kib: u64,
}

impl Memory {
    fn here() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self { anonymous_kib: kib(&status, "RssAnon:"), shared_kib: kib(&status, "RssShmem:") }
    }
}

/// A number of `proc_pid_status(5)` or `proc_meminfo(5)`.
pub(super) fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Writes down how often the ends of this process sleep.
pub(super) fn watch_sleeps(ledger: &Ledger) {
    let ledger = ledger.clone();
    std::thread::spawn(move || {
        let mut watch = Watch::default();
        while ledger.phase() != Phase::Close {
            ledger.slept(watch.look());
            std::thread::sleep(LOOK_EVERY);
        }
    });
}
