//! Messages on standard output: gathered into large writes, acknowledged once written.

use std::io::IsTerminal;
use std::time::Instant;

use switchboard::{Incoming, Ticket};

use super::numbers::{Number, Numbers};
use super::{Next, Receiving, Remarks};
use crate::endpoint::ends_with_empty;
use crate::exit_code::Exit;
use crate::format::{self, Format, Unwritable};
use crate::interrupt::Interrupt;
use crate::output::{self, Failure, Outcome, excerpt, system};
use crate::progress::Progress;
use crate::standard_streams::{Output, WriteStop};

/// Messages taken in one go.
const BATCH: u64 = 4096;
/// Bytes from which on a piece of a stream is written straight from where it was received.
const LARGE_BYTES: usize = 64 << 10;
/// Gathered output is written once it is this long, or nothing more is there.
const GATHER_BYTES: usize = 1 << 20;

impl Receiving<'_> {
    /// Prints messages until the end.
    pub(super) fn print(mut self) -> Outcome {
        let mut page = Page::new(&self);
        let result = self.print_all(&mut page);
        page.progress.end(self.received, page.written_bytes);
        self.sum_up();
        result
    }

    fn print_all(&mut self, page: &mut Page<'_>) -> Outcome {
        while self.received < self.count && !page.ended {
            let most = (self.count - self.received).min(BATCH) as usize;
            let wait = self.wait();
            let numbers = &mut self.numbers;
            let result = self.receiver.recv_each(most, wait, |message, ticket| {
                page.take(&message, ticket, numbers);
                false
            });
            self.hand_over(page)?;
            if let Err(error) = result {
                match self.after(error)? {
                    Next::End => break,
                    Next::GoOn => {}
                }
            }
        }
        match self.receiver.flush() {
            Ok(()) => Ok(self.exit),
            Err(error) => self.after(error).map(|_| self.exit),
        }
    }

    /// Writes what was gathered; then acknowledges it.
    fn hand_over(&mut self, page: &mut Page<'_>) -> Result<(), Failure> {
        page.write_out();
        self.bytes = page.written_bytes;
        if let Some(stop) = page.stopped.take() {
            return Err(match stop {
                WriteStop::Closed => Failure::quiet(),
                WriteStop::Interrupted => self.interrupt.failure(&self.account()),
                WriteStop::Failed(error) => system("cannot write to standard output", error),
            });
        }
        if !page.tickets.is_empty() || !page.refused.is_empty() {
            self.idle_since = Instant::now();
            self.tell = false;
        }
        self.received += page.tickets.len() as u64;
        if let Err(error) = self.receiver.acknowledge_tickets(&page.tickets) {
            self.after(error)?;
        }
        page.tickets.clear();
        for remarks in page.remarks.drain(..) {
            page.progress.aside(|| self.remark(remarks));
        }
        page.progress.at(self.received, page.written_bytes);
        self.give_back(page);
        Ok(())
    }

    /// Gives back what the format cannot hold; the others go on.
    fn give_back(&mut self, page: &mut Page<'_>) {
        for refused in page.refused.drain(..) {
            self.exit = Exit::Failed;
            let rejected = self.receiver.give_back_ticket(refused.ticket);
            // It is said once of a message, however often that comes again.
            if refused.number.known {
                continue;
            }
            let Refused { number, problem, excerpt, .. } = &refused;
            let fate = self.fate(rejected);
            let advice = problem.advice().filter(|_| !std::mem::replace(&mut page.advised, true));
            page.progress.aside(|| {
                let address = &self.address;
                output::warn(&format!("{address}: {number} {problem}; {fate}: {excerpt}"));
                advice.into_iter().for_each(output::advise);
            });
        }
    }
}

/// What one batch of messages comes to.
struct Page<'a> {
    format: Format,
    empty_ends: bool,
    interrupt: &'a Interrupt,
    out: Output,
    bytes: Vec<u8>,
    /// Written, or to be written: acknowledged after that.
    tickets: Vec<Ticket>,
    refused: Vec<Refused>,
    remarks: Vec<Remarks>,
    written_bytes: u64,
    progress: Progress,
    /// An empty message said the end.
    ended: bool,
    /// Nothing more is to be taken: what comes now goes back untouched.
    full_stop: bool,
    stopped: Option<WriteStop>,
    /// What to do about messages that do not fit was said.
    advised: bool,
}

struct Refused {
    ticket: Ticket,
    number: Number,
    problem: Unwritable,
    excerpt: String,
}

impl<'a> Page<'a> {
    fn new(receiving: &Receiving<'a>) -> Self {
        let raw = receiving.format == Format::Raw;
        Self {
            format: receiving.format,
            empty_ends: raw && ends_with_empty(receiving.transport()),
            interrupt: receiving.interrupt,
            out: Output::new(),
            bytes: Vec::new(),
            tickets: Vec::new(),
            refused: Vec::new(),
            remarks: Vec::new(),
            written_bytes: 0,
            progress: Progress::new(std::io::stdout().is_terminal(), raw),
            ended: false,
            full_stop: false,
            stopped: None,
            advised: false,
        }
    }

    /// Takes a message as it is received.
    #[inline]
    fn take(&mut self, message: &Incoming<'_>, ticket: Ticket, numbers: &mut Numbers) {
        if self.full_stop || self.ended {
            return;
        }
        let number = numbers.of(message.bytes, message.deliveries);
        if message.redelivered || message.lost_before > 0 {
            self.remarks.push(Remarks {
                number,
                redelivered: message.redelivered,
                lost_before: message.lost_before,
            });
        }
        if self.format == Format::Raw {
            return self.take_raw(message.bytes, ticket);
        }
        match format::write(self.format, message.bytes, &mut self.bytes) {
            Ok(()) => self.tickets.push(ticket),
            Err(problem) => {
                numbers.give_back(number, numbers.hash(message.bytes));
                let excerpt = excerpt(message.bytes);
                self.refused.push(Refused { ticket, number, problem, excerpt });
            }
        }
        if self.bytes.len() >= GATHER_BYTES {
            self.write_out();
        }
    }

    fn take_raw(&mut self, bytes: &[u8], ticket: Ticket) {
        if bytes.is_empty() && self.empty_ends {
            self.ended = true;
        } else if bytes.len() >= LARGE_BYTES {
            self.write_out();
            self.write(bytes);
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        if !self.full_stop {
            self.tickets.push(ticket);
        }
    }

    fn write_out(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.write(&bytes);
        self.bytes = bytes;
        self.bytes.clear();
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.stopped.is_some() {
            return;
        }
        match self.out.write(bytes, self.interrupt) {
            Ok(()) => self.written_bytes += bytes.len() as u64,
            Err(stop) => {
                self.full_stop = true;
                self.stopped = Some(stop);
            }
        }
    }
}
