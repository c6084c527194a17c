//! All the ways of one operation: first one that nobody disturbs, then one for each kill.

mod calls;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::course::{Course, Goal};
use super::pin::Pinned;
use super::walk::{Decoded, Run as Ran, Walk};
use super::{Access, Boundary, Depth, Finding, How, Plan, Recovery, Report};
use crate::child::as_subject;

pub use calls::run_calls;

/// An operation of more instructions than this does not end.
const MOST_BOUNDARIES: usize = 1_000_000;

/// A longer operation goes on at full speed after it was stopped.
const MOST_STEPPED_AFTER_A_STOP: usize = 5_000;

/// After so many findings there is no more to learn.
const MOST_FINDINGS: usize = 100;

/// How many victims try to come to a boundary.
const ATTEMPTS: usize = 4;

/// How many victims are stepped to find the shortest course.
const COURSES: usize = 8;

/// How often a long run says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Kills (or stops) a fresh victim at each boundary, and checks after each.
///
/// Blocks until all is done: a few milliseconds for each kill, and what the plan's own steps take.
///
/// # Panics
/// Where the plan does, but for its checks: their panics are findings.
#[must_use]
pub fn run<P: Plan>(plan: &P, how: How, depth: Depth) -> Report {
    let _pinned = Pinned::here();
    let mut run = Run::new(plan, plan.name(), how, depth);
    if let Some(course) = run.shortest(Run::undisturbed) {
        run.report.boundaries = course.len();
        for goal in course.goals(how, depth) {
            if run.is_hopeless() {
                break;
            }
            run.progress();
            run.several_times(|run| match how {
                How::Kill => run.kill_at(goal, &course),
                How::Stop => run.stop_at(goal, &course),
            });
        }
    }
    run.finish()
}

/// Kills a victim where the world may have changed; then a survivor, at each boundary of what it does
/// about that; and checks with a third one.
///
/// The boundaries that the report counts are those of survivors.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_recovery<P: Recovery>(plan: &P, depth: Depth) -> Report {
    let _pinned = Pinned::here();
    let name = format!("{}, survivor too", plan.name());
    let mut run = Run::new(plan, name, How::Kill, depth);
    if let Some(victims) = run.shortest(Run::undisturbed) {
        for event in victims.goals(How::Kill, Depth::Quick) {
            let survivors = run.shortest(|run| run.undisturbed_survivor(event, &victims));
            let Some(survivors) = survivors else {
                // The victim did not come there, or there is a finding.
                run.report.missed += 1;
                continue;
            };
            run.report.boundaries += survivors.len();
            for goal in survivors.goals(How::Kill, depth) {
                if run.is_hopeless() {
                    break;
                }
                run.progress();
                run.several_times(|run| run.kill_survivor_at((event, &victims), goal, &survivors));
            }
        }
    }
    run.finish()
}

struct Run<'a, P: Plan> {
    plan: &'a P,
    report: Report,
    decoded: Decoded,
    /// Accesses that were found not to be allowed, each once.
    forbidden: HashSet<String>,
    started: Instant,
    said: Instant,
}

impl<'a, P: Plan> Run<'a, P> {
    fn new(plan: &'a P, operation: String, how: How, depth: Depth) -> Self {
        let report = Report {
            operation,
            how,
            depth,
            boundaries: 0,
            killed: 0,
            sleeps: false,
            missed: 0,
            strayed: 0,
            findings: Vec::new(),
            events: Vec::new(),
            accesses: Vec::new(),
            steps: 0,
            slowest_check: Duration::ZERO,
            elapsed: Duration::ZERO,
        };
        let now = Instant::now();
        let (decoded, forbidden) = Default::default();
        Self { plan, report, decoded, forbidden, started: now, said: now }
    }

    fn finish(mut self) -> Report {
        self.report.elapsed = self.started.elapsed();
        self.report.publish();
        self.report
    }

    fn is_hopeless(&self) -> bool {
        self.report.findings.len() >= MOST_FINDINGS
    }

    fn progress(&mut self) {
        if self.said.elapsed() >= PROGRESS {
            self.said = Instant::now();
            self.report.progress(self.started.elapsed().as_secs());
        }
    }

    fn found(&mut self, at: Option<Boundary>, what: String) {
        self.report.findings.push(Finding { at, what });
    }

    /// The shortest of several courses, where every boundary is to be found again, or the operation
    /// sleeps: a victim that is stepped is so slow that it reads the clock twice, if that ticks
    /// meanwhile, and looks once more, if that is what it does after a while.
    fn shortest(&mut self, mut course: impl FnMut(&mut Self) -> Option<Course>) -> Option<Course> {
        let mut shortest = course(self)?;
        self.report.sleeps = shortest.sleeps();
        let courses = if matches!(self.report.depth, Depth::Sample(_)) { 2 } else { COURSES };
        if self.report.depth == Depth::Every || self.report.sleeps {
            for _ in 1..courses {
                let another = course(self)?;
                if another.len() < shortest.len() {
                    shortest = another;
                }
            }
        }
        Some(shortest)
    }

