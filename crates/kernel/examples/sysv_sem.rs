//! A bank's log behind a System V semaphore: one teller writes at a time, and one that is killed
//! while it writes keeps nobody out, because the kernel undoes what it took.
//!
//! Source: `semop(2)` (`SEM_UNDO`), `sysvipc(7)`.

#![allow(clippy::print_stdout)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::process::{Child, Spawn};
use switchboard_kernel::sysv_sem::{CreateOptions, Key, Operation, SemaphoreSet};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The semaphores of the set: the log is free (1) or taken (0); how many tellers have come so far.
const LOG: u16 = 0;
const TELLERS: u16 = 1;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, id, log] = &arguments[..] {
        return teller(name, SemaphoreSet::from_id(id.parse()?), Path::new(log));
    }
    let log = std::env::temp_dir().join(format!("switchboard-example-{}.log", std::process::id()));
    // Mode 0600, and both counts right before anybody else can use the set.
    let set = SemaphoreSet::create(&Key::Private, &CreateOptions::new().values([1, 0]))?;
    let outcome = bank(set, &log);
    set.remove()?;
    std::fs::remove_file(log)?;
    outcome
}

fn bank(set: SemaphoreSet, log: &PathBuf) -> Outcome {
    let start = |name: &str| {
        Spawn::new(std::env::current_exe()?)
            .args([name, &set.id().to_string()])
            .arg(log)
            .die_with_parent()
            .spawn()
            .map_err(Box::<dyn std::error::Error>::from)
    };
    let mut clumsy = start("clumsy")?;
    set.operate(&[Operation::take_one(TELLERS)])?;
    let status = set.semaphore(LOG)?;
    println!(
        "bank: the log is taken: {}, by the clumsy teller: {}",
        status.value == 0,
        status.last_pid == clumsy.id()
    );

    let (anna, bert) = (start("Anna")?, start("Bert")?);
    let soon = Deadline::after(Duration::from_millis(50));
    let refused = set.operate_until(&[Operation::take_one(LOG).undo()], soon);
    println!("bank: nobody else can have it: {refused:?}");
    clumsy.kill()?;
    println!("bank: the clumsy teller was killed while writing");
    // Done together or not at all: the log is taken only once both have been there.
    set.operate(&[Operation::change(TELLERS, -2), Operation::take_one(LOG).undo()])?;
    println!("bank: both tellers have written:");
    print!("{}", std::fs::read_to_string(log)?);
    ended(anna)?;
    ended(bert)
}

fn teller(name: &str, set: SemaphoreSet, log: &Path) -> Outcome {
    set.operate(&[Operation::take_one(LOG).undo()])?;
    let mut file = OpenOptions::new().create(true).append(true).open(log)?;
    if name == "clumsy" {
        write!(file, "  clumsy: deposit of")?;
        set.operate(&[Operation::add_one(TELLERS)])?;
        // Waits for more than there will ever be.
        set.operate(&[Operation::change(TELLERS, -9)])?;
    }
    // Whoever comes after a dead teller finds half a line.
    if !std::fs::read(log)?.ends_with(b"\n") && file.metadata()?.len() > 0 {
        writeln!(file, " ... (cut short)")?;
    }
    writeln!(file, "  {name}: deposit of 100")?;
    set.operate(&[Operation::add_one(LOG).undo(), Operation::add_one(TELLERS)])?;
    Ok(())
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("a teller's end: {status:?}").into()),
    }
}
