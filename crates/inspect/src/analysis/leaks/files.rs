//! What is held by descriptors and mappings, and has a name: POSIX memory, semaphores and queues, FIFOs, and the files of sockets.
//!
//! Source: docs/design/leaks.md, "What has a name"; `shm_overview(7)`, `mq_overview(7)`, `fifo(7)`, `unix(7)`.

use crate::kind::Kind;
use crate::model::{Object, Via};

use super::super::wakers::Grade;
use super::Case;
use super::names::{self, Given};
use super::people::{Fate, IN_FLIGHT, People};

/// The sticky bit marks what is to be kept, as the XDG Base Directory Specification has it.
const KEEP: u32 = 0o1000;

/// What anybody can open who knows its name.
pub(super) fn named(people: &People<'_>, object: &Object) -> Option<Case> {
    // What has no name goes with its last holder; what has a holder is in use.
    let name = object.names.iter().find(|name| !name.ends_with(" (deleted)"))?;
    let has = |via: Via| !matches!(via, Via::Used);
    if object.ends.iter().any(|end| has(end.via))
        || people.is_waited_for(object)
        || object.details.get(IN_FLIGHT).is_some()
    {
        return None;
    }
    let mut case = Case::new(match object.kind {
        Kind::PosixShm | Kind::PosixSem => "no process of any namespace has it open or mapped",
        _ => "no process of any namespace has it open",
    });
    people.unseen_holders(&mut case, object);
    match names::given(object.kind, name) {
        Given::Generated(how) => {
            case.most = case.most.min(Grade::Probable);
            case.because(format!(
                "its name was generated ({how}): only who was told it can use it"
            ));
            if let Some(one) = people.living().find(|one| names::is_program_of(name, &one.name)) {
                let text = format!("{} lives, which may have made it by its name", one.label());
                case.but(Grade::Possible, text);
            }
            if let Some(one) = people.told(names::telling(object.kind, name)) {
                let text = format!("{} has its name on its command line", one.label());
                case.but(Grade::Possible, text);
            }
        }
        Given::Chosen => {
            case.but(Grade::Possible, "its name was chosen: somebody may come by it later");
        }
    }
    for pid in names::numbers(name) {
        if let Fate::Lives(one) = people.fate(pid, object.times.made_ms) {
            case.but(
                Grade::Possible,
                format!("its name has the id of {}, which lives", one.label()),
            );
        }
    }
    if object.kind == Kind::Mq {
        match object.fill {
            Some(0) => case.because("no message waits in it"),
            Some(count) => case.but(
                Grade::Possible,
                format!("messages wait in it ({count}): a reader may come later"),
            ),
            None => case.unknown(Grade::Possible, "whether messages wait in it"),
        }
    }
    if object.mode.is_some_and(|mode| mode & KEEP != 0) {
        case.but(Grade::Possible, "its sticky bit marks it as to be kept");
    }
    Some(case)
}

/// A file of a socket: one that nobody has bound is of no use to anybody, for ever.
pub(super) fn socket(object: &Object) -> Option<Case> {
    if object.state.as_deref() != Some(NO_SOCKET) || !object.ends.is_empty() {
        return None;
    }
    let mut case =
        Case::new("no socket is bound to this file, and none can be: binding makes a new one");
    match object.details.get(ASKED) {
        Some("refused") => {
            case.because("who connects to it is refused, says the kernel of all namespaces")
        }
        Some(other) => {
            case.unknown(
                Grade::Probable,
                format!("whether a socket of another network namespace is: {other}"),
            );
        }
        None => case.unknown(Grade::Possible, "whether a socket of another network namespace is"),
    }
    if object.mode.is_some_and(|mode| mode & KEEP != 0) {
        case.but(Grade::Possible, "its sticky bit marks it as to be kept");
    }
    Some(case)
}

/// The state of a file of a socket that no socket is bound to.
pub(crate) const NO_SOCKET: &str = "no socket";
/// The detail of such a file: what the kernel answers to who would connect.
pub(crate) const ASKED: &str = "connecting";
