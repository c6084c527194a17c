//! Those who use objects in the proof. Each looks all the time whether what it uses is still the same.

use std::any::Any;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use switchboard_inspect::Kind;
use switchboard_kernel::mmap::Mode;
use switchboard_kernel::posix_mq::{self, MessageQueue};
use switchboard_kernel::{fifo, posix_sem, sysv_msg, sysv_sem, sysv_shm, unix_socket};
use switchboard_testkit::fork;

use super::Dice;
use super::things::{Thing, open_shared};

/// How something is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Open, mapped, attached, bound; or used last by one who lives.
    Held,
    /// By a child, after its parent has ended.
    Inherited,
    /// Sent over a socket, and received and sent again now and then: nobody has it in between.
    InFlight,
    /// By a thread that sleeps in a call on it.
    Blocked,
    /// By a process in other mount and PID namespaces.
    Elsewhere,
}

/// Ways in which a kind can be used.
pub(super) fn ways(kind: Kind) -> &'static [Way] {
    match kind {
        Kind::SysvShm => &[Way::Held, Way::Inherited, Way::Elsewhere],
        Kind::SysvMsg | Kind::SysvSem => &[Way::Held, Way::Blocked],
        Kind::Mq => &[Way::Held, Way::Inherited, Way::InFlight, Way::Blocked],
        Kind::PosixShm => &[Way::Held, Way::Inherited, Way::InFlight, Way::Elsewhere],
        Kind::PosixSem => &[Way::Held, Way::Inherited],
        Kind::Fifo => &[Way::Held, Way::Inherited, Way::InFlight, Way::Blocked],
        _ => &[Way::Held, Way::Inherited, Way::InFlight],
    }
}

/// Says that something is wrong, where the stage will read it.
pub(super) fn complain(folder: &Path, what: &str) -> bool {
    let file = std::fs::OpenOptions::new().append(true).create(true).open(folder.join("problems"));
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{what}");
    }
    false
}

fn is_over(folder: &Path) -> bool {
    folder.join("over").exists()
}

/// Says that it uses it from now on.
fn ready(thing: &Thing) {
    let _ = std::fs::write(thing.folder.join(format!("ready-{:x}", thing.number)), "");
}

/// Uses something that it makes itself, until it is over. `false`: it was not let.
pub(super) fn user(thing: &Thing, way: Way) -> bool {
    let id = match thing.make() {
        Ok(id) => id,
        Err(error) => return complain(&thing.folder, &format!("making {thing:?}: {error}")),
    };
    let _ = std::fs::write(thing.folder.join(format!("id-{:x}", thing.number)), id.to_string());
    match way {
        Way::Blocked => blocked(thing, id),
        Way::Elsewhere => hold(thing, id, Box::new(()), way),
        Way::Held | Way::InFlight | Way::Inherited => match open(thing, id) {
            Ok(held) if way == Way::Inherited => {
                let _ = fork::start(|| hold(thing, id, held, way));
                true
            }
            Ok(held) if way == Way::InFlight => in_flight(thing, id, held),
            Ok(held) => hold(thing, id, held, way),
            Err(error) => complain(&thing.folder, &format!("opening {thing:?}: {error}")),
        },
    }
}

/// A way to have something.
fn open(thing: &Thing, id: i32) -> Result<Box<dyn Any>, switchboard_kernel::Error> {
    let by_chance = thing.number & 4 == 0;
    Ok(match thing.kind {
        Kind::SysvShm => {
            Box::new(sysv_shm::Segment::from_id(id).attach(sysv_shm::Access::ReadOnly)?)
        }
        Kind::PosixShm if by_chance => Box::new(open_shared(thing)?.map(Mode::ReadOnly)?),
        Kind::PosixShm => Box::new(open_shared(thing)?),
        Kind::PosixSem => Box::new(posix_sem::Semaphore::open(&thing.name())?),
        Kind::Mq => Box::new(MessageQueue::open(&thing.name(), posix_mq::Access::Receive)?),
        Kind::Fifo => Box::new(fifo::open_reader(&thing.path())?),
        Kind::Unix => {
            std::fs::remove_file(thing.path()).ok();
            if by_chance {
                Box::new(UnixListener::bind(thing.path()).ok())
            } else {
                Box::new(UnixDatagram::bind(thing.path()).ok())
            }
        }
        // Who made it used it last.
        Kind::SysvMsg => {
            let queue = sysv_msg::MessageQueue::from_id(id);
            Box::new(queue.try_send(7, b"by one who lives")?)
        }
        _ => Box::new(()),
    })
}

