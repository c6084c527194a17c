//! Mechanisms that carry messages, each through its wrapper.

use std::os::fd::OwnedFd;

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::posix_mq::MessageQueue;
use switchboard_kernel::pty::Master;
use switchboard_kernel::sysv_msg::{self, Select};
use switchboard_kernel::{Result, io, process, tcp, udp, unix_socket};

use super::{BYTES, Channel, IN, Job, Known, OUT, run as run_channel};

pub(super) fn run(job: &Job, name: &str, (out_id, in_id): (i32, i32)) -> Known {
    let ends = || -> Result<(OwnedFd, OwnedFd)> {
        Ok((process::inherited_descriptor(OUT)?, process::inherited_descriptor(IN)?))
    };
    match name {
        "pipe" | "fifo" => run_channel(job, Pipe::of(ends()?)),
        "unix-stream" => run_channel(job, UnixStream::of(ends()?)),
        "unix-dgram" => run_channel(job, UnixDatagram::of(ends()?)),
        "unix-seqpacket" => run_channel(job, Seqpacket::of(ends()?)),
        "tcp" => run_channel(job, Tcp::of(ends()?)),
        "udp" => run_channel(job, Udp::of(ends()?)),
        "pty" if job.near => run_channel(job, PtyMaster(ends()?.0.into())),
        "pty" => run_channel(job, PtySlave::of(ends()?)),
        "posix-mq" => {
            let (out, from) = ends()?;
            run_channel(job, PosixMq { out: out.into(), from: from.into() })
        }
        "eventfd" => {
            let (out, from) = ends()?;
            run_channel(job, Event { out: out.into(), from: from.into() })
        }
        "sysv-msg" => {
            let out = sysv_msg::MessageQueue::from_id(out_id);
            let from = sysv_msg::MessageQueue::from_id(in_id);
            let buffer = || sysv_msg::Buffer::with_capacity(BYTES);
            let mut outgoing = buffer();
            outgoing.fill(&[0; BYTES]);
            run_channel(job, SysvMsg { out, from, outgoing, incoming: buffer() })
        }
        _ => Ok(false),
    }
}

/// Two descriptors, and how to use them.
macro_rules! descriptors {
    ($name:ident, $put:path, $take:expr) => {
        struct $name {
            out: OwnedFd,
            from: OwnedFd,
        }

        impl $name {
            fn of((out, from): (OwnedFd, OwnedFd)) -> Self {
                Self { out, from }
            }
        }

        impl Channel for $name {
            #[inline(always)]
            fn put(&mut self, message: &[u8; BYTES]) -> Result<()> {
                $put(&self.out, message).map(|sent| assert_eq!(sent, BYTES))
            }

            #[inline(always)]
            fn take(&mut self, message: &mut [u8; BYTES]) -> Result<()> {
                $take(&self.from, message)
            }
        }
    };
}

descriptors!(Pipe, io::write, |from, message: &mut [u8; BYTES]| {
    io::read_full(from, message).map(|received| assert_eq!(received, BYTES))
});
descriptors!(UnixStream, unix_socket::send, |from, message: &mut [u8; BYTES]| {
    whole(message, |room| unix_socket::recv(from, room))
});
descriptors!(Tcp, tcp::send, |from, message: &mut [u8; BYTES]| {
    whole(message, |room| tcp::recv(from, room))
});
descriptors!(UnixDatagram, unix_socket::send, |from, message: &mut [u8; BYTES]| {
    unix_socket::recv_whole(from, message).map(|received| assert_eq!(received.len, BYTES))
});
descriptors!(Udp, udp::send, |from, message: &mut [u8; BYTES]| {
    udp::recv_whole(from, message).map(|received| assert_eq!(received.len, BYTES))
});
descriptors!(Seqpacket, unix_socket::send, |from, message: &mut [u8; BYTES]| {
    unix_socket::recv_packet(from, message)
        .map(|received| assert_eq!(received.map(|received| received.len), Some(BYTES)))
});

descriptors!(PtySlave, write_whole, |from, message: &mut [u8; BYTES]| {
    whole(message, |room| io::read(from, room))
});

fn write_whole(fd: &OwnedFd, message: &[u8; BYTES]) -> Result<usize> {
    io::write_all(fd, message).map(|()| BYTES)
}

struct PtyMaster(Master);

impl Channel for PtyMaster {
    #[inline(always)]
    fn put(&mut self, message: &[u8; BYTES]) -> Result<()> {
        self.0.write_all(message)
    }

    #[inline(always)]
    fn take(&mut self, message: &mut [u8; BYTES]) -> Result<()> {
        whole(message, |room| self.0.read(room))
    }
}

/// A stream may give a message in parts.
#[inline(always)]
fn whole(
    message: &mut [u8; BYTES],
    mut recv: impl FnMut(&mut [u8]) -> Result<usize>,
) -> Result<()> {
    let mut filled = 0;
    while filled < BYTES {
        let received = recv(&mut message[filled..])?;
        assert_ne!(received, 0, "the other side is gone");
        filled += received;
    }
    Ok(())
}

struct PosixMq {
    out: MessageQueue,
    from: MessageQueue,
}

impl Channel for PosixMq {
    #[inline(always)]
    fn put(&mut self, message: &[u8; BYTES]) -> Result<()> {
        self.out.send(message, 0)
    }

    #[inline(always)]
    fn take(&mut self, message: &mut [u8; BYTES]) -> Result<()> {
        self.from.recv(message).map(|(received, _)| assert_eq!(received, BYTES))
    }
}

struct SysvMsg {
    out: sysv_msg::MessageQueue,
    from: sysv_msg::MessageQueue,
    /// A message with its type before it, as in C. `send` would put the two together first.
    outgoing: sysv_msg::Buffer,
    incoming: sysv_msg::Buffer,
}

impl Channel for SysvMsg {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.out.send_buffer(&self.outgoing)
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        self.from.recv(Select::Any, &mut self.incoming)?;
        assert_eq!(self.incoming.text().len(), BYTES);
        Ok(())
    }
}

/// It carries a count, not bytes.
struct Event {
    out: EventFd,
    from: EventFd,
}

impl Channel for Event {
    #[inline(always)]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.out.add(1)
    }

    #[inline(always)]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        self.from.take().map(drop)
    }
}
