//! The process that does what all the others do, and lives.
//!
//! It is asked for one thing after the other, by the line, and answers each: see [`Survivors::answer`].

use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use switchboard::{Bytes, Options, Receiver, RecvError, Sender};
use switchboard_testkit::child::{instruction, report};

use super::super::ends;
use super::super::things::Things;
use super::operations::{Act, End, Operation, Others, all};
use super::{DONE, SLOW, WRONG};

/// Whose messages they are, beside the victim's.
pub(super) const SURVIVOR: u64 = 2;
pub(super) const THIRD: u64 = 3;
pub(super) const LAST: u64 = 4;

/// Nothing that is waited for here takes longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Who sleeps is woken within this time of what it waits for; if nobody woke it, it would look by itself
/// after a second.
const WOKEN_WITHIN: Duration = Duration::from_millis(700);

/// What an end of a reader heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Message { from: u64, number: u64, deliveries: u16, lost_before: u64 },
    Gap(u64),
    Died { received: u64 },
    Ended,
}

/// A reader, and all that it heard.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) receiver: Receiver<Bytes>,
    pub(super) heard: Vec<Heard>,
    /// It came after the first message.
    pub(super) is_late: bool,
}

impl Reader {
    /// What comes next, if anything does in time.
    pub(super) fn next(&mut self, timeout: Duration) -> Result<Option<Heard>, String> {
        let heard = match self.receiver.recv_timeout(timeout) {
            Ok(delivery) => {
                let (deliveries, lost_before) = (delivery.deliveries, delivery.lost_before);
                if delivery.redelivered != (deliveries > 0) {
                    return Err(format!("marked otherwise than counted: {delivery:?}"));
                }
                let bytes = self.receiver.acknowledge(delivery).map_err(|e| e.to_string())?;
                let Some((from, number)) = ends::read(&bytes.0) else {
                    return Err(format!("a torn message of {} bytes: {bytes:?}", bytes.0.len()));
                };
                Heard::Message { from, number, deliveries, lost_before }
            }
            Err(RecvError::Empty) => return Ok(None),
            Err(RecvError::Gap { missing, .. }) => Heard::Gap(missing),
            Err(RecvError::PeerDied { received, .. }) => Heard::Died { received },
            Err(RecvError::Ended) => Heard::Ended,
            Err(other) => return Err(format!("{other:?}")),
        };
        self.heard.push(heard.clone());
        Ok(Some(heard))
    }

    /// Reads until this was heard.
    pub(super) fn until(
        &mut self,
        what: &str,
        is_it: impl Fn(&Heard) -> bool,
    ) -> Result<(), String> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if self.next(PATIENCE)?.is_some_and(|heard| is_it(&heard)) {
                return Ok(());
            }
        }
        Err(format!("{what} was not heard, but {:?}", self.heard))
    }

    /// The numbers of messages of one writer, as they came.
    pub(super) fn numbers(&self, of: u64) -> Vec<u64> {
        let numbers = self.heard.iter().filter_map(|heard| match heard {
            Heard::Message { from, number, .. } if *from == of => Some(*number),
            _ => None,
        });
        numbers.collect()
    }
}

/// A thread that sleeps, until what it waits for comes.
enum Sleeper {
    Reading(Sleeping),
    Writing(JoinHandle<(Sender<Bytes>, Result<(), String>)>),
}

/// All of them, around one victim.
pub(super) struct Survivors {
    pub(super) operation: &'static Operation,
    pub(super) address: String,
    /// Where the victim writes: who reads. Else the subscribers beside it.
    pub(super) readers: Vec<Reader>,
    /// Where the victim reads: who writes.
    pub(super) writer: Option<Sender<Bytes>>,
    /// A writer that sends nothing.
    pub(super) idle: Option<Sender<Bytes>>,
    /// How many messages the writer has sent.
    pub(super) sent: u64,
    sleeper: Option<Sleeper>,
}

/// Role: the survivors.
pub(crate) fn survivor(_: &[String]) {
    // The I/O thread of this process comes with the first end, and stays.
    let scratch = switchboard_testkit::Scratch::new();
    let address = format!("shm:first?scope={}", scratch.join("scope").display());
    drop(ends::reader(ends::Pattern::Queue, &address, Options::default()).expect("a reader"));
    drop(scratch);
    let before = Things::here();
    let mut survivors: Option<Survivors> = None;
    while let Some(line) = instruction() {
        let outcome = match (line.strip_prefix("open "), &mut survivors) {
            (Some(what), _) => {
                // Those of a victim that did not come to its boundary.
                survivors = None;
                Survivors::open(what).map(|opened| survivors = Some(opened)).map(|()| 0)
            }
            (None, Some(survivors)) => survivors.answer(&line),
            (None, None) => Err("there are no survivors".to_owned()),
        };
        let outcome = outcome.and_then(|done| {
            if line.starts_with("judge") {
                survivors = None;
                before.come_back(PATIENCE)?;
            }
            Ok(done)
        });
        match outcome {
            Ok(done) => report(format_args!("{DONE}{done}")),
            Err(text) if text.starts_with(SLOW) => report(text),
            Err(text) => report(format_args!("{WRONG}{}", text.replace('\n', " "))),
        }
    }
}

