//! Death at every instruction of a call and of a reply over `shm:`; and a stop there, while others go on.
//!
//! The victim is a client or a server; this process is who it talks to, and tells whether that is what
//! docs/design/service.md promises ("Over `shm:`"). The victim writes down what it begins: of a call that is said
//! to be *not started* nothing may be written.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use switchboard::{Bytes, CallError, Client, Options, Progress, RecvError, Server, Service};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::killstep::{self, Boundary, Depth, How, Plan};
use switchboard_testkit::{Child, Scratch, share};

use super::super::ends;
use super::survivor::PATIENCE;
use super::{GO, KILLS, READY, STOPS};

const VICTIM: u64 = 1;
const SURVIVOR: u64 = 2;
const LAST: u64 = 3;
/// Calls before the one that somebody dies in.
const BEFORE: u64 = 2;
const PARTS: u64 = 3;
/// More than fits into a ring.
const LARGE_BYTES: usize = 9000;
/// How often who serves looks whether it is to end.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Calls, and takes the reply.
    Call,
    /// The same, and says until when.
    CallInTime,
    /// Calls, and takes a reply in parts.
    CallForParts,
    /// Calls, and gives it up.
    CallInVain,
    /// Takes a call that is there, and answers it.
    Reply,
    /// Sleeps until there is one.
    ReplyAfterSleep,
    /// Answers in parts.
    ReplyInParts,
    /// Takes a call, and says that it failed.
    Fail,
}

struct Operation {
    name: &'static str,
    act: Act,
    len_bytes: usize,
}

const OPERATIONS: &[Operation] = &[
    Operation { name: "call", act: Act::Call, len_bytes: 24 },
    Operation { name: "call with a time", act: Act::CallInTime, len_bytes: 24 },
    Operation { name: "call, large", act: Act::Call, len_bytes: LARGE_BYTES },
    Operation { name: "call for parts", act: Act::CallForParts, len_bytes: 24 },
    Operation { name: "call in vain", act: Act::CallInVain, len_bytes: 24 },
    Operation { name: "reply", act: Act::Reply, len_bytes: 24 },
    Operation { name: "reply after a sleep", act: Act::ReplyAfterSleep, len_bytes: 24 },
    Operation { name: "reply, large", act: Act::Reply, len_bytes: LARGE_BYTES },
    Operation { name: "reply in parts", act: Act::ReplyInParts, len_bytes: 24 },
    Operation { name: "fail", act: Act::Fail, len_bytes: 24 },
];

impl Operation {
    fn calls(&self) -> bool {
        matches!(self.act, Act::Call | Act::CallInTime | Act::CallForParts | Act::CallInVain)
    }

    fn message(&self, from: u64, number: u64) -> Bytes {
        Bytes(ends::message(from, number, self.len_bytes))
    }
}

fn service(address: &str) -> Service<Bytes, Bytes> {
    let options = Options::default().linger(Some(PATIENCE));
    Service::open_with(address, options).expect("a service")
}

/// Role: does an operation. Arguments: its number, the address, the file of what it begins.
pub(crate) fn victim(arguments: &[String]) {
    let operation = &OPERATIONS[arguments[0].parse::<usize>().expect("a number")];
    let service = service(&arguments[1]);
    if operation.calls() {
        call(operation, service.client().expect("a client"));
    } else {
        let ledger = OpenOptions::new().append(true).open(&arguments[2]).expect("a file");
        reply(operation, service.server().expect("a server"), ledger);
    }
}

fn ready() {
    report(READY);
    assert_eq!(instruction().as_deref(), Some(GO), "the harness goes on");
}

fn call(operation: &Operation, client: Client<Bytes, Bytes>) {
    for number in 1..=BEFORE {
        client.call(&operation.message(VICTIM, number)).expect("a reply");
    }
    let request = operation.message(VICTIM, BEFORE + 1);
    ready();
    killstep::begin();
    let replies = match operation.act {
        Act::CallForParts => client.start(&request).expect("a call").into_replies().collect(),
        Act::CallInTime => client.call_timeout(&request, PATIENCE).map(|reply| vec![reply]),
        Act::CallInVain => {
            client.start(&request).expect("a call").cancel();
            Ok(Vec::new())
        }
        _ => client.call(&request).map(|reply| vec![reply]),
    };
    killstep::end();
    let replies: Vec<Bytes> = replies.expect("a reply");
    let count = match operation.act {
        Act::CallForParts => PARTS,
        Act::CallInVain => 0,
        _ => 1,
    };
    assert!(replies.len() as u64 == count && replies.iter().all(|one| *one == request), "torn");
    // It dies without a farewell.
    std::mem::forget(client);
}

