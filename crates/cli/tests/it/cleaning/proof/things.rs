//! Objects of the proof: what is planted, and whether it is still, or again, the same.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use switchboard_inspect::Kind;
use switchboard_kernel::mmap::Mode;
use switchboard_kernel::posix_mq::{self, MessageQueue};
use switchboard_kernel::posix_shm::{self, Segment};
use switchboard_kernel::{Permissions, fifo, posix_sem, sysv_msg, sysv_sem, sysv_shm};

use super::Dice;

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) kind: Kind,
    pub(super) number: u64,
    /// The key of a System V object; 0 for a private one.
    pub(super) key: i32,
    pub(super) mode: u32,
    pub(super) len: usize,
    /// Where the stage has its files.
    pub(super) folder: PathBuf,
}

pub(super) const KINDS: [Kind; 8] = [
    Kind::SysvShm,
    Kind::SysvMsg,
    Kind::SysvSem,
    Kind::Mq,
    Kind::PosixShm,
    Kind::PosixSem,
    Kind::Fifo,
    Kind::Unix,
];

type Outcome = Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Thing {
    pub(super) fn new(kind: Kind, folder: &Path, dice: &mut Dice) -> Self {
        let number = dice.next();
        let key = if dice.below(2) == 0 { 0 } else { (number as i32) | 1 };
        let mode = [0o600, 0o640, 0o660, 0o644][dice.below(4) as usize];
        let len = 1 + dice.below(20_000) as usize;
        Self { kind, number, key, mode, len, folder: folder.to_owned() }
    }

    /// A name as programs generate them.
    pub(super) fn name(&self) -> String {
        format!("/psm_{:016x}", self.number)
    }

    /// The path of what is a file.
    pub(super) fn path(&self) -> PathBuf {
        match self.kind {
            Kind::PosixShm => format!("/dev/shm{}", self.name()).into(),
            Kind::PosixSem => format!("/dev/shm/sem.{}", &self.name()[1..]).into(),
            _ => self.folder.join(&self.name()[1..]),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut dice = Dice(self.number);
        let zeroes = self.len / 3..self.len / 2;
        (0..self.len).map(|at| if zeroes.contains(&at) { 0 } else { dice.next() as u8 }).collect()
    }

    /// Types or priorities, and texts; in the order in which they are received.
    fn messages(&self) -> Vec<(u32, Vec<u8>)> {
        let mut dice = Dice(self.number ^ 1);
        let count = dice.below(6);
        let mut messages: Vec<(u32, Vec<u8>)> = (0..count)
            .map(|_| {
                let text = (0..dice.below(90)).map(|_| dice.next() as u8).collect();
                (1 + dice.below(3) as u32, text)
            })
            .collect();
        if self.kind == Kind::Mq {
            messages.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        }
        messages
    }

    fn counts(&self) -> Vec<u16> {
        let mut dice = Dice(self.number ^ 2);
        (0..1 + dice.below(5)).map(|_| dice.below(30_000) as u16).collect()
    }

    /// Makes it; gives its id, if it has one.
    pub(super) fn make(&self) -> Result<i32, String> {
        let permissions = Permissions::new().mode(self.mode);
        match self.kind {
            Kind::SysvShm => {
                let options =
                    sysv_shm::CreateOptions::new().exclusive(true).permissions(permissions);
                let made = sysv_shm::Segment::create(&shm_key(self.key), self.len, &options);
                let made = made.map_err(text)?;
                let memory = made.attach(sysv_shm::Access::ReadWrite).map_err(text)?;
                memory.write_at(0, &self.bytes()).map_err(text)?;
                Ok(made.id())
            }
            Kind::SysvMsg => {
                let options =
                    sysv_msg::CreateOptions::new().exclusive(true).permissions(permissions);
                let made = sysv_msg::MessageQueue::create(&msg_key(self.key), &options);
                let made = made.map_err(text)?;
                for (kind, message) in self.messages() {
                    made.try_send(i64::from(kind), &message).map_err(text)?;
                }
                Ok(made.id())
            }
            Kind::SysvSem => {
                let options =
                    sysv_sem::CreateOptions::new().exclusive(true).permissions(permissions);
                let options = options.values(self.counts());
                let made = sysv_sem::SemaphoreSet::create(&sem_key(self.key), &options);
                Ok(made.map_err(text)?.id())
            }
            Kind::Mq => {
                let options = posix_mq::CreateOptions::new()
                    .exclusive(true)
                    .max_messages(6)
                    .message_size_bytes(100)
                    .permissions(permissions);
                let made = MessageQueue::create(&self.name(), posix_mq::Access::Both, &options);
                let made = made.map_err(text)?;
                for (priority, message) in self.messages() {
                    made.try_send(&message, priority).map_err(text)?;
                }
                Ok(0)
            }
            Kind::PosixShm => {
                let made = Segment::create(&self.name(), self.len as u64, permissions);
                let memory = made.map_err(text)?.map(Mode::ReadWrite).map_err(text)?;
                memory.write_at(0, &self.bytes()).map_err(text).map(|()| 0)
            }
            Kind::PosixSem => {
                let options = posix_sem::CreateOptions::new().value(self.len as u32);
                let options = options.permissions(permissions);
                posix_sem::Semaphore::create(&self.name(), &options).map_err(text).map(|_| 0)
            }
            Kind::Fifo => fifo::create(&self.path(), permissions).map_err(text).map(|()| 0),
            _ => {
                std::os::unix::net::UnixDatagram::bind(self.path()).map_err(text)?;
                let mode = std::fs::Permissions::from_mode(self.mode);
                std::fs::set_permissions(self.path(), mode).map_err(text).map(|()| 0)
            }
        }
    }

    /// What identifies it now, if it is there: its id, or its inode.
    pub(super) fn identity(&self, id: i32) -> Option<u64> {
        let of_key = |found: Result<i32, _>| found.ok().map(|id: i32| id as u64);
        match self.kind {
            Kind::SysvShm if self.key != 0 => {
                of_key(sysv_shm::Segment::open(&shm_key(self.key)).map(|found| found.id()))
            }
            Kind::SysvMsg if self.key != 0 => {
                of_key(sysv_msg::MessageQueue::open(&msg_key(self.key)).map(|found| found.id()))
            }
            Kind::SysvSem if self.key != 0 => {
                of_key(sysv_sem::SemaphoreSet::open(&sem_key(self.key)).map(|found| found.id()))
            }
            // Whether it is there, says a table that everybody may read.
            Kind::SysvShm | Kind::SysvMsg | Kind::SysvSem => {
                is_listed(self.kind, id).then_some(id as u64)
            }
            Kind::Mq => std::fs::metadata(self.queue_path()).ok().map(|found| found.ino()),
            _ => std::fs::symlink_metadata(self.path()).ok().map(|found| found.ino()),
        }
    }

    /// The stage has the file system of queues mounted here.
    fn queue_path(&self) -> PathBuf {
        self.folder.join(format!("mqueue{}", self.name()))
    }

    /// Whether it holds what was planted, with its mode. Messages are taken out by this.
    pub(super) fn check(&self, id: i32) -> Outcome {
        let mode = |found: u32| {
            if found & 0o777 == self.mode {
                Ok(())
            } else {
                Err(format!("mode {found:o}, not {:o}", self.mode))
            }
        };
        match self.kind {
            Kind::SysvShm => {
                let found = sysv_shm::Segment::from_id(id);
                mode(found.status().map_err(text)?.mode)?;
                let memory = found.attach(sysv_shm::Access::ReadOnly).map_err(text)?;
                let mut bytes = vec![0; self.len];
                memory.read_at(0, &mut bytes).map_err(text)?;
                same(&bytes, &self.bytes())
            }
            Kind::SysvMsg => {
                let found = sysv_msg::MessageQueue::from_id(id);
                mode(found.status().map_err(text)?.mode)?;
                let mut buffer = sysv_msg::Buffer::with_capacity(4096);
                for (kind, message) in self.messages() {
                    let got = found.try_recv(sysv_msg::Select::Any, &mut buffer).map_err(text)?;
                    same(&(got, buffer.text()), &(i64::from(kind), &message[..]))?;
                }
                let more = found.try_recv(sysv_msg::Select::Any, &mut buffer);
                if more.is_ok() { Err("more messages than planted".to_owned()) } else { Ok(()) }
            }
            Kind::SysvSem => {
                let found = sysv_sem::SemaphoreSet::from_id(id);
                mode(found.status().map_err(text)?.mode)?;
                same(&found.values().map_err(text)?, &self.counts())
            }
            Kind::Mq => {
                let found =
                    MessageQueue::open(&self.name(), posix_mq::Access::Both).map_err(text)?;
                mode(rustix::fs::fstat(&found).map_err(text)?.st_mode)?;
                let mut buffer = [0; 100];
                for (priority, message) in self.messages() {
                    let (len, got) = found.try_recv(&mut buffer).map_err(text)?;
                    same(&(got, &buffer[..len]), &(priority, &message[..]))?;
                }
                let more = found.try_recv(&mut buffer);
                if more.is_ok() { Err("more messages than planted".to_owned()) } else { Ok(()) }
            }
            Kind::PosixSem => {
                let found = posix_sem::Semaphore::open(&self.name()).map_err(text)?;
                mode(std::fs::metadata(self.path()).map_err(text)?.mode())?;
                same(&found.value(), &(self.len as u32))
            }
            Kind::PosixShm => {
                mode(std::fs::metadata(self.path()).map_err(text)?.mode())?;
                same(&std::fs::read(self.path()).map_err(text)?, &self.bytes())
            }
            _ => mode(std::fs::symlink_metadata(self.path()).map_err(text)?.mode()),
        }
    }

    /// What `clean` is to call it.
    pub(super) fn word(&self, id: i32) -> String {
        match self.kind {
            Kind::SysvShm | Kind::SysvMsg | Kind::SysvSem => format!("{}:{id}", self.kind),
            Kind::Mq => format!("mq:{}", self.name()),
            _ => self.path().display().to_string(),
        }
    }
}

fn same<T: PartialEq>(found: &T, planted: &T) -> Outcome {
    if found == planted { Ok(()) } else { Err("it does not hold what was planted".to_owned()) }
}

pub(super) fn open_shared(thing: &Thing) -> switchboard_kernel::Result<Segment> {
    Segment::open(&thing.name(), posix_shm::Access::ReadOnly)
}

fn shm_key(key: i32) -> sysv_shm::Key {
    if key == 0 { sysv_shm::Key::Private } else { sysv_shm::Key::Value(key) }
}

fn msg_key(key: i32) -> sysv_msg::Key {
    if key == 0 { sysv_msg::Key::Private } else { sysv_msg::Key::Value(key) }
}

fn sem_key(key: i32) -> sysv_sem::Key {
    if key == 0 { sysv_sem::Key::Private } else { sysv_sem::Key::Value(key) }
}

fn is_listed(kind: Kind, id: i32) -> bool {
    use switchboard_inspect::source::sysv::{Table, table};
    let which = match kind {
        Kind::SysvShm => Table::Memory,
        Kind::SysvMsg => Table::Messages,
        _ => Table::Semaphores,
    };
    let text = std::fs::read(which.path()).unwrap_or_default();
    table(which, &text).iter().any(|row| row.id == id)
}
