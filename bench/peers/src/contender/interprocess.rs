//! The crate `interprocess`: local sockets, which are Unix stream sockets here.
//!
//! Source: docs.rs/interprocess, module `local_socket`.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use ::interprocess::local_socket::prelude::*;
use ::interprocess::local_socket::{GenericFilePath, ListenerOptions, Stream};

use super::{Meeting, Port};
use crate::Failure;
use crate::job::Measure;

/// How long the near side waits for the far one's name.
const APPEARING: Duration = Duration::from_secs(5);

/// A stream; the receiver knows how long messages are.
pub(crate) struct Local {
    stream: Stream,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Of the message that has begun to arrive.
    filled: usize,
}

impl Local {
    /// Whether the message is whole now.
    #[inline(always)]
    fn fill(&mut self) -> Result<bool, Failure> {
        match self.stream.read(&mut self.incoming[self.filled..]) {
            Ok(0) => Err("the other side is gone".into()),
            Ok(received) => {
                self.filled += received;
                Ok(self.filled == self.incoming.len())
            }
            Err(error) if waits(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Port for Local {
    const COPIES: bool = true;
    const SLEEPS_IN_STREAMS: bool = true;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let path = meeting.path("local");
        let name = path.as_path().to_fs_name::<GenericFilePath>()?;
        let stream = if meeting.near() {
            let deadline = Instant::now() + APPEARING;
            loop {
                match Stream::connect(name.borrow()) {
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::NotFound | ErrorKind::ConnectionRefused
                        ) && Instant::now() < deadline => {}
                    result => break result?,
                }
            }
        } else {
            ListenerOptions::new().name(name).create_sync()?.accept()?
        };
        let polls = matches!(meeting.job.case.measure, Measure::Latency | Measure::Open);
        stream.set_nonblocking(polls)?;
        let bytes = meeting.job.case.bytes;
        Ok(Self { stream, outgoing: vec![0; bytes], incoming: vec![0; bytes], filled: 0 })
    }

    #[inline(always)]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        fill(&mut self.outgoing);
        let mut sent = 0;
        while sent < self.outgoing.len() {
            match self.stream.write(&self.outgoing[sent..]) {
                Ok(written) => sent += written,
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        if !self.fill()? {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(read(&self.incoming)))
    }

    #[inline(always)]
    fn recv<R>(&mut self, _: usize, mut read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        while !self.fill()? {}
        self.filled = 0;
        Ok(read(&self.incoming))
    }
}
