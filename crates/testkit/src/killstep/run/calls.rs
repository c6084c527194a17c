//! Death at system calls alone, at full speed between them: for operations that share no memory, and
//! of which the world sees nothing but what they have the kernel do.

use std::io;

use super::super::attach::{attached, end, is_mark};
use super::super::mark::END;
use super::super::memory::{Mappings, Objects};
use super::super::pin::Pinned;
use super::super::tracee::{Stop, Tracee};
use super::super::{Boundary, Call, Depth, How, Plan, Report};
use super::{Run, as_subject, caught};
use crate::{Child, DEADLINE};

/// Kills (or stops) a fresh victim before and after each of its system calls, and in each that it
/// sleeps in; and checks after each. Instructions are not looked at: nobody else sees them. So
/// [`Depth::Every`] is the same as [`Depth::Quick`] here.
///
/// Blocks until all is done: a few milliseconds for each kill, and what the plan's own steps take.
///
/// # Panics
/// Where the plan does, but for its checks: their panics are findings.
#[must_use]
pub fn run_calls<P: Plan>(plan: &P, how: How, depth: Depth) -> Report {
    let _pinned = Pinned::here();
    let mut run = Run::new(plan, plan.name(), how, depth);
    let moments = run.moments();
    run.report.boundaries = moments.len();
    for moment in depth.of(moments) {
        if run.is_hopeless() {
            break;
        }
        run.progress();
        run.several_times(|run| run.at_moment(how, moment));
    }
    run.finish()
}

/// A moment of the operation: that of its n-th system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    call: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Begins,
    Asleep,
    Ended,
}

impl<P: Plan> Run<'_, P> {
    /// The moments of a victim that nobody disturbs; none if that finds something.
    fn moments(&mut self) -> Vec<Moment> {
        let mut world = self.plan.prepare();
        let mut moments = Vec::new();
        let outcome = self.start(&mut world).and_then(|mut caller| {
            while let Some(moment) = caller.next()? {
                if moment.phase == Phase::Asleep {
                    self.plan.unblock(&mut world);
                }
                moments.push(moment);
            }
            let end = caller.here();
            caller.let_go()?;
            Ok(end)
        });
        self.report.sleeps = moments.iter().any(|moment| moment.phase == Phase::Asleep);
        if !self.ended_well(&mut world, outcome, None) {
            moments.clear();
        }
        moments
    }

    /// Whether it came there.
    fn at_moment(&mut self, how: How, moment: Moment) -> bool {
        let mut world = self.plan.prepare();
        let mut reached = None;
        let outcome = self.start(&mut world).and_then(|mut caller| {
            while let Some(now) = caller.next()? {
                if now == moment {
                    let at = caller.here();
                    reached = Some(at.clone());
                    if how == How::Kill {
                        return Ok(at);
                    }
                    // Who sleeps is stopped when it wakes: at the end of this call.
                    caught(|| self.plan.while_stopped(&mut world, &at))?;
                }
                if now.phase == Phase::Asleep {
                    self.plan.unblock(&mut world);
                }
            }
            let end = caller.here();
            caller.let_go()?;
            Ok(end)
        });
        self.report.killed += usize::from(reached.is_some());
        // One that was to be killed, and ended before, is checked as the first one was.
        self.ended_well(&mut world, outcome, reached.as_ref());
        reached.is_some()
    }

    fn start(&self, world: &mut P::World) -> Result<Caller, String> {
        let mut child = as_subject(|| self.plan.victim(world));
        let tracee = attached(&mut child)?;
        let now = Moment { call: 0, phase: Phase::Ended };
        Ok(Caller { child, tracee, now, name: None, at_end: false, signal: None, let_go: false })
    }
}

/// A victim that stops at its system calls. Killed on drop.
struct Caller {
    child: Child,
    tracee: Tracee,
    now: Moment,
    name: Option<Call>,
    at_end: bool,
    /// To be delivered when it goes on.
    signal: Option<i32>,
    let_go: bool,
}

impl Caller {
    /// On to the next moment; none at the operation's end.
    fn next(&mut self) -> Result<Option<Moment>, String> {
        self.try_next().map_err(|error| format!("the victim cannot be traced: {error}"))?
    }

    fn try_next(&mut self) -> io::Result<Result<Option<Moment>, String>> {
        let mut goes_on = self.now.phase == Phase::Asleep;
        loop {
            let stop = if goes_on {
                self.tracee.wait_within_deadline()?
            } else {
                self.tracee.to_system_call(self.signal.take())?;
                match self.now.phase {
                    Phase::Ended => Some(self.tracee.wait()?),
                    Phase::Begins | Phase::Asleep => self.tracee.wait_in_system_call()?,
                }
            };
            match stop {
                None if goes_on => {
                    return Ok(Err(format!("the victim still sleeps: {}", self.here())));
                }
                None => {
                    self.now.phase = Phase::Asleep;
                    return Ok(Ok(Some(self.now)));
                }
                Some(Stop::Gone(how)) => {
                    return Ok(Err(format!("the victim ended before its operation did: {how}")));
                }
                Some(Stop::Signal(signal)) => self.signal = Some(signal),
                Some(Stop::Step | Stop::Interrupted) => {}
                Some(Stop::SystemCall) => break,
            }
            goes_on = false;
        }
        if self.now.phase != Phase::Ended {
            self.now.phase = Phase::Ended;
            return Ok(Ok(Some(self.now)));
        }
        let registers = self.tracee.registers()?;
        let (call, memory) = (registers.orig_rax, self.tracee.memory());
        self.at_end = is_mark(&registers, call, END.to_bytes(), memory);
        self.name = Some(Call(call));
        self.now = Moment { call: self.now.call + 1, phase: Phase::Begins };
        Ok(Ok((!self.at_end).then_some(self.now)))
    }

    fn here(&self) -> Boundary {
        let layout = Mappings::read(self.child.id(), &mut Objects::default()).unwrap_or_default();
        let address = self.tracee.registers().map_or(0, |registers| registers.rip);
        let called = |phase| self.name.filter(|_| self.now.phase == phase && !self.at_end);
        Boundary {
            number: self.now.call,
            who: "victim",
            place: layout.place(address),
            changed: false,
            loaded: false,
            ended: called(Phase::Ended),
            begins: called(Phase::Begins),
            blocked: called(Phase::Asleep),
            after: None,
            end: self.at_end,
        }
    }

    /// At the end: lets it exit, which it must do with code 0.
    fn let_go(mut self) -> Result<(), String> {
        let detached = self.tracee.detach();
        detached.map_err(|error| format!("the victim cannot be let go: {error}"))?;
        self.let_go = true;
        match self.child.wait_within(DEADLINE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the victim ended with {status}")),
            None => Err("the victim does not end".to_owned()),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if !self.let_go {
            end(&self.child, &self.tracee);
        }
    }
}
