//! Death at every instruction of notifying, waiting, setting and getting over `shm:`; and a stop there, while others
//! go on.
//!
//! The victim is one end of an event or of a state; this process has the others, and tells whether they find what
//! docs/design/event.md and docs/design/state-links.md promise ("What if a process dies here").

use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use switchboard::pattern::state::Reader;
use switchboard::{Event, Listener, Notifier, State, Value, WaitError};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::killstep::{self, Boundary, Depth, How, Plan};
use switchboard_testkit::{Child, Scratch};

use super::super::ends;
use super::survivor::{PATIENCE, asleep, thread_id};
use super::{GO, KILLS, READY, STOPS};

/// Whose an id, a key or a value is.
const VICTIM: u64 = 1;
const SURVIVOR: u64 = 2;
const LAST: u64 = 3;
/// An id that the victim has not notified of before.
const NEW: u64 = 4;
/// What was done before the operation that somebody dies in.
const BEFORE: u64 = 3;
/// More than a feed remembers, and than a writer has spare blocks.
const MANY: u64 = 300;
const SMALL_BYTES: usize = 24;
/// Several lines of the cache.
const LONG_BYTES: usize = 200;
/// Half of the first segment, nearly: a second one has to be in another.
const LARGE_BYTES: usize = 4_100;

const KEY: &str = "key";
const NEW_KEY: &str = "new";
const OTHER_KEY: &str = "other";
const FILLING_KEY: &str = "filling";
const LAST_KEY: &str = "last";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Notifies of this id.
    Notify(u64),
    /// Takes what was notified.
    Wait,
    /// Sleeps until something is.
    WaitAfterSleep,
    /// Sets this key.
    Set(&'static str, usize),
    /// Reads the value that is there, of so many bytes.
    Get(usize),
    /// Sleeps until another value is set.
    WatchAfterSleep,
}

struct Operation {
    name: &'static str,
    act: Act,
    /// Where not all is tried it is killed only, or stopped only: it takes long.
    quick: Option<How>,
}

const OPERATIONS: &[Operation] = &[
    Operation { name: "notify", act: Act::Notify(VICTIM), quick: None },
    Operation { name: "notify of a new id", act: Act::Notify(NEW), quick: None },
    Operation { name: "wait", act: Act::Wait, quick: None },
    Operation { name: "wait after a sleep", act: Act::WaitAfterSleep, quick: Some(How::Stop) },
    Operation { name: "set", act: Act::Set(KEY, SMALL_BYTES), quick: None },
    Operation { name: "set a new key", act: Act::Set(NEW_KEY, SMALL_BYTES), quick: None },
    Operation { name: "set, large", act: Act::Set(KEY, LARGE_BYTES), quick: Some(How::Kill) },
    Operation { name: "get", act: Act::Get(SMALL_BYTES), quick: None },
    Operation { name: "get, of several lines", act: Act::Get(LONG_BYTES), quick: None },
    Operation { name: "watch after a sleep", act: Act::WatchAfterSleep, quick: Some(How::Kill) },
];

impl Act {
    fn is_of_event(self) -> bool {
        matches!(self, Self::Notify(_) | Self::Wait | Self::WaitAfterSleep)
    }

    fn writes(self) -> bool {
        matches!(self, Self::Notify(_) | Self::Set(..))
    }

    fn sleeps(self) -> bool {
        matches!(self, Self::WaitAfterSleep | Self::WatchAfterSleep)
    }

    fn len_bytes(self) -> usize {
        match self {
            Self::Set(_, len) | Self::Get(len) => len,
            _ => SMALL_BYTES,
        }
    }
}

fn event(address: &str) -> Event {
    Event::open(address).expect("an event")
}

fn state(address: &str) -> State {
    State::open(address).expect("a state")
}

