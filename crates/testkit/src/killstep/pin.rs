//! Keeps the harness and all that it starts on one processor, and addresses the same in each run.
//!
//! Source: `sched_setaffinity(2)`, `personality(2)` (`ADDR_NO_RANDOMIZE`).
//!
//! A step is two switches between harness and victim. On one processor neither has to be woken on
//! another one, and nothing of the victim runs while the harness looks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::personality::{self, Persona};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One harness at a time: two would slow each other down, and with them what looks at the clock.
static TURN: Mutex<()> = Mutex::new(());

/// This thread, and what it starts from now on, until this is dropped.
#[derive(Debug)]
pub(super) struct Pinned {
    processors: Option<CpuSet>,
    persona: Option<Persona>,
    _turn: MutexGuard<'static, ()>,
}

impl Pinned {
    /// Where either is refused (some containers do), the harness works all the same: slower, and
    /// addresses differ from run to run.
    pub(super) fn here() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let processors = sched_getaffinity(None).ok();
        if let Some(allowed) = processors {
            let one = one_of(&allowed);
            let _ = sched_setaffinity(None, &one);
        }
        let persona = personality::get().ok();
        if let Some(persona) = persona {
            let _ = personality::set(persona | Persona::ADDR_NO_RANDOMIZE);
        }
        Self { processors, persona, _turn: turn }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(persona) = self.persona {
            let _ = personality::set(persona);
        }
        if let Some(processors) = &self.processors {
            let _ = sched_setaffinity(None, processors);
        }
    }
}

/// Another one each time, so that harnesses of other programs that run at a time spread out.
fn one_of(allowed: &CpuSet) -> CpuSet {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let processors: Vec<usize> =
        (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect();
    let mut one = CpuSet::new();
    if !processors.is_empty() {
        one.set(processors[NEXT.fetch_add(1, Ordering::Relaxed) % processors.len()]);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_as_it_was_afterwards() {
        let before = sched_getaffinity(None).expect("processors");
        let persona = personality::get().expect("a persona");
        let pinned = Pinned::here();
        assert_eq!(sched_getaffinity(None).expect("processors").count(), 1);
        drop(pinned);
        assert!(sched_getaffinity(None).expect("processors") == before);
        assert_eq!(personality::get(), Ok(persona));
    }
}
