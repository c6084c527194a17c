//! The folder that all channels of a user are in: where it is, and that nobody else can touch it.
//!
//! ```text
//! ?scope=DIR                    DIR/shm
//! $XDG_RUNTIME_DIR is set       $XDG_RUNTIME_DIR/switchboard/shm
//! /run/user/UID is there        /run/user/UID/switchboard/shm
//! otherwise                     switchboard-UID/shm in the temporary directory
//! ```
//! A scope that others can enter is *shared* (docs/design/access.md): channels are in
//! it, and each has the mode that its rules ask for.
//!
//! What is given may be reached through symbolic links, as systems like it; what is made here is made
//! with mode 0700 and never reached through one. Source: the XDG Base Directory Specification.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use switchboard_kernel as kernel;
use switchboard_kernel::{private_folder, process, shared_folder};

use crate::address::{Address, SYSTEM_SCOPE};
use crate::error::{Error, ErrorKind};

/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;
/// The bit of a folder in which nobody takes the names of others away.
const STICKY: u32 = 0o1000;

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

/// The folder of all channels, and whether several users share it.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) folder: OpenFolder,
    pub(crate) is_shared: bool,
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
) -> Result<Base, Error> {
    let base = match scope {
        Some(scope) => open_scope(address, scope)?,
        None => {
            let (given, own) = choose(surroundings);
            let given = open_given(address, given)?;
            Base { folder: make(address, &given, &own)?, is_shared: false }
        }
    };
    if base.is_shared {
        return Ok(base);
    }
    if address.query.rules().let_others_in() {
        let shown = base.folder.path.display();
        let problem = format!("its rules let other users in, and {shown} is this user's alone");
        return Err(Error::new(ErrorKind::BadAddress, address, problem).hint(
            "say ?scope= with a folder that is shared, as mkdir -m 1777 makes one; ?scope=system is \
             /run/switchboard",
        ));
    }
    Ok(Base { folder: make(address, &base.folder, "shm")?, is_shared: false })
}

/// Makes or opens the folder of a channel in a shared scope.
///
/// # Errors
/// `PermissionDenied`: it lets this user not in, is not the user's that `?owner=` says, or lets others take names
/// away; `NotFound`: that user, who is another, has not made it; what the system says.
pub(crate) fn make_shared(
    address: &Address,
    base: &OpenFolder,
    name: &str,
) -> Result<OpenFolder, Error> {
    let path = base.path.join(name);
    let shown = path.display();
    let denied = |problem: String| Error::new(ErrorKind::PermissionDenied, address, problem);
    let (mode, group) = address.query.rules().of_folder();
    let name = OsStr::new(name);
    let folder = match address.query.owner {
        // Made by this user, it would be the wrong one's.
        Some(wanted) if wanted != process::effective_user_id() => {
            let folder = shared_folder::open_at(&base.folder, name);
            if folder.as_ref().is_err_and(|error| error.name() == "ENOENT") {
                let (wanted, me) = (user_name(wanted), user_name(process::effective_user_id()));
                let problem = format!("user {wanted} has not made the channel's folder {shown}");
                return Err(Error::new(ErrorKind::NotFound, address, problem).hint(format!(
                    "with ?owner= its owner comes first; this is user {me}, and makes none"
                )));
            }
            folder
        }
        _ => shared_folder::make_at(&base.folder, name, mode, group),
    };
    let folder = folder.map_err(|error| shared_refused(address, &path, error))?;
    let status = shared_folder::status(&folder);
    let status = status.map_err(|error| Error::system(address, "cannot open", error))?;
    let owner = user_name(status.uid);
    if address.query.owner.is_some_and(|wanted| wanted != status.uid) {
        let problem = format!("the channel's folder {shown} belongs to user {owner}");
        return Err(denied(problem).hint("another user was first; ?owner= says whose it has to be"));
    }
    if status.uid == process::effective_user_id() {
        let wider = status.mode | mode;
        let regroup = group.filter(|group| *group != status.gid);
        if wider != status.mode || regroup.is_some() {
            shared_folder::set(&folder, wider, regroup).map_err(|error| {
                let doing = format!("cannot open {shown}");
                not_in_group(address, &doing, error)
                    .unwrap_or_else(|| Error::system(address, &doing, error))
            })?;
        }
    } else if !status.keeps_names() {
        let mode = status.mode;
        let problem = format!("in {shown} (mode {mode:04o}) others can take names away");
        return Err(denied(problem).hint(format!("user {owner} can close that: chmod +t {shown}")));
    }
    Ok(OpenFolder { folder, path })
}

/// What has the name of a channel's folder in a shared scope, if it is none: anybody may have made it.
fn no_folder(address: &Address, path: &Path, found: &std::fs::Metadata) -> Option<Error> {
    let what = match found.file_type() {
        kind if kind.is_dir() => return None,
        kind if kind.is_symlink() => "is a symbolic link",
        _ => "is no folder",
    };
    let (shown, owner) = (path.display(), user_name(found.uid()));
    let problem =
        format!("{shown}, the place of this channel's folder, {what}, which user {owner} made");
    let hint = format!(
        "user {owner} or who owns the directory can remove it (rm {shown}); or take another name, or another \
         ?scope="
    );
    Some(Error::new(ErrorKind::PermissionDenied, address, problem).hint(hint))
}

