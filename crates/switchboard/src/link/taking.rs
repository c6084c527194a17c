//! What a link makes of the bytes that it read: frames become events, or an error that ends it.

use super::frame::{HEADER_BYTES, Header, Kind, PREFACE};
use super::{
    Event, Hello, LARGEST_WINDOW_BYTES, LARGEST_WINDOW_MESSAGES, Link, LinkError,
    MOST_UNREAD_BYTES, Pattern, Role, State, printable,
};

impl Link {
    /// What the bytes read so far mean; `None` when more are needed.
    ///
    /// # Errors
    /// The link is over: see [`LinkError`]. Later calls give `None`.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, LinkError> {
        loop {
            match self.state {
                State::Failed => return Ok(None),
                State::Preface => {
                    if !self.take_preface()? {
                        return Ok(None);
                    }
                }
                State::Hello | State::Open | State::Ended => {
                    let largest = self.local.max_message_bytes as usize;
                    let unread = self.input.unread();
                    let header = match Header::parse(unread, largest) {
                        Ok(Some(header)) => header,
                        Ok(None) => return Ok(None),
                        Err(problem) => return Err(self.misbehaved(problem)),
                    };
                    let whole = HEADER_BYTES + header.body_bytes;
                    if unread.len() < whole {
                        return Ok(None);
                    }
                    if let Some(missing) = self.pass_gap(header) {
                        return Ok(Some(Event::Gap(missing)));
                    }
                    if self.is_of_news(header.kind) {
                        self.check_news(header, whole)?;
                        return Ok(Some(self.news_event(header, whole)));
                    }
                    if header.kind == Kind::Message && self.local.pattern != Pattern::Service {
                        return self.take_message(header, whole).map(Some);
                    }
                    if self.is_of_calls(header.kind) {
                        if self.check_call_frame(header, whole)? {
                            return Ok(Some(self.call_event(header, whole)));
                        }
                        self.input.consume(whole);
                        continue;
                    }
                    let body = self.input.unread()[HEADER_BYTES..whole].to_vec();
                    self.input.consume(whole);
                    if let Some(event) = self.take_control(header, &body)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// The next message, if one is whole and comes next; anything else is left to
    /// [`next_event`](Self::next_event).
    #[inline]
    pub(crate) fn next_message(&mut self) -> Option<Event<'_>> {
        if !self.takes_messages() {
            return None;
        }
        let unread = self.input.unread();
        let header = Header::parse(unread, self.local.max_message_bytes as usize).ok()??;
        let whole = HEADER_BYTES + header.body_bytes;
        let fits = header.kind == Kind::Message
            && header.sequence.checked_sub(1) == Some(self.incoming.last)
            && unread.len() >= whole
            && self.within_window();
        if fits { Some(self.hand_out(header, whole)) } else { None }
    }

    /// Whether messages may come now.
    #[inline]
    fn takes_messages(&self) -> bool {
        let waits = self.local.pattern == Pattern::Topic && !self.begun;
        self.state == State::Open && self.local.role == Role::Receiver && !waits
    }

    /// How many numbers of a topic are left out before the frame at the front. They are passed, so that
    /// the frame is the next one.
    #[inline]
    fn pass_gap(&mut self, header: Header) -> Option<u64> {
        if self.local.pattern != Pattern::Topic || !self.takes_messages() {
            return None;
        }
        let through = match header.kind {
            Kind::Message => header.sequence.checked_sub(1)?,
            Kind::End => header.sequence,
            _ => return None,
        };
        let missing = through.checked_sub(self.incoming.last).filter(|missing| *missing > 0);
        if missing.is_some() {
            self.incoming.skip_to(through);
        }
        missing
    }

    /// Whether the sender keeps to its window. One that sends on and does not read its answers would
    /// make this side keep them without end; one that keeps the window leaves at most one for each
    /// message of it.
    #[inline]
    fn within_window(&self) -> bool {
        let window = u64::from(self.local.window_messages) * 2;
        let answers = MOST_UNREAD_BYTES as u64 + window * HEADER_BYTES as u64;
        !self.answers()
            || (self.incoming.spread() < window && self.outbox.unwritten_bytes() as u64 <= answers)
    }

    pub(super) fn misbehaved(&mut self, problem: String) -> LinkError {
        self.refuse(&problem);
        self.state = State::Failed;
        LinkError::Misbehaved(problem)
    }

    fn mismatch(&mut self, problem: String) -> LinkError {
        self.refuse(&problem);
        self.state = State::Failed;
        LinkError::Mismatch(problem)
    }

    fn take_preface(&mut self) -> Result<bool, LinkError> {
        let unread = self.input.unread();
        let n = unread.len().min(PREFACE.len());
        if unread[..n] != PREFACE[..n] {
            let shown = printable(&unread[..unread.len().min(24)], 24);
            return Err(self.mismatch(format!(
                "it does not speak the link's protocol (it began with {shown:?}); for a program \
                 that is not Switchboard add ?framing=lines, length or raw"
            )));
        }
        if n < PREFACE.len() {
            return Ok(false);
        }
        self.input.consume(PREFACE.len());
        self.state = State::Hello;
        Ok(true)
    }

    #[inline]
    fn take_message(&mut self, header: Header, whole: usize) -> Result<Event<'_>, LinkError> {
        let sequence = header.sequence;
        if !self.takes_messages() {
            return Err(self.misbehaved("a message where none may come".into()));
        }
        let last = self.incoming.last;
        if sequence.checked_sub(1) != Some(last) {
            let problem = format!("message {sequence} where {} is next", last.saturating_add(1));
            return Err(self.misbehaved(problem));
        }
        if !self.within_window() {
            return Err(self.misbehaved("more unacknowledged messages than were allowed".into()));
        }
        Ok(self.hand_out(header, whole))
    }

    /// Takes a message that was checked out of the buffer.
    #[inline]
    fn hand_out(&mut self, header: Header, whole: usize) -> Event<'_> {
        self.incoming.arrived();
        if !self.answers() {
            self.incoming.settle_all();
        }
        // The bytes stay where they are until the next call reads beyond them.
        let start = self.input.take(whole);
        Event::Message {
            sequence: header.sequence,
            payload: &self.input.taken(start, whole)[HEADER_BYTES..],
            redelivered: header.redelivered,
            deliveries: header.deliveries,
        }
    }

