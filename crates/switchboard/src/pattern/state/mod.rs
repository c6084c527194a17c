//! `State`: the newest value, as bytes, for one writer and any number of readers.
//!
//! The value is in memory that both sides map, so reading and writing make no system call (setting
//! makes one, to wake watchers). It lives as long as its object: it does not need its writer.
//!
//! With the layout [`slots`](Layout::Slots) a reader always gets a value that was set, whole,
//! although the writer may be killed at any instruction; values may have any length up to the
//! capacity, and a change is never missed as such. With [`bare`](Layout::Bare) the memory holds
//! nothing but the bytes, so that any program can be the other side.

mod bare;
pub(crate) mod slots;

use std::time::Duration;

use switchboard_kernel::io::Deadline;

use crate::address::Address;
use crate::error::{Error, ErrorKind, WaitError};
use crate::message::{Bytes, Message};
use crate::options::Options;
use crate::transport::{Rhythm, Setup, StateEnds, StateMemory, WriterLock};
use slots::{Geometry, Problem};

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

    /// The writer: one at a time, which the kernel sees to. Makes the memory if it is not there
    /// (`?size=`, 4 KiB unless said otherwise), unless [`wait`](Options#structfield.wait) is off.
    ///
    /// # Errors
    /// `AddressInUse`: there is a writer, which is named; `NotFound`; `PermissionDenied`; `Mismatch`:
    /// the memory holds something else; limits by name; `System`: the
    /// [`cancel`](Options#structfield.cancel) descriptor became readable while large memory was looked at.
    pub fn writer(&self) -> Result<Writer, Error> {
        let setup = self.setup();
        let (memory, lock) = (self.ends()?.writer)(&setup)?;
        let wanted = self.address.query.size_bytes;
        let layout = self.layout();
        let slots = match layout {
            Layout::Slots => Geometry::prepare(&memory, wanted, || setup.is_cancelled())
                .and_then(|geometry| slots::Writer::new(&memory, geometry))
                .map(Some),
            Layout::Bare => match Geometry::read(&memory) {
                Ok(Some(_)) => Err(Problem::NotOurs("it holds a state with versions".into())),
                _ => Ok(None),
            },
        };
        let slots = slots.map_err(|problem| self.explain(problem))?;
        Ok(Writer { state: self.clone(), slots, memory, _lock: lock })
    }

    /// A reader. The memory has to be there; nothing has to be set yet.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied`; `Mismatch`: the memory holds something else.
    pub fn reader(&self) -> Result<Reader, Error> {
        let setup = self.setup();
        let memory = (self.ends()?.reader)(&setup)?;
        let seen = match self.layout() {
            Layout::Slots => Geometry::read(&memory).and_then(|geometry| {
                Ok(Seen::Slots { geometry, current: slots::current(&memory)? })
            }),
            Layout::Bare => bare::Seen::first(&memory).map_err(Problem::Memory).map(Seen::Bare),
        };
        let seen = seen.map_err(|problem| self.explain(problem))?;
        Ok(Reader { state: self.clone(), seen, memory, rhythm: Rhythm::new(&setup)?, setup })
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
        Setup { address, options, schema: Bytes::schema() }
    }

    fn ends(&self) -> Result<&'static StateEnds, Error> {
        let transport = self.address.transport();
        let ends = transport.carries.state.as_ref();
        ends.ok_or_else(|| transport.does_not_carry("state", &self.address))
    }

    fn explain(&self, problem: Problem) -> Error {
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
            Problem::Memory(error) if error.name() == "EIO" => {
                Error::system(address, "its memory was cut short", error)
                    .hint("somebody truncated it; remove it, and create it anew")
            }
            Problem::Memory(error) => Error::system(address, "cannot use the memory", error),
        }
    }
}

/// Sets the value. Closing it (dropping) leaves the value in place, and lets another writer in.
#[derive(Debug)]
pub struct Writer {
    state: State,
    /// None: bare.
    slots: Option<slots::Writer>,
    memory: StateMemory,
    /// Held for as long as this lives; the kernel releases it when this process dies.
    _lock: WriterLock,
}

impl Writer {
    /// Sets the value, and wakes who watches it. Never waits.
    ///
    /// If this process is killed meanwhile, readers have the value before (with
    /// [`Layout::Bare`], perhaps some bytes of each).
    ///
    /// # Errors
    /// `LimitReached`: longer than the [capacity](Self::capacity_bytes), and nothing was set;
    /// `System`: the file was cut short.
    pub fn set(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let result = match &mut self.slots {
            Some(writer) => writer.set(&self.memory, bytes),
            None => bare::set(&self.memory, bytes),
        };
        result.map_err(|problem| self.state.explain(problem))
    }

    /// `msync(2)`: waits until what was set is on the disk, so that it outlives a power cut. For
    /// memory that is in no file, this does nothing.
    ///
    /// # Errors
    /// `System`: writing failed.
    pub fn sync(&self) -> Result<(), Error> {
        self.memory.sync().map_err(|error| self.state.explain(Problem::Memory(error)))
    }

