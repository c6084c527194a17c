//! One process on its way through the operation, instruction by instruction.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;

use nix::libc::user_regs_struct as Registers;

use super::attach::{attached, end, is_mark};
use super::code::{Code, Instruction};
use super::course::Spot;
use super::mark::END;
use super::memory::{Found, Mappings, Objects};
use super::tracee::{Stop, Tracee};
use super::{Access, Boundary, Call, Kind, Place};
use crate::{Child, DEADLINE};

/// Code that was decoded on an earlier way, and the layout that it is for.
#[derive(Default)]
pub(super) struct Decoded {
    code: Code,
    layout: Mappings,
}

/// How a way at full speed went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    There,
    /// It came to the end before.
    End,
    /// The machine cannot do it.
    Refused,
}

/// A process that is stepped. Killed on drop.
pub(super) struct Walk<'a> {
    child: Child,
    tracee: Tracee,
    who: &'static str,
    objects: Objects,
    decoded: &'a mut Decoded,
    registers: Registers,
    next: Rc<Instruction>,
    at_end: bool,
    number: usize,
    event: usize,
    changed: bool,
    loaded: bool,
    ended: Option<Call>,
    blocked: Option<Call>,
    /// It sleeps no more, because it was interrupted to be stopped.
    interrupted: bool,
    /// To be delivered with the next instruction.
    signal: Option<i32>,
    steps: u64,
    accesses: Vec<(Access, bool)>,
    let_go: bool,
}

impl<'a> Walk<'a> {
    /// Waits until a child has come to [`super::begin`]: boundary 0.
    pub(super) fn start(
        who: &'static str,
        mut child: Child,
        objects: &[PathBuf],
        decoded: &'a mut Decoded,
    ) -> Result<Self, String> {
        let tracee = attached(&mut child)?;
        let trouble = |error: io::Error| format!("cannot trace: {error}");
        let mut objects =
            Objects::of(objects).map_err(|error| format!("shared memory: {error}"))?;
        let layout = Mappings::read(child.id(), &mut objects).map_err(trouble)?;
        decoded.adopt(layout);
        let mut walk = Self {
            registers: tracee.registers().map_err(trouble)?,
            child,
            tracee,
            who,
            objects,
            decoded,
            next: Rc::default(),
            at_end: false,
            number: 0,
            event: 0,
            changed: false,
            loaded: false,
            ended: None,
            blocked: None,
            interrupted: false,
            signal: None,
            steps: 0,
            accesses: Vec::new(),
            let_go: false,
        };
        walk.look().map_err(trouble)?;
        Ok(walk)
    }

    /// Where it is.
    pub(super) fn here(&self) -> Boundary {
        Boundary {
            number: self.number,
            who: self.who,
            place: self.place(),
            changed: self.changed,
            loaded: self.loaded,
            ended: self.ended,
            begins: self.begins(),
            blocked: self.blocked,
            end: self.at_end,
            after: None,
        }
    }

    /// The address of the next instruction.
    pub(super) fn address(&self) -> u64 {
        self.registers.rip
    }

    fn place(&self) -> Place {
        self.decoded.layout.place(self.registers.rip)
    }

    /// Whether it has come to [`super::end`].
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Which event this boundary is, if it is one ([`Boundary::is_event`]).
    pub(super) fn event(&self) -> Option<usize> {
        self.is_event().then_some(self.event)
    }

