//! Finding a program as `execve(2)` will, before anything depends on it.
//!
//! Source: `execvp(3)`, `faccessat(2)`, `environ(7)` (`PATH`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};

/// Where programs are when there is no `PATH`: the C library's choice.
const USUAL_PLACES: &str = "/bin:/usr/bin";

/// `faccessat(X_OK)`: the file that [`Spawn`](super::Spawn) would run for this name. A name without a
/// slash is looked for in the folders of `PATH`.
///
/// That it is found does not mean that it can be run: the file may be none that the kernel
/// understands, or be gone when it is started.
///
/// # Errors
/// Those that `execve(2)` would have: `ENOENT`: there is none; `EACCES`: there is one, and this user
/// may not execute it, or it is no file.
pub fn find_program(name: &OsStr) -> Result<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return check(Path::new(name)).map(|()| name.into()).of(CALL);
    }
    if name.is_empty() {
        return Err(Error::new(CALL, Errno::NOENT));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL_PLACES.into());
    let mut result = Err(Errno::NOENT);
    for folder in std::env::split_paths(&path) {
        // An empty entry is the current folder.
        let file = folder.join(name);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(Errno::ACCESS) => result = Err(Errno::ACCESS),
            Err(_) => {}
        }
    }
    result.of(CALL)
}

const CALL: &str = "execve";

fn check(file: &Path) -> core::result::Result<(), Errno> {
    rustix::fs::accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS)?;
    // A folder can be entered, which is the same permission.
    if file.is_file() { Ok(()) } else { Err(Errno::ACCESS) }
}
