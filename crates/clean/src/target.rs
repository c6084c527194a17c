//! An object that can be removed: what it is, where it is, and what it has to be still.
//!
//! Source: docs/design/clean.md, "Steps".

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use switchboard_inspect::text::{escaped, unescaped};
use switchboard_inspect::{Kind, Object};

use crate::error::{Error, Reason, Result};

/// Kinds that can be removed.
pub const KINDS: &[Kind] = &[
    Kind::SysvShm,
    Kind::SysvMsg,
    Kind::SysvSem,
    Kind::Mq,
    Kind::PosixShm,
    Kind::PosixSem,
    Kind::Unix,
    Kind::Fifo,
];

/// Where an object is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A System V object of this id.
    Id(i32),
    /// A POSIX queue of this name; escaped.
    Queue(String),
    /// A file; its path, escaped.
    File(String),
}

/// An object to be removed, as a snapshot shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its id in the snapshot.
    pub object: String,
    /// What it is.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// Device (major, minor) and inode of a file or queue.
    pub file: Option<(u32, u32, u64)>,
}

impl Target {
    /// What an object of a snapshot is to this crate.
    ///
    /// # Errors
    /// [`Reason::Elsewhere`]: it is of a kind that goes by itself, has no name, or is in another namespace.
    pub fn of(object: &Object) -> Result<Self> {
        let elsewhere = |why: String| Err(Error::new(Reason::Elsewhere, why));
        if !KINDS.contains(&object.kind) {
            let what = object.kind.row().what;
            return elsewhere(format!("an object of this kind ({what}) goes with who holds it"));
        }
        let numbers = object.id.split_once(':').map_or("", |(_, numbers)| numbers);
        if let Some(namespace) = object.namespace.filter(|_| object.kind != Kind::Unix) {
            return elsewhere(format!(
                "it is in IPC namespace {namespace}: switchboard clean there, with nsenter --ipc --mount --pid --target PID"
            ));
        }
        let (place, file) = match object.kind {
            Kind::SysvShm | Kind::SysvMsg | Kind::SysvSem => match numbers.parse() {
                Ok(id) => (Place::Id(id), None),
                Err(_) => return elsewhere("it has no id here".to_owned()),
            },
            kind => {
                let file = object.details.get("file").filter(|_| kind == Kind::Unix);
                let Some(file) = file_numbers(file.unwrap_or(numbers)) else {
                    return elsewhere("it has no file".to_owned());
                };
                let in_memory = matches!(kind, Kind::PosixShm | Kind::PosixSem);
                let fits = |name: &&String| {
                    name.starts_with(if in_memory { SHARED } else { "/" })
                        && !name.ends_with(" (deleted)")
                };
                match object.names.iter().find(fits) {
                    Some(name) if kind == Kind::Mq => (Place::Queue(name.clone()), Some(file)),
                    Some(name) => (Place::File(name.clone()), Some(file)),
                    None => {
                        return elsewhere("it has no name that leads to it from here".to_owned());
                    }
                }
            }
        };
        Ok(Self { object: object.id.clone(), kind: object.kind, place, file })
    }
}

/// Where POSIX shared memory and semaphores are.
pub(crate) const SHARED: &str = "/dev/shm/";

impl Place {
    /// The id of a System V object.
    pub(crate) fn id(&self) -> Result<i32> {
        match self {
            Self::Id(id) => Ok(*id),
            _ => Err(Error::new(Reason::Damaged, "no System V object")),
        }
    }

    /// The name of a queue, with its slash.
    pub(crate) fn queue(&self) -> Result<String> {
        let name = match self {
            Self::Queue(name) => unescaped(name).and_then(|bytes| String::from_utf8(bytes).ok()),
            _ => None,
        };
        name.ok_or_else(|| Error::new(Reason::Elsewhere, "its name is no text"))
    }

    /// The path of a file: absolute, with a last part that is a name.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let Self::File(text) = self else {
            return Err(Error::new(Reason::Damaged, "no file"));
        };
        let path = unescaped(text).map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        let is_sound = |path: &PathBuf| {
            path.is_absolute()
                && path.file_name().is_some()
                && path.as_os_str().len() < 4096
                && !path.as_os_str().as_bytes().contains(&0)
        };
        path.filter(is_sound).ok_or_else(|| Error::new(Reason::Damaged, format!("no path: {text}")))
    }

    /// As a person would call it.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Id(id) => id.to_string(),
            Self::Queue(name) | Self::File(name) => name.clone(),
        }
    }
}

/// The folder of a path, and the name in it.
pub(crate) fn parts(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default())
}

/// A path as a place.
#[must_use]
pub fn file(path: &Path) -> Place {
    Place::File(escaped(path.as_os_str().as_bytes()))
}

/// `MAJOR:MINOR:INODE`.
fn file_numbers(text: &str) -> Option<(u32, u32, u64)> {
    let mut numbers = text.split(':');
    let found = (
        numbers.next()?.parse().ok()?,
        numbers.next()?.parse().ok()?,
        numbers.next()?.parse().ok()?,
    );
    numbers.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_removed() {
        let mut object = Object::new(Kind::SysvShm, "sysv-shm:7");
        assert_eq!(Target::of(&object).expect("a target").place, Place::Id(7));
        object.namespace = Some(9);
        assert_eq!(Target::of(&object).expect_err("elsewhere").reason(), Reason::Elsewhere);
        let mut object = Object::new(Kind::PosixShm, "posix-shm:0:25:2");
        assert!(Target::of(&object).is_err(), "no name");
        object.names = vec!["/dev/shm/a (deleted)".into(), "/dev/shm/a".into()];
        let target = Target::of(&object).expect("a target");
        assert_eq!(target.place, Place::File("/dev/shm/a".into()));
        assert_eq!(target.file, Some((0, 25, 2)));
        let mut object = Object::new(Kind::Unix, "unix:12");
        object.names = vec!["/run/a.sock".into()];
        assert!(Target::of(&object).is_err(), "no file");
        object.details.insert("file", "8:1:77");
        assert_eq!(Target::of(&object).expect("a target").file, Some((8, 1, 77)));
        assert!(Target::of(&Object::new(Kind::Pipe, "pipe:1")).is_err());
    }

    #[test]
    fn places_that_are_none() {
        for wrong in ["a", "/", "/a/..", "", "/\\x00", "/a\\q"] {
            assert!(Place::File(wrong.into()).path().is_err(), "{wrong}");
        }
        let path = Place::File("/a\\nb".into()).path().expect("a path");
        assert_eq!(path, Path::new("/a\nb"));
        assert_eq!(file(&path), Place::File("/a\\nb".into()));
    }
}
