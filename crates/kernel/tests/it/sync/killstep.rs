//! Every operation, with whoever does it killed or stopped at each instruction boundary: the others go on.

mod cases;
mod check;
mod victim;

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use switchboard_kernel::shared_words::SharedWords;
use switchboard_testkit::Child;
use switchboard_testkit::killstep::{Access, Boundary, Plan, Recovery};

use super::Peer;
use crate::shared_words::path_of;

pub(crate) use victim::victim;

/// What is wrong, in words.
type Verdict = Result<(), String>;

/// Others go on within this time. What they need is a fraction of it; the machine may be busy.
const SOON: Duration = Duration::from_secs(5);

/// One operation, who else is there, and how they find that all is well.
struct Case {
    /// What the victim does.
    operation: &'static str,
    /// What the object is, for the peers.
    kind: &'static str,
    make: fn() -> SharedWords,
    /// What each peer is told before the victim starts. It waits, if that begins with `~`.
    peers: &'static [&'static [&'static str]],
    /// Helps the victim on that sleeps, and does not wait itself: the victim may be stopped.
    unblock: fn(&mut World),
    check: fn(&mut World, &Boundary) -> Verdict,
    /// The bytes that the victim may store to.
    stores: &'static [Range<u64>],
}

struct World {
    memory: SharedWords,
    peers: Vec<Peer>,
    /// How often the victim slept and was helped on.
    helped: usize,
    /// The victim was stopped, not killed.
    stopped: bool,
}

impl World {
    /// A peer's answer, without a panic if there is none in time.
    fn answer(&mut self, peer: usize) -> Result<String, String> {
        let line = self.peers[peer].child.line_within(SOON);
        line.ok_or_else(|| format!("peer {peer} does not go on"))
    }

    fn told(&mut self, peer: usize, command: &str) -> Result<String, String> {
        self.peers[peer].child.tell(command);
        self.answer(peer)
    }
}

impl Plan for Case {
    type World = World;

    fn name(&self) -> String {
        format!("sync {}", self.operation)
    }

    fn prepare(&self) -> World {
        let memory = (self.make)();
        let mut peers = Vec::new();
        for commands in self.peers {
            let mut peer = Peer::start(self.kind, &memory);
            for command in *commands {
                match command.strip_prefix('~') {
                    Some(command) => peer.told_and_waits(command),
                    None => {
                        peer.child.tell(command);
                        peer.child.line().expect("an answer");
                    }
                }
            }
            peers.push(peer);
        }
        World { memory, peers, helped: 0, stopped: false }
    }

    fn shared(&self, world: &mut World) -> Vec<PathBuf> {
        vec![path_of(&world.memory).into()]
    }

    fn victim(&self, world: &mut World) -> Child {
        Child::role("sync_victim", &[self.operation, &path_of(&world.memory)])
    }

    fn unblock(&self, world: &mut World) {
        (self.unblock)(world);
        world.helped += 1;
    }

    fn while_stopped(&self, world: &mut World, _: &Boundary) -> Verdict {
        world.stopped = true;
        // All that can be done without it: whoever is to help it on does so now.
        self.unblock(world);
        Ok(())
    }

    fn check(&self, world: &mut World, at: &Boundary) -> Verdict {
        (self.check)(world, at)
    }

    fn allowed(&self, access: &Access) -> bool {
        !access.kind.writes() || self.stores.iter().any(|range| access.is_within(range.clone()))
    }
}

/// Whoever goes on after the first was killed is killed as well, wherever it is.
impl Recovery for Case {
    fn survivor(&self, world: &mut World) -> Child {
        let operation = format!("{} recover", self.kind);
        Child::role("sync_victim", &[operation, path_of(&world.memory)])
    }
}
