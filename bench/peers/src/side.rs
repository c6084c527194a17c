//! One process of a measurement: the same loops for all contenders.

use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::clock::{Scale, monotonic_ns, ticks};
use crate::contender::{self, Meeting, Port};
use crate::control::Control;
use crate::figures::{median, percentile};
use crate::job::{Job, Manner, Measure, Report, Side};
use crate::{Failure, pattern, pin};

/// Does what the job says, and prints what it found out.
pub(crate) fn main(job: &str) -> Result<(), Failure> {
    let job: Job = serde_json::from_str(job)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().map(Pid::as_raw_pid) != Some(job.parent) {
        return Err("whoever started this is gone".into());
    }
    if let Some(cpu) = job.cpu {
        pin(cpu)?;
    }
    let report = contender::run(&job)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Runs a side of a contender whose ends are `P`.
pub(crate) fn run<P: Port>(job: &Job) -> Result<Report, Failure> {
    match job.case.manner {
        Manner::Untouched => Role::<P, Untouched>::new(job).run(),
        Manner::Copied if !P::COPIES => Role::<P, ByHand>::new(job).run(),
        _ => Role::<P, Direct>::new(job).run(),
    }
}

/// Answers have numbers of their own.
pub(crate) const ANSWERS: u64 = 1 << 40;

/// How long subscribers may take until they are all there.
const JOINING: Duration = Duration::from_secs(60);

/// Long enough for the far side to wait in its `open`, or for its first message.
const FAR_OPENS: Duration = Duration::from_millis(3);

/// How the payload of a message is written and read.
trait Work {
    fn new(bytes: usize) -> Self;
    fn put<P: Port>(&mut self, port: &mut P, number: u64) -> Result<(), Failure>;
    /// Puts the messages of these numbers.
    #[inline(always)]
    fn put_all<P: Port>(
        &mut self,
        port: &mut P,
        mut numbers: RangeInclusive<u64>,
    ) -> Result<(), Failure> {
        numbers.try_for_each(|number| self.put(port, number))
    }
    fn look(&mut self, bytes: &[u8]) -> u64;
    fn expected(&self, number: u64) -> u64;
}

/// Straight into what the port gives, and straight from there.
struct Direct(usize);

impl Work for Direct {
    fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    #[inline(always)]
    fn put<P: Port>(&mut self, port: &mut P, number: u64) -> Result<(), Failure> {
        port.send(self.0, |room| pattern::fill(room, number))
    }

    #[inline(always)]
    fn put_all<P: Port>(
        &mut self,
        port: &mut P,
        numbers: RangeInclusive<u64>,
    ) -> Result<(), Failure> {
        port.send_all(self.0, numbers, pattern::fill)
    }

    #[inline(always)]
    fn look(&mut self, bytes: &[u8]) -> u64 {
        pattern::sum(bytes)
    }

    fn expected(&self, number: u64) -> u64 {
        pattern::expected(self.0, number)
    }
}

/// From a buffer of this side's own, and into one.
struct ByHand {
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Work for ByHand {
    fn new(bytes: usize) -> Self {
        Self { outgoing: vec![0; bytes], incoming: vec![0; bytes] }
    }

    #[inline(always)]
    fn put<P: Port>(&mut self, port: &mut P, number: u64) -> Result<(), Failure> {
        pattern::fill(&mut self.outgoing, number);
        port.send(self.outgoing.len(), |room| room.copy_from_slice(&self.outgoing))
    }

    #[inline(always)]
    fn look(&mut self, bytes: &[u8]) -> u64 {
        self.incoming.copy_from_slice(bytes);
        pattern::sum(&self.incoming)
    }

    fn expected(&self, number: u64) -> u64 {
        pattern::expected(self.incoming.len(), number)
    }
}

/// Nobody looks inside; only the length is checked.
struct Untouched(usize);

impl Work for Untouched {
    fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    #[inline(always)]
    fn put<P: Port>(&mut self, port: &mut P, _: u64) -> Result<(), Failure> {
        port.send(self.0, |_| ())
    }

    #[inline(always)]
    fn look(&mut self, bytes: &[u8]) -> u64 {
        bytes.len() as u64
    }

    fn expected(&self, _: u64) -> u64 {
        self.0 as u64
    }
}

/// A job, the way to the other side, and what is noticed on the way.
struct Role<'a, P, W> {
    job: &'a Job,
    control: Control,
    work: W,
    /// Not 0 once anything arrived that was not sent.
    wrong: u64,
    port: PhantomData<P>,
}

impl<'a, P: Port, W: Work> Role<'a, P, W> {
    fn new(job: &'a Job) -> Self {
        Self {
            job,
            control: Control::inherited(),
            work: W::new(job.case.bytes),
            wrong: 0,
            port: PhantomData,
        }
    }

    fn run(mut self) -> Result<Report, Failure> {
        let report = match (self.job.case.measure, self.job.side) {
            (_, Side::Idle) => self.idle(),
            (Measure::Publish, _) => self.publish(),
            (Measure::Open, Side::Near) => self.open_near(),
            (Measure::Open, Side::Far) => self.open_far(),
            (Measure::Stream, Side::Near) => self.stream_near(),
            (Measure::Stream, Side::Far) => self.stream_far(),
            (Measure::Service, Side::Near) => self.turns_near(Self::poll),
            (Measure::Service, Side::Far) => self.turns_far(Self::poll),
            (Measure::Latency, Side::Near) => self.turns_near(Self::poll),
            (Measure::Latency, Side::Far) => self.turns_far(Self::poll),
            (Measure::Sleep, Side::Near) => self.turns_near(Self::sleep),
            (Measure::Sleep, Side::Far) => self.turns_far(Self::sleep),
        }?;
        if self.wrong == 0 { Ok(report) } else { Err("what arrived is not what was sent".into()) }
    }

    fn open(&self, index: usize) -> Result<P, Failure> {
        P::open(&Meeting::new(self.job, &self.control, index))
    }

    /// Receives one message by looking for it again and again.
    #[inline(always)]
    fn poll(&mut self, port: &mut P) -> Result<u64, Failure> {
        let bytes = self.job.case.bytes;
        loop {
            if let Some(sum) = port.try_recv(bytes, |bytes| self.work.look(bytes))? {
                return Ok(sum);
            }
        }
    }

    /// Receives one message, asleep until it comes.
    #[inline(always)]
    fn sleep(&mut self, port: &mut P) -> Result<u64, Failure> {
        port.recv(self.job.case.bytes, |bytes| self.work.look(bytes))
    }

    /// Both sides are ready, and nobody goes before both are done.
    fn together<R>(
        &mut self,
        act: impl FnOnce(&mut Self, &mut P) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let mut port = self.open(0)?;
        self.control.meet()?;
        port.joined()?;
        self.control.meet()?;
        let result = act(self, &mut port)?;
        self.control.meet()?;
        Ok(result)
    }

    /// Round trips, each timed for itself.
    fn turns_near(
        &mut self,
        mut take: impl FnMut(&mut Self, &mut P) -> Result<u64, Failure>,
    ) -> Result<Report, Failure> {
        let (warm_up, count) = (self.job.warm_up as u64, self.job.count);
        let mut samples = vec![1_u32; count];
        let (tick_ns, elapsed_ns) = self.together(|role, port| {
            let mut turn = |role: &mut Self, number| -> Result<(), Failure> {
                role.work.put(port, number)?;
                let sum = take(role, port)?;
                role.wrong |= sum ^ role.work.expected(number + ANSWERS);
                Ok(())
            };
            for number in 1..=warm_up {
                turn(role, number)?;
            }
            let scale = Scale::start();
            let mut last = ticks();
            for (number, sample) in (warm_up + 1..).zip(&mut samples) {
                turn(role, number)?;
                let now = ticks();
                *sample = u32::try_from(now.wrapping_sub(last)).unwrap_or(u32::MAX);
                last = now;
            }
            Ok(scale.stop())
        })?;
        samples.sort_unstable();
        // Of a service the whole round trip is one thing: a call.
        let ways = if self.job.case.measure == Measure::Service { 1.0 } else { 2.0 };
        let one_way = |per_mille| f64::from(percentile(&samples, per_mille)) * tick_ns / ways;
        Ok(Report::from([
            ("mean_ns".to_owned(), elapsed_ns / count as f64 / ways),
            ("min_ns".to_owned(), one_way(0)),
            ("p50_ns".to_owned(), one_way(500)),
            ("p90_ns".to_owned(), one_way(900)),
            ("p99_ns".to_owned(), one_way(990)),
            ("p99.9_ns".to_owned(), one_way(999)),
        ]))
    }

    fn turns_far(
        &mut self,
        mut take: impl FnMut(&mut Self, &mut P) -> Result<u64, Failure>,
    ) -> Result<Report, Failure> {
        let total = (self.job.warm_up + self.job.count) as u64;
        self.together(|role, port| {
            for number in 1..=total {
                let sum = take(role, port)?;
                role.work.put(port, number + ANSWERS)?;
                role.wrong |= sum ^ role.work.expected(number);
            }
            Ok(Report::new())
        })
    }

    fn stream_near(&mut self) -> Result<Report, Failure> {
        let total = (self.job.warm_up + self.job.count) as u64;
        self.together(|role, port| {
            role.work.put_all(port, 1..=total)?;
            port.push()?;
            Ok(Report::new())
        })
    }

    fn stream_far(&mut self) -> Result<Report, Failure> {
        let (warm_up, total) = (self.job.warm_up, self.job.warm_up + self.job.count);
        let elapsed = self.together(|role, port| {
            role.receive(port, 0, warm_up)?;
            let start = Instant::now();
            role.receive(port, warm_up, total)?;
            Ok(start.elapsed())
        })?;
        let per_second = self.job.count as f64 / elapsed.as_secs_f64();
        let mean_ns = elapsed.as_nanos() as f64 / self.job.count as f64;
        Ok(Report::from([("per_second".to_owned(), per_second), ("mean_ns".to_owned(), mean_ns)]))
    }

    /// Receives the messages after `seen`, up to `last`.
    #[inline(always)]
    fn receive(&mut self, port: &mut P, mut seen: usize, last: usize) -> Result<(), Failure> {
        while seen < last {
            let mut number = seen as u64;
            let received = port.recv_some(self.job.case.bytes, last - seen, |bytes| {
                number += 1;
                self.wrong |= self.work.look(bytes) ^ self.work.expected(number);
            })?;
            seen += received;
        }
        Ok(())
    }

    /// Subscribes, and does nothing more.
    fn idle(&mut self) -> Result<Report, Failure> {
        let _port = self.open(0)?;
        self.control.say("here")?;
        self.control.until_hung_up();
        Ok(Report::new())
    }

    /// Publishes to subscribers that do not read.
    fn publish(&mut self) -> Result<Report, Failure> {
        let (warm_up, count) = (self.job.warm_up as u64, self.job.count as u64);
        let mut port = self.open(0)?;
        self.control.say("open")?;
        self.control.hear()?;
        self.wait_for_subscribers(&mut port)?;
        for number in 1..=warm_up {
            self.work.put(&mut port, number)?;
        }
        let start = Instant::now();
        for number in warm_up + 1..=warm_up + count {
            self.work.put(&mut port, number)?;
        }
        let each_ns = start.elapsed().as_nanos() as f64 / count as f64;
        Ok(Report::from([("each_ns".to_owned(), each_ns), ("mean_ns".to_owned(), each_ns)]))
    }

    fn wait_for_subscribers(&self, port: &mut P) -> Result<(), Failure> {
        let deadline = Instant::now() + JOINING;
        loop {
            let seen = port.subscribers()?;
            let wanted = self.job.case.subscribers;
            if seen == wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{seen} of {wanted} subscribers").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Opens while the far side waits, and sends one message.
    fn open_near(&mut self) -> Result<Report, Failure> {
        let mut samples_us = Vec::new();
        for index in 0..self.job.count {
            self.control.hear()?;
            std::thread::sleep(FAR_OPENS);
            let start_ns = monotonic_ns();
            let mut port = self.open(index)?;
            self.work.put(&mut port, 1)?;
            port.push()?;
            let arrived_ns: u64 = self.control.hear()?.parse()?;
            samples_us.push(arrived_ns.saturating_sub(start_ns) as f64 / 1e3);
            self.control.say("next")?;
        }
        let most = samples_us.iter().copied().fold(0.0, f64::max);
        Ok(Report::from([
            ("first_us".to_owned(), samples_us.first().copied().unwrap_or(0.0)),
            ("p50_us".to_owned(), median(samples_us).unwrap_or(0.0)),
            ("most_us".to_owned(), most),
        ]))
    }

    fn open_far(&mut self) -> Result<Report, Failure> {
        for index in 0..self.job.count {
            self.control.say("opening")?;
            let mut port = self.open(index)?;
            let sum = self.poll(&mut port)?;
            let arrived_ns = monotonic_ns();
            self.wrong |= sum ^ self.work.expected(1);
            self.control.say(&arrived_ns.to_string())?;
            self.control.hear()?;
        }
        Ok(Report::new())
    }
}
