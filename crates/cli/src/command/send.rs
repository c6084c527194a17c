//! `switchboard send ADDRESS`: standard input, or arguments, as messages of a queue.
//!
//! Reads in large blocks, gathers the messages of a block into few writes, and sends off what it
//! has whenever standard input has no more for now.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use switchboard::{Address, Bytes, CloseError, Error, Options, Queue, SendError, Sender};
use switchboard_kernel::io::{self, Deadline, Interest};

use super::with_examples;
use crate::endpoint::{self, Pattern, connects, ends_with_empty};
use crate::exit_code::Exit;
use crate::format::{Choice, Format, Found, Malformed, Splitter};
use crate::interrupt::Interrupt;
use crate::output::{self, Failure, Outcome, counted, system};
use crate::progress::Progress;
use crate::standard_streams::{Input, ReadStop, require_stdin};

#[derive(Args, Debug)]
struct Arguments {
    /// Where to send to, as unix:./jobs.sock; `switchboard transports` lists the schemes
    address: String,
    #[command(flatten)]
    format: Choice,
    /// Send this text instead of standard input; may be repeated
    #[arg(short, long, value_name = "TEXT", conflicts_with = "Choice")]
    message: Vec<std::ffi::OsString>,
    /// Priority, 0 to 32767, the highest first; for transports that have priorities
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=32767))]
    priority: Option<u32>,
    /// Fail at once when nobody is there, where there is no log yet, or when one is full (exit 3)
    #[arg(long)]
    no_wait: bool,
    /// Give up when no receiver takes or acknowledges anything for so long, as 500ms or 2s (exit 3)
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    timeout: Option<Duration>,
}

/// A command with the arguments of `send`.
pub(super) fn arguments(name: &'static str) -> clap::Command {
    Arguments::augment_args(clap::Command::new(name))
}

pub(super) fn build() -> clap::Command {
    with_examples(
        arguments("send").about("Send messages to a queue: each line of standard input is one").long_about(
            "Send messages to a queue: each line of standard input is one.\n\nWaits for a receiver, \
             and ends when the receiver has acknowledged every message. Messages of a receiver that \
             dies go to the next one, where the transport redelivers.",
        ),
        "  echo press | switchboard send unix:./jobs.sock
  switchboard send mq:/jobs --priority 5 --message 'stop the press'
  tar c src | switchboard send --raw unix:./archive.sock
  jq -c '.[]' jobs.json | switchboard send --json tcp:127.0.0.1:7000
  switchboard send --timeout 2s fifo:/tmp/jobs < jobs.txt",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let open = |address, options| Queue::<Bytes>::at(address, options).sender();
    run_with(matches, Pattern::Queue, open)
}

/// Sends over whatever `open` opens.
pub(super) fn run_with(
    matches: &ArgMatches,
    pattern: Pattern,
    open: impl FnOnce(Address, Options) -> Result<Sender<Bytes>, Error>,
) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let format = arguments.format.format();
    let address = endpoint::address(&arguments.address, format)?;
    let transport = address.transport();
    if arguments.priority.is_some() && !transport.capabilities.priorities {
        let message = format!("{}: has no priorities", transport.scheme);
        let others = endpoint::schemes(|row| row.capabilities.priorities);
        let hint = format!("leave out --priority, or use a transport that has them: {others}");
        return Err(Failure::new(Exit::Usage, message).hint(hint));
    }
    if arguments.message.is_empty() {
        require_stdin()?;
    }
    let interrupt = Interrupt::watch(arguments.timeout)?;
    // The middle of a stream of bytes is of no use to a receiver that comes later.
    let options = endpoint::options(&interrupt, !arguments.no_wait);
    let options = options.reconnect(format != Format::Raw);
    let sender = open(address.clone(), options)?;
    if let Some(remark) = sender.remark() {
        output::warn(&format!("{address}: {remark}"));
    }
    let mut sending = Sending {
        sender,
        interrupt: &interrupt,
        format,
        priority: arguments.priority,
        pattern,
        connects: connects(transport),
        bytes: 0,
        acknowledged_before: 0,
        progress: Progress::new(
            std::io::stdin().is_terminal() || !arguments.message.is_empty(),
            format == Format::Raw,
        ),
    };
    let ends = ends_with_empty(transport);
    let waits = pattern == Pattern::Topic && !arguments.no_wait;
    let result = sending.meet(waits).and_then(|()| sending.everything(&arguments.message, ends));
    if result.is_err() {
        // What waits in the sender is not to be waited for, and its end not to be said.
        interrupt.give_up();
    }
    sending.progress.end(sending.sender.sent(), sending.bytes);
    let dropped = sending.sender.dropped();
    if dropped > 0 && output::is_watched() {
        let dropped = counted(dropped, "message");
        output::note(&format!("{dropped} dropped for subscribers that were too slow"));
    }
    result.map(|()| Exit::Done)
}

