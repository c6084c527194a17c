//! The answering end of a service: a ring of calls from each client, and a ring of answers to each.
//!
//! A call is settled before it is handed out: so a client knows of each call whether it can have begun,
//! whatever becomes of this process.

mod answering;
mod clients;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;

use super::both::Both;
use super::calling::{self, CALL, CALL_WITH_TIME, CANCEL, FAIL, GRANT};
use super::control::LinkId;
use super::ends::End;
use super::hello::{Id, LARGEST_WINDOW, Pattern};
use super::meeting::Pair;
use super::receiver::ReceiverCore;
use super::sender::SenderCore;
use crate::error::{Error, ErrorKind, RecvError};
use crate::link::failure_body;
use crate::pattern::service::{CallState, Code};
use crate::transport::service_flavor::{Now, Request};
use crate::transport::{Receipt, Setup};

use clients::{Begun, Client, Clients};

/// Frames looked at for one call at most: cancels and grants among them.
const IN_A_LOOK: usize = 256;
/// While something is waited for that no word tells.
const SOON: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct ShmServer {
    setup: Setup,
    /// The longest reply that this side allows.
    longest: usize,
    /// None once no more calls are taken.
    calls: Option<End<ReceiverCore>>,
    answers: End<SenderCore>,
    /// Those who have calls here, by their links.
    clients: Clients,
    pair: Arc<Pair>,
    /// It was told that clients have to wait.
    crowded: bool,
    /// Calls that were read because something behind them was looked for, and are not settled.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// The last look found no call.
    idle: bool,
    taken: TakenCall,
    reports: VecDeque<RecvError>,
    both: Both,
}

/// A call that was read and not handed out.
#[derive(Debug)]
struct Waiting {
    client: LinkId,
    /// The frame, which is settled when it is handed out.
    frame: Receipt,
    number: u64,
    until: Option<Instant>,
    cancelled: bool,
    request: Vec<u8>,
}

/// The call that was taken last, and not kept before.
#[derive(Debug, Default)]
struct TakenCall {
    receipt: Receipt,
    until: Option<Instant>,
    /// Where its request begins in what was received.
    before: usize,
}

/// What one frame was.
enum Frame {
    /// A call: number, until when, and how many bytes come before the request.
    Call(u64, Option<Instant>, usize),
    Cancel(u64),
    Grant(u64, u64),
}

