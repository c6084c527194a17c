//! How the folder of a log and the files in it are made: owner and mode are set before a name is visible.
//!
//! A file is made under a hidden name (`.new-PID-N`) and then renamed; a death before that leaves the hidden
//! one, which the next sender removes. `docs/design/log.md` says what each step leaves.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use switchboard_kernel::folder_file::{self as files, Access};
use switchboard_kernel::mmap;
use switchboard_kernel::{self as kernel, Permissions};

const EINVAL: i32 = 22;

/// Makes the folder of a log, or opens it where somebody else was faster.
pub(super) fn make_log(path: &Path, permissions: Permissions) -> kernel::Result<OwnedFd> {
    let name = path.file_name().ok_or(kernel::Error::from_raw("mkdirat", EINVAL))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match files::make_folder_at(files::open_folder(parent)?, name, of_folder(permissions)) {
        Err(error) if error.name() == "EEXIST" => files::open_folder(path),
        made => made,
    }
}

/// Who may read a file may enter its folder.
pub(super) fn of_folder(permissions: Permissions) -> Permissions {
    let mode = permissions.mode;
    permissions.mode(mode | (mode & 0o444) >> 2)
}

/// Opens a file of a log, and makes it where it is not there.
pub(super) fn open_or_make(
    folder: BorrowedFd<'_>,
    name: &str,
    permissions: &Permissions,
    bytes: u64,
) -> kernel::Result<File> {
    loop {
        match files::open(folder, OsStr::new(name), Access::ReadWrite) {
            Err(error) if error.name() == "ENOENT" => {}
            opened => return opened.map(File::from),
        }
        let hidden = Hidden::make(folder, permissions, 0)?;
        if bytes > 0 {
            make_long(&hidden.file, bytes)?;
        }
        // Of several that make it at the same time one wins.
        match hidden.show(folder, name) {
            Err(error) if error.name() == "EEXIST" => {}
            shown => return shown,
        }
    }
}

/// Makes a short file long enough, with room on the disk where the file system can reserve it: a store to a
/// page of it that found none would be a fault.
pub(super) fn make_long(file: &File, bytes: u64) -> kernel::Result<()> {
    match mmap::reserve(file, bytes) {
        Err(error) if error.kind() == kernel::ErrorKind::NotSupported => mmap::set_len(file, bytes),
        reserved => reserved,
    }
}

/// A file that nobody looks for, with owner and mode. It is removed on drop, unless it was shown.
#[derive(Debug)]
pub(crate) struct Hidden<'a> {
    pub(crate) file: File,
    name: HiddenName<'a>,
}

#[derive(Debug)]
struct HiddenName<'a> {
    folder: BorrowedFd<'a>,
    name: OsString,
    is_shown: bool,
}

impl Drop for HiddenName<'_> {
    fn drop(&mut self) {
        if !self.is_shown {
            let _ = files::remove(self.folder, &self.name);
        }
    }
}

impl<'a> Hidden<'a> {
    pub(super) fn make(
        folder: BorrowedFd<'a>,
        permissions: &Permissions,
        bytes: u64,
    ) -> kernel::Result<Self> {
        // Unique while the process lives.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let name = OsString::from(format!(".new-{}-{count}", std::process::id()));
        let _ = files::remove(folder, &name);
        let file = File::from(files::create(folder, &name)?);
        let name = HiddenName { folder, name, is_shown: false };
        mmap::set_len(&file, bytes)?;
        files::set_permissions(&file, *permissions)?;
        Ok(Self { file, name })
    }

    /// Gives it a name in a folder that nothing has yet.
    pub(crate) fn show(self, folder: impl AsFd, name: &str) -> kernel::Result<File> {
        self.show_as(|hidden| {
            files::rename_new(hidden.folder, &hidden.name, folder, OsStr::new(name))
        })
    }

    /// Gives it a name in a folder, which what had it loses.
    pub(super) fn replace(self, folder: impl AsFd, name: &str) -> kernel::Result<File> {
        self.show_as(|hidden| files::rename(hidden.folder, &hidden.name, folder, OsStr::new(name)))
    }

    fn show_as(
        mut self,
        rename: impl FnOnce(&HiddenName<'_>) -> kernel::Result<()>,
    ) -> kernel::Result<File> {
        rename(&self.name)?;
        self.name.is_shown = true;
        Ok(self.file)
    }
}