/// Role: does an operation. Arguments: its number, the address.
pub(crate) fn victim(arguments: &[String]) {
    let act = OPERATIONS[arguments[0].parse::<usize>().expect("a number")].act;
    let address = &arguments[1];
    match act {
        Act::Notify(id) => notify(address, id),
        Act::Wait | Act::WaitAfterSleep => wait(address),
        Act::Set(key, len_bytes) => set(address, key, len_bytes),
        Act::Get(_) | Act::WatchAfterSleep => get(address, act),
    }
}

fn ready() {
    report(READY);
    assert_eq!(instruction().as_deref(), Some(GO), "the harness goes on");
}

fn notify(address: &str, id: u64) {
    let mut notifier = event(address).notifier().expect("a notifier");
    (0..BEFORE).for_each(|_| notifier.notify_id(VICTIM).expect("notified"));
    ready();
    killstep::begin();
    notifier.notify_id(id).expect("notified");
    killstep::end();
    // It dies without a farewell.
    std::mem::forget(notifier);
}

fn wait(address: &str) {
    let mut listener = event(address).listener().expect("a listener");
    let mut had = 0;
    let mut next = |listener: &mut Listener| {
        let occurrence = listener.wait_timeout(PATIENCE).expect("a lost notification");
        had += if occurrence.id == SURVIVOR { occurrence.count } else { 0 };
        had
    };
    while next(&mut listener) < BEFORE {}
    ready();
    killstep::begin();
    let mut now = next(&mut listener);
    // Others may have come first, where it was stopped.
    while now < BEFORE + 1 {
        now = next(&mut listener);
    }
    killstep::end();
    assert_eq!(now, BEFORE + 1, "counted twice");
    std::mem::forget(listener);
}

fn set(address: &str, key: &str, len_bytes: usize) {
    let state = state(address);
    let mut writer = state.writer().expect("a writer");
    for number in 1..=BEFORE {
        writer.set_key(KEY, &ends::message(VICTIM, number, SMALL_BYTES)).expect("set");
    }
    if len_bytes == LARGE_BYTES {
        writer.set_key(FILLING_KEY, &ends::message(VICTIM, BEFORE, len_bytes)).expect("set");
    }
    let value = ends::message(VICTIM, BEFORE + 1, len_bytes);
    ready();
    killstep::begin();
    writer.set_key(key, &value).expect("set");
    killstep::end();
    let mut reader = state.reader().expect("a reader");
    reader.wait_for_writer(Some(PATIENCE)).expect("a writer");
    let read = reader.get_key(key).expect("read");
    assert!(read.is_some_and(|read| read.bytes == value), "what was set is there");
    std::mem::forget((writer, reader));
}

fn get(address: &str, act: Act) {
    let mut reader = state(address).reader().expect("a reader");
    reader.wait_for_writer(Some(PATIENCE)).expect("a writer");
    let before = number_of(&reader.get_key(KEY).expect("read"));
    ready();
    killstep::begin();
    let read = match act {
        Act::Get(_) => reader.get_key(KEY).expect("read"),
        _ => Some(reader.watch_key(KEY, Some(PATIENCE)).expect("a change")),
    };
    killstep::end();
    let number = number_of(&read);
    assert!(number >= before && before.is_some(), "{number:?} after {before:?}");
    assert!(matches!(act, Act::Get(_)) || number > before, "nothing was new");
    std::mem::forget(reader);
}

/// The number of a value that is whole.
fn number_of(value: &Option<Value>) -> Option<u64> {
    let value = value.as_ref()?;
    Some(ends::read(&value.bytes).expect("a torn value").1)
}

/// What somebody heard who slept most of the time: of an event who was notified of and how often; of a state, from
/// whom a value was, and which.
type Heard = Vec<(u64, u64)>;

/// A thread that follows the victim, and nothing but the last notification or value ends it.
struct Following(JoinHandle<Result<Heard, String>>);

