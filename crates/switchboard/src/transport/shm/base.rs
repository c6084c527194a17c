//! The folder that all channels of a user are in: where it is, and that nobody else can touch it.
//!
//! ```text
//! ?scope=DIR                    DIR/shm
//! $XDG_RUNTIME_DIR is set       $XDG_RUNTIME_DIR/switchboard/shm
//! /run/user/UID is there        /run/user/UID/switchboard/shm
//! otherwise                     switchboard-UID/shm in the temporary directory
//! ```
//! What is given may be reached through symbolic links, as systems like it; what is made here is made
//! with mode 0700 and never reached through one. Source: the XDG Base Directory Specification.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use switchboard_kernel as kernel;
use switchboard_kernel::{private_folder, process, shared_folder};

use crate::address::Address;
use crate::error::{Error, ErrorKind};

/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// Where the folder is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// `$XDG_RUNTIME_DIR`, if it is an absolute path.
    pub(crate) runtime: Option<PathBuf>,
    /// `/run/user`.
    pub(crate) users: PathBuf,
    /// `$TMPDIR`, else `/tmp`.
    pub(crate) temporary: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn here() -> Self {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self {
            // The specification: relative paths are to be ignored.
            runtime: runtime.filter(|path| path.is_absolute()),
            users: "/run/user".into(),
            temporary: std::env::temp_dir(),
        }
    }
}

/// A folder that is open, and where it is.
#[derive(Debug)]
pub(crate) struct OpenFolder {
    pub(crate) folder: OwnedFd,
    /// For messages; what is done goes through the descriptor.
    pub(crate) path: PathBuf,
}

/// Opens the folder of all channels; makes what is not there of it.
///
/// # Errors
/// `PermissionDenied`: something of it belongs to somebody else, or lets others in; `NotFound`: what
/// was given is not there; what the system says.
pub(crate) fn open(
    address: &Address,
    scope: Option<&Path>,
    surroundings: &Surroundings,
) -> Result<OpenFolder, Error> {
    let base = match scope {
        Some(scope) => open_scope(address, scope)?,
        None => {
            let (given, own) = choose(surroundings);
            let given = open_given(address, given)?;
            make(address, &given, &own)?
        }
    };
    make(address, &base, "shm")
}

/// The folder of a channel, if it is there. Nothing is made, and whose it is is not asked: for who only looks.
///
/// # Errors
/// What the system says.
pub(crate) fn find(
    address: &Address,
    scope: Option<&Path>,
    surroundings: &Surroundings,
    channel: &str,
) -> Result<Option<OpenFolder>, Error> {
    let (given, own) = match scope {
        Some(scope) => (scope.to_owned(), None),
        None => {
            let (given, own) = choose(surroundings);
            (given, Some(own))
        }
    };
    let mut folder: OwnedFd = match File::open(&given) {
        Ok(folder) => folder.into(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(address, &given, &error)),
    };
    let mut path = given;
    for name in own.as_deref().into_iter().chain(["shm", channel]) {
        path.push(name);
        folder = match shared_folder::open_at(&folder, OsStr::new(name)) {
            Ok(folder) => folder,
            Err(error) if error.kind() == kernel::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let doing = format!("cannot look into {}", path.display());
                return Err(Error::system(address, &doing, error));
            }
        };
    }
    Ok(Some(OpenFolder { folder, path }))
}

/// A folder that is there already, and the name of ours in it.
fn choose(surroundings: &Surroundings) -> (PathBuf, String) {
    let user = process::effective_user_id();
    if let Some(runtime) = &surroundings.runtime {
        return (runtime.clone(), "switchboard".into());
    }
    let own = surroundings.users.join(user.to_string());
    if std::fs::metadata(&own).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user) {
        return (own, "switchboard".into());
    }
    (surroundings.temporary.clone(), format!("switchboard-{user}"))
}