    /// The longest value, in bytes: fixed when the memory was made.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        let slots = self.slots.as_ref().map(|writer| writer.geometry().capacity() as usize);
        slots.unwrap_or_else(|| self.memory.len())
    }

    /// The version of the value that is set now; `None` with [`Layout::Bare`].
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.slots.as_ref().map(slots::Writer::version)
    }

    /// The address it writes to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.state.address
    }
}

#[derive(Debug)]
enum Seen {
    Slots {
        /// None: nobody has prepared the memory yet.
        geometry: Option<Geometry>,
        current: u32,
    },
    Bare(bare::Seen),
}

/// Reads the value. It cannot change it: its memory is mapped for reading only.
#[derive(Debug)]
pub struct Reader {
    state: State,
    setup: Setup,
    seen: Seen,
    memory: StateMemory,
    rhythm: Rhythm,
}

impl Reader {
    /// The value that is there now. Makes no system call, and does not wait for the writer.
    ///
    /// # Errors
    /// `Mismatch`: both slots are damaged, or the memory holds something else; `System`: the file was
    /// cut short.
    pub fn get(&mut self) -> Result<Value, Error> {
        let result = match &mut self.seen {
            Seen::Slots { geometry, current } => get_slots(&self.memory, geometry, current),
            Seen::Bare(seen) => {
                seen.look(&self.memory).map_err(Problem::Memory).map(|_| seen.value())
            }
        };
        result.map_err(|problem| self.state.explain(problem))
    }

    /// Waits until another value is set than this reader knows (by `get`, `watch`, or when it was
    /// opened), and gives it. Values in between may be missed.
    ///
    /// Watchers sleep on a futex and are woken at once; they look again every 50 ms, also for
    /// `cancel`. With [`Layout::Bare`] they look every 0.2 to 10 ms. Nothing tells that the
    /// writer died, or that somebody unlinked the memory.
    ///
    /// # Errors
    /// `Interrupted`; else as [`get`](Self::get).
    pub fn watch(&mut self) -> Result<Value, WaitError> {
        self.watch_until(Deadline::NEVER)
    }

    /// As [`watch`](Self::watch), for at most `timeout`.
    ///
    /// # Errors
    /// `TimedOut`; else as [`watch`](Self::watch).
    pub fn watch_timeout(&mut self, timeout: Duration) -> Result<Value, WaitError> {
        self.watch_until(Deadline::after(timeout))
    }

    /// The address it reads.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.state.address
    }

    fn watch_until(&mut self, deadline: Deadline) -> Result<Value, WaitError> {
        loop {
            if self.has_changed().map_err(|problem| self.state.explain(problem))? {
                return match &self.seen {
                    // What was looked at is the value.
                    Seen::Bare(seen) => Ok(seen.value()),
                    Seen::Slots { .. } => self.get().map_err(WaitError::Failed),
                };
            }
            if deadline.passed() {
                return Err(WaitError::TimedOut);
            }
            match &self.seen {
                Seen::Slots { current, .. } => {
                    self.check_cancel()?;
                    slots::sleep(&self.memory, *current, deadline)
                        .map_err(|error| self.state.explain(Problem::Memory(error)))?;
                }
                Seen::Bare(_) => {
                    self.rhythm.rest();
                    if !self.rhythm.wait(&self.setup, deadline)? {
                        return Err(WaitError::Interrupted);
                    }
                }
            }
        }
    }

    fn has_changed(&mut self) -> Result<bool, Problem> {
        match &mut self.seen {
            Seen::Slots { current, .. } => Ok(slots::current(&self.memory)? != *current),
            Seen::Bare(seen) => {
                let changed = seen.look(&self.memory)?;
                if changed {
                    self.rhythm.moved();
                }
                Ok(changed)
            }
        }
    }

    fn check_cancel(&self) -> Result<(), WaitError> {
        if self.setup.is_cancelled() { Err(WaitError::Interrupted) } else { Ok(()) }
    }
}

fn get_slots(
    memory: &StateMemory,
    geometry: &mut Option<Geometry>,
    current: &mut u32,
) -> Result<Value, Problem> {
    if geometry.is_none() {
        *geometry = Geometry::read(memory)?;
    }
    let Some(geometry) = geometry else {
        return Ok(Value { bytes: Vec::new(), version: 0, restored: false });
    };
    // Before the value: if another is set meanwhile, it counts as not seen.
    let word = slots::current(memory)?;
    let found = geometry.load(memory)?;
    *current = if found.restored { word } else { found.version as u32 };
    Ok(Value { bytes: found.bytes, version: found.version, restored: found.restored })
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
    prepared.map(drop).map_err(|problem| state.explain(problem))
}

/// The process that says it is the writer of this memory.
pub(crate) fn writer_of(memory: &StateMemory) -> Option<u32> {
    slots::writer(memory)
}

const DEFAULT_BYTES: u32 = 4096;
