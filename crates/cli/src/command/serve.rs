//! `switchboard serve ADDRESS -- COMMAND`: answers a service's calls with what a program says.
//!
//! One process per request: the request is its standard input, its standard output the reply, its exit
//! code whether it failed. With `--persistent`, processes that stay: they read one request after the
//! other and write a reply for each. Each is the first of a group of processes, which is ended as a whole.

mod ending;
mod leaving;
mod spare;
mod worker;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;
use switchboard::{
    Address, Bytes, CallTicket, Code, ErrorKind, Options, RecvError, ReplyError, Server, Service,
    Status,
};
use switchboard_kernel as kernel;
use switchboard_kernel::epoll::{Epoll, Events};
use switchboard_kernel::io::{Deadline, Interest};

use self::leaving::Leaving;
use self::spare::Spare;
use self::worker::{Said, Worker};
use super::with_examples;
use crate::endpoint;
use crate::exit_code::Exit;
use crate::format::Format;
use crate::interrupt::Interrupt;
use crate::output::{self, Failure, Outcome, counted, print_json, system};
use crate::program::{self, name_of};
use crate::standard_streams::require_stdout;

#[derive(Args, Debug)]
struct Arguments {
    /// Where to serve, as unix:./jobs.sock; `switchboard transports` lists the schemes
    address: String,
    /// So many processes at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    jobs: u32,
    /// Keep the processes: they read a request per line and write a reply per line
    #[arg(long)]
    persistent: bool,
    /// With --persistent: requests and replies after their length, four bytes, most significant first
    #[arg(long, requires = "persistent")]
    length_prefixed: bool,
    /// With --persistent: replace a process that has not replied for so long, as 30s or 2h
    #[arg(long, value_name = "DURATION", requires = "persistent", default_value = "10m",
          value_parser = endpoint::duration)]
    reply_timeout: Duration,
    /// Stop after this many calls
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print a line of JSON for each call that was answered
    #[arg(long)]
    json: bool,
    /// Run this for each request, with the request on its standard input
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(super) fn build() -> clap::Command {
    let schemes = endpoint::schemes(|row| row.patterns().contains(&"service"));
    let command = Arguments::augment_args(clap::Command::new("serve"));
    with_examples(
        command.about("Answer the calls of a service with what a program says").long_about(format!(
            "Answer the calls of a service with what a program says.\n\nCOMMAND is run for each request, \
             which is its standard input; what it prints is the reply, once it has ended with 0. Otherwise \
             the call fails, with how it ended, and what it printed as details. It finds SWITCHBOARD_ADDRESS \
             in its environment. One whose client cancels, dies or waits no longer is ended. With \
             --persistent it is started once and answers one request after the other; when it dies, or does not \
             reply in time, the call that it had fails, and it is started again.\n\nServices are carried by {schemes}. Several \
             servers share the calls of a client that binds (?bind), with ?connect.",
        )),
        "  switchboard serve unix:./upper.sock -- tr a-z A-Z
  switchboard serve --jobs 4 tcp:127.0.0.1:7000 -- ./work
  switchboard serve --persistent unix:./sums.sock -- python3 -u sums.py",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let address: Address = arguments.address.parse()?;
    program::must_be_there(&arguments.command)?;
    if arguments.json {
        require_stdout()?;
    }
    let interrupt = Interrupt::watch(None)?;
    let options = Options::default().prefetch(arguments.jobs).cancel(Some(interrupt.cancel()));
    let server = Service::<Bytes, Bytes>::at(address.clone(), options).server()?;
    let epoll = Epoll::new().map_err(cannot_wait)?;
    let wake = server.wake_fd()?;
    epoll.add(&wake, SERVER, Interest::Readable).map_err(cannot_wait)?;
    epoll.add(interrupt.fd(), CANCEL, Interest::Readable).map_err(cannot_wait)?;
    let format = match (arguments.persistent, arguments.length_prefixed) {
        (false, _) => Format::Raw,
        (true, true) => Format::LengthPrefixed,
        (true, false) => Format::Lines,
    };
    if output::is_watched() {
        let shown = server.local_address().unwrap_or_else(|| address.as_str().to_owned());
        output::note(&format!("serving {}", output::shown(&shown)));
    }
    let mut serving = Serving {
        server: &server,
        address: &address,
        command: &arguments.command,
        most: arguments.jobs as usize,
        format,
        json: arguments.json,
        left: arguments.count.unwrap_or(u64::MAX),
        epoll,
        workers: Vec::new(),
        started: 0,
        answered: 0,
        failed: 0,
        waiting: None,
        lacking_since: None,
        spare: Spare::default(),
        reply_timeout: arguments.reply_timeout,
        leaving: Leaving::default(),
    };
    let result = serving.run(&interrupt);
    serving.stop();
    let (answered, failed) = (serving.answered, serving.failed);
    drop(serving);
    match result {
        Ok(()) => match server.close() {
            Ok(()) => Ok(Exit::Done),
            Err(RecvError::Failed(error)) => Err(error.into()),
            Err(error) => Err(Failure::new(Exit::Failed, format!("{address}: {error}"))),
        },
        Err(Stop::Interrupted) => {
            let account = format!("{} answered, {failed} failed", counted(answered, "call"));
            Err(interrupt.failure(&account))
        }
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

const SERVER: u64 = 0;
const CANCEL: u64 = 1;
/// How long a call waits at most where no process can be started for want of descriptors.
const LACKING_MOST: Duration = Duration::from_secs(5);
/// The tokens of workers: so many each, from here on.
const FIRST: u64 = 4;

/// Why serving ended early.
enum Stop {
    Interrupted,
    Failed(Failure),
}

impl From<kernel::Error> for Stop {
    fn from(error: kernel::Error) -> Self {
        Self::Failed(cannot_wait(error))
    }
}

/// A call that a process works on.
struct Job {
    ticket: CallTicket,
    since: Instant,
    request_bytes: usize,
    /// Since when nobody waits for it, although its time is not over.
    unwanted: Option<Instant>,
}

struct Serving<'a> {
    server: &'a Server<Bytes, Bytes>,
    address: &'a Address,
    command: &'a [OsString],
    most: usize,
    format: Format,
    json: bool,
    /// Calls still to be taken.
    left: u64,
    epoll: Epoll,
    workers: Vec<Worker>,
    started: u64,
    answered: u64,
    failed: u64,
    /// There was no process for it: another has to end first.
    waiting: Option<(Bytes, CallTicket)>,
    /// Since when no process at all could be started for it, for want of descriptors.
    lacking_since: Option<Instant>,
    spare: Spare,
    /// A process that stays has so long for a reply.
    reply_timeout: Duration,
    /// Processes that are to end.
    leaving: Leaving,
}

impl Serving<'_> {
    fn run(&mut self, interrupt: &Interrupt) -> Result<(), Stop> {
        let mut events = Events::with_capacity(64);
        loop {
            self.take_calls()?;
            if self.left == 0 && self.workers.iter().all(|worker| worker.job.is_none()) {
                return Ok(());
            }
            self.end_what_nobody_wants();
            self.leaving.look();
            self.spare.keep(&self.epoll);
            // It may have read calls, of which the descriptor does not tell again.
            let takes = self.left > 0 && self.waiting.is_none() && self.has_room();
            if takes && self.server.has_call() {
                continue;
            }
            self.epoll.wait(&mut events, Deadline::from_timeout(self.patience()))?;
            let tokens: Vec<u64> = events.iter().map(|(token, _)| token).collect();
            if tokens.contains(&CANCEL) || interrupt.is_signalled() {
                return Err(Stop::Interrupted);
            }
            for token in tokens.into_iter().filter(|token| *token >= FIRST) {
                self.progress(token)?;
            }
        }
    }

    fn is_persistent(&self) -> bool {
        self.format != Format::Raw
    }

    /// Whether another call can be worked on now.
    fn has_room(&self) -> bool {
        self.workers.iter().filter(|worker| worker.job.is_some()).count() < self.most
    }

    /// Takes calls while there is somebody to work on them; looks at what clients say in any case.
    fn take_calls(&mut self) -> Result<(), Stop> {
        while self.left > 0 && self.has_room() {
            let next = match self.waiting.take() {
                Some(waiting) => Ok(waiting),
                None => self.server.try_recv_call().map(switchboard::Call::into_parts),
            };
            match next {
                Ok((request, ticket)) => {
                    if !self.begin(request, ticket) {
                        break;
                    }
                }
                // It has looked at everything by now.
                Err(RecvError::Empty) => return Ok(()),
                Err(error) => report(self.address, error)?,
            }
        }
        loop {
            match self.server.drive() {
                Ok(()) => return Ok(()),
                Err(error) => report(self.address, error)?,
            }
        }
    }

    /// Gives a call to a process. `false` if it has to wait for another to end.
    fn begin(&mut self, request: Bytes, ticket: CallTicket) -> bool {
        let (since, request_bytes) = (Instant::now(), request.len());
        let job = Job { ticket, since, request_bytes, unwanted: None };
        if self.format == Format::Lines && request.contains(&b'\n') {
            self.left -= 1;
            let problem = "the request contains a line feed, and this server takes a line";
            self.fail(&job, &Status::new(Code::InvalidArgument, problem));
            return true;
        }
        let at = match self.free() {
            Some(at) => at,
            None => match self.start() {
                Ok(at) => at,
                Err(error) if self.workers.is_empty() && !self.may_come(&error) => {
                    self.lacking_since = None;
                    self.left -= 1;
                    let name = name_of(self.command);
                    let problem = format!("cannot run {name}: {error}");
                    output::warn(&format!("{}: {problem}", self.address));
                    self.fail(&job, &Status::new(Code::Unavailable, problem));
                    return true;
                }
                Err(_) => {
                    self.waiting = Some((request, ticket));
                    return false;
                }
            },
        };
        self.left -= 1;
        self.lacking_since = None;
        let worker = &mut self.workers[at];
        worker.begin(job, &request);
        worker.watch(&self.epoll);
        true
    }

    /// Whether what lacks to start a process may be there soon: clients that have descriptors go.
    fn may_come(&mut self, error: &kernel::Error) -> bool {
        let since = *self.lacking_since.get_or_insert_with(Instant::now);
        let of_descriptors =
            [kernel::ErrorKind::TooManyFiles, kernel::ErrorKind::TooManyFilesInSystem];
        of_descriptors.contains(&error.kind()) && since.elapsed() < LACKING_MOST
    }

    /// A process that has nothing to do, and owes nothing.
    fn free(&mut self) -> Option<usize> {
        loop {
            let at = self.workers.iter().position(|worker| worker.job.is_none())?;
            if !self.workers[at].has_said_more() {
                return Some(at);
            }
            self.dismiss(at, Code::Internal, "it replied to nothing");
        }
    }

    /// Ends a process that cannot be talked to on.
    fn dismiss(&mut self, at: usize, code: Code, problem: &str) {
        let mut worker = self.workers.remove(at);
        worker.forget(&self.epoll);
        let name = name_of(self.command);
        output::warn(&format!("{}: {name}: {problem}", self.address));
        if let Some(job) = worker.job.take() {
            self.fail(&job, &Status::new(code, format!("{name}: {problem}")));
        }
        self.leaving.add(worker.into_group());
    }

    fn start(&mut self) -> kernel::Result<usize> {
        self.started += 1;
        let token = FIRST + self.started * worker::TOKENS;
        let environment = [("SWITCHBOARD_ADDRESS", self.address.as_str())];
        self.spare.release();
        let worker = Worker::start(self.command, &environment, self.format, token, &self.epoll);
        self.spare.keep(&self.epoll);
        self.workers.push(worker?);
        Ok(self.workers.len() - 1)
    }

    /// Goes on with the process of a token.
    fn progress(&mut self, token: u64) -> Result<(), Stop> {
        let Some(at) = self.workers.iter().position(|worker| worker.has(token)) else {
            return Ok(());
        };
        let persistent = self.is_persistent();
        let name = name_of(self.command);
        let worker = &mut self.workers[at];
        let said = worker.progress()?;
        worker.watch(&self.epoll);
        match said {
            Said::Nothing => {}
            Said::Reply(reply) => {
                let job = worker.job.take();
                let has_more = persistent && worker.has_said_more();
                if let Some(job) = job {
                    self.reply(&job, reply);
                }
                if has_more {
                    self.dismiss(at, Code::Internal, "it printed more than a reply");
                }
            }
            Said::End { succeeded, how, printed } => {
                let mut worker = self.workers.remove(at);
                worker.forget(&self.epoll);
                match worker.job.take() {
                    Some(job) if succeeded && !persistent => self.reply(&job, printed),
                    Some(job) => {
                        // How it ended is of no interest where it was made to.
                        let status = match job.ticket.remaining() {
                            Some(Duration::ZERO) if worker.is_ending() => {
                                let problem = format!("no reply in time: {name} was ended");
                                Status::new(Code::DeadlineExceeded, problem)
                            }
                            _ => Status::new(Code::Unknown, format!("{name} {how}")),
                        };
                        self.fail(&job, &status.with_details(printed));
                    }
                    None => output::warn(&format!("{}: {name} {how}", self.address)),
                }
                if worker.is_ending() {
                    self.leaving.add(worker.into_group());
                }
            }
            Said::Nonsense(problem) => self.dismiss(at, Code::Internal, &problem),
        }
        Ok(())
    }

    fn reply(&mut self, job: &Job, reply: Vec<u8>) {
        let len = reply.len();
        let result = self.server.reply_to(job.ticket, &Bytes(reply));
        self.note(job, Some(len), None, &result);
    }

    fn fail(&mut self, job: &Job, status: &Status) {
        let result = self.server.fail_to(job.ticket, status);
        self.note(job, None, Some(status), &result);
    }

    /// Counts a call that is over, and prints it if that was wanted.
    fn note(
        &mut self,
        job: &Job,
        reply_bytes: Option<usize>,
        status: Option<&Status>,
        result: &Result<(), ReplyError>,
    ) {
        let error = match (status, result) {
            (Some(status), _) => Some(status.to_string()),
            (None, Err(error)) => Some(error.to_string()),
            (None, Ok(())) => None,
        };
        match error {
            None => self.answered += 1,
            Some(_) => self.failed += 1,
        }
        if !self.json {
            return;
        }
        let mut line = json!({
            "request_bytes": job.request_bytes,
            "milliseconds": job.since.elapsed().as_secs_f64() * 1000.0,
        });
        match error {
            None => line["reply_bytes"] = reply_bytes.into(),
            Some(error) => line["error"] = output::shown(&error).into(),
        }
        // Who reads it may have gone: the service goes on.
        let _ = print_json(&line);
    }
}

/// Says what a client did; other errors end the service.
fn report(address: &Address, error: RecvError) -> Result<(), Stop> {
    match error {
        RecvError::Interrupted => Err(Stop::Interrupted),
        RecvError::PeerMisbehaved { .. } | RecvError::PeerRefused { .. } => {
            output::warn(&format!("{address}: {}", output::shown(&error.to_string())));
            Ok(())
        }
        // Those who are here are served on, and others when there is room again.
        RecvError::Failed(error) if error.kind() == ErrorKind::LimitReached => {
            output::warn(&output::shown(&error.to_string()));
            error.advice().into_iter().for_each(output::advise);
            Ok(())
        }
        RecvError::Failed(error) => Err(Stop::Failed(error.into())),
        error => Err(Stop::Failed(Failure::new(Exit::Failed, format!("{address}: {error}")))),
    }
}

fn cannot_wait(error: kernel::Error) -> Failure {
    system("cannot wait", error)
}
