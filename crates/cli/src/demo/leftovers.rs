//! What demos that were killed with SIGKILL left behind: a folder and a POSIX queue each.
//!
//! Source: `flock(2)`. A demo holds a file in its folder locked for as long as it lives, and the kernel
//! releases the lock however it ends; so where the file can be locked the demo is gone. The folder's
//! name, which has a process id in it, proves nothing: the id may be another process's by now.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use switchboard::{Address, object};
use switchboard_kernel::io::try_lock;
use switchboard_kernel::process::effective_user_id;

/// How the names of folders and queues begin.
pub(super) const NAME: &str = "switchboard-demo-";
/// The file in a demo's folder that it holds locked. It has the name of the demo's queue in it.
const LOCK: &str = "lock";

/// A living demo's claim to its folder, and to the queue that it notes.
#[derive(Debug)]
pub(super) struct Claim(File);

impl Claim {
    /// Claims a new folder. `None` when it was taken for one that lost its demo, and removed.
    ///
    /// # Errors
    /// When no file can be made in it.
    pub(super) fn to(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(LOCK);
        let lock = File::create_new(&path)?;
        Ok((try_lock(&lock)? && is_still(&path, &lock)).then_some(Self(lock)))
    }

    /// Notes which queue goes with the folder.
    ///
    /// # Errors
    /// As for writing any file.
    pub(super) fn note_queue(&mut self, name: &str) -> io::Result<()> {
        self.0.write_all(name.as_bytes())
    }
}

/// Removes what this user's earlier demos left behind in this folder, and the queues that went with
/// it. Says what that was.
pub(super) fn remove(parent: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let named = entries.flatten().filter(|entry| is_demos(&entry.file_name().to_string_lossy()));
    named.filter_map(|entry| remove_one(&entry.path())).flatten().collect()
}

/// `switchboard-demo-4711` or `switchboard-demo-4711-2`.
fn is_demos(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix(NAME).is_some_and(|rest| rest.split('-').all(is_number))
}

fn remove_one(folder: &Path) -> Option<Vec<String>> {
    let found = fs::symlink_metadata(folder).ok()?;
    if !found.is_dir() || found.uid() != effective_user_id() {
        return None;
    }
    // Without this file it may be anybody's.
    let path = folder.join(LOCK);
    let lock = File::open(&path).ok()?;
    if !try_lock(&lock).ok()? || !is_still(&path, &lock) {
        return None;
    }
    let queue = fs::read_to_string(&path).ok()?;
    let mut removed = Vec::new();
    if queue.strip_prefix('/').is_some_and(is_demos) {
        let address = format!("mq:{queue}");
        if address.parse::<Address>().is_ok_and(|address| object::unlink(&address).is_ok()) {
            removed.push(address);
        }
    }
    if fs::remove_dir_all(folder).is_ok() {
        removed.push(folder.display().to_string());
    }
    Some(removed)
}

/// Whether a path leads to what was opened.
fn is_still(path: &Path, opened: &File) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let found = (fs::symlink_metadata(path).map(identity), opened.metadata().map(identity));
    matches!(found, (Ok(there), Ok(here)) if there == here)
}
