//! The clients of a server that have calls with it.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::control::LinkId;
use super::super::hello::Id;
use crate::transport::Receipt;

/// All of them, by their links.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) all: Vec<Client>,
    /// Calls that one may have open.
    pub(super) window: usize,
    /// Answers of all for which there was no room.
    pub(super) unsaid: usize,
    /// The one that was looked for last.
    last: usize,
}

#[derive(Debug)]
pub(super) struct Client {
    /// The link of its calls.
    pub(super) link: LinkId,
    pub(super) id: Id,
    /// Where it was among those to whom answers go.
    pub(super) place: usize,
    /// The longest reply that it is known to take: 0 until it had one.
    pub(super) longest: usize,
    pub(super) begun: Vec<Begun>,
    /// Calls that were read and not handed out.
    pub(super) waiting: usize,
    /// Answers for which it had no room.
    pub(super) unsaid: VecDeque<Vec<u8>>,
}

/// A call that was handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) number: u64,
    pub(super) until: Option<Instant>,
    pub(super) cancelled: bool,
    /// Parts that the client has not taken, and their bytes.
    pub(super) ahead: (u32, u64),
}

impl Client {
    /// Its calls that are not over.
    #[inline]
    pub(super) fn open(&self) -> usize {
        self.begun.len() + self.waiting + self.unsaid.len()
    }

    pub(super) fn begun(&mut self, number: u64) -> Option<&mut Begun> {
        self.begun.iter_mut().find(|one| one.number == number)
    }
}

impl Clients {
    pub(super) fn new(window: usize) -> Self {
        Self { all: Vec::new(), window, unsaid: 0, last: 0 }
    }

    /// Where the client of a link is.
    #[inline]
    pub(super) fn find(&mut self, link: LinkId) -> Option<usize> {
        if self.all.get(self.last).is_none_or(|one| one.link != link) {
            self.last = self.all.binary_search_by_key(&link, |one| one.link).ok()?;
        }
        Some(self.last)
    }

    /// Notes that a call of a client begins, if it is one that has calls here already, and may: a short cut.
    #[inline(always)]
    pub(super) fn begin_plain(&mut self, link: LinkId, number: u64) -> bool {
        let Some(one) = self.find(link).and_then(|at| self.all.get_mut(at)) else { return false };
        let may = one.open() < self.window && one.begun.iter().all(|one| one.number != number);
        if may {
            one.begun.push(Begun { number, until: None, cancelled: false, ahead: (0, 0) });
        }
        may
    }

    /// Adds one. Where.
    #[cold]
    pub(super) fn add(&mut self, link: LinkId, id: Id) -> usize {
        let (begun, unsaid) = Default::default();
        let client = Client { link, id, place: 0, longest: 0, begun, waiting: 0, unsaid };
        let at = self.all.partition_point(|one| one.link < link);
        self.all.insert(at, client);
        at
    }

    /// A call that was handed out: whose it is, and which of its calls.
    #[inline]
    pub(super) fn begun(&mut self, receipt: Receipt) -> Option<(usize, usize)> {
        let at = self.find(receipt.connection)?;
        let mut begun = self.all[at].begun.iter();
        Some((at, begun.position(|one| one.number == receipt.sequence)?))
    }

    /// Whether there are answers for which there was no room.
    #[inline]
    pub(super) fn have_unsaid(&self) -> bool {
        self.unsaid > 0
    }

    /// Keeps an answer for which a client has no room.
    pub(super) fn keep(&mut self, at: usize, said: Vec<u8>) {
        self.all[at].unsaid.push_back(said);
        self.unsaid += 1;
    }
}