    /// The first way: nobody is killed, and all must be well.
    fn undisturbed(&mut self) -> Option<Course> {
        let mut world = self.plan.prepare();
        let mut decoded = std::mem::take(&mut self.decoded);
        let mut course = Course::default();
        let mut accesses = Vec::new();
        let outcome = self.victim(&mut world, &mut decoded).and_then(|mut walk| {
            let log = Log { course: Some(&mut course), accesses: Some(&mut accesses) };
            self.go(&mut walk, &mut world, Goal::End, log)?;
            let end = walk.here();
            walk.let_go()?;
            Ok(end)
        });
        self.decoded = decoded;
        self.report.accesses = accesses;
        self.report.events = course.events();
        self.ended_well(&mut world, outcome, None).then_some(course)
    }

    /// Where nobody was killed: whether the way ended well, and the check finds nothing.
    fn ended_well(
        &mut self,
        world: &mut P::World,
        outcome: Result<Boundary, String>,
        at: Option<&Boundary>,
    ) -> bool {
        match outcome {
            Ok(end) => self.check(world, &end),
            Err(what) => {
                self.found(at.cloned(), what);
                false
            }
        }
    }

    /// Whether it came there.
    fn kill_at(&mut self, goal: Goal, course: &Course) -> bool {
        let mut world = self.plan.prepare();
        let at = self.killed_victim(&mut world, goal, course);
        if let Some(at) = &at {
            self.count(at, course);
            self.check(&mut world, at);
        }
        at.is_some()
    }

    /// A victim that was killed there; none when it did not come there.
    fn killed_victim(
        &mut self,
        world: &mut P::World,
        goal: Goal,
        course: &Course,
    ) -> Option<Boundary> {
        let mut decoded = std::mem::take(&mut self.decoded);
        let outcome = self.victim(world, &mut decoded).and_then(|mut walk| {
            let reached = self.reach(&mut walk, world, goal, course)?;
            Ok(reached.then(|| walk.here()))
        });
        self.decoded = decoded;
        self.arrived(outcome)
    }

    /// Whether it came there.
    fn stop_at(&mut self, goal: Goal, course: &Course) -> bool {
        let mut world = self.plan.prepare();
        let mut decoded = std::mem::take(&mut self.decoded);
        let mut stopped = None;
        let outcome = self.victim(&mut world, &mut decoded).and_then(|mut walk| {
            if self.reach(&mut walk, &mut world, goal, course)? {
                let at = walk.here();
                stopped = Some(at.clone());
                walk.hold()?;
                caught(|| self.plan.while_stopped(&mut world, &at))?;
                // Step by step, its accesses are judged: it may go another way now.
                if (at.is_event() || at.loaded) && course.len() <= MOST_STEPPED_AFTER_A_STOP {
                    self.go(&mut walk, &mut world, Goal::End, Log::default())?;
                } else {
                    walk.run_to_end(&mut || self.plan.unblock(&mut world))?;
                }
            }
            let end = walk.here();
            walk.let_go()?;
            Ok(end)
        });
        self.decoded = decoded;
        if let Some(at) = &stopped {
            self.count(at, course);
        }
        self.ended_well(&mut world, outcome, stopped.as_ref());
        stopped.is_some()
    }

    /// Where it arrived, if it did. An error is a finding.
    fn arrived(&mut self, outcome: Result<Option<Boundary>, String>) -> Option<Boundary> {
        match outcome {
            Err(what) => self.found(None, what),
            Ok(None) => {}
            Ok(Some(at)) => return Some(at),
        }
        None
    }

    /// Where a clock is read, say, two runs may differ by a few instructions: tries again.
    fn several_times(&mut self, mut attempt: impl FnMut(&mut Self) -> bool) {
        for _ in 0..ATTEMPTS {
            let findings = self.report.findings.len();
            if attempt(self) || self.report.findings.len() > findings {
                return;
            }
        }
        self.report.missed += 1;
    }

    fn count(&mut self, at: &Boundary, course: &Course) {
        self.report.killed += 1;
        self.report.strayed += usize::from(course.place(at.number) != Some(&at.place));
    }

