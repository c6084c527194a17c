//! The command `switchboard`: reads the command line, runs one command, ends with its exit code.

#![forbid(unsafe_code)]

mod columns;
mod command;
mod demo;
mod endpoint;
mod exit_code;
mod format;
mod interrupt;
mod machine;
mod new_file;
mod output;
mod program;
mod progress;
mod standard_streams;
mod subject;
mod value;

use std::process::ExitCode;

use exit_code::Exit;

fn main() -> ExitCode {
    // A limit on files is an error like others.
    switchboard_kernel::io::ignore_sigxfsz();
    let matches = match command::root().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // Whoever asked for help and closed the pipe has seen enough.
            let _ = error.print();
            return exit.into();
        }
    };
    match command::run(&matches) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit().into()
        }
    }
}
