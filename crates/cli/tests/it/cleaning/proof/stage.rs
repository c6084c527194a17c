//! A round of the proof, in namespaces of its own: plants, starts users, cleans, ends, restores, compares.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use switchboard_inspect::Kind;
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE, fork};

use super::Dice;
use super::actors::{Way, adopter, complain, user, ways};
use super::things::{KINDS, Thing};

/// How long `clean` runs against the users: long enough for the whole seconds of System V.
const ROUND: Duration = Duration::from_millis(3600);

/// Plays a round: the folder, the command, the seed.
pub(in super::super) fn stage(arguments: &[String]) {
    let [folder, binary, seed] = arguments else { return };
    let folder = Path::new(folder);
    let mut dice = Dice(seed.parse().expect("a seed"));
    let mut round = Round { folder, binary, cleans: 0, removed: HashMap::new(), runs: Vec::new() };
    if let Err(problem) = round.play(&mut dice) {
        report(problem);
    }
    let problems = std::fs::read_to_string(folder.join("problems")).unwrap_or_default();
    problems.lines().for_each(report);
    report("end");
}

struct Round<'a> {
    folder: &'a Path,
    binary: &'a str,
    cleans: u64,
    /// Objects that were removed: what they were, and the kind.
    removed: HashMap<String, String>,
    runs: Vec<String>,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(format!("{program} {arguments:?}: {said}")) }
}