impl Following {
    fn begin(address: &str, act: Act) -> Self {
        let (tell, told) = channel();
        let address = address.to_owned();
        let thread = std::thread::spawn(move || {
            let follow = if act.is_of_event() { listen } else { watch };
            follow(&address, || {
                let _ = tell.send(thread_id());
            })
        });
        let thread_id = told.recv_timeout(PATIENCE).expect("an end");
        asleep(thread_id).expect("it waits");
        Self(thread)
    }

    fn end(self) -> Result<Heard, String> {
        self.0.join().map_err(|_| "who followed panicked")?
    }
}

fn listen(address: &str, opened: impl FnOnce()) -> Result<Heard, String> {
    let mut listener = event(address).listener().map_err(|error| error.to_string())?;
    opened();
    let mut heard = Heard::new();
    loop {
        let next =
            listener.wait_timeout(PATIENCE).map_err(|error| format!("{heard:?}: {error}"))?;
        heard.push((next.id, next.count));
        if next.id == LAST {
            return Ok(heard);
        }
    }
}

fn watch(address: &str, opened: impl FnOnce()) -> Result<Heard, String> {
    let mut reader = state(address).reader().map_err(|error| error.to_string())?;
    opened();
    let mut heard = Heard::new();
    loop {
        match reader.watch_any(Some(PATIENCE)) {
            Ok((key, value)) => {
                let tag = ends::read(&value.bytes);
                heard.push(tag.ok_or_else(|| format!("{key}: a torn value"))?);
                if key == LAST_KEY {
                    return Ok(heard);
                }
            }
            Err(error) => return Err(format!("{heard:?}: {error}")),
        }
    }
}

/// What this process has, where the victim reads.
enum Writing {
    Notifier(Box<Notifier>),
    Writer(Box<switchboard::pattern::state::Writer>, u64),
}

impl Writing {
    fn begin(address: &str, act: Act) -> Self {
        let mut writing = if act.is_of_event() {
            Self::Notifier(Box::new(event(address).notifier().expect("a notifier")))
        } else {
            Self::Writer(Box::new(state(address).writer().expect("a writer")), 0)
        };
        (0..BEFORE).for_each(|_| writing.go_on(act));
        writing
    }

    fn go_on(&mut self, act: Act) {
        match self {
            Self::Notifier(notifier) => notifier.notify_id(SURVIVOR).expect("notified"),
            Self::Writer(writer, number) => {
                *number += 1;
                let value = ends::message(SURVIVOR, *number, act.len_bytes());
                writer.set_key(KEY, &value).expect("set");
            }
        }
    }

    /// While the victim is stopped: it is overtaken.
    fn overtake(&mut self, act: Act) {
        match self {
            Self::Notifier(notifier) => {
                (0..MANY).for_each(|_| notifier.notify_id(NEW).expect("notified"));
            }
            Self::Writer(..) => (0..MANY).for_each(|_| self.go_on(act)),
        }
    }
}

