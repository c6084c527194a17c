//! Unix sockets, by system calls: a stream, whose receiver knows how long messages are, and sequenced
//! packets.
//!
//! Source: unix(7).

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, accept, bind, connect, listen,
    recv, send, socket,
};

use super::{Meeting, Port};
use crate::Failure;

/// How long the near side waits for the far one's name.
const APPEARING: Duration = Duration::from_secs(5);

/// The far side binds and takes one connection.
fn meet(meeting: &Meeting<'_>, kind: SocketType) -> Result<OwnedFd, Failure> {
    let path = meeting.path("socket");
    let address = SocketAddrUnix::new(&path)?;
    let fd = socket(AddressFamily::UNIX, kind, None)?;
    if meeting.near() {
        connect_when_there(&fd, &address)?;
        return Ok(fd);
    }
    bind(&fd, &address)?;
    listen(&fd, 1)?;
    let connection = accept(&fd)?;
    remove(&path)?;
    Ok(connection)
}

fn connect_when_there(fd: &OwnedFd, address: &SocketAddrUnix) -> Result<(), Failure> {
    let deadline = Instant::now() + APPEARING;
    loop {
        match connect(fd, address) {
            Err(Errno::NOENT | Errno::CONNREFUSED) if Instant::now() < deadline => {}
            result => return Ok(result?),
        }
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    Ok(std::fs::remove_file(path)?)
}

/// `SOCK_STREAM`.
pub(crate) struct Stream {
    fd: OwnedFd,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Of the message that has begun to arrive.
    filled: usize,
}

impl Stream {
    /// Whether the message is whole now; `false` if nothing was there.
    #[inline(always)]
    fn fill(&mut self, flags: RecvFlags) -> Result<bool, Failure> {
        match recv(&self.fd, &mut self.incoming[self.filled..], flags) {
            Ok((0, _)) => Err("the other side is gone".into()),
            Ok((received, _)) => {
                self.filled += received;
                Ok(self.filled == self.incoming.len())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Port for Stream {
    const COPIES: bool = true;
    const SLEEPS_IN_STREAMS: bool = true;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let bytes = meeting.job.case.bytes;
        let fd = meet(meeting, SocketType::STREAM)?;
        Ok(Self { fd, outgoing: vec![0; bytes], incoming: vec![0; bytes], filled: 0 })
    }

    #[inline(always)]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        fill(&mut self.outgoing);
        let mut sent = 0;
        while sent < self.outgoing.len() {
            sent += send(&self.fd, &self.outgoing[sent..], SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        if !self.fill(RecvFlags::DONTWAIT)? {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(read(&self.incoming)))
    }

    #[inline(always)]
    fn recv<R>(&mut self, _: usize, mut read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        while !self.fill(RecvFlags::empty())? {}
        self.filled = 0;
        Ok(read(&self.incoming))
    }
}

/// `SOCK_SEQPACKET`.
pub(crate) struct Seqpacket {
    fd: OwnedFd,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Seqpacket {
    #[inline(always)]
    fn take(&mut self, flags: RecvFlags) -> Result<bool, Failure> {
        match recv(&self.fd, &mut self.incoming[..], flags) {
            Ok((received, _)) if received == self.incoming.len() => Ok(true),
            Ok((received, _)) => Err(format!("a message of {received} bytes").into()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Port for Seqpacket {
    const COPIES: bool = true;
    const SLEEPS_IN_STREAMS: bool = true;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let bytes = meeting.job.case.bytes;
        let fd = meet(meeting, SocketType::SEQPACKET)?;
        Ok(Self { fd, outgoing: vec![0; bytes], incoming: vec![0; bytes] })
    }

    #[inline(always)]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        fill(&mut self.outgoing);
        send(&self.fd, &self.outgoing, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        let there = self.take(RecvFlags::DONTWAIT)?;
        Ok(there.then(|| read(&self.incoming)))
    }

    #[inline(always)]
    fn recv<R>(&mut self, _: usize, mut read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        while !self.take(RecvFlags::empty())? {}
        Ok(read(&self.incoming))
    }
}
