//! `State`: the newest value, as bytes, for one writer and any number of readers.
//!
//! Over links and `shm:` there is a value for each key, and it lives as long as its writer. Elsewhere
//! the one value is in memory that both sides map, so reading and writing make no system call (setting
//! makes one, to wake watchers). It lives as long as its object: it does not need its writer.
//!
//! With the layout [`slots`](Layout::Slots) a reader always gets a value that was set, whole,
//! although the writer may be killed at any instruction; values may have any length up to the
//! capacity, and a change is never missed as such. With [`bare`](Layout::Bare) the memory holds
//! nothing but the bytes, so that any program can be the other side.

mod bare;
mod in_memory;
mod reader;
pub(crate) mod slots;
mod writer;

use switchboard_kernel::mmap::Missing;

use crate::address::Address;
use crate::error::{Error, ErrorKind};
use crate::link::news::is_key;
use crate::message::{Bytes, Message};
use crate::options::Options;
use crate::transport::{Setup, StateEnds, StateMemory};
use in_memory::{MemoryReader, MemoryWriter};
pub use reader::Reader;
use slots::{Geometry, Problem};
pub use writer::Writer;

/// What the memory of a state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Whole values with versions; for Switchboard on both sides. What docs/design/state.md draws.
    #[default]
    Slots,
    /// The bytes of the value, and zeroes after it; for programs that are not ours. A reader may see
    /// a value half written.
    Bare,
}

impl Layout {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "slots" => Some(Self::Slots),
            "bare" => Some(Self::Bare),
            _ => None,
        }
    }
}

/// A value as a reader finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Value {
    /// The bytes: as long as they were set; with [`Layout::Bare`], as long as the memory.
    pub bytes: Vec<u8>,
    /// Grows with each value that is set; 0: none was set yet. With [`Layout::Bare`], the number of
    /// changes that this reader has seen.
    pub version: u64,
    /// Something is damaged, by a power cut or a program that wrote where it should not: this is the
    /// newest value that is whole, perhaps not the newest one.
    pub restored: bool,
}

impl Value {
    fn of(bytes: Vec<u8>, version: u64) -> Self {
        Self { bytes, version, restored: false }
    }
}

/// A state's name and options; its ends are made from it. Of the options, `wait` and `cancel` apply.
///
/// ```
/// use switchboard::State;
///
/// # let folder = tempfile::tempdir()?;
/// # let address = format!("mmap:{}/settings", folder.path().display());
/// let state = State::open(&address)?;
/// let mut writer = state.writer()?;
/// let mut reader = state.reader()?;
/// writer.set(b"speed 7")?;
/// assert_eq!(reader.watch()?.bytes, b"speed 7");
/// writer.set(b"stop")?;
/// assert_eq!(reader.get()?.version, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct State {
    address: Address,
    options: Options,
}

impl State {
    /// Parses the address. Nothing is made or opened until an end is.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open(address: &str) -> Result<Self, Error> {
        Self::open_with(address, Options::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// `BadAddress`, with the part that is wrong.
    pub fn open_with(address: &str, options: Options) -> Result<Self, Error> {
        Ok(Self::at(address.parse()?, options))
    }

    /// A state at an address that is parsed already.
    #[must_use]
    pub fn at(address: Address, options: Options) -> Self {
        Self { address, options }
    }

    /// The writer: one at a time, which the kernel sees to; over `shm:` one for each key. Makes the memory if it is not there
    /// (`?size=`, 4 KiB unless said otherwise), unless [`wait`](Options#structfield.wait) is off.
    ///
    /// # Errors
    /// `AddressInUse`: there is a writer, which is named; `NotFound`; `PermissionDenied`; `Mismatch`:
    /// the memory holds something else; limits by name; `System`: the
    /// [`cancel`](Options#structfield.cancel) descriptor became readable while large memory was looked at.
    pub fn writer(&self) -> Result<Writer, Error> {
        let end = match self.ends()? {
            StateEnds::InMemory(ends) => {
                writer::End::InMemory(Box::new(MemoryWriter::open(self, ends)?))
            }
            StateEnds::Live(ends) => {
                writer::End::Live((ends.writer)(&self.setup()).map_err(Self::one_writer)?)
            }
        };
        Ok(Writer { state: self.clone(), end })
    }

    /// A reader. Memory that outlives its writer has to be there; nothing has to be set yet. Elsewhere reader and
    /// writer may come in any order.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied`; `Mismatch`: the memory holds something else.
    pub fn reader(&self) -> Result<Reader, Error> {
        let end = match self.ends()? {
            StateEnds::InMemory(ends) => {
                reader::End::InMemory(Box::new(MemoryReader::open(self, ends)?))
            }
            StateEnds::Live(ends) => reader::End::Live((ends.reader)(&self.setup())?),
        };
        Ok(Reader { state: self.clone(), end })
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What its memory holds, by the address.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.address.query.layout.unwrap_or_default()
    }

    /// The longest value, in bytes, of memory that is made at this address now: `?size=`, or 4 KiB.
    /// Memory that is there has [its own](Writer::capacity_bytes).
    #[must_use]
    pub fn new_capacity_bytes(&self) -> usize {
        self.address.query.size_bytes.unwrap_or(DEFAULT_BYTES) as usize
    }

    fn setup(&self) -> Setup {
        let (address, options) = (self.address.clone(), self.options.clone());
        Setup::new(address, options, Bytes::schema())
    }

    fn ends(&self) -> Result<&'static StateEnds, Error> {
        let transport = self.address.transport();
        let ends = transport.carries.state.as_ref();
        ends.ok_or_else(|| transport.does_not_carry("state", &self.address))
    }

