//! Removing one object: look, close it to newcomers, see that nobody is in, save what it holds, look again, remove.
//!
//! Source: docs/design/clean.md, "Steps". What is closed and not removed is opened again.

mod hidden;
mod memory_file;
mod name_file;
mod queue;
mod system_v;
mod sysv_msg;
mod sysv_sem;
mod sysv_shm;

use std::time::Duration;

use switchboard_inspect::Kind;

use crate::error::{Error, Reason, Result};
use crate::journal::{Entry, Run, Size, unix_ms};
use crate::target::{Place, Target};

pub(crate) use hidden::{back, folder_of};
pub(crate) use queue::{join, messages_of, send_from};
pub(crate) use sysv_sem::CLOSED_MODE;

/// What may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nothing that was made or used within this time.
    pub min_age: Duration,
    /// Also where it cannot be seen whether somebody uses it.
    pub partial: bool,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Its number in the run.
    pub number: u32,
    /// Bytes that the journal holds of it.
    pub kept_bytes: u64,
    /// What is to be said of it: that somebody came in at the very last moment.
    pub note: Option<String>,
}

/// An object that is looked at, and can be closed, saved, removed or opened again.
trait Object {
    /// What the journal says of it.
    fn facts(&self) -> Facts;
    /// Nobody new comes in from now on, and nobody is in.
    fn close(&mut self, hidden: &str) -> Result<()>;
    /// What it holds goes into the journal; gives the CRC-32C of the body, and the body, if it has one.
    fn save(&mut self, run: &mut Run, number: u32) -> Result<(Option<std::fs::File>, u32)>;
    /// Looks once more, and removes it. What is to be said.
    fn remove(&mut self) -> Result<Option<String>>;
    /// As it was before it was closed.
    fn open(&mut self, run: &mut Run, number: u32) -> Result<()>;
}

/// What the journal says of an object.
struct Facts {
    key: i32,
    identity: (u64, u64),
    owner: u32,
    group: u32,
    mode: u32,
    size: Size,
    /// Whether closing gives it a hidden name.
    hides: bool,
}

/// Removes an object, and keeps in the journal what it held.
///
/// Blocks for as long as copying it takes, and some milliseconds.
///
/// # Errors
/// It is where it was and as it was, for the [`Reason`] given; unless the text says that it could not be opened again.
pub fn remove(
    run: &mut Run,
    target: &Target,
    reasons: &[String],
    options: Options,
) -> Result<Removed> {
    let mut object = look(target, options)?;
    let facts = object.facts();
    let number = run.number()?;
    let hidden = facts.hides.then(hidden_name).transpose()?;
    let entry = Entry {
        number,
        object: target.object.clone(),
        kind: target.kind,
        place: target.place.clone(),
        key: facts.key,
        identity: facts.identity,
        owner: facts.owner,
        group: facts.group,
        mode: facts.mode,
        size: facts.size,
        reasons: reasons.to_vec(),
    };
    run.enter(entry, hidden.clone())?;
    match closed(run, number, object.as_mut(), hidden.as_deref().unwrap_or_default()) {
        Ok((kept_bytes, note)) => {
            run.removed(number)?;
            Ok(Removed { number, kept_bytes, note })
        }
        Err(error) => match object.open(run, number) {
            Ok(()) => {
                run.opened(number)?;
                Err(error)
            }
            Err(second) => {
                let text = format!("{error}; and it could not be given back as it was: {second}");
                Err(Error::new(Reason::Failed, text))
            }
        },
    }
}

fn closed(
    run: &mut Run,
    number: u32,
    object: &mut dyn Object,
    hidden: &str,
) -> Result<(u64, Option<String>)> {
    object.close(hidden)?;
    let (body, crc) = object.save(run, number)?;
    let kept = run.saved(number, body.as_ref(), crc)?;
    Ok((kept, object.remove()?))
}

