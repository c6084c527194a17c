//! `demo`: see it work. The processes themselves are in the folder `demo`.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, value_parser};

use crate::demo::{self, Places, Role, Settings};

/// The arguments.
pub(crate) fn build() -> clap::Command {
    let role = |name: &'static str| Arg::new(name).long(name).hide(true).requires("role");
    clap::Command::new("demo")
        .about("See it work: processes, four transports, a kill, and a proof")
        .long_about(
            "Starts four processes: a sensor that reads how busy this machine is, a processor, a \
             dashboard and a recorder. They talk over a Unix socket, TCP, a POSIX queue and a FIFO. \
             The processor is killed with SIGKILL while messages flow, and started again. At the \
             end, another process reads the recorder's file and proves that every acknowledged \
             message arrived, and none twice without a mark.",
        )
        .after_help(
            "Examples:\n  switchboard demo\n  switchboard demo --seconds 15 --keep ./demo-files\n  \
             switchboard demo --json | jq .counts",
        )
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_name("N")
                .help("How long messages flow, in seconds: 1 to 3600")
                .default_value("8")
                .value_parser(value_parser!(u16).range(1..=3600)),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .help("Print nothing but the final report, as one JSON object")
                .action(ArgAction::SetTrue),
        )
        .arg(
            Arg::new("keep")
                .long("keep")
                .value_name("FOLDER")
                .help("Leave the recorder's file, the sensor's ledger and the dashboard's log there")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(Arg::new("role").long("role").hide(true))
        .arg(role("folder").value_parser(value_parser!(PathBuf)))
        .arg(role("queue"))
        .arg(role("recorder"))
}

/// Runs the demo, or one of its processes. Returns the exit code.
///
/// # Errors
/// Whatever keeps the demo from running to its end. What a proof disproves is exit code 1, no error.
pub(crate) fn run(arguments: &ArgMatches) -> Result<u8, Box<dyn Error>> {
    let text = |name| arguments.get_one::<String>(name).cloned();
    if let Some(name) = text("role") {
        let role = Role::parse(&name).ok_or_else(|| format!("the demo has no role {name}"))?;
        let folder = arguments.get_one::<PathBuf>("folder").ok_or("--folder is missing")?;
        let queue = text("queue").unwrap_or_default();
        let places = Places { folder: folder.clone(), queue, recorder: text("recorder") };
        return demo::play(role, &places);
    }
    let seconds = arguments.get_one::<u16>("seconds").copied().unwrap_or(8);
    let settings = Settings {
        duration: Duration::from_secs(seconds.into()),
        json: arguments.get_flag("json"),
        keep: arguments.get_one::<PathBuf>("keep").cloned(),
    };
    match demo::run(&settings) {
        // Nobody reads the output any more: there is nobody to tell.
        Err(error) if is_broken_pipe(&*error) => Ok(1),
        result => result,
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
