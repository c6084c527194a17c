//! The calling end of a service: a ring of calls to each server, and a ring of answers from each.
//!
//! A call that a server has settled was being handed to its program; one that was not by the time the server
//! went never began. `docs/design/service.md` has the tables.

mod open;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;

use super::both::Both;
use super::calling::{
    self, CALL, CALL_WITH_TIME, CANCEL, DONE, FAIL, GRANT, MOST_BEFORE, PART, REPLY,
};
use super::control::LinkId;
use super::ends::{End, Opened};
use super::hello::{Id, LARGEST_WINDOW, Pattern};
use super::receiver::ReceiverCore;
use super::sender::{Addressee, SenderCore};
use crate::error::{Error, RecvError, SendError};
use crate::pattern::service::CallError;
use crate::transport::service_flavor::{Ending, Heard};
use crate::transport::{Receipt, Setup};

use open::{Call, Open};

/// Answers taken in one look.
const IN_A_LOOK: usize = 256;
/// How long a server may take to say over the second link what it said over the first.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);
/// While something changes that no word tells.
const SOON: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct ShmClient {
    setup: Setup,
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

/// A server that can be called: both links are there.
#[derive(Clone, Copy, Debug)]
struct Server {
    to: Addressee,
    answers: LinkId,
    open: usize,
}

impl ShmClient {
    pub(crate) fn open(setup: &Setup) -> Result<Self, Error> {
        let id = Id::random().map_err(|error| setup.system("cannot open", error))?;
        let below = calling::below(setup);
        let mut reading = below.again();
        // Servers come and go.
        reading.options = reading.options.follow(true);
        let answers = ReceiverCore::open_as(reading.again(), (Pattern::Answers, id))?;
        let answers = End::around(answers, &reading)?;
        let calls = SenderCore::open_addressed(below.again(), (Pattern::Service, id))?;
        let calls = End::around(calls, &below)?;
        Ok(Self {
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
        let limit = calling::longest(self.setup.largest_message_bytes().into());
        if request.len() > limit {
            return Err(too_large(request.len(), limit, self.setup.limit_name()));
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
        let mut head = [0; MOST_BEFORE];
        let (kind, before) = match timeout {
            None => (CALL, 8),
            Some(timeout) => {
                let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
                head[8..].copy_from_slice(&micros.to_le_bytes());
                (CALL_WITH_TIME, MOST_BEFORE)
            }
        };
        head[..8].copy_from_slice(&calling::word(kind, number));
        let at = self.send_call(at, &head[..before], request)?;
        self.current = at;
        self.servers[at].open += 1;
        let server = Some((self.servers[at].to.id, self.servers[at].answers));
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.open.put(Call { number, server, until, cancelled: false, came: None });
        Ok(number)
    }

    /// Sends a call to a server, or to another that takes calls, where that has no room. To which.
    #[inline]
    fn send_call(&mut self, at: usize, head: &[u8], request: &[u8]) -> Result<usize, SendError> {
        match self.send_to(at, head, request) {
            Err(SendError::Full) => self.send_elsewhere(at, head, request),
            sent => sent.map(|()| at),
        }
    }

    #[cold]
    fn send_elsewhere(
        &mut self,
        at: usize,
        head: &[u8],
        request: &[u8],
    ) -> Result<usize, SendError> {
        for other in 0..self.servers.len() {
            let Server { to, open, .. } = &self.servers[other];
            let takes = *open < to.window && request.len() <= calling::longest(to.largest);
            if other == at || !takes {
                continue;
            }
            match self.send_to(other, head, request) {
                Err(SendError::Full) => {}
                sent => return sent.map(|()| other),
            }
        }
        self.lacks_room = true;
        // In a caller's event loop its descriptor will tell of room.
        if self.calls.arm_descriptor() {
            self.send_to(at, head, request)?;
            self.lacks_room = false;
            return Ok(at);
        }
        Err(SendError::Full)
    }

    #[inline]
    fn send_to(&mut self, at: usize, head: &[u8], request: &[u8]) -> Result<(), SendError> {
        let to = &mut self.servers[at].to;
        let sent = self.calls.call(|core, _| core.try_send_to((to.place, to.id), head, request));
        to.place = sent?;
        Ok(())
    }

    /// Looks which servers can be called, if that may have changed.
    #[inline]
    fn refresh(&mut self) {
        let news = self.calls.quiet_news().zip(self.answers.quiet_news());
        if news.is_none() || news != self.known {
            self.known = news;
            self.find_servers();
        }
    }

    #[cold]
    fn find_servers(&mut self) {
        let addressees = self.calls.call(|core, _| Ok::<_, Error>(core.addressees().collect()));
        let addressees: Vec<Addressee> = addressees.unwrap_or_default();
        let links = self.answers.call(|core, _| Ok::<_, Error>(core.links_by_id()));
        let links = links.unwrap_or_default();
        self.servers.clear();
        let open = &mut self.open;
        self.names
            .retain(|(id, _)| open.iter().any(|call| call.server.is_some_and(|s| s.0 == *id)));
        for to in addressees {
            if self.names.iter().all(|(id, _)| *id != to.id) {
                let name = self.calls.call(|core, _| Ok::<_, Error>(core.name_of(to.id)));
                self.names.push((to.id, name.ok().flatten().unwrap_or_default()));
            }
            if let Some((_, answers)) = links.iter().find(|(id, _)| *id == to.id) {
                let mine =
                    |call: &&mut Call| call.server == Some((to.id, *answers)) && !call.is_over();
                let open = self.open.iter().filter(mine).count();
                self.servers.push(Server { to, answers: *answers, open });
            }
        }
    }

    /// The server with the fewest calls of those that take a request of this length.
    #[inline]
    fn choose(&self, len: usize) -> Result<Option<usize>, CallError> {
        let count = self.servers.len();
        let mut best: Option<(usize, usize)> = None;
        let (mut limit, mut fits) = (None, false);
        for step in 0..count {
            let at = (self.current + 1 + step) % count;
            let one = &self.servers[at];
            if len > calling::longest(one.to.largest) {
                limit = limit.max(Some(calling::longest(one.to.largest)));
                continue;
            }
            fits = true;
            if one.open < one.to.window && best.is_none_or(|(_, least)| one.open < least) {
                best = Some((at, one.open));
            }
        }
        match (best, limit) {
            (None, Some(limit)) if !fits => {
                Err(too_large(len, limit, "what the server takes (its ?max-message=)"))
            }
            (best, _) => Ok(best.map(|(at, _)| at)),
        }
    }

    pub(crate) fn take(&mut self, key: u64, with: &mut dyn FnMut(&[u8])) -> Option<Heard> {
        for _ in 0..IN_A_LOOK {
            if self.open.get(key)?.came.is_some()
                && let Some(heard) = self.take_what_came(key, with)
            {
                return Some(heard);
            }
            match self.take_answer(key, with) {
                Taken::Mine => return Some(Heard::Reply),
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
        let mut said = calling::word(GRANT, key).to_vec();
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
                true => core.try_send_to((0, id), said, &[]).map(drop),
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
    #[inline]
    fn take_answer(&mut self, wanted: u64, with: &mut dyn FnMut(&[u8])) -> Taken {
        match self.answers.copy_next() {
            Ok(true) => {}
            Ok(false) => return Taken::Nothing,
            Err(error) => {
                self.after(error);
                return Taken::Nothing;
            }
        }
        let (receipt, bytes) = (self.answers.lent_receipt(), self.answers.lent_payload());
        let noted = note(&mut self.open, &self.setup, receipt, bytes, wanted, with);
        self.answers.acknowledge(receipt);
        match noted {
            Ok((taken, over)) => {
                if over
                    && let Some(server) =
                        self.servers.iter_mut().find(|one| one.answers == receipt.connection)
                {
                    server.open = server.open.saturating_sub(1);
                }
                taken
            }
            Err(problem) => {
                self.turn_away(receipt.connection, problem);
                Taken::Noted
            }
        }
    }

    /// Ends the links of a server that broke the protocol, and the calls that it had.
    #[cold]
    fn turn_away(&mut self, link: LinkId, problem: &str) {
        let told = self.answers.call(|core, _| {
            let peer = core.name_and_id(link);
            if let Some(at) = core.position(link) {
                core.drop_liar(at, problem);
            }
            Ok::<_, Error>(peer)
        });
        if let Ok(Some((peer, id))) = told {
            self.misbehaved(id, &peer, problem);
        }
    }

    fn misbehaved(&mut self, id: Id, peer: &str, problem: &str) {
        for call in self.open.iter().filter(|call| call.server.is_some_and(|(at, _)| at == id)) {
            let (peer, problem) = (peer.to_owned(), problem.to_owned());
            call.end(Heard::Over(Ending::Misbehaved { peer, problem, started: true }));
        }
        let _ = self.calls.call(|core, _| {
            core.turn_away_id(id, problem);
            Ok::<_, Error>(())
        });
        self.known = None;
        self.reconcile(None);
    }

    /// What an error of the answers means.
    #[cold]
    fn after(&mut self, error: RecvError) {
        match error {
            RecvError::PeerMisbehaved { peer, problem } => self.reconcile(Some((&peer, &problem))),
            RecvError::PeerDied { .. } => self.reconcile(None),
            RecvError::Failed(error) => self.failed = Some(CallError::Failed(error)),
            RecvError::Interrupted => self.failed = Some(CallError::Interrupted),
            RecvError::PeerRefused { peer, problem } => {
                self.let_both_be_refused();
                let problem = format!("{peer} does not fit: {problem}");
                let address = &self.setup.address;
                let error = Error::new(crate::error::ErrorKind::Mismatch, address, problem);
                self.failed = Some(CallError::Failed(error));
            }
            _ => {}
        }
    }

    /// A server that this side does not fit is told so when its calls are to be met: before the caller goes, perhaps.
    fn let_both_be_refused(&mut self) {
        let deadline = Deadline::after(REFUSED_WITHIN);
        let wanted = |core: &mut SenderCore| core.control_path().wanted();
        while self.calls.call(|core, _| Ok::<_, Error>(wanted(core))).is_ok_and(|all| all > 0)
            && !deadline.passed()
        {
            if self.calls.sleep(deadline.min(Deadline::after(SOON))).is_err() {
                return;
            }
        }
    }

    /// Finds out what became of calls whose servers went. `lied`: one of them did, and what.
    #[cold]
    fn reconcile(&mut self, lied: Option<(&str, &str)>) {
        self.known = None;
        self.refresh();
        if let Some((peer, problem)) = lied {
            // Its answers are not read any more, and its calls are still there.
            let links = self.answers.call(|core, _| Ok::<_, Error>(core.links_by_id()));
            let links = links.unwrap_or_default();
            let gone = |call: &&mut Call| {
                call.server.is_some_and(|(_, link)| links.iter().all(|(_, other)| *other != link))
            };
            let liars: Vec<Id> =
                self.open.iter().filter(gone).filter_map(|call| Some(call.server?.0)).collect();
            for id in liars {
                let has = self.calls.call(|core, _| Ok::<_, Error>(core.has(id))).unwrap_or(false);
                if has {
                    self.misbehaved(id, peer, problem);
                }
            }
        }
        let returned = self.calls.call(|core, _| Ok::<_, Error>(core.take_returned()));
        for (id, message, lied) in returned.unwrap_or_default() {
            self.came_back(id, message, lied);
        }
        let here = self.calls.call(|core, _| {
            let ids = core.addressees().map(|one| one.id);
            Ok::<Vec<Id>, Error>(ids.collect())
        });
        let here = here.unwrap_or_default();
        let links = self.answers.call(|core, _| Ok::<_, Error>(core.links_by_id()));
        let links = links.unwrap_or_default();
        let mut over = Vec::new();
        for call in self.open.iter() {
            let Some((id, link)) = call.server else { continue };
            let gone = !here.contains(&id) && links.iter().all(|(_, other)| *other != link);
            if gone && !call.is_over() {
                let peer = name_of(&self.names, id);
                call.end(Heard::Over(Ending::Gone { peer, started: true }));
            }
            if call.is_over() && call.cancelled {
                over.push(call.number);
            }
        }
        for number in over {
            self.open.remove(number);
        }
        self.give_out_backlog();
    }

    /// A call that its server had not settled when it went.
    fn came_back(&mut self, id: Id, mut message: Vec<u8>, lied: bool) {
        let Some((kind, number, _)) = calling::read(&message) else { return };
        if !matches!(kind, CALL | CALL_WITH_TIME) {
            return;
        }
        let others = !self.servers.is_empty();
        let Some(call) = self.open.get(number) else { return };
        if call.is_over() || call.server.is_none_or(|(at, _)| at != id) {
            return;
        }
        if call.cancelled {
            self.open.remove(number);
        } else if lied || !others {
            let peer = name_of(&self.names, id);
            call.end(Heard::Over(Ending::Gone { peer, started: lied }));
        } else {
            call.server = None;
            if let (CALL_WITH_TIME, Some(until)) = (kind, call.until) {
                let left = until.saturating_duration_since(Instant::now()).as_micros();
                let left = u64::try_from(left).unwrap_or(u64::MAX).max(1);
                message[8..16].copy_from_slice(&left.to_le_bytes());
            }
            self.backlog.push_back((number, message));
        }
    }

    fn give_out_backlog(&mut self) {
        while let Some((number, message)) = self.backlog.pop_front() {
            if self.open.get(number).is_none_or(|call| call.cancelled || call.is_over()) {
                self.open.remove(number);
                continue;
            }
            let at = self.choose(message.len().saturating_sub(MOST_BEFORE)).ok().flatten();
            let sent = at.map(|at| {
                let to = self.servers[at].to.id;
                self.calls.call(|core, _| core.try_send_to((0, to), &message, &[])).is_ok()
            });
            match (at, sent) {
                (Some(at), Some(true)) => {
                    self.current = at;
                    self.servers[at].open += 1;
                    let server = Some((self.servers[at].to.id, self.servers[at].answers));
                    if let Some(call) = self.open.get(number) {
                        call.server = server;
                    }
                }
                _ if self.servers.is_empty() => {
                    let peer = "the server".to_owned();
                    if let Some(call) = self.open.get(number) {
                        call.end(Heard::Over(Ending::Gone { peer, started: false }));
                    }
                }
                _ => {
                    self.backlog.push_front((number, message));
                    return;
                }
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
        self.say(id, calling::word(CANCEL, key).to_vec());
    }

    pub(crate) fn look(&mut self) -> Result<(), CallError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let news = self.calls.quiet_news().zip(self.answers.quiet_news());
        let quiet = news.is_some() && news == self.known;
        if quiet && self.unsaid.is_empty() && self.backlog.is_empty() {
            return Ok(());
        }
        self.calls.look_at_control();
        self.calls.call(|core, _| core.check())?;
        self.answers.look_at_control();
        for _ in 0..IN_A_LOOK {
            if matches!(self.take_answer(u64::MAX, &mut |_| {}), Taken::Nothing) {
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
    with: &mut dyn FnMut(&[u8]),
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
            with(rest);
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

fn name_of(names: &[(Id, String)], id: Id) -> String {
    let found = names.iter().find(|(known, _)| *known == id);
    found.map_or_else(|| "the server".to_owned(), |(_, name)| name.clone())
}

fn too_large(len_bytes: usize, limit_bytes: usize, limit: &str) -> CallError {
    CallError::TooLarge { len_bytes, limit_bytes, limit: limit.to_owned() }
}
