//! Unix sockets in which descriptors wait to be taken: whoever takes them has what they lead to, which no process shows until then.
//!
//! Source: `unix(7)` (`SCM_RIGHTS`), `proc_pid_fdinfo(5)` (`scm_fds`, since Linux 5.6).

use super::Join;
use crate::analysis::DESCRIPTORS_IN_FLIGHT;
use crate::collect::Found;
use crate::kind::Kind;
use crate::model::Via;
use crate::source::descriptors::{in_flight, inode};

impl Join {
    /// Asks each Unix socket that somebody has.
    pub(crate) fn flights(&mut self, found: &[Found]) {
        let readable = |pid: u32| {
            let at = found.binary_search_by_key(&pid, |one| one.process.pid);
            at.is_ok_and(|at| found[at].process.readable)
        };
        for object in self.objects.iter_mut().filter(|object| object.kind == Kind::Unix) {
            let number = object.id.rsplit(':').next().and_then(|number| number.parse().ok());
            let count = object.ends.iter().find_map(|end| match end.via {
                Via::Fd(fd) if readable(end.pid) => waiting(end.pid, fd, number?),
                _ => None,
            });
            if let Some(count) = count.filter(|&count| count > 0) {
                object.details.insert(DESCRIPTORS_IN_FLIGHT, count.to_string());
            }
        }
    }
}

/// How many wait in the socket that a descriptor leads to, if it is still this one.
fn waiting(pid: u32, fd: i32, wanted: u64) -> Option<u32> {
    let text = std::fs::read(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let is_it = inode(&text).is_none_or(|found| found == wanted);
    in_flight(&text).filter(|_| is_it)
}