fn reply(operation: &Operation, server: Server<Bytes, Bytes>, mut ledger: std::fs::File) {
    for _ in 0..BEFORE {
        let call = server.recv_call().expect("a call");
        let request = Bytes(call.request.0.clone());
        call.reply(&request).expect("replied");
    }
    ready();
    killstep::begin();
    let mut call = server.recv_call().expect("a call");
    ledger.write_all(b"begun\n").expect("written");
    let request = Bytes(call.request.0.clone());
    match operation.act {
        Act::ReplyInParts => {
            for _ in 0..PARTS {
                call.send(&request).expect("a part");
            }
            call.finish().expect("finished");
        }
        Act::Fail => {
            let status = switchboard::Status::new(switchboard::Code::Aborted, "as it should");
            call.fail(&status).expect("failed");
        }
        _ => call.reply(&request).expect("replied"),
    }
    killstep::end();
    assert!(ends::read(&request.0).is_some(), "torn");
    std::mem::forget(server);
}

/// Requests that came: whose and which, or none of one that was torn.
type Requests = Vec<Option<(u64, u64)>>;

/// A thread that serves, until it is told to end: the requests that it had.
struct Serving {
    heard: Arc<Mutex<Requests>>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Serving {
    fn begin(address: &str, in_parts: bool) -> Self {
        let server = service(address).server().expect("a server");
        let (heard, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (theirs, told) = (Arc::clone(&heard), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let mut call = match server.recv_call_timeout(LOOKS_EVERY) {
                    Ok(call) => call,
                    Err(RecvError::Empty) => continue,
                    Err(error) => return Err(format!("the server: {error:?}")),
                };
                let tag = ends::read(&call.request.0);
                theirs.lock().expect("nobody panicked").push(tag);
                let request = Bytes(call.request.0.clone());
                let sent = if in_parts && tag == Some((VICTIM, BEFORE + 1)) {
                    (0..PARTS).try_for_each(|_| call.send(&request)).and_then(|()| call.finish())
                } else {
                    call.reply(&request)
                };
                // Its client may be dead.
                drop(sent);
            }
            Ok(())
        });
        Self { heard, ends, thread }
    }

    fn end(self) -> Result<Requests, String> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the server panicked")??;
        Ok(self.heard.lock().map_err(|error| error.to_string())?.clone())
    }
}

/// How a call ended.
type Outcome = Result<u64, CallError>;

/// A thread that calls: first the calls before, then, when it is told to, the one.
struct Calling {
    begin: Sender<()>,
    begun: bool,
    said: Receiver<Result<(), String>>,
    thread: JoinHandle<(Client<Bytes, Bytes>, Outcome)>,
}

impl Calling {
    fn begin(address: String, operation: &'static Operation) -> Self {
        let (begin, told) = channel();
        let (say, said) = channel();
        let thread = std::thread::spawn(move || {
            let client = service(&address).client().expect("a client");
            let before: Result<(), CallError> = (1..=BEFORE).try_for_each(|number| {
                client.call_timeout(&operation.message(SURVIVOR, number), PATIENCE).map(drop)
            });
            let _ = say.send(before.map_err(|error| format!("before: {error:?}")));
            if told.recv().is_err() {
                return (client, Ok(0));
            }
            let request = operation.message(SURVIVOR, BEFORE + 1);
            let outcome = client.start_timeout(&request, PATIENCE).and_then(|pending| {
                let _ = say.send(Ok(()));
                let mut whole = 0;
                for part in pending.into_replies() {
                    whole += u64::from(ends::read(&part?.0) == Some((SURVIVOR, BEFORE + 1)));
                }
                Ok(whole)
            });
            (client, outcome)
        });
        Self { begin, begun: false, said, thread }
    }

    fn hear(&self) -> Result<(), String> {
        self.said.recv_timeout(PATIENCE).map_err(|error| error.to_string())?
    }

    fn call(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            let _ = self.begin.send(());
        }
    }
}