fn open_given(address: &Address, path: PathBuf) -> Result<OpenFolder, Error> {
    match File::open(&path) {
        Ok(folder) => Ok(OpenFolder { folder: folder.into(), path }),
        Err(error) => {
            let shown = path.display();
            let error = system(&error);
            let failed = Error::system(address, &format!("cannot open the folder {shown}"), error);
            if failed.kind() == ErrorKind::LimitReached {
                return Err(failed);
            }
            Err(failed.hint(
                "XDG_RUNTIME_DIR (or TMPDIR) names it; set it to a folder of your own, or say \
                 ?scope=DIR",
            ))
        }
    }
}

fn open_scope(address: &Address, scope: &Path) -> Result<OpenFolder, Error> {
    match File::open(scope) {
        Ok(folder) => {
            let metadata = folder.metadata().map_err(|error| unusable(address, scope, &error))?;
            if let Some(error) = others_may(address, scope, &metadata) {
                return Err(error);
            }
            Ok(OpenFolder { folder: folder.into(), path: scope.to_owned() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = scope.file_name().and_then(OsStr::to_str);
            let parent = scope.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let opened = name.map(|name| (name, File::open(parent)));
            let Some((name, Ok(folder))) = opened else {
                return Err(
                    unusable(address, scope, &error).hint("make it first: mkdir -m 0700 -p")
                );
            };
            make(address, &OpenFolder { folder: folder.into(), path: parent.to_owned() }, name)
        }
        Err(error) => Err(unusable(address, scope, &error)),
    }
}

/// A private folder in another, made if it is not there.
pub(crate) fn make(
    address: &Address,
    parent: &OpenFolder,
    name: &str,
) -> Result<OpenFolder, Error> {
    let path = parent.path.join(name);
    match private_folder::make_at(parent.folder.as_fd(), OsStr::new(name)) {
        Ok(folder) => Ok(OpenFolder { folder, path }),
        Err(error) => Err(refused(address, &path, error)),
    }
}

/// Why a folder cannot be made or used.
pub(crate) fn refused(address: &Address, path: &Path, error: kernel::Error) -> Error {
    let found = std::fs::symlink_metadata(path);
    match found.ok().and_then(|metadata| others_may(address, path, &metadata)) {
        Some(error) => error,
        None => {
            let doing = format!("cannot make the folder {}", path.display());
            Error::system(address, &doing, error)
        }
    }
}

/// What is wrong with a folder, if others may have a hand in it.
fn others_may(address: &Address, path: &Path, metadata: &std::fs::Metadata) -> Option<Error> {
    let shown = path.display();
    let denied = |problem: String| Error::new(ErrorKind::PermissionDenied, address, problem);
    if metadata.is_symlink() {
        let problem = format!("{shown} is a symbolic link; ends of shm: meet in no such place");
        return Some(denied(problem).hint("remove it, or say ?scope=DIR"));
    }
    if !metadata.is_dir() {
        let problem = format!("{shown} is no folder, and ends of shm: meet in one");
        return Some(denied(problem).hint("remove it, or say ?scope=DIR"));
    }
    let user = process::effective_user_id();
    if metadata.uid() != user {
        let (owner, user) = (user_name(metadata.uid()), user_name(user));
        let problem = format!("{shown} belongs to user {owner}, and this is user {user}");
        let hint = "set XDG_RUNTIME_DIR to a folder of your own, or say ?scope=DIR";
        return Some(denied(problem).hint(hint));
    }
    let mode = metadata.mode() & 0o7777;
    (mode & OTHERS != 0).then(|| {
        let problem = format!("{shown} is open to other users (mode {mode:04o})");
        denied(problem).hint(format!("close it: chmod 0700 {shown}"))
    })
}

/// `nobody (65534)`, for messages.
pub(crate) fn user_name(id: u32) -> String {
    match process::user_name_of_id(id) {
        Some(name) => format!("{name} ({id})"),
        None => id.to_string(),
    }
}

fn unusable(address: &Address, path: &Path, error: &std::io::Error) -> Error {
    let doing = format!("cannot use the folder {}", path.display());
    Error::system(address, &doing, system(error))
}

fn system(error: &std::io::Error) -> kernel::Error {
    kernel::Error::from_raw("open", error.raw_os_error().unwrap_or_default())
}
