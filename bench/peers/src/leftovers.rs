//! Nothing stays behind: not after a run, not after a contender was killed, not after the whole
//! measurement was.
//!
//! All names that a measurement makes outside its folder begin with its prefix. A process of its own waits
//! until all other processes of the measurement are gone, however they went, and removes what is there: it
//! reads from a pipe whose other end all of them hold.

use std::fs::DirBuilder;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::contender::queue_names;
use crate::{CLEANER, Failure};

/// Where libraries and this program keep memory by name.
const MEMORY: &str = "/dev/shm";

/// The names of one measurement, and who removes them.
pub(crate) struct Leftovers {
    prefix: String,
    folder: PathBuf,
    /// The cleaner, and the pipe on which it waits.
    cleaner: Option<(Child, OwnedFd)>,
}

impl Leftovers {
    /// Makes the folder, and starts the cleaner.
    pub(crate) fn new() -> Result<Self, Failure> {
        let id = std::process::id();
        let prefix = format!("switchboard-peers-{id}-");
        let folder = Path::new(MEMORY).join(format!("switchboard-peers-{id}"));
        // Nobody else's business: `shm:` demands it of the folder in which its ends meet.
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let cleaner = Command::new("/proc/self/exe")
            .arg(CLEANER)
            .arg(&prefix)
            .arg(&folder)
            .stdin(reader)
            .stdout(Stdio::null())
            // A key that interrupts the measurement does not interrupt the cleaning.
            .process_group(0)
            .spawn()?;
        // From now on all that is started holds it; the cleaner itself does not.
        fcntl_setfd(&writer, FdFlags::empty())?;
        Ok(Self { prefix, folder, cleaner: Some((cleaner, writer)) })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what a run left, and names it.
    pub(crate) fn sweep(&self) -> Vec<String> {
        sweep(&self.prefix)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if let Some((mut cleaner, pipe)) = self.cleaner.take() {
            drop(pipe);
            let _ = cleaner.wait();
        }
    }
}

/// The cleaner: `PREFIX FOLDER`.
pub(crate) fn cleaner(words: &[String]) -> Result<(), Failure> {
    let [prefix, folder] = words else { return Err("two words are needed".into()) };
    std::io::stdin().read_to_end(&mut Vec::new())?;
    sweep(prefix);
    Ok(std::fs::remove_dir_all(folder)?)
}

/// Removes all names that contain the prefix: libraries put words of their own before it.
fn sweep(prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(MEMORY).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(prefix) && std::fs::remove_file(entry.path()).is_ok() {
            found.push(name);
        }
    }
    for name in queue_names(prefix) {
        if switchboard_kernel::posix_mq::unlink(&name).is_ok() {
            found.push(name);
        }
    }
    found
}
