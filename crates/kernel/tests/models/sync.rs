//! `std::sync` and `crate::sync` of the included files, and these files; one is of another folder.

pub(crate) use crate::world::atomic;

#[path = "../../src/sync/barrier.rs"]
pub(crate) mod barrier;
#[path = "../../src/sync/bell.rs"]
pub(crate) mod bell;
#[path = "cases/mod.rs"]
mod cases;
#[path = "../../src/sync/condvar.rs"]
pub(crate) mod condvar;
#[path = "../../src/biased/door.rs"]
pub(crate) mod door;
#[path = "../../src/sync/locked.rs"]
pub(crate) mod locked;
#[path = "../../src/sync/monitor.rs"]
pub(crate) mod monitor;
#[path = "../../src/sync/mutex.rs"]
pub(crate) mod mutex;
#[path = "world/object.rs"]
pub(crate) mod object;
#[path = "../../src/sync/once.rs"]
pub(crate) mod once;
#[path = "world/order.rs"]
pub(crate) mod order;
#[path = "../../src/sync/permits.rs"]
pub(crate) mod permits;
#[path = "../../src/sync/rw_lock.rs"]
pub(crate) mod rw_lock;
#[path = "../../src/sync/seats.rs"]
mod seats;
#[path = "../../src/sync/semaphore.rs"]
pub(crate) mod semaphore;
#[path = "../../src/sync/waiting.rs"]
mod waiting;

use waiting::{LOOK, Patience, lock, next_look, out_of_patience, take};

pub(crate) use locked::{Locked, Orphaned};
pub(crate) use mutex::Mutex;
pub(crate) use object::Shared;
pub(crate) use order::LockOrder;
pub(crate) use permits::Permits;
