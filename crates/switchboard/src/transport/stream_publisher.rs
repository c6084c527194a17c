//! The publishing end of a topic over links.
//!
//! Messages are encoded once, in a [`Publication`]; each subscriber's connection has a place in it and is
//! written from there. `docs/design/link.md` has the rules: who waits for whom, what is dropped.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use switchboard_kernel::ErrorKind;
use switchboard_kernel::io::Deadline;

use super::connection::{Connection, Read, SLICES, Wire};
use super::hub::{ACCEPTS, Hub, MOST_CONNECTIONS};
use super::stream_peers::StreamPeers;
use crate::error::SendError;
use crate::link::publication::Publication;
use crate::options::Overflow;

/// How much may wait for a subscriber, unless the address or the options say otherwise.
const CAPACITY_BYTES: u32 = 4 << 20;
/// Gathered messages are written once they are this long.
const GATHER_BYTES: usize = 64 * 1024;
/// Where nobody is to wait for a slow subscriber, the end waits so long for one that takes nothing.
const GRACE: Duration = Duration::from_secs(1);
/// Where nobody is to wait for a slow subscriber, sending waits so long, in all and for each step, for
/// one that was not slow before this message: a long one would stay half written otherwise, since no
/// thread goes on with it.
const MOMENT: Duration = Duration::from_millis(10);
const STEP: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(crate) struct StreamPublisher {
    peers: StreamPeers,
    publication: Publication,
    overflow: Overflow,
    /// Messages dropped, each counted for each subscriber that missed it.
    dropped: u64,
    /// Bytes published since subscribers were last looked for.
    gathered: usize,
    finishing: bool,
    /// When something was last written out after it was published.
    published: Instant,
    /// When after that a subscriber last took something, and one that was not slow before.
    moved: Instant,
    stepped: Instant,
}

impl StreamPublisher {
    pub(crate) fn new(hub: Hub) -> Self {
        let options = &hub.setup.options;
        let capacity = options.capacity_bytes.unwrap_or(CAPACITY_BYTES).max(1);
        let now = Instant::now();
        Self {
            publication: Publication::new(capacity, options.history_messages),
            overflow: options.overflow,
            dropped: 0,
            gathered: 0,
            finishing: false,
            published: now,
            moved: now,
            stepped: now,
            peers: StreamPeers::new(hub),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.peers.fd()
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.peers.local_address()
    }

    /// Subscribers that have joined.
    pub(crate) fn peers(&self) -> usize {
        self.joined().count()
    }

    fn joined(&self) -> impl Iterator<Item = &Connection> {
        self.peers.hub.connections.iter().filter(|connection| connection.place.is_some())
    }

    /// Messages that every subscriber has taken, or that were dropped for those that have not.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.publication.last() - self.unacknowledged()
    }

    /// Messages that wait for some subscriber.
    pub(crate) fn unacknowledged(&self) -> u64 {
        let places = self.joined().filter_map(|connection| connection.place.as_ref());
        let waiting = places.map(|place| self.publication.waiting_messages(place));
        waiting.max().unwrap_or(0).min(self.publication.last())
    }