impl Round<'_> {
    fn play(&mut self, dice: &mut Dice) -> Result<(), String> {
        self.scenery()?;
        let ordinary = rustix::process::geteuid().is_root() && is_real_root();
        let user_id = (ordinary && dice.below(2) == 0).then_some(65_534);
        let (planted, users) = self.start(dice, user_id)?;
        let until = Instant::now() + ROUND;
        while Instant::now() < until {
            // By name: files of sockets and FIFOs are found in folders that all namespaces share.
            let of_planted = planted.iter().map(|(thing, id)| thing.word(*id));
            let words: Vec<String> = of_planted.chain(users.words()).collect();
            self.clean(&words)?;
            report("busy");
        }
        self.end(&users)?;
        self.restore(&planted)
    }

    /// File systems of its own, which everybody in the round may use.
    fn scenery(&self) -> Result<(), String> {
        run("mount", &["-t", "tmpfs", "-o", "mode=1777", "none", "/dev/shm"])?;
        let folder = self.folder.to_str().unwrap_or_default();
        run("mount", &["-t", "tmpfs", "-o", "mode=1777", "none", folder])?;
        let queues = self.folder.join("mqueue");
        std::fs::create_dir(&queues).map_err(|error| error.to_string())?;
        run("mount", &["-t", "mqueue", "none", queues.to_str().unwrap_or_default()])
    }

    /// Plants what is abandoned, and starts who uses what.
    fn start(
        &self,
        dice: &mut Dice,
        user_id: Option<u32>,
    ) -> Result<(Vec<(Thing, i32)>, Users), String> {
        let mut planted = Vec::new();
        for kind in KINDS {
            for _ in 0..1 + dice.below(2) {
                planted.push(Thing::new(kind, self.folder, dice));
            }
        }
        let makers: Vec<i32> = planted
            .iter()
            .map(|thing| {
                fork::start(|| {
                    fork::become_ordinary(user_id);
                    let made = thing.make();
                    let id = made.unwrap_or_else(|error| {
                        complain(&thing.folder, &format!("planting {thing:?}: {error}"));
                        -1
                    });
                    let file = thing.folder.join(format!("id-{:x}", thing.number));
                    std::fs::write(file, id.to_string()).is_ok()
                })
            })
            .collect();
        for maker in makers {
            wait(maker);
        }
        let planted: Vec<(Thing, i32)> =
            planted.into_iter().map(|thing| (thing.clone(), self.id_of(&thing))).collect();
        let mut users = Users::default();
        for _ in 0..5 + dice.below(5) {
            let kind = KINDS[dice.below(KINDS.len() as u64) as usize];
            let way = ways(kind)[dice.below(ways(kind).len() as u64) as usize];
            let thing = Thing::new(kind, self.folder, dice);
            let pid = fork::start(|| {
                fork::become_ordinary(user_id);
                user(&thing, way)
            });
            if way == Way::Elsewhere {
                users.elsewhere.push(self.elsewhere(&thing)?);
            }
            users.all.push((pid, way, thing));
        }
        self.wait_for(&users)?;
        for (_, _, thing) in &users.all {
            users.names.push(thing.word(self.id_of(thing)));
        }
        for _ in 0..2 {
            let own = Dice(dice.next());
            users.adopters.push(fork::start(|| {
                fork::become_ordinary(user_id);
                adopter(&planted, self.folder, own)
            }));
        }
        Ok((planted, users))
    }

    fn id_of(&self, thing: &Thing) -> i32 {
        let text = std::fs::read_to_string(self.folder.join(format!("id-{:x}", thing.number)));
        text.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// A process in other mount and PID namespaces that has it.
    fn elsewhere(&self, thing: &Thing) -> Result<Child, String> {
        let file = self.folder.join(format!("id-{:x}", thing.number));
        let until = Instant::now() + DEADLINE;
        while std::fs::read_to_string(&file).map_or(true, |text| text.is_empty()) {
            if Instant::now() > until {
                return Err(format!("{thing:?} was not made"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let name = match thing.kind {
            Kind::SysvShm => self.id_of(thing).to_string(),
            _ => thing.name(),
        };
        let starter = ["unshare", "--mount", "--pid", "--fork", "--kill-child"];
        let folder = self.folder.display().to_string();
        let number = format!("{:x}", thing.number);
        Ok(Child::role_under(
            &starter,
            "clean-elsewhere",
            &[thing.kind.to_string(), name, folder, number],
        ))
    }

    /// Until each user has what it uses; who is to sleep in a call does.
    fn wait_for(&self, users: &Users) -> Result<(), String> {
        let until = Instant::now() + DEADLINE;
        for (pid, way, thing) in &users.all {
            let file = self.folder.join(format!("ready-{:x}", thing.number));
            let sleeps = || {
                let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
                let state = std::fs::read_to_string(format!("/proc/{pid}/wchan"));
                call.is_ok_and(|text| !text.starts_with("running"))
                    && state.is_ok_and(|text| text != "0")
            };
            while !(file.exists() && (*way != Way::Blocked || sleeps())) {
                if Instant::now() > until || self.folder.join("problems").exists() {
                    return Err(format!("{way:?} {thing:?} is not ready"));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn switchboard(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(self.binary);
        command.args(arguments).arg("--json").current_dir(self.folder);
        command.env("XDG_STATE_HOME", self.folder.join("state"));
        let done = command.output().map_err(|error| error.to_string())?;
        serde_json::from_slice(&done.stdout).map_err(|error| {
            let said = String::from_utf8_lossy(&done.stderr);
            format!(
                "{arguments:?}: {error}; it ended with {:?} and said {said}",
                done.status.code()
            )
        })
    }

    fn clean(&mut self, words: &[String]) -> Result<(), String> {
        let mut arguments = vec!["clean", "--yes", "--partial", "--min-age", "0s"];
        arguments.extend(words.iter().map(String::as_str));
        let done = self.switchboard(&arguments)?;
        self.cleans += 1;
        for removed in done["removed"].as_array().into_iter().flatten() {
            if let Some(note) = removed["note"].as_str() {
                return Err(format!("{removed}: {note}"));
            }
            let text = |name: &str| removed[name].as_str().unwrap_or_default().to_owned();
            self.removed.insert(text("object"), text("kind"));
        }
        self.runs.extend(done["run"].as_str().map(str::to_owned));
        Ok(())
    }

    /// Ends everybody; nobody may have ended before.
    fn end(&self, users: &Users) -> Result<(), String> {
        let blocked = |way: &Way| *way == Way::Blocked;
        for (pid, way, thing) in users.all.iter().filter(|(_, way, _)| blocked(way)) {
            let ended = waitpid(Pid::from_raw(*pid), WaitOptions::NOHANG);
            if !matches!(ended, Ok(None)) {
                return Err(format!("{way:?} {thing:?} ended: {ended:?}"));
            }
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::fs::write(self.folder.join("over"), "").map_err(|error| error.to_string())?;
        let mut wrong = Vec::new();
        for (pid, way, thing) in &users.all {
            if !wait(*pid) && *way != Way::Blocked {
                wrong.push(format!("{way:?} {thing:?} was not let"));
            }
        }
        wrong.extend(
            users.adopters.iter().filter(|pid| !wait(**pid)).map(|_| "an adopter".to_owned()),
        );
        // Inherited ones are children of whoever is the first process here.
        while matches!(waitpid(None, WaitOptions::empty()), Ok(Some(_))) {}
        report(format!("count {} clean --yes", self.cleans));
        for (prefix, name) in [("looks-", "looks of users"), ("taken-", "taken up again")] {
            report(format!("count {} {name}", self.sum(prefix)));
        }
        report(format!("count {} objects in use", users.all.len()));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn sum(&self, prefix: &str) -> u64 {
        let names = std::fs::read_dir(self.folder).into_iter().flatten().flatten();
        let files = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        files
            .filter_map(|entry| std::fs::read_to_string(entry.path()).ok()?.parse::<u64>().ok())
            .sum()
    }

    /// Everything that was planted is there, untouched or again, and the same.
    fn restore(&self, planted: &[(Thing, i32)]) -> Result<(), String> {
        let mut now: HashMap<String, String> = HashMap::new();
        let mut restored = 0;
        for run in &self.runs {
            let done = self.switchboard(&["restore", run])?;
            for one in done["restored"].as_array().into_iter().flatten() {
                let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
                let kind = text("was").split(':').next().unwrap_or_default().to_owned();
                report(format!("count 1 restored {kind}"));
                now.insert(text("was"), text("object"));
                restored += 1;
            }
            for one in done["not_restored"].as_array().into_iter().flatten() {
                if !one["why"].as_str().unwrap_or_default().contains("cannot be brought back") {
                    return Err(format!("not restored: {one}"));
                }
            }
        }
        let mut wrong = Vec::new();
        for (thing, id) in planted {
            // The file of a socket is not brought back.
            if thing.kind == Kind::Unix && thing.identity(*id).is_none() {
                continue;
            }
            let was = format!("{}:{id}", thing.kind);
            let id =
                now.get(&was).and_then(|now| now.rsplit(':').next()?.parse().ok()).unwrap_or(*id);
            if let Err(error) = thing.check(id) {
                wrong.push(format!("planted {thing:?}, now {id}: {error}"));
            }
        }
        for kind in self.removed.values() {
            report(format!("count 1 removed {kind}"));
        }
        report(format!("count {} removed", self.removed.len()));
        report(format!("count {restored} restored"));
        report(format!("count {} planted", planted.len()));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

/// Who uses what in a round.
#[derive(Default)]
struct Users {
    all: Vec<(i32, Way, Thing)>,
    names: Vec<String>,
    adopters: Vec<i32>,
    elsewhere: Vec<Child>,
}

impl Users {
    fn words(&self) -> impl Iterator<Item = String> {
        self.names.iter().cloned()
    }
}

/// Waits for a child; whether it ended well.
fn wait(pid: i32) -> bool {
    let status = waitpid(Pid::from_raw(pid), WaitOptions::empty());
    matches!(status, Ok(Some((_, status))) if status.exit_status() == Some(0))
}

/// Whether there are other users in this user namespace.
fn is_real_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2).is_some_and(|count| count != "1")
}
