//! A state in memory that both sides map: one value, which lives as long as the memory.

use switchboard_kernel::io::Deadline;

use super::slots::{self, Geometry, Problem};
use super::{Layout, State, Value, bare};
use crate::error::{Error, WaitError};
use crate::transport::{MemoryEnds, Rhythm, Setup, StateMemory, WriterLock};

/// Sets the value. Closing it (dropping) leaves the value in place, and lets another writer in.
#[derive(Debug)]
pub(super) struct MemoryWriter {
    state: State,
    slots: Option<slots::Writer>,
    memory: StateMemory,
    _lock: WriterLock,
}

impl MemoryWriter {
    pub(super) fn open(state: &State, ends: &MemoryEnds) -> Result<Self, Error> {
        let setup = state.setup();
        let (memory, lock) = (ends.writer)(&setup)?;
        let wanted = state.address.query.size_bytes;
        let layout = state.layout();
        let slots = match layout {
            Layout::Slots => Geometry::prepare(&memory, wanted, || setup.is_cancelled())
                .and_then(|geometry| slots::Writer::new(&memory, geometry))
                .map(Some),
            Layout::Bare => match Geometry::read(&memory) {
                Ok(Some(_)) => Err(Problem::NotOurs("it holds a state with versions".into())),
                _ => Ok(None),
            },
        };
        let slots = slots.map_err(|problem| state.explain(problem, &memory))?;
        Ok(Self { state: state.clone(), slots, memory, _lock: lock })
    }

    pub(super) fn set(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let result = match &mut self.slots {
            Some(writer) => writer.set(&self.memory, bytes),
            None => bare::set(&self.memory, bytes),
        };
        result.map_err(|problem| self.state.explain(problem, &self.memory))
    }

    pub(super) fn sync(&self) -> Result<(), Error> {
        self.memory.sync().map_err(|error| self.state.explain(Problem::Memory(error), &self.memory))
    }

    pub(super) fn capacity_bytes(&self) -> usize {
        let slots = self.slots.as_ref().map(|writer| writer.geometry().capacity() as usize);
        slots.unwrap_or_else(|| self.memory.len())
    }

    pub(super) fn version(&self) -> Option<u64> {
        self.slots.as_ref().map(slots::Writer::version)
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
pub(super) struct MemoryReader {
    state: State,
    setup: Setup,
    seen: Seen,
    memory: StateMemory,
    rhythm: Rhythm,
}

impl MemoryReader {
    pub(super) fn open(state: &State, ends: &MemoryEnds) -> Result<Self, Error> {
        let setup = state.setup();
        let memory = (ends.reader)(&setup)?;
        let seen = match state.layout() {
            Layout::Slots => Geometry::read(&memory).and_then(|geometry| {
                Ok(Seen::Slots { geometry, current: slots::current(&memory)? })
            }),
            Layout::Bare => bare::Seen::first(&memory).map_err(Problem::Memory).map(Seen::Bare),
        };
        let seen = seen.map_err(|problem| state.explain(problem, &memory))?;
        Ok(Self { state: state.clone(), seen, memory, rhythm: Rhythm::new(&setup)?, setup })
    }

    pub(super) fn get(&mut self) -> Result<Value, Error> {
        let result = match &mut self.seen {
            Seen::Slots { geometry, current } => get_slots(&self.memory, geometry, current),
            Seen::Bare(seen) => {
                seen.look(&self.memory).map_err(Problem::Memory).map(|_| seen.value())
            }
        };
        result.map_err(|problem| self.state.explain(problem, &self.memory))
    }

    pub(super) fn watch_until(&mut self, deadline: Deadline) -> Result<Value, WaitError> {
        loop {
            if self.has_changed().map_err(|problem| self.state.explain(problem, &self.memory))? {
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
                    slots::sleep(&self.memory, *current, deadline).map_err(|error| {
                        self.state.explain(Problem::Memory(error), &self.memory)
                    })?;
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
