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
        return ExitCode::SUCCESS;
    };
    let Some(situation) = gallery::all().find(|one| one.name == name) else {
        eprintln!("xtask: no situation `{name}`; `cargo xtask gallery` lists them");
        return ExitCode::from(2);
    };
    println!("{}", situation.tells);
    gallery::keep(name, |line| {
        let line =
            if line == "ready" { "Enter ends it. Look: switchboard deadlocks" } else { line };
        println!("{line}");
    });
    ExitCode::SUCCESS
}
