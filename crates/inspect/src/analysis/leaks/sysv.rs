//! System V objects: nobody holds them by a descriptor, and the kernel remembers only who was last.
//!
//! Source: docs/design/leaks.md, "System V"; `shmctl(2)`, `semctl(2)`, `msgctl(2)`.

use crate::kind::Kind;
use crate::model::{Object, Via};

use super::super::wakers::Grade;
use super::Case;
use super::people::{Fate, OUTSIDE, People, UNDO};

/// Mixed into the key of a segment that holds a state, it is the key of its writers' lock (`transport/sysv_shm.rs`).
const STATE_LOCK: u32 = 0x5357_6c6b;

/// A segment. Who has it attached the kernel counts, wherever they are.
pub(super) fn memory(people: &People<'_>, object: &Object) -> Option<Case> {
    let number = |name| object.details.get(name).and_then(|text| text.parse::<u32>().ok());
    if number("attachments")? > 0 || object.ends.iter().any(|end| matches!(end.via, Via::Map(_))) {
        return None;
    }
    let mut case = Case::new("no process of any namespace has it attached");
    let times = object.times;
    let made_by = number("made by").unwrap_or(0);
    user(people, &mut case, "its maker", made_by, times.changed_ms);
    let last = number("last attached or detached by").unwrap_or(0);
    if last != 0 && last != made_by {
        let by = times.used_ms.max(times.changed_ms);
        user(people, &mut case, "who attached or detached it last", last, by);
    }
    let key = key(object);
    if let Some(key) = key {
        case.but(Grade::Probable, format!("others can attach it by its key 0x{key:08x}"));
        if is_state(people, object, key) {
            let text = "it holds a state that is meant to outlive its writers: a set of its lock's key is there";
            case.but(Grade::Possible, text);
        }
    } else {
        case.because(
            "its key is private: no other process can find it, unless it is told its number",
        );
        if people.snapshot.coverage.outside {
            case.unknown(Grade::Probable, OUTSIDE);
        }
        if let Some(one) = people.candidate(object) {
            let text =
                format!("{} or another one that may attach it could know its number", one.label());
            case.but(Grade::Probable, text);
        }
    }
    Some(case)
}

/// A set of semaphores. Nothing says who knows its number.
pub(super) fn semaphores(people: &People<'_>, object: &Object) -> Option<Case> {
    if people.is_waited_for(object) || object.details.get("waiting").is_some() {
        return None;
    }
    let times = object.times;
    let by_ms = times.used_ms.max(times.changed_ms);
    let mut case = without_users(people, object, "operated on it", by_ms)?;
    // Who has something to undo was let operate on it once; one who is let now stands for all who were.
    if people.candidate(object).is_some() || people.snapshot.coverage.outside {
        case.unknown(Grade::Possible, UNDO);
    }
    if let Some(count) = object.details.get("semaphores not looked at") {
        case.unknown(Grade::Possible, format!("who used {count} more of its semaphores last"));
    }
    Some(case)
}

/// A queue. Somebody who will read it may come by its key.
pub(super) fn queue(people: &People<'_>, object: &Object) -> Option<Case> {
    if people.is_waited_for(object) {
        return None;
    }
    let mut case =
        without_users(people, object, "sent to it or received from it", object.times.used_ms)?;
    match object.details.get("messages") {
        Some("0") => case.because("no message waits in it"),
        Some(count) if key(object).is_some() => {
            case.but(
                Grade::Possible,
                format!("messages wait in it ({count}): a reader may come later"),
            );
        }
        Some(count) => case.because(format!("messages wait in it ({count})")),
        None => case.unknown(Grade::Possible, "whether messages wait in it"),
    }
    Some(case)
}

/// What is used by its number alone: a leak unless one of its last users lives.
fn without_users(
    people: &People<'_>,
    object: &Object,
    did: &str,
    by_ms: Option<u64>,
) -> Option<Case> {
    let mut pids: Vec<u32> = object.ends.iter().map(|end| end.pid).collect();
    pids.dedup();
    if object.ends.iter().any(|end| end.via != Via::Used)
        || pids.iter().any(|&pid| matches!(people.fate(pid, by_ms), Fate::Lives(_)))
    {
        return None;
    }
    let mut case = if pids.is_empty() {
        let mut case = Case::new(format!("nobody is known to have {did}"));
        case.unknown(Grade::Possible, "who made it: the kernel does not keep that");
        case
    } else {
        let mut case = Case::new(format!("nobody lives of those who last {did}"));
        for pid in pids {
            user(people, &mut case, "its user", pid, by_ms);
        }
        case
    };
    if !people.snapshot.coverage.waits {
        case.unknown(Grade::Possible, "whether a process waits for it");
    }
    match key(object) {
        Some(key) => {
            let text = format!("its key 0x{key:08x} was chosen: somebody may come by it later");
            case.but(Grade::Possible, text);
        }
        None => {
            case.because(
                "its key is private: no other process can find it, unless it is told its number",
            );
            if people.snapshot.coverage.outside {
                case.unknown(Grade::Possible, OUTSIDE);
            }
            match people.candidate(object) {
                Some(one) => {
                    let text = format!(
                        "{} or another one that may use it could know its number: the kernel remembers only who was last",
                        one.label()
                    );
                    case.but(Grade::Possible, text);
                }
                None => case.because("no process lives that may use it"),
            }
        }
    }
    Some(case)
}

/// Notes what became of one who used it.
fn user(people: &People<'_>, case: &mut Case, who: &str, pid: u32, by_ms: Option<u64>) {
    match people.fate(pid, by_ms) {
        Fate::Gone => case.because(format!("{who}, process {pid}, has ended")),
        Fate::Reused(other) => case.because(format!(
            "{who}, process {pid}, has ended: {} has its id, and was started later",
            other.label()
        )),
        Fate::Lives(process) => {
            case.but(Grade::Possible, format!("{who} {} lives", process.label()));
        }
        Fate::Unknown(why) => {
            case.unknown(Grade::Possible, format!("whether {who} lives: {why}"));
        }
    }
    if let Some(one) = people.kin(pid) {
        case.but(
            Grade::Possible,
            format!("{} is of the session that process {pid} began", one.label()),
        );
    }
}

/// Its key; none if it is private.
fn key(object: &Object) -> Option<u32> {
    let text = object.details.get("key")?;
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Whether a set is there that would be the lock of a state in this segment.
fn is_state(people: &People<'_>, object: &Object, of_segment: u32) -> bool {
    let mut sets = people.snapshot.objects.iter().filter(|one| one.kind == Kind::SysvSem);
    sets.any(|set| set.namespace == object.namespace && key(set) == Some(of_segment ^ STATE_LOCK))
}