impl Survivors {
    /// Whoever was there before the victim. `NUMBER ADDRESS`.
    fn open(what: &str) -> Result<Self, String> {
        let (number, address) = what.split_once(' ').ok_or("an operation and an address")?;
        let number: usize = number.parse().map_err(|error| format!("{number}: {error}"))?;
        let operation = all().nth(number).ok_or("no such operation")?;
        let mut survivors = Self {
            operation,
            address: address.to_owned(),
            readers: Vec::new(),
            writer: None,
            idle: None,
            sent: 0,
            sleeper: None,
        };
        match operation.end {
            End::Publisher | End::Sender => {
                let readers = if operation.act == Act::GiveOutAgain { 2 } else { 1 };
                for _ in 0..readers {
                    let reader = survivors.reader()?;
                    survivors.readers.push(reader);
                }
                if operation.others == Others::AsleepForTwo {
                    survivors.idle = Some(survivors.writer()?);
                }
            }
            End::Subscriber => {
                let reader = survivors.reader()?;
                survivors.readers.push(reader);
                survivors.writer = Some(survivors.writer()?);
            }
            End::Receiver => {
                survivors.writer = Some(survivors.writer()?);
                if operation.again {
                    survivors.have_and_leave()?;
                }
            }
        }
        Ok(survivors)
    }

    fn options(&self) -> Options {
        let options = Options::default().linger(Some(PATIENCE));
        if self.operation.end.writes() { options.prefetch(self.operation.window) } else { options }
    }

    pub(super) fn reader(&self) -> Result<Reader, String> {
        let pattern = self.operation.end.pattern();
        let receiver = ends::reader(pattern, &self.address, self.options());
        let receiver = receiver.map_err(|error| format!("no reader: {error}"))?;
        Ok(Reader { receiver, heard: Vec::new(), is_late: self.sent > 0 })
    }

    pub(super) fn writer(&self) -> Result<Sender<Bytes>, String> {
        let pattern = self.operation.end.pattern();
        let sender = ends::writer(pattern, &self.address, self.options());
        sender.map_err(|error| format!("no writer: {error}"))
    }

