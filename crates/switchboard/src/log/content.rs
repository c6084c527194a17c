//! Whether the files in a log's folder are what their names say, before any is written to or removed.
//!
//! Names alone prove nothing: `lock` and `queue` are ordinary words. What a log makes is told by how it
//! begins, and files that a death or a power cut left empty or full of zeros count as the log's, too.
//! `docs/design/log.md` draws the bytes.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use switchboard_kernel::Result;
use switchboard_kernel::folder_file::{self as files, Access, Kind};

use super::folder::{
    BELL, BELL_BYTES, ENDS_AT, ENDS_BYTES, FLAG_AT, LOCK, READERS, RECEIVED_AT, RING_AT, ROOM_AT,
    TABLE, cannot_open, system,
};
use super::table::LANES;
use super::{places, segment, table};
use crate::address::Address;
use crate::error::{Error, ErrorKind};

/// What is in a folder and not of the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(crate) path: PathBuf,
    /// Why not, as a sentence goes on after the path.
    pub(crate) problem: &'static str,
}

/// What a folder is, for who wants to open a log in it.
#[derive(Debug)]
enum Holds {
    Nothing,
    /// A log, or what a log is begun with.
    Log,
    Foreign(Foreign),
}

/// What a file says of the folder that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// Only a log makes that.
    Log,
    /// Nothing: it is empty, or zeros.
    Nothing,
    /// A bell that was cut off, if the rest is a log: what is left of it could be anything.
    IfLog,
    /// No log makes that.
    Foreign,
}

/// Looks whether a log may be opened in a folder. Nothing is changed.
///
/// A folder in which something proves that it is a log is one, whatever else is in it. Without proof it has to be
/// empty, or hold only what one who begins a log makes first, and may have died after.
///
/// # Errors
/// What the system says; `EACCES` where the bell may not be read.
fn look(folder: impl AsFd, path: &Path) -> Result<Holds> {
    match files::open(&folder, OsStr::new(BELL), Access::Read) {
        Ok(bell) => {
            if in_call(bell_says(&File::from(bell)))? == Says::Log {
                return Ok(Holds::Log);
            }
        }
        Err(error) if error.name() == "ENOENT" || files::is_no_file(error) => {}
        Err(error) => return Err(error),
    }
    let all = walk(&folder, path)?;
    Ok(match all.foreign {
        _ if all.is_proven => Holds::Log,
        Some(foreign) => Holds::Foreign(foreign),
        None if all.is_empty => Holds::Nothing,
        None => Holds::Log,
    })
}

/// Refuses a folder that is not empty and no log, before anything in it is changed.
pub(super) fn check_is_log(
    folder: impl AsFd,
    path: &Path,
    address: &Address,
    make: bool,
) -> std::result::Result<(), Error> {
    let held = look(&folder, path).map_err(|error| cannot_open(address, BELL, error))?;
    match held {
        Holds::Log => Ok(()),
        Holds::Nothing if make => Ok(()),
        Holds::Nothing => {
            let problem = "there is no log of this name, but an empty folder";
            Err(Error::new(ErrorKind::NotFound, address, problem))
        }
        Holds::Foreign(Foreign { path, problem }) if make || holds_log(&folder) => {
            let problem = format!("this folder is no log: {} {problem}", path.display());
            Err(Error::new(ErrorKind::Mismatch, address, problem)
                .hint("nothing was changed; choose a name that is free, or an empty folder"))
        }
        Holds::Foreign(Foreign { path, problem }) => {
            let problem = format!(
                "there is no log of this name, but another folder: {} {problem}",
                path.display()
            );
            Err(Error::new(ErrorKind::NotFound, address, problem))
        }
    }
}

/// Refuses what has the name of the bell in a log and is something else, before it is made longer or mapped.
pub(super) fn check_is_bell(
    bell: &File,
    path: &Path,
    address: &Address,
) -> std::result::Result<(), Error> {
    if may_be_bell(bell).map_err(|error| system(address, "pread", BELL, error))? {
        return Ok(());
    }
    let problem =
        format!("{} is not of the log: its content is something else", path.join(BELL).display());
    Err(Error::new(ErrorKind::Mismatch, address, problem)
        .hint("it is not used, and was not changed; move it away, and the log makes another"))
}