    /// Whether there can be such a key here, before anything is opened or waited for.
    ///
    /// # Errors
    /// `BadAddress`: a key is text of at most 255 bytes, without control characters.
    pub fn check_key(&self, key: &str) -> Result<(), Error> {
        if is_key(key) {
            return Ok(());
        }
        let problem = match key.chars().find(|one| one.is_control()) {
            Some(one) => format!(
                "a key has no control characters, and this one has U+{:04X}",
                u32::from(one)
            ),
            None => format!("a key has 255 bytes at most, and this one has {}", key.len()),
        };
        Err(Error::new(ErrorKind::BadAddress, &self.address, problem))
    }

    /// Says what to do about a second writer: others bind and connect, a writer only binds.
    fn one_writer(error: Error) -> Error {
        if error.kind() != ErrorKind::AddressInUse {
            return error;
        }
        error.hint("one process at a time is the writer of a state here: have it set this value, too, or stop it")
    }

    fn without_keys(&self) -> Error {
        let scheme = self.address.scheme();
        let problem = format!("{scheme}: has one value, and no keys");
        Error::new(ErrorKind::NotSupported, &self.address, problem)
            .hint("shm: and unix: have keys; elsewhere each value has an address of its own")
    }

    fn explain(&self, problem: Problem, memory: &StateMemory) -> Error {
        let address = &self.address;
        match problem {
            Problem::NotOurs(problem) => Error::new(ErrorKind::Mismatch, address, problem).hint(
                match address.query.layout.unwrap_or_default() {
                    Layout::Slots => "with ?layout=bare its bytes are read and set as they are",
                    Layout::Bare => "without ?layout=bare its values are read and set whole",
                },
            ),
            Problem::Damaged => {
                Error::new(ErrorKind::Mismatch, address, "both of its values are damaged")
                    .hint("set it anew: a writer begins again with an empty value")
            }
            Problem::TooLarge { capacity } => {
                let problem = format!("a value has {capacity} bytes at most here");
                Error::new(ErrorKind::LimitReached, address, problem)
                    .hint("the size is fixed when it is created (?size=)")
            }
            Problem::Cancelled => {
                Error::new(ErrorKind::System, address, "interrupted before it was ready")
            }
            Problem::Memory(error) if error.name() == "EIO" => match memory.missing() {
                Some(missing @ Missing::NoSpace) => {
                    let doing = "there is no room for its memory";
                    Error::system(address, doing, missing.error()).hint(
                        "its file has no room of its own, and the file system or a quota is full (df says of which): make \
                         room there and open it again, or have who makes the file reserve it (fallocate)",
                    )
                }
                Some(Missing::Unreadable) => {
                    Error::system(address, "its file cannot be read", error)
                        .hint("the disk or the file system fails: see dmesg")
                }
                _ => Error::system(address, "its memory was cut short", error)
                    .hint("somebody truncated it; remove it, and create it anew"),
            },
            Problem::Memory(error) => Error::system(address, "cannot use the memory", error),
        }
    }
}

/// Bytes of an object for this address.
pub(crate) fn object_bytes(address: &Address) -> u64 {
    let size = address.query.size_bytes.unwrap_or(DEFAULT_BYTES);
    match address.query.layout.unwrap_or_default() {
        Layout::Slots => slots::object_bytes(size),
        Layout::Bare => u64::from(size),
    }
}

/// Makes memory ready that was made just now for an address: it is known to be all zeroes.
pub(crate) fn prepare_new(address: &Address, memory: &StateMemory) -> Result<(), Error> {
    if address.query.layout.unwrap_or_default() == Layout::Bare {
        return Ok(());
    }
    let state = State::at(address.clone(), Options::default());
    let prepared = Geometry::prepare_new(memory, address.query.size_bytes);
    prepared.map(drop).map_err(|problem| state.explain(problem, memory))
}

/// The process that says it is the writer of this memory.
pub(crate) fn writer_of(memory: &StateMemory) -> Option<u32> {
    slots::writer(memory)
}

const DEFAULT_BYTES: u32 = 4096;
