//! Why this process can map nothing more.
//!
//! Source: `mmap(2)` (`ENOMEM`), `getrlimit(2)` (`RLIMIT_AS`), `proc_sys_vm(5)` (`max_map_count`).

use std::fs::File;
use std::io::Read;

use rustix::process::Resource;

use super::guard;

const MAPPINGS: &str = "this process may have no more mappings (vm.max_map_count): raise it with sysctl \
                        vm.max_map_count";
const ADDRESSES: &str = "this process may have no more address space (RLIMIT_AS): raise it with ulimit -v or \
                         LimitAS=";
const WATCHED: &str = "this process may have no more than 1024 mappings of files that can be cut short: close some, or \
                       use several processes";

/// What to do about the limit that was reached, as far as can be told afterwards.
#[cold]
pub(crate) fn advice() -> &'static str {
    // Without that limit there is enough for all the mappings that there may be.
    let is_limited = rustix::process::getrlimit(Resource::As).current.is_some();
    let is_full = guard::is_full();
    if (is_limited || is_full) && mappings() < most_mappings() {
        if is_full { WATCHED } else { ADDRESSES }
    } else {
        MAPPINGS
    }
}

/// Mappings of this process: lines of `/proc/self/maps`. Counted piece by piece, since memory for all of them may
/// not be had.
fn mappings() -> u64 {
    let Ok(mut maps) = File::open("/proc/self/maps") else { return 0 };
    let (mut piece, mut lines) = ([0; 4096], 0);
    while let Ok(len) = maps.read(&mut piece)
        && len > 0
    {
        lines += piece[..len].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    lines
}

/// The kernel counts a few less than it shows: `[vsyscall]`, for one.
fn most_mappings() -> u64 {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    limit.ok().and_then(|limit| limit.trim().parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_counted() {
        let lines = std::fs::read_to_string("/proc/self/maps").expect("a file").lines().count();
        // Other tests map something meanwhile.
        assert!(mappings().abs_diff(lines as u64) < 100, "{lines}");
        assert!((1..u64::MAX).contains(&most_mappings()));
        assert!(advice().contains("this process may have no more"));
    }
}
