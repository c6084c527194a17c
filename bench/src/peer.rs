//! One side of a wrapper measurement, in Rust. The same program in C is `c/peer.c`; the two take the
//! same arguments and print the same line.

use std::os::fd::OwnedFd;
use std::time::Instant;

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::posix_mq::MessageQueue;
use switchboard_kernel::sysv_msg::{self, Select};
use switchboard_kernel::{Result, io, process, tcp, udp, unix_socket};

use crate::{Failure, pin};

/// The size of a message.
pub(crate) const BYTES: usize = 64;
/// The descriptor to send to, and the one to receive from.
pub(crate) const OUT: i32 = 3;
pub(crate) const IN: i32 = 4;
/// Nothing holds a UDP sender back: it waits for a word from the receiver every so many messages.
pub(crate) const UDP_BURST: usize = 64;
/// The most round trips of one run.
pub(crate) const MOST_SAMPLES: usize = 1 << 20;

/// `MECHANISM round-trip|one-way near|far COUNT WARM_UP CPU OUT_ID IN_ID`
pub(crate) fn main(arguments: &[String]) -> std::result::Result<(), Failure> {
    let [name, operation, side, count, warm_up, cpu, out_id, in_id] = arguments else {
        return Err("peer: eight arguments are needed".into());
    };
    pin(cpu.parse()?)?;
    let job = Job {
        round_trip: operation == "round-trip",
        near: side == "near",
        udp: name == "udp",
        count: count.parse()?,
        warm_up: warm_up.parse()?,
    };
    match name.as_str() {
        "sysv-msg" => {
            let out = sysv_msg::MessageQueue::from_id(out_id.parse()?);
            let from = sysv_msg::MessageQueue::from_id(in_id.parse()?);
            let buffer = || sysv_msg::Buffer::with_capacity(BYTES);
            let mut outgoing = buffer();
            outgoing.fill(&[0; BYTES]);
            run(&job, SysvMsg { out, from, outgoing, incoming: buffer() })
        }
        _ => {
            let out = process::inherited_descriptor(OUT)?;
            let from = process::inherited_descriptor(IN)?;
            match name.as_str() {
                "pipe" | "fifo" => run(&job, Pipe { out, from }),
                "unix-stream" => run(&job, UnixStream { out, from }),
                "unix-dgram" => run(&job, UnixDatagram { out, from }),
                "unix-seqpacket" => run(&job, Seqpacket { out, from }),
                "posix-mq" => run(&job, PosixMq { out: out.into(), from: from.into() }),
                "tcp" => run(&job, Tcp { out, from }),
                "udp" => run(&job, Udp { out, from }),
                "eventfd" => run(&job, Event { out: out.into(), from: from.into() }),
                other => Err(format!("no such mechanism: {other}").into()),
            }
        }
    }
}

struct Job {
    round_trip: bool,
    near: bool,
    udp: bool,
    count: usize,
    warm_up: usize,
}

fn run(job: &Job, mut channel: impl Channel) -> std::result::Result<(), Failure> {
    if job.count > MOST_SAMPLES {
        return Err("COUNT".into());
    }
    let mut message = [0; BYTES];
    let mut samples: Vec<u32> = Vec::with_capacity(MOST_SAMPLES);
    let total = job.count + job.warm_up;
    match (job.round_trip, job.near) {
        (true, true) => {
            for _ in 0..job.warm_up {
                channel.put(&message)?;
                channel.take(&mut message)?;
            }
            let start = Instant::now();
            let mut last = start;
            for _ in 0..job.count {
                channel.put(&message)?;
                channel.take(&mut message)?;
                let now = Instant::now();
                samples.push(now.duration_since(last).as_nanos() as u32);
                last = now;
            }
            report(last.duration_since(start).as_nanos(), &mut samples);
        }
        (true, false) => {
            for _ in 0..total {
                channel.take(&mut message)?;
                channel.put(&message)?;
            }
        }
        (false, true) => {
            for i in 1..=total {
                channel.put(&message)?;
                if job.udp && i % UDP_BURST == 0 {
                    channel.take(&mut message)?;
                }
            }
        }
        (false, false) => {
            let mut start = Instant::now();
            for i in 1..=total {
                channel.take(&mut message)?;
                if job.udp && i % UDP_BURST == 0 {
                    channel.put(&message)?;
                }
                if i == job.warm_up {
                    start = Instant::now();
                }
            }
            report(start.elapsed().as_nanos(), &mut samples);
        }
    }
    Ok(())
}

fn report(total_ns: u128, samples: &mut [u32]) {
    samples.sort_unstable();
    print!("{total_ns}");
    for per_mille in [500, 900, 990, 999] {
        let at = samples.len().saturating_sub(1) * per_mille / 1000;
        print!(" {}", samples.get(at).copied().unwrap_or(0));
    }
    println!();
}

/// A mechanism, used through its wrapper.
trait Channel {
    fn put(&mut self, message: &[u8; BYTES]) -> Result<()>;
    fn take(&mut self, message: &mut [u8; BYTES]) -> Result<()>;
}

/// Two descriptors, and how to use them.
macro_rules! descriptors {
    ($name:ident, $put:path, $take:expr) => {
        struct $name {
            out: OwnedFd,
            from: OwnedFd,
        }

        impl Channel for $name {
            #[inline]
            fn put(&mut self, message: &[u8; BYTES]) -> Result<()> {
                $put(&self.out, message).map(|sent| assert_eq!(sent, BYTES))
            }

            #[inline]
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

/// A stream may give a message in parts.
#[inline]
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
    #[inline]
    fn put(&mut self, message: &[u8; BYTES]) -> Result<()> {
        self.out.send(message, 0)
    }

    #[inline]
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
    #[inline]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.out.send_buffer(&self.outgoing)
    }

    #[inline]
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
    #[inline]
    fn put(&mut self, _: &[u8; BYTES]) -> Result<()> {
        self.out.add(1)
    }

    #[inline]
    fn take(&mut self, _: &mut [u8; BYTES]) -> Result<()> {
        self.from.take().map(drop)
    }
}
