//! `leaks -- COMMAND`: runs it below a subreaper, looks before and after, and says what it and its children left.
//!
//! Source: docs/design/leaks.md; `PR_SET_CHILD_SUBREAPER(2const)`, `signalfd(2)`. What descends from the command stays below this process, daemons
//! too, until this process ends.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use switchboard_inspect::analysis::left::{Left, Run, left};
use switchboard_inspect::{Process, Request, Snapshot};
use switchboard_kernel as kernel;
use switchboard_kernel::io::{self, Deadline, Interest};
use switchboard_kernel::process::{Child, Spawn, descendants, reap_orphans, set_child_subreaper};
use switchboard_kernel::signal::{self, Code, Signal, SignalSet};
use switchboard_kernel::signalfd::SignalFd;

use super::{Arguments, KINDS, Wanted, looked_in, looked_in_as_json};
use crate::exit_code::Exit;
use crate::machine::{Users, say_missing};
use crate::output::{Failure, Outcome, counted, note, print_json, system};
use crate::program::{must_be_there, name_of};
use crate::standard_streams::require_stdout;

/// How often is looked who descends from the command: whoever lives for less is known only if it becomes an orphan.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(super) fn run(arguments: &Arguments) -> Outcome {
    must_be_there(&arguments.command)?;
    if !arguments.source.is_live() {
        return Err(Failure::new(Exit::Usage, "a command is run on the live machine, not --from"));
    }
    super::must_be_folders(&arguments.folders)?;
    let users = Users::of(&arguments.source);
    let wanted = Wanted::new(arguments, &users)?;
    if arguments.source.json {
        // The report goes there.
        require_stdout()?;
    }
    let request = Request::everything().leaks(&arguments.folders);
    let before = request.take();
    let cannot = |error| system("cannot watch the command", error);
    set_child_subreaper(true).map_err(cannot)?;
    let signals = Signals::take_over().map_err(cannot)?;
    let mut run = Run { began_unix_ms: unix_ms(), ..Run::default() };
    let [program, words @ ..] = &arguments.command[..] else { return Ok(Exit::Done) };
    let mut spawn = Spawn::new(program).args(words).die_with_parent();
    if arguments.source.json {
        // Nothing but the report is on standard output.
        let stderr = io::duplicate(std::io::stderr());
        spawn = spawn.stdout(stderr.map_err(|error| system("standard error", error))?);
    }
    let mut child = spawn
        .spawn()
        .map_err(|error| system(&format!("cannot run {}", name_of(&arguments.command)), error))?;
    run.processes.insert(child.id());
    let status = signals.until_end(&mut child, &mut run.processes).map_err(cannot)?;
    let after_it = Deadline::after(arguments.wait);
    signals.until_alone(after_it, &mut run.processes).map_err(cannot)?;
    let after = request.take();
    let children = still_running(&after);
    run.processes.extend(children.iter().map(|one| one.pid));
    let mut found = left(&before, &after, &run);
    found.retain(|one| wanted.has(&after, one.kind, &one.object));
    say_missing(&after.coverage);
    if arguments.source.json {
        print_json(&json!({
            "coverage": after.coverage,
            "looked_in": looked_in_as_json(&after.coverage),
            "exit_code": code_of(status),
            "objects": found,
            "processes": children.iter().map(|one| as_json(one)).collect::<Vec<_>>(),
        }))?;
    } else {
        report(&after, &found, &children, arguments);
    }
    let clean = found.is_empty() && children.is_empty();
    Ok(if clean { Exit::Given(code_of(status)) } else { Exit::Found })
}

