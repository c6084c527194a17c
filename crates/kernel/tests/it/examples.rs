//! Every program of `examples` runs by itself, says something, and leaves nothing behind.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use switchboard_kernel::posix_mq;
use switchboard_testkit::{Child, DEADLINE, Scratch};

/// Names the run of an example in the environment of its processes.
const MARK: &str = "SWITCHBOARD_EXAMPLE_RUN";

#[test]
fn every_example_runs_and_cleans_up() {
    let failures: Vec<String> = names()
        .iter()
        .filter_map(|name| run(name).err().map(|why| format!("{name}: {why}")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The examples that have a source, so that none is missed that was not built.
fn names() -> BTreeSet<String> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo");
    let sources = std::fs::read_dir(Path::new(&package).join("examples")).expect("the examples");
    let names: BTreeSet<String> = sources
        .flatten()
        .map(|source| source.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| path.file_stem()?.to_str().map(str::to_owned))
        .collect();
    assert!(!names.is_empty(), "no example there");
    names
}

/// Where Cargo puts the examples, or a copy of them for a user who cannot read there.
fn folder() -> PathBuf {
    std::env::var_os("SWITCHBOARD_EXAMPLES").map_or_else(
        || {
            let own = std::env::current_exe().expect("this program's path");
            let profile = own.parent().and_then(Path::parent).expect("Cargo's folders");
            profile.join("examples")
        },
        PathBuf::from,
    )
}

fn run(name: &str) -> Result<(), String> {
    let program = folder().join(name);
    if !program.is_file() {
        return Err(format!(
            "no {}; build it: cargo build -p switchboard-kernel --examples",
            program.display()
        ));
    }
    let scratch = Scratch::new();
    // As in /tmp, other users may pass, so that modes of what an example makes matter.
    std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).expect("a mode");
    let mut command = Command::new(program);
    command.env(MARK, scratch.path()).current_dir(scratch.path());
    for folder in ["TMPDIR", "XDG_RUNTIME_DIR"] {
        command.env(folder, scratch.path());
    }
    switchboard_testkit::skip::say(&format!("example {name}"));
    let mut child = Child::command(command);
    drop(child.stdin());
    let lines = child.remaining_lines();
    let status = child.wait();
    if !status.success() {
        return Err(format!("{status} after saying:\n{}", lines.join("\n")));
    }
    if lines.iter().all(|line| line.trim().is_empty()) {
        return Err("says nothing".to_owned());
    }
    nothing_left(child.id(), scratch.path())
}

/// A process that was killed is not gone at once, so everything has a while to go away.
fn nothing_left(pid: u32, scratch: &Path) -> Result<(), String> {
    const LOOK_AGAIN: Duration = Duration::from_millis(20);
    let until = Instant::now() + DEADLINE;
    loop {
        let left = left_behind(pid, scratch);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(format!("left behind: {}", left.join(", ")));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// What can be told to be of this example, while other tests make and remove things of their own:
/// its processes by their environment, names by its process id, System V objects by their user's.
fn left_behind(pid: u32, scratch: &Path) -> Vec<String> {
    let mut left = processes(scratch);
    left.extend(entries(scratch).iter().map(|name| format!("file {}", name.display())));
    let pid_text = pid.to_string();
    for folder in ["/dev/shm", "/dev/mqueue"] {
        let names = entries(Path::new(folder));
        let named = names.iter().map(|name| name.to_string_lossy());
        left.extend(
            named
                .filter(|name| name.split(|c: char| !c.is_ascii_digit()).any(|n| n == pid_text))
                .map(|name| format!("{folder}/{name}")),
        );
    }
    // Where nothing is mounted, only a name that is known can be looked for.
    if posix_mq::unlink(&format!("/switchboard-example-{pid}")).is_ok() {
        left.push(format!("POSIX queue /switchboard-example-{pid}"));
    }
    for (kind, columns) in [("shm", ["cpid", "lpid"]), ("msg", ["lspid", "lrpid"])] {
        let table = std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
        left.extend(
            system_v(&table, &columns, &pid_text).map(|id| format!("System V {kind} {id}")),
        );
    }
    left
}

fn processes(scratch: &Path) -> Vec<String> {
    let mut mark = OsString::from(format!("{MARK}="));
    mark.push(scratch);
    let pids = entries(Path::new("/proc"));
    let pids = pids.iter().filter_map(|name| name.to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_encoded_bytes())
    })
    .map(|pid| format!("process {pid}"))
    .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| PathBuf::from(entry.file_name())).collect()
}

/// The ids of those objects that have the process in one of the columns.
fn system_v<'a>(
    table: &'a str,
    columns: &'a [&'a str],
    pid: &'a str,
) -> impl Iterator<Item = &'a str> {
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    lines.filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let of_process = header
            .iter()
            .zip(&fields)
            .any(|(column, field)| columns.contains(column) && *field == pid);
        of_process.then(|| fields.get(1).copied()).flatten()
    })
}

#[test]
fn objects_of_a_process_are_found_in_the_kernels_table() {
    let table = "  key  shmid perms  size  cpid  lpid\n    0      7   600    77    12    13\n   12      8   600    12    77    77\n";
    let found = |pid| system_v(table, &["cpid", "lpid"], pid).collect::<Vec<_>>();
    assert_eq!((found("12"), found("77"), found("600")), (vec!["7"], vec!["8"], vec![]));
}