struct Dying(usize, &'static Operation);

struct World {
    scratch: Scratch,
    address: String,
    following: Option<Following>,
    writing: Option<Writing>,
    /// Knows the victim's values since before it was stopped.
    reader: Option<Reader>,
    /// Helped a sleeping victim on.
    has_helped: bool,
}

impl Plan for Dying {
    type World = World;

    fn name(&self) -> String {
        format!("shm, {}", self.1.name)
    }

    fn prepare(&self) -> World {
        let (scratch, act) = (Scratch::new(), self.1.act);
        let address = format!("shm:channel?scope={}", scratch.join("scope").display());
        let following = act.writes().then(|| Following::begin(&address, act));
        let writing = (!act.writes()).then(|| Writing::begin(&address, act));
        World { scratch, address, following, writing, reader: None, has_helped: false }
    }

    fn victim(&self, world: &mut World) -> Child {
        let act = self.1.act;
        let mut child =
            Child::role("shm-feed-victim", &[self.0.to_string(), world.address.clone()]);
        child.expect(READY);
        if let Some(writing) = world.writing.as_mut().filter(|_| !act.sleeps()) {
            writing.go_on(act);
        }
        if matches!(act, Act::Set(..)) {
            let mut reader = state(&world.address).reader().expect("a reader");
            reader.wait_for_writer(Some(PATIENCE)).expect("a writer");
            world.reader = Some(reader);
        }
        child.tell(GO);
        child
    }

    fn unblock(&self, world: &mut World) {
        if let Some(writing) = world.writing.as_mut().filter(|_| !world.has_helped) {
            world.has_helped = true;
            writing.go_on(self.1.act);
        }
    }

    fn while_stopped(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        match &mut world.writing {
            Some(writing) => writing.overtake(self.1.act),
            None if self.1.act.is_of_event() => {
                let mut notifier = event(&world.address).notifier().map_err(told)?;
                notifier.notify_id(SURVIVOR).map_err(told)?;
            }
            None => {
                let state = state(&world.address);
                let mut writer = state.writer().map_err(told)?;
                let value = ends::message(SURVIVOR, 1, SMALL_BYTES);
                writer.set_key(OTHER_KEY, &value).map_err(told)?;
                let reader = world.reader.as_mut().ok_or("no reader")?;
                read_soon(reader, OTHER_KEY, &value)?;
                // Whoever is stopped keeps its keys, and the value is there, old or new.
                let number = number_of(&reader.get_key(KEY).map_err(told)?);
                if !number.is_some_and(|number| (BEFORE..=BEFORE + 1).contains(&number)) {
                    return Err(format!("value {number:?} of who is stopped"));
                }
            }
        }
        Ok(())
    }

    fn check(&self, world: &mut World, at: &Boundary) -> Result<(), String> {
        world.reader = None;
        match (world.following.take(), world.writing.take()) {
            (Some(following), _) => self.after_writer(world, following, at.is_end())?,
            (_, Some(writing)) => after_reader(world, writing, self.1.act)?,
            _ => {}
        }
        let folder = world.scratch.join("scope/shm/channel");
        let since = Instant::now();
        loop {
            let left: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
            // The process's I/O thread lets go of what was closed a moment later.
            if left.is_empty() {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("names are left: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn told(error: switchboard::Error) -> String {
    error.to_string()
}

/// A value that is there, or comes.
fn read_soon(reader: &mut Reader, key: &str, value: &[u8]) -> Result<(), String> {
    let mut read = reader.get_key(key).map_err(told)?;
    while read.is_none_or(|read| read.bytes != value) {
        let next = reader.watch_key(key, Some(PATIENCE));
        read = Some(next.map_err(|error: WaitError| format!("{key}: {error}"))?);
    }
    Ok(())
}

impl Dying {
    /// Another one comes, and does what the dead one did. Who follows has had all, and nothing twice.
    fn after_writer(&self, world: &World, following: Following, ended: bool) -> Result<(), String> {
        let heard = match self.1.act {
            Act::Notify(id) => {
                let mut notifier = event(&world.address).notifier().map_err(told)?;
                // The death may have to be noticed first.
                notifier.notify_id(LAST).map_err(told)?;
                let heard = following.end()?;
                let of = |id| heard.iter().filter(|one| one.0 == id).map(|one| one.1).sum::<u64>();
                let (before, now) = (of(VICTIM), of(id));
                let least = if id == VICTIM { BEFORE } else { 0 };
                let is_right = before >= BEFORE
                    && (least..=least + 1).contains(&now)
                    && (!ended || now == least + 1)
                    && of(LAST) == 1;
                if is_right {
                    return Ok(());
                }
                heard
            }
            _ => {
                let mut writer = state(&world.address).writer().map_err(told)?;
                // The kernel has let go of the dead one's keys.
                for key in [KEY, NEW_KEY, LAST_KEY] {
                    writer.set_key(key, &ends::message(LAST, 1, SMALL_BYTES)).map_err(told)?;
                }
                let heard = following.end()?;
                let victims = heard.iter().filter(|one| one.0 == VICTIM).map(|one| one.1);
                let numbers: Vec<u64> = victims.collect();
                if numbers.is_sorted() && numbers.last().is_none_or(|last| *last <= BEFORE + 1) {
                    return Ok(());
                }
                heard
            }
        };
        Err(format!("{heard:?} was heard"))
    }
}

/// Who writes goes on, and another reader has what it writes.
fn after_reader(world: &World, mut writing: Writing, act: Act) -> Result<(), String> {
    match &mut writing {
        Writing::Notifier(notifier) => {
            let mut listener = event(&world.address).listener().map_err(told)?;
            notifier.notify_id(LAST).map_err(told)?;
            loop {
                let next = listener.wait_timeout(PATIENCE);
                let next = next.map_err(|error: WaitError| format!("another listener: {error}"))?;
                match (next.id, next.count) {
                    (LAST, 1) => return Ok(()),
                    (LAST, count) => {
                        return Err(format!("{count} notifications, and one was made"));
                    }
                    _ => {}
                }
            }
        }
        Writing::Writer(writer, number) => {
            let value = ends::message(SURVIVOR, *number + 1, act.len_bytes());
            writer.set_key(KEY, &value).map_err(told)?;
            let mut reader = state(&world.address).reader().map_err(told)?;
            read_soon(&mut reader, KEY, &value)
        }
    }
}

fn each(test: &str, some: fn(Act) -> bool, how: How) {
    if killstep::refused(test) {
        return;
    }
    let is_proof = Depth::from_environment() == Depth::Every;
    let depth = match how {
        How::Kill => Depth::sampled(KILLS),
        How::Stop if is_proof => Depth::Quick,
        How::Stop => Depth::Sample(STOPS),
    };
    let some = OPERATIONS.iter().enumerate().filter(|(_, operation)| some(operation.act));
    for (number, operation) in some {
        if !is_proof && operation.quick.is_some_and(|only| only != how) {
            continue;
        }
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

fn notifies(act: Act) -> bool {
    act.is_of_event() && act.writes()
}

fn waits(act: Act) -> bool {
    act.is_of_event() && !act.writes()
}

fn sets(act: Act) -> bool {
    !act.is_of_event() && act.writes()
}

fn gets(act: Act) -> bool {
    !act.is_of_event() && !act.writes()
}

#[test]
fn a_notifier_killed_at_any_step_leaves_whole_counts() {
    each("a_notifier_killed_at_any_step_leaves_whole_counts", notifies, How::Kill);
}

#[test]
fn a_notifier_stopped_at_any_step_holds_nobody_up() {
    each("a_notifier_stopped_at_any_step_holds_nobody_up", notifies, How::Stop);
}

#[test]
fn a_listener_killed_at_any_step_is_forgotten() {
    each("a_listener_killed_at_any_step_is_forgotten", waits, How::Kill);
}

#[test]
fn a_listener_stopped_at_any_step_loses_nothing() {
    each("a_listener_stopped_at_any_step_loses_nothing", waits, How::Stop);
}

#[test]
fn a_value_whose_writer_is_killed_at_any_step_is_whole() {
    each("a_value_whose_writer_is_killed_at_any_step_is_whole", sets, How::Kill);
}

#[test]
fn a_value_whose_writer_is_stopped_at_any_step_is_whole() {
    each("a_value_whose_writer_is_stopped_at_any_step_is_whole", sets, How::Stop);
}

#[test]
fn a_reader_killed_at_any_step_of_a_value_is_forgotten() {
    each("a_reader_killed_at_any_step_of_a_value_is_forgotten", gets, How::Kill);
}

#[test]
fn a_reader_stopped_at_any_step_reads_a_whole_value() {
    each("a_reader_stopped_at_any_step_reads_a_whole_value", gets, How::Stop);
}