    /// How many events there were, this boundary's not counted.
    pub(super) fn events_before(&self) -> usize {
        self.event
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// What the last instruction did to shared memory, and whether it did so for certain.
    pub(super) fn accesses(&mut self) -> Vec<(Access, bool)> {
        std::mem::take(&mut self.accesses)
    }

    /// Whether the last instruction was a system call whose deadline had passed. A victim that is stepped
    /// may be so slow that it never sleeps.
    pub(super) fn has_timed_out(&self) -> bool {
        const TIMED_OUT: u64 = (-(nix::errno::Errno::ETIMEDOUT as i64)).cast_unsigned();
        self.ended.is_some() && self.registers.rax == TIMED_OUT
    }

    /// On to the next boundary. Not when it is blocked.
    pub(super) fn step(&mut self) -> Result<(), String> {
        self.try_step().map_err(|error| self.lost(&error))?
    }

    /// From the beginning to a boundary, at full speed. `help` is called each time it sleeps.
    pub(super) fn run_to(
        &mut self,
        number: usize,
        spot: &Spot,
        help: &mut dyn FnMut(),
    ) -> Result<Run, String> {
        let address = self.decoded.layout.address(&spot.here.place);
        let Some(address) = address.filter(|&address| {
            // A machine may have no debug registers to give.
            self.number == 0 && self.tracee.break_at(Some(address)).is_ok()
        }) else {
            return Ok(Run::Refused);
        };
        let run = self.try_run(address, spot.times, help).map_err(|error| self.lost(&error))??;
        if run == Run::There {
            self.number = number;
            self.event = spot.events_before;
            self.changed = spot.here.changed;
            self.loaded = spot.here.loaded;
            self.ended = spot.here.ended;
        }
        Ok(run)
    }

    /// To the end, at full speed. `help` is called each time it sleeps. Not when it is blocked.
    pub(super) fn run_to_end(&mut self, help: &mut dyn FnMut()) -> Result<(), String> {
        if self.at_end {
            return Ok(());
        }
        let nowhere = u64::MAX;
        self.try_run(nowhere, 1, help).map_err(|error| self.lost(&error))?.map(|_| ())
    }

    /// It is blocked, and somebody has helped it on: to the boundary after the system call.
    pub(super) fn wake(&mut self) -> Result<(), String> {
        self.try_wake().map_err(|error| self.lost(&error))?
    }

    /// It stays here. Only needed where it sleeps: elsewhere it stays until it is stepped.
    pub(super) fn hold(&mut self) -> Result<(), String> {
        if self.blocked.is_none() {
            return Ok(());
        }
        let held = self.tracee.interrupt().and_then(|()| self.tracee.wait());
        match held.map_err(|error| self.lost(&error))? {
            Stop::Gone(how) => Err(self.gone(&how)),
            Stop::Signal(signal) => {
                self.signal = Some(signal);
                self.interrupted = true;
                Ok(())
            }
            _ => {
                self.interrupted = true;
                Ok(())
            }
        }
    }

    /// At the end: lets it exit, which it must do with code 0.
    pub(super) fn let_go(mut self) -> Result<(), String> {
        self.tracee.detach().map_err(|error| self.lost(&error))?;
        self.let_go = true;
        match self.child.wait_within(DEADLINE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the {} ended with {status}", self.who)),
            None => Err(format!("the {} does not end", self.who)),
        }
    }

    fn try_step(&mut self) -> io::Result<Result<(), String>> {
        let (before, call, was_event) = (self.registers.rip, self.begins(), self.is_event());
        let stores = self.note_accesses();
        self.tracee.step(self.signal.take())?;
        self.steps += 1;
        let stop = match call {
            None => self.tracee.wait()?,
            Some(_) => match self.tracee.wait_in_system_call()? {
                Some(stop) => stop,
                None => {
                    self.arrive(was_event, false, None);
                    self.blocked = call;
                    return Ok(Ok(()));
                }
            },
        };
        match stop {
            Stop::Gone(how) => return Ok(Err(self.gone(&how))),
            Stop::Signal(signal) => self.signal = Some(signal),
            Stop::Step | Stop::SystemCall | Stop::Interrupted => {}
        }
        self.look()?;
        if self.registers.rip == before && stop != Stop::Step {
            self.accesses.clear();
            return Ok(Ok(()));
        }
        let changed = self.note_changes(stores);
        if call.is_some_and(Call::maps) {
            self.decoded.adopt(Mappings::read(self.child.id(), &mut self.objects)?);
        }
        self.arrive(was_event, changed, call);
        Ok(Ok(()))
    }

    fn try_run(
        &mut self,
        address: u64,
        times: usize,
        help: &mut dyn FnMut(),
    ) -> io::Result<Result<Run, String>> {
        let (mut left, mut is_in_call) = (times, false);
        let run = loop {
            self.tracee.to_system_call(self.signal.take())?;
            let stop = if is_in_call { self.woken(help)? } else { Some(self.tracee.wait()?) };
            match stop {
                None => return Ok(Err(format!("the {} still sleeps", self.who))),
                Some(Stop::Gone(how)) => return Ok(Err(self.gone(&how))),
                Some(Stop::Signal(signal)) => self.signal = Some(signal),
                Some(Stop::Interrupted) => {}
                Some(Stop::SystemCall) => {
                    is_in_call = !is_in_call;
                    let registers = self.tracee.registers()?;
                    let (call, memory) = (registers.orig_rax, self.tracee.memory());
                    if is_in_call && is_mark(&registers, call, END.to_bytes(), memory) {
                        self.at_end = true;
                        break Run::End;
                    }
                }
                Some(Stop::Step) => {
                    left -= usize::from(self.tracee.registers()?.rip == address);
                    if left == 0 {
                        self.look()?;
                        break Run::There;
                    }
                }
            }
        };
        self.tracee.break_at(None)?;
        Ok(Ok(run))
    }

    /// In a system call: waits until it stops, and has it helped on if it sleeps.
    fn woken(&mut self, help: &mut dyn FnMut()) -> io::Result<Option<Stop>> {
        let stop = self.tracee.wait_in_system_call()?;
        if stop.is_some() {
            return Ok(stop);
        }
        help();
        self.tracee.wait_within_deadline()
    }

    fn try_wake(&mut self) -> io::Result<Result<(), String>> {
        let (call, before) = (self.blocked, self.registers.rip);
        if std::mem::take(&mut self.interrupted) {
            self.tracee.step(self.signal.take())?;
        }
        loop {
            match self.tracee.wait_within_deadline()? {
                None => return Ok(Err(format!("the {} still sleeps: {}", self.who, self.here()))),
                Some(Stop::Gone(how)) => return Ok(Err(self.gone(&how))),
                Some(Stop::Signal(signal)) => self.signal = Some(signal),
                Some(Stop::Step | Stop::SystemCall | Stop::Interrupted) => {}
            }
            self.look()?;
            if self.registers.rip != before && self.registers.rax.cast_signed() > -512 {
                break;
            }
            // It was interrupted, and the kernel begins the system call again.
            self.tracee.step(self.signal.take())?;
        }
        self.arrive(true, false, call);
        Ok(Ok(()))
    }

    /// At the next boundary, after one that was an event or not.
    fn arrive(&mut self, was_event: bool, changed: bool, ended: Option<Call>) {
        self.event += usize::from(was_event);
        self.loaded = self.accesses.iter().any(|(access, _)| access.kind != Kind::Store);
        self.number += 1;
        self.changed = changed;
        self.ended = ended;
        self.blocked = None;
    }

    fn is_event(&self) -> bool {
        let call = self.ended.or(self.blocked).or(self.begins());
        self.number == 0 || self.changed || call.is_some()
    }

    /// The system call that the next instruction is.
    fn begins(&self) -> Option<Call> {
        let begins = self.next.is_system_call && self.blocked.is_none() && !self.at_end;
        begins.then_some(Call(self.registers.rax))
    }

    /// Reads where it is now.
    fn look(&mut self) -> io::Result<()> {
        self.registers = self.tracee.registers()?;
        let memory = self.tracee.memory();
        // Where there is no code, it will be told by a signal.
        self.next = self.decoded.code.at(self.registers.rip, memory).unwrap_or_default();
        self.at_end = self.next.is_system_call
            && is_mark(&self.registers, self.registers.rax, END.to_bytes(), memory);
        Ok(())
    }

    fn lost(&self, error: &io::Error) -> String {
        format!("the {} cannot be traced any more: {error}", self.who)
    }

    fn gone(&self, how: &str) -> String {
        format!("the {} ended before its operation did: {how}", self.who)
    }
}

/// Memory that an instruction is about to write, as it is before.
struct Before {
    access: usize,
    address: u64,
    bytes: Vec<u8>,
}

impl Walk<'_> {
    /// What the next instruction will do to shared memory.
    fn note_accesses(&mut self) -> Vec<Before> {
        let mut stores = Vec::new();
        let instruction = Rc::clone(&self.next);
        for operand in &instruction.operands {
            let Some(address) = operand.address(&self.registers) else { continue };
            let found = self.decoded.layout.shared_at(address, operand.len_bytes);
            let Some(Found { object, offset, path }) = found else { continue };
            if operand.kind.writes() {
                let bytes = read(self.tracee.memory(), address, operand.len_bytes);
                stores.push(Before { access: self.accesses.len(), address, bytes });
            }
            let access = Access {
                object,
                file: path,
                offset_bytes: offset,
                len_bytes: operand.len_bytes,
                kind: operand.kind,
                changed: false,
                place: self.place(),
            };
            self.accesses.push((access, operand.is_certain));
        }
        stores
    }

    /// Whether the instruction changed any of it.
    fn note_changes(&mut self, stores: Vec<Before>) -> bool {
        let mut any = false;
        for Before { access, address, bytes } in stores {
            let changed = read(self.tracee.memory(), address, bytes.len()) != bytes;
            any |= changed;
            if let Some((access, _)) = self.accesses.get_mut(access) {
                access.changed = changed;
            }
        }
        any
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        if !self.let_go {
            end(&self.child, &self.tracee);
        }
    }
}

impl Decoded {
    fn adopt(&mut self, layout: Mappings) {
        if !self.layout.has_code_of(&layout) {
            self.code.clear();
        }
        self.layout = layout;
    }
}

fn read(memory: &File, address: u64, len_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; len_bytes];
    let len = memory.read_at(&mut bytes, address).unwrap_or(0);
    bytes.truncate(len);
    bytes
}
