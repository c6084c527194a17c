//! Names nobody else uses, and a folder that goes away.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

/// A name that no other test, process or run uses: `switchboard-test-PID-N-WORD`.
#[must_use]
pub fn unique(word: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut random = [0_u8; 4];
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    format!(
        "switchboard-test-{}-{}-{:08x}-{word}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed),
        u32::from_ne_bytes(random),
    )
}

/// A temporary folder, removed with its contents on drop. No other one has the same `ftok(3)` keys, so
/// it can stand for System V objects.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    key: u32,
}

/// What `ftok(3)` makes of the folders that are there, without their ids.
static KEYS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// A new empty folder. Its path is short enough for a Unix socket.
    ///
    /// # Panics
    /// When no folder can be made in the temporary directory.
    #[must_use]
    pub fn new() -> Self {
        // On an empty ext4 most new folders share the low bits of their inode with another one.
        let mut others = Vec::new();
        loop {
            let folder = tempfile::Builder::new().prefix("sb-").tempdir();
            let folder = folder.expect("a temporary folder");
            let key = key_without_id(folder.path());
            let mut keys = KEYS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if !has_objects(key) && keys.insert(key) {
                return Self { folder, key };
            }
            others.push(folder);
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        KEYS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.key);
    }
}

/// `ftok(path, 0)`: the low 8 bits of the device and 16 of the inode.
fn key_without_id(path: &Path) -> u32 {
    let file = std::fs::metadata(path).expect("a folder");
    let bits = (file.dev() & 0xff) << 16 | file.ino() & 0xffff;
    u32::try_from(bits).expect("24 bits")
}

/// Whether some System V object has this key with any id: another process may have made it.
fn has_objects(key: u32) -> bool {
    ["msg", "sem", "shm"].iter().any(|kind| {
        let table = std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
        let mut keys =
            table.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
        keys.any(|used: i32| used.cast_unsigned() & 0x00ff_ffff == key)
    })
}
