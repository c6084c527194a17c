//! A command for each message: the message on its standard input, its exit code the answer.
//!
//! Exit 0 acknowledges the message; anything else gives it back. If this process is killed, its
//! commands are killed with it, and their messages come again elsewhere.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use switchboard::{RecvError, Ticket};
use switchboard_kernel as kernel;
use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::process::{Child, Signal};

use super::numbers::Number;
use super::{Next, Receiving, Remarks};
use crate::exit_code::Exit;
use crate::output::{self, Failure, Outcome, counted, system};
use crate::program::{self, GRACE, ended, name_of};

/// A command that runs for a message.
struct Job {
    child: Child,
    ticket: Ticket,
    number: Number,
    hash: u64,
}

/// A message to run a command for.
struct Message {
    bytes: Vec<u8>,
    /// By this it is known when it comes again.
    hash: u64,
    ticket: Ticket,
    remarks: Remarks,
    deliveries: u16,
}

/// The commands that run, and what wakes this process.
struct Jobs<'a> {
    command: &'a [OsString],
    most: usize,
    running: Vec<Job>,
    /// The command of this one could not be started for now: it waits for another to end.
    put_off: Option<Message>,
    epoll: Epoll,
    /// New messages are waited for.
    watching: bool,
}

const CANCEL: u64 = 0;
const RECEIVER: u64 = 1;
const CHILD: u64 = 2;

