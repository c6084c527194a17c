//! A process that works for `serve`: its pipes, read and written without blocking.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use switchboard_kernel as kernel;
use switchboard_kernel::ErrorKind;
use switchboard_kernel::epoll::Epoll;
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::pipe;
use switchboard_kernel::process::Spawn;

use super::Job;
use super::leaving::Group;
use crate::format::{Format, Found, LONGEST_ITEM_BYTES, Splitter, write};
use crate::program::ended;

/// Tokens of a process: its end, its input, its output.
pub(super) const TOKENS: u64 = 3;
/// Read in one go.
const READ_BYTES: usize = 64 << 10;
/// Read before it is looked at, from one that goes on printing: it may print for ever, faster than it is read.
const READ_MOST_BYTES: usize = 1 << 20;

/// What a process came to.
pub(super) enum Said {
    Nothing,
    /// A whole reply of one that stays.
    Reply(Vec<u8>),
    /// It ended: how, and what it had printed.
    End {
        succeeded: bool,
        how: String,
        printed: Vec<u8>,
    },
    /// What it printed is no reply.
    Nonsense(String),
}

pub(super) struct Worker {
    pub(super) job: Option<Job>,
    /// The process, and what it starts.
    group: Group,
    format: Format,
    token: u64,
    input: Option<OwnedFd>,
    /// The request, as far as it is not written.
    unwritten: Vec<u8>,
    watches_input: bool,
    output: Option<OwnedFd>,
    printed: Vec<u8>,
    splitter: Splitter,
}

