//! Which channels there are: the folders of channels that a user can look into, and what is in them. Nothing is
//! made or removed.
//!
//! Source: docs/design/shm.md, "Meeting"; docs/design/top.md, "Channels".

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::{private_folder, shared_folder};

use super::base::{self, OpenFolder, Surroundings};
use super::looking::{AT_A_TIME, MOST_ENDS, ask, entries_in};
use super::name::{Listed, channel_of};
use crate::address::SYSTEM_SCOPE;
use crate::counters::{Around, Channel, End, Nearby};
use crate::link::printable;

/// Channels that are looked at, at most.
const MOST_CHANNELS: usize = 4096;

/// A folder in which each channel has one.
struct Base {
    folder: OpenFolder,
    /// What an address has to say so that its end meets here; none for this user's own place.
    scope: Option<PathBuf>,
}

/// Looks at every channel of this user, of the system, of other users as far as they let this one in, and in the
/// scopes that are named.
pub(crate) fn look_around(scopes: &[PathBuf], timeout: Duration) -> Around {
    let mut around = Around::default();
    let mut folders = Vec::new();
    for base in bases(&Surroundings::here(), scopes, &mut around.not_seen) {
        let names = match private_folder::names(&base.folder.folder) {
            Ok(names) => names,
            Err(error) => {
                around.not_seen.push(format!("{}: {error}", base.folder.path.display()));
                continue;
            }
        };
        for name in names {
            let Some(listed) = name.to_str().and_then(channel_of) else { continue };
            let Ok(folder) = shared_folder::open_at(&base.folder.folder, &name) else { continue };
            let address = address(&listed, base.scope.as_deref());
            let path = base.folder.path.join(&name);
            folders.push((address, OpenFolder { folder, path }));
        }
    }
    folders.sort_by(|a, b| a.0.cmp(&b.0));
    folders.truncate(MOST_CHANNELS);
    around.channels = ask_all(folders, timeout);
    around
}

/// Asks all ends of all channels, some at a time; channels that nobody has open are left out.
fn ask_all(folders: Vec<(String, OpenFolder)>, timeout: Duration) -> Vec<Nearby> {
    let mut all: Vec<Nearby> = Vec::new();
    let mut entries = Vec::new();
    for (at, (_, folder)) in folders.iter().enumerate() {
        let found = entries_in(&folder.folder).unwrap_or_default();
        entries.extend(found.into_iter().map(|entry| (at, entry)));
    }
    let left_out = entries.len().saturating_sub(MOST_ENDS);
    entries.truncate(MOST_ENDS);
    let mut ends: Vec<Vec<End>> = folders.iter().map(|_| Vec::new()).collect();
    for some in entries.chunks(AT_A_TIME) {
        let deadline = Deadline::after(timeout);
        let asked: Vec<_> = some
            .iter()
            .filter_map(|(at, entry)| Some((*at, ask(&folders[*at].1, *entry)?)))
            .collect();
        for (at, asked) in asked {
            ends[at].push(asked.end(deadline));
        }
    }
    for ((address, folder), ends) in folders.into_iter().zip(ends) {
        if !ends.is_empty() {
            let channel = Channel { ends, left_out: 0 };
            all.push(Nearby { address, folder: folder.path, channel });
        }
    }
    if let Some(last) = all.last_mut() {
        last.channel.left_out = left_out;
    }
    all
}

/// The folders of channels: each once, whichever way it is reached.
fn bases(here: &Surroundings, scopes: &[PathBuf], not_seen: &mut Vec<String>) -> Vec<Base> {
    let mut bases: Vec<Base> = Vec::new();
    let mut known: Vec<(u64, u64)> = Vec::new();
    let mut add = |path: &Path, scope: Option<PathBuf>, is_named: bool| match open(path) {
        Ok((folder, identity)) => {
            if !known.contains(&identity) {
                known.push(identity);
                bases.push(Base { folder: OpenFolder { folder, path: path.to_owned() }, scope });
            }
        }
        Err(error) if is_named => not_seen.push(format!("{}: {error}", path.display())),
        Err(_) => {}
    };
    add(&base::own_folder(here).join("shm"), None, false);
    for scope in scopes {
        let status = File::open(scope).ok().and_then(|folder| shared_folder::status(&folder).ok());
        let is_shared = status.is_none_or(|status| status.is_shared());
        let folder = if is_shared { scope.clone() } else { scope.join("shm") };
        add(&folder, Some(scope.clone()), true);
    }
    add(Path::new(SYSTEM_SCOPE), Some("system".into()), false);
    // Those of other users: who is not let in sees nothing of them.
    for user in names_in(&here.users) {
        let scope = here.users.join(user).join("switchboard");
        add(&scope.join("shm"), Some(scope), false);
    }
    for name in names_in(&here.temporary) {
        let number = name.to_str().and_then(|name| name.strip_prefix("switchboard-"));
        if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            let scope = here.temporary.join(&name);
            add(&scope.join("shm"), Some(scope), false);
        }
    }
    bases
}

