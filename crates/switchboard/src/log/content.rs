//! Whether the files in a log's folder are what their names say, before any is removed.
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
    BELL, BELL_BYTES, ENDS_AT, ENDS_BYTES, FLAG_AT, LOCK, READERS, RECEIVED_AT, RING_AT, TABLE,
};
use super::table::LANES;
use super::{places, segment, table};

/// What is in a folder and not of the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(crate) path: PathBuf,
    /// Why not, as a sentence goes on after the path.
    pub(crate) problem: &'static str,
}

/// What is in the folder and not of the log, if there is something. `path` is what the folder is called.
pub(crate) fn find_foreign(folder: impl AsFd, path: &Path) -> Result<Option<Foreign>> {
    for (name, kind) in files::entries(&folder)? {
        let foreign = if is_readers(&name, kind) {
            let readers = files::open_folder_at(&folder, &name)?;
            files::entries(&readers)?
                .into_iter()
                .find_map(|(place, kind)| {
                    check(&readers, &path.join(READERS), &place, kind, is_place).transpose()
                })
                .transpose()?
        } else if is_ours(&name, kind) {
            check(&folder, path, &name, kind, |file| {
                is_what_it_is_called(&name.to_string_lossy(), file)
            })?
        } else {
            Some(Foreign { path: path.join(&name), problem: "is not of the log" })
        };
        if foreign.is_some() {
            return Ok(foreign);
        }
    }
    Ok(None)
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

fn check(
    folder: impl AsFd,
    path: &Path,
    name: &OsStr,
    kind: Kind,
    is_of_the_log: impl FnOnce(&File) -> io::Result<bool>,
) -> Result<Option<Foreign>> {
    let foreign = |problem| Ok(Some(Foreign { path: path.join(name), problem }));
    if kind != Kind::File {
        return foreign("is not of the log");
    }
    let file = match files::open(folder, name, Access::Read) {
        Ok(file) => File::from(file),
        // Somebody else removed it meanwhile.
        Err(error) if error.name() == "ENOENT" => return Ok(None),
        Err(error) if error.name() == "EACCES" => {
            return foreign("may not be read, so whether it is of the log is not known");
        }
        Err(error) if error.name() == "EMLINK" => {
            return foreign("is not of the log: it has another name, too");
        }
        Err(error) if files::is_no_file(error) => return foreign("is not of the log"),
        Err(error) => return Err(error),
    };
    match is_of_the_log(&file) {
        Ok(true) => Ok(None),
        Ok(false) => foreign("is not of the log: its content is something else"),
        Err(error) => {
            const EIO: i32 = 5;
            Err(switchboard_kernel::Error::from_raw("pread", error.raw_os_error().unwrap_or(EIO)))
        }
    }
}

fn is_what_it_is_called(name: &str, file: &File) -> io::Result<bool> {
    match name {
        LOCK => Ok(file.metadata()?.len() == 0),
        BELL => is_bell(file),
        TABLE => is_table(file),
        // What is made under a hidden name becomes a segment, the table, or a place.
        _ if hidden_pid(name).is_some() => {
            Ok(is_segment(file)? || is_table(file)? || is_place(file)?)
        }
        _ => is_segment(file),
    }
}

/// A count, two flags, the byte that is rung, how far the lanes are, and zeros; or the beginning of that.
fn is_bell(file: &File) -> io::Result<bool> {
    let page = read(file, 0, BELL_BYTES + 1)?;
    let is_expected = |(at, byte): (usize, &u8)| match at {
        0..FLAG_AT => true,
        FLAG_AT | RECEIVED_AT | RING_AT => *byte <= 1,
        _ if (ENDS_AT..ENDS_AT + ENDS_BYTES).contains(&at) => true,
        _ => *byte == 0,
    };
    Ok(page.len() <= BELL_BYTES && page.iter().enumerate().all(is_expected))
}

fn is_segment(file: &File) -> io::Result<bool> {
    let header = read(file, 0, segment::HEADER_BYTES)?;
    Ok(header.starts_with(&segment::MAGIC) || is_zero(&header))
}

fn is_table(file: &File) -> io::Result<bool> {
    has_copies(file, table::COPIES_AT, &table::MAGIC)
}

fn is_place(file: &File) -> io::Result<bool> {
    has_copies(file, places::COPIES_AT.map(|at| at as u64), &places::MAGIC)
}

/// Whether one of two copies begins as it should, or nothing was written yet.
fn has_copies(file: &File, at: [u64; 2], magic: &[u8; 8]) -> io::Result<bool> {
    let mut copies = at.into_iter();
    if copies.any(|at| read(file, at, magic.len()).is_ok_and(|found| found == magic)) {
        return Ok(true);
    }
    Ok(is_zero(&read(file, 0, at[1] as usize + magic.len())?))
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
