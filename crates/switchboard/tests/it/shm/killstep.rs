//! Death at every instruction of what the ends of `shm:` do; and a stop there, while others go on.
//!
//! The victim is killed by the harness, one process does all that the others do, and tells whether they found
//! what docs/design/shm.md promises ("What if a process dies here", "How long things live"). That process lives
//! through all deaths, so that it would notice descriptors and memory that are not given back.

mod feeds;
mod judge;
mod operations;
mod services;
mod survivor;
mod victim;

use std::cell::RefCell;
use std::collections::BTreeSet;

use switchboard_testkit::killstep::{self, Boundary, Depth, How, Plan, Report};
use switchboard_testkit::{Child, Scratch, share};

pub(crate) use self::feeds::victim as feed_victim;
pub(crate) use self::services::victim as service_victim;
pub(crate) use self::survivor::survivor;
pub(crate) use self::victim::victim;

use self::operations::{CALLS, End, Operation, STEPS, all};

/// How many kills and stops there are of an operation, where not all are to be tried.
const KILLS: usize = 8;
const STOPS: usize = 4;

/// What a victim says when it could begin.
const READY: &str = "ready";
/// What it is told then.
const GO: &str = "go";
/// What the survivors say.
const DONE: &str = "done ";
const WRONG: &str = "wrong ";
const SLOW: &str = "slow ";

/// An operation that somebody dies in.
struct Dying {
    number: usize,
    operation: &'static Operation,
    survivor: RefCell<Option<Child>>,
    /// Boundaries after which a sleeper was woken late.
    slow: RefCell<BTreeSet<String>>,
    /// The last boundary, and how much of the operation the survivors found done there.
    done: RefCell<(usize, u64)>,
}

struct World {
    _scratch: Scratch,
    address: String,
}

impl Dying {
    fn new(number: usize, operation: &'static Operation) -> Self {
        let (survivor, slow, done) = Default::default();
        Self { number, operation, survivor, slow, done }
    }

    /// Has the survivors do something. What they count, if they do.
    fn ask(&self, what: &str) -> Result<u64, String> {
        let mut survivor = self.survivor.borrow_mut();
        let alive = survivor.get_or_insert_with(|| Child::role::<&str>("shm-survivor", &[]));
        alive.tell(what);
        let answer = alive.line();
        match answer.as_deref() {
            Some(text) if text.starts_with(WRONG) || text.starts_with(SLOW) => Err(text.to_owned()),
            Some(text) if text.starts_with(DONE) => {
                text[DONE.len()..].parse().map_err(|error| format!("{text}: {error}"))
            }
            _ => {
                // The next one begins anew.
                *survivor = None;
                Err(format!("{WRONG}the survivors said {answer:?}"))
            }
        }
    }

    /// What was done at a boundary is done at all that follow.
    fn goes_on(&self, at: &Boundary, done: u64) -> Result<(), String> {
        let (before, least) = self.done.replace((at.number, done));
        if at.number >= before && done < least {
            return Err(format!("only {done} are there, and {least} were at boundary {before}"));
        }
        Ok(())
    }
}

impl Plan for Dying {
    type World = World;

    fn name(&self) -> String {
        format!("shm, {}", self.operation.name)
    }

    fn prepare(&self) -> World {
        let scratch = Scratch::new();
        let (scope, query) = (scratch.join("scope"), self.operation.query);
        let address = format!("shm:channel?scope={}{query}", scope.display());
        self.ask(&format!("open {} {address}", self.number)).expect("the survivors' ends");
        World { _scratch: scratch, address }
    }

    fn victim(&self, world: &mut World) -> Child {
        let mut child =
            Child::role("shm-victim", &[self.number.to_string(), world.address.clone()]);
        self.ask("before").expect("what is before");
        child.expect(READY);
        self.ask("ready").expect("the survivors are ready");
        child.tell(GO);
        child
    }

    fn unblock(&self, _: &mut World) {
        // What it could not do, it says when it is asked for its judgement.
        let _ = self.ask("help");
    }

    fn while_stopped(&self, _: &mut World, _: &Boundary) -> Result<(), String> {
        self.ask("go on").map(drop)
    }

    fn check(&self, _: &mut World, at: &Boundary) -> Result<(), String> {
        let judged = self.ask(if at.is_end() { "judge the end" } else { "judge a death" });
        match judged {
            Ok(done) => self.goes_on(at, done),
            Err(text) if text.starts_with(SLOW) => {
                // A machine that does much else at a time delays some: it counts where it happens again.
                self.slow.borrow_mut().insert(at.to_string());
                Ok(())
            }
            Err(text) => Err(text),
        }
    }
}

