//! `switchboard recv ADDRESS`: the messages of a queue on standard output, or a command for each.
//!
//! A message is acknowledged once it is written, or once its command has ended with 0; what is
//! interrupted before that goes back to its sender, where the transport redelivers.

mod jobs;
mod numbers;
mod printing;

use std::time::{Duration, Instant};

use clap::{ArgMatches, Args, FromArgMatches};
use switchboard::transport::Transport;
use switchboard::{Address, Bytes, Error, Options, Queue, Receiver, RecvError, Rejection};

use self::numbers::{Number, Numbers};
use super::with_examples;
use crate::endpoint::{self, AHEAD, Pattern, connects, meets_at_once};
use crate::exit_code::Exit;
use crate::format::{Choice, Format};
use crate::interrupt::Interrupt;
use crate::output::{self, Failure, Outcome, counted};
use crate::program;
use crate::standard_streams::require_stdout;

#[derive(Args, Debug)]
struct Arguments {
    /// Where to receive from, as unix:./jobs.sock; `switchboard transports` lists the schemes
    address: String,
    #[command(flatten)]
    format: Choice,
    /// Stop after this many messages
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop when nothing came for so long, as 500ms or 2s
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    timeout: Option<Duration>,
    /// Stay when every sender has ended
    #[arg(long)]
    follow: bool,
    /// Fail at once when nothing is there (exit 3)
    #[arg(long, conflicts_with_all = ["timeout", "follow"])]
    no_wait: bool,
    /// Note messages that come again
    #[arg(short, long)]
    verbose: bool,
    /// So many commands at a time
    #[arg(long, value_name = "NUMBER", requires = "command", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    jobs: u32,
    /// Run this for each message, with the message on its standard input; exit 0 acknowledges it
    #[arg(last = true, conflicts_with = "Choice")]
    command: Vec<std::ffi::OsString>,
}

/// A command with the arguments of `recv`.
pub(super) fn arguments(name: &'static str) -> clap::Command {
    Arguments::augment_args(clap::Command::new(name))
}

pub(super) fn build() -> clap::Command {
    let endless = endpoint::schemes(|row| !row.capabilities.says_end);
    with_examples(
        arguments("recv")
            .about("Receive messages from a queue: print each as a line, or run a command for it")
            .long_about(format!(
                "Receive messages from a queue: print each as a line, or run a command for it.\n\nEnds \
                 when every sender that joined has ended. Where nobody can know that ({endless}) \
                 --count or --timeout ends it; with --raw, an empty message does, and silence is no end \
                 (exit 3).\n\nA message is acknowledged once it is printed, or once COMMAND has ended \
                 with 0. Otherwise, or when it contains a line feed and lines are printed, it is given \
                 back, where the transport redelivers: to its sender, which gives it out again at once; \
                 or to a log, which offers it to other receivers first, and after the fifth time that \
                 COMMAND failed to nobody. What became of it is said. COMMAND finds SWITCHBOARD_ADDRESS, \
                 SWITCHBOARD_DELIVERIES and SWITCHBOARD_REDELIVERED in its environment. A COMMAND that \
                 is not there is exit 2, before anything is taken.",
            )),
        "  switchboard recv unix:./jobs.sock
  switchboard recv --raw unix:./archive.sock | tar x
  switchboard recv --count 1 --timeout 5s mq:/jobs
  switchboard recv --follow --jobs 4 tcp:127.0.0.1:7000 -- ./work",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let open = |address, options| Queue::<Bytes>::at(address, options).receiver();
    run_with(matches, Pattern::Queue, open)
}

/// Receives over whatever `open` opens.
pub(super) fn run_with(
    matches: &ArgMatches,
    pattern: Pattern,
    open: impl FnOnce(Address, Options) -> Result<Receiver<Bytes>, Error>,
) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let format = arguments.format.format();
    let address = endpoint::address(&arguments.address, format)?;
    // Before anything is taken that could be lost.
    match arguments.command.is_empty() {
        false => program::must_be_there(&arguments.command)?,
        true => require_stdout()?,
    }
    let runs = !arguments.command.is_empty();
    let interrupt = if runs { Interrupt::watch(None)? } else { Interrupt::watch_output()? };
    // No more is taken ahead than will be used: what is left over would come again elsewhere.
    let ahead =
        arguments.count.map_or(AHEAD, |count| u32::try_from(count).map_or(AHEAD, |n| n.min(AHEAD)));
    let mut options = endpoint::options(&interrupt, !arguments.no_wait)
        .follow(arguments.follow)
        .prefetch(if runs { ahead.min(arguments.jobs) } else { ahead });
    if runs {
        options = options.acknowledge_every(1);
    }
    let receiver = match open(address.clone(), options) {
        Err(_) if interrupt.is_output_closed() => return Err(Failure::quiet()),
        result => result?,
    };
    let receiving = Receiving {
        receiver,
        pattern,
        address,
        interrupt: &interrupt,
        format,
        count: arguments.count.unwrap_or(u64::MAX),
        verbose: arguments.verbose,
        received: 0,
        bytes: 0,
        numbers: Numbers::default(),
        started: 0,
        redelivered: 0,
        lost: 0,
        exit: Exit::Done,
        timeout: arguments.timeout,
        no_wait: arguments.no_wait,
        idle_since: Instant::now(),
        tell: output::is_watched(),
    };
    if runs { receiving.run(&arguments.command, arguments.jobs) } else { receiving.print() }
}