/// A folder, not by a symbolic link as its last name, and what identifies it.
fn open(path: &Path) -> std::io::Result<(OwnedFd, (u64, u64))> {
    let folder = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => {
            File::from(shared_folder::open_at(File::open(parent)?, name)?)
        }
        _ => File::open(path)?,
    };
    let metadata = folder.metadata()?;
    Ok((folder.into(), (metadata.dev(), metadata.ino())))
}

fn names_in(path: &Path) -> Vec<OsString> {
    let all = std::fs::read_dir(path).into_iter().flatten();
    all.filter_map(|entry| Some(entry.ok()?.file_name())).collect()
}

/// The address of a channel, as its ends say it. Bytes of its name that are not plain are `%XX`.
fn address(listed: &Listed, scope: Option<&Path>) -> String {
    let (name, cut) = match listed {
        Listed::Whole(name) => (name, ""),
        Listed::Begin(name) => (name, "…"),
    };
    let mut address = "shm:".to_owned();
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte) {
            address.push(byte.into());
        } else {
            address += &format!("%{byte:02X}");
        }
    }
    address += cut;
    if let Some(scope) = scope {
        address += "?scope=";
        address += &printable(scope.as_os_str().as_encoded_bytes(), 4096);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, Queue};

    #[test]
    fn addresses_are_as_they_are_written() {
        let check = |name: &[u8], scope: Option<&str>, expected: &str| {
            let listed = Listed::Whole(name.to_vec());
            let found = address(&listed, scope.map(Path::new));
            assert_eq!(found, expected);
            assert!(found.parse::<crate::Address>().is_ok(), "{found}");
        };
        check(b"engine/temperature", None, "shm:engine/temperature");
        check(b"a b?%\n", Some("/run/x"), "shm:a%20b%3F%25%0A?scope=/run/x");
        check(b"\x1b[0m", Some("system"), "shm:%1B%5B0m?scope=system");
        check("ü".as_bytes(), None, "shm:%C3%BC");
        assert_eq!(address(&Listed::Begin(b"x".to_vec()), None), "shm:x…");
    }

    #[test]
    fn what_is_open_is_found_and_nothing_else() {
        let scratch = tempfile::tempdir().expect("a folder");
        let scope = scratch.path().join("scope");
        let timeout = Duration::from_secs(30);
        let of_scope = |around: Around| -> Vec<(String, usize)> {
            let here = around.channels.into_iter().filter(|one| one.folder.starts_with(&scope));
            here.map(|one| (one.address, one.channel.ends.len())).collect()
        };
        let around = look_around(std::slice::from_ref(&scope), timeout);
        assert!(around.not_seen.iter().any(|line| line.contains("scope")), "{around:?}");
        let address = format!("shm:jobs/a%20b?scope={}", scope.display());
        let queue = Queue::<Bytes>::open(&address).expect("a queue");
        let receiver = queue.receiver().expect("a receiver");
        let sender = queue.sender().expect("a sender");
        let found = of_scope(look_around(std::slice::from_ref(&scope), timeout));
        assert_eq!(found, [(address.clone(), 2)]);
        drop(sender);
        assert_eq!(of_scope(look_around(std::slice::from_ref(&scope), timeout)), [(address, 1)]);
        drop(receiver);
        assert_eq!(of_scope(look_around(std::slice::from_ref(&scope), timeout)), []);
    }
}