/// Runs it; again where somebody was woken late, which may be the machine's fault, and where the victims went
/// other ways than the first one.
fn check(number: usize, operation: &'static Operation, run: impl Fn(&Dying) -> Report) {
    let mut slow: Option<BTreeSet<String>> = None;
    for is_last in [false, false, true] {
        let plan = Dying::new(number, operation);
        let report = run(&plan);
        if !is_last && report.findings.is_empty() && !report.is_complete() {
            continue;
        }
        report.expect_clean();
        let late = plan.slow.into_inner();
        let again = match slow {
            None => late,
            Some(before) => before.intersection(&late).cloned().collect(),
        };
        if again.is_empty() {
            return;
        }
        slow = Some(again);
    }
    panic!("{}: woken late, each time: {slow:?}", operation.name);
}

/// Operations of one kind of victims, with their numbers.
fn of(end: End, table: &[Operation]) -> impl Iterator<Item = (usize, &'static Operation)> {
    let first = all().position(|operation| operation.name == table[0].name);
    let first = first.expect("a table of operations");
    let some = all().enumerate().skip(first).take(table.len());
    some.filter(move |(_, operation)| operation.end == end)
}

/// Kills, or stops, ends of one kind at each step of what they do with messages.
fn each_step(test: &str, end: End, how: How) {
    if killstep::refused(test) {
        return;
    }
    let is_proof = Depth::from_environment() == Depth::Every;
    let depth = match how {
        How::Kill => Depth::sampled(KILLS),
        // What was read before a stop matters, and what was computed from it does not.
        How::Stop if is_proof => Depth::Quick,
        How::Stop => Depth::Sample(STOPS),
    };
    for (number, operation) in of(end, STEPS) {
        if !share::is_mine(number) || !is_proof && !operation.quick.has(how) {
            continue;
        }
        check(number, operation, |plan| killstep::run(plan, how, depth));
    }
}

/// Kills and stops ends of one kind where they come and go.
fn each_call(test: &str, end: End) {
    if killstep::refused(test) {
        return;
    }
    let is_proof = Depth::from_environment() == Depth::Every;
    for (number, operation) in of(end, CALLS).filter(|(number, _)| share::is_mine(*number)) {
        for (how, most) in [(How::Kill, KILLS), (How::Stop, STOPS)] {
            check(number, operation, |plan| {
                if is_proof {
                    // Also after each store that others may see.
                    killstep::run(plan, how, Depth::Quick)
                } else {
                    killstep::run_calls(plan, how, Depth::Sample(most))
                }
            });
        }
    }
}

#[test]
fn a_publisher_killed_at_any_step_leaves_whole_messages() {
    each_step("a_publisher_killed_at_any_step_leaves_whole_messages", End::Publisher, How::Kill);
}

#[test]
fn a_publisher_stopped_at_any_step_holds_nobody_up() {
    each_step("a_publisher_stopped_at_any_step_holds_nobody_up", End::Publisher, How::Stop);
}

#[test]
fn a_subscriber_killed_at_any_step_is_forgotten() {
    each_step("a_subscriber_killed_at_any_step_is_forgotten", End::Subscriber, How::Kill);
}

#[test]
fn a_subscriber_stopped_at_any_step_misses_nothing() {
    each_step("a_subscriber_stopped_at_any_step_misses_nothing", End::Subscriber, How::Stop);
}

#[test]
fn a_sender_killed_at_any_step_leaves_whole_messages() {
    each_step("a_sender_killed_at_any_step_leaves_whole_messages", End::Sender, How::Kill);
}

#[test]
fn a_sender_stopped_at_any_step_holds_nobody_up() {
    each_step("a_sender_stopped_at_any_step_holds_nobody_up", End::Sender, How::Stop);
}

#[test]
fn what_a_receiver_killed_at_any_step_had_goes_to_others() {
    each_step("what_a_receiver_killed_at_any_step_had_goes_to_others", End::Receiver, How::Kill);
}

#[test]
fn what_a_receiver_stopped_at_any_step_has_it_keeps() {
    each_step("what_a_receiver_stopped_at_any_step_has_it_keeps", End::Receiver, How::Stop);
}

#[test]
fn publishers_killed_and_stopped_while_they_come_and_go() {
    each_call("publishers_killed_and_stopped_while_they_come_and_go", End::Publisher);
}

#[test]
fn subscribers_killed_and_stopped_while_they_come_and_go() {
    each_call("subscribers_killed_and_stopped_while_they_come_and_go", End::Subscriber);
}

#[test]
fn senders_killed_and_stopped_while_they_come_and_go() {
    each_call("senders_killed_and_stopped_while_they_come_and_go", End::Sender);
}

#[test]
fn receivers_killed_and_stopped_while_they_come_and_go() {
    each_call("receivers_killed_and_stopped_while_they_come_and_go", End::Receiver);
}