/// What to do where this user cannot give a folder to a group.
fn not_in_group(address: &Address, doing: &str, error: kernel::Error) -> Option<Error> {
    let group = address.query.group.or(address.query.rules().of_folder().1)?;
    if error.name() != "EPERM" || process::is_in_group(group) {
        return None;
    }
    let name = process::group_name_of_id(group)
        .map_or(group.to_string(), |name| format!("{name} ({group})"));
    let me = user_name(process::effective_user_id());
    let problem =
        format!("{doing}: user {me} is not in group {name}, and so cannot give it a folder");
    Some(Error::new(ErrorKind::PermissionDenied, address, problem).hint(
        "have a member open this channel first, which makes its folder; or add the user (usermod -aG; it holds from \
         the next login); or name users and not a group, as ?subscribe=user:NAME",
    ))
}

/// Why the folder of a channel cannot be used.
fn shared_refused(address: &Address, path: &Path, error: kernel::Error) -> Error {
    let shown = path.display();
    let doing = format!("cannot open the channel's folder {shown}");
    let found = std::fs::symlink_metadata(path);
    if ["ENOTDIR", "ELOOP"].contains(&error.name())
        && let Some(refused) = found.as_ref().ok().and_then(|found| no_folder(address, path, found))
    {
        return refused;
    }
    if let Some(refused) = not_in_group(address, &doing, error) {
        return refused;
    }
    match found.map(|found| user_name(found.uid())) {
        Ok(owner) if error.kind() == kernel::ErrorKind::PermissionDenied => {
            let me = user_name(process::effective_user_id());
            let problem =
                format!("{doing}: it belongs to user {owner}, who does not let user {me} in");
            Error::new(ErrorKind::PermissionDenied, address, problem).hint(
                "its user says who comes: ?group= and ?mode=, or a verb, as ?subscribe=user:NAME",
            )
        }
        _ => Error::system(address, &doing, error),
    }
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
    let status = shared_folder::status(&folder);
    let status = status.map_err(|error| Error::system(address, "cannot look", error))?;
    let is_shared = own.is_none() && status.is_shared();
    let below = if is_shared { &[channel][..] } else { &["shm", channel] };
    for name in own.as_deref().into_iter().chain(below.iter().copied()) {
        path.push(name);
        folder = match shared_folder::open_at(&folder, OsStr::new(name)) {
            Ok(folder) => folder,
            Err(error) if error.kind() == kernel::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let doing = format!("cannot look into {}", path.display());
                let found = std::fs::symlink_metadata(&path).ok();
                let refused = found.and_then(|found| no_folder(address, &path, &found));
                return Err(refused.unwrap_or_else(|| Error::system(address, &doing, error)));
            }
        };
    }
    Ok(Some(OpenFolder { folder, path }))
}

/// The folder of this user's own things, whether it is there or not.
pub(crate) fn own_folder(surroundings: &Surroundings) -> PathBuf {
    let (given, own) = choose(surroundings);
    given.join(own)
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

/// Whether a scope is for several users: what lets nobody else in is its user's alone, also for root.
fn is_shared(metadata: &std::fs::Metadata) -> bool {
    metadata.mode() & OTHERS != 0
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

fn open_scope(address: &Address, scope: &Path) -> Result<Base, Error> {
    let base = |folder, is_shared| {
        let path = scope.to_owned();
        Base { folder: OpenFolder { folder, path }, is_shared }
    };
    match File::open(scope) {
        Ok(folder) => {
            let metadata = folder.metadata().map_err(|error| unusable(address, scope, &error))?;
            let shared = metadata.is_dir() && is_shared(&metadata);
            if !shared && let Some(error) = others_may(address, scope, &metadata) {
                return Err(error);
            }
            let (mode, shown) = (metadata.mode() & 0o7777, scope.display());
            if shared && mode & 0o022 != 0 && mode & STICKY == 0 {
                let problem = format!("in {shown} (mode {mode:04o}) others can take names away");
                return Err(Error::new(ErrorKind::PermissionDenied, address, problem)
                    .hint(format!("close that: chmod +t {shown}, or chmod 0700 for one user")));
            }
            Ok(base(folder.into(), shared))
        }
        // What one user made there would be that user's alone.
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && scope == Path::new(SYSTEM_SCOPE) =>
        {
            Err(unusable(address, scope, &error).hint(format!(
                "the administrator makes it: install -d -m 1777 {SYSTEM_SCOPE}, or -m 1770 -g GROUP \
                 for the users of a group"
            )))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = scope.file_name().and_then(OsStr::to_str);
            let parent = scope.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let opened = name.map(|name| (name, File::open(parent)));
            let Some((name, Ok(folder))) = opened else {
                let make = format!("make it first: mkdir -m 0700 -p {}", scope.display());
                return Err(unusable(address, scope, &error).hint(make));
            };
            let parent = OpenFolder { folder: folder.into(), path: parent.to_owned() };
            let made = make(address, &parent, name)?;
            Ok(Base { folder: made, is_shared: false })
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
