//! The crate `ipc-channel`: channels of bytes, which need no encoding.
//!
//! Its channels are met by a name that the library makes up; the far side tells the near one.
//!
//! Source: docs.rs/ipc-channel, `IpcOneShotServer`, `IpcBytesSender`, `IpcBytesReceiver`.

use ::ipc_channel::TryRecvError;
use ::ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel,
};

use super::{Meeting, Port};
use crate::Failure;

/// A channel each way.
pub(crate) struct Channel {
    out: IpcBytesSender,
    from: IpcBytesReceiver,
    outgoing: Vec<u8>,
}

impl Port for Channel {
    const COPIES: bool = true;
    const SLEEPS_IN_STREAMS: bool = true;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let outgoing = vec![0; meeting.job.case.bytes];
        if meeting.near() {
            let server = IpcSender::connect(meeting.control.hear()?)?;
            let (out, theirs) = bytes_channel()?;
            let (back, from) = bytes_channel()?;
            server.send((back, theirs))?;
            return Ok(Self { out, from, outgoing });
        }
        let (server, name) = IpcOneShotServer::<(IpcBytesSender, IpcBytesReceiver)>::new()?;
        meeting.control.say(&name)?;
        let (_, (out, from)) = server.accept()?;
        Ok(Self { out, from, outgoing })
    }

    #[inline(always)]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        fill(&mut self.outgoing);
        Ok(self.out.send(&self.outgoing)?)
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        match self.from.try_recv() {
            Ok(message) => Ok(Some(read(&message))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[inline(always)]
    fn recv<R>(&mut self, _: usize, mut read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        Ok(read(&self.from.recv()?))
    }
}
