//! The models: two to four threads, each of which does a step or two.
//!
//! A model holds if no run of it hangs (nobody was woken, or never looked again) and no assertion fails.
//! What locks protect is a [`Plain`] word, which shows old values to whoever has no right to the new one.

mod barrier;
mod bell;
mod condvar;
mod deaths;
mod door;
mod monitor;
mod once;
mod permits;
mod rw_lock;
mod semaphore;

use crate::real_std;
use crate::real_std::sync::Arc;
use crate::real_std::time::Instant;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use loom::thread::JoinHandle;

/// How many switches away from a thread that could go on a run of a model has at most, unless
/// `SWITCHBOARD_MODELS=all` asks for more.
#[derive(Clone, Copy)]
struct Bounds {
    quick: usize,
    /// None: as many as there can be.
    all: Option<usize>,
}

/// Runs a model in every order within the bounds, and says how many there were.
#[allow(clippy::print_stdout)]
fn explore(name: &str, bounds: Bounds, model: impl Fn() + Send + Sync + 'static) {
    let all = real_std::env::var_os("SWITCHBOARD_MODELS").is_some_and(|asked| asked == "all");
    let bound = if all { bounds.all } else { Some(bounds.quick) };
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(bound);
    builder.max_branches = 20_000;
    let (runs, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let bound = builder.preemption_bound.map_or("any number of".to_owned(), |n| n.to_string());
    println!(
        "{name}: {} runs, {bound} switches, {:.1} s",
        runs.load(Ordering::Relaxed),
        started.elapsed().as_secs_f64()
    );
}

/// Threads that all do the same.
fn threads(count: usize, act: impl Fn() + Clone + 'static) -> Vec<JoinHandle<()>> {
    (0..count).map(|_| loom::thread::spawn(act.clone())).collect()
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("a thread of the model");
    }
}

/// A word that is read and written as if nobody else did.
#[derive(Debug)]
struct Plain(loom::sync::atomic::AtomicU32);

impl Plain {
    fn new(value: u32) -> Self {
        Self(loom::sync::atomic::AtomicU32::new(value))
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn add(&self, value: u32) {
        self.set(self.get() + value);
    }

    /// Lowers it by one if it is not 0.
    fn take_one(&self) -> bool {
        let found = self.get();
        if found > 0 {
            self.set(found - 1);
        }
        found > 0
    }
}
