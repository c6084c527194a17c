//! The calling end of a service: a ring of calls to each server, and a ring of answers from each.
//!
//! A call that a server has settled was being handed to its program; one that was not by the time the server
//! went never began. `docs/design/service.md` has the tables.

mod gone;
mod open;
mod servers;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;

use super::both::Both;
use super::calling::{self, CALL, CALL_WITH_TIME, CANCEL, DONE, FAIL, GRANT, PART, REPLY};
use super::control::LinkId;
use super::ends::{End, Judged};
use super::hello::{Id, LARGEST_WINDOW, Pattern};
use super::meeting::Pair;
use super::receiver::ReceiverCore;
use super::sender::SenderCore;
use crate::error::{Error, SendError};
use crate::pattern::service::CallError;
use crate::transport::service_flavor::{Ending, Heard, Now};
use crate::transport::{Receipt, Setup};

use open::Open;
use servers::Server;

/// Answers taken in one look.
const IN_A_LOOK: usize = 256;
/// While something changes that no word tells.
const SOON: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct ShmClient {
    setup: Setup,
    /// The longest request that this side allows.
    longest: usize,
    calls: End<SenderCore>,
    answers: End<ReceiverCore>,
    servers: Vec<Server>,
    /// What is known of servers that have calls, for people.
    names: Vec<(Id, String)>,
    /// The news of both ends when the servers were looked at last.
    known: Option<(u32, u32)>,
    open: Open,
    /// Calls that no server began, whose server went.
    backlog: VecDeque<(u64, Vec<u8>)>,
    /// What is to be said to a server that had no room.
    unsaid: VecDeque<(Id, Vec<u8>)>,
    /// Where the last call went.
    current: usize,
    failed: Option<CallError>,
    /// A request found a server that takes calls, and no room in its ring.
    lacks_room: bool,
    both: Both,
}