impl Receiving<'_> {
    /// Runs the command for each message until the end.
    pub(super) fn run(mut self, command: &[OsString], most: u32) -> Outcome {
        let epoll = Epoll::new().map_err(cannot_wait)?;
        epoll.add(self.interrupt.fd(), CANCEL, Interest::Readable).map_err(cannot_wait)?;
        let most = most as usize;
        let mut jobs =
            Jobs { command, most, running: Vec::new(), put_off: None, epoll, watching: false };
        let result = self.run_all(&mut jobs);
        if result.is_err() {
            self.stop(&mut jobs);
        }
        self.sum_up();
        result.map(|()| self.exit)
    }

    fn run_all(&mut self, jobs: &mut Jobs<'_>) -> Result<(), Failure> {
        let mut more = true;
        loop {
            self.reap(jobs)?;
            more &= self.received < self.count;
            if let Some(message) = jobs.next() {
                self.start(jobs, message)?;
                continue;
            }
            if more && jobs.has_room() {
                match self.take_one() {
                    Ok(message) => {
                        self.start(jobs, message)?;
                        continue;
                    }
                    Err(RecvError::Empty) if !jobs.running.is_empty() => {}
                    Err(error) => match self.after(error)? {
                        Next::End => more = false,
                        Next::GoOn => {}
                    },
                }
            }
            if !more && jobs.unfinished() == 0 {
                break;
            }
            self.sleep(jobs, more)?;
        }
        self.receiver.flush().or_else(|error| self.after(error).map(drop))
    }

    /// Takes a message that is there.
    fn take_one(&mut self) -> Result<Message, RecvError> {
        let (numbers, mut taken) = (&mut self.numbers, None);
        self.receiver.recv_each(1, Some(Duration::ZERO), |message, ticket| {
            let (redelivered, lost_before) = (message.redelivered, message.lost_before);
            let number = numbers.of(message.bytes, message.deliveries);
            let remarks = Remarks { number, redelivered, lost_before };
            let hash = numbers.hash(message.bytes);
            let (bytes, deliveries) = (message.bytes.to_vec(), message.deliveries);
            taken = Some(Message { bytes, hash, ticket, remarks, deliveries });
            false
        })?;
        let message = taken.ok_or(RecvError::Empty)?;
        self.received += 1;
        self.idle_since = Instant::now();
        self.tell = false;
        self.remark(message.remarks);
        Ok(message)
    }

    /// Starts the command for a message. When something runs out that those which run hold, the
    /// message is put off until one of them ends, and from then on fewer run at a time.
    fn start(&mut self, jobs: &mut Jobs<'_>, mut message: Message) -> Result<(), Failure> {
        let error = match self.spawn(jobs.command, &mut message) {
            Ok(child) => {
                self.started += 1;
                let token = CHILD + self.started;
                let watched = jobs.epoll.add(child.pidfd(), token, Interest::Readable);
                let Message { hash, ticket, remarks: Remarks { number, .. }, .. } = message;
                jobs.running.push(Job { child, ticket, number, hash });
                return watched.map_err(cannot_wait);
            }
            Err(error) => error,
        };
        let name = name_of(jobs.command);
        if is_shortage(error) && !jobs.running.is_empty() {
            jobs.most = jobs.running.len();
            jobs.put_off = Some(message);
            let most = counted(jobs.most as u64, "command");
            output::warn(&format!("{most} at a time from now on: cannot run {name}: {error}"));
            error.advice().into_iter().for_each(output::advise);
            return Ok(());
        }
        // It was not begun.
        let rejected = self.receiver.give_back_ticket(message.ticket);
        let fate = self.fate(rejected);
        let failure = system(&format!("cannot run {name}"), error);
        Err(failure.adding(&fate))
    }

    fn spawn(&self, command: &[OsString], message: &mut Message) -> kernel::Result<Child> {
        let environment = [
            ("SWITCHBOARD_ADDRESS", self.address.as_str().to_owned()),
            ("SWITCHBOARD_DELIVERIES", message.deliveries.to_string()),
            ("SWITCHBOARD_REDELIVERED", u8::from(message.remarks.redelivered).to_string()),
        ];
        program::start(command, &environment, Some(&mut message.bytes))
    }

    /// Settles the messages of commands that have ended.
    fn reap(&mut self, jobs: &mut Jobs<'_>) -> Result<(), Failure> {
        let mut at = 0;
        while at < jobs.running.len() {
            let status = jobs.running[at]
                .child
                .wait(Deadline::after(Duration::ZERO))
                .map_err(cannot_wait)?;
            let Some(status) = status else {
                at += 1;
                continue;
            };
            let job = jobs.running.remove(at);
            // It goes with its descriptor, too.
            let _ = jobs.epoll.delete(job.child.pidfd());
            self.settle(&job, status, jobs.command)?;
        }
        Ok(())
    }

    fn settle(
        &mut self,
        job: &Job,
        status: ExitStatus,
        command: &[OsString],
    ) -> Result<(), Failure> {
        self.idle_since = Instant::now();
        if status.success() {
            let told = self.receiver.acknowledge_ticket(job.ticket);
            return told.or_else(|error| self.after(error).map(drop));
        }
        self.exit = Exit::Failed;
        let rejected = self.receiver.reject_ticket(job.ticket);
        self.numbers.give_back(job.number, job.hash);
        let ended = ended(status);
        let (number, name) = (job.number, name_of(command));
        let fate = self.fate(rejected);
        output::warn(&format!("{number}: {name} {ended}; {fate}"));
        Ok(())
    }

    /// Sleeps until a command ends, a message comes, or silence has lasted too long.
    fn sleep(&mut self, jobs: &mut Jobs<'_>, more: bool) -> Result<(), Failure> {
        let watch = more && jobs.has_room();
        if watch != jobs.watching {
            let receiver = self.receiver.as_fd();
            let changed = match watch {
                true => jobs.epoll.add(receiver, RECEIVER, Interest::Readable),
                false => jobs.epoll.delete(receiver),
            };
            changed.map_err(cannot_wait)?;
            jobs.watching = watch;
        }
        let limit = if jobs.running.is_empty() { self.wait() } else { None };
        let mut events = Events::with_capacity(64);
        jobs.epoll.wait(&mut events, Deadline::from_timeout(limit)).map_err(cannot_wait)?;
        if events.iter().any(|(token, _)| token == CANCEL) {
            return Err(self.interrupt.failure(&self.account_of(jobs)));
        }
        Ok(())
    }

    /// Ends the commands that still run; their messages go back.
    fn stop(&mut self, jobs: &mut Jobs<'_>) {
        for job in &jobs.running {
            // One that has ended meanwhile needs no signal.
            let _ = job.child.signal(Signal::TERM);
        }
        for mut job in jobs.running.drain(..) {
            match job.child.terminate(GRACE) {
                Ok(status) if status.success() => {
                    let _ = self.receiver.acknowledge_ticket(job.ticket);
                }
                // It was not finished, which says nothing about it.
                _ => {
                    let _ = self.receiver.give_back_ticket(job.ticket);
                }
            }
        }
        let _ = self.receiver.flush();
    }

    fn account_of(&self, jobs: &Jobs<'_>) -> String {
        match jobs.unfinished() {
            0 => self.account(),
            n => format!("{}, {n} of them not finished", self.account()),
        }
    }
}

impl Jobs<'_> {
    fn has_room(&self) -> bool {
        self.running.len() < self.most
    }

    /// The message that was put off, if its command can be started now.
    fn next(&mut self) -> Option<Message> {
        if self.has_room() { self.put_off.take() } else { None }
    }

    fn unfinished(&self) -> usize {
        self.running.len() + usize::from(self.put_off.is_some())
    }
}

/// Whether a command may be startable once another has ended.
fn is_shortage(error: kernel::Error) -> bool {
    use kernel::ErrorKind as K;
    match error.kind() {
        K::TooManyFiles | K::TooManyFilesInSystem | K::OutOfMemory => true,
        K::WouldBlock => error.call() == "fork",
        _ => false,
    }
}

fn cannot_wait(error: kernel::Error) -> Failure {
    system("cannot wait", error)
}
