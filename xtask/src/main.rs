//! Repository tasks: `cargo xtask test`, `tidy`, `ci`, `prove`, `gallery`, `screenshots`.
//!
//! Source: the xtask convention (a workspace member that plays the makefile).

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bounded;
mod ci;
mod executables;
mod gallery;
mod kills;
mod leftovers;
mod libtest;
mod ordinary_user;
mod prepare;
mod prove;
mod screenshots;
mod show;
mod stage;
mod tally;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use tally::Tally;
use workspace::Workspace;

const HELP: &str = "\
Tasks of this repository.

Usage: cargo xtask COMMAND

Commands:
  test [FILTER]   Install what the tests need, then run every check: the house rules, each test
                  executable as this user and, when this is root, as an ordinary user too (but for
                  the models, which are the same for everybody), the documentation's examples, and
                  that nothing was left behind.
                  With FILTER: only tests whose names contain it; no house rules, no examples.
    --no-install  Install nothing; say what is missing.
  tidy            Check the house rules only.
  ci              `test`, then formatting, clippy, documentation and the size of the dependency tree.
    --no-install  As above.
  prove kill [FILTER]
                  Kill processes at every instruction boundary of what the `killstep` tests do, where
                  `test` kills only where something changed; count and add up. Takes minutes to hours.
                  With FILTER: only tests whose names contain it too.
    --release     Optimised code, as users get it.
  prove torture [FILTER]
                  Let processes work at all synchronisation objects, and talk over shared memory, and kill or
                  stop them at random, while they check each other; count, and say who waited longest.
                  With FILTER: only tests whose names contain it too: `shm`.
    --seconds N   Each for so long; 600 unless said otherwise.
    --release     As above.
  prove models [FILTER]
                  Run the loom models of the synchronisation objects and of shared memory with wide bounds, then
                  make each of a list of mistakes in a copy, and see that the models notice. Takes minutes
                  to hours.
                  With FILTER: only models whose names contain it.
    --mistakes    Only the mistakes. Takes some minutes.
  prove hostile [FILTER]
                  Let peers lie in each way that they can, and write at random into all memory that they can
                  write, while others talk and are not to notice.
                  With FILTER: only tests whose names contain it too.
    --seconds N   At random for so long, each kind of peer; 60 unless said otherwise.
    --release     As above.
  prove fuzz-inspect
                  Let every parser of the inspector read what is made at random of what the kernel says, and of what
                  processes have in their memory.
    --seconds N   For so long each parser (some 35 of them), as many at once as there are processors; 60
                  unless said otherwise.
    --total-seconds N
                  For so long all of them together, each for its part.
    --release     As above.
  prove event [FILTER], prove state [FILTER]
                  Let two processes wake each other over shared memory, and see that no wake-up is lost; read
                  values while their writer sets as fast as it can: none is torn.
    --seconds N   Each test for so long; 60 unless said otherwise.
    --release     As above.
  prove top       Measure what `switchboard top` costs with 150 processes to look at, and whether it grows.
    --seconds N   For so long; 600 unless said otherwise.
    --release     As above; without it the bounds are wide.
  prove clean     Let processes make, use, pass and abandon objects at random in namespaces of their own, while `switchboard clean`
                  runs against them: nothing in use goes, and what went comes back the same.
    --rounds N    So many rounds; 1000 unless said otherwise. Six at a time, some four seconds each.
    --release     As above.
  prove asan      Run what `hostile` does, in short, and what queues and topics promise under AddressSanitizer; then a
                  test that reads beyond its memory, which has to be noticed. Takes some minutes.
  prove tsan      Run threads on all synchronisation objects under ThreadSanitizer; then one that forgets
                  to lock, which has to be noticed. Takes some minutes.
  gallery [NAME]  Start a situation of the gallery by hand, and keep it until Enter: processes that wait for
                  each other, or merely look so. Without NAME: list them.

  screenshots     Make the pictures of `map`, `web` and `top` in docs/ anew, in chromium and tmux, of processes that
                  this starts.

The last line says how it went: N passed, N failed, N skipped. Exit code 1 if anything failed, or,
with CI=true in the environment, if anything was skipped. 2: wrong usage.

Examples:
  cargo xtask test
  cargo xtask test --no-install fifo
";