impl ShmClient {
    pub(crate) fn open(setup: &Setup) -> Result<Self, Error> {
        let id = Id::random().map_err(|error| setup.system("cannot open", error))?;
        let below = calling::below(setup);
        let mut reading = below.again();
        // Servers come and go.
        reading.options = reading.options.follow(true);
        let pair = Arc::new(Pair::default());
        let mut answers = ReceiverCore::open_as(reading.again(), (Pattern::Answers, id))?;
        answers.control.pair_up(&pair);
        let answers = End::around(answers, &reading)?;
        let mut calls = SenderCore::open_addressed(below.again(), (Pattern::Service, id))?;
        calls.pair_up(&pair);
        let calls = End::around(calls, &below)?;
        Ok(Self {
            longest: calling::longest(below.largest_message_bytes().into()),
            setup: below,
            calls,
            answers,
            servers: Vec::new(),
            names: Vec::new(),
            known: None,
            open: Open::default(),
            backlog: VecDeque::new(),
            unsaid: VecDeque::new(),
            current: 0,
            failed: None,
            lacks_room: false,
            both: Both::default(),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.both.fd(&self.calls, &self.answers)
    }

    pub(crate) fn peers(&self) -> usize {
        self.calls.peers().min(self.answers.peers())
    }

    pub(crate) fn try_call(
        &mut self,
        request: &[u8],
        timeout: Option<Duration>,
    ) -> Result<u64, CallError> {
        if timeout.is_none()
            && let Some(number) = self.call_plain(request)
        {
            return Ok(number);
        }
        self.call_any(request, timeout)
    }

    /// Makes a call to the only server, where there is nothing particular about it: a short cut.
    #[inline(always)]
    fn call_plain(&mut self, request: &[u8]) -> Option<u64> {
        self.refresh();
        let [only] = &mut self.servers[..] else { return None };
        let takes = only.takes(request.len()) && request.len() <= self.longest;
        if !takes || !self.backlog.is_empty() {
            return None;
        }
        let number = self.open.number()?;
        let (to, word) = ((only.to.place, only.to.id), calling::word(CALL, number));
        if !self.calls.send_plain(to, word, request) {
            return None;
        }
        self.current = 0;
        only.open += 1;
        self.open.put(number, (only.to.id, only.answers), None);
        Some(number)
    }

    #[inline(never)]
    fn call_any(&mut self, request: &[u8], timeout: Option<Duration>) -> Result<u64, CallError> {
        if request.len() > self.longest {
            return Err(too_large(request.len(), self.longest, self.setup.limit_name()));
        }
        self.refresh();
        let mut at = if self.backlog.is_empty() { self.choose(request.len())? } else { None };
        if at.is_none() {
            self.known = None;
            self.look()?;
            self.refresh();
            at = if self.backlog.is_empty() { self.choose(request.len())? } else { None };
        }
        let (Some(at), Some(number)) = (at, self.open.number()) else {
            return Err(CallError::Full);
        };
        let at = match timeout {
            None => self.send_call(at, &[calling::word(CALL, number)], request)?,
            Some(timeout) => {
                let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
                let head = [calling::word(CALL_WITH_TIME, number), micros];
                self.send_call(at, &head, request)?
            }
        };
        self.current = at;
        self.servers[at].open += 1;
        let server = (self.servers[at].to.id, self.servers[at].answers);
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.open.put(number, server, until);
        Ok(number)
    }

    /// The reply to a call, if it comes next: a short cut, after which [`take`](Self::take) does the rest.
    pub(crate) fn take_reply(&mut self, key: u64) -> Now<'_> {
        if self.open.get(key).is_none_or(|call| call.came.is_some()) {
            return Now::Else;
        }
        let Self { answers, open, .. } = self;
        let judged = answers.take_judged(|receipt, bytes| {
            let is_it = calling::read(bytes)
                .is_some_and(|(kind, number, _)| (kind, number) == (REPLY, key))
                && open.close(key, receipt.connection);
            is_it.then_some(receipt.connection)
        });
        match judged {
            Judged::Settled(link) => {
                self.has_answered(link);
                Now::Taken(self.reply())
            }
            Judged::Nothing if self.is_quiet() => Now::Nothing,
            Judged::Nothing => Now::Else,
            Judged::Taken => self.after_short_cut(key, true),
            Judged::Unknown => self.after_short_cut(key, false),
        }
    }

    /// What came, where the short cut did not do. `is_taken`: an answer was taken.
    #[inline(never)]
    fn after_short_cut(&mut self, key: u64, is_taken: bool) -> Now<'_> {
        let taken = if is_taken { self.note_taken(key) } else { self.take_answer(key) };
        match taken {
            Taken::Mine => Now::Taken(self.reply()),
            Taken::Nothing if self.is_quiet() => Now::Nothing,
            _ => Now::Else,
        }
    }

    /// A server has one call less.
    #[inline]
    fn has_answered(&mut self, link: LinkId) {
        if let Some(server) = self.servers.iter_mut().find(|one| one.answers == link) {
            server.open = server.open.saturating_sub(1);
        }
    }

    /// The reply that was taken last.
    fn reply(&self) -> &[u8] {
        calling::read(self.answers.lent_payload()).map_or(&[], |(_, _, reply)| reply)
    }

    pub(crate) fn take(&mut self, key: u64, with: &mut dyn FnMut(&[u8])) -> Option<Heard> {
        for _ in 0..IN_A_LOOK {
            if self.open.get(key)?.came.is_some()
                && let Some(heard) = self.take_what_came(key, with)
            {
                return Some(heard);
            }
            match self.take_answer(key) {
                Taken::Mine => {
                    with(self.reply());
                    return Some(Heard::Reply);
                }
                Taken::Nothing => return None,
                Taken::Noted => {}
            }
        }
        None
    }

    fn take_what_came(&mut self, key: u64, with: &mut dyn FnMut(&[u8])) -> Option<Heard> {
        let came = self.open.get(key)?.came();
        if let Some(part) = came.parts.pop_front() {
            with(&part);
            if came.parts.is_empty() && matches!(came.ending, Some(Heard::Reply)) {
                self.open.remove(key);
                return Some(Heard::Reply);
            }
            self.grant(key, part.len());
            return Some(Heard::Part);
        }
        if came.ending.is_some() {
            return self.open.remove(key)?.came?.ending;
        }
        None
    }

