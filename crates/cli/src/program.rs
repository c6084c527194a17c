//! A program that is run for each message, event or value, with its bytes on standard input.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use switchboard_kernel as kernel;
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::pipe;
use switchboard_kernel::process::{Child, Spawn, find_program};

use crate::exit_code::Exit;
use crate::interrupt::{Interrupt, wait_for};
use crate::output::{self, Failure, system};

/// A program has so long to end after SIGTERM when this process is interrupted.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Looks a command's program up, before anything is taken for it. No command is fine.
///
/// # Errors
/// Exit 2: it is not there, or may not be run.
pub(crate) fn must_be_there(command: &[OsString]) -> Result<(), Failure> {
    let Some(program) = command.first() else { return Ok(()) };
    let found = find_program(program);
    found.map(drop).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot run {}: {error}", name_of(command)))
    })
}

/// Starts a program with these bytes on its standard input, or with this process's own input. It is
/// killed when this process dies. The bytes stay the caller's when it cannot be started.
pub(crate) fn start(
    command: &[OsString],
    environment: &[(&str, String)],
    input: Option<&mut Vec<u8>>,
) -> kernel::Result<Child> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(kernel::Error::from_raw("execve", 2));
    };
    let mut spawn = Spawn::new(program).args(arguments).die_with_parent();
    for (name, value) in environment {
        spawn = spawn.env(*name, value);
    }
    let Some(input) = input else { return spawn.spawn() };
    let (reader, writer) = pipe::pipe()?;
    let spawn = spawn.stdin(reader);
    if pipe::grow(&writer, input.len()) >= input.len() {
        // It fits into the pipe: written whole before anybody reads.
        io::write_all(&writer, input)?;
        drop(writer);
        return spawn.spawn();
    }
    let mut child = spawn.spawn()?;
    // What is fed to nobody would end too early for the program, which must not see that.
    feed(writer, std::mem::take(input)).inspect_err(|_| {
        let _ = child.kill();
    })?;
    Ok(child)
}

/// Runs a program to its end. What it is run for is said in messages, as "event 3".
///
/// # Errors
/// When it cannot be started, or this process is interrupted: then the program is ended.
pub(crate) fn run(
    command: &[OsString],
    environment: &[(&str, String)],
    mut input: Option<Vec<u8>>,
    interrupt: &Interrupt,
    what: &str,
) -> Result<Exit, Failure> {
    let name = name_of(command);
    let mut child = start(command, environment, input.as_mut())
        .map_err(|error| system(&format!("cannot run {name}"), error))?;
    let cannot_wait = |error| system("cannot wait", error);
    if !wait_for(child.pidfd(), Interest::Readable, interrupt).map_err(cannot_wait)? {
        child.terminate(GRACE).map_err(cannot_wait)?;
        return Err(interrupt.failure(&format!("{what}: {name} was not finished")));
    }
    match child.wait(Deadline::NEVER).map_err(cannot_wait)? {
        Some(status) if !status.success() => {
            output::warn(&format!("{what}: {name} {}", ended(status)));
            Ok(Exit::Failed)
        }
        _ => Ok(Exit::Done),
    }
}

/// How a program ended, in words.
pub(crate) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// A program's name, safe to show.
pub(crate) fn name_of(command: &[OsString]) -> String {
    command.first().map(|name| output::shown(&name.to_string_lossy())).unwrap_or_default()
}

/// A word as a shell has to be given it. What would not be seen on a terminal is written in digits, as bash, zsh and POSIX of 2024 read them.
pub(crate) fn for_a_shell(word: &OsStr) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+=./:,@%".contains(byte);
    let bytes = word.as_bytes();
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return word.to_string_lossy().into_owned();
    }
    match word.to_str() {
        Some(text) if switchboard_inspect::text::tamed(text.to_owned()) == text => {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
        _ => {
            let escaped = |&byte: &u8| match byte {
                b'\'' | b'\\' => format!("\\{}", char::from(byte)),
                b' '..=b'~' => char::from(byte).to_string(),
                _ => format!("\\{byte:03o}"),
            };
            format!("$'{}'", bytes.iter().map(escaped).collect::<String>())
        }
    }
}

/// Writes what does not fit into the pipe, while the program reads it.
fn feed(writer: OwnedFd, bytes: Vec<u8>) -> kernel::Result<()> {
    let write = move || {
        // A program that does not want all of it says so by closing.
        let _ = io::write_all(&writer, &bytes);
    };
    let thread = std::thread::Builder::new().spawn(write);
    thread.map(drop).map_err(|error| {
        kernel::Error::from_raw("pthread_create", error.raw_os_error().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        for (word, expected) in [
            (&b"/run/a-b_1.sock"[..], "/run/a-b_1.sock"),
            (b"", "''"),
            (b"a b", "'a b'"),
            (b"it's", "'it'\\''s'"),
            (b"$(x) `y` \\ \"", "'$(x) `y` \\ \"'"),
            ("grün".as_bytes(), "'grün'"),
            (b"a\n'\x1b\\1\xff", "$'a\\012\\'\\033\\\\1\\377'"),
        ] {
            let word = OsStr::from_bytes(word);
            assert_eq!(for_a_shell(word), expected);
            let script = format!("printf %s {}", for_a_shell(word));
            // The other shells read it the same way, where they are new enough.
            let Ok(said) = std::process::Command::new("bash").args(["-c", &script]).output() else {
                continue;
            };
            assert_eq!(said.stdout, word.as_bytes(), "{script}");
        }
    }
}