impl ShmServer {
    pub(crate) fn open(setup: &Setup) -> Result<Self, Error> {
        let id = Id::random().map_err(|error| setup.system("cannot open", error))?;
        let below = calling::below(setup);
        let pair = Arc::new(Pair::default());
        let mut answers = SenderCore::open_addressed(below.again(), (Pattern::Answers, id))?;
        answers.pair_up(&pair);
        let answers = End::around(answers, &below)?;
        let mut reading = below.again();
        // Clients come and go.
        reading.options = reading.options.follow(true);
        let mut calls = ReceiverCore::open_as(reading.again(), (Pattern::Service, id))?;
        calls.control.pair_up(&pair);
        let calls = Some(End::around(calls, &reading)?);
        let window = below.options.prefetch_messages.clamp(1, LARGEST_WINDOW) as usize;
        Ok(Self {
            longest: calling::longest(below.largest_message_bytes().into()),
            setup: below,
            calls,
            answers,
            clients: Clients::new(window),
            pair,
            crowded: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            idle: false,
            taken: TakenCall::default(),
            reports: VecDeque::new(),
            both: Both::default(),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match &self.calls {
            Some(calls) => self.both.fd(&self.answers, calls),
            None => self.answers.fd(),
        }
    }

    pub(crate) fn peers(&self) -> usize {
        self.answers.peers()
    }

    /// The request of the call that comes next, which is [taken](Self::taken) then: a short cut, after which
    /// [`take`](Self::take) does the rest.
    pub(crate) fn take_request(&mut self) -> Now<'_> {
        if self.clients.have_unsaid() || !self.waiting.is_empty() {
            return Now::Else;
        }
        match self.take_next() {
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

    /// Takes what comes next. Whether it is a call that can be handed out; `None` where nothing came.
    #[inline(always)]
    fn take_next(&mut self) -> Result<Option<bool>, RecvError> {
        let idle = std::mem::take(&mut self.idle);
        let Some((frame, what)) = self.next()? else { return Ok(None) };
        let Frame::Call(number, until, before) = what else {
            self.heed(frame, &what);
            return Ok(Some(false));
        };
        // Behind one that found this side waiting nothing is looked for: that would be another line of the
        // cache that has to come.
        if !idle && self.is_followed() {
            // It may be cancelled already.
            self.keep(frame, number, until, before);
            self.read_ahead();
            return Ok(Some(false));
        }
        let begins = self.begin((frame.connection, frame), number, until, false);
        if begins {
            let receipt = Receipt { connection: frame.connection, sequence: number };
            self.taken = TakenCall { receipt, until, before };
        }
        Ok(Some(begins))
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
    fn before_empty(&mut self) {
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
        let frame = calls.lent_receipt();
        let what = parse(calls.lent_payload());
        if what.is_none() {
            self.turn_away(frame.connection, "a call of no kind");
        }
        Ok(what.map(|what| (frame, what)))
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
    fn read_ahead(&mut self) {
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

    /// Ends the links of a client that broke the protocol.
    #[cold]
    fn turn_away(&mut self, client: LinkId, problem: &str) {
        let Some(calls) = &mut self.calls else { return };
        let turned = calls.call(|core, _| {
            let id = core.id_of(client);
            if let Some(at) = core.position(client) {
                core.turn_away(at, problem);
            }
            Ok::<_, RecvError>(id)
        });
        if let Ok(Some(id)) = turned {
            let _ = self.answers.call(|core, _| {
                core.turn_away_id(id, problem);
                Ok::<_, Error>(())
            });
        }
        self.forget_the_gone();
    }

    /// Drops what was asked by clients that are gone.
    #[cold]
    fn forget_the_gone(&mut self) {
        for at in 0..self.clients.all.len() {
            let Client { link, id, ref unsaid, .. } = self.clients.all[at];
            if !unsaid.is_empty() && self.is_gone(link, id) {
                let one = &mut self.clients.all[at];
                self.clients.unsaid -= one.unsaid.len();
                one.unsaid.clear();
            }
        }
        if let Some(calls) = &mut self.calls {
            let clients = &mut self.clients;
            let _ = calls.call(|core, _| {
                clients.all.retain(|one| one.open() > 0 || core.position(one.link).is_some());
                Ok::<_, Error>(())
            });
        }
        let _ = self.answers.call(|core, _| {
            core.take_returned();
            Ok::<_, Error>(())
        });
    }

    /// Whether a client is there no more. One whose calls come before the link for its answers does is there.
    fn is_gone(&mut self, link: LinkId, id: Id) -> bool {
        if self.has(id) {
            return false;
        }
        let Some(calls) = &mut self.calls else { return true };
        let calls = calls.call(|core, _| Ok::<_, Error>(core.position(link).is_some()));
        !calls.unwrap_or(false)
    }

    /// Puts a failure in the place of the next answer to a client, if that is longer than it takes.
    #[cold]
    fn shorten(&mut self, at: usize) -> bool {
        let id = self.clients.all[at].id;
        let Some(said) = self.clients.all[at].unsaid.front_mut() else { return false };
        let Some((_, number, rest)) = calling::read(said) else { return false };
        let len = rest.len();
        let limit = self.answers.call(|core, _| {
            let one = core.addressees().find(|one| one.id == id);
            Ok::<_, Error>(one.map(|one| calling::longest(one.largest)))
        });
        let Some(limit) = limit.ok().flatten().filter(|limit| len > *limit) else { return false };
        let text =
            format!("the reply has {len} bytes, and its client takes {limit} (?max-message=)");
        *said = calling::begin(FAIL, number);
        said.extend_from_slice(&failure_body(Code::ResourceExhausted as u16, &text, &[]));
        true
    }

    pub(crate) fn state(&mut self, receipt: Receipt) -> CallState {
        self.answers.look_at_control();
        self.read_ahead();
        let Some((at, begun)) = self.clients.begun(receipt) else { return CallState::Cancelled };
        let one = &self.clients.all[at];
        let (id, link, Begun { until, cancelled, .. }) = (one.id, one.link, one.begun[begun]);
        if self.is_gone(link, id) {
            return CallState::ClientGone;
        }
        match until {
            _ if cancelled => CallState::Cancelled,
            Some(until) if until <= Instant::now() => CallState::DeadlinePassed,
            _ => CallState::Wanted,
        }
    }

    pub(crate) fn has_call(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn look(&mut self) -> Result<(), RecvError> {
        self.say_on();
        self.read_ahead();
        self.before_empty();
        self.reports.pop_front().map_or(Ok(()), Err)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        if !self.waiting.is_empty() || !self.reports.is_empty() {
            return Ok(());
        }
        self.sleep(deadline)
    }

    fn sleep(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        let for_room = self.clients.have_unsaid();
        let Some(calls) = &mut self.calls else { return Ok(self.answers.sleep(deadline)?) };
        if calls.is_by_caller() || self.answers.is_by_caller() {
            let answers = (&mut self.answers, for_room);
            return Ok(self.both.wait(calls, answers, deadline)?);
        }
        calls.wait(if for_room { deadline.min(Deadline::after(SOON)) } else { deadline })
    }

    /// Waits for room in a client's ring, or for it to take parts.
    pub(crate) fn wait_for_room(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        if self.setup.is_cancelled() {
            return Err(RecvError::Interrupted);
        }
        self.say_on();
        self.sleep(deadline.min(Deadline::after(SOON)))?;
        self.read_ahead();
        Ok(())
    }

    /// Whether a client has an answer to come, and the link for answers is not there yet.
    fn is_halfway(&mut self) -> bool {
        let Some(calls) = &mut self.calls else { return false };
        calls.look_at_control();
        (0..self.clients.all.len()).any(|at| {
            let Client { link, id, ref begun, ref unsaid, .. } = self.clients.all[at];
            let is_open = !(begun.is_empty() && unsaid.is_empty());
            is_open && !self.has(id) && !self.is_gone(link, id)
        })
    }

    pub(crate) fn finish(&mut self) -> Result<bool, RecvError> {
        self.answers.look_at_control();
        self.say_on();
        if self.is_halfway() {
            return Ok(false);
        }
        self.waiting.clear();
        self.waiting_bytes = 0;
        // What was not settled goes back to its clients.
        self.calls = None;
        let answers = &mut self.answers;
        let mut has =
            |id: Id| answers.call(|core, _| Ok::<_, Error>(core.has(id))).unwrap_or(false);
        self.clients.all.retain(|one| has(one.id));
        let open = |one: &Client| !(one.begun.is_empty() && one.unsaid.is_empty());
        Ok(!self.clients.all.iter().any(open))
    }
}

impl Drop for ShmServer {
    fn drop(&mut self) {
        self.calls = None;
        self.say_on();
        let _ = self.answers.leave();
    }
}

const NOT_SENT: &str = "it took parts that were not sent";

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
