//! A folder of one measurement, removed when it is over.

use std::path::PathBuf;

use crate::Failure;

/// A folder that is removed with everything in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder in memory (tmpfs).
    pub(crate) fn new() -> Result<Self, Failure> {
        let folder = format!("/dev/shm/switchboard-bench-{}", std::process::id());
        std::fs::create_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
        Ok(Self(folder.into()))
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
