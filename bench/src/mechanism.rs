//! The mechanisms that carry messages, and how both sides of one get to it.
//!
//! The descriptors are made here and inherited, so that the C and the Rust program use the very same
//! objects and differ only in how they send and receive.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::posix_mq::{self, Access};
use switchboard_kernel::process::{Child, Spawn};
use switchboard_kernel::unix_socket::{Kind, enable_packet_ends};
use switchboard_kernel::{Permissions, fifo, io, pipe, sysv_msg, tcp, udp, unix_socket};

use crate::peer::{BYTES, IN, OUT};
use crate::scratch::Scratch;
use crate::{Failure, PEER};

/// Every mechanism that is measured.
pub(crate) const NAMES: [&str; 10] = [
    "pipe",
    "fifo",
    "unix-stream",
    "unix-dgram",
    "unix-seqpacket",
    "posix-mq",
    "sysv-msg",
    "tcp",
    "udp",
    "eventfd",
];

/// Which program is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Rust,
}

impl Language {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Rust => "Rust",
        }
    }

    /// The program and its first arguments.
    pub(crate) fn command(self) -> Result<Vec<String>, Failure> {
        Ok(match self {
            Self::C => vec![env!("PEER_C").to_owned()],
            Self::Rust => {
                let own = std::env::current_exe()?;
                vec![own.to_string_lossy().into_owned(), PEER.to_owned()]
            }
        })
    }
}

/// What is done over a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    RoundTrip,
    OneWay,
}

impl Operation {
    pub(crate) const ALL: [Self; 2] = [Self::RoundTrip, Self::OneWay];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RoundTrip => "round-trip",
            Self::OneWay => "one-way",
        }
    }
}

/// A run of two processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) mechanism: &'static str,
    pub(crate) operation: Operation,
    pub(crate) count: usize,
    pub(crate) warm_up: usize,
    /// Where the near and the far side run.
    pub(crate) cpus: (usize, usize),
}

/// One side's way to its peer.
struct End {
    out: Option<OwnedFd>,
    from: Option<OwnedFd>,
    out_id: i32,
    in_id: i32,
}

impl End {
    fn new(out: OwnedFd, from: OwnedFd) -> Self {
        Self { out: Some(out), from: Some(from), out_id: 0, in_id: 0 }
    }

    /// A descriptor that goes both ways.
    fn both_ways(fd: OwnedFd) -> Result<Self, Failure> {
        Ok(Self::new(io::duplicate(&fd)?, fd))
    }
}

/// The objects of one run; those with a name of their own are removed with it.
struct Objects {
    near: End,
    far: End,
    sysv: Vec<sysv_msg::MessageQueue>,
}

impl Drop for Objects {
    fn drop(&mut self) {
        for queue in &self.sysv {
            let _ = queue.remove();
        }
    }
}

impl Run {
    /// Runs both sides, and gives what the side that measures printed. `around` may put another
    /// program around a side's: it gets the side's name and its words.
    pub(crate) fn start(
        &self,
        language: Language,
        scratch: &Scratch,
        around: impl Fn(&str, Vec<String>) -> Vec<String>,
    ) -> Result<String, Failure> {
        let mut objects = objects(self, scratch)?;
        let (reader, writer) = pipe::pipe()?;
        let sides =
            [("far", &mut objects.far, self.cpus.1), ("near", &mut objects.near, self.cpus.0)];
        let mut children: Vec<Child> = Vec::new();
        for (side, end, cpu) in sides {
            let mut words = language.command()?;
            let numbers = [self.count, self.warm_up, cpu].map(|number| number.to_string());
            let ids = [end.out_id, end.in_id].map(|id| id.to_string());
            words.extend([self.mechanism, self.operation.name(), side].map(str::to_owned));
            words.extend(numbers);
            words.extend(ids);
            let words = around(side, words);
            let mut spawn = Spawn::new(&words[0])
                .args(&words[1..])
                .stdout(io::duplicate(&writer)?)
                .die_with_parent();
            for (number, fd) in [(OUT, end.out.take()), (IN, end.from.take())] {
                if let Some(fd) = fd {
                    spawn = spawn.descriptor(number, fd);
                }
            }
            children.push(spawn.spawn()?);
        }
        drop(writer);
        let mut printed = vec![0; 4096];
        let len = io::read_full(&reader, &mut printed)?;
        for mut child in children {
            let status = child.wait(io::Deadline::NEVER)?;
            if !status.is_some_and(|status| status.success()) {
                return Err(format!("{self:?} in {}: {status:?}", language.name()).into());
            }
        }
        Ok(String::from_utf8_lossy(&printed[..len]).trim().to_owned())
    }
}

