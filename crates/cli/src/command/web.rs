//! `switchboard web`: the map and its tables on a local page that follows the machine.
//!
//! Source: docs/design/map.md, "The live page".

mod feed;
mod gate;
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::json;

use self::feed::Feed;
use self::gate::Gate;
use super::map::{By, Picture, Wanted, page, random_word, request};
use super::with_examples;
use crate::exit_code::Exit;
use crate::interrupt::Interrupt;
use crate::machine::{Source, Users, process_id, say_missing};
use crate::output::{Failure, Outcome, note, print, print_json};

#[derive(Args, Debug)]
struct Arguments {
    /// Only what these processes reach; without, everything
    #[arg(value_parser = process_id)]
    pids: Vec<u32>,
    /// The port; 0 for a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The address, which must be one of this machine alone
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// How long it waits before it looks again, while somebody has the page open
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// What makes a group
    #[arg(long, value_enum, default_value_t = By::Tree)]
    group: By,
    /// So many steps away from PID at most
    #[arg(long, value_name = "STEPS", requires = "pids")]
    depth: Option<usize>,
    #[command(flatten)]
    source: Source,
}

pub(super) fn build() -> clap::Command {
    let command = Arguments::augment_args(clap::Command::new("web"));
    with_examples(
        command.about(
            "Serve the live map on a local page: who talks to whom, what is stuck, what leaks",
        ),
        "  switchboard web
  switchboard web --port 8011 --interval 5s
  switchboard web --json | jq -r .url",
    )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let arguments = Arguments::from_arg_matches(matches)?;
    if !arguments.bind.is_loopback() {
        let message = format!("{}: not an address of this machine alone", arguments.bind);
        return Err(Failure::new(Exit::Refused, message).hint(
            "the page shows every process; from another machine, use ssh -L PORT:127.0.0.1:PORT",
        ));
    }
    // Later on, those that have ended are shown no more; at first, it is a mistake.
    let is_gone = |pid: &&u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    if let Some(gone) = arguments.pids.iter().find(is_gone).filter(|_| arguments.source.is_live()) {
        return Err(Failure::new(Exit::Nothing, format!("no process {gone}")));
    }
    let interrupt = Interrupt::watch(None)?;
    let wanted = Wanted { pids: arguments.pids, depth: arguments.depth, by: arguments.group };
    let users = Users::of(&arguments.source);
    let feed = if arguments.source.is_live() {
        Feed::new(arguments.interval, move || look(&wanted, &users))
    } else {
        let picture = Picture::new(arguments.source.snapshot(&request())?, &wanted, &users)?;
        say_missing(&picture.snapshot.coverage);
        Feed::of_one(&page::json(&picture, &users, false))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot wait for clients: {error}")))?;
    let address = SocketAddr::new(arguments.bind, arguments.port);
    let ended = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener.map_err(|error| unbound(address, &error))?;
        let bound = listener.local_addr().map_err(|error| unbound(address, &error))?;
        let gate = Gate::new(&random_word()?, bound);
        let url = gate.url();
        if arguments.source.json {
            print_json(
                &json!({ "url": url, "address": bound.to_string(), "pid": std::process::id() }),
            )?;
        } else {
            print(&format!("{url}\n"))?;
            note("open that page; whoever has the address sees it; Ctrl-C ends it");
        }
        server::serve(listener, Arc::new(gate), Arc::new(feed), interrupt.cancel()).await
    });
    // A look that is under way is not waited for.
    runtime.shutdown_background();
    ended.map(|()| Exit::Done)
}

/// What the page shows now, as JSON; or why it cannot be shown.
fn look(wanted: &Wanted, users: &Users) -> Option<String> {
    let snapshot = request().take();
    // Those that have ended are asked for no more; when all have, there is nothing to show but that.
    let mut wanted = wanted.clone();
    let named = !wanted.pids.is_empty();
    wanted.pids.retain(|&pid| snapshot.process(pid).is_some());
    if named && wanted.pids.is_empty() {
        return None;
    }
    let picture = Picture::new(snapshot, &wanted, users).ok()?;
    Some(page::json(&picture, users, true))
}

fn unbound(address: SocketAddr, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Exit::Refused,
        _ => Exit::Failed,
    };
    let failure = Failure::new(exit, format!("{address}: {error}"));
    match error.kind() {
        std::io::ErrorKind::AddrInUse => failure.hint("--port 0 finds a free one"),
        std::io::ErrorKind::PermissionDenied => failure.hint("take a port from 1024 on"),
        _ => failure,
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&time) {
        Ok(time)
    } else {
        Err("from 100ms to 1day".to_owned())
    }
}
