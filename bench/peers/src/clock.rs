//! One cheap clock reading per round trip.
//!
//! Source: Intel's Software Developer's Manual, volume 3, "Time-Stamp Counter": it runs at one rate, and
//! alike on all processors, where `/proc/cpuinfo` says `constant_tsc`.

#![allow(unsafe_code)]

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// A reading of the processor's counter; nanoseconds where it has none.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has this instruction, and Linux lets programs use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// A reading of the processor's counter; nanoseconds where it has none.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    monotonic_ns()
}

/// `CLOCK_MONOTONIC`, which is the same in all processes.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Finds out how long a tick is, while something else is measured.
pub(crate) struct Scale {
    started: Instant,
    ticks: u64,
}

impl Scale {
    /// Begins.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), ticks: ticks() }
    }

    /// Nanoseconds per tick since then, and all nanoseconds.
    pub(crate) fn stop(&self) -> (f64, f64) {
        let ticks = ticks().wrapping_sub(self.ticks);
        let elapsed_ns = self.started.elapsed().as_nanos() as f64;
        (elapsed_ns / ticks.max(1) as f64, elapsed_ns)
    }
}