impl Worker {
    pub(super) fn start(
        command: &[OsString],
        environment: &[(&str, &str)],
        format: Format,
        token: u64,
        epoll: &Epoll,
    ) -> kernel::Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(kernel::Error::from_raw("execve", 2));
        };
        let (its_input, input) = pipe::pipe()?;
        let (output, its_output) = pipe::pipe()?;
        io::set_nonblocking(&input, true)?;
        io::set_nonblocking(&output, true)?;
        let mut spawn = Spawn::new(program).args(arguments).die_with_parent().new_process_group();
        for (name, value) in environment {
            spawn = spawn.env(name, value);
        }
        let child = spawn.stdin(its_input).stdout(its_output).spawn()?;
        let mut group = Group::of(child);
        let watched = epoll.add(group.first().pidfd(), token, Interest::Readable);
        watched.and_then(|()| epoll.add(&output, token + 2, Interest::Readable)).inspect_err(
            |_| {
                // Nobody would notice what becomes of it.
                let _ = group.first().kill();
            },
        )?;
        Ok(Self {
            job: None,
            group,
            format,
            token,
            input: Some(input),
            unwritten: Vec::new(),
            watches_input: false,
            output: Some(output),
            printed: Vec::new(),
            splitter: Splitter::new(format),
        })
    }

    pub(super) fn has(&self, token: u64) -> bool {
        (self.token..self.token + TOKENS).contains(&token)
    }

    /// Gives it a request, which is in its format.
    pub(super) fn begin(&mut self, job: Job, request: &[u8]) {
        self.job = Some(job);
        self.unwritten.clear();
        // A line feed was looked for before; nothing else fails.
        let _ = write(self.format, request, &mut self.unwritten);
        self.write_on();
    }

    /// Writes what it takes; closes its input after the only request.
    fn write_on(&mut self) {
        let Some(input) = &self.input else { return };
        let mut written = 0;
        let mut closed = false;
        while written < self.unwritten.len() {
            match io::write(input, &self.unwritten[written..]) {
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It reads no more, which is its own affair.
                Err(_) => {
                    closed = true;
                    break;
                }
            }
        }
        self.unwritten.drain(..written);
        if closed || (self.unwritten.is_empty() && self.format == Format::Raw) {
            self.input = None;
            self.watches_input = false;
        }
    }

    /// Watches its input while something waits for it.
    pub(super) fn watch(&mut self, epoll: &Epoll) {
        let Some(input) = &self.input else { return };
        let wanted = !self.unwritten.is_empty();
        if wanted == self.watches_input {
            return;
        }
        let changed = match wanted {
            true => epoll.add(input, self.token + 1, Interest::Writable),
            false => epoll.delete(input),
        };
        self.watches_input = changed.is_ok() && wanted;
    }

    /// Writes, reads, and looks whether it has ended.
    pub(super) fn progress(&mut self) -> kernel::Result<Said> {
        self.write_on();
        if self.group.is_ending() && self.group.first_has_ended() {
            self.read_on(usize::MAX);
            return Ok(Said::End {
                succeeded: false,
                how: "was ended".to_owned(),
                printed: std::mem::take(&mut self.printed),
            });
        }
        let status = self.group.first().wait(Deadline::after(Duration::ZERO))?;
        // What it printed before its end is there by now, and is read to the end.
        self.read_on(if status.is_some() { usize::MAX } else { READ_MOST_BYTES });
        if self.printed.len() > LONGEST_ITEM_BYTES {
            let most = LONGEST_ITEM_BYTES;
            return Ok(Said::Nonsense(format!("it printed more than {most} bytes")));
        }
        if self.format != Format::Raw {
            match self.next_reply(status.is_some()) {
                Ok(Some(reply)) => return Ok(Said::Reply(reply)),
                Ok(None) => {}
                Err(problem) => return Ok(Said::Nonsense(problem)),
            }
        }
        Ok(match status {
            Some(status) => Said::End {
                succeeded: status.success(),
                how: ended(status),
                printed: std::mem::take(&mut self.printed),
            },
            None => Said::Nothing,
        })
    }

    /// Reads what is there, so many bytes at most; the rest is announced again.
    fn read_on(&mut self, most: usize) {
        let Some(output) = &self.output else { return };
        let mut room = [0; READ_BYTES];
        let enough = self.printed.len().saturating_add(most);
        while self.printed.len() <= LONGEST_ITEM_BYTES.min(enough) {
            match io::read(output, &mut room) {
                Ok(0) => {
                    // It goes with its descriptor out of the epoll set.
                    self.output = None;
                    return;
                }
                Ok(n) => self.printed.extend_from_slice(&room[..n]),
                Err(_) => return,
            }
        }
    }

    /// Whether it printed something that is no reply to anything, as far as is known now: what it prints next would
    /// be taken for the reply to another request.
    pub(super) fn has_said_more(&mut self) -> bool {
        self.read_on(READ_MOST_BYTES);
        // Values of JSON may have anything blank between them.
        let is_blank = |byte: &u8| self.format == Format::Json && byte.is_ascii_whitespace();
        self.format != Format::Raw && !self.printed.iter().all(is_blank)
    }

    /// A whole reply of what it printed.
    fn next_reply(&mut self, is_over: bool) -> Result<Option<Vec<u8>>, String> {
        let found = self.splitter.next(&self.printed, false).map_err(|problem| problem.0)?;
        let Found::Message(range, whole) = found else { return Ok(None) };
        if self.job.is_none() && !is_over {
            return Err("it replied to nothing".into());
        }
        let reply = self.printed[range].to_vec();
        self.printed.drain(..whole);
        Ok(Some(reply))
    }

    /// Asks it to end, and makes it after a while, with all that it started.
    pub(super) fn end(&mut self) {
        self.group.end();
    }

    /// Whether it was asked to.
    pub(super) fn is_ending(&self) -> bool {
        self.group.is_ending()
    }

    /// How long until one that was asked to end is made to.
    pub(super) fn ending_for(&self) -> Option<Duration> {
        self.group.ending_for()
    }

    /// What is left of it: its processes.
    pub(super) fn into_group(self) -> Group {
        self.group
    }

    /// Takes it out of the epoll set: a child of its own may hold its descriptors on.
    pub(super) fn forget(&mut self, epoll: &Epoll) {
        let _ = epoll.delete(self.group.first().pidfd());
        for fd in [&self.input, &self.output].into_iter().flatten() {
            let _ = epoll.delete(fd);
        }
    }
}