    /// Says that a part was taken.
    fn grant(&mut self, key: u64, len: usize) {
        let Some(call) = self.open.get(key).filter(|call| !call.is_over()) else { return };
        let (parts, bytes) = call.came().ahead;
        call.came().ahead = (parts.saturating_sub(1), bytes.saturating_sub(len as u64));
        let Some((id, _)) = call.server else { return };
        let mut said = calling::begin(GRANT, key);
        said.extend_from_slice(&(len as u64).to_le_bytes());
        self.say(id, said);
    }

    fn say(&mut self, id: Id, said: Vec<u8>) {
        self.unsaid.push_back((id, said));
        self.say_on();
    }

    /// Says what could not be said before.
    fn say_on(&mut self) {
        while let Some((id, said)) = self.unsaid.front() {
            let id = *id;
            let sent: Result<(), SendError> = self.calls.call(|core, _| match core.has(id) {
                true => core.try_send_to((0, id), &[], said).map(drop),
                // It is gone, and need not know.
                false => Ok(()),
            });
            if sent.is_err() {
                return;
            }
            self.unsaid.pop_front();
        }
    }

    /// Takes one answer. One that is all of the reply to a call goes to whoever asks for that.
    fn take_answer(&mut self, wanted: u64) -> Taken {
        match self.answers.copy_next() {
            Ok(true) => {}
            Ok(false) => return Taken::Nothing,
            Err(error) => {
                self.after(error);
                return Taken::Nothing;
            }
        }
        self.note_taken(wanted)
    }

    /// Notes the answer that was taken, and settles it.
    fn note_taken(&mut self, wanted: u64) -> Taken {
        let (receipt, bytes) = (self.answers.lent_receipt(), self.answers.lent_payload());
        let noted = note(&mut self.open, &self.setup, receipt, bytes, wanted);
        self.answers.acknowledge(receipt);
        match noted {
            Ok((taken, over)) => {
                if over {
                    self.has_answered(receipt.connection);
                }
                taken
            }
            Err(problem) => {
                self.turn_away(receipt.connection, problem);
                Taken::Noted
            }
        }
    }

    pub(crate) fn is_with_server(&mut self, key: u64) -> bool {
        self.open.get(key).is_none_or(|call| call.server.is_some())
    }

    pub(crate) fn cancel(&mut self, key: u64) {
        let Some(call) = self.open.get(key) else { return };
        let Some((id, _)) = call.server.filter(|_| !call.is_over()) else {
            self.backlog.retain(|(number, _)| *number != key);
            self.open.remove(key);
            return;
        };
        call.cancelled = true;
        call.came().parts = VecDeque::new();
        self.say(id, calling::begin(CANCEL, key));
    }