struct Dying(usize, &'static Operation);

struct World {
    scratch: Scratch,
    address: String,
    ledger: PathBuf,
    serving: Option<Serving>,
    calling: RefCell<Option<Calling>>,
}

impl Plan for Dying {
    type World = World;

    fn name(&self) -> String {
        format!("shm, {}", self.1.name)
    }

    fn prepare(&self) -> World {
        let scratch = Scratch::new();
        let address = format!("shm:service?scope={}", scratch.join("scope").display());
        let ledger = scratch.join("ledger");
        std::fs::write(&ledger, "").expect("a file");
        let in_parts = self.1.act == Act::CallForParts;
        let serving = self.1.calls().then(|| Serving::begin(&address, in_parts));
        World { scratch, address, ledger, serving, calling: RefCell::new(None) }
    }

    fn victim(&self, world: &mut World) -> Child {
        let ledger = world.ledger.display().to_string();
        let arguments = [self.0.to_string(), world.address.clone(), ledger];
        let mut child = Child::role("shm-service-victim", &arguments);
        if !self.1.calls() {
            let mut calling = Calling::begin(world.address.clone(), self.1);
            calling.hear().expect("calls before");
            if self.1.act != Act::ReplyAfterSleep {
                calling.call();
                calling.hear().expect("a call");
            }
            world.calling.replace(Some(calling));
        }
        child.expect(READY);
        child.tell(GO);
        child
    }

    fn unblock(&self, world: &mut World) {
        if let Some(calling) = world.calling.get_mut() {
            calling.call();
        }
    }

    fn while_stopped(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        // Who is stopped holds up nobody but who calls it.
        if self.1.calls() { last_call(&world.address, self.1) } else { Ok(()) }
    }

    fn check(&self, world: &mut World, at: &Boundary) -> Result<(), String> {
        match world.serving.take() {
            Some(serving) => self.after_client(world, serving, at.is_end())?,
            None => self.after_server(world, at.is_end())?,
        }
        let folder = world.scratch.join("scope/shm/service");
        let left = || std::fs::read_dir(&folder).is_ok_and(|mut names| names.next().is_some());
        if left() { Err("names are left".to_owned()) } else { Ok(()) }
    }
}

/// Another client is as welcome as ever.
fn last_call(address: &str, operation: &Operation) -> Result<(), String> {
    let client = service(address).client().map_err(|error| format!("no client: {error}"))?;
    let request = operation.message(LAST, 1);
    match client.call_timeout(&request, PATIENCE) {
        Ok(reply) if reply == request => Ok(()),
        other => Err(format!("another client's call: {other:?}")),
    }
}

impl Dying {
    fn after_client(&self, world: &World, serving: Serving, ended: bool) -> Result<(), String> {
        let last = last_call(&world.address, self.1);
        let heard = serving.end()?;
        last?;
        let of_victim: Vec<u64> = heard
            .iter()
            .filter_map(|tag| tag.filter(|(from, _)| *from == VICTIM).map(|(_, number)| number))
            .collect();
        let most = BEFORE + 1;
        // What was given up may never begin.
        let least = if ended && self.1.act != Act::CallInVain { most } else { BEFORE };
        let numbers: Vec<u64> = (1..=of_victim.len() as u64).collect();
        if heard.contains(&None)
            || of_victim != numbers
            || !(least..=most).contains(&(of_victim.len() as u64))
        {
            return Err(format!("{least} to {most} calls, and {heard:?} were heard"));
        }
        Ok(())
    }

    fn after_server(&self, world: &World, ended: bool) -> Result<(), String> {
        let calling = world.calling.take().ok_or("nobody calls")?;
        let begun = calling.begun;
        drop(calling.begin);
        let (client, outcome) = calling.thread.join().map_err(|_| "the client panicked")?;
        let done = std::fs::read(&world.ledger).map_err(|error| error.to_string())?;
        let whole = if self.1.act == Act::ReplyInParts { PARTS } else { 1 };
        let honest = match &outcome {
            _ if !begun => true,
            Ok(parts) => *parts == whole && !done.is_empty(),
            Err(CallError::Status(status)) => {
                self.1.act == Act::Fail && status.message == "as it should" && !done.is_empty()
            }
            Err(CallError::ServerGone { progress, .. }) if !ended => {
                *progress == Progress::Unknown || done.is_empty()
            }
            Err(_) => false,
        };
        if !honest {
            return Err(format!("{outcome:?}, and {} bytes were written down", done.len()));
        }
        // The client goes on with the next server.
        let serving = Serving::begin(&world.address, false);
        let request = self.1.message(LAST, 1);
        let since = Instant::now();
        let reply = loop {
            match client.call_timeout(&request, PATIENCE) {
                // It had not heard of the death.
                Err(CallError::ServerGone { progress: Progress::NotStarted, .. })
                    if since.elapsed() < PATIENCE => {}
                reply => break reply,
            }
        };
        drop(client);
        serving.end()?;
        match reply {
            Ok(reply) if reply == request => Ok(()),
            other => Err(format!("the next call: {other:?}")),
        }
    }
}

fn each(test: &str, calls: bool, how: How) {
    if killstep::refused(test) {
        return;
    }
    let is_proof = Depth::from_environment() == Depth::Every;
    let depth = match how {
        How::Kill => Depth::sampled(KILLS),
        How::Stop if is_proof => Depth::Quick,
        How::Stop => Depth::Sample(STOPS),
    };
    let some = OPERATIONS.iter().enumerate().filter(|(_, operation)| operation.calls() == calls);
    for (number, operation) in some.filter(|(number, _)| share::is_mine(*number)) {
        // Victims that went other ways than the first one are no finding: again, then.
        for is_last in [false, false, true] {
            let found = killstep::run(&Dying(number, operation), how, depth);
            if is_last || !found.findings.is_empty() || found.is_complete() {
                found.expect_clean();
                break;
            }
        }
    }
}

#[test]
fn a_client_killed_at_any_step_of_a_call_is_forgotten() {
    each("a_client_killed_at_any_step_of_a_call_is_forgotten", true, How::Kill);
}

#[test]
fn a_client_stopped_at_any_step_of_a_call_holds_nobody_up() {
    each("a_client_stopped_at_any_step_of_a_call_holds_nobody_up", true, How::Stop);
}

#[test]
fn the_call_of_a_server_killed_at_any_step_ends_honestly() {
    each("the_call_of_a_server_killed_at_any_step_ends_honestly", false, How::Kill);
}

#[test]
fn the_call_of_a_server_stopped_at_any_step_ends_when_it_goes_on() {
    each("the_call_of_a_server_stopped_at_any_step_ends_when_it_goes_on", false, How::Stop);
}
