//! A gallery of processes that wait: small groups of real processes, each in a situation with a name, and what
//! is true of it, written down by hand.
//!
//! Source: docs/design/inspect.md, "The gallery". Nothing here knows the inspector: the situations are made with the C library and the kernel
//! alone. `cargo xtask gallery NAME` starts one by hand.

mod datagrams;
mod healthy;
pub mod left;
mod locks;
mod look_alikes;
mod pipes;
mod queues;
mod sockets;
mod stage;
mod tangles;
mod terminals;
mod woken;

pub use stage::Stage;

use crate::child::{instruction, report};

/// A situation.
#[derive(Debug)]
pub struct Situation {
    /// What it is called.
    pub name: &'static str,
    /// What happens in it.
    pub tells: &'static str,
    /// Makes it.
    pub make: fn(&mut Stage),
    /// Whether only root can make it.
    pub root: bool,
    /// Whether it casts doubt on what is so elsewhere, and is put on stage when nobody else is there.
    pub casts_doubt: bool,
    /// The deadlock in it.
    pub deadlock: Option<Deadlock>,
    /// Of actors, by name: what a sentence about why they wait has to say. `@name` stands for an actor's label.
    pub waits: &'static [(&'static str, &'static [&'static str])],
    /// Those that look stuck to somebody who asks for all that do.
    pub stuck: &'static [&'static str],
    /// Those that look so after a while, because what they wait for is in use for longer than one expects: that is not wrong, and no
    /// deadlock.
    pub stuck_after_a_while: &'static [&'static str],
}

/// A deadlock that is expected.
#[derive(Clone, Copy, Debug)]
pub struct Deadlock {
    /// How sure it is.
    pub grade: Sure,
    /// Whether it is by descriptors that they wait for each other, so that it is less sure where not every process of the machine can be
    /// looked into, and possible where descriptors wait in sockets.
    pub by_ends: bool,
    /// Who is in it.
    pub actors: &'static [&'static str],
    /// Who waits behind it.
    pub behind: &'static [&'static str],
}

/// How sure a deadlock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sure {
    /// All who could end it are known.
    Certain,
    /// Unless somebody unseen, or yet to come, helps.
    Probable,
    /// Who could end it is guessed.
    Possible,
}

/// Every situation.
pub fn all() -> impl Iterator<Item = &'static Situation> {
    let tables = [
        pipes::TABLE,
        sockets::TABLE,
        datagrams::TABLE,
        terminals::TABLE,
        queues::TABLE,
        locks::TABLE,
        healthy::TABLE,
        look_alikes::TABLE,
        woken::TABLE,
        tangles::TABLE,
    ];
    tables.into_iter().flatten()
}

/// A situation in which nothing is wrong: nobody is stuck, and no deadlock is there.
impl Situation {
    /// Whether nothing is wrong in it.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.deadlock.is_none() && self.stuck.is_empty()
    }
}

const fn one(
    name: &'static str,
    tells: &'static str,
    make: fn(&mut Stage),
    waits: &'static [(&'static str, &'static [&'static str])],
) -> Situation {
    Situation {
        name,
        tells,
        make,
        root: false,
        casts_doubt: false,
        deadlock: None,
        waits,
        stuck: &[],
        stuck_after_a_while: &[],
    }
}

impl Situation {
    const fn stuck(mut self, actors: &'static [&'static str]) -> Self {
        self.stuck = actors;
        self
    }

    const fn stuck_after_a_while(mut self, actors: &'static [&'static str]) -> Self {
        self.stuck_after_a_while = actors;
        self
    }

    const fn deadlock(
        mut self,
        grade: Sure,
        by_ends: bool,
        actors: &'static [&'static str],
    ) -> Self {
        self.deadlock = Some(Deadlock { grade, by_ends, actors, behind: &[] });
        self.stuck = actors;
        self
    }

    const fn behind(mut self, actors: &'static [&'static str]) -> Self {
        if let Some(deadlock) = &mut self.deadlock {
            deadlock.behind = actors;
        }
        self
    }

    const fn casts_doubt(mut self) -> Self {
        self.casts_doubt = true;
        self
    }

    const fn for_root(mut self) -> Self {
        self.root = true;
        self
    }
}

/// Makes the situation of this name, says `actor NAME PID` for each actor, `object ID` for each object that it is about, and then `ready`, and keeps it until the
/// next line on standard input, or its end. Best in a process of its own: nobody but the actors may have their descriptors.
///
/// # Panics
/// When there is no such situation, or it cannot be made.
pub fn keep(name: &str, say: impl Fn(&str)) {
    let situation = all().find(|one| one.name == name).map(|one| one.make);
    let left = || left::all().find(|one| one.name == name).map(|one| one.make);
    let make = situation.or_else(left).expect("a situation of this name");
    let mut stage = Stage::new();
    make(&mut stage);
    for (name, pid) in stage.settled() {
        say(&format!("actor {name} {pid}"));
    }
    for id in stage.objects() {
        say(&format!("object {id}"));
    }
    say("ready");
    let _ = instruction();
    stage.end();
}

/// A role for [`crate::child::enter`]: keeps the situation that its argument names.
pub fn role(arguments: &[String]) {
    keep(&arguments[0], |line| report(line));
}