    /// Those of them that are still waited for.
    pub(crate) fn pending(&self) -> u64 {
        if self.gives_up() { 0 } else { self.unacknowledged() }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether a publisher waits when it is held up.
    pub(crate) fn waits(&self) -> bool {
        self.overflow != Overflow::Fail
    }

    /// How long a wait for a slow subscriber is at most, where nobody is to wait for it.
    #[cfg(feature = "tokio")]
    pub(crate) fn patience(&self) -> Option<Duration> {
        (self.overflow != Overflow::Block).then_some(STEP)
    }

    /// The subscriber for which most is waiting.
    pub(crate) fn slow_peer(&self) -> Option<String> {
        let waiting = |connection: &&Connection| {
            let place = connection.place.as_ref();
            place.map_or(0, |place| self.publication.waiting_messages(place))
        };
        let slowest = self.joined().max_by_key(waiting).filter(|slowest| waiting(slowest) > 0);
        slowest.map(|connection| connection.peer.clone())
    }

    #[inline]
    pub(crate) fn try_send(
        &mut self,
        payload: &[u8],
        _priority: u32,
        more: bool,
    ) -> Result<(), SendError> {
        self.peers.check_len(payload.len())?;
        self.peers.report()?;
        // Whoever came before this message is to have it.
        if !more || self.gathered == 0 {
            self.look_around()?;
        }
        if !self.has_room_for(payload.len()) {
            self.gathered = 0;
            self.pass_on_all();
            let cancelled = self.look_around()?;
            if !self.has_room_for(payload.len()) {
                return Err(if cancelled { SendError::Interrupted } else { SendError::Full });
            }
        }
        self.publication.push(payload);
        if self.overflow == Overflow::DropOldest {
            let places = self.peers.hub.connections.iter_mut().filter_map(|c| c.place.as_mut());
            self.dropped += places.map(|place| self.publication.drop_oldest(place)).sum::<u64>();
        }
        self.gathered += payload.len() + 1;
        if !more || self.gathered >= GATHER_BYTES {
            self.gathered = 0;
            let now = Instant::now();
            (self.published, self.moved, self.stepped) = (now, now, now);
            for place in self.peers.hub.connections.iter_mut().filter_map(|c| c.place.as_mut()) {
                place.slow = place.stuck;
            }
            self.pass_on_all();
        }
        Ok(())
    }

    /// Whether a message of this length may be published now.
    #[inline]
    fn has_room_for(&self, len: usize) -> bool {
        let has_room = |connection: &Connection| {
            let place = connection.place.as_ref();
            place.is_none_or(|place| self.publication.has_room_for(place, len))
        };
        let waits_for_nobody = self.overflow == Overflow::DropOldest;
        !self.finishing && (waits_for_nobody || self.peers.hub.connections.iter().all(has_room))
    }

    /// Writes to every subscriber what waits for it, as far as it takes that.
    fn pass_on_all(&mut self) {
        let mut gone = Vec::new();
        for connection in &mut self.peers.hub.connections {
            let before = connection.place.as_ref().is_some_and(|place| place.stuck);
            if !before && !pass_on(&self.publication, connection) {
                gone.push(connection.id);
            }
        }
        for id in gone {
            self.peers.hub.remove(id);
        }
        self.release();
    }

    fn release(&mut self) {
        let connections = self.peers.hub.connections.iter();
        self.publication.release(connections.filter_map(|c| c.place.as_ref()));
    }

    /// Accepts, dials, reads hellos, lets subscribers join, and writes to those that were stuck, until
    /// everybody who had connected is in. Whether waiting is to end.
    fn look_around(&mut self) -> Result<bool, SendError> {
        let mut cancelled = false;
        for _ in 0..=MOST_CONNECTIONS / ACCEPTS {
            let known = self.peers.hub.newest();
            let found = self.peers.look()?;
            cancelled |= found.cancelled;
            for id in found.ready {
                self.serve(id)?;
            }
            // The hello of one that has just come is likely there: it need not be waited for.
            let new = self.peers.hub.connections.iter().rev().map(|connection| connection.id);
            let new: Vec<u64> = new.take_while(|id| *id > known).collect();
            for id in new.iter().rev() {
                self.serve(*id)?;
            }
            if new.len() < ACCEPTS {
                break;
            }
        }
        Ok(cancelled)
    }

    fn serve(&mut self, id: u64) -> Result<(), SendError> {
        let Some(connection) = self.peers.hub.connection(id) else { return Ok(()) };
        let read = connection.read();
        if let Err(who) = self.peers.hear(id, |_| {}) {
            self.remove(id);
            return self.peers.turned_away(who);
        }
        let Some(connection) = self.peers.hub.connection(id) else { return Ok(()) };
        if read == Read::Closed {
            // Nobody is told: others go on, and whoever connects does so again.
            self.remove(id);
            return Ok(());
        }
        if connection.place.is_none()
            && let Wire::Link(link) = &mut connection.wire
            && link.is_open()
        {
            let (place, first) = self.publication.join(link.largest_message_bytes());
            link.begin(first);
            connection.place = Some(place);
        }
        let place = connection.place.as_mut();
        let (stuck, slow) =
            place.map_or((false, false), |place| (std::mem::take(&mut place.stuck), place.slow));
        if !pass_on(&self.publication, connection) {
            self.remove(id);
            return Ok(());
        }
        if stuck {
            self.moved = Instant::now();
            if !slow {
                self.stepped = self.moved;
            }
            self.release();
        }
        Ok(())
    }

    fn remove(&mut self, id: u64) {
        self.peers.hub.remove(id);
        self.release();
    }

    /// Moves on whatever can move. Whether nobody has to wait for what does not.
    pub(crate) fn drive(&mut self) -> Result<bool, SendError> {
        self.peers.report()?;
        self.gathered = 0;
        self.pass_on_all();
        if self.is_taken() {
            return Ok(true);
        }
        let cancelled = self.look_around()?;
        if self.is_taken() || (self.overflow != Overflow::Block && !self.has_a_moment()) {
            return Ok(true);
        }
        if cancelled { Err(SendError::Interrupted) } else { Ok(false) }
    }

    /// Whether somebody is inside what was published last who was not slow before, and is to be waited
    /// for a moment.
    fn has_a_moment(&self) -> bool {
        let places = || self.joined().filter_map(|connection| connection.place.as_ref());
        self.published.elapsed() < MOMENT
            && self.stepped.elapsed() < STEP
            && places().any(|place| place.stuck && !place.slow)
    }

    /// Whether nothing waits for anybody.
    fn is_taken(&self) -> bool {
        self.peers.hub.connections.iter().all(|connection| is_taken(&self.publication, connection))
    }

    pub(crate) fn look(&mut self) -> Result<(), SendError> {
        self.peers.report()?;
        if self.look_around()? { Err(SendError::Interrupted) } else { Ok(()) }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        if self.overflow == Overflow::Block || self.is_taken() {
            return self.peers.wait(deadline);
        }
        // When it gives up, nothing happens that would end the wait.
        let left =
            if self.has_a_moment() { STEP } else { GRACE.saturating_sub(self.moved.elapsed()) };
        let deadline = if left.is_zero() { deadline } else { deadline.min(Deadline::after(left)) };
        self.peers.wait(deadline)
    }

    /// Whether slow subscribers are not waited for any more: only where they hold nobody up.
    fn gives_up(&self) -> bool {
        self.overflow != Overflow::Block && self.moved.elapsed() >= GRACE
    }

    /// Says the end to everybody who has taken everything. Whether that is all.
    pub(crate) fn finish(&mut self) -> Result<bool, SendError> {
        self.finishing = true;
        self.look()?;
        self.peers.must_fit()?;
        self.pass_on_all();
        for connection in &mut self.peers.hub.connections {
            // Also to a peer whose hello did not come yet: it is not to take this for a death.
            if !connection.done && is_taken(&self.publication, connection) {
                if let Wire::Link(link) = &mut connection.wire {
                    link.end_after(self.publication.last());
                }
                connection.done = connection.flush() && connection.unwritten_bytes() == 0;
            }
        }
        let unsaid = self.peers.hub.connections.iter().any(|connection| !connection.done);
        Ok(!unsaid || self.gives_up())
    }
}

/// Whether a subscriber has everything that it is to have by now.
fn is_taken(publication: &Publication, connection: &Connection) -> bool {
    let taken = connection.place.as_ref().is_none_or(|place| publication.is_taken(place));
    taken && connection.unwritten_bytes() == 0
}

/// Writes to a subscriber what waits for it, as far as it takes that. `false` when it is gone.
fn pass_on(publication: &Publication, connection: &mut Connection) -> bool {
    if !connection.flush() {
        return false;
    }
    let Some(mut place) = connection.place.take() else { return true };
    // What the link itself has to say is written first.
    place.stuck = connection.unwritten_bytes() > 0;
    let mut here = true;
    while !place.stuck && here {
        let mut slices = [&[][..]; SLICES];
        let count = publication.unwritten(&mut place, &mut slices);
        if count == 0 {
            break;
        }
        let (offered, result) = connection.write_link(&mut slices[..count]);
        match result {
            Ok(n) => {
                publication.wrote(&mut place, n);
                // A short write filled what room there was.
                place.stuck = n < offered;
            }
            Err(error) => {
                place.stuck = error.kind() == ErrorKind::WouldBlock;
                here = place.stuck;
            }
        }
    }
    connection.place = Some(place);
    here
}