/// Whether a folder holds a log, or a part of one. Where it cannot be looked into, opening the log says
/// why.
pub(crate) fn holds_log(folder: impl AsFd) -> bool {
    let Ok(entries) = files::entries(folder) else { return true };
    entries.iter().any(|(name, kind)| is_ours(name, *kind))
}

/// What is in the folder and not of the log, if there is something. `path` is what the folder is called.
pub(crate) fn find_foreign(folder: impl AsFd, path: &Path) -> Result<Option<Foreign>> {
    walk(folder, path).map(|all| all.foreign)
}

/// Whether an open file may be used as the bell of a folder that holds a log: it is one, or what is left of one, or
/// as long as one; then somebody lied in it, or the disk did.
fn may_be_bell(file: &File) -> io::Result<bool> {
    Ok(bell_says(file)? != Says::Foreign || file.metadata()?.len() == BELL_BYTES as u64)
}

/// All that was found in a folder.
#[derive(Debug)]
struct All {
    is_empty: bool,
    /// Something in it proves that it is a log.
    is_proven: bool,
    foreign: Option<Foreign>,
}

fn walk(folder: impl AsFd, path: &Path) -> Result<All> {
    let mut all = All { is_empty: true, is_proven: false, foreign: None };
    let mut if_log = None;
    for (name, kind) in files::entries(&folder)? {
        all.is_empty = false;
        if is_readers(&name, kind) {
            let readers = match files::open_folder_at(&folder, &name) {
                Err(error) if error.name() == "ENOENT" => continue,
                opened => opened?,
            };
            for (place, kind) in files::entries(&readers)? {
                let found = check(&readers, &path.join(READERS), &place, kind, place_says)?;
                all.add(found);
            }
        } else if is_ours(&name, kind) {
            let says = |file: &File| says(&name.to_string_lossy(), file);
            let found = check(&folder, path, &name, kind, says)?;
            if found == Ok(Says::IfLog) {
                if_log = Some(Foreign { path: path.join(&name), problem: OTHER_CONTENT });
            }
            all.add(found);
        } else {
            let problem = "is not of the log";
            all.add(Err(Foreign { path: path.join(&name), problem }));
        }
    }
    if !all.is_proven {
        all.foreign = all.foreign.or(if_log);
    }
    Ok(all)
}

impl All {
    fn add(&mut self, found: std::result::Result<Says, Foreign>) {
        match found {
            Ok(says) => self.is_proven |= says == Says::Log,
            Err(foreign) => {
                self.foreign.get_or_insert(foreign);
            }
        }
    }
}

/// Whether a file of the folder has a name and a kind as a log makes them there.
pub(crate) fn is_ours(name: &OsStr, kind: Kind) -> bool {
    let Some(name) = name.to_str() else { return false };
    let named = [LOCK, BELL, TABLE].contains(&name)
        || segment::parse_name(name).is_some_and(|(lane, _)| (lane as usize) < LANES)
        || hidden_pid(name).is_some();
    named && kind == Kind::File
}

/// Whether it is the folder of the places.
pub(crate) fn is_readers(name: &OsStr, kind: Kind) -> bool {
    name == READERS && kind == Kind::Folder
}

/// The process that makes the file of this name, which is not visible yet.
pub(crate) fn hidden_pid(name: &str) -> Option<u32> {
    name.strip_prefix(".new-")?.split_once('-')?.0.parse().ok()
}

const OTHER_CONTENT: &str = "is not of the log: its content is something else";

