//! `switchboard lock NAME -- COMMAND`: runs a command while nobody else has the lock of that name.
//!
//! The lock is held by this process, in robust mutexes: the kernel lets go of it when this process dies. The
//! command dies with this process, a moment later; so it has a mark of its own, which the next holder waits
//! for ([`presence`]).

mod name;
mod presence;
mod signals;

use std::ffi::OsString;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use switchboard_kernel as kernel;
use switchboard_kernel::ErrorKind;
use switchboard_kernel::io::{self, Deadline};
use switchboard_kernel::process::{Child, Spawn, file_limit, inherited_descriptor};
use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{Permits, ReadGuard, RwLock, Shared, WriteGuard};

use self::name::LockName;
use self::presence::Kind;
use self::signals::Signals;
use super::with_examples;
use crate::endpoint;
use crate::exit_code::Exit;
use crate::output::{self, Failure, Outcome, system};
use crate::program;

#[derive(Args, Debug)]
struct Arguments {
    /// What to lock, as backup, sync:backup or /dev/shm/backup?mode=0660&group=robots
    name: String,
    /// Let others in that lock with --shared, too
    #[arg(long, conflicts_with = "slots")]
    shared: bool,
    /// Let in so many at a time
    #[arg(long, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(Permits::MAX)))]
    slots: Option<u32>,
    /// Give up when the lock is not to be had for so long, as 500ms or 2s
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    timeout: Option<Duration>,
    /// Give up at once when others have the lock
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    /// The exit code when the lock was not to be had
    #[arg(long, value_name = "NUMBER", default_value_t = u8::from(Exit::Nothing))]
    conflict_exit_code: u8,
    /// Run this with the lock; its exit code is the one of this command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("lock"));
    with_examples(
        command
            .about("Run a command while nobody else has the lock of a name")
            .long_about(
                "Run a command while nobody else has the lock of a name.\n\nA plain name is of this user \
                 alone; a path that begins with / is a file for several users, in a folder on a tmpfs, \
                 and takes ?mode=, ?group= and ?owner=. The name is there while somebody uses it. Rust programs \
                 take the same lock by sync::RwLock, with RwLock::READERS, and --slots by sync::Permits.\
                 \n\nThe lock is free again when COMMAND has ended, or when COMMAND, this command or both \
                 are killed. SIGINT, SIGTERM and SIGHUP are passed on to COMMAND. The exit code is that \
                 of COMMAND, 128 and the signal's number if a signal ended it; without COMMAND having run, \
                 2 if it is not there or the name is wrong, --conflict-exit-code (3) if others have the \
                 lock, 5 if the name is not allowed to this user, 1 for all else.",
            ),
        "  switchboard lock backup -- ./backup --all
  switchboard lock --no-wait --conflict-exit-code 0 hourly -- ./report
  switchboard lock --shared --timeout 10s /dev/shm/press -- ./print page
  switchboard lock --slots 4 'sync:/dev/shm/gpu?mode=0660&group=robots' -- ./train",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    // Before this process opens any of its own.
    let passed_on = inherited().map_err(|error| system("cannot pass on descriptors", error))?;
    let arguments = Arguments::from_arg_matches(matches)?;
    let name: LockName = arguments.name.parse()?;
    program::must_be_there(&arguments.command)?;
    let signals =
        Signals::take_over().map_err(|error| system("cannot watch for signals", error))?;
    let object = match arguments.slots {
        Some(slots) => Permits::named(name.name(), slots).map(Object::Slots),
        None => RwLock::named(name.name(), RwLock::READERS).map(Object::ReadWrite),
    };
    let object = object.map_err(|error| cannot_open(&name, error))?;
    let locking = Locking { arguments: &arguments, name: &name, signals: &signals };
    let held = locking.lock(&object)?;
    let status = locking.run(&object, passed_on)?;
    drop(held);
    Ok(Exit::Given(code_of(status)))
}

/// What the name is of.
enum Object {
    ReadWrite(RwLock),
    Slots(Permits),
}

impl Object {
    fn memory(&self) -> &SharedWords {
        match self {
            Self::ReadWrite(lock) => lock.memory(),
            Self::Slots(permits) => permits.memory(),
        }
    }
}

/// The lock, whichever it is. Dropping it unlocks.
type Held<'a> = Box<dyn Debug + 'a>;

struct Locking<'a> {
    arguments: &'a Arguments,
    name: &'a LockName,
    signals: &'a Signals,
}

