//! What is said to clients about their calls, and what there was no room for.

use super::ShmServer;
use super::clients::Begun;
use crate::error::{Error, SendError};
use crate::link::{Answer, Failure};
use crate::pattern::service::{Code, ReplyError};
use crate::transport::Receipt;
use crate::transport::shm::calling::{self, DONE, FAIL, PART, REPLY, WORD_BYTES};
use crate::transport::shm::hello::Id;

impl ShmServer {
    pub(crate) fn answer(
        &mut self,
        receipt: Receipt,
        answer: Answer<'_>,
    ) -> Result<(), ReplyError> {
        match answer {
            Answer::Reply(payload) if self.reply_plain(receipt, payload) => Ok(()),
            answer => self.answer_any(receipt, answer),
        }
    }

    /// Replies, where there is nothing particular about it: a short cut.
    #[inline(always)]
    fn reply_plain(&mut self, receipt: Receipt, payload: &[u8]) -> bool {
        let Some((at, begun)) = self.clients.begun(receipt) else { return false };
        let one = &mut self.clients.all[at];
        let is_plain = !one.begun[begun].cancelled && payload.len() <= self.longest;
        // What the client takes is known once its link was there.
        if !is_plain || payload.len() > one.longest || self.clients.unsaid > 0 {
            return false;
        }
        let word = calling::word(REPLY, receipt.sequence);
        if !self.answers.send_plain((one.place, one.id), word, payload) {
            return false;
        }
        one.begun.swap_remove(begun);
        true
    }

    #[inline(never)]
    fn answer_any(&mut self, receipt: Receipt, answer: Answer<'_>) -> Result<(), ReplyError> {
        let Some((at, begun)) = self.clients.begun(receipt) else {
            return Err(ReplyError::Cancelled);
        };
        let one = &self.clients.all[at];
        let (id, link, Begun { number, cancelled, .. }) = (one.id, one.link, one.begun[begun]);
        let body;
        let (kind, payload) = match answer {
            _ if cancelled => (DONE, &[][..]),
            Answer::Reply(payload) => (REPLY, payload),
            Answer::Done => (DONE, &[][..]),
            Answer::Fail(code, text, details) => {
                let room = self.room_of(id).unwrap_or(usize::MAX);
                body = calling::failure_within(room, code, text, details);
                (FAIL, &body[..])
            }
        };
        // The call goes on where its reply is too large: that will be said of it. A failure always fits.
        if kind == REPLY {
            self.check_len(id, payload.len())?;
        }
        let word = calling::word(kind, number);
        let one = &self.clients.all[at];
        let sent = if one.unsaid.is_empty() {
            self.answers.call(|core, _| core.try_send_to((one.place, id), &[word], payload))
        } else {
            Err(SendError::Full)
        };
        let result = match sent {
            Ok(place) => {
                self.clients.all[at].place = place;
                self.clients.all[at].longest = self.room_of(id).map_or(0, calling::reply_within);
                Ok(())
            }
            Err(SendError::Failed(error)) => Err(ReplyError::Failed(error)),
            Err(_) if self.is_gone(link, id) => Err(ReplyError::ClientGone),
            Err(_) => {
                self.clients.keep(at, [&word.to_le_bytes()[..], payload].concat());
                Ok(())
            }
        };
        self.clients.all[at].begun.swap_remove(begun);
        if self.clients.have_unsaid() {
            self.say_on();
        }
        match result {
            Ok(()) if cancelled => Err(ReplyError::Cancelled),
            result => result,
        }
    }

