//! The objects that the processes of a run use, and how each side gets to them: as descriptors, by
//! numbers of System V, or by offsets in memory that is inherited.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::memfd::{Memfd, Seals};
use switchboard_kernel::posix_mq::{self, Access};
use switchboard_kernel::pthread::{Condition, Mutex, MutexOptions};
use switchboard_kernel::pty::{Master, Modes};
use switchboard_kernel::shared_words::{OBJECT_BYTES, SharedWords};
use switchboard_kernel::unix_socket::{Kind, enable_packet_ends};
use switchboard_kernel::{
    Permissions, fifo, io, mmap, pipe, posix_sem, posix_shm, sysv_msg, sysv_sem, sysv_shm, tcp,
    udp, unix_socket,
};

use crate::mechanism::{Operation, Run};
use crate::peer::{BYTES, MUTEX, PAGE};
use crate::scratch::Scratch;
use crate::{Failure, huge_pages};

/// One side's way to its peer.
#[derive(Default)]
pub(crate) struct End {
    pub(crate) out: Option<OwnedFd>,
    pub(crate) from: Option<OwnedFd>,
    pub(crate) out_id: i32,
    pub(crate) in_id: i32,
}

impl End {
    fn new(out: OwnedFd, from: OwnedFd) -> Self {
        Self { out: Some(out), from: Some(from), ..Self::default() }
    }

    /// A descriptor that goes both ways.
    fn both_ways(fd: OwnedFd) -> Result<Self, Failure> {
        Ok(Self::new(io::duplicate(&fd)?, fd))
    }

    /// By numbers.
    fn numbered(out_id: i32, in_id: i32) -> Self {
        Self { out_id, in_id, ..Self::default() }
    }

    /// Both ways in one piece of memory.
    fn in_memory(memory: &SharedWords, out_id: i32, in_id: i32) -> Result<Self, Failure> {
        Ok(Self { out: Some(io::duplicate(memory)?), from: None, out_id, in_id })
    }

    fn only(fd: OwnedFd) -> Self {
        Self { out: Some(fd), ..Self::default() }
    }
}

/// The objects of one run; those with a name of their own are removed with it.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) near: End,
    pub(crate) far: End,
    named: Named,
}

/// Objects that outlive their processes, unless they are removed.
#[derive(Default)]
struct Named {
    queues: Vec<sysv_msg::MessageQueue>,
    sets: Vec<sysv_sem::SemaphoreSet>,
    semaphores: Vec<String>,
    segments: Vec<String>,
    attachable: Vec<sysv_shm::Segment>,
}

impl Drop for Named {
    fn drop(&mut self) {
        for queue in &self.queues {
            let _ = queue.remove();
        }
        for set in &self.sets {
            let _ = set.remove();
        }
        for name in &self.semaphores {
            let _ = posix_sem::unlink(name);
        }
        for name in &self.segments {
            let _ = posix_shm::unlink(name);
        }
        for segment in &self.attachable {
            let _ = segment.remove();
        }
    }
}

impl Objects {
    pub(crate) fn new(run: &Run, scratch: &Scratch) -> Result<Self, Failure> {
        let by_name =
            matches!(run.mechanism, "posix-sem-named" | "posix-sem-open" | "posix-shm-open");
        let pattern = run.mechanism.starts_with("event-") || run.mechanism.starts_with("state-");
        if by_name || pattern {
            return Self::by_name(run);
        }
        if run.operation == Operation::Alone {
            return Self::alone(run.mechanism, scratch);
        }
        let (near, far) = match run.mechanism {
            "pipe" | "signal" | "signalfd" => pipe_pair()?,
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
            "sysv-msg" => return Self::sysv_msg(),
            "sysv-sem" => return Self::sysv_sem(1),
            "tcp" => tcp_pair()?,
            "udp" => udp_pair()?,
            "pty" => pty_pair()?,
            "eventfd" => {
                let event = || -> Result<(OwnedFd, OwnedFd), Failure> {
                    // A semaphore gives each count to one read, as a message would be.
                    let event = OwnedFd::from(EventFd::semaphore(0)?);
                    Ok((io::duplicate(&event)?, event))
                };
                let ((from_near, to_far), (from_far, to_near)) = (event()?, event()?);
                (End::new(to_far, from_far), End::new(to_near, from_near))
            }
            other => {
                let memory = words(other)?;
                let end = |out_id, in_id| End::in_memory(&memory, out_id, in_id);
                (end(0, SECOND)?, end(SECOND, 0)?)
            }
        };
        Ok(Self { near, far, ..Self::default() })
    }

    /// What is found by a name or a key: one for each way, or one if there is only one side.
    fn by_name(run: &Run) -> Result<Self, Failure> {
        let there = 2 * i32::try_from(std::process::id())?;
        let alone = run.operation == Operation::Alone;
        let back = if alone { there } else { there + 1 };
        let mut objects = Self::default();
        (objects.near, objects.far) = match (run.mechanism, alone) {
            ("event-signal", true) => (to_itself()?, End::default()),
            ("event-signal" | "state-watch", _) => pipe_pair()?,
            _ => Default::default(),
        };
        (objects.near.out_id, objects.near.in_id) = (there, back);
        (objects.far.out_id, objects.far.in_id) = (back, there);
        for id in there..=back {
            let name = name_of(id);
            match run.mechanism {
                "event-sem" | "posix-sem-named" | "posix-sem-open" => {
                    let options = posix_sem::CreateOptions::new().exclusive(true);
                    posix_sem::Semaphore::create(&name, &options)?;
                    objects.named.semaphores.push(name);
                }
                "event-sysv-sem" => {
                    let options = sysv_sem::CreateOptions::new().exclusive(true);
                    let key = sysv_sem::Key::Value(id);
                    objects.named.sets.push(sysv_sem::SemaphoreSet::create(&key, &options)?);
                }
                "event-signal" => {}
                _ => {
                    let len_bytes = 3 * PAGE as u64;
                    posix_shm::Segment::create(&name, len_bytes, Permissions::new())?;
                    objects.named.segments.push(name);
                }
            }
        }
        Ok(objects)
    }

