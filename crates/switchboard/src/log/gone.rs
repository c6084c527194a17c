//! Whether a log that an endpoint has open is still there under its name.
//!
//! Source: `unlink(2)`, `stat(2)`. Who has a file open keeps it when its name is removed, so an endpoint
//! of a removed log would wait for ever: nobody can reach that any more. It looks now and then.

use std::fs::{File, Metadata};
use std::io::ErrorKind as Io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::folder::{BELL, Folder};
use switchboard_kernel::folder_file::Access;

use crate::address::Address;
use crate::error::{Error, ErrorKind};

/// The log as it was when an endpoint was opened. It keeps the bell open, so that no other file can
/// have its number.
#[derive(Debug)]
pub(crate) struct Standing {
    bell: File,
    path: PathBuf,
    address: Address,
}

impl Standing {
    /// Notes what stands under the name now.
    pub(crate) fn of(folder: &Folder) -> Result<Self, Error> {
        let bell = folder
            .open_file(BELL, Access::Read)
            .map_err(|error| folder.cannot_open(BELL, error))?;
        Ok(Self { bell, path: folder.bell_path(), address: folder.address.clone() })
    }

    /// `stat(2)`: an error when the log was removed, or another one has its name. An endpoint that
    /// waits calls this each time it looks by itself.
    ///
    /// # Errors
    /// `System`, with what happened.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let problem = match std::fs::symlink_metadata(&self.path) {
            Ok(found) if self.bell.metadata().is_ok_and(|ours| is_same(&ours, &found)) => {
                return Ok(());
            }
            Ok(_) => "the log was removed, and another one has its name",
            Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => {
                "the log was removed, or moved to another name"
            }
            // It can be neither seen nor ruled out.
            Err(_) => return Ok(()),
        };
        Err(Error::new(ErrorKind::System, &self.address, problem)
            .hint("nothing can come from it any more; start again to use what is there now"))
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