/// An object that is there, is this user's, and is what it was.
fn look(target: &Target, options: Options) -> Result<Box<dyn Object>> {
    Ok(match target.kind {
        Kind::SysvShm => Box::new(sysv_shm::Segment::look(target.place.id()?, options)?),
        Kind::SysvMsg => Box::new(sysv_msg::Queue::look(target.place.id()?, options)?),
        Kind::SysvSem => Box::new(sysv_sem::Set::look(target.place.id()?, options)?),
        Kind::Mq => Box::new(queue::Queue::look(target, options)?),
        Kind::PosixShm | Kind::PosixSem => Box::new(memory_file::File::look(target, options)?),
        Kind::Fifo | Kind::Unix => Box::new(name_file::Name::look(target, options)?),
        _ => return Err(Error::new(Reason::Elsewhere, "objects of this kind are not removed")),
    })
}

/// A name that is nobody's, for a file while it is decided whether it goes.
fn hidden_name() -> Result<String> {
    let mut digits = [0; 8];
    switchboard_kernel::random::fill(&mut digits)
        .map_err(|error| Error::call("a hidden name", error))?;
    Ok(format!("{HIDDEN}{:016x}", u64::from_ne_bytes(digits)))
}

/// How hidden names begin.
pub const HIDDEN: &str = ".switchboard-clean-";

/// Whose objects this process may remove.
#[must_use]
pub fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this user may remove what belongs to one of these: nobody removes what is another's, but root. The kernel would let the owner of a
/// folder remove all that is in it.
#[must_use]
pub fn may_remove(user: u32, owners: &[u32]) -> bool {
    user == 0 || owners.contains(&user)
}

/// Refuses what is another user's, unless this one is root.
fn check_owner(owners: &[u32]) -> Result<()> {
    if may_remove(effective_user(), owners) {
        return Ok(());
    }
    let owner = owners.first().copied().unwrap_or_default();
    Err(Error::new(
        Reason::Refused,
        format!("it belongs to user {owner}: they or root may remove it"),
    ))
}

/// Refuses what was used a moment ago; `newest` is in seconds since 1970.
fn check_age(newest: i64, min_age: Duration) -> Result<()> {
    let now = i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX);
    let age = now.saturating_sub(newest);
    let least = i64::try_from(min_age.as_secs()).unwrap_or(i64::MAX);
    if age >= least {
        return Ok(());
    }
    Err(too_young(u64::try_from(age).unwrap_or(0)))
}

/// Why something stays that was made or used so many seconds ago.
#[must_use]
pub fn too_young(seconds: u64) -> Error {
    let text = format!("it was made or used {seconds} s ago, and may be about to be used");
    Error::new(Reason::Young, text)
}

fn changed(what: &str) -> Error {
    Error::new(Reason::Changed, format!("it changed meanwhile: {what}"))
}

fn in_use(how: impl Into<String>) -> Error {
    Error::new(Reason::InUse, how)
}

/// Takes the write lease that nobody gets while somebody has the file.
fn lease(file: impl std::os::fd::AsFd, how: &str) -> Result<()> {
    switchboard_kernel::lease::take(file).map_err(|error| match error.name() {
        "EAGAIN" => in_use(format!("somebody has it {how}, or it is in flight in a socket")),
        _ => Error::call("a lease on it", error),
    })
}

/// Refuses what somebody waits to open, until the lease is gone.
fn not_wanted(file: impl std::os::fd::AsFd) -> Result<()> {
    match switchboard_kernel::lease::is_wanted(file) {
        Ok(false) => Ok(()),
        Ok(true) => Err(in_use("somebody opens it this moment")),
        Err(error) => Err(Error::call("looking whether somebody wants it", error)),
    }
}

/// Whether a place is what it has to be for its kind: what a journal says is not believed.
pub(crate) fn check_place(kind: Kind, place: &Place) -> Result<()> {
    let fits = match (kind, place) {
        (Kind::SysvShm | Kind::SysvMsg | Kind::SysvSem, Place::Id(_))
        | (Kind::Mq, Place::Queue(_)) => true,
        (Kind::PosixShm | Kind::PosixSem, Place::File(_)) => {
            let path = place.path()?;
            path.parent() == Some(std::path::Path::new("/dev/shm"))
        }
        (Kind::Fifo | Kind::Unix, Place::File(_)) => place.path().is_ok(),
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(Error::new(Reason::Damaged, "the journal names no place of this kind"))
    }
}
