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

/// What happens in them: two that wait for each other for ever, a topic with its publisher and subscribers, a queue, a pipeline, and
/// a FIFO that somebody holds who has nothing to do with it.
const SCENE: &str = "
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
    let pids = scene.pids()?;
    let browser = Browser::start(1280, 800).ok_or("no chromedriver: install chromium-driver")?;
    let docs = workspace.root.join("docs");
    let mut made = Vec::new();

    let page = scene.folder.path().join("map.html");
    let mut map = Command::new(&switchboard);
    map.arg("map").args(&pids).args(["--depth", "0", "--group", "user", "--output"]).arg(&page);
    let output = map.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{map:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    browser.open(&format!("file://{}", page.display()));
    choose(&browser, "left[");
    made.push(save(&browser, &docs.join("map.png"))?);

    let mut web = Command::new(&switchboard);
    web.args(["web", "--depth", "0", "--group", "user"]).args(&pids).stderr(Stdio::null());
    let mut web = switchboard_testkit::Child::command(web);
    let url = web.line().ok_or("`web` said no address")?;
    browser.open(&url);
    browser.wait("return document.querySelectorAll('.node').length > 5");
    choose(&browser, "sensor[");
    made.push(save(&browser, &docs.join("web.png"))?);
    web.signal(Signal::TERM);
    web.wait_within(READY_TIME);
    Ok(made)
}

/// Clicks a process by the beginning of its label.
fn choose(browser: &Browser, label: &str) {
    let key = browser.wait(&format!(
        "const node = [...document.querySelectorAll('.node')].find(node => node.querySelector('text').textContent.startsWith('{label}'));
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
            symlink(switchboard, folder.path().join(name)).map_err(|error| error.to_string())?;
        }
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        for (program, name) in [(own.as_path(), "pair"), (Path::new("/bin/sleep"), "idle")] {
            symlink(program, folder.path().join(name)).map_err(|error| error.to_string())?;
        }
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(SCENE).current_dir(folder.path()).process_group(0);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = shell.spawn().map_err(|error| format!("sh: {error}"))?;
        Ok(Self { shell, folder })
    }

    /// All of them, when they are what they are to be.
    fn pids(&self) -> Result<Vec<String>, String> {
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
                return Ok(all.into_iter().map(|(pid, _)| pid.to_string()).collect());
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
            let _ = kill_process_group(group, Signal::TERM);
        }
        let _ = self.shell.wait();
    }
}