    fn take_control(
        &mut self,
        header: Header,
        body: &[u8],
    ) -> Result<Option<Event<'static>>, LinkError> {
        let sequence = header.sequence;
        if header.kind == Kind::Refuse {
            self.state = State::Failed;
            return Err(LinkError::Refused(printable(body, 512)));
        }
        if self.state == State::Hello {
            if header.kind != Kind::Hello {
                return Err(self.misbehaved("a frame before its hello".into()));
            }
            return self.take_hello(body).map(|()| Some(Event::Established));
        }
        let sender = self.local.role == Role::Sender;
        let topic = self.local.pattern == Pattern::Topic;
        match header.kind {
            Kind::AckThrough | Kind::AckOne | Kind::Reject if sender && !topic => {
                if sequence == 0 || sequence > self.outbox.last_sequence() {
                    return Err(self.misbehaved(format!(
                        "it answers message {sequence}, of {} that were sent",
                        self.outbox.last_sequence()
                    )));
                }
                Ok(self.take_answer(header.kind, sequence))
            }
            Kind::EndSeen if sender && !topic && self.end_sent => Ok(Some(Event::EndSeen)),
            Kind::Begin if !sender && topic && self.state == State::Open && !self.begun => {
                let Some(before) = sequence.checked_sub(1) else {
                    return Err(self.misbehaved("it begins with message 0".into()));
                };
                self.begun = true;
                self.incoming.skip_to(before);
                Ok(None)
            }
            Kind::End if !sender && self.state == State::Open => {
                // To a subscriber that did not join, the number means nothing.
                if sequence != self.incoming.last && (!topic || self.begun) {
                    return Err(self.misbehaved(format!(
                        "its end counts {sequence} messages, {} arrived",
                        self.incoming.last
                    )));
                }
                self.state = State::Ended;
                Ok(Some(Event::End))
            }
            kind => Err(self.misbehaved(format!("a frame {kind:?} where none may come"))),
        }
    }

    fn take_answer(&mut self, kind: Kind, sequence: u64) -> Option<Event<'static>> {
        if kind == Kind::AckThrough {
            let count = self.outbox.settle_through(sequence);
            return (count > 0).then_some(Event::Acknowledged(count));
        }
        let message = if kind == Kind::Reject { self.outbox.message(sequence) } else { None };
        if !self.outbox.settle_one(sequence) {
            return None;
        }
        Some(message.map_or(Event::Acknowledged(1), Event::Rejected))
    }

    fn take_hello(&mut self, body: &[u8]) -> Result<(), LinkError> {
        let peer = match Hello::parse(body) {
            Ok(peer) => peer,
            Err(problem) => return Err(self.mismatch(problem)),
        };
        if let Err(problem) = self.local.check(&peer) {
            return Err(self.mismatch(problem));
        }
        self.peer = Some(Hello {
            window_messages: peer.window_messages.min(LARGEST_WINDOW_MESSAGES),
            window_bytes: peer.window_bytes.min(LARGEST_WINDOW_BYTES),
            ..peer
        });
        self.state = State::Open;
        Ok(())
    }
}