    /// Whether there may be something now that was not there before.
    #[inline]
    pub(crate) fn look(&mut self) -> Result<bool, CallError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        if self.is_quiet() {
            return Ok(false);
        }
        self.look_closely().map(|()| true)
    }

    /// Whether there is nothing to look at.
    #[inline]
    fn is_quiet(&self) -> bool {
        let news = self.calls.quiet_news().zip(self.answers.quiet_news());
        let is_known = news.is_some() && news == self.known;
        is_known && self.unsaid.is_empty() && self.backlog.is_empty() && self.failed.is_none()
    }

    #[cold]
    fn look_closely(&mut self) -> Result<(), CallError> {
        self.calls.look_at_control();
        self.calls.call(|core, _| core.check())?;
        self.answers.look_at_control();
        for _ in 0..IN_A_LOOK {
            if matches!(self.take_answer(u64::MAX), Taken::Nothing) {
                break;
            }
        }
        self.reconcile(None);
        self.say_on();
        // In a caller's event loop its descriptor will tell of room.
        while self.waits_for_room() && self.calls.arm_descriptor() {
            self.give_out_backlog();
            self.say_on();
            self.lacks_room = false;
        }
        match self.failed.take() {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), CallError> {
        if self.failed.is_some() {
            return Ok(());
        }
        let for_room = self.waits_for_room();
        if self.calls.is_by_caller() || self.answers.is_by_caller() {
            self.lacks_room = false;
            let calls = (&mut self.calls, for_room);
            return Ok(self.both.wait(&mut self.answers, calls, deadline)?);
        }
        if for_room || self.is_halfway() {
            self.lacks_room = false;
            return Ok(self.answers.wait_quietly(deadline.min(Deadline::after(SOON)))?);
        }
        if self.servers.is_empty() && self.open.len() == 0 {
            // First the link that calls go over, then the one that answers come over.
            if self.calls.peers() <= self.answers.peers() {
                return Ok(self.calls.sleep(deadline)?);
            }
        }
        Ok(self.answers.wait_quietly(deadline)?)
    }

    /// Whether something waits for room in the ring of a server that is there.
    fn waits_for_room(&self) -> bool {
        self.lacks_room || !(self.backlog.is_empty() && self.unsaid.is_empty())
    }

    /// Whether a server of a call under way is half gone: the other link will tell, at once.
    fn is_halfway(&mut self) -> bool {
        let servers = &self.servers;
        let here = |link: LinkId| servers.iter().any(|one| one.answers == link);
        self.open
            .iter()
            .any(|call| !call.is_over() && call.server.is_some_and(|(_, link)| !here(link)))
    }
}

impl Drop for ShmClient {
    fn drop(&mut self) {
        // Says the end, unless a server has not read all: then it notices.
        let _ = self.calls.leave();
    }
}

/// What came of one answer.
enum Taken {
    /// The reply that was wanted.
    Mine,
    /// Something else.
    Noted,
    Nothing,
}

/// Notes an answer: whose it was, and whether its call is over.
///
/// # Errors
/// What the server did that it may not.
#[inline]
fn note(
    open: &mut Open,
    setup: &Setup,
    receipt: Receipt,
    bytes: &[u8],
    wanted: u64,
) -> Result<(Taken, bool), &'static str> {
    let (kind, number, rest) = calling::read(bytes).ok_or("an answer that is too short")?;
    let call = open.get(number).filter(|call| {
        !call.is_over() && call.server.is_some_and(|(_, link)| link == receipt.connection)
    });
    let call = call.ok_or("it answers a call that is not open")?;
    let over = match kind {
        PART => {
            let cancelled = call.cancelled;
            let came = call.came();
            let (parts, ahead) = came.ahead;
            let bytes = ahead + rest.len() as u64;
            let most = setup.options.prefetch_messages.clamp(1, LARGEST_WINDOW);
            let most_bytes = u64::from(setup.options.prefetch_bytes.max(1));
            if parts > 0 && (parts >= most || bytes > most_bytes) {
                return Err("more parts of a reply than were allowed");
            }
            came.ahead = (parts + 1, bytes);
            if !cancelled {
                came.parts.push_back(rest.to_vec());
            }
            return Ok((Taken::Noted, false));
        }
        REPLY if number == wanted && call.came.is_none() => {
            open.remove(number);
            return Ok((Taken::Mine, true));
        }
        REPLY => {
            call.came().parts.push_back(rest.to_vec());
            Heard::Reply
        }
        DONE => Heard::Over(Ending::Done),
        FAIL => {
            let failure = calling::failure(rest).ok_or("a failure whose lengths do not fit")?;
            Heard::Over(Ending::Failed(failure))
        }
        _ => return Err("an answer of an unknown kind"),
    };
    if call.cancelled {
        open.remove(number);
    } else {
        call.end(over);
    }
    Ok((Taken::Noted, true))
}

fn too_large(len_bytes: usize, limit_bytes: usize, limit: &str) -> CallError {
    CallError::TooLarge { len_bytes, limit_bytes, limit: limit.to_owned() }
}
