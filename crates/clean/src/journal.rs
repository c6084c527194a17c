//! What was removed, kept under the user's state directory: a folder for each run, private, bounded, checksummed.
//!
//! Source: docs/design/clean.md, "The journal"; XDG Base Directory Specification (`XDG_STATE_HOME`).

mod body;
mod line;
mod run;
mod saved;
mod taken;

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use switchboard_inspect::Kind;
use switchboard_kernel::{private_folder, random};

use crate::error::{Error, Reason, Result};
use crate::target::Place;

pub(crate) use body::{Frames, Message, check as check_body, copy_memory, write_back};
pub use run::Run;
pub use saved::{Kept, SavedRun, State};
pub(crate) use taken::{TakenFrames, Waiting};

/// The layout of a journal; a reader refuses later ones.
pub const FORMAT: u32 = 2;

/// How much a journal may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of contents, of all runs together.
    pub most_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { most_bytes: 1 << 30 }
    }
}

/// The most objects of a run.
pub const MOST_OBJECTS: u32 = 10_000;

/// The most runs that are looked at.
const MOST_RUNS: usize = 10_000;

/// All that is known of an object that is removed, but for its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number in the run.
    pub number: u32,
    /// Its id in the inspector's words.
    pub object: String,
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub place: Place,
    /// The key of a System V object; 0 for a private one.
    pub key: i32,
    /// Device and inode of what is a file; the creating user and the sequence of what is not.
    pub identity: (u64, u64),
    /// Its owner.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// Permission bits.
    pub mode: u32,
    /// How large it is.
    pub size: Size,
    /// Why it was removed.
    pub reasons: Vec<String>,
}

/// How large an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// A name and no more.
    Nothing,
    /// Memory.
    Bytes(u64),
    /// A System V queue: bytes that it takes, messages in it.
    Texts(u64, u64),
    /// A POSIX queue: messages that it takes, bytes of each, messages in it.
    Messages(u32, u32, u32),
    /// So many counts.
    Counts(u32),
}

/// A line of a run's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// The first: the format, when in milliseconds since 1970, and the IPC namespace.
    Begun { format: u32, unix_ms: u64, ipc: Option<u64> },
    /// An object that is about to be closed, by this hidden name if it is a file.
    Object { entry: Entry, hidden: Option<String> },
    /// What it held is in its body: bytes of it, and their CRC-32C.
    Saved { number: u32, bytes: u64, crc: u32 },
    /// It is about to be removed.
    Removing { number: u32 },
    /// The messages that were taken out of it are put back, as they stand in its body.
    Returning { number: u32 },
    /// The message of this index is about to be put back, into a queue that has so many messages of so many bytes.
    Sending { number: u32, index: u32, messages: u32, bytes: u64 },
    /// It is gone.
    Removed { number: u32 },
    /// It stays: it is as it was.
    Opened { number: u32 },
    /// It is about to be made again.
    Restoring { number: u32 },
    /// It is there again, as this.
    Restored { number: u32, object: String },
}

/// The folder of all runs.
#[derive(Debug)]
pub struct Journal {
    folder: OwnedFd,
    path: PathBuf,
}

impl Journal {
    /// Opens it where this user's is; makes it if it is not there.
    ///
    /// # Errors
    /// [`Reason::Refused`]: a folder on the way belongs to somebody else, or lets others in; [`Reason::Failed`].
    pub fn open() -> Result<Self> {
        Self::open_in(&state_folder()?)
    }