/// Those of the run that have not ended.
fn still_running(after: &Snapshot) -> Vec<&Process> {
    let mut below = BTreeSet::from([std::process::id()]);
    loop {
        let more: Vec<u32> = after
            .processes
            .iter()
            .filter(|one| below.contains(&one.parent) && !below.contains(&one.pid))
            .map(|one| one.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        below.extend(more);
    }
    let own = std::process::id();
    let all = after.processes.iter().filter(|one| one.pid != own && below.contains(&one.pid));
    all.filter(|one| !one.is_zombie()).collect()
}

fn as_json(process: &Process) -> serde_json::Value {
    json!({
        "pid": process.pid,
        "started_ticks": process.started_ticks,
        "name": process.name,
        "command": process.command,
        "state": process.state,
    })
}

fn report(after: &Snapshot, found: &[Left], children: &[&Process], arguments: &Arguments) {
    let name = name_of(&arguments.command);
    if found.is_empty() && children.is_empty() {
        let told = if after.coverage.missing.is_empty() { "" } else { ", as far as can be told" };
        let kinds: Vec<&str> = match arguments.kinds.as_slice() {
            [] => KINDS.iter().map(|kind| kind.name()).collect(),
            kinds => kinds.iter().map(|kind| kind.name()).collect(),
        };
        let only = [("name", &arguments.name), ("user", &arguments.user)];
        let only = only.iter().filter_map(|(how, of)| Some(format!(", --{how} {}", of.as_ref()?)));
        let only: String = only.collect();
        note(&format!(
            "{name} left nothing behind{told}: no process, and of {}{only}",
            kinds.join(", ")
        ));
        note(&looked_in(&after.coverage));
        return;
    }
    let objects = counted(u64::try_from(found.len()).unwrap_or(u64::MAX), "object");
    let running = match children.len() {
        0 => "none of its children runs any more".to_owned(),
        1 => "1 of its children still runs".to_owned(),
        many => format!("{many} of its children still run"),
    };
    note(&format!("{name} left {objects} behind, and {running}"));
    for one in children {
        let command = one.command.join(" ");
        note(&format!("running {}: {command}", one.label()));
    }
    for one in found {
        let sure = if one.sure { "left" } else { "probably left" };
        let names: String = one.names.iter().map(|name| format!(": {name}")).collect();
        note(&format!("{sure} {}{names}", one.object));
        for reason in &one.reasons {
            note(&format!("  {reason}"));
        }
    }
    let by_time = found.iter().filter(|one| !one.sure).count();
    if by_time > 0 {
        note(&format!(
            "{by_time} of these are told by time and user alone: another program of this user may have made them meanwhile"
        ));
    }
    note(&looked_in(&after.coverage));
}

/// The exit code of a command, as a shell has it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The signals that are passed on, and SIGCHLD.
struct Signals(SignalFd);

impl Signals {
    fn take_over() -> kernel::Result<Self> {
        let heeded = |signal: &Signal| !signal::is_ignored(*signal).unwrap_or(false);
        let passed =
            [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
        let set = passed.into_iter().filter(heeded).fold(SignalSet::empty(), SignalSet::with);
        let set = set.with(Signal::CHILD);
        let fd = SignalFd::new(&set)?;
        // The command is started with none blocked.
        signal::block(&set)?.keep();
        Ok(Self(fd))
    }

    /// Waits for the end of the command, passes signals on, and takes note of who descends from it.
    fn until_end(
        &self,
        child: &mut Child,
        known: &mut BTreeSet<u32>,
    ) -> kernel::Result<ExitStatus> {
        loop {
            let both = [(child.pidfd(), Interest::Readable), (self.0.as_fd(), Interest::Readable)];
            let [ended, _] = io::poll(both, Deadline::after(LOOK_AGAIN))?;
            self.adopt(&[child.id()], known)?;
            if ended.any()
                && let Some(status) = child.wait(Deadline::NEVER)?
            {
                return Ok(status);
            }
            while let Some(received) = self.0.try_next()? {
                // Those of the terminal it gets itself, for it is in this process's group.
                if received.signal != Signal::CHILD && !matches!(received.code, Code::Kernel(_)) {
                    // If it has ended meanwhile, the next look says so.
                    let _ = child.signal(received.signal);
                }
            }
        }
    }

    /// Waits until nothing is left that descends from it, or the time is over, or a signal comes.
    fn until_alone(&self, deadline: Deadline, known: &mut BTreeSet<u32>) -> kernel::Result<()> {
        loop {
            self.adopt(&[], known)?;
            let all = descendants(std::process::id())?;
            known.extend(all.iter().map(|one| one.id));
            if all.iter().all(|one| one.state == 'Z') || deadline.passed() {
                return Ok(());
            }
            let soon = deadline.min(Deadline::after(LOOK_AGAIN));
            if let Some(received) = self.0.next(soon)?
                && received.signal != Signal::CHILD
            {
                return Ok(());
            }
        }
    }

    /// Reaps orphans that have ended, and knows them and those that have not.
    fn adopt(&self, own: &[u32], known: &mut BTreeSet<u32>) -> kernel::Result<()> {
        known.extend(reap_orphans(own)?.iter().map(|(pid, _)| *pid));
        known.extend(descendants(std::process::id())?.iter().map(|one| one.id));
        Ok(())
    }
}