    fn victim<'d>(
        &mut self,
        world: &mut P::World,
        decoded: &'d mut Decoded,
    ) -> Result<Walk<'d>, String> {
        let objects = self.plan.shared(world);
        let child = as_subject(|| self.plan.victim(world));
        Walk::start("victim", child, &objects, decoded)
    }

    /// From the beginning to a boundary that an earlier one came to: at full speed, if that can be.
    fn reach(
        &mut self,
        walk: &mut Walk<'_>,
        world: &mut P::World,
        goal: Goal,
        course: &Course,
    ) -> Result<bool, String> {
        let Some((at, spot, by_number)) = course.way_to(goal).filter(|(at, ..)| *at > 0) else {
            return self.go(walk, world, goal, Log::default());
        };
        match walk.run_to(at, spot, &mut || self.plan.unblock(world))? {
            Ran::There => self.go(walk, world, by_number, Log::default()),
            Ran::End => Ok(false),
            Ran::Refused => self.go(walk, world, goal, Log::default()),
        }
    }

    /// On to a boundary; whether it came there before its end.
    fn go(
        &mut self,
        walk: &mut Walk<'_>,
        world: &mut P::World,
        goal: Goal,
        mut log: Log<'_>,
    ) -> Result<bool, String> {
        let before = walk.steps();
        let outcome = loop {
            if walk.is_at_end() {
                break Ok(false);
            }
            let is_there = match goal {
                Goal::End => false,
                Goal::Number(number) => number == walk.number(),
                Goal::Event(event) => walk.event() == Some(event),
            };
            if is_there {
                break Ok(true);
            }
            if walk.number() > MOST_BOUNDARIES {
                break Err(format!("more than {MOST_BOUNDARIES} boundaries: {}", walk.here()));
            }
            log.at(walk);
            let outcome = if walk.is_blocked() {
                self.plan.unblock(world);
                walk.wake()
            } else {
                if walk.has_timed_out() {
                    self.plan.unblock(world);
                }
                walk.step()
            };
            if outcome.is_err() {
                break outcome.map(|()| false);
            }
            self.judge(walk, &mut log);
        };
        self.report.steps += walk.steps() - before;
        outcome
    }

    /// What the last instruction did to shared memory.
    fn judge(&mut self, walk: &mut Walk<'_>, log: &mut Log<'_>) {
        for (access, is_certain) in walk.accesses() {
            let counts = is_certain || access.changed;
            if counts && !self.plan.allowed(&access) && self.forbidden.insert(access.to_string()) {
                self.found(Some(walk.here()), format!("not allowed: {access}"));
            }
            if let Some(accesses) = &mut log.accesses {
                accesses.push(access);
            }
        }
    }

    /// The survivor's word; whether all is well.
    fn check(&mut self, world: &mut P::World, at: &Boundary) -> bool {
        let started = Instant::now();
        let outcome = caught(|| self.plan.check(world, at));
        self.report.slowest_check = self.report.slowest_check.max(started.elapsed());
        match outcome {
            Ok(()) => true,
            Err(what) => {
                self.found(Some(at.clone()), what);
                false
            }
        }
    }
}

impl<P: Recovery> Run<'_, P> {
    /// A victim killed there, and a survivor that nobody disturbs.
    fn undisturbed_survivor(&mut self, event: Goal, victims: &Course) -> Option<Course> {
        let mut world = self.plan.prepare();
        let victim = self.killed_victim(&mut world, event, victims)?;
        let mut decoded = std::mem::take(&mut self.decoded);
        let mut course = Course::default();
        let outcome = self.survivor(&mut world, &mut decoded).and_then(|mut walk| {
            let log = Log { course: Some(&mut course), accesses: None };
            self.go(&mut walk, &mut world, Goal::End, log)?;
            let end = walk.here();
            walk.let_go()?;
            Ok(Boundary { after: Some(Arc::new(victim.clone())), ..end })
        });
        self.decoded = decoded;
        self.ended_well(&mut world, outcome, Some(&victim)).then_some(course)
    }

    /// Whether it came there.
    fn kill_survivor_at(
        &mut self,
        (event, victims): (Goal, &Course),
        goal: Goal,
        course: &Course,
    ) -> bool {
        let mut world = self.plan.prepare();
        let Some(victim) = self.killed_victim(&mut world, event, victims) else { return false };
        let mut decoded = std::mem::take(&mut self.decoded);
        let outcome = self.survivor(&mut world, &mut decoded).and_then(|mut walk| {
            let reached = self.reach(&mut walk, &mut world, goal, course)?;
            Ok(reached.then(|| walk.here()))
        });
        self.decoded = decoded;
        let Some(at) = self.arrived(outcome) else { return false };
        self.count(&at, course);
        self.check(&mut world, &Boundary { after: Some(Arc::new(victim)), ..at });
        true
    }

    fn survivor<'d>(
        &mut self,
        world: &mut P::World,
        decoded: &'d mut Decoded,
    ) -> Result<Walk<'d>, String> {
        let objects = self.plan.shared(world);
        let child = as_subject(|| self.plan.survivor(world));
        Walk::start("survivor", child, &objects, decoded)
    }
}

/// What is to be noted on a way.
#[derive(Default)]
struct Log<'a> {
    course: Option<&'a mut Course>,
    accesses: Option<&'a mut Vec<Access>>,
}

impl Log<'_> {
    fn at(&mut self, walk: &Walk<'_>) {
        if let Some(course) = &mut self.course {
            course.note(walk);
        }
    }
}

/// A check that panics has found something.
fn caught(check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("without a text")))
    })
}