impl Locking<'_> {
    fn lock<'o>(&self, object: &'o Object) -> Result<Held<'o>, Failure> {
        let deadline = Deadline::from_timeout(self.arguments.timeout);
        match self.take(object, None) {
            Err(error) if error.name() == "EBUSY" && !self.arguments.no_wait => {}
            other => return other.map_err(|error| self.not_locked(error)),
        }
        if output::is_watched() {
            output::note(&format!("waiting for {}: others have it", self.name));
        }
        let wait = || self.take(object, Some(deadline));
        let abandon = || {
            self.interrupted().report();
            self.name.name().leave(object.memory());
        };
        match self.signals.interruptible(wait, abandon).map_err(cannot_wait)? {
            Some(taken) => taken.map_err(|error| self.not_locked(error)),
            None => Err(self.interrupted()),
        }
    }

    fn take<'o>(&self, object: &'o Object, patience: Option<Deadline>) -> kernel::Result<Held<'o>> {
        match (object, patience) {
            (Object::Slots(permits), None) => Ok(Box::new(permits.try_acquire()?)),
            (Object::Slots(permits), Some(until)) => Ok(Box::new(permits.acquire_until(until)?)),
            (Object::ReadWrite(lock), _) if self.arguments.shared => {
                Ok(Box::new(self.read(lock, patience)?))
            }
            (Object::ReadWrite(lock), _) => Ok(Box::new(self.write(lock, patience)?)),
        }
    }

    fn write<'o>(
        &self,
        lock: &'o RwLock,
        patience: Option<Deadline>,
    ) -> kernel::Result<WriteGuard<'o>> {
        let locked = match patience {
            None => lock.try_write()?,
            Some(until) => lock.write_until(until)?,
        };
        locked.or_repair(|| {
            let message = "the last holder was killed while it had the lock";
            output::warn(&format!("{}: {message}: what it did may be half done", self.name));
        })
    }

    fn read<'o>(
        &self,
        lock: &'o RwLock,
        patience: Option<Deadline>,
    ) -> kernel::Result<ReadGuard<'o>> {
        loop {
            let locked = match patience {
                None => lock.try_read(),
                Some(until) => lock.read_until(until),
            };
            match locked {
                // Only a writer can say that things are in order again.
                Err(error) if error.name() == "EOWNERDEAD" => drop(self.write(lock, patience)?),
                other => return other,
            }
        }
    }

    /// With the lock: runs the command to its end.
    fn run(&self, object: &Object, passed_on: Vec<(i32, OwnedFd)>) -> Result<ExitStatus, Failure> {
        let cannot_mark = |error| system(&format!("{}: cannot mark", self.name), error);
        let file = presence::open(object.memory()).map_err(cannot_mark)?;
        let kind = match self.arguments.slots {
            Some(slots) => Kind::Slot(slots),
            None if self.arguments.shared => Kind::Reader,
            None => Kind::Writer,
        };
        let (mark, is_clear) = presence::mark(&file, kind).map_err(cannot_mark)?;
        if !is_clear {
            let rest =
                "the command of a holder that was killed, or something it started, still runs";
            output::warn(&format!("{}: {rest}; it is waited for no longer", self.name));
        }
        let copy = io::duplicate(&file).map_err(cannot_mark)?;
        let command = &self.arguments.command;
        let mut child = start(command, self.name, copy, passed_on)
            .map_err(|error| system(&format!("cannot run {}", program::name_of(command)), error))?;
        let status = self.signals.pass_on_until_end(&mut child).map_err(cannot_wait)?;
        // Said, not only closed: something that the command started and left may have a copy.
        drop(mark);
        Ok(status)
    }

    fn not_locked(&self, error: kernel::Error) -> Failure {
        let name = self.name;
        let taken = match self.arguments.slots {
            Some(1) => "the slot is taken".to_owned(),
            Some(slots) => format!("all {slots} slots are taken"),
            None => "others have the lock".to_owned(),
        };
        let message = match error.name() {
            "EBUSY" => format!("{name}: {taken}, and waiting was not wanted"),
            "ETIMEDOUT" => {
                let limit = self.arguments.timeout.unwrap_or_default();
                format!("{name}: {taken}, for {limit:?} by now")
            }
            "ENOTRECOVERABLE" => {
                let message = "a program that was to put right what a killed holder left gave up";
                return Failure::new(Exit::Failed, format!("{name}: {message}"))
                    .hint("the name can be used again when all who use it have ended");
            }
            _ => return system(&format!("{name}: cannot lock"), error),
        };
        Failure::new(Exit::Given(self.arguments.conflict_exit_code), message)
            .adding(&self.was_not_run())
    }

    fn interrupted(&self) -> Failure {
        let message = format!("interrupted: {} was not locked", self.name);
        Failure::new(Exit::Failed, message).adding(&self.was_not_run())
    }

    fn was_not_run(&self) -> String {
        format!("{} was not run", program::name_of(&self.arguments.command))
    }
}

