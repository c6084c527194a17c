//! `cargo xtask screenshots`: the pictures in docs/, made of processes that this starts: those of `map` and `web` in a browser, those of
//! `top` in a terminal.
//!
//! Source: docs/commands.md, which shows them.

mod top;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use switchboard_testkit::browser::Browser;
use tempfile::TempDir;

use crate::executables;
use crate::show;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// What happens in them, in namespaces of its own: two that wait for each other for ever, a topic with its publisher and subscribers, a queue, a
/// pipeline, a FIFO that somebody holds who has nothing to do with it, and memory that was left behind: nobody has its whole name on a command line.
const SCENE: &str = "
for fd in /proc/self/fd/*; do n=${fd##*/}; if [ $n -gt 2 ]; then eval \"exec $n>&-\"; fi; done
for folder in /run /var/tmp /dev/shm; do mount -t tmpfs none $folder || exit; done
touch /run/switchboard /run/xtask
mount --bind \"$1\" /run/switchboard && mount --bind \"$2\" /run/xtask && mount --bind . /tmp && cd /tmp || exit
name=1f03cc2a
(umask 077; head -c 65536 /dev/zero > /dev/shm/psm_$name)
ipcmk -M 1048576 > /dev/null
sleep 1000 | ./pair gallery pipes-both-full &
mkfifo orders
(while :; do echo press; sleep 0.3; done > ticks) &
tail -f ticks > orders &
(exec 7<orders; ./idle 1000 & cat <&7 > /dev/null & wait) &
tail -f ticks | ./sensor publish unix:./readings.sock &
./dashboard subscribe unix:./readings.sock > /dev/null &
./recorder subscribe unix:./readings.sock > readings.txt &
./worker recv unix:./jobs.sock > /dev/null &
tail -f ticks | ./planner send unix:./jobs.sock &
tail -f readings.txt | grep press | sort > /dev/null &
wait
";

const READY_TIME: Duration = Duration::from_secs(30);
const LARGEST_BYTES: usize = 300_000;

/// Makes them.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) {
    show::step("Pictures of `map` and `web`");
    match make(workspace) {
        Ok(made) => made.iter().for_each(|what| tally.pass(what)),
        Err(why) => tally.fail("pictures", &why),
    }
    show::step("Pictures of `top`");
    match top::make(workspace) {
        Ok(made) => made.iter().for_each(|what| tally.pass(what)),
        Err(why) => tally.fail("pictures of top", &why),
    }
}

