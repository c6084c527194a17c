//! Three processes share a workshop: two benches (permits) and a count of chairs (a monitor). One is killed
//! at its bench with a chair half made; the others do not notice but for the bench that is free again.
//!
//! Source: `pthread_mutexattr_setrobust(3)`; Hoare, "Monitors", CACM 17 (1974).

#![allow(clippy::print_stdout)]

use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::process::Spawn;
use switchboard_kernel::sync::{Monitor, Name, Permits, Shared};
use zerocopy::{FromBytes, Immutable, IntoBytes};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// What all of them see. Every pattern of bytes is a value of it.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct Workshop {
    legs: u32,
    chairs: u32,
}

const EMPTY: Workshop = Workshop { legs: 0, chairs: 0 };

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    if let (Some(manner), Some(benches), Some(workshop)) =
        (arguments.next(), arguments.next(), arguments.next())
    {
        return work(manner == "slow", &Name::new(&benches)?, &Name::new(&workshop)?);
    }
    // Names go with their last user: nothing is left behind.
    let own = std::process::id();
    let (benches, workshop) = (format!("benches-{own}"), format!("workshop-{own}"));
    let permits = Permits::named(&Name::new(&benches)?, 2)?;
    let chairs = Monitor::named(&Name::new(&workshop)?, EMPTY)?;
    let start = |manner: &str| {
        Spawn::new(std::env::current_exe()?)
            .args([manner, &benches, &workshop])
            .die_with_parent()
            .spawn()
            .map_err(Box::<dyn std::error::Error>::from)
    };

    let mut slow = start("slow")?;
    // It has a bench as soon as only one is left.
    while let Ok(second) = permits.try_acquire() {
        let third = permits.try_acquire();
        if third.is_err() {
            break;
        }
        drop((second, third));
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("the slow one is killed at its bench: {}", slow.kill()?);
    let mut workers = [start("fast")?, start("fast")?];
    chairs.with(|workshop| {
        workshop.wait_while(|workshop| workshop.chairs < 4)?;
        println!("{} chairs, {} legs left over", workshop.chairs, workshop.legs);
        Ok::<(), switchboard_kernel::Error>(())
    })??;
    for worker in &mut workers {
        worker.wait(Deadline::NEVER)?;
    }
    let both = (permits.try_acquire()?, permits.try_acquire()?);
    println!("both benches are free: {}", permits.try_acquire().is_err());
    drop(both);
    Ok(())
}

fn work(slowly: bool, benches: &Name, workshop: &Name) -> Outcome {
    let benches = Permits::named(benches, 2)?;
    let workshop = Monitor::named(workshop, EMPTY)?;
    let _bench = benches.acquire()?;
    for _ in 0..2 {
        workshop.with(|workshop| {
            workshop.legs += 4;
            if slowly {
                // This is when it is killed: nobody ever sees these legs.
                loop {
                    std::thread::park();
                }
            }
            workshop.legs -= 4;
            workshop.chairs += 1;
            workshop.notify_all()
        })??;
    }
    Ok(())
}
