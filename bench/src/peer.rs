//! One side of a wrapper measurement, in Rust. The same program in C is `c/peer.c`; the two take the
//! same arguments and print the same line.

mod alone;
mod made;
mod messages;
mod patterns;
mod processes;
mod wakes;

use std::time::Instant;

use switchboard_kernel::Result;

use crate::{Failure, pin};

/// The size of a message.
pub(crate) const BYTES: usize = 64;
/// The descriptor to send to, and the one to receive from.
pub(crate) const OUT: i32 = 3;
pub(crate) const IN: i32 = 4;
/// Nothing holds a UDP sender back: it waits for a word from the receiver every so many messages.
pub(crate) const UDP_BURST: usize = 64;
/// The most round trips of one run.
pub(crate) const MOST_SAMPLES: usize = 1 << 20;
/// The size of shared memory, and of what is copied to and from it at most.
pub(crate) const PAGE: usize = 4096;
/// Where the mutex is in shared memory, after an object for each way; then a word for each object.
pub(crate) const MUTEX: usize = 128;
const WORDS: usize = 192;

/// `MECHANISM round-trip|one-way|alone near|far COUNT WARM_UP CPU OUT_ID IN_ID`
pub(crate) fn main(arguments: &[String]) -> std::result::Result<(), Failure> {
    let [name, operation, side, count, warm_up, cpu, out_id, in_id] = arguments else {
        return Err("peer: eight arguments are needed".into());
    };
    pin(cpu.parse()?)?;
    let job = Job {
        operation: operation.clone(),
        near: side == "near",
        udp: name == "udp",
        pty: name == "pty",
        count: count.parse()?,
        warm_up: warm_up.parse()?,
    };
    let ids = (out_id.parse()?, in_id.parse()?);
    let runs = [messages::run, wakes::run, alone::run, made::run, processes::run, patterns::run];
    for run in runs {
        if run(&job, name, ids)? {
            return Ok(());
        }
    }
    Err(format!("no such mechanism: {name}").into())
}

struct Job {
    operation: String,
    near: bool,
    udp: bool,
    /// What is not read when the master goes is lost: it waits for a word at the end.
    pty: bool,
    count: usize,
    warm_up: usize,
}

/// `false` when somebody else knows the mechanism.
type Known = std::result::Result<bool, Failure>;

fn run(job: &Job, mut channel: impl Channel) -> Known {
    let mut message = [0; BYTES];
    let total = job.count + job.warm_up;
    match (job.operation.as_str(), job.near) {
        ("alone", _) => {
            return repeat(job, || {
                channel.put(&message)?;
                channel.take(&mut message)
            });
        }
        ("round-trip", true) => near(job, channel)?,
        ("round-trip", false) => {
            for _ in 0..total {
                channel.take(&mut message)?;
                channel.put(&message)?;
            }
        }
        (_, true) => {
            for i in 1..=total {
                channel.put(&message)?;
                if job.udp && i % UDP_BURST == 0 {
                    channel.take(&mut message)?;
                }
            }
            if job.pty {
                channel.take(&mut message)?;
            }
        }
        (_, false) => {
            let mut start = Instant::now();
            for i in 1..=total {
                channel.take(&mut message)?;
                if job.udp && i % UDP_BURST == 0 {
                    channel.put(&message)?;
                }
                if i == job.warm_up {
                    start = Instant::now();
                }
            }
            report(start.elapsed().as_nanos(), &mut []);
            if job.pty {
                channel.put(&message)?;
            }
        }
    }
    Ok(true)
}

/// Round trips, each timed for itself.
fn near(job: &Job, mut channel: impl Channel) -> std::result::Result<(), Failure> {
    if job.count > MOST_SAMPLES {
        return Err("COUNT".into());
    }
    let mut message = [0; BYTES];
    let mut samples: Vec<u32> = Vec::with_capacity(MOST_SAMPLES);
    for _ in 0..job.warm_up {
        channel.put(&message)?;
        channel.take(&mut message)?;
    }
    let start = Instant::now();
    let mut last = start;
    for _ in 0..job.count {
        channel.put(&message)?;
        channel.take(&mut message)?;
        let now = Instant::now();
        samples.push(now.duration_since(last).as_nanos() as u32);
        last = now;
    }
    report(last.duration_since(start).as_nanos(), &mut samples);
    Ok(())
}

/// What one process does for itself, timed as a whole: a reading of the clock may take longer.
fn repeat(job: &Job, mut once: impl FnMut() -> Result<()>) -> Known {
    let mut start = Instant::now();
    // One place that calls it, so that it is inlined there, as in C.
    for count in [job.warm_up, job.count] {
        start = Instant::now();
        for _ in 0..count {
            once()?;
        }
    }
    report(start.elapsed().as_nanos(), &mut []);
    Ok(true)
}

fn report(total_ns: u128, samples: &mut [u32]) {
    samples.sort_unstable();
    print!("{total_ns}");
    for per_mille in [500, 900, 990, 999] {
        let at = samples.len().saturating_sub(1) * per_mille / 1000;
        print!(" {}", samples.get(at).copied().unwrap_or(0));
    }
    println!();
}

/// Aligned as in C: to a cache line, which would otherwise be left to chance.
#[repr(align(64))]
struct Aligned<const N: usize>([u8; N]);

/// A mechanism, used through its wrapper.
trait Channel {
    fn put(&mut self, message: &[u8; BYTES]) -> Result<()>;
    fn take(&mut self, message: &mut [u8; BYTES]) -> Result<()>;
}
