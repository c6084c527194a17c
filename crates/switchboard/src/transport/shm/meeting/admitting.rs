//! Who may be met: the rules of this end are asked of each peer, before anything is said to it.
//!
//! Source: docs/design/access.md.

use std::os::fd::AsFd;

use switchboard_kernel::process;

use super::{Event, Meeting, Offer, Turn};
use crate::access::{Audit, Identity, Record, Rules, Verb};
use crate::address::Address;
use crate::error::{Error, ErrorKind};
use crate::transport::shm::base::user_name;
use crate::transport::shm::greeting;
use crate::transport::shm::hello::{Hello, Role};
use crate::transport::shm::peer::{Peer, Process, process_of};

/// Links with one other user at most.
pub(crate) const MOST_LINKS_OF_A_USER: usize = 64;

/// What a process of another user is told.
pub(crate) const OF_ONE_USER: &str = "events and states of shm: are for processes of one user";

/// Whether an address lets others in where nobody else ever is.
///
/// # Errors
/// It means to, with which option.
pub(crate) fn check_of_one_user(address: &Address) -> Result<(), Error> {
    let Some(option) = address.query.rules().first_option() else { return Ok(()) };
    let problem = format!("?{option}= lets nobody in: {OF_ONE_USER}");
    Err(Error::new(ErrorKind::BadAddress, address, problem)
        .hint("leave it out; between users there are queues, topics and services"))
}

/// Whom an end lets in, and where it writes down whom it did not.
#[derive(Debug)]
pub(super) struct Access {
    rules: Rules,
    /// What this end's peers do.
    verb: Verb,
    /// Users of other namespaces may come here.
    shared: bool,
    audit: Audit,
}

impl Access {
    pub(super) fn open(address: &Address, hello: &Hello, shared: bool) -> Result<Self, Error> {
        let verb = Verb::of(hello.pattern, hello.role.complement() == Role::Writer);
        let audit = Audit::open(address)?;
        Ok(Self { rules: address.query.rules(), verb, shared, audit })
    }
}

/// A peer that may be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    SameUser,
    OtherUser,
}

impl Access {
    /// Whether a peer may be met.
    ///
    /// # Errors
    /// Why not, in words that either side can be told, and who it is.
    fn admit(&self, socket: impl AsFd, peer: &Peer) -> Result<Admitted, (String, Identity)> {
        // In a private folder nobody else can have put a name, whatever number the user has here.
        if !self.shared && peer.uid == process::effective_user_id() {
            return Ok(Admitted::SameUser);
        }
        let identity = Identity::of(socket, peer.uid, peer.gid);
        if identity.is_mine() {
            return Ok(Admitted::SameUser);
        }
        let (verb, mine) = (self.verb.name(), user_name(process::effective_user_id()));
        if !Verb::ALL.contains(&self.verb) {
            // No rule can name it.
            let problem = format!("{identity}, may not {verb} here: {OF_ONE_USER}, here of {mine}");
            return Err((problem, identity));
        }
        if self.shared && self.rules.allow(self.verb, &identity) {
            return Ok(Admitted::OtherUser);
        }
        let who = process::user_name_of_id(peer.uid).unwrap_or_else(|| peer.uid.to_string());
        let problem = if identity.can_be_named() {
            format!(
                "{identity}, may not {verb} here: user {mine} says who may, with ?{verb}=user:{who}, or \
                 ?group= and ?mode="
            )
        } else {
            format!(
                "{identity}, may not {verb} here: the user namespace of user {mine} has no number for this user, \
                 so no rule can name it; ?{verb}=any lets everybody in"
            )
        };
        Err((problem, identity))
    }
}

impl<M> Meeting<M> {
    /// Lets a peer in, or says to both sides, and to the audit log, why not. `came`: it is that one who came.
    pub(super) fn admit<O: Offer<Made = M>>(
        &mut self,
        socket: impl AsFd,
        (peer, came): (&Peer, bool),
        turn: &mut Turn<'_, O>,
    ) -> Option<Admitted> {
        match self.access.admit(&socket, peer) {
            Ok(admitted) => Some(admitted),
            Err((problem, identity)) => {
                greeting::deny(socket.as_fd(), &problem);
                let process = match process_of(socket.as_fd(), peer) {
                    Ok(Process::Alive(process)) => Some(process),
                    _ => None,
                };
                self.access.audit.note(&Record {
                    event: "refused",
                    verb: self.access.verb.name(),
                    pid: peer.pid,
                    program: &peer.program,
                    identity: &identity,
                    process: process.as_ref().map(AsFd::as_fd),
                    reason: &problem,
                });
                turn.found.push(Event::KeptOut { peer: peer.clone(), problem, came });
                None
            }
        }
    }

    /// Whether a peer may be met, without a word about it.
    pub(super) fn may_join(&self, socket: impl AsFd, peer: &Peer) -> bool {
        self.access.admit(socket, peer).is_ok()
    }

    /// Writes down that a peer of another user was turned away, having been let in.
    pub(crate) fn evicted(&mut self, socket: impl AsFd, peer: &Peer, reason: &str) {
        let identity = Identity::of(&socket, peer.uid, peer.gid);
        let process = match process_of(socket.as_fd(), peer) {
            Ok(Process::Alive(process)) => Some(process),
            _ => None,
        };
        self.access.audit.note(&Record {
            event: "evicted",
            verb: self.access.verb.name(),
            pid: peer.pid,
            program: &peer.program,
            identity: &identity,
            process: process.as_ref().map(AsFd::as_fd),
            reason,
        });
    }

    /// What is said where a link more with another user would be one too many.
    pub(super) fn is_full_of_user(&self, peer: &Peer, admitted: Admitted) -> Option<String> {
        if admitted == Admitted::SameUser {
            return None;
        }
        let met = self.met.values().filter(|met| met.uid == peer.uid).count();
        (met >= MOST_LINKS_OF_A_USER).then(|| {
            let user = user_name(peer.uid);
            format!("this end has {met} links with user {user}, and takes no more of another user")
        })
    }
}
