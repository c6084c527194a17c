//! The survivors: how others find that all is well, and how they help a victim on that waits for them.

use std::time::Duration;

use switchboard_kernel::Result;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::shared_words::SharedWords;
use switchboard_kernel::sync::{
    Barrier, Entry, Locked, Monitor, Mutex, Once, Permits, Repairable, RwLock, Semaphore, Shared,
};
use switchboard_testkit::killstep::Boundary;

use super::{SOON, Verdict, World};
use crate::sync::condvar::Pair;
use crate::sync::monitor::{Bank, START};
use crate::sync::opened;

pub(super) fn consistent<G: Repairable>(locked: Locked<G>) -> Result<G> {
    locked.or_repair(|| ())
}

pub(super) fn soon() -> Deadline {
    Deadline::after(SOON)
}

/// An error as the harness takes it.
pub(super) fn say<T>(what: &str, result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// The first peer is told to let go.
pub(super) fn let_go(world: &mut World) {
    if world.helped == 0 {
        world.peers[0].child.tell("unlock");
    }
}

pub(super) fn nothing(_: &mut World) {}

pub(super) fn memory_of<S: Shared>(object: Result<S>) -> SharedWords {
    object.expect("an object").memory().clone()
}

/// A survivor takes the mutex.
pub(super) fn check_mutex(world: &mut World, _: &Boundary) -> Verdict {
    release(world);
    let mutex: Mutex = opened(&world.memory);
    let guard = say("lock", mutex.lock_until(soon()).and_then(consistent))?;
    drop(guard);
    Ok(())
}

/// Another comes to wait as well; then the first peer lets go, and has it again before the victim, which is
/// woken, can take it. The next time it lets go for good, and so does the other.
pub(super) fn overtake(world: &mut World) {
    match world.helped {
        0 => {
            world.peers[1].told_and_waits("lock");
            // If it fails, the other has it.
            let _ = world.told(0, "unlock and try");
        }
        1 => {
            world.peers[0].child.tell("unlock");
            world.peers[1].child.tell("repair");
            world.peers[1].child.tell("unlock");
        }
        _ => {}
    }
}

/// The other gets the mutex, also if whoever was woken for it is dead.
pub(super) fn check_overtaken(world: &mut World, at: &Boundary) -> Verdict {
    for _ in world.helped..2 {
        overtake(world);
        world.helped += 1;
    }
    world.answer(0)?;
    for expected in [["lock ok", "lock EOWNERDEAD"], ["repair ok"; 2], ["unlock ok"; 2]] {
        let found = world.answer(1)?;
        if !expected.contains(&found.as_str()) {
            return Err(format!("the other: {found}"));
        }
    }
    check_mutex(world, at)
}

/// If nobody has told the first peer to let go, because the victim did not come to wait for it.
pub(super) fn release(world: &mut World) {
    if !world.peers.is_empty() {
        let_go(world);
        world.helped += 1;
    }
}

/// A survivor reads, writes, and reads again; a writer that was killed inside is told of.
pub(super) fn check_rw_lock(world: &mut World, at: &Boundary) -> Verdict {
    release(world);
    let lock: RwLock = opened(&world.memory);
    let locked = say("write", lock.write_until(soon()))?;
    if locked.owner_died() && at.is_end() {
        return Err("a writer that let go counts as dead".to_owned());
    }
    drop(say("repair", consistent(locked))?);
    drop(say("read", lock.read_until(soon()))?);
    drop(say("write again", lock.try_write())?);
    Ok(())
}

/// All permits can be had, and no more.
pub(super) fn check_permits(world: &mut World, _: &Boundary) -> Verdict {
    release(world);
    let permits: Permits = opened(&world.memory);
    let mut all = Vec::new();
    for _ in 0..permits.count() {
        all.push(say("acquire", permits.acquire_until(soon()))?);
    }
    match permits.try_acquire() {
        Ok(_) => Err("there is one more than there were".to_owned()),
        Err(error) if error.name() == "EBUSY" => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// What the victim may have taken is gone; of what is raised now nothing is.
pub(super) fn check_semaphore(world: &mut World, _: &Boundary) -> Verdict {
    let semaphore: Semaphore = opened(&world.memory);
    let before = semaphore.value();
    say("post", semaphore.post())?;
    say("wait", semaphore.wait_until(soon()))?;
    if semaphore.value() <= before { Ok(()) } else { Err("the count went up by itself".to_owned()) }
}

/// The waiter gets what the victim raised, or what is raised now, and no more than one of both is left.
pub(super) fn check_posted(world: &mut World, at: &Boundary) -> Verdict {
    let semaphore: Semaphore = opened(&world.memory);
    if !at.is_end() {
        say("post", semaphore.post())?;
    }
    world.answer(0)?;
    if semaphore.value() <= 1 { Ok(()) } else { Err(format!("{} are left", semaphore.value())) }
}

/// The other waiter is told: because the victim died, because what it was told is told on, or now.
pub(super) fn check_waiting(world: &mut World, at: &Boundary) -> Verdict {
    let pair = Pair::open(world.memory.clone());
    if world.helped == 0 || world.stopped || at.is_end() {
        say("notify", pair.changed.notify_one())?;
    }
    world.answer(0)?;
    say("lock", pair.mutex.lock_until(soon()).and_then(consistent)).map(drop)
}

/// All waiters are told, by the victim or by a survivor.
pub(super) fn check_notified(world: &mut World, at: &Boundary) -> Verdict {
    let pair = Pair::open(world.memory.clone());
    if !at.is_end() {
        say("notify", pair.changed.notify_all())?;
    }
    for peer in 0..world.peers.len() {
        world.answer(peer)?;
    }
    say("lock", pair.mutex.lock_until(soon()).and_then(consistent)).map(drop)
}

/// One is told. If that is the other, and the victim sleeps on, all are.
pub(super) fn help_waiter(world: &mut World) {
    let pair = Pair::open(world.memory.clone());
    let rung =
        if world.helped == 0 { pair.changed.notify_one() } else { pair.changed.notify_all() };
    rung.expect("rung");
}

/// The other member crosses, without the victim or with it, and again.
pub(super) fn check_barrier(world: &mut World, _: &Boundary) -> Verdict {
    other_arrives(world);
    world.answer(0)?;
    world.told(0, "wait")?;
    Ok(())
}

pub(super) fn other_arrives(world: &mut World) {
    if world.helped == 0 {
        world.peers[0].child.tell("wait");
    }
}

/// Somebody takes the place that the victim may have taken, and both cross.
pub(super) fn check_joined(world: &mut World, _: &Boundary) -> Verdict {
    let barrier: Barrier = opened(&world.memory);
    let member = say("join", barrier.join())?;
    world.peers[0].child.tell("wait");
    say("wait", member.wait_until(soon()))?;
    world.answer(0)?;
    Ok(())
}

pub(super) fn check_once(world: &mut World, at: &Boundary) -> Verdict {
    let once: Once = opened(&world.memory);
    let did = say("call", once.call_until(|| (), soon()))?;
    if did && at.is_end() {
        return Err("it was done twice".to_owned());
    }
    if once.is_done() { Ok(()) } else { Err("it is not done".to_owned()) }
}

/// The sum is what it was.
pub(super) fn check_sum(world: &mut World, _: &Boundary) -> Verdict {
    let bank: Monitor<Bank> = opened(&world.memory);
    let found = say("look", bank.with_until(soon(), |bank| **bank))?;
    if found.accounts[0] + found.accounts[1] == 100 && found.mark == START.mark {
        Ok(())
    } else {
        Err(format!("{found:?}"))
    }
}

/// The same, and whoever waits for a change sees one.
pub(super) fn check_bank(world: &mut World, at: &Boundary) -> Verdict {
    check_sum(world, at)?;
    let bank: Monitor<Bank> = opened(&world.memory);
    let found = say("look", bank.with_until(soon(), |bank| **bank))?;
    if found.accounts[1] < 10 {
        say("move", bank.with_until(soon(), transfer))?.map_err(|error| error.to_string())?;
    }
    world.answer(0)?;
    Ok(())
}

pub(super) fn transfer(bank: &mut Entry<'_, Bank>) -> Result<()> {
    bank.accounts[0] -= 10;
    bank.accounts[1] += 10;
    bank.notify_all()
}

/// Fails while the victim is stopped inside.
pub(super) fn move_money(world: &mut World) {
    let bank: Monitor<Bank> = opened(&world.memory);
    let _ = bank.with_until(Deadline::after(Duration::from_millis(20)), transfer);
}

pub(super) fn give_both_back(world: &mut World) {
    if world.helped == 0 {
        world.peers[0].child.tell("release");
        world.peers[0].child.tell("release");
    }
}

pub(super) fn check_given_back(world: &mut World, at: &Boundary) -> Verdict {
    give_both_back(world);
    world.helped += 1;
    check_permits(world, at)
}