    /// A receiver takes everything, and leaves without acknowledging any of it.
    fn have_and_leave(&mut self) -> Result<(), String> {
        let mut reader = self.reader()?;
        self.send(self.operation.before)?;
        for _ in 0..self.operation.before {
            let taken = reader.receiver.recv_timeout(PATIENCE);
            let _ = taken.map_err(|error| format!("the first receiver: {error}"))?;
        }
        drop(reader);
        let writer = self.writer.as_mut().ok_or("no writer")?;
        let since = Instant::now();
        while writer.peers() > 0 {
            if since.elapsed() > PATIENCE {
                return Err("a receiver that left is still there".to_owned());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// Does one thing. After a death: how much of the victim's operation was found done.
    fn answer(&mut self, line: &str) -> Result<u64, String> {
        let outcome = match line {
            "before" => self.before(),
            "ready" => self.ready(),
            "help" => self.help(),
            "go on" => self.go_on(),
            "judge a death" => return self.judge(false),
            "judge the end" => return self.judge(true),
            other => Err(format!("asked for {other:?}")),
        };
        outcome.map(|()| 0)
    }

    /// What was before the operation.
    fn before(&mut self) -> Result<(), String> {
        let operation = self.operation;
        if operation.end.writes() {
            self.read(operation.taken)?;
            // Only when they find nothing more do subscribers say how far they are.
            return if operation.taken == operation.before { self.keep_up() } else { Ok(()) };
        }
        if operation.end == End::Subscriber && operation.act != Act::Join {
            let writer = self.writer.as_mut().ok_or("no writer")?;
            let there = writer.wait_for_peers(2, Some(PATIENCE));
            there.map_err(|error| format!("no subscribers: {error}"))?;
        }
        if operation.again {
            let writer = self.writer.as_mut().ok_or("no writer")?;
            let there = writer.wait_for_peers(1, Some(PATIENCE));
            return there
                .and_then(|()| writer.drive())
                .map_err(|error| format!("not given out again: {error}"));
        }
        self.send(operation.before)?;
        self.keep_up()
    }

    /// Each reader reads so many.
    fn read(&mut self, count: u64) -> Result<(), String> {
        for reader in &mut self.readers {
            for number in 1..=count {
                reader.until(
                    "a message",
                    |heard| matches!(heard, Heard::Message { number: n, .. } if *n == number),
                )?;
            }
        }
        Ok(())
    }

    /// Sends so many more.
    pub(super) fn send(&mut self, count: u64) -> Result<(), String> {
        for _ in 0..count {
            let writer = self.writer.as_mut().ok_or("no writer")?;
            let message = ends::message(SURVIVOR, self.sent + 1, self.operation.len_bytes);
            writer
                .send_timeout(&Bytes(message), PATIENCE)
                .map_err(|error| format!("message {} is not sent: {error}", self.sent + 1))?;
            self.sent += 1;
        }
        Ok(())
    }

    /// The subscribers beside the victim read what is there.
    pub(super) fn keep_up(&mut self) -> Result<(), String> {
        for reader in &mut self.readers {
            while reader.next(Duration::ZERO)?.is_some() {}
        }
        Ok(())
    }

    /// The last thing before the operation: some go to sleep.
    fn ready(&mut self) -> Result<(), String> {
        if self.operation.act == Act::GiveOutAgain {
            // It has taken nothing of what it got.
            drop(self.readers.remove(0));
        }
        if self.operation.others == Others::Idle {
            return Ok(());
        }
        if self.operation.end.writes() {
            let reader = self.readers.pop().ok_or("no reader")?;
            self.sleeper = Some(Sleeper::Reading(Sleeping::begin(reader)?));
            return Ok(());
        }
        let mut writer = self.writer.take().ok_or("no writer")?;
        self.sent += 1;
        let message = ends::message(SURVIVOR, self.sent, self.operation.len_bytes);
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let _ = tell.send(thread_id());
            let sent = writer.send_timeout(&Bytes(message), PATIENCE);
            (writer, sent.map_err(|error| format!("the message that waited: {error}")))
        });
        asleep(told.recv().map_err(|error| error.to_string())?)?;
        self.sleeper = Some(Sleeper::Writing(thread));
        Ok(())
    }

    /// The victim sleeps: what it waits for comes.
    fn help(&mut self) -> Result<(), String> {
        if self.operation.end.writes() {
            return self.keep_up();
        }
        // Receivers that came meanwhile get theirs. One that is about to come may have nobody to send to yet.
        for _ in 0..=self.readers.len() {
            let Some(writer) = &mut self.writer else { break };
            let message = ends::message(SURVIVOR, self.sent + 1, self.operation.len_bytes);
            if writer.try_send(&Bytes(message)).is_ok() {
                self.sent += 1;
            }
        }
        Ok(())
    }

    /// The sleeper is woken, and what it waited for is there. How long that took.
    pub(super) fn wake_up(&mut self) -> Result<Duration, String> {
        let since = Instant::now();
        match self.sleeper.take() {
            None => {}
            Some(Sleeper::Reading(sleeping)) => {
                let reader = sleeping.woken()?;
                self.readers.push(reader);
            }
            Some(Sleeper::Writing(thread)) => {
                let (writer, sent) = thread.join().map_err(|_| "the sleeper panicked")?;
                self.writer = Some(writer);
                sent?;
            }
        }
        Ok(since.elapsed())
    }
}

/// A reader that sleeps until something comes.
pub(super) struct Sleeping(JoinHandle<(Reader, Result<Option<Heard>, String>)>);

impl Sleeping {
    /// Sends a reader to sleep.
    pub(super) fn begin(mut reader: Reader) -> Result<Self, String> {
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let _ = tell.send(thread_id());
            let heard = reader.next(PATIENCE);
            (reader, heard)
        });
        asleep(told.recv().map_err(|error| error.to_string())?)?;
        Ok(Self(thread))
    }

    /// Waits until something has come.
    pub(super) fn woken(self) -> Result<Reader, String> {
        let (reader, heard) = self.0.join().map_err(|_| "the sleeper panicked")?;
        match heard? {
            Some(_) => Ok(reader),
            None => Err("the sleeper was not woken".to_owned()),
        }
    }
}

/// An error that may be the machine's fault, if a sleeper was woken after so long.
pub(super) fn in_time(took: Duration) -> Result<(), String> {
    if took <= WOKEN_WITHIN {
        return Ok(());
    }
    Err(format!("{SLOW}a sleeper was woken after {took:?}"))
}

pub(super) fn thread_id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Waits until a thread of this process sleeps, and goes on to.
pub(super) fn asleep(thread: i32) -> Result<(), String> {
    let path = format!("/proc/self/task/{thread}/stat");
    let (mut looks, since) = (0, Instant::now());
    while looks < 5 {
        let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        looks = if state == Some('S') { looks + 1 } else { 0 };
        if since.elapsed() > PATIENCE {
            return Err("who should sleep does not".to_owned());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
