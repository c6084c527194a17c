//! Descriptors that are borrowed from their process, and what only the open file itself says.
//!
//! Source: `pidfd_getfd(2)`, `socket(7)`. A copy is taken, asked, and closed at once. Where that is refused, because the viewer may not
//! trace the process or a filter forbids the call, nothing is known.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, socket_timeout};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

/// The process that was borrowed from last: the next object is likely to be one of its own, too.
#[derive(Debug, Default)]
pub struct Lender(Option<(u32, OwnedFd)>);

impl Lender {
    /// A copy of a process's descriptor.
    ///
    /// # Errors
    /// `EPERM` without the right to trace, `ENOSYS` before Linux 5.6, `EBADF` when it was closed, `ESRCH` when the process is gone.
    pub fn borrow(&mut self, pid: u32, fd: i32) -> Result<OwnedFd, Errno> {
        if self.0.as_ref().is_none_or(|(last, _)| *last != pid) {
            let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
            let process = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
            self.0 = Some((pid, process));
        }
        let (_, process) = self.0.as_ref().ok_or(Errno::SRCH)?;
        rustix::process::pidfd_getfd(process, fd, PidfdGetfdFlags::empty())
    }

    /// Whether a socket of a process gives up by itself after a while: `SO_RCVTIMEO`, or `SO_SNDTIMEO` for what it sends. The descriptor
    /// has to lead to the socket of this inode.
    ///
    /// # Errors
    /// As [`Lender::borrow`]; `EBADF` when it leads to something else by now.
    pub fn gives_up(
        &mut self,
        (pid, fd): (u32, i32),
        inode: u64,
        sends: bool,
    ) -> Result<bool, Errno> {
        let socket = self.borrow(pid, fd)?;
        if rustix::fs::fstat(&socket)?.st_ino != inode {
            return Err(Errno::BADF);
        }
        let which = if sends { Timeout::Send } else { Timeout::Recv };
        Ok(socket_timeout(&socket, which)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    #[test]
    fn the_limits_of_a_socket() {
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let inode = rustix::fs::fstat(&one).expect("a status").st_ino;
        let place = (std::process::id(), one.as_raw_fd());
        let mut lender = Lender::default();
        let limits = |lender: &mut Lender| {
            [false, true].map(|sends| lender.gives_up(place, inode, sends).expect("an answer"))
        };
        assert_eq!(limits(&mut lender), [false, false]);
        one.set_read_timeout(Some(Duration::from_secs(9))).expect("set");
        assert_eq!(limits(&mut lender), [true, false]);
        one.set_read_timeout(None).expect("set");
        one.set_write_timeout(Some(Duration::from_secs(9))).expect("set");
        assert_eq!(limits(&mut lender), [false, true]);
        let elsewhere = (std::process::id(), other.as_raw_fd());
        assert_eq!(lender.gives_up(elsewhere, inode, false), Err(Errno::BADF));
    }
}