/// What a file says, or why it is none of the log's.
fn check(
    folder: impl AsFd,
    path: &Path,
    name: &OsStr,
    kind: Kind,
    says: impl FnOnce(&File) -> io::Result<Says>,
) -> Result<std::result::Result<Says, Foreign>> {
    let foreign = |problem| Ok(Err(Foreign { path: path.join(name), problem }));
    if kind != Kind::File {
        return foreign("is not of the log");
    }
    let file = match files::open(folder, name, Access::Read) {
        Ok(file) => File::from(file),
        // Somebody else removed it meanwhile, or gave it its name.
        Err(error) if error.name() == "ENOENT" => return Ok(Ok(Says::Nothing)),
        Err(error) if error.name() == "EACCES" => {
            return foreign("may not be read, so whether it is of the log is not known");
        }
        Err(error) if error.name() == "EMLINK" => {
            return foreign("is not of the log: it has another name, too");
        }
        Err(error) if files::is_no_file(error) => return foreign("is not of the log"),
        Err(error) => return Err(error),
    };
    match in_call(says(&file))? {
        Says::Foreign => foreign(OTHER_CONTENT),
        says => Ok(Ok(says)),
    }
}

fn in_call<T>(read: io::Result<T>) -> Result<T> {
    const EIO: i32 = 5;
    read.map_err(|error| {
        switchboard_kernel::Error::from_raw("pread", error.raw_os_error().unwrap_or(EIO))
    })
}

fn says(name: &str, file: &File) -> io::Result<Says> {
    match name {
        LOCK if file.metadata()?.len() == 0 => Ok(Says::Nothing),
        LOCK => Ok(Says::Foreign),
        BELL => bell_says(file),
        TABLE => table_says(file),
        // What is made under a hidden name becomes a segment, the table, or a place.
        _ if hidden_pid(name).is_some() => {
            for says in [segment_says, table_says, place_says] {
                let says = says(file)?;
                if says != Says::Foreign {
                    return Ok(says);
                }
            }
            Ok(Says::Foreign)
        }
        _ => segment_says(file),
    }
}

/// A count, three flags, the byte that is rung, how far the lanes are, and zeros; or the beginning of that.
fn bell_says(file: &File) -> io::Result<Says> {
    let page = read(file, 0, BELL_BYTES + 1)?;
    let is_expected = |(at, byte): (usize, &u8)| match at {
        0..FLAG_AT => true,
        FLAG_AT | RECEIVED_AT | ROOM_AT | RING_AT => *byte <= 1,
        _ if (ENDS_AT..ENDS_AT + ENDS_BYTES).contains(&at) => true,
        _ => *byte == 0,
    };
    let is_bell = page.len() <= BELL_BYTES && page.iter().enumerate().all(is_expected);
    Ok(match is_bell {
        false => Says::Foreign,
        true if page.len() == BELL_BYTES => Says::Log,
        true if is_zero(&page) => Says::Nothing,
        true => Says::IfLog,
    })
}

fn segment_says(file: &File) -> io::Result<Says> {
    let header = read(file, 0, segment::HEADER_BYTES)?;
    Ok(match header.starts_with(&segment::MAGIC) {
        true => Says::Log,
        // Cut off in it.
        false if segment::MAGIC.starts_with(&header) => Says::Nothing,
        false => nothing_or_foreign(&header),
    })
}

fn table_says(file: &File) -> io::Result<Says> {
    copies_say(file, table::COPIES_AT, &table::MAGIC)
}

fn place_says(file: &File) -> io::Result<Says> {
    copies_say(file, places::COPIES_AT.map(|at| at as u64), &places::MAGIC)
}

/// Whether one of two copies begins as it should, or nothing was written yet.
fn copies_say(file: &File, at: [u64; 2], magic: &[u8; 8]) -> io::Result<Says> {
    let mut copies = at.into_iter();
    if copies.any(|at| read(file, at, magic.len()).is_ok_and(|found| found == magic)) {
        return Ok(Says::Log);
    }
    Ok(nothing_or_foreign(&read(file, 0, at[1] as usize + magic.len())?))
}

fn nothing_or_foreign(bytes: &[u8]) -> Says {
    if is_zero(bytes) { Says::Nothing } else { Says::Foreign }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// So many bytes, or fewer at the file's end.
fn read(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut found = 0;
    while found < len {
        match file.read_at(&mut bytes[found..], at + found as u64) {
            Ok(0) => break,
            Ok(n) => found += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(found);
    Ok(bytes)
}
