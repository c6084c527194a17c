//! What tests left behind: queues, segments, semaphores, files, processes.
//!
//! Source: `sysvipc(7)` (/proc/sysvipc), `mq_overview(7)` (the mqueue file system), `proc(5)`.
//!
//! Other programs of this machine make and remove such things too. So only what was not there before
//! and does not go away in a while counts; processes and temporary files are those of this run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::stage::{RUN, Stage};

/// How long a thing may take to go away: a killed process, for one, is not gone at once.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What there is, in words.
pub(crate) type Things = BTreeSet<String>;

/// All things of the kinds that tests make.
pub(crate) fn things(stage: &Stage) -> Things {
    let mut things = Things::new();
    for kind in ["msg", "shm", "sem"] {
        let table = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
        things.extend(system_v(kind, &table));
    }
    things.extend(posix_queues(stage).unwrap_or_default());
    things.extend(names_in(Path::new("/dev/shm"), |_| true));
    let ours = |name: &str| name.starts_with("sb-") || name.starts_with("switchboard-");
    things.extend(names_in(&std::env::temp_dir(), ours));
    for user in ["o", "u"] {
        things.extend(names_in(&stage.path().join(user).join("t"), |_| true));
    }
    things.extend(processes(stage).into_iter().map(|(_, process)| process));
    things
}

/// What is there that was not there before, and stays for as long as `grace`.
pub(crate) fn since(before: &Things, stage: &Stage, grace: Duration) -> Things {
    let until = Instant::now() + grace;
    let mut left: Things = things(stage).difference(before).cloned().collect();
    while !left.is_empty() && Instant::now() < until {
        std::thread::sleep(LOOK_AGAIN);
        let now = things(stage);
        left.retain(|thing| now.contains(thing));
    }
    left
}

/// Ends the processes of this run that are still there.
pub(crate) fn end_processes(stage: &Stage) {
    for (pid, _) in processes(stage) {
        // The descriptor first, then a second look: the number may have gone to another process.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
            && is_of(pid, stage)
        {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

/// Why POSIX queues cannot be listed here, if they cannot.
pub(crate) fn blind_spot(stage: &Stage) -> Option<&'static str> {
    let blind = posix_queues(stage).is_none();
    blind.then_some("POSIX queues not looked at: /dev/mqueue is not mounted, and this user may not")
}

fn system_v(kind: &str, table: &str) -> Vec<String> {
    let lines = table.lines().skip(1);
    let objects = lines.filter_map(|line| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?, fields.next()?))
    });
    objects.map(|(key, id)| format!("System V {kind} {id} (key {key})")).collect()
}

/// Names in the mqueue file system, mounted for a moment in a mount namespace of its own if need be.
fn posix_queues(stage: &Stage) -> Option<Vec<String>> {
    const LIST: &str = "mount -t mqueue none \"$0\" && ls -A \"$0\"";
    let queue = |name: &str| format!("POSIX queue /{name}");
    if fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.contains(" /dev/mqueue "))
    {
        return Some(names(Path::new("/dev/mqueue")).iter().map(|name| queue(name)).collect());
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", LIST]).arg(stage.path());
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().map(queue).collect())
}

fn names_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let names = names(folder).into_iter().filter(|name| wanted(name));
    names.map(|name| folder.join(name).display().to_string()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Processes whose environment names this run.
fn processes(stage: &Stage) -> Vec<(Pid, String)> {
    let pids = names(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    pids.filter_map(Pid::from_raw)
        .filter(|&pid| is_of(pid, stage))
        .map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (pid, format!("process {pid}: {}", line.trim_end()))
        })
        .collect()
}

fn is_of(pid: Pid, stage: &Stage) -> bool {
    let mark = format!("{RUN}={}", stage.path().display());
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
        environment.split(|&b| b == 0).any(|entry| entry == mark.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_system_v_tables() {
        let table = "       key      msqid perms\n         0          3   600\n 123456789          4   600\n";
        assert_eq!(
            system_v("msg", table),
            ["System V msg 3 (key 0)", "System V msg 4 (key 123456789)"]
        );
        assert!(system_v("msg", "").is_empty());
    }

    #[test]
    fn finds_a_file_and_a_process_left_behind() {
        let stage = Stage::new().expect("a stage");
        let place = stage.place("u").expect("a place");
        let before = things(&stage);
        let file = place.temporary.join("sb-left");
        fs::write(&file, "").expect("a file");
        let mut child =
            Command::new("sleep").arg("1000").env(RUN, stage.path()).spawn().expect("sleep");
        // Until it has become sleep, it has the environment of this process.
        let until = Instant::now() + Duration::from_secs(20);
        while processes(&stage).is_empty() {
            assert!(Instant::now() < until, "no process of this run found");
            std::thread::yield_now();
        }
        let left = things(&stage).difference(&before).cloned().collect::<Things>();
        assert!(left.contains(&file.display().to_string()), "{left:?}");
        let process = format!("process {}: sleep 1000", child.id());
        assert!(left.contains(&process), "{left:?}");
        end_processes(&stage);
        assert!(!child.wait().expect("a status").success());
        assert!(processes(&stage).is_empty());
    }

    #[test]
    fn what_goes_away_is_not_left() {
        let stage = Stage::new().expect("a stage");
        let place = stage.place("u").expect("a place");
        let before = things(&stage);
        let (gone, left) = (place.temporary.join("sb-gone"), place.temporary.join("sb-left"));
        fs::write(&gone, "").expect("a file");
        fs::write(&left, "").expect("a file");
        let looking = std::thread::spawn(move || {
            let found = since(&before, &stage, Duration::from_millis(500));
            (stage, found)
        });
        fs::remove_file(&gone).expect("removed");
        let (_stage, found) = looking.join().expect("the search");
        assert!(found.contains(&left.display().to_string()), "{found:?}");
        assert!(!found.contains(&gone.display().to_string()), "{found:?}");
    }
}
