//! A named POSIX semaphore: two seats, three guests in processes of their own. A guest that is
//! killed on its seat does not give it back.
//!
//! Source: `sem_overview(7)`, `sem_wait(3)`.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::posix_sem::{CreateOptions, Semaphore, unlink};
use switchboard_kernel::process::{Child, Spawn};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [guest, seats, table] = &arguments[..] {
        return sit(guest, &Semaphore::open(seats)?, &Semaphore::open(table)?);
    }
    let pid = std::process::id();
    let names =
        [format!("/switchboard-example-{pid}-seats"), format!("/switchboard-example-{pid}-table")];
    let outcome = restaurant(&names);
    names.iter().try_for_each(|name| unlink(name))?;
    outcome
}

fn restaurant(names: &[String; 2]) -> Outcome {
    // Mode 0600: nobody but this user may sit down. A C program would use sem_open(name, 0).
    let seats = Semaphore::create(&names[0], &CreateOptions::new().value(2).exclusive(true))?;
    let table = Semaphore::create(&names[1], &CreateOptions::new().exclusive(true))?;
    println!("host: {} free seats behind {}", seats.value(), names[0]);

    let mut guests = [arrive("Cleo", names)?, arrive("Dora", names)?];
    table.wait()?;
    table.wait()?;
    println!("host: two sit, {} free seats", seats.value());
    match seats.wait_until(Deadline::after(Duration::from_millis(50))) {
        Err(error) => println!("host: a third has to wait: {error}"),
        Ok(()) => return Err("a seat too many".into()),
    }
    guests[0].kill()?;
    println!("host: Cleo was killed on her seat: {} free seats", seats.value());
    // Nobody is told, and nothing is given back: whoever knows of it has to post in her place.
    seats.post()?;
    let mut emil = arrive("Emil", names)?;
    table.wait()?;
    println!("host: her seat was cleared, and Emil has it: {} free seats", seats.value());
    guests[1].kill()?;
    emil.kill()?;
    Ok(())
}

fn arrive(name: &str, names: &[String; 2]) -> Result<Child, Box<dyn std::error::Error>> {
    let guest = Spawn::new(std::env::current_exe()?).arg(name).args(names).die_with_parent();
    Ok(guest.spawn()?)
}

fn sit(name: &str, seats: &Semaphore, table: &Semaphore) -> Outcome {
    seats.wait()?;
    println!("  {name} sits");
    table.post()?;
    loop {
        std::thread::park();
    }
}
