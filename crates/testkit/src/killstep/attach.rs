//! From the start of a victim to its first mark, and its end.

use std::fs::File;
use std::io;

use nix::libc::{self, user_regs_struct as Registers};
use rustix::process::{Pid, Signal};

use super::mark::{BEGIN, GO, HERE};
use super::tracee::{Stop, Tracee, name_at};
use crate::Child;

/// Waits until a child has come to [`super::begin`], and traces the thread that did.
pub(super) fn attached(child: &mut Child) -> Result<Tracee, String> {
    let thread = loop {
        let line = child.line().ok_or("the process ended before its operation began")?;
        if let Some(thread) = line.strip_prefix(HERE) {
            break thread.parse::<i32>().map_err(|error| format!("{line}: {error}"))?;
        }
    };
    if u32::try_from(thread) == Ok(child.id()) {
        return Err("the operation is on the main thread, which is reaped by another".to_owned());
    }
    let tracee = Tracee::seize(child.id(), thread).map_err(|error| format!("ptrace: {error}"))?;
    let outcome = to_begin(child, &tracee);
    if outcome.is_err() {
        end(child, &tracee);
    }
    outcome.map(|()| tracee)
}

/// Kills it. Its traced thread has to be reaped here, before its parent can reap the process.
pub(super) fn end(child: &Child, tracee: &Tracee) {
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(process) = process {
        let _ = rustix::process::kill_process(process, Signal::KILL);
        tracee.wait_gone();
    }
}

/// Whether it is at `prctl(PR_SET_NAME, name)`.
pub(super) fn is_mark(registers: &Registers, call: u64, name: &[u8], memory: &File) -> bool {
    let is_set_name = i64::try_from(call) == Ok(libc::SYS_prctl)
        && i32::try_from(registers.rdi) == Ok(libc::PR_SET_NAME);
    is_set_name && name_at(memory, registers.rsi) == name
}

/// At full speed to where the first mark returns.
fn to_begin(child: &mut Child, tracee: &Tracee) -> Result<(), String> {
    let trouble = |error: io::Error| format!("cannot trace: {error}");
    tracee.interrupt().map_err(trouble)?;
    let mut is_begun = false;
    let mut is_told = false;
    loop {
        let mut signal = None;
        match tracee.wait().map_err(trouble)? {
            Stop::Gone(how) => return Err(format!("ended before its operation began: {how}")),
            Stop::SystemCall if is_begun => return Ok(()),
            Stop::SystemCall => {
                let registers = tracee.registers().map_err(trouble)?;
                let (call, memory) = (registers.orig_rax, tracee.memory());
                is_begun = is_mark(&registers, call, BEGIN.to_bytes(), memory);
            }
            Stop::Signal(number) => signal = Some(number),
            Stop::Step | Stop::Interrupted => {}
        }
        tracee.to_system_call(signal).map_err(trouble)?;
        if !std::mem::replace(&mut is_told, true) {
            child.tell(GO);
        }
    }
}
