//! `set` where a value lives as long as its writer: it stays.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use serde_json::json;
use switchboard::pattern::state::Writer;
use switchboard::{Address, ErrorKind, Options, State, WaitError};
use switchboard_kernel::io::{self, Deadline, Interest};

use super::{Arguments, LOOK_AGAIN, is_over, read_all};
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::output::{Failure, Outcome, counted, note, print_json, system};
use crate::standard_streams::require_stdin;

pub(super) fn run(arguments: &Arguments, address: &Address, interrupt: &Interrupt) -> Outcome {
    // Another writer may be waited for, and values read: for nothing, if the key cannot be.
    State::at(address.clone(), Options::default()).check_key(&arguments.key)?;
    if arguments.pairs || arguments.value.is_none() {
        require_stdin()?;
    }
    let mut writer = open(address, arguments, interrupt)?;
    if arguments.pairs {
        set_pairs(&mut writer, interrupt)?;
    } else {
        let value = match &arguments.value {
            Some(value) => value.clone().into_vec(),
            None => read_all(address, interrupt, "a value", "nothing was set")?,
        };
        set(&mut writer, &arguments.key, &value, arguments, interrupt)?;
        if arguments.json {
            let version = writer.version();
            print_json(&json!({
                "address": arguments.address, "key": arguments.key,
                "len_bytes": value.len(), "version": version,
            }))?;
        }
    }
    match writer.serve(arguments.stay) {
        Ok(()) => Ok(Exit::Done),
        Err(WaitError::Failed(error)) => Err(error.into()),
        // A signal is how this ends.
        Err(_) => Ok(Exit::Done),
    }
}

fn open(
    address: &Address,
    arguments: &Arguments,
    interrupt: &Interrupt,
) -> Result<Writer, Failure> {
    let options = Options::default().cancel(Some(interrupt.cancel()));
    let state = State::at(address.clone(), options);
    until_free(arguments, interrupt, || state.writer())
}

fn set(
    writer: &mut Writer,
    key: &str,
    value: &[u8],
    arguments: &Arguments,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    until_free(arguments, interrupt, || writer.set_key(key, value))
}

/// Tries again while another process is the writer, as long as that is wanted.
fn until_free<T>(
    arguments: &Arguments,
    interrupt: &Interrupt,
    mut attempt: impl FnMut() -> Result<T, switchboard::Error>,
) -> Result<T, Failure> {
    let deadline = Deadline::from_timeout(arguments.timeout);
    let mut told = !crate::output::is_watched();
    loop {
        let error = match attempt() {
            Err(error) if error.kind() == ErrorKind::AddressInUse && !arguments.no_wait => error,
            result => return Ok(result?),
        };
        if deadline.passed() {
            let message = format!("{error}, for {:?}", arguments.timeout.unwrap_or_default());
            return Err(Failure::new(Exit::Nothing, message));
        }
        if !std::mem::replace(&mut told, true) {
            note(&format!("waiting for the writer: {error}"));
        }
        let pause = deadline.min(Deadline::after(LOOK_AGAIN));
        let cancelled = io::wait_for(interrupt.fd(), Interest::Readable, pause);
        if cancelled.map_err(|error| system("cannot wait", error))? || is_over(interrupt) {
            return Err(interrupt.failure("nothing was set"));
        }
    }
}

/// Sets what comes on standard input, line by line, and lets readers in meanwhile.
fn set_pairs(writer: &mut Writer, interrupt: &Interrupt) -> Result<(), Failure> {
    let cannot_read = |error| system("cannot read standard input", error);
    let stdin = std::io::stdin();
    let (mut text, mut block) = (Vec::new(), vec![0; 64 << 10]);
    let mut number = 0_u64;
    loop {
        if is_over(interrupt) {
            return Err(interrupt.failure(&format!("{} set", counted(number, "value"))));
        }
        if !wait_for_line(writer, interrupt).map_err(cannot_read)? {
            writer.drive()?;
            continue;
        }
        let read = io::read(&stdin, &mut block).map_err(cannot_read)?;
        text.extend_from_slice(&block[..read]);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            number += 1;
            set_pair(writer, &line[..end], number)?;
        }
        if read == 0 {
            return if text.is_empty() { Ok(()) } else { set_pair(writer, &text, number + 1) };
        }
        if text.len() > writer.capacity_bytes() + 256 {
            let message = format!("line {} of standard input is too long", number + 1);
            return Err(Failure::new(Exit::Failed, message));
        }
    }
}

/// Waits until standard input can be read; `false` where something else is to be done first.
fn wait_for_line(writer: &Writer, interrupt: &Interrupt) -> switchboard_kernel::Result<bool> {
    let stdin = std::io::stdin();
    let input = (stdin.as_fd(), Interest::Readable);
    let over = (interrupt.fd(), Interest::Readable);
    let readers = writer.descriptor().unwrap_or(interrupt.fd());
    let ready = io::poll([input, over, (readers, Interest::Readable)], Deadline::NEVER)?;
    Ok(ready[0].any() && !ready[1].any())
}

fn set_pair(writer: &mut Writer, line: &[u8], number: u64) -> Result<(), Failure> {
    let pair = line.iter().position(|byte| *byte == b'=');
    let pair = pair.and_then(|at| Some((std::str::from_utf8(&line[..at]).ok()?, &line[at + 1..])));
    let Some((key, value)) = pair else {
        let message = format!("line {number} of standard input is not KEY=VALUE");
        return Err(Failure::new(Exit::Failed, message));
    };
    Ok(writer.set_key(key, value)?)
}