struct Sending<'a> {
    sender: Sender<Bytes>,
    interrupt: &'a Interrupt,
    format: Format,
    priority: Option<u32>,
    pattern: Pattern,
    connects: bool,
    /// Bytes accepted.
    bytes: u64,
    /// Acknowledged when the clock was last started: it starts again while that grows.
    acknowledged_before: u64,
    progress: Progress,
}

/// Standard input is read in blocks of this size.
const BLOCK_BYTES: usize = 256 << 10;
/// How long nobody may be there before a terminal is told.
const PATIENCE: Duration = Duration::from_millis(300);

impl Sending<'_> {
    fn everything(
        &mut self,
        messages: &[std::ffi::OsString],
        empty_ends: bool,
    ) -> Result<(), Failure> {
        if !messages.is_empty() {
            self.start_clock();
            for message in messages {
                self.feed(std::os::unix::ffi::OsStrExt::as_bytes(message.as_os_str()))?;
            }
        } else if self.format == Format::Raw {
            let input = Input::new();
            if self.connects && self.is_link() {
                self.raw_in_place(&input)?;
            } else {
                self.raw_copied(&input)?;
            }
            if empty_ends {
                self.feed(b"")?;
            }
        } else {
            self.split(&Input::new())?;
        }
        self.settle()
    }

    /// Whether messages go over a link, which lends the room to read into.
    fn is_link(&self) -> bool {
        let address = self.sender.address();
        let said = endpoint::option(address, "framing").map(switchboard::Framing::parse);
        said.unwrap_or(address.transport().framing) == Some(switchboard::Framing::Link)
    }

    /// Waits until somebody is there, with `waits`; without, only as long as it takes to tell a terminal
    /// that nobody is.
    fn meet(&mut self, waits: bool) -> Result<(), Failure> {
        let mut tells = output::is_watched();
        if !self.connects || !(waits || tells) {
            return Ok(());
        }
        self.start_clock();
        let patience = Deadline::after(PATIENCE);
        loop {
            self.sender.drive().map_err(|error| self.failure(error))?;
            if self.sender.peers() > 0 {
                return Ok(());
            }
            if tells && patience.passed() {
                let other = self.pattern.receiver();
                output::note(&format!("waiting for a {other} at {}", self.sender.address()));
                tells = false;
            }
            if !(waits || tells) {
                return Ok(());
            }
            let watched = [
                (self.sender.as_fd(), Interest::Readable),
                (self.interrupt.fd(), Interest::Readable),
            ];
            let until = if tells { patience } else { Deadline::NEVER };
            io::poll(watched, until).map_err(|error| system("cannot wait", error))?;
        }
    }

    // ---- messages ----

    /// Sends the messages found in standard input.
    fn split(&mut self, input: &Input) -> Result<(), Failure> {
        let mut splitter = Splitter::new(self.format);
        let mut block = vec![0; BLOCK_BYTES];
        let (mut start, mut end, mut ended) = (0, 0, false);
        while !ended {
            if start == end {
                (start, end) = (0, 0);
            } else if end == block.len() && start > 0 {
                block.copy_within(start..end, 0);
                (start, end) = (0, end - start);
            } else if end == block.len() {
                block.resize(block.len() * 2, 0);
            }
            let n = self.read(input, &mut block[end..])?;
            ended = n == 0;
            end += n;
            self.start_clock();
            start += self.feed_all(&mut splitter, &block[start..end], ended)?;
            self.push()?;
        }
        Ok(())
    }

    /// Sends the messages found in a block; says how many of its bytes they took.
    fn feed_all(
        &mut self,
        splitter: &mut Splitter,
        block: &[u8],
        ended: bool,
    ) -> Result<usize, Failure> {
        let mut at = 0;
        for end in splitter.line_feeds(block) {
            self.feed(&block[at..end])?;
            at = end + 1;
        }
        loop {
            match splitter.next(&block[at..], ended) {
                Ok(Found::Message(range, whole)) => {
                    let found = &block[at + range.start..at + range.end];
                    self.feed(splitter.message(found))?;
                    at += whole;
                }
                Ok(Found::Nothing(n)) => at += n,
                Ok(Found::More) => return Ok(at),
                Err(Malformed(problem)) => return Err(self.malformed(&problem)),
            }
        }
    }

    /// Sends one message; it may wait for the next ones to fill a write.
    #[inline]
    fn feed(&mut self, message: &[u8]) -> Result<(), Failure> {
        let result = match self.priority {
            None => self.sender.feed(message),
            Some(priority) => self.sender.send_bytes_with_priority(message, priority),
        };
        self.bytes += message.len() as u64;
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                self.bytes -= message.len() as u64;
                self.feed_slowly(message, error)
            }
        }
    }

    /// Goes on after an error: the clock may only have to be started again.
    #[cold]
    fn feed_slowly(&mut self, message: &[u8], error: SendError) -> Result<(), Failure> {
        match error {
            SendError::Interrupted if self.moved() => self.feed(message),
            SendError::TooLarge { .. } | SendError::Unframable(_) => Err(self.misfit(&error)),
            error => Err(self.failure(error)),
        }
    }

    fn push(&mut self) -> Result<(), Failure> {
        self.progress.at(self.sender.sent(), self.bytes);
        loop {
            match self.sender.push() {
                Ok(()) => return Ok(()),
                Err(SendError::Interrupted) if self.moved() => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
    }

    // ---- bytes ----

    /// Standard input is read straight into the messages of the link.
    fn raw_in_place(&mut self, input: &Input) -> Result<(), Failure> {
        let mut chunk = BLOCK_BYTES;
        loop {
            self.wait_for_input(input)?;
            self.start_clock();
            match self.sender.send_filled(chunk, |room| input.read(room)) {
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(n)) => self.bytes += n as u64,
                Ok(Err(error)) => return Err(self.unreadable(error)),
                // One side takes less: nothing was read, and smaller pieces will do.
                Err(SendError::TooLarge { limit_bytes, .. })
                    if (1..chunk).contains(&limit_bytes) =>
                {
                    chunk = limit_bytes;
                }
                Err(SendError::Interrupted) if self.moved() => {}
                Err(error) => return Err(self.failure(error)),
            }
            self.progress.at(self.sender.sent(), self.bytes);
        }
    }

    /// Standard input is read into a buffer, and sent in pieces as large as they may be.
    fn raw_copied(&mut self, input: &Input) -> Result<(), Failure> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut chunk = BLOCK_BYTES;
        loop {
            let n = self.read(input, &mut block)?;
            if n == 0 {
                return Ok(());
            }
            self.start_clock();
            let mut rest = &block[..n];
            while !rest.is_empty() {
                let piece = &rest[..rest.len().min(chunk)];
                match self.sender.send_bytes_with_priority(piece, self.priority.unwrap_or(0)) {
                    Ok(()) => {
                        self.bytes += piece.len() as u64;
                        rest = &rest[piece.len()..];
                    }
                    Err(SendError::TooLarge { limit_bytes, .. }) if piece.len() > 1 => {
                        chunk = limit_bytes.clamp(1, piece.len() - 1);
                    }
                    Err(SendError::Interrupted) if self.moved() => {}
                    Err(error) => return Err(self.failure(error)),
                }
            }
            self.progress.at(self.sender.sent(), self.bytes);
        }
    }

    // ---- reading ----

    fn read(&mut self, input: &Input, room: &mut [u8]) -> Result<usize, Failure> {
        self.wait_for_input(input)?;
        input.read(room).map_err(|error| self.unreadable(error))
    }

    fn wait_for_input(&mut self, input: &Input) -> Result<(), Failure> {
        self.interrupt.stop_clock();
        match input.wait(self.interrupt, &mut self.sender, self.connects) {
            Ok(()) => Ok(()),
            Err(ReadStop::Send(error)) => Err(self.failure(error)),
            Err(ReadStop::Failed(error)) => Err(self.unreadable(error)),
        }
    }

    // ---- the clock ----

    fn start_clock(&mut self) {
        self.acknowledged_before = self.sender.acknowledged();
        self.interrupt.start_clock();
    }

    /// After a wait was ended: whether it was the clock, and receivers were not idle meanwhile.
    fn moved(&mut self) -> bool {
        if self.interrupt.is_signalled() || self.sender.acknowledged() <= self.acknowledged_before {
            return false;
        }
        self.start_clock();
        true
    }

    // ---- the end ----

    /// Waits until everything is acknowledged, and says the end.
    fn settle(&mut self) -> Result<(), Failure> {
        self.start_clock();
        loop {
            match self.sender.flush(None) {
                Ok(()) => break,
                Err(SendError::Interrupted) if self.moved() => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
        self.start_clock();
        self.sender.finish().map_err(|error| self.unsettled(error))
    }

    fn unsettled(&self, error: CloseError) -> Failure {
        if error.rejected > 0 {
            let message = format!("{}: {error}; {}", self.sender.address(), self.account());
            return Failure::new(Exit::Failed, message)
                .hint("the receivers' standard error says why they gave them back");
        }
        self.failure(error.reason)
    }

    /// A message cannot be sent as it is. What came before it is delivered all the same.
    fn misfit(&mut self, error: &SendError) -> Failure {
        let hint = match error {
            // A stream of bytes does not go over datagrams that get lost.
            SendError::TooLarge { .. } if self.sender.address().scheme() == "udp" => {
                "split the message, or use a transport that takes more: switchboard transports"
            }
            SendError::TooLarge { .. } => {
                "send a file with --raw, split the message, or use a transport that takes more: \
                 switchboard transports"
            }
            _ => "choose another framing (?framing=length) on both sides, or another transport",
        };
        self.after_delivery(&error.to_string(), hint)
    }

    fn malformed(&mut self, problem: &str) -> Failure {
        self.after_delivery(&format!("standard input: {problem}"), "what follows it was not sent")
    }

    fn after_delivery(&mut self, problem: &str, hint: &str) -> Failure {
        let number = self.sender.sent() + 1;
        if let Err(failure) = self.push().and_then(|()| self.settle()) {
            failure.report();
        }
        let message = format!("message {number}: {problem}; {}", self.account());
        Failure::new(Exit::Failed, message).hint(hint)
    }

    fn unreadable(&self, error: switchboard_kernel::Error) -> Failure {
        system("cannot read standard input", error)
    }

    fn failure(&self, error: SendError) -> Failure {
        let address = self.sender.address();
        match error {
            SendError::Interrupted => self.interrupt.failure(&self.account()),
            SendError::Failed(error) => Failure::from(error).adding(&self.account()),
            SendError::PeerDied { .. } => {
                let message = format!("{address}: the receiver is gone; {}", self.account());
                let failure = Failure::new(Exit::Failed, message);
                if self.format != Format::Raw {
                    return failure;
                }
                failure.hint("a stream of bytes cannot be resumed: start both sides again")
            }
            SendError::Slow { peer } => {
                let address = output::shown(&format!("{address}: {peer} is too slow"));
                Failure::new(Exit::Failed, format!("{address}; {}", self.account())).hint(
                    "?overflow=drop-oldest lets it miss messages instead, and ?capacity= lets more wait",
                )
            }
            // Only without waiting: otherwise there is room in time, or the clock runs out.
            SendError::Full => {
                let message = format!("{address}: it is full; {}", self.account());
                Failure::new(Exit::Nothing, message)
                    .hint("start a receiver, or leave out --no-wait to wait for one")
            }
            error => Failure::new(Exit::Failed, format!("{address}: {error}; {}", self.account())),
        }
    }

    /// What was done.
    fn account(&self) -> String {
        if self.format == Format::Raw {
            return format!("{} sent, the stream is not complete", counted(self.bytes, "byte"));
        }
        let (sent, open) = (self.sender.sent(), self.sender.unacknowledged());
        if let Some(slow) = self.sender.slow_peer() {
            let (sent, slow) = (counted(sent, "message"), output::shown(&slow));
            return format!("{sent} sent, {open} not taken by {slow}");
        }
        format!("{} sent, {open} not acknowledged", counted(sent, "message"))
    }
}
