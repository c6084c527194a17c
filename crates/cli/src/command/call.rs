//! `switchboard call ADDRESS [REQUEST]`: asks a service, and prints the reply.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Value as Json, json};
use switchboard::{
    Address, Bytes, CallError, Client, Code, Options, Progress, Replies, Service, Status,
};

use super::{set::read_all, with_examples};
use crate::endpoint;
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::output::{self, Failure, Outcome, print_bytes, print_json};
use crate::standard_streams::require_stdout;
use crate::value::bytes_as_json;

#[derive(Args, Debug)]
struct Arguments {
    /// Whom to ask, as unix:./jobs.sock; `switchboard transports` lists the schemes
    address: String,
    /// The request; standard input if there is none
    request: Option<OsString>,
    /// Give up when the reply is not there by then, as 500ms or 2s (exit 3); the server is told
    #[arg(long, value_name = "DURATION", value_parser = endpoint::duration)]
    timeout: Option<Duration>,
    /// Fail at once when no server is there (exit 3)
    #[arg(long)]
    no_wait: bool,
    /// Print the reply, or why there is none, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn build() -> clap::Command {
    let schemes = endpoint::schemes(|row| row.patterns().contains(&"service"));
    let command = Arguments::augment_args(clap::Command::new("call"));
    with_examples(
        command.about("Ask a service, and print the reply").long_about(format!(
            "Ask a service, and print the reply byte for byte; one in parts as they come.\n\nServices are \
             carried by {schemes}. It waits for a server to appear. When the server dies, it says at once \
             what is known: the call was not started, or whether it was done is not known.",
        )),
        "  switchboard call unix:./upper.sock hello
  switchboard call --timeout 2s tcp:127.0.0.1:7000 < request
  switchboard call --json unix:./jobs.sock '{\"job\":7}'",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    let address: Address = arguments.address.parse()?;
    require_stdout()?;
    let interrupt = Interrupt::watch_output()?;
    let request = match &arguments.request {
        Some(request) => request.clone().into_vec(),
        None => read_all(&address, &interrupt, "a request", "nothing was asked")?,
    };
    let options =
        Options::default().wait_for_peer(!arguments.no_wait).cancel(Some(interrupt.cancel()));
    let client = Service::<Bytes, Bytes>::at(address.clone(), options).client()?;
    let asking = Asking { address: &address, json: arguments.json, interrupt: &interrupt };
    let since = Instant::now();
    let replies = match (arguments.timeout, arguments.no_wait) {
        (timeout, true) => asking.at_once(&client, &Bytes(request), timeout),
        (Some(timeout), false) => client.start_timeout(&Bytes(request), timeout),
        (None, false) => asking.wait(&client, &Bytes(request)),
    };
    match replies {
        Ok(pending) => asking.print(pending.into_replies(), since),
        Err(error) => asking.failed(error, &[]),
    }
}

type Pending<'a> = switchboard::Pending<'a, Bytes, Bytes>;

struct Asking<'a> {
    address: &'a Address,
    json: bool,
    interrupt: &'a Interrupt,
}

/// How long a terminal sees nothing before it is told what is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a server that is there may take to say who it is.
const GREETING: Duration = Duration::from_secs(1);

impl Asking<'_> {
    /// Waits for a server, and says so to a terminal.
    fn wait<'c>(
        &self,
        client: &'c Client<Bytes, Bytes>,
        request: &Bytes,
    ) -> Result<Pending<'c>, CallError> {
        if output::is_watched() {
            match client.wait_for_peers(1, Some(PATIENCE)) {
                Err(CallError::TimedOut { .. }) => {
                    output::note(&format!("waiting for a server at {}", self.address));
                }
                other => other?,
            }
        }
        client.start(request)
    }

    /// Makes the call if a server is there.
    fn at_once<'c>(
        &self,
        client: &'c Client<Bytes, Bytes>,
        request: &Bytes,
        timeout: Option<Duration>,
    ) -> Result<Pending<'c>, CallError> {
        client.wait_for_peers(1, Some(GREETING))?;
        match timeout {
            Some(timeout) => client.start_timeout(request, timeout),
            None => client.start(request),
        }
    }

    /// Prints the parts as they come; as JSON all of them at the end.
    fn print(&self, replies: Replies<'_, Bytes, Bytes>, since: Instant) -> Outcome {
        let mut parts = Vec::new();
        for part in replies {
            match part {
                Ok(part) if self.json => parts.push(bytes_as_json(&part)),
                Ok(part) => print_bytes(&part)?,
                Err(error) => return self.failed(error, &parts),
            }
        }
        if self.json {
            let milliseconds = since.elapsed().as_secs_f64() * 1000.0;
            let address = self.address.as_str();
            print_json(
                &json!({ "address": address, "replies": parts, "milliseconds": milliseconds }),
            )?;
        }
        Ok(Exit::Done)
    }

    fn failed(&self, error: CallError, parts: &[Json]) -> Outcome {
        if let CallError::Interrupted = error {
            return Err(self.interrupt.failure("whether the call was done is not known"));
        }
        let address = self.address.as_str();
        if self.json {
            let mut said =
                json!({ "address": address, "error": output::shown(&error.to_string()) });
            if !parts.is_empty() {
                said["replies"] = parts.into();
            }
            if let CallError::Status(status) = &error {
                said["status"] = status_as_json(status);
            }
            if let Some(progress) = progress_of(&error) {
                said["progress"] = progress.into();
            }
            print_json(&said)?;
        }
        let exit = match &error {
            CallError::TimedOut { .. } | CallError::Full => Exit::Nothing,
            CallError::Status(status) => exit_of(status.code),
            CallError::Failed(_) | CallError::Interrupted => {
                if let CallError::Failed(error) = error {
                    return Err(error.into());
                }
                Exit::Failed
            }
            _ => Exit::Failed,
        };
        Err(Failure::new(exit, format!("{address}: {}", output::shown(&error.to_string()))))
    }
}

fn exit_of(code: Code) -> Exit {
    match code {
        Code::DeadlineExceeded => Exit::Nothing,
        Code::PermissionDenied | Code::Unauthenticated => Exit::Refused,
        _ => Exit::Failed,
    }
}

fn status_as_json(status: &Status) -> Json {
    json!({
        "code": status.code.name(),
        "message": status.message,
        "details": bytes_as_json(&status.details),
    })
}

fn progress_of(error: &CallError) -> Option<&'static str> {
    let progress = match error {
        CallError::TimedOut { progress }
        | CallError::ServerGone { progress, .. }
        | CallError::PeerMisbehaved { progress, .. } => progress,
        _ => return None,
    };
    Some(match progress {
        Progress::NotStarted => "not-started",
        Progress::Unknown => "unknown",
    })
}
