//! Death at every system call: an endpoint is killed, or stopped, while it comes, meets and leaves.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;
use switchboard_testkit::killstep::{self, Boundary, Depth, How, Plan};
use switchboard_testkit::{Child, Scratch};

use super::ends::{End, names};
use crate::transport::shm::hello::{Pattern, Role};

/// Role: comes, meets one, and goes, under the harness's eyes.
pub(super) fn victim(arguments: &[String]) {
    let base = PathBuf::from(&arguments[0]);
    let role = if arguments[1] == "writer" { Role::Writer } else { Role::Reader };
    // First calls take long, and are the same.
    drop(End::open(&base, Pattern::Queue, role));
    killstep::begin();
    let mut end = End::open(&base, Pattern::Queue, role);
    while end.met.is_empty() {
        end.meeting.wait(Deadline::NEVER).expect("wait");
        end.turn(Instant::now());
    }
    assert_eq!(end.said, Vec::<String>::new());
    drop(end);
    killstep::end();
}

struct Meeting {
    role: Role,
    /// The other is there before the victim comes; else it comes while the victim waits.
    is_first: bool,
}

struct World {
    scratch: Scratch,
    other: Option<End>,
}

impl World {
    /// The other does what it can.
    fn go_on(&mut self, role: Role) {
        let base = self.scratch.path();
        let other = self.other.get_or_insert_with(|| End::open(base, Pattern::Queue, role));
        for _ in 0..4 {
            other.turn(Instant::now());
        }
    }

    /// The other and one more of the victim's role meet, and nothing of the victim is in their way.
    fn meets_another(&mut self, role: Role) -> Result<(), String> {
        self.go_on(role.complement());
        let Some(other) = &mut self.other else { return Err("nobody".into()) };
        let mut third = End::open(self.scratch.path(), Pattern::Queue, role);
        let deadline = Deadline::after(Duration::from_secs(10));
        while third.met.is_empty() || !other.met.iter().any(|met| met.hello.id == third.id()) {
            if deadline.passed() {
                return Err(format!("a third one did not meet: {other:?} {third:?}"));
            }
            third.meeting.wait(Deadline::after(Duration::from_millis(1))).expect("wait");
            third.turn(Instant::now());
            other.turn(Instant::now());
        }
        match (&third.said[..], &other.said[..]) {
            ([], []) => Ok(()),
            said => Err(format!("{said:?}")),
        }
    }
}

impl Plan for Meeting {
    type World = World;

    fn name(&self) -> String {
        let end = if self.role == Role::Writer { "sender" } else { "receiver" };
        let place = if self.is_first { "comes second" } else { "comes first" };
        format!("shm meeting, a {end} that {place}")
    }

    fn prepare(&self) -> World {
        let scratch = Scratch::new();
        let other = self
            .is_first
            .then(|| End::open(scratch.path(), Pattern::Queue, self.role.complement()));
        World { scratch, other }
    }

    fn victim(&self, world: &mut World) -> Child {
        let role = if self.role == Role::Writer { "writer" } else { "reader" };
        Child::role("shm-killstep", &[&world.scratch.path().display().to_string(), role])
    }

    fn unblock(&self, world: &mut World) {
        world.go_on(self.role.complement());
    }

    fn while_stopped(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        // A stopped one is not dead: its name stays, and nobody waits for it.
        world.meets_another(self.role)
    }

    fn check(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        world.meets_another(self.role)?;
        let names = names(world.scratch.path());
        let own = world.other.as_ref().map(|other| other.id().to_string()).unwrap_or_default();
        if names.len() != 1 || !names[0].ends_with(&own) {
            return Err(format!("left: {names:?}"));
        }
        world.other = None;
        if world.scratch.join("switchboard/shm/channel").exists() {
            return Err("the folder is left".into());
        }
        Ok(())
    }
}

#[test]
fn an_endpoint_killed_anywhere_harms_nobody() {
    if killstep::refused("an_endpoint_killed_anywhere_harms_nobody") {
        return;
    }
    let all =
        [(Role::Writer, true), (Role::Reader, false), (Role::Writer, false), (Role::Reader, true)];
    // The two roles do the same; of each one way is enough, but for a proof.
    let proof = Depth::from_environment() == Depth::Every;
    for (role, is_first) in all.into_iter().take(if proof { 4 } else { 2 }) {
        let plan = Meeting { role, is_first };
        killstep::run_calls(&plan, How::Kill, Depth::Quick).expect_clean();
        killstep::run_calls(&plan, How::Stop, Depth::Quick).expect_clean();
    }
}
