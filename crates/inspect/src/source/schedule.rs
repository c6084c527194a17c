//! Whether a thread ran meanwhile, and since when it sleeps: schedstat and sched.
//!
//! Source: the kernel's `Documentation/scheduler/sched-stats.rst`, `kernel/sched/debug.c`. `se.exec_start` is the
//! clock of the thread's processor when it last ran. That clock leaves out time that a hypervisor took away, so it is compared
//! with the same clock as this process sees it on the same processor, and not with the time of day.

use std::collections::HashMap;

use rustix::thread::CpuSet;

use super::numbers::{decimal, field, words};

/// How often a thread was given a processor, by its `schedstat`.
#[must_use]
pub fn runs(schedstat: &[u8]) -> Option<u64> {
    decimal(words(schedstat).nth(2)?)
}

/// When a thread last ran, in milliseconds of its processor's clock, by its `sched`; none where the kernel does not know.
#[must_use]
pub fn last_ran_ms(sched: &[u8]) -> Option<u64> {
    let line =
        sched.split(|&byte| byte == b'\n').find(|line| line.starts_with(b"se.exec_start"))?;
    let at = line.iter().position(|&byte| byte == b':')?;
    let number = line.get(at + 1..)?.trim_ascii();
    let whole = number.split(|&byte| byte == b'.').next()?;
    // One that was moved to another processor as it fell asleep has none: the kernel set it to 0.
    decimal(whole).filter(|&ms| ms > 0)
}

/// The clocks of processors.
#[derive(Debug, Default)]
pub struct Clocks(HashMap<u32, Option<u64>>);

/// How far a time may be wrong: a processor's clock is read at most a tick late.
pub const UNCERTAIN_MS: u64 = 20;

impl Clocks {
    /// How long ago that was on that processor; none if this process may not run there.
    pub fn since_ms(&mut self, processor: u32, then_ms: u64) -> Option<u64> {
        let now = *self.0.entry(processor).or_insert_with(|| now_ms(processor));
        Some(now?.saturating_sub(then_ms))
    }
}

/// A thread of its own goes there and looks at itself.
fn now_ms(processor: u32) -> Option<u64> {
    let look = || {
        let mut processors = CpuSet::new();
        let at = usize::try_from(processor).ok().filter(|&at| at < CpuSet::MAX_CPU)?;
        processors.set(at);
        rustix::thread::sched_setaffinity(None, &processors).ok()?;
        rustix::thread::sched_yield();
        last_ran_ms(&std::fs::read("/proc/thread-self/sched").ok()?)
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new().spawn_scoped(scope, look).ok()?.join().ok().flatten()
    })
}

/// The number of context switches in `status`, as a second witness where there is no `schedstat`.
#[must_use]
pub fn switches(status: &[u8]) -> Option<u64> {
    let number = |name| field(status, name).and_then(decimal);
    number("voluntary_ctxt_switches")?.checked_add(number("nonvoluntary_ctxt_switches")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        assert_eq!(runs(b"88406 98236 3\n"), Some(3));
        assert_eq!(runs(b"1 2\n"), None);
        let sched = b"x (1, #threads: 1)\nse.exec_start    :      56560870.459553\n";
        assert_eq!(last_ran_ms(sched), Some(56_560_870));
        assert_eq!(last_ran_ms(b"se.exec_start"), None);
        assert_eq!(
            last_ran_ms(b"se.exec_start    :    0.000000\n"),
            None,
            "since boot it did not wait"
        );
        let status =
            |own: u64| format!("voluntary_ctxt_switches:\t{own}\nnonvoluntary_ctxt_switches:\t2\n");
        assert_eq!(switches(status(3).as_bytes()), Some(5));
        assert_eq!(switches(status(u64::MAX).as_bytes()), None);
    }

    #[test]
    fn this_thread_ran_just_now() {
        let mut clocks = Clocks::default();
        let own = std::fs::read("/proc/thread-self/stat").expect("a stat");
        let processor = super::super::process::stat(&own).expect("a stat").processor;
        let Some(then) = now_ms(processor) else { return };
        let since = clocks.since_ms(processor, then).expect("a clock");
        assert!(since < 10_000, "{since} ms");
    }
}