/// Looks at it until it is over.
fn hold(thing: &Thing, id: i32, held: Box<dyn Any>, way: Way) -> bool {
    let at_first = thing.identity(id);
    if at_first.is_none() {
        return complain(&thing.folder, &format!("{way:?} {thing:?} was gone at once"));
    }
    if way == Way::Elsewhere {
        // The other one says when it has it; until then this process does.
        let held = open(thing, id);
        let ready = thing.folder.join(format!("ready-{:x}", thing.number));
        let until = Instant::now() + switchboard_testkit::DEADLINE;
        while !ready.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(held);
    } else {
        ready(thing);
    }
    let mut looks = 0;
    while !is_over(&thing.folder) {
        let now = thing.identity(id);
        if now != at_first {
            let text = format!("{way:?} {thing:?}: was {at_first:?}, is {now:?}");
            return complain(&thing.folder, &text);
        }
        looks += 1;
        // Two processors have to do for all of them.
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(held);
    let checked = match thing.kind {
        Kind::Unix => Ok(()),
        // It has a message more.
        Kind::SysvMsg => Ok(()),
        _ => thing.check(id),
    };
    count(thing, looks);
    checked.map_or_else(
        |error| complain(&thing.folder, &format!("{way:?} {thing:?}: {error}")),
        |()| true,
    )
}

fn count(thing: &Thing, looks: u64) {
    let file = thing.folder.join(format!("looks-{:x}", thing.number));
    let _ = std::fs::write(file, looks.to_string());
}

/// Its descriptor is in a socket, and now and then it is received, looked at, and sent again.
fn in_flight(thing: &Thing, id: i32, held: Box<dyn Any>) -> bool {
    let Ok((here, there)) = UnixStream::pair() else { return false };
    let send =
        |fd: std::os::fd::BorrowedFd<'_>| unix_socket::send_with_fds(&here, b"x", &[fd]).is_ok();
    let sent = if let Some(segment) = held.downcast_ref::<switchboard_kernel::posix_shm::Segment>()
    {
        send(segment.as_fd())
    } else if let Some(queue) = held.downcast_ref::<MessageQueue>() {
        send(queue.as_fd())
    } else if let Some(reader) = held.downcast_ref::<std::os::fd::OwnedFd>() {
        send(reader.as_fd())
    } else if let Some(Some(listener)) = held.downcast_ref::<Option<UnixListener>>() {
        send(listener.as_fd())
    } else if let Some(Some(socket)) = held.downcast_ref::<Option<UnixDatagram>>() {
        send(socket.as_fd())
    } else {
        // A mapping cannot be sent.
        return hold(thing, id, held, Way::Held);
    };
    if !sent {
        return complain(&thing.folder, &format!("{thing:?} could not be sent"));
    }
    drop(held);
    let at_first = thing.identity(id);
    ready(thing);
    let mut looks = 0;
    while !is_over(&thing.folder) {
        let now = thing.identity(id);
        if now != at_first || at_first.is_none() {
            let text = format!("in flight: {thing:?}: was {at_first:?}, is {now:?}");
            return complain(&thing.folder, &text);
        }
        looks += 1;
        std::thread::sleep(Duration::from_millis(5));
        if looks % 30 == 0 {
            match unix_socket::recv_with_fds(&there, &mut [0; 4], 2) {
                Ok((_, fds)) if fds.len() == 1 && send(fds[0].as_fd()) => {}
                other => return complain(&thing.folder, &format!("{thing:?} received: {other:?}")),
            }
        }
    }
    count(thing, looks);
    true
}

/// Sleeps in a call on it; the stage kills it when all is over. Whoever wakes it before does wrong.
fn blocked(thing: &Thing, id: i32) -> bool {
    // It was made with something in it: that is taken first.
    let woken = match thing.kind {
        Kind::SysvMsg => {
            let queue = sysv_msg::MessageQueue::from_id(id);
            let mut buffer = sysv_msg::Buffer::with_capacity(4096);
            while queue.try_recv(sysv_msg::Select::Any, &mut buffer).is_ok() {}
            ready(thing);
            queue.recv(sysv_msg::Select::Any, &mut buffer).map(drop)
        }
        Kind::SysvSem => {
            ready(thing);
            let set = sysv_sem::SemaphoreSet::from_id(id);
            set.operate(&[sysv_sem::Operation::change(0, -32_000)])
        }
        Kind::Mq => {
            MessageQueue::open(&thing.name(), posix_mq::Access::Receive).and_then(|queue| {
                while queue.try_recv(&mut [0; 100]).is_ok() {}
                ready(thing);
                queue.recv(&mut [0; 100]).map(drop)
            })
        }
        _ => {
            ready(thing);
            // The reader comes never.
            let _ = std::fs::OpenOptions::new().write(true).open(thing.path());
            Ok(())
        }
    };
    complain(&thing.folder, &format!("woken: {thing:?}: {woken:?}"))
}

/// In other namespaces: has what it is told the name or id of.
pub(in super::super) fn elsewhere(arguments: &[String]) {
    let [kind, name, folder, number] = arguments else { return };
    let held: Box<dyn Any> = if kind == "sysv-shm" {
        let segment = sysv_shm::Segment::from_id(name.parse().expect("an id"));
        Box::new(segment.attach(sysv_shm::Access::ReadOnly).expect("attached"))
    } else {
        let segment = switchboard_kernel::posix_shm::Segment::open(
            name,
            switchboard_kernel::posix_shm::Access::ReadOnly,
        );
        Box::new(segment.expect("open").map(Mode::ReadOnly).expect("mapped"))
    };
    let folder = Path::new(folder);
    std::fs::write(folder.join(format!("ready-{number}")), "").expect("written");
    while !is_over(folder) {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(held);
}

/// Whether the name of a FIFO that was opened right before it was hidden is there again: it is hidden while `clean` looks through /proc, finds
/// who opened it, and gives the name back. What is gone for good is not.
fn comes_back(thing: &Thing, id: i32) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while thing.kind == Kind::Fifo && Instant::now() < until {
        if thing.identity(id).is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Takes up what others have abandoned, for a moment each, and looks whether it stays as long as it has it.
pub(super) fn adopter(things: &[(Thing, i32)], folder: &Path, mut dice: Dice) -> bool {
    let mut taken = 0;
    while !is_over(folder) {
        let (thing, id) = &things[dice.below(things.len() as u64) as usize];
        std::thread::sleep(Duration::from_micros(dice.below(10_000)));
        if matches!(thing.kind, Kind::SysvMsg | Kind::SysvSem | Kind::Unix) {
            continue;
        }
        // The number decides how it is opened, and whether that is by chance a mapping.
        let by = Thing { number: thing.number, ..thing.clone() };
        let Ok(held) = open(&by, *id) else { continue };
        taken += 1;
        let until = Instant::now() + Duration::from_micros(dice.below(20_000));
        loop {
            if thing.identity(*id).is_none() && !comes_back(thing, *id) {
                let text = format!("taken up again, and removed: {thing:?}");
                return complain(folder, &text);
            }
            if Instant::now() >= until {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(held);
    }
    let _ = std::fs::write(folder.join(format!("taken-{:x}", dice.next())), taken.to_string());
    true
}