fn objects(run: &Run, scratch: &Scratch) -> Result<Objects, Failure> {
    let mut sysv = Vec::new();
    let (near, far) = match run.mechanism {
        "pipe" => {
            let (from_near, to_far) = pipe::pipe()?;
            let (from_far, to_near) = pipe::pipe()?;
            (End::new(to_far, from_far), End::new(to_near, from_near))
        }
        "fifo" => {
            let (from_near, to_far) = open_fifo(scratch, "there.fifo")?;
            let (from_far, to_near) = open_fifo(scratch, "back.fifo")?;
            (End::new(to_far, from_far), End::new(to_near, from_near))
        }
        "unix-stream" => socket_pair(Kind::Stream)?,
        "unix-dgram" => socket_pair(Kind::Datagram)?,
        "unix-seqpacket" => socket_pair(Kind::Seqpacket)?,
        "posix-mq" => {
            let (from_near, to_far) = open_mq("there")?;
            let (from_far, to_near) = open_mq("back")?;
            (End::new(to_far, from_far), End::new(to_near, from_near))
        }
        "sysv-msg" => {
            for _ in 0..2 {
                let options = sysv_msg::CreateOptions::new();
                sysv.push(sysv_msg::MessageQueue::create(&sysv_msg::Key::Private, &options)?);
            }
            let (there, back) = (sysv[0].id(), sysv[1].id());
            let end = |out_id, in_id| End { out: None, from: None, out_id, in_id };
            (end(there, back), end(back, there))
        }
        "tcp" => tcp_pair()?,
        "udp" => udp_pair()?,
        "eventfd" => {
            let event = || -> Result<(OwnedFd, OwnedFd), Failure> {
                // A semaphore gives each count to one read, as a message would be.
                let event = OwnedFd::from(EventFd::semaphore(0)?);
                Ok((io::duplicate(&event)?, event))
            };
            let ((from_near, to_far), (from_far, to_near)) = (event()?, event()?);
            (End::new(to_far, from_far), End::new(to_near, from_near))
        }
        other => return Err(format!("no such mechanism: {other}").into()),
    };
    Ok(Objects { near, far, sysv })
}

fn open_fifo(scratch: &Scratch, name: &str) -> Result<(OwnedFd, OwnedFd), Failure> {
    let path = scratch.path(name);
    fifo::create(&path, Permissions::new())?;
    let reader = fifo::open_reader(&path)?;
    let writer = fifo::open_writer(&path)?;
    fifo::unlink(&path)?;
    io::set_nonblocking(&reader, false)?;
    io::set_nonblocking(&writer, false)?;
    Ok((reader, writer))
}

fn open_mq(name: &str) -> Result<(OwnedFd, OwnedFd), Failure> {
    let name = format!("/switchboard-bench-{}-{name}", std::process::id());
    let options = posix_mq::CreateOptions::new().message_size_bytes(BYTES as u32).exclusive(true);
    let reader = posix_mq::MessageQueue::create(&name, Access::Receive, &options)?;
    let writer = posix_mq::MessageQueue::open(&name, Access::Send);
    posix_mq::unlink(&name)?;
    Ok((reader.into(), writer?.into()))
}

fn socket_pair(kind: Kind) -> Result<(End, End), Failure> {
    let (near, far) = unix_socket::pair(kind)?;
    if kind == Kind::Seqpacket {
        enable_packet_ends(&near)?;
        enable_packet_ends(&far)?;
    }
    Ok((End::both_ways(near)?, End::both_ways(far)?))
}

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn tcp_pair() -> Result<(End, End), Failure> {
    let listener = tcp::listen_at(LOOPBACK, 1, false)?;
    let near = tcp::connect(tcp::local_address(&listener)?)?;
    let (far, _) = tcp::accept(&listener, false)?;
    tcp::set_nodelay(&near, true)?;
    tcp::set_nodelay(&far, true)?;
    Ok((End::both_ways(near)?, End::both_ways(far)?))
}

fn udp_pair() -> Result<(End, End), Failure> {
    // Each is connected to the other, so that plain send and receive do.
    let near: OwnedFd = std::net::UdpSocket::bind(LOOPBACK)?.into();
    let far = udp::connect(udp::local_address(&near)?, false)?;
    let near = std::net::UdpSocket::from(near);
    near.connect(udp::local_address(&far)?)?;
    Ok((End::both_ways(near.into())?, End::both_ways(far)?))
}
