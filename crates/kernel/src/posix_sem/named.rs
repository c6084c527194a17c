//! Named semaphores: making, finding and removing the file that each one is.
//!
//! Source: `sem_open(3)`, `sem_overview(7)` ("Accessing named semaphores via the filesystem").
//!
//! The system calls of opening are those of `sem_open(3)`. Making one is done here and not by that
//! function, because it applies the umask, cannot give the semaphore to another owner, and does not
//! look at the size of what it finds under the name.

#![allow(unsafe_code)]

use std::os::fd::AsFd;

use libc::sem_t;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Memory, SEM_WORDS, Semaphore, VALUE_MAX, check, image};
use crate::error::{Error, OfCall, Result};
use crate::hidden_name::descriptor_path;
use crate::io::{retry, write_all};
use crate::permissions::Permissions;
use crate::shared_words::Mapped;

/// What a new named semaphore is like. Defaults: a count of 0, mode `0600`, and a semaphore that
/// exists already is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateOptions {
    /// The count it starts with; 0.
    pub value: u32,
    /// Owner, group and mode; mode `0600`. Using a semaphore needs the right to read and write.
    pub permissions: Permissions,
    /// Whether it is an error that the semaphore exists; no.
    pub exclusive: bool,
}

impl CreateOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the count it starts with.
    #[must_use]
    pub fn value(mut self, value: u32) -> Self {
        self.value = value;
        self
    }

    /// Sets owner, group and mode.
    #[must_use]
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = permissions;
        self
    }

    /// Sets whether it is an error that the semaphore exists.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }
}

impl Semaphore {
    /// `sem_open(name, O_CREAT | O_EXCL)`: makes a named semaphore, or opens the one of that name
    /// unless the options say exclusive.
    ///
    /// It is made without a name in `/dev/shm`, with its count, owner and mode, and only then gets
    /// its own: nobody finds it half made, nothing is left behind by a death in between, and the
    /// umask does not apply. An existing semaphore keeps its count, owner and mode, whatever the
    /// options say.
    ///
    /// # Errors
    /// `EINVAL` for a bad name ([`validate_name`]) and for a count over [`VALUE_MAX`];
    /// `ENAMETOOLONG`; `EEXIST` when exclusive; `ENOSPC` when `/dev/shm` is full; `EPERM` when
    /// owner or group may not be set; `EOPNOTSUPP` when `/dev/shm` is no tmpfs; `ENOENT` without
    /// `/proc`; else as [`Semaphore::open`].
    pub fn create(name: &str, options: &CreateOptions) -> Result<Self> {
        let path = path_of(name)?;
        let mut result = create_new(&path, options);
        // Between the two calls somebody may unlink it: then it is ours to create after all.
        for _ in 0..CREATE_ATTEMPTS {
            match result {
                Err(error) if error.errno() == libc::EEXIST && !options.exclusive => {
                    result = open_file(&path);
                }
                Err(error) if error.errno() == libc::ENOENT => result = create_new(&path, options),
                done => return done,
            }
        }
        result
    }

    /// `sem_open(name)`: opens an existing named semaphore.
    ///
    /// # Errors
    /// `ENOENT` when there is none; `EACCES` when its mode does not allow reading and writing;
    /// `EINVAL` for a bad name, and when the file of that name is no semaphore; `ENAMETOOLONG`;
    /// `ELOOP` when it is a symbolic link; `EMFILE`; `ENFILE`; `ENOMEM`.
    pub fn open(name: &str) -> Result<Self> {
        open_file(&path_of(name)?)
    }
}

/// `sem_unlink(name)`: removes the name. Processes that have the semaphore open go on using it.
///
/// # Errors
/// `ENOENT` when there is none; `EACCES`, `EPERM` when it is somebody else's; `EINVAL`,
/// `ENAMETOOLONG` for a bad name.
pub fn unlink(name: &str) -> Result<()> {
    rustix::fs::unlink(path_of(name)?).of("sem_unlink")
}

/// Checks a name: a slash, then 1 to 251 bytes without slash or NUL.
///
/// # Errors
/// `EINVAL` when it is not so; `ENAMETOOLONG` when only its length is wrong.
pub fn validate_name(name: &str) -> Result<()> {
    let invalid = Error::new("sem_open", Errno::INVAL);
    let rest = name.strip_prefix('/').ok_or(invalid)?;
    if rest.is_empty() || rest.bytes().any(|byte| byte == b'/' || byte == 0) {
        return Err(invalid);
    }
    if rest.len() > NAME_MAX_BYTES {
        return Err(Error::new("sem_open", Errno::NAMETOOLONG));
    }
    Ok(())
}

/// Where the GNU C library keeps them.
const FOLDER: &str = "/dev/shm";

/// `NAME_MAX` less the `sem.` before the name.
const NAME_MAX_BYTES: usize = 251;

/// How often creating and opening may miss each other before the error is given back.
const CREATE_ATTEMPTS: usize = 16;

fn path_of(name: &str) -> Result<String> {
    validate_name(name)?;
    Ok([FOLDER, "/", PREFIX, &name[1..]].concat())
}

/// Before the name, in the folder.
const PREFIX: &str = "sem.";

fn create_new(path: &str, options: &CreateOptions) -> Result<Semaphore> {
    if options.value > VALUE_MAX {
        return Err(Error::new("sem_open", Errno::INVAL));
    }
    let nobody = Mode::empty();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(FOLDER, flags, nobody).of("open")?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = retry("sem_open", || rustix::fs::openat(&folder, c".", flags, nobody))?;
    write_all(&file, &image(options.value, "sem_open")?)?;
    options.permissions.apply(&file)?;
    // Nobody else had it, so that it needs no look: that would bring its page in.
    let mapped = Mapped::of(&file, size_of::<sem_t>())?;
    let (unnamed, name) = (descriptor_path(file.as_fd()), &path[FOLDER.len() + 1..]);
    rustix::fs::linkat(CWD, unnamed, folder, name, AtFlags::SYMLINK_FOLLOW).of("linkat")?;
    Ok(Semaphore { memory: Memory::Named(mapped) })
}

fn open_file(path: &str) -> Result<Semaphore> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = retry("sem_open", || rustix::fs::open(path, flags, Mode::empty()))?;
    let stat = rustix::fs::fstat(&file).of("fstat")?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let len_bytes = usize::try_from(stat.st_size).unwrap_or(0);
    // A shorter one would be accepted by mmap, and kill with SIGBUS on first use.
    if !is_file || len_bytes < size_of::<sem_t>() {
        return Err(Error::new("sem_open", Errno::INVAL));
    }
    map(&file)
}

fn map(file: impl AsFd) -> Result<Semaphore> {
    let mapped = Mapped::of(file, size_of::<sem_t>())?;
    // SAFETY: the mapping is as long as a semaphore, aligned to a page, and outlives the slice.
    let words = unsafe { std::slice::from_raw_parts(mapped.address().cast(), SEM_WORDS) };
    check(words, "sem_open")?;
    Ok(Semaphore { memory: Memory::Named(mapped) })
}