enum Task {
    Help,
    Test(test::Options),
    Tidy,
    Ci(test::Options),
    Gallery(Option<String>),
    Screenshots,
    Prove(prove::Options),
    ProveAsan,
    ProveModels(prove::models::Options),
    ProveTsan,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let task = match parse(&arguments) {
        Ok(Task::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Task::Gallery(name)) => return gallery::run(name.as_deref()),
        Ok(task) => task,
        Err(message) => {
            eprintln!("xtask: {message}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    switchboard_testkit::signals::restore_defaults();
    let mut tally = Tally::default();
    match Workspace::find() {
        Err(message) => tally.fail("the workspace", &message),
        Ok(workspace) => match task {
            Task::Test(options) => test::run(&workspace, &options, &mut tally),
            Task::Ci(options) => ci::run(&workspace, &options, &mut tally),
            Task::Prove(options) => prove::run(&workspace, &options, &mut tally),
            Task::ProveModels(options) => {
                prove::models::run(&workspace, &options, &mut tally);
            }
            Task::ProveAsan => prove::asan::run(&workspace, &mut tally),
            Task::ProveTsan => prove::tsan::run(&workspace, &mut tally),
            Task::Tidy => run_tidy(&workspace, &mut tally),
            Task::Screenshots => screenshots::run(&workspace, &mut tally),
            Task::Help | Task::Gallery(_) => {}
        },
    }
    tally.finish(std::env::var("CI").is_ok_and(|ci| ci == "true"))
}

fn run_tidy(workspace: &Workspace, tally: &mut Tally) {
    match tidy::Tree::read(&workspace.root) {
        Ok(tree) => test::tidy_each(&tree, tally),
        Err(error) => tally.fail("tidy", &format!("cannot read the files: {error}")),
    }
}

fn parse(arguments: &[String]) -> Result<Task, String> {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        return Ok(Task::Help);
    }
    let Some((command, rest)) = arguments.split_first() else {
        return Err("which task?".to_owned());
    };
    if command == "prove" {
        return parse_prove(rest);
    }
    if command == "gallery" {
        return match rest {
            [] => Ok(Task::Gallery(None)),
            [name] if !name.starts_with('-') => Ok(Task::Gallery(Some(name.clone()))),
            _ => Err("`gallery` takes one name".to_owned()),
        };
    }
    let mut options = test::Options::default();
    for argument in rest {
        match argument.as_str() {
            "--no-install" if matches!(command.as_str(), "test" | "ci") => {
                options.no_install = true
            }
            filter if command == "test" && !filter.starts_with('-') => {
                if options.filter.replace(filter.to_owned()).is_some() {
                    return Err("one filter at most".to_owned());
                }
            }
            other => return Err(format!("`{command}` takes no `{other}`")),
        }
    }
    match command.as_str() {
        "help" => Ok(Task::Help),
        "test" => Ok(Task::Test(options)),
        "tidy" => Ok(Task::Tidy),
        "screenshots" => Ok(Task::Screenshots),
        "ci" => Ok(Task::Ci(options)),
        other => Err(format!("no task `{other}`")),
    }
}

fn parse_prove(arguments: &[String]) -> Result<Task, String> {
    const WHAT: &str = "`kill`, `torture`, `hostile`, `fuzz-inspect`, `event`, `state`, `top`, `clean`, `models`, `asan` or `tsan`";
    let Some((name, rest)) = arguments.split_first() else {
        return Err(format!("prove what? {WHAT}"));
    };
    let mut options = prove::Options::default();
    let mut mistakes = false;
    match name.as_str() {
        "kill" | "models" | "asan" | "tsan" => {}
        "torture" => options.what = prove::What::Torture { seconds: 600 },
        "hostile" => options.what = prove::What::Hostile { seconds: 60 },
        "fuzz-inspect" => options.what = prove::What::FuzzInspect { seconds: 60, together: false },
        "event" => options.what = prove::What::Event { seconds: 60 },
        "state" => options.what = prove::What::State { seconds: 60 },
        "top" => options.what = prove::What::Top { seconds: 600 },
        "clean" => options.what = prove::What::Clean { rounds: 1000 },
        _ => return Err(format!("cannot prove `{name}`, only {WHAT}")),
    }
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        match (argument.as_str(), name.as_str(), &mut options.what) {
            (
                "--release",
                "kill" | "torture" | "hostile" | "fuzz-inspect" | "event" | "state" | "top"
                | "clean",
                _,
            ) => options.release = true,
            ("--mistakes", "models", _) => mistakes = true,
            (
                "--seconds",
                _,
                prove::What::Torture { seconds }
                | prove::What::Hostile { seconds }
                | prove::What::FuzzInspect { seconds, .. }
                | prove::What::Event { seconds }
                | prove::What::State { seconds }
                | prove::What::Top { seconds },
            ) => {
                *seconds = seconds_of(argument, rest.next())?;
            }
            ("--total-seconds", _, prove::What::FuzzInspect { seconds, together }) => {
                *seconds = seconds_of(argument, rest.next())?;
                *together = true;
            }
            ("--rounds", _, prove::What::Clean { rounds }) => {
                let number = rest.next().and_then(|number| number.parse().ok());
                let number = number.filter(|number| (1..=1_000_000).contains(number));
                *rounds = number.ok_or("--rounds takes a number from 1 to 1000000")?;
            }
            (filter, "kill" | "torture" | "hostile" | "event" | "state" | "models", _)
                if !filter.starts_with('-') && options.filter.is_none() =>
            {
                options.filter = Some(filter.to_owned());
            }
            (other, ..) => return Err(format!("`prove {name}` takes no `{other}`")),
        }
    }
    Ok(match name.as_str() {
        "models" => Task::ProveModels(prove::models::Options { mistakes, filter: options.filter }),
        "asan" => Task::ProveAsan,
        "tsan" => Task::ProveTsan,
        _ => Task::Prove(options),
    })
}

fn seconds_of(argument: &str, number: Option<&String>) -> Result<u32, String> {
    let number = number.and_then(|number| number.parse().ok());
    let number = number.filter(|number| (1..=86_400).contains(number));
    number.ok_or_else(|| format!("{argument} takes a number from 1 to 86400"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn reads_the_command_line() {
        assert!(matches!(parsed("test"), Ok(Task::Test(o)) if !o.no_install && o.filter.is_none()));
        assert!(matches!(
            parsed("test --no-install fifo"),
            Ok(Task::Test(o)) if o.no_install && o.filter.as_deref() == Some("fifo")
        ));
        assert!(matches!(parsed("ci --no-install"), Ok(Task::Ci(o)) if o.no_install));
        assert!(matches!(parsed("tidy"), Ok(Task::Tidy)));
        assert!(matches!(parsed("screenshots"), Ok(Task::Screenshots)));
        assert!(matches!(parsed("gallery"), Ok(Task::Gallery(None))));
        assert!(matches!(parsed("gallery x"), Ok(Task::Gallery(Some(name))) if name == "x"));
        assert!(matches!(parsed("tidy --help"), Ok(Task::Help)));
        assert!(matches!(
            parsed("prove kill --release mutex"),
            Ok(Task::Prove(o)) if o.release && o.filter.as_deref() == Some("mutex")
        ));
        assert!(matches!(
            parsed("prove torture --seconds 20"),
            Ok(Task::Prove(o)) if o.what == prove::What::Torture { seconds: 20 }
        ));
        assert!(matches!(
            parsed("prove hostile scribble --seconds 5"),
            Ok(Task::Prove(o)) if o.what == prove::What::Hostile { seconds: 5 }
                && o.filter.as_deref() == Some("scribble")
        ));
        assert!(matches!(
            parsed("prove fuzz-inspect --seconds 9"),
            Ok(Task::Prove(o)) if o.what == prove::What::FuzzInspect { seconds: 9, together: false }
        ));
        assert!(matches!(
            parsed("prove fuzz-inspect --release --total-seconds 600"),
            Ok(Task::Prove(o)) if o.what == prove::What::FuzzInspect { seconds: 600, together: true }
        ));
        assert!(matches!(
            parsed("prove clean --rounds 20 --release"),
            Ok(Task::Prove(o)) if o.what == prove::What::Clean { rounds: 20 } && o.release
        ));
        assert!(matches!(parsed("prove asan"), Ok(Task::ProveAsan)));
        assert!(matches!(
            parsed("prove torture shm --seconds 20"),
            Ok(Task::Prove(o)) if o.filter.as_deref() == Some("shm")
        ));
        assert!(matches!(
            parsed("prove models --mistakes bell"),
            Ok(Task::ProveModels(o)) if o.mistakes && o.filter.as_deref() == Some("bell")
        ));
        for wrong in [
            "gallery a b",
            "prove",
            "prove life",
            "prove kill a b",
            "prove kill --fast",
            "prove kill --seconds 3",
            "prove models --release",
            "prove tsan bell",
            "prove asan bell",
            "prove hostile --seconds 0",
            "prove fuzz-inspect maps",
            "prove fuzz-inspect --total-seconds 0",
            "prove hostile --total-seconds 60",
            "prove torture mutex bell",
            "prove clean --seconds 5",
            "prove clean --rounds 0",
            "prove torture --seconds 0",
            "prove torture --seconds",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "",
            "tset",
            "test a b",
            "test --fast",
            "tidy x",
            "screenshots x",
            "tidy --no-install",
            "ci fifo",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
