//! One writer for each key of a state: a lock of the kernel, which goes with the process.
//!
//! Source: `fcntl(2)`, "Open file description locks". A key is a byte of one of a few files in the channel's
//! folder, by the hash of its name; two keys whose hashes are equal have one writer, which does no harm. Files, and
//! not one alone: the kernel looks through all locks of a file for each new one. What is in no use is removed by
//! the last end that closes.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use switchboard_kernel::file_lock::{Lock, Mode, Range};

use super::folder::Folder;
use crate::address::Address;
use crate::error::{Error, ErrorKind};

/// Files, and so descriptors of a writer at most.
const FILES: u64 = 64;
/// How often a file is opened anew because somebody else removed it meanwhile.
const MOST_TRIES: u32 = 1000;

#[derive(Debug)]
pub(super) struct KeyLocks {
    address: Address,
    folder: Option<Folder>,
    files: Vec<Option<Locks>>,
}

/// One of the files, and what this process has in it.
#[derive(Debug)]
struct Locks {
    file: File,
    held: u32,
    /// It has all of the file.
    all: bool,
}

/// So many locks in a file, and this process tries to take all of it: each further one would be looked through
/// with every new one.
const MANY: u32 = 32;

/// The name of a file of locks.
pub(super) const PREFIX: &str = ".k.";

impl KeyLocks {
    pub(super) fn new(address: &Address) -> Result<Self, Error> {
        let files = std::iter::repeat_with(|| None).take(FILES as usize).collect();
        Ok(Self { address: address.clone(), folder: None, files })
    }

    /// Takes the lock of a key, until this is dropped or the process dies.
    ///
    /// # Errors
    /// `AddressInUse`: somebody else has it; what the system says.
    pub(super) fn take(&mut self, key: &str) -> Result<(), Error> {
        let hash = hash(key);
        // This end has its name in the folder by now, so it stays.
        let folder = match &mut self.folder {
            Some(folder) => folder,
            none => none.insert(super::folder_of(&self.address)?),
        };
        let slot = (hash % FILES) as usize;
        let name = format!("{PREFIX}{slot:02x}");
        let range = Range { start: hash / FILES, len_bytes: 1 };
        for _ in 0..MOST_TRIES {
            let locks = match &mut self.files[slot] {
                Some(locks) if locks.all => return Ok(()),
                Some(locks) => locks,
                none => none.insert(Locks { file: folder.lock_file(&name)?, held: 0, all: false }),
            };
            let taken = Lock::open_file(Mode::Exclusive).range(range).try_lock(&locks.file);
            match taken.map_err(|error| Error::system(&self.address, "cannot lock a key", error))? {
                Some(guard) => guard.keep(),
                None => {
                    let problem = match key {
                        "" => "another process is the writer of its value".to_owned(),
                        key => format!("another process is the writer of {key:?}"),
                    };
                    return Err(Error::new(ErrorKind::AddressInUse, &self.address, problem).hint(
                        "one process at a time sets a key; stop the other, or let it do so",
                    ));
                }
            }
            // While a lock is in it nobody removes it.
            if locks.held > 0 || folder.has(&name, &locks.file) {
                locks.held += 1;
                if locks.held >= MANY && locks.held.is_power_of_two() {
                    locks.all = take_all(&locks.file);
                }
                return Ok(());
            }
            // Who closed last removed it, before the lock was taken.
            self.files[slot] = None;
        }
        let problem = "the files of its locks are removed each time that they are made";
        Err(Error::new(ErrorKind::System, &self.address, problem))
    }
}

impl Drop for KeyLocks {
    fn drop(&mut self) {
        let Some(folder) = &self.folder else { return };
        for (slot, locks) in self.files.iter().enumerate() {
            if let Some(locks) = locks {
                folder.remove_lock_file(&format!("{PREFIX}{slot:02x}"), &locks.file);
            }
        }
    }
}

/// Whether nobody else has a lock on any byte of a file. Then this process has all of them.
pub(super) fn take_all(file: &File) -> bool {
    match Lock::open_file(Mode::Exclusive).try_lock(file) {
        Ok(Some(guard)) => {
            guard.keep();
            true
        }
        _ => false,
    }
}

/// Whether two are the same file.
pub(super) fn is_same(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// FNV-1a, with 62 bits: a lock's last byte is below 2^63.
fn hash(key: &str) -> u64 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The low bits of short keys differ most.
    (hash ^ hash >> 32) >> 2
}
