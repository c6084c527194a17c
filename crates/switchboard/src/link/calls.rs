//! The calls of a link of a service: which numbers mean something, and who may say what of them.
//!
//! `docs/design/service.md` draws the frames and says what follows at each end.

use std::collections::BTreeMap;

use super::frame::{
    CALL_PREFIX_BYTES, HEADER_BYTES, Header, Kind, LONGEST_FAILURE_DETAILS, LONGEST_FAILURE_TEXT,
};
use super::{Event, Link, LinkError, Pattern, Role, State, cut, printable};

/// The calls that were made and not answered.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// The number of the last one; they count from 1 on each link.
    last: u64,
    open: BTreeMap<u64, Open>,
    /// Bytes of their requests.
    request_bytes: u64,
    /// The server takes no more calls.
    pub(super) closing: bool,
}

/// One of them.
#[derive(Debug, Default)]
struct Open {
    request_bytes: u64,
    started: bool,
    cancelled: bool,
    /// Parts of its reply, and their bytes, that the client has not taken yet.
    parts: u32,
    part_bytes: u64,
}

/// A failure's body, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure; see [`Code`](crate::Code).
    pub code: u16,
    /// For a person.
    pub text: String,
    /// For a program.
    pub details: Vec<u8>,
}

/// The end of a reply.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// The reply, or its last part.
    Reply(&'a [u8]),
    /// The parts were all.
    Done,
    /// No reply: code, text and details.
    Fail(u16, &'a str, &'a [u8]),
}

/// A call whose link is over: its number, and whether its server said that it began.
pub type Unanswered = (u64, bool);

impl Link {
    // ---- the client ----

    /// Whether the server takes a call with a request of this length now. One larger than the whole
    /// window may go alone.
    #[must_use]
    pub fn takes_call(&self, len: usize) -> bool {
        let Some(peer) = &self.peer else { return false };
        let open = self.calls.open.len() as u64;
        let bytes = self.calls.request_bytes + len as u64;
        self.state == State::Open
            && !self.calls.closing
            && !self.end_sent
            && (open == 0
                || (open < u64::from(peer.window_messages) && bytes <= peer.window_bytes.into()))
    }

