//! Huge pages for as long as they are measured: those that are free, or, for root, a few that are set
//! aside and given back.
//!
//! Source: `hugetlbpage` in the kernel's administration guide.

use std::fs;
use std::os::fd::OwnedFd;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::memfd::huge_page_sizes;
use switchboard_kernel::pipe;
use switchboard_kernel::process::{Child, Spawn};

/// How many are wanted: one in use, one being given back.
const WANTED: u64 = 2;

/// Huge pages that can be had while this lives.
#[derive(Debug)]
pub(crate) struct HugePages {
    _restore: Option<Restore>,
}

/// A process that sets the number back once nobody has the other end of its input: also when this one is
/// killed.
#[derive(Debug)]
struct Restore {
    input: Option<OwnedFd>,
    process: Child,
}

impl Restore {
    fn to(path: &str, before: u64) -> Result<Self, String> {
        let failed = |error: switchboard_kernel::Error| error.to_string();
        let (output, input) = pipe::pipe().map_err(failed)?;
        let script = "cat > /dev/null; echo \"$1\" > \"$2\" 2> /dev/null";
        let process = Spawn::new("/bin/sh")
            .args(["-c", script, "restore", &before.to_string(), path])
            .stdin(output)
            .new_process_group()
            .spawn()
            .map_err(failed)?;
        Ok(Self { input: Some(input), process })
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.process.wait(Deadline::NEVER);
    }
}

/// The size of the smallest, in bytes.
pub(crate) fn page_bytes() -> Option<u64> {
    huge_page_sizes().first().copied()
}

impl HugePages {
    /// # Errors
    /// Why there are none.
    pub(crate) fn set_aside() -> Result<Self, String> {
        let page_bytes = page_bytes().ok_or("this machine has no huge pages")?;
        let folder = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page_bytes >> 10);
        let read = |name: &str| -> Option<u64> {
            fs::read_to_string(format!("{folder}/{name}")).ok()?.trim().parse().ok()
        };
        if read("free_hugepages").is_some_and(|free| free >= WANTED) {
            return Ok(Self { _restore: None });
        }
        let (path, before) = (format!("{folder}/nr_hugepages"), read("nr_hugepages").unwrap_or(0));
        let pages = Self { _restore: Some(Restore::to(&path, before)?) };
        fs::write(&path, (before + WANTED).to_string())
            .map_err(|error| format!("no huge pages are set aside, and {path}: {error}"))?;
        if read("free_hugepages").is_none_or(|free| free < WANTED) {
            return Err("the machine has no memory in one piece for huge pages".to_owned());
        }
        Ok(pages)
    }
}