    /// What one process needs that puts and takes by itself.
    fn alone(mechanism: &str, scratch: &Scratch) -> Result<Self, Failure> {
        let near = match mechanism {
            "posix-sem" | "futex" | "futex-waitv" | "pthread" | "pthread-mutex" => {
                End::in_memory(&words(mechanism)?, 0, 0)?
            }
            "sysv-sem" => {
                let mut both = Self::sysv_sem(1)?;
                both.near.in_id = both.near.out_id;
                return Ok(both);
            }
            "sysv-sem-undo" | "sysv-sem-several" => return Self::sysv_sem(2),
            "sysv-shm-attach" => {
                let (mut one, options) = (Self::default(), sysv_shm::CreateOptions::new());
                let made = sysv_shm::Segment::create(&sysv_shm::Key::Private, PAGE, &options)?;
                one.near.out_id = made.id();
                one.named.attachable.push(made);
                return Ok(one);
            }
            "memfd-huge" => {
                let page_bytes =
                    huge_pages::page_bytes().ok_or("this machine has no huge pages")?;
                End::numbered(i32::try_from(page_bytes >> 10)?, 0)
            }
            "signal" | "signalfd" => to_itself()?,
            "flock" | "process-lock" | "open-file-lock" | "inotify" => {
                let mut options = std::fs::File::options();
                let options = options.create(true).truncate(false).read(true).write(true);
                End::only(options.open(scratch.path("file"))?.into())
            }
            "msync" | "mmap-grow" | "mmap-private" | "mmap-advice" => {
                let path = scratch.path("mapped");
                // Of the run before.
                let _ = std::fs::remove_file(&path);
                End::only(mmap::create_file(&path, PAGE as u64, Permissions::new())?)
            }
            memory if memory.starts_with("memory-") || memory.starts_with("watched-") => {
                let memfd = Memfd::create("switchboard-bench", 2 * PAGE as u64)?;
                if memory.starts_with("memory-") {
                    memfd.add_seals(Seals::SHRINK)?;
                }
                End::only(memfd.into())
            }
            _ => End::default(),
        };
        Ok(Self { near, ..Self::default() })
    }

    fn sysv_msg() -> Result<Self, Failure> {
        let mut objects = Self::default();
        for _ in 0..2 {
            let options = sysv_msg::CreateOptions::new();
            let queue = sysv_msg::MessageQueue::create(&sysv_msg::Key::Private, &options)?;
            objects.named.queues.push(queue);
        }
        let (there, back) = (objects.named.queues[0].id(), objects.named.queues[1].id());
        (objects.near, objects.far) = (End::numbered(there, back), End::numbered(back, there));
        Ok(objects)
    }

    /// A set of so many semaphores for each way.
    fn sysv_sem(count: usize) -> Result<Self, Failure> {
        let mut objects = Self::default();
        for _ in 0..2 {
            let options = sysv_sem::CreateOptions::new().values(vec![0; count]);
            let set = sysv_sem::SemaphoreSet::create(&sysv_sem::Key::Private, &options)?;
            objects.named.sets.push(set);
        }
        let (there, back) = (objects.named.sets[0].id(), objects.named.sets[1].id());
        (objects.near, objects.far) = (End::numbered(there, back), End::numbered(back, there));
        Ok(objects)
    }
}

/// The name of what is found by a number.
pub(crate) fn name_of(id: i32) -> String {
    format!("/switchboard-bench-{id}")
}

/// Where the object of the way back is; that of the way there is at 0.
const SECOND: i32 = OBJECT_BYTES as i32;

/// Memory with an object of this mechanism for each way.
fn words(mechanism: &str) -> Result<SharedWords, Failure> {
    let memory = SharedWords::create(PAGE)?;
    for offset in [0, SECOND as usize] {
        let slot = memory.slot(offset, OBJECT_BYTES)?;
        match mechanism {
            "posix-sem" => drop(posix_sem::Semaphore::create_in(slot, 0)?),
            "pthread" => drop(Condition::create(slot)?),
            "futex" | "futex-waitv" | "pthread-mutex" => {}
            other => return Err(format!("no such mechanism: {other}").into()),
        }
    }
    if mechanism.starts_with("pthread") {
        Mutex::create(memory.slot(MUTEX, OBJECT_BYTES)?, MutexOptions::new())?;
    }
    Ok(memory)
}

fn pipe_pair() -> Result<(End, End), Failure> {
    let (from_near, to_far) = pipe::pipe()?;
    let (from_far, to_near) = pipe::pipe()?;
    Ok((End::new(to_far, from_far), End::new(to_near, from_near)))
}

/// Both ends of one pipe.
fn to_itself() -> Result<End, Failure> {
    let (reader, writer) = pipe::pipe()?;
    Ok(End::new(writer, reader))
}

/// The near side has the master.
fn pty_pair() -> Result<(End, End), Failure> {
    let master = Master::open()?;
    let slave = master.open_slave()?;
    Modes::of(&slave)?.raw().set(&slave)?;
    Ok((End::both_ways(master.into())?, End::both_ways(slave)?))
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