    /// Whether the server said that it takes no more calls.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.calls.closing
    }

    /// Calls made and not answered, those that were cancelled too.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.open.len()
    }

    /// Queues a call: its number. The caller has checked [`takes_call`](Self::takes_call).
    /// `timeout_us` is how long the client waits, 0 for ever.
    pub fn call(&mut self, timeout_us: u64, request: &[u8]) -> u64 {
        self.calls.last += 1;
        let (id, request_bytes) = (self.calls.last, request.len() as u64);
        self.calls.request_bytes += request_bytes;
        self.calls.open.insert(id, Open { request_bytes, ..Open::default() });
        self.outbox.push_pieces(Kind::Call, id, &timeout_us.to_le_bytes(), request);
        id
    }

    /// Says that nobody waits for a call's reply any more. Its number stays open until the server
    /// answers it.
    pub fn cancel(&mut self, id: u64) {
        if let Some(call) = self.calls.open.get_mut(&id)
            && !std::mem::replace(&mut call.cancelled, true)
        {
            self.outbox.push_control(Kind::Cancel, id, &[]);
        }
    }

    /// Says that a part of this length was taken, so that the server may send another.
    pub fn grant(&mut self, id: u64, len: usize) {
        if let Some(call) = self.calls.open.get_mut(&id) {
            call.parts = call.parts.saturating_sub(1);
            call.part_bytes = call.part_bytes.saturating_sub(len as u64);
            self.outbox.push_control(Kind::Grant, id, &(len as u64).to_le_bytes());
        }
    }

    /// Says that no call follows.
    pub fn end_calls(&mut self) {
        self.end_after(self.calls.last);
    }

    /// Takes back the calls that were not answered, in order; those that were cancelled are nobody's.
    /// The link is over.
    #[must_use]
    pub fn take_calls(&mut self) -> Vec<Unanswered> {
        self.state = State::Failed;
        let open = std::mem::take(&mut self.calls.open);
        open.into_iter().filter(|(_, c)| !c.cancelled).map(|(id, c)| (id, c.started)).collect()
    }

    /// Takes back the calls that were not started: a server that takes no more will not begin them.
    #[must_use]
    pub fn take_waiting_calls(&mut self) -> Vec<u64> {
        let waiting: Vec<u64> =
            self.calls.open.iter().filter(|(_, call)| !call.started).map(|(id, _)| *id).collect();
        waiting
            .into_iter()
            .filter(|id| self.close_call(*id).is_some_and(|c| !c.cancelled))
            .collect()
    }

    // ---- the server ----

    /// Says that a call is being given to the program.
    pub fn start_call(&mut self, id: u64) {
        if let Some(call) = self.calls.open.get_mut(&id) {
            call.started = true;
            self.outbox.push_control(Kind::Started, id, &[]);
        }
    }

    /// Whether a call is open, and its client waits for the reply.
    #[must_use]
    pub fn wants_reply(&self, id: u64) -> bool {
        self.calls.open.get(&id).is_some_and(|call| !call.cancelled)
    }

    /// Whether the client takes another part of this length now. One larger than the window may go
    /// alone.
    #[must_use]
    pub fn takes_part(&self, id: u64, len: usize) -> bool {
        let (Some(peer), Some(call)) = (&self.peer, self.calls.open.get(&id)) else { return false };
        let bytes = call.part_bytes + len as u64;
        call.parts == 0 || (call.parts < peer.window_messages && bytes <= peer.window_bytes.into())
    }

    /// Queues a part of a reply. The caller has checked [`takes_part`](Self::takes_part).
    pub fn part(&mut self, id: u64, payload: &[u8]) {
        if let Some(call) = self.calls.open.get_mut(&id) {
            call.parts += 1;
            call.part_bytes += payload.len() as u64;
            self.outbox.push_control(Kind::Part, id, payload);
        }
    }

    /// Answers a call. `false` if it is not open.
    pub fn answer(&mut self, id: u64, answer: Answer<'_>) -> bool {
        if self.close_call(id).is_none() {
            return false;
        }
        match answer {
            Answer::Reply(payload) => self.outbox.push_control(Kind::Reply, id, payload),
            Answer::Done => self.outbox.push_control(Kind::Done, id, &[]),
            Answer::Fail(code, text, details) => {
                self.outbox.push_control(Kind::Fail, id, &failure_body(code, text, details));
            }
        }
        true
    }

    /// Says that calls which were not started will not be, and that no further one is taken.
    pub fn take_no_more_calls(&mut self) {
        self.end_after(self.calls.last);
        let waiting: Vec<u64> =
            self.calls.open.iter().filter(|(_, call)| !call.started).map(|(id, _)| *id).collect();
        for id in waiting {
            self.close_call(id);
        }
    }

    // ---- both ----

    fn close_call(&mut self, id: u64) -> Option<Open> {
        let call = self.calls.open.remove(&id)?;
        self.calls.request_bytes -= call.request_bytes;
        Some(call)
    }

    /// Whether a frame, which is whole, is one that only a service has, or that means something else there.
    pub(super) fn is_of_calls(&self, kind: Kind) -> bool {
        self.local.pattern == Pattern::Service
            && self.state == State::Open
            && !matches!(kind, Kind::Hello | Kind::Refuse)
    }

    /// Checks a frame of a service. Whether it means something still.
    pub(super) fn check_call_frame(
        &mut self,
        header: Header,
        whole: usize,
    ) -> Result<bool, LinkError> {
        let serves = self.local.role == Role::Receiver;
        let (id, len) = (header.sequence, header.body_bytes);
        let body = &self.input.unread()[HEADER_BYTES..whole];
        let result = match header.kind {
            Kind::Call if serves => self.check_call(id, len),
            Kind::Cancel | Kind::Grant if serves && id > self.calls.last => {
                Err(format!("it speaks of call {id}, of {} that it made", self.calls.last))
            }
            Kind::Cancel if serves => Ok(self.cancelled(id)),
            Kind::Grant if serves => match body.first_chunk::<8>().copied() {
                Some(bytes) => self.granted(id, u64::from_le_bytes(bytes)),
                None => Err("a grant that is too short".into()),
            },
            Kind::Started | Kind::Part | Kind::Reply | Kind::Done if !serves => {
                self.check_answer(header.kind, id, len)
            }
            Kind::Fail if !serves => match failure_of(body) {
                Some(_) => self.check_answer(header.kind, id, len),
                None => Err("a failure whose lengths do not fit".into()),
            },
            // A server's end may cross calls, which it will not begin; a client counts its own.
            Kind::End if self.counts_end(id, serves) => {
                self.calls.closing = true;
                Ok(true)
            }
            kind => Err(format!("a frame {kind:?} where none may come")),
        };
        result.map_err(|problem| self.misbehaved(problem))
    }

    fn counts_end(&self, id: u64, serves: bool) -> bool {
        let calls = &self.calls;
        !calls.closing && if serves { id == calls.last } else { id <= calls.last }
    }

    /// What a frame means that was checked.
    pub(super) fn call_event(&mut self, header: Header, whole: usize) -> Event<'_> {
        let start = self.input.take(whole);
        let body = &self.input.taken(start, whole)[HEADER_BYTES..];
        let id = header.sequence;
        match header.kind {
            Kind::Call => {
                let (prefix, request) =
                    body.split_first_chunk().unwrap_or((&[0; CALL_PREFIX_BYTES], &[]));
                Event::Call { id, timeout_us: u64::from_le_bytes(*prefix), request }
            }
            Kind::Started => Event::Started(id),
            Kind::Part => Event::Part { id, payload: body },
            Kind::Reply => Event::Reply { id, payload: body },
            Kind::Done => Event::Done(id),
            Kind::Fail => Event::CallFailed { id, failure: failure_of(body).unwrap_or_default() },
            Kind::Cancel => Event::Cancelled(id),
            Kind::Grant => Event::Granted(id),
            _ => Event::End,
        }
    }

    fn check_call(&mut self, id: u64, len: usize) -> Result<bool, String> {
        let calls = &mut self.calls;
        if calls.last.checked_add(1) != Some(id) || calls.closing {
            return Err(format!("call {id} where {} is next", calls.last.saturating_add(1)));
        }
        let Some(request_bytes) = len.checked_sub(CALL_PREFIX_BYTES) else {
            return Err("a call that is too short".into());
        };
        let request_bytes = request_bytes as u64;
        let bytes = calls.request_bytes + request_bytes;
        let (open, most) = (calls.open.len() as u64, u64::from(self.local.window_messages));
        if open > 0 && (open >= most || bytes > self.local.window_bytes.into()) {
            return Err("more calls at a time than were allowed".into());
        }
        calls.last = id;
        calls.request_bytes = bytes;
        calls.open.insert(id, Open { request_bytes, ..Open::default() });
        // A call that crossed this side's end is not begun, and its client knows.
        if self.end_sent {
            self.close_call(id);
            return Ok(false);
        }
        Ok(true)
    }

    fn cancelled(&mut self, id: u64) -> bool {
        // One that was answered meanwhile is over.
        self.calls
            .open
            .get_mut(&id)
            .is_some_and(|call| !std::mem::replace(&mut call.cancelled, true))
    }

    fn granted(&mut self, id: u64, len: u64) -> Result<bool, String> {
        let Some(call) = self.calls.open.get_mut(&id) else { return Ok(false) };
        let (Some(parts), Some(bytes)) =
            (call.parts.checked_sub(1), call.part_bytes.checked_sub(len))
        else {
            return Err("it took parts that were not sent".into());
        };
        (call.parts, call.part_bytes) = (parts, bytes);
        Ok(true)
    }

    fn check_answer(&mut self, kind: Kind, id: u64, len: usize) -> Result<bool, String> {
        let (most, most_bytes) = (self.local.window_messages, u64::from(self.local.window_bytes));
        let Some(call) = self.calls.open.get_mut(&id) else {
            // A call that was taken back when its server said its end is not answered by it.
            return Err(format!("it answers call {id}, which is not open"));
        };
        let wanted = !call.cancelled;
        match kind {
            Kind::Started if call.started => Err(format!("it starts call {id} twice")),
            Kind::Started => {
                call.started = true;
                Ok(wanted)
            }
            Kind::Part => {
                let bytes = call.part_bytes + len as u64;
                if call.parts > 0 && (call.parts >= most || bytes > most_bytes) {
                    return Err("more parts of a reply than were allowed".into());
                }
                call.parts += 1;
                call.part_bytes = bytes;
                Ok(wanted)
            }
            _ => {
                self.close_call(id);
                Ok(wanted)
            }
        }
    }
}

/// A failure as it is sent: what is too long is cut.
pub(crate) fn failure_body(code: u16, text: &str, details: &[u8]) -> Vec<u8> {
    let text = cut(text, LONGEST_FAILURE_TEXT);
    let details = &details[..details.len().min(LONGEST_FAILURE_DETAILS)];
    let mut body = Vec::with_capacity(4 + text.len() + details.len());
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(text.len() as u16).to_le_bytes());
    body.extend_from_slice(text.as_bytes());
    body.extend_from_slice(details);
    body
}

/// The failure in these bytes; `None` if its lengths do not fit.
pub(crate) fn failure_of(body: &[u8]) -> Option<Failure> {
    let (&[c0, c1, l0, l1], rest) = body.split_first_chunk::<4>()?;
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    let (text, details) = rest.split_at_checked(len)?;
    let fits = len <= LONGEST_FAILURE_TEXT && details.len() <= LONGEST_FAILURE_DETAILS;
    fits.then(|| Failure {
        code: u16::from_le_bytes([c0, c1]),
        text: printable(text, LONGEST_FAILURE_TEXT),
        details: details.to_vec(),
    })
}
