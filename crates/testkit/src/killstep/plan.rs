//! What the caller of the harness gives: the world, the victim, the check.

use std::path::PathBuf;

use super::{Access, Boundary};
use crate::Child;

/// One operation, and the world around it. Each kill has a world and a victim of its own.
///
/// The harness calls these one after another, on the thread that called [`super::run`]. That thread,
/// and all that it starts, is kept on one processor meanwhile. What waits must have a deadline: the
/// harness cannot interrupt its caller.
pub trait Plan {
    /// What the processes share: memory, names, other processes. Dropped before the next is made.
    type World;

    /// The operation, as the report names it.
    fn name(&self) -> String;

    /// Makes a world.
    fn prepare(&self) -> Self::World;

    /// The files of the shared memory: the path of a file, `/dev/shm/NAME`, `/proc/PID/fd/N`. None:
    /// everything that the victim has mapped shared.
    fn shared(&self, world: &mut Self::World) -> Vec<PathBuf> {
        let _ = world;
        Vec::new()
    }

    /// Starts the victim: a role ([`Child::role`]) that calls [`super::begin`] and [`super::end`]. It is
    /// to exit with code 0 after that.
    fn victim(&self, world: &mut Self::World) -> Child;

    /// The victim (or a survivor that is stepped) sleeps in a system call: helps it on, if that is
    /// needed, say by unlocking what it waits for. Called once each time it sleeps. Nothing, by default.
    fn unblock(&self, world: &mut Self::World) {
        let _ = world;
    }

    /// [`How::Stop`] only: the victim is stopped at this boundary. Others go on as far as they can
    /// without it. Nothing, by default.
    ///
    /// # Errors
    /// What is wrong, in words.
    fn while_stopped(&self, world: &mut Self::World, at: &Boundary) -> Result<(), String> {
        let _ = (world, at);
        Ok(())
    }

    /// The survivor: whether all is well and others can go on, after the victim was killed at this
    /// boundary (or has ended of its own accord: [`Boundary::is_end`]).
    ///
    /// # Errors
    /// What is wrong, in words.
    fn check(&self, world: &mut Self::World, at: &Boundary) -> Result<(), String>;

    /// Whether the protocol allows this access to shared memory. Everything, by default.
    fn allowed(&self, access: &Access) -> bool {
        let _ = access;
        true
    }
}

/// A [`Plan`] whose survivor is killed as well.
pub trait Recovery: Plan {
    /// Starts the survivor: a role like the victim, whose operation is to recover.
    fn survivor(&self, world: &mut Self::World) -> Child;
}

/// What happens to the victim at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Killed, with SIGKILL.
    Kill,
    /// Stopped; it goes on when [`Plan::while_stopped`] has returned, and must end well.
    Stop,
}

/// At which boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Where the world may have changed: the first, those after an instruction that changed shared
    /// bytes, those before and after a system call, and while it sleeps in one. For [`How::Stop`], those
    /// after an instruction that read shared bytes too: what was read may be old news when it goes on.
    Quick,
    /// So many of those at most, spread evenly; others each time.
    Sample(usize),
    /// All.
    Every,
}

impl Depth {
    /// [`Depth::Every`] when `SWITCHBOARD_KILLSTEP` is `every`, as `cargo xtask prove kill` has it.
    #[must_use]
    pub fn from_environment() -> Self {
        if std::env::var("SWITCHBOARD_KILLSTEP").as_deref() == Ok("every") {
            Self::Every
        } else {
            Self::Quick
        }
    }

    /// [`Depth::Sample`], where [`from_environment`](Self::from_environment) would have [`Depth::Quick`]: for
    /// operations of many events, and for many operations.
    #[must_use]
    pub fn sampled(most: usize) -> Self {
        match Self::from_environment() {
            Self::Every => Self::Every,
            _ => Self::Sample(most),
        }
    }

    /// The places to go to among all that there are.
    pub(super) fn of<T>(self, all: Vec<T>) -> Vec<T> {
        let Self::Sample(most) = self else { return all };
        let step = all.len().div_ceil(most.max(1)).max(1);
        let mut random = [0; 8];
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let first = usize::from_ne_bytes(random) % step;
        all.into_iter().skip(first).step_by(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_all() {
        let numbers = |count| (0..count).collect::<Vec<usize>>();
        for (count, most) in [(100, 7), (8, 8), (3, 8), (1, 1), (9, 8)] {
            let sample = Depth::Sample(most).of(numbers(count));
            assert!(!sample.is_empty() && sample.len() <= most, "{sample:?}");
            let step = count.div_ceil(most);
            assert!(sample.windows(2).all(|pair| pair[1] - pair[0] == step), "{sample:?}");
            assert!(sample[0] < step && sample.last() >= Some(&(count - step)), "{sample:?}");
        }
        assert_eq!(Depth::Quick.of(numbers(9)), numbers(9));
        assert!(Depth::Sample(3).of(numbers(0)).is_empty());
    }
}