    /// As [`Journal::open`], in this state folder.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_in(state: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let doing = |path: &Path| format!("journal in {}", path.display());
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
        made.map_err(|error| Error::io(&doing(state), &error))?;
        let parent =
            std::fs::File::open(state).map_err(|error| Error::io(&doing(state), &error))?;
        let mut path = state.to_owned();
        let mut folder = OwnedFd::from(parent);
        for name in ["switchboard", "clean"] {
            path.push(name);
            let error = |error| Error::call(&doing(&path), error);
            folder = private_folder::make_at(&folder, OsStr::new(name)).map_err(error)?;
        }
        Ok(Self { folder, path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its runs, the oldest first.
    ///
    /// # Errors
    /// [`Reason::Failed`].
    pub fn runs(&self) -> Result<Vec<String>> {
        let names = private_folder::names(&self.folder)
            .map_err(|error| Error::call("reading the journal", error))?;
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        let mut names: Vec<String> = names.filter(|name| is_run(name)).take(MOST_RUNS).collect();
        names.sort_unstable_by(|a, b| (sequence(a), a).cmp(&(sequence(b), b)));
        Ok(names)
    }

    /// Begins a run.
    ///
    /// # Errors
    /// [`Reason::Failed`], [`Reason::TooLarge`].
    pub fn begin(&self, limits: Limits) -> Result<Run> {
        let mut digits = [0; 4];
        random::fill(&mut digits).map_err(|error| Error::call("naming a run", error))?;
        let before = self.runs()?.last().map_or(0, |last| sequence(last));
        let number = before.saturating_add(1);
        let name = format!("{}-{number}-{:08x}", stamp(), u32::from_ne_bytes(digits));
        Run::begin(&self.folder, name, limits.most_bytes.saturating_sub(self.held_bytes()))
    }

    /// Reads a run.
    ///
    /// # Errors
    /// [`Reason::Gone`]: there is none of this name; [`Reason::Damaged`]: its log says nothing; [`Reason::Failed`].
    pub fn read(&self, name: &str) -> Result<SavedRun> {
        if !is_run(name) {
            return Err(Error::new(Reason::Gone, format!("no run {name:?} in the journal")));
        }
        SavedRun::read(&self.folder, name)
    }

    /// Removes a run with all that it holds.
    ///
    /// # Errors
    /// As [`Journal::read`]; [`Reason::InUse`]: it is at work.
    pub fn forget(&self, name: &str) -> Result<()> {
        if !is_run(name) {
            return Err(Error::new(Reason::Gone, format!("no run {name:?} in the journal")));
        }
        saved::forget(&self.folder, name)
    }

    /// Bytes of contents, of all runs.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let runs = self.runs().unwrap_or_default();
        runs.iter().map(|name| saved::held_bytes(&self.folder, name)).sum()
    }
}

/// `$XDG_STATE_HOME`, or `~/.local/state`.
fn state_folder() -> Result<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state"))).ok_or_else(
        || {
            let why =
                "nowhere to keep what is removed: set XDG_STATE_HOME or HOME to an absolute path";
            Error::new(Reason::Failed, why)
        },
    )
}

/// Whether this is what [`Journal::begin`] calls a run.
fn is_run(name: &str) -> bool {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (17..64).contains(&name.len()) && name.chars().all(sound) && name.starts_with('2')
}

/// Which run it is, by its name: one after the other, also within a second, and when the clock is set back. Before this was counted, they had no number.
fn sequence(name: &str) -> u64 {
    let mut parts = name.split('-').skip(1);
    match (parts.next(), parts.next()) {
        (Some(number), Some(_)) => number.parse().unwrap_or(0),
        _ => 0,
    }
}

/// Now, as `20261122T061230Z`.
fn stamp() -> String {
    let seconds = unix_ms() / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        year + era * 400 + carry,
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_runs() {
        let now = stamp();
        assert!(is_run(&format!("{now}-0123abcd")), "{now}");
        for wrong in ["", ".", "..", "2/../../../../../etc", "notes", "20261122"] {
            assert!(!is_run(wrong), "{wrong}");
        }
        for (name, number) in [
            ("20261122T061230Z-17-0123abcd", 17),
            ("20261122T061230Z-0123abcd", 0),
            ("20261122T061230Z-x-0123abcd", 0),
            ("20261122T061230Z--", 0),
            ("20261122T061230Z-99999999999999999999-0123abcd", 0),
        ] {
            assert_eq!(sequence(name), number, "{name}");
        }
    }
}
