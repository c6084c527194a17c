//! The answering end of a service: a ring of calls from each client, and a ring of answers to each.
//!
//! A call is settled before it is handed out: so a client knows of each call whether it can have begun,
//! whatever becomes of this process.

mod answering;
mod clients;
mod taking;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;

use super::both::Both;
use super::calling;
use super::control::LinkId;
use super::ends::End;
use super::hello::{Id, LARGEST_WINDOW, Pattern};
use super::meeting::Pair;
use super::receiver::ReceiverCore;
use super::sender::SenderCore;
use crate::error::{Error, RecvError};
use crate::pattern::service::CallState;
use crate::transport::{Receipt, Setup};

use clients::{Begun, Client, Clients};

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