    pub(crate) fn try_part(&mut self, receipt: Receipt, bytes: &[u8]) -> Result<(), ReplyError> {
        let Some((at, begun)) = self.clients.begun(receipt) else {
            return Err(ReplyError::Cancelled);
        };
        let one = &self.clients.all[at];
        let (id, link, place, is_behind) = (one.id, one.link, one.place, !one.unsaid.is_empty());
        let Begun { number, cancelled, ahead: (parts, ahead), .. } = one.begun[begun];
        if cancelled {
            return Err(ReplyError::Cancelled);
        }
        self.check_len(id, bytes.len())?;
        let window = self.answers.call(|core, _| {
            Ok::<_, Error>(core.addressees().find(|one| one.id == id).map(|one| one.window))
        });
        let Ok(Some(window)) = window else {
            return Err(if self.is_gone(link, id) {
                ReplyError::ClientGone
            } else {
                ReplyError::Full
            });
        };
        let after = ahead + bytes.len() as u64;
        // The client's window of bytes is not known here: this side's is as good.
        let most = u64::from(self.setup.options.prefetch_bytes.max(1));
        if is_behind || parts > 0 && (parts as usize >= window || after > most) {
            return Err(ReplyError::Full);
        }
        let word = calling::word(PART, number);
        match self.answers.call(|core, _| core.try_send_to((place, id), &[word], bytes)) {
            Ok(place) => {
                let one = &mut self.clients.all[at];
                one.place = place;
                one.begun[begun].ahead = (parts + 1, after);
                Ok(())
            }
            Err(SendError::Failed(error)) => Err(ReplyError::Failed(error)),
            Err(_) => Err(ReplyError::Full),
        }
    }

    fn check_len(&mut self, id: Id, len: usize) -> Result<(), ReplyError> {
        let theirs = self.room_of(id).map_or(usize::MAX, calling::reply_within);
        let limit_bytes = self.longest.min(theirs);
        if len <= limit_bytes {
            return Ok(());
        }
        let limit = "what both sides take (?max-message=)".to_owned();
        Err(ReplyError::TooLarge { len_bytes: len, limit_bytes, limit })
    }

    /// The longest that a client takes behind the word of an answer, once its link is there.
    fn room_of(&mut self, id: Id) -> Option<usize> {
        let one = self.answers.call(|core, _| {
            let one = core.addressees().find(|one| one.id == id);
            Ok::<_, Error>(one.map(|one| (one.largest as usize).saturating_sub(WORD_BYTES)))
        });
        one.ok().flatten()
    }

    /// Makes the next answer to a client one that it takes: only once its link was there was it known how much that
    /// is. A failure is cut, and in the place of a reply comes one.
    #[cold]
    fn shorten(&mut self, at: usize) {
        let Some(room) = self.room_of(self.clients.all[at].id) else { return };
        let Some(said) = self.clients.all[at].unsaid.front_mut() else { return };
        let Some((kind, number, rest)) = calling::read(said) else { return };
        let failure = match kind {
            FAIL if rest.len() > room => calling::failure(rest),
            REPLY if rest.len() > calling::reply_within(room) => {
                let (len, limit) = (rest.len(), calling::reply_within(room));
                let text = format!(
                    "the reply has {len} bytes, and its client takes {limit} (?max-message=)"
                );
                Some(Failure { code: Code::ResourceExhausted as u16, text, details: Vec::new() })
            }
            _ => None,
        };
        if let Some(Failure { code, text, details }) = failure {
            *said = calling::begin(FAIL, number);
            said.extend_from_slice(&calling::failure_within(room, code, &text, &details));
        }
    }

    /// Says what clients had no room for.
    pub(super) fn say_on(&mut self) {
        if !self.clients.have_unsaid() {
            return;
        }
        let mut gone = false;
        for at in 0..self.clients.all.len() {
            loop {
                self.shorten(at);
                let one = &mut self.clients.all[at];
                let Some(said) = one.unsaid.front() else { break };
                let to = (one.place, one.id);
                match self.answers.call(|core, _| core.try_send_to(to, &[], said)) {
                    Ok(place) => one.place = place,
                    Err(_) => {
                        let (link, id) = (self.clients.all[at].link, self.clients.all[at].id);
                        gone |= self.is_gone(link, id);
                        break;
                    }
                }
                self.clients.all[at].unsaid.pop_front();
                self.clients.unsaid -= 1;
            }
        }
        if gone {
            self.forget_the_gone();
        }
    }

    /// Whether answers can go to a client now.
    pub(super) fn has(&mut self, id: Id) -> bool {
        self.answers.call(|core, _| Ok::<_, Error>(core.has(id))).unwrap_or(false)
    }
}