fn make(workspace: &Workspace) -> Result<Vec<String>, String> {
    let switchboard = executables::command(workspace)?;
    let scene = Scene::start(&switchboard)?;
    scene.wait()?;
    let browser = Browser::start(1280, 800).ok_or("no chromedriver: install chromium-driver")?;
    let docs = workspace.root.join("docs");
    let mut made = Vec::new();

    let page = scene.folder.path().join("map.html");
    let mut map = scene.switchboard()?;
    map.args(["map", "--group", "user", "--output", "/tmp/map.html"]);
    let output = map.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{map:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    browser.open(&format!("file://{}", page.display()));
    // All in their colours: nothing is chosen.
    browser.wait("return document.querySelectorAll('.node').length > 5");
    made.push(save(&browser, &docs.join("map.png"))?);

    let mut web = scene.switchboard()?;
    web.args(["web", "--group", "user"]).stderr(Stdio::null());
    let mut web = switchboard_testkit::Child::command(web);
    let url = web.line().ok_or("`web` said no address")?;
    browser.open(&url);
    browser.wait("return document.querySelectorAll('.node').length > 5");
    choose(&browser, "1f03cc2a");
    made.push(save(&browser, &docs.join("web.png"))?);
    web.kill();
    Ok(made)
}

/// Clicks what has this in its label.
fn choose(browser: &Browser, label: &str) {
    let key = browser.wait(&format!(
        "const node = [...document.querySelectorAll('.node')].find(node => node.querySelector('text').textContent.includes('{label}'));
         return node ? node.dataset.key : null"
    ));
    browser.click(&format!("[data-key='{}']", key.as_str().unwrap_or_default()));
}

fn save(browser: &Browser, path: &Path) -> Result<String, String> {
    let picture = STANDARD.decode(browser.screenshot()).map_err(|error| error.to_string())?;
    if picture.len() > LARGEST_BYTES {
        return Err(format!(
            "{}: {} bytes, more than {LARGEST_BYTES}",
            path.display(),
            picture.len()
        ));
    }
    fs::write(path, &picture).map_err(|error| format!("{}: {error}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!("docs/{name}: {} bytes", picture.len()))
}

/// The processes; ended on drop.
struct Scene {
    shell: Child,
    folder: TempDir,
}

impl Scene {
    fn start(switchboard: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        for name in ["sensor", "dashboard", "recorder", "worker", "planner"] {
            let link = symlink("/run/switchboard", folder.path().join(name));
            link.map_err(|error| error.to_string())?;
        }
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        for (program, name) in [("/run/xtask", "pair"), ("/bin/sleep", "idle")] {
            symlink(program, folder.path().join(name)).map_err(|error| error.to_string())?;
        }
        let mut shell = Command::new("unshare");
        shell.args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--ipc",
            "bash",
            "-c",
            SCENE,
        ]);
        shell.arg("bash").arg(switchboard).arg(own).current_dir(folder.path()).process_group(0);
        shell.env_remove("TMPDIR").env_remove("XDG_RUNTIME_DIR");
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = shell.spawn().map_err(|error| format!("unshare: {error}"))?;
        Ok(Self { shell, folder })
    }

    /// The command in the scene's namespaces.
    fn switchboard(&self) -> Result<Command, String> {
        let shell = self.shell.id();
        let path = format!("/proc/{shell}/task/{shell}/children");
        let first = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let mut command = Command::new("nsenter");
        command.args(["--target", first.trim(), "--pid", "--mount", "--ipc", "/run/switchboard"]);
        command.env_remove("TMPDIR").env_remove("XDG_RUNTIME_DIR").current_dir("/");
        Ok(command)
    }

    /// Until all of them are what they are to be, and what was left behind is old enough to be taken for that.
    fn wait(&self) -> Result<(), String> {
        self.all_there()?;
        let until = Instant::now() + READY_TIME;
        loop {
            let output = self.switchboard()?.arg("leaks").output();
            let output = output.map_err(|error| format!("nsenter: {error}"))?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if said.contains("probable posix-shm:") && said.contains("probable sysv-shm:") {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("nothing was left behind: {output:?}"));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn all_there(&self) -> Result<(), String> {
        let until = Instant::now() + READY_TIME;
        let wanted = [
            "left",
            "right",
            "sensor",
            "dashboard",
            "recorder",
            "planner",
            "grep",
            "sort",
            "idle",
            "cat",
        ];
        let mut before = Vec::new();
        loop {
            let now = self.members();
            // A shell that forks is there twice for a moment.
            let all: Vec<_> = now.iter().filter(|one| before.contains(*one)).cloned().collect();
            before = now;
            let there = |name: &&str| all.iter().any(|(_, other)| other == name);
            if wanted.iter().all(there) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("not all of {wanted:?} came up: {all:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The processes of its group that are worth to be seen: ids and names.
    fn members(&self) -> Vec<(u32, String)> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let member = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (head, rest) = stat.rsplit_once(") ")?;
            let name = head.split_once(" (")?.1.to_owned();
            let group: u32 = rest.split(' ').nth(2)?.parse().ok()?;
            let passing = matches!(name.as_str(), "sleep" | "xtask");
            (group == self.shell.id() && !passing).then_some((pid, name))
        };
        pids.filter_map(member).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let group = i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.shell.wait();
    }
}
