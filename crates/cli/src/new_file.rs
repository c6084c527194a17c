//! A file that a command writes its result to: one that is not there yet, and that only its owner may read.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::exit_code::Exit;
use crate::output::Failure;

/// The file, made before there is anything to write: whether it can be is known first.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
}

impl NewFile {
    /// Makes it, with mode 0600: what others' command lines say is not for everybody. With `force`, writes over one that is there.
    pub(crate) fn create(path: &Path, force: bool) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        if force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let file = options.open(path).map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes all of it. Half of it is nothing: then the file is removed.
    pub(crate) fn write(mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).and_then(|()| self.file.flush()).map_err(|error| {
            let _ = std::fs::remove_file(&self.path);
            failed(&self.path, &error)
        })
    }
}

fn failed(path: &Path, error: &Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::PermissionDenied => Exit::Refused,
        _ => Exit::Failed,
    };
    let failure = Failure::new(exit, format!("{}: {error}", path.display()));
    if error.kind() == ErrorKind::AlreadyExists {
        failure.hint("--force writes over it")
    } else {
        failure
    }
}