/// One receiving end at work.
struct Receiving<'a> {
    receiver: Receiver<Bytes>,
    pattern: Pattern,
    address: Address,
    interrupt: &'a Interrupt,
    format: Format,
    count: u64,
    verbose: bool,
    received: u64,
    /// Bytes of them that were printed.
    bytes: u64,
    numbers: Numbers,
    /// Commands started for messages.
    started: u64,
    redelivered: u64,
    /// Messages that are known to be missing.
    lost: u64,
    /// Problems that were reported and do not keep the others from being received.
    exit: Exit,
    timeout: Option<Duration>,
    no_wait: bool,
    /// When the last message came.
    idle_since: Instant,
    /// A terminal has not been told yet that this waits.
    tell: bool,
}

/// What an error of the receiving end means for the command.
enum Next {
    /// Go on with the next message.
    GoOn,
    /// All is received.
    End,
}

impl Receiving<'_> {
    fn transport(&self) -> &'static Transport {
        self.address.transport()
    }

    /// Notes what came with a message: that it came before, or that others are missing.
    fn remark(&mut self, remarks: Remarks) {
        if remarks.lost_before > 0 {
            if self.lost == 0 {
                let (address, number) = (&self.address, remarks.number);
                let missing = missing(remarks.lost_before);
                output::warn(&format!("{address}: {missing} before {number}"));
            }
            self.lost = self.lost.saturating_add(remarks.lost_before);
            self.exit = Exit::Failed;
        }
        if remarks.redelivered {
            self.redelivered += 1;
            if self.verbose {
                let number = remarks.number;
                output::note(&format!("{number} may have been received before"));
            }
        }
    }

    /// How long silence may last from now on; `None` for ever.
    fn limit(&self) -> Option<Duration> {
        let connected = self.numbers.any() || meets_at_once(&self.address, self.pattern);
        match self.no_wait {
            true if connects(self.transport()) && connected => None,
            true => Some(Duration::ZERO),
            false => self.timeout,
        }
    }

    /// How long to wait in one go: a terminal is told soon that nobody is there.
    fn wait(&self) -> Option<Duration> {
        let left = self.limit().map(|limit| limit.saturating_sub(self.idle_since.elapsed()));
        if self.tell { Some(left.map_or(PATIENCE, |left| left.min(PATIENCE))) } else { left }
    }

    /// What to do after a receive that gave nothing.
    fn after(&mut self, error: RecvError) -> Result<Next, Failure> {
        let address = &self.address;
        match error {
            RecvError::Ended => return Ok(Next::End),
            RecvError::Empty => return self.after_nothing(),
            RecvError::Interrupted => return Err(self.interrupt.failure(&self.account())),
            RecvError::Gap { missing, .. } => {
                // A slow subscriber has many: the first is said, and all together.
                if self.lost == 0 {
                    output::warn(&format!("{address}: {}", output::shown(&error.to_string())));
                }
                self.lost = self.lost.saturating_add(missing);
            }
            RecvError::PeerDied { peer, received } => {
                let (peer, raw) = (output::shown(&peer), self.format == Format::Raw);
                let arrived = match raw {
                    true => counted(self.bytes, "byte"),
                    false => counted(received, "message"),
                };
                let sender = self.pattern.sender();
                output::warn(&format!("{sender} died: {peer}; {arrived} arrived"));
            }
            RecvError::Failed(error) => return Err(error.into()),
            error => output::warn(&format!("{address}: {}", output::shown(&error.to_string()))),
        }
        self.exit = Exit::Failed;
        Ok(Next::GoOn)
    }

    fn after_nothing(&mut self) -> Result<Next, Failure> {
        let over = self.limit().filter(|limit| self.idle_since.elapsed() >= *limit);
        let Some(limit) = over else {
            self.tell_if_alone();
            return Ok(Next::GoOn);
        };
        let raw = self.format == Format::Raw;
        // Where nobody can say the end, silence after messages is the end; that of bytes is said.
        if self.numbers.any() && !connects(self.transport()) && !raw {
            return Ok(Next::End);
        }
        let address = &self.address;
        let message = match (self.no_wait, raw && self.numbers.any()) {
            (true, false) => format!("{address}: nothing is there, and waiting was not wanted"),
            (true, true) => format!("{address}: nothing more is there; {}", self.account()),
            (false, _) => format!("{address}: nothing came for {limit:?}; {}", self.account()),
        };
        Err(Failure::new(Exit::Nothing, message))
    }

    /// Tells a terminal, once, that this waits, and for what.
    fn tell_if_alone(&mut self) {
        if !std::mem::take(&mut self.tell) {
            return;
        }
        let address = &self.address;
        if connects(self.transport()) {
            if self.receiver.peers() == 0 {
                let sender = self.pattern.sender();
                output::note(&format!("waiting for a {sender} at {address}"));
            }
        } else {
            output::note(&format!("waiting for messages at {address}"));
            if self.is_endless() {
                output::note(
                    "no sender can say the end here: --count or --timeout does, or Ctrl-C",
                );
            }
        }
    }

    /// Whether only Ctrl-C ends this.
    fn is_endless(&self) -> bool {
        self.timeout.is_none()
            && self.count == u64::MAX
            && self.format != Format::Raw
            && !self.transport().capabilities.says_end
    }

    /// Says what was only counted so far.
    fn sum_up(&self) {
        if self.lost > 0 {
            output::warn(&format!("{}: {} in all", self.address, missing(self.lost)));
        }
        if self.redelivered > 0 && output::is_watched() {
            let messages = counted(self.redelivered, "message");
            output::note(&format!("{messages} may have been received before"));
        }
    }

    /// What becomes of a message that was not acknowledged.
    fn fate(&self, rejected: Result<Rejection, RecvError>) -> String {
        match rejected {
            _ if self.pattern == Pattern::Topic => "passed over".to_owned(),
            Ok(Rejection::GivenBack) => "given back".to_owned(),
            Ok(Rejection::ForGood) => {
                "rejected for good: it was given out as often as it may be".to_owned()
            }
            Ok(_) => {
                format!("{}: cannot redeliver; the message is lost", self.address.scheme())
            }
            Err(error) => format!("cannot be given back: {}", output::shown(&error.to_string())),
        }
    }

    /// What was done.
    fn account(&self) -> String {
        if self.format == Format::Raw {
            return format!("the stream did not end; {} arrived", counted(self.bytes, "byte"));
        }
        format!("{} received", counted(self.received, "message"))
    }
}

/// `1 message is missing`.
fn missing(lost: u64) -> String {
    format!("{} {} missing", counted(lost, "message"), if lost == 1 { "is" } else { "are" })
}

/// How long silence lasts before a terminal is told.
const PATIENCE: Duration = Duration::from_millis(300);

/// What is said about a message besides its bytes.
#[derive(Clone, Copy, Debug)]
struct Remarks {
    number: Number,
    redelivered: bool,
    lost_before: u64,
}