fn cannot_open(name: &LockName, error: kernel::Error) -> Failure {
    match (error.name(), error.kind()) {
        ("EINVAL", _) => {
            let message = "used in another way: with another number of --slots, with none, as another \
                           kind of object; or it is a file that is no lock";
            Failure::new(Exit::Failed, format!("{name}: {message}"))
                .hint("all who use a name at a time use it alike; choose another name")
        }
        ("EXDEV", _) => {
            let message =
                "made in another PID namespace (container), whose processes are not known here";
            Failure::new(Exit::Failed, format!("{name}: {message}"))
        }
        // Not `Nothing`: that is for others who have the lock, and scripts go by it.
        (_, ErrorKind::NotFound) => Failure::new(Exit::Failed, format!("{name}: {error}"))
            .hint("the folder has to be there"),
        (_, ErrorKind::PermissionDenied) => Failure::new(Exit::Refused, format!("{name}: {error}"))
            .hint(
                "whoever shall use the lock needs to read and write its file: ?mode=0660&group=…",
            ),
        _ => system(&format!("{name}: cannot open"), error),
    }
}

fn cannot_wait(error: kernel::Error) -> Failure {
    system("cannot wait", error)
}

/// The descriptors that this process was started with, besides standard input, output and error.
fn inherited() -> kernel::Result<Vec<(i32, OwnedFd)>> {
    let Ok(listed) = std::fs::read_dir("/proc/self/fd") else { return Ok(Vec::new()) };
    let numbers = listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let numbers: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    // That of the listing is closed by now, and nothing else was opened.
    let is_open = |number: &i32| {
        Path::new("/proc/self/fd").join(number.to_string()).symlink_metadata().is_ok()
    };
    let open: Vec<i32> = numbers.into_iter().filter(is_open).collect();
    open.into_iter().map(|number| Ok((number, inherited_descriptor(number)?))).collect()
}

/// Starts the command, with what this process was started with and a copy of its mark.
fn start(
    command: &[OsString],
    name: &LockName,
    mark: OwnedFd,
    passed_on: Vec<(i32, OwnedFd)>,
) -> kernel::Result<Child> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(kernel::Error::from_raw("execve", 2));
    };
    let limit = i32::try_from(file_limit().0).unwrap_or(i32::MAX);
    let is_free = |number: &i32| passed_on.iter().all(|(taken, _)| taken != number);
    // Scripts use the low ones.
    let number = (10..limit).find(is_free).or_else(|| (3..limit.min(10)).find(is_free));
    let mut spawn = Spawn::new(program)
        .args(arguments)
        .env("SWITCHBOARD_ADDRESS", name.to_string())
        .die_with_parent();
    if let Some(number) = number {
        spawn = spawn.descriptor(number, mark);
    }
    for (number, fd) in passed_on {
        spawn = spawn.descriptor(number, fd);
    }
    spawn.spawn()
}

/// The exit code of a program as shells give it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::from(Exit::Failed))
}
