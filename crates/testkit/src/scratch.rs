//! Names nobody else uses, and a folder that goes away.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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

/// A temporary folder, removed with its contents on drop.
#[derive(Debug)]
pub struct Scratch(tempfile::TempDir);

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
        Self(tempfile::Builder::new().prefix("sb-").tempdir().expect("a temporary folder"))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
