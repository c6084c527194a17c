//! What becomes of calls whose servers went, or lied.

use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;

use super::open::Call;
use super::{SOON, ShmClient};
use crate::error::{Error, ErrorKind, RecvError};
use crate::pattern::service::CallError;
use crate::transport::service_flavor::{Ending, Heard};
use crate::transport::shm::calling::{self, CALL, CALL_WITH_TIME, MOST_BEFORE, WORD_BYTES};
use crate::transport::shm::control::LinkId;
use crate::transport::shm::ends::Opened;
use crate::transport::shm::hello::Id;
use crate::transport::shm::sender::SenderCore;

/// How long a server may take to say over the second link what it said over the first.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

impl ShmClient {
    /// Ends the links of a server that broke the protocol, and the calls that it had.
    #[cold]
    pub(super) fn turn_away(&mut self, link: LinkId, problem: &str) {
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
    pub(super) fn after(&mut self, error: RecvError) {
        match error {
            RecvError::PeerMisbehaved { peer, problem } => self.reconcile(Some((&peer, &problem))),
            RecvError::PeerDied { .. } => self.reconcile(None),
            RecvError::Failed(error) => {
                if error.kind() == ErrorKind::PermissionDenied {
                    self.let_both_be_refused();
                }
                self.failed = Some(CallError::Failed(error));
            }
            RecvError::Interrupted => self.failed = Some(CallError::Interrupted),
            RecvError::PeerRefused { peer, problem } => {
                self.let_both_be_refused();
                let problem = format!("{peer} does not fit: {problem}");
                let address = &self.setup.address;
                let error = Error::new(ErrorKind::Mismatch, address, problem);
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
    pub(super) fn reconcile(&mut self, lied: Option<(&str, &str)>) {
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

    pub(super) fn give_out_backlog(&mut self) {
        while let Some((number, message)) = self.backlog.pop_front() {
            if self.open.get(number).is_none_or(|call| call.cancelled || call.is_over()) {
                self.open.remove(number);
                continue;
            }
            let chosen = self.choose(request_bytes(&message));
            let takes_none = chosen.is_err();
            let at = chosen.ok().flatten();
            let sent = at.map(|at| {
                let to = self.servers[at].to.id;
                self.calls.call(|core, _| core.try_send_to((0, to), &[], &message)).is_ok()
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
                // It is too long for each that is left.
                _ if takes_none || self.servers.is_empty() => {
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
}

/// Bytes of the request in a call.
fn request_bytes(message: &[u8]) -> usize {
    let kind = calling::read(message).map(|(kind, ..)| kind);
    let before = if kind == Some(CALL_WITH_TIME) { MOST_BEFORE } else { WORD_BYTES };
    message.len().saturating_sub(before)
}

fn name_of(names: &[(Id, String)], id: Id) -> String {
    let found = names.iter().find(|(known, _)| *known == id);
    found.map_or_else(|| "the server".to_owned(), |(_, name)| name.clone())
}
