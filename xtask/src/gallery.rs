//! `cargo xtask gallery [NAME]`: a situation of the gallery, started by hand.
//!
//! Source: docs/design/inspect.md, "The gallery".

use std::process::ExitCode;

use switchboard_testkit::gallery;

/// Lists the situations, or keeps one until Enter.
pub(crate) fn run(name: Option<&str>) -> ExitCode {
    let Some(name) = name else {
        for situation in gallery::all() {
            println!("{:<34}  {}", situation.name, situation.tells);
        }
        for one in gallery::left::all() {
            println!("{:<34}  {}", one.name, one.tells);
        }
        return ExitCode::SUCCESS;
    };
    let situation = gallery::all().find(|one| one.name == name).map(|one| one.tells);
    let left = gallery::left::all().find(|one| one.name == name).map(|one| one.tells);
    let Some(tells) = situation.or(left) else {
        eprintln!("xtask: no situation `{name}`; `cargo xtask gallery` lists them");
        return ExitCode::from(2);
    };
    let looks =
        if left.is_some() { "switchboard leaks --all --young 0s" } else { "switchboard deadlocks" };
    println!("{tells}");
    gallery::keep(name, |line| {
        if line == "ready" {
            println!("Enter ends it. Look: {looks}");
        } else {
            println!("{line}");
        }
    });
    ExitCode::SUCCESS
}
