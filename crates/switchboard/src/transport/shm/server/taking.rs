//! How calls are taken: what comes of each frame, and what is looked for behind a call before it is handed out.

use std::time::{Duration, Instant};

use super::clients::Begun;
use super::{ShmServer, TakenCall, Waiting};
use crate::error::{Error, ErrorKind, RecvError};
use crate::link::failure_body;
use crate::pattern::service::Code;
use crate::transport::Receipt;
use crate::transport::service_flavor::{Now, Request};
use crate::transport::shm::calling::{self, CALL, CALL_WITH_TIME, CANCEL, FAIL, GRANT};
use crate::transport::shm::control::LinkId;
use crate::transport::shm::ends::Judged;

/// Frames looked at for one call at most: cancels and grants among them.
const IN_A_LOOK: usize = 256;
const NOT_SENT: &str = "it took parts that were not sent";

/// What one frame was.
enum Frame {
    /// A call: number, until when, and how many bytes come before the request.
    Call(u64, Option<Instant>, usize),
    Cancel(u64),
    Grant(u64, u64),
}

impl ShmServer {
    /// The request of the call that comes next, which is [taken](Self::taken) then: a short cut, after which
    /// [`take`](Self::take) does the rest.
    pub(crate) fn take_request(&mut self) -> Now<'_> {
        if self.clients.have_unsaid() || !self.waiting.is_empty() {
            return Now::Else;
        }
        let next = if self.idle { self.take_plain() } else { self.take_next() };
        match next {
            Ok(Some(true)) => Now::Taken(self.request()),
            Ok(None) if self.has_nothing_to_tell() => Now::Nothing,
            Ok(_) => Now::Else,
            Err(error) => {
                self.reports.push_back(error);
                Now::Else
            }
        }
    }

    /// What there is to know of the call that was taken.
    #[inline(never)]
    pub(crate) fn taken(&self) -> Receipt {
        self.taken.receipt
    }

    /// When its client waits no more.
    pub(crate) fn taken_until(&self) -> Option<Instant> {
        self.taken.until
    }

    fn request(&self) -> &[u8] {
        let calls = self.calls.as_ref();
        calls.and_then(|calls| calls.lent_payload().get(self.taken.before..)).unwrap_or_default()
    }

    /// Takes a call that found this side waiting, where there is nothing particular about it: a short cut. Behind such a
    /// one nothing is looked for: that would be another line of the cache that has to come.
    #[inline(always)]
    fn take_plain(&mut self) -> Result<Option<bool>, RecvError> {
        let Self { calls, clients, .. } = self;
        let Some(calls) = calls else { return Ok(None) };
        let judged = calls.take_judged(|receipt, bytes| {
            let (kind, number, _) = calling::read(bytes)?;
            (kind == CALL && clients.begin_plain(receipt.connection, number))
                .then_some(Receipt { connection: receipt.connection, sequence: number })
        });
        match judged {
            Judged::Settled(receipt) => {
                self.idle = false;
                self.taken = TakenCall { receipt, until: None, before: calling::WORD_BYTES };
                Ok(Some(true))
            }
            Judged::Nothing => Ok(None),
            Judged::Taken => self.heed_taken(),
            Judged::Unknown => self.take_next(),
        }
    }

    /// Heeds the frame that was taken, which the short cut did not.
    #[inline(never)]
    fn heed_taken(&mut self) -> Result<Option<bool>, RecvError> {
        self.idle = false;
        match self.parse_taken() {
            Some((frame, what)) => Ok(Some(self.begin_or_heed(frame, &what))),
            None => Ok(None),
        }
    }

    /// Takes what comes next. Whether it is a call that can be handed out; `None` where nothing came.
    #[inline(always)]
    fn take_next(&mut self) -> Result<Option<bool>, RecvError> {
        let idle = std::mem::take(&mut self.idle);
        let Some((frame, what)) = self.next()? else { return Ok(None) };
        // As in the short cut.
        if let Frame::Call(number, until, before) = what
            && !idle
            && self.is_followed()
        {
            // It may be cancelled already.
            self.keep(frame, number, until, before);
            self.read_ahead();
            return Ok(Some(false));
        }
        Ok(Some(self.begin_or_heed(frame, &what)))
    }

    /// Whether what was taken is a call that can be handed out.
    #[inline(always)]
    fn begin_or_heed(&mut self, frame: Receipt, what: &Frame) -> bool {
        let Frame::Call(number, until, before) = *what else {
            self.heed(frame, what);
            return false;
        };
        let begins = self.begin((frame.connection, frame), number, until, false);
        if begins {
            let receipt = Receipt { connection: frame.connection, sequence: number };
            self.taken = TakenCall { receipt, until, before };
        }
        begins
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Request<'_>)) -> Result<bool, RecvError> {
        if self.clients.have_unsaid() {
            self.say_on();
        }
        for _ in 0..IN_A_LOOK {
            if let Some(call) = self.waiting.pop_front() {
                self.waiting_bytes -= call.request.len();
                if let Some(at) = self.clients.find(call.client) {
                    self.clients.all[at].waiting -= 1;
                }
                if self.begin((call.client, call.frame), call.number, call.until, call.cancelled) {
                    let receipt = Receipt { connection: call.client, sequence: call.number };
                    with(Request { receipt, bytes: &call.request, deadline: call.until });
                    return Ok(true);
                }
                continue;
            }
            match self.take_next()? {
                None => break,
                Some(false) => {}
                Some(true) => {
                    let TakenCall { receipt, until: deadline, .. } = self.taken;
                    with(Request { receipt, bytes: self.request(), deadline });
                    return Ok(true);
                }
            }
        }
        self.before_empty();
        self.tell_of_crowd();
        match self.reports.pop_front() {
            Some(report) => Err(report),
            None => Ok(false),
        }
    }

    /// Nothing is there: in a caller's event loop its descriptor will tell of clients, and of room for what is unsaid.
    pub(super) fn before_empty(&mut self) {
        if self.answers.is_by_caller() {
            self.answers.look_at_control();
            self.say_on();
            while self.clients.have_unsaid() && self.answers.arm_descriptor() {
                self.say_on();
            }
        }
    }

    #[inline]
    fn has_nothing_to_tell(&self) -> bool {
        let crowded = self.pair.crowd() > 0 && !self.crowded;
        self.reports.is_empty() && !crowded && !self.answers.is_by_caller()
    }

    /// Says once that clients have to wait, because there are not descriptors for all.
    fn tell_of_crowd(&mut self) {
        let clients = self.pair.crowd();
        if self.crowded || clients == 0 {
            return;
        }
        self.crowded = true;
        let problem = format!(
            "no descriptors are left for a further client (RLIMIT_NOFILE), with {clients} here: it waits for one to leave"
        );
        let error = Error::new(ErrorKind::LimitReached, &self.setup.address, problem)
            .hint("raise the limit (ulimit -n); a client takes 5 descriptors, and more while its call is answered");
        self.reports.push_back(RecvError::Failed(error));
    }

    /// The next frame of any client.
    #[inline(always)]
    fn next(&mut self) -> Result<Option<(Receipt, Frame)>, RecvError> {
        let Some(calls) = &mut self.calls else { return Ok(None) };
        match calls.copy_next() {
            Ok(true) => {}
            Ok(false) => {
                self.idle = true;
                return Ok(None);
            }
            Err(RecvError::PeerDied { .. } | RecvError::Ended) => {
                self.forget_the_gone();
                return Ok(None);
            }
            Err(error @ (RecvError::PeerMisbehaved { .. } | RecvError::PeerRefused { .. })) => {
                self.reports.push_back(error);
                self.forget_the_gone();
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        Ok(self.parse_taken())
    }

    /// What was taken.
    #[inline(always)]
    fn parse_taken(&mut self) -> Option<(Receipt, Frame)> {
        let calls = self.calls.as_ref()?;
        let frame = calls.lent_receipt();
        let what = parse(calls.lent_payload());
        if what.is_none() {
            self.turn_away(frame.connection, "a call of no kind");
        }
        what.map(|what| (frame, what))
    }

    /// Settles a call, and hands it out; or says that it does not begin.
    #[inline(always)]
    fn begin(
        &mut self,
        (client, frame): (LinkId, Receipt),
        number: u64,
        until: Option<Instant>,
        cancelled: bool,
    ) -> bool {
        let Some(at) = self.place_for(client, number) else { return false };
        let Some(calls) = &mut self.calls else { return false };
        // From here on its client counts it as begun.
        if !calls.acknowledge(frame) {
            return false;
        }
        let one = &mut self.clients.all[at];
        if cancelled || until.is_some_and(|until| until <= Instant::now()) {
            let (code, text) = match cancelled {
                false => (Code::DeadlineExceeded, "its time was over before it began"),
                true => (Code::Cancelled, "it was cancelled before it began"),
            };
            let mut said = calling::begin(FAIL, number);
            said.extend_from_slice(&failure_body(code as u16, text, &[]));
            self.clients.keep(at, said);
            self.say_on();
            return false;
        }
        one.begun.push(Begun { number, until, cancelled: false, ahead: (0, 0) });
        true
    }

    /// The client that makes a call, if it may: else it is turned away.
    #[inline(always)]
    fn place_for(&mut self, client: LinkId, number: u64) -> Option<usize> {
        let at = match self.clients.find(client) {
            Some(at) => at,
            None => {
                let id = self.calls.as_mut()?.call(|core, _| Ok::<_, Error>(core.id_of(client)));
                self.clients.add(client, id.ok()??)
            }
        };
        let one = &self.clients.all[at];
        let problem = if one.begun.iter().any(|one| one.number == number) {
            "it makes a call that it has open"
        } else if one.open() >= self.clients.window {
            "it has more calls open than it may"
        } else {
            return Some(at);
        };
        self.turn_away(client, problem);
        None
    }

    /// Heeds what a client says of its calls.
    fn heed(&mut self, frame: Receipt, what: &Frame) {
        let client = frame.connection;
        let Some(calls) = &mut self.calls else { return };
        calls.acknowledge(frame);
        let (Frame::Call(number, ..) | Frame::Cancel(number) | Frame::Grant(number, _)) = *what;
        let mut waiting = self.waiting.iter_mut();
        let waits = waiting.find(|one| one.client == client && one.number == number);
        let at = self.clients.find(client);
        let begun = at.and_then(|at| self.clients.all[at].begun(number));
        match (what, begun, waits) {
            (Frame::Cancel(_), Some(begun), _) => begun.cancelled = true,
            (Frame::Cancel(_), None, Some(waits)) => waits.cancelled = true,
            (Frame::Grant(_, len), Some(begun), _) => {
                let (parts, bytes) = begun.ahead;
                match (parts.checked_sub(1), bytes.checked_sub(*len)) {
                    (Some(parts), Some(bytes)) => begun.ahead = (parts, bytes),
                    _ => self.turn_away(client, NOT_SENT),
                }
            }
            (Frame::Grant(..), None, Some(_)) => self.turn_away(client, NOT_SENT),
            // What is over is not waited for.
            _ => {}
        }
    }

    /// Reads what clients say behind calls that wait.
    pub(super) fn read_ahead(&mut self) {
        let most = self.setup.options.prefetch_bytes.max(1) as usize;
        for _ in 0..IN_A_LOOK {
            if self.waiting_bytes > most {
                return;
            }
            match self.next() {
                Ok(Some((frame, Frame::Call(number, until, before)))) => {
                    self.is_followed();
                    self.keep(frame, number, until, before);
                }
                Ok(Some((frame, what))) => self.heed(frame, &what),
                Ok(None) => return,
                Err(error) => return self.reports.push_back(error),
            }
        }
    }

    /// Whether its client said something behind a call that was just taken; the others have their turn then.
    #[inline]
    fn is_followed(&mut self) -> bool {
        let Some(calls) = &mut self.calls else { return false };
        calls.call(|core, _| Ok::<_, Error>(core.end_turn())).unwrap_or(false)
    }

    /// Keeps a call that was taken, unsettled.
    fn keep(&mut self, frame: Receipt, number: u64, until: Option<Instant>, before: usize) {
        let client = frame.connection;
        if self.waiting.iter().any(|one| one.client == client && one.number == number) {
            return self.turn_away(client, "it makes a call that it has open");
        }
        let Some(at) = self.place_for(client, number) else { return };
        let Some(calls) = &mut self.calls else { return };
        self.clients.all[at].waiting += 1;
        let request = calls.lent_payload().get(before..).unwrap_or_default().to_vec();
        self.waiting_bytes += request.len();
        let cancelled = false;
        self.waiting.push_back(Waiting { client, frame, number, until, cancelled, request });
    }
}

/// What a frame says.
#[inline]
fn parse(bytes: &[u8]) -> Option<Frame> {
    let (kind, number, rest) = calling::read(bytes)?;
    Some(match kind {
        CALL => Frame::Call(number, None, 8),
        CALL_WITH_TIME => {
            let (micros, _) = calling::number(rest)?;
            let until = Instant::now().checked_add(Duration::from_micros(micros));
            Frame::Call(number, until, 16)
        }
        CANCEL => Frame::Cancel(number),
        GRANT => Frame::Grant(number, calling::number(rest)?.0),
        _ => return None,
    })
}
