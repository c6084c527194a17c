//! What the demo puts on the machine, and takes away again: a private folder, a POSIX queue, and
//! processes. Dropping the stage removes all of them, however the demo ends.
//!
//! Should the demo itself be killed, its processes die with it, and the next demo removes the rest.

use std::error::Error;
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use switchboard::{Address, ErrorKind, object};
use switchboard_kernel::io::Deadline;
use switchboard_kernel::pipe;
use switchboard_kernel::process::{Child, Signal, Spawn};

use super::leftovers::Claim;
use super::words::Places;
use super::{Role, leftovers};
use crate::output;

/// How long a process that has closed its output may take to be gone.
const GONE_AFTER: Duration = Duration::from_secs(2);
/// Names tried for the folder and the queue.
const MOST_NAMES: u32 = 100;

/// Something a process did.
#[derive(Debug)]
pub(crate) enum Event {
    /// It said a line on its standard output.
    Line(String),
    /// It complained on its standard error.
    Complaint(String),
    /// Its output is closed: it has ended, or is about to.
    Gone,
}

/// The folder, the queue, the processes.
pub(crate) struct Stage {
    pub(crate) places: Places,
    claim: Claim,
    children: Vec<(Role, Child)>,
    tell: Sender<(u32, Event)>,
    pub(crate) events: Receiver<(u32, Event)>,
}

impl Stage {
    /// Removes what earlier demos left, and makes the folder and the queue.
    pub(crate) fn set_up() -> Result<Self, Box<dyn Error>> {
        let (tell, events) = channel();
        let parent = std::env::temp_dir();
        let removed = leftovers::remove(&parent);
        if !removed.is_empty() {
            output::note(&format!("removed what a killed demo left: {}", removed.join(", ")));
        }
        let (folder, claim) = make_folder(&parent)?;
        // From here on, dropping it removes the folder.
        let places = Places { folder, queue: String::new(), recorder: None };
        let mut stage = Self { places, claim, children: Vec::new(), tell, events };
        stage.make_queue()?;
        Ok(stage)
    }

    fn make_queue(&mut self) -> Result<(), Box<dyn Error>> {
        let pid = std::process::id();
        for n in 0..MOST_NAMES {
            let name = match n {
                0 => format!("/{}{pid}", leftovers::NAME),
                n => format!("/{}{pid}-{n}", leftovers::NAME),
            };
            let places = Places { queue: name, ..self.places.clone() };
            match object::create(&places.queue().parse()?) {
                Ok(()) => {
                    self.places = places;
                    self.claim.note_queue(&self.places.queue)?;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::AddressInUse => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err("every name for the queue is taken: see ls /dev/mqueue".into())
    }

    /// Starts this program again in a role. To be called from the thread that stays.
    pub(crate) fn start(&mut self, role: Role) -> Result<u32, Box<dyn Error>> {
        let (out, said) = pipe::pipe().map(|(read, write)| (File::from(read), write))?;
        let (err, complained) = pipe::pipe().map(|(read, write)| (File::from(read), write))?;
        let program = std::env::current_exe()?;
        let places = &self.places;
        let mut spawn = Spawn::new(program)
            .args(["demo", "--role", role.name(), "--queue", &places.queue, "--folder"])
            .arg(&places.folder)
            .stdin(OwnedFd::from(File::open("/dev/null")?))
            .stdout(said)
            .stderr(complained)
            // Ctrl-C is for the first process, which then ends the others.
            .new_process_group()
            .die_with_parent();
        if let Some(recorder) = &places.recorder {
            spawn = spawn.args(["--recorder", recorder]);
        }
        let child = spawn.spawn()?;
        let pid = child.id();
        self.children.push((role, child));
        let complaints = std::thread::spawn({
            let tell = self.tell.clone();
            move || lines(err, |line| tell.send((pid, Event::Complaint(line))).is_ok())
        });
        let tell = self.tell.clone();
        std::thread::spawn(move || {
            lines(out, |line| tell.send((pid, Event::Line(line))).is_ok());
            let _ = complaints.join();
            let _ = tell.send((pid, Event::Gone));
        });
        Ok(pid)
    }

    /// Which role a process has; `None` for one that is gone.
    pub(crate) fn role_of(&self, pid: u32) -> Option<Role> {
        self.children.iter().find(|(_, child)| child.id() == pid).map(|(role, _)| *role)
    }

    /// Sends a signal to the process in a role, if there is one.
    pub(crate) fn signal(&self, role: Role, signal: Signal) -> Result<(), Box<dyn Error>> {
        for (_, child) in self.children.iter().filter(|(other, _)| *other == role) {
            child.signal(signal)?;
        }
        Ok(())
    }

    /// Reaps a process whose output is closed.
    pub(crate) fn reap(&mut self, pid: u32) -> Result<Option<ExitStatus>, Box<dyn Error>> {
        let Some(at) = self.children.iter().position(|(_, child)| child.id() == pid) else {
            return Ok(None);
        };
        let (_, mut child) = self.children.swap_remove(at);
        match child.wait(Deadline::after(GONE_AFTER))? {
            Some(status) => Ok(Some(status)),
            None => Ok(Some(child.kill()?)),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
        }
        if !self.places.queue.is_empty()
            && let Ok(address) = self.places.queue().parse::<Address>()
        {
            let _ = object::unlink(&address);
        }
        let _ = std::fs::remove_dir_all(&self.places.folder);
    }
}

/// A new folder that only this user can enter, claimed. `mkdir` follows no link and takes no existing
/// one.
fn make_folder(parent: &Path) -> io::Result<(PathBuf, Claim)> {
    let pid = std::process::id();
    let make = |n| {
        let folder = parent.join(match n {
            0 => format!("{}{pid}", leftovers::NAME),
            n => format!("{}{pid}-{n}", leftovers::NAME),
        });
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Claim::to(&folder)?.map(|claim| (folder, claim)))
    };
    for n in 0..MOST_NAMES {
        match make(n) {
            Ok(Some(made)) => return Ok(made),
            Ok(None) => {}
            Err(error) if io::Error::kind(&error) == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let problem = format!("no folder in {}: {error}", parent.display());
                return Err(io::Error::new(error.kind(), problem));
            }
        }
    }
    Err(io::Error::other(format!("every name for the folder is taken in {}", parent.display())))
}

/// Gives each line to `with`, until the end or until it says `false`.
fn lines(file: File, mut with: impl FnMut(String) -> bool) {
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        if !with(line) {
            break;
        }
    }
}
