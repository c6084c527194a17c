//! A last look through /proc: who has a file open, who sleeps in a call on a System V object or in the opening of a FIFO.
//!
//! Source: `proc_pid_fd(5)`, `proc_pid_syscall(5)`, `proc_pid_fdinfo(5)`. The inspector sees the same and more, but takes its time; this is asked when an object
//! is already closed to newcomers.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;
use switchboard_inspect::source::folder::{Folder, device};
use switchboard_inspect::source::memory::Memory;
use switchboard_inspect::source::numbers::field;
use switchboard_inspect::source::system_call::{Inside, Line, line};

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The first that has it, in words.
    pub(crate) by: Option<String>,
    /// How many processes could not be read.
    pub(crate) unreadable: u32,
    /// How many descriptors are on their way in sockets.
    pub(crate) in_flight: u64,
}

/// Calls that a thread sleeps in while it uses a queue of this id.
const QUEUE_CALLS: [libc::c_long; 2] = [libc::SYS_msgsnd, libc::SYS_msgrcv];

/// Who sleeps in a call on the System V queue of this id in this IPC namespace.
pub(crate) fn of_queue(id: i32) -> Seen {
    let own = Folder::open("/proc/self").ok().and_then(|own| own.namespace("ns/ipc"));
    each_process(|pid, folder, seen| {
        let namespace = folder.namespace("ns/ipc");
        if namespace.is_some() && namespace != own {
            return Ok(());
        }
        each_thread(pid, folder, |inside, _| {
            let number = libc::c_long::try_from(inside.number).unwrap_or(-1);
            if QUEUE_CALLS.contains(&number) && inside.small(0) == id {
                seen.by = Some(format!("process {pid} waits for it"));
            }
        })
    })
}

/// Who has the FIFO of this device and inode open, or sleeps in opening one of its name.
pub(crate) fn of_fifo(file: (u64, u64), path: &Path) -> Seen {
    let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
    each_process(|pid, folder, seen| {
        let fds = folder.within("fd")?;
        let mut numbers = Vec::new();
        fds.numbers(|fd| numbers.push(fd))?;
        for fd in numbers {
            let Ok(status) = fds.status(fd.to_string()) else { continue };
            if (device(&status), status.stx_ino) == file {
                seen.by = Some(format!("process {pid} has it open"));
            }
            if FileType::from_raw_mode(status.stx_mode.into()) == FileType::Socket {
                seen.in_flight += in_flight(folder, fd);
            }
        }
        each_thread(pid, folder, |inside, memory| {
            let path = match i64_of(inside.number) {
                #[cfg(target_arch = "x86_64")]
                libc::SYS_open => inside.arguments[0],
                libc::SYS_openat | libc::SYS_openat2 => inside.arguments[1],
                _ => return,
            };
            // Page by page, because what follows the path may not be there.
            let place = usize::try_from(path % 4096).unwrap_or(0);
            let first = memory.bytes(path, 4096 - place).unwrap_or_default();
            let more = if first.contains(&0) {
                None
            } else {
                memory.bytes(path - place as u64 + 4096, 4096)
            };
            let text = [first, more.unwrap_or_default()].concat();
            let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
            if text.rsplit(|&byte| byte == b'/').next() == Some(&name) {
                seen.by = Some(format!("process {pid} waits for its other end"));
            }
        })
    })
}

fn i64_of(number: i64) -> libc::c_long {
    libc::c_long::try_from(number).unwrap_or(-1)
}

/// Descriptors that wait in a socket to be received.
fn in_flight(folder: &Folder, fd: u32) -> u64 {
    let mut text = Vec::new();
    let read = folder.read_record(format!("fdinfo/{fd}"), &mut text);
    let count = field(&text, "scm_fds").and_then(switchboard_inspect::source::numbers::decimal);
    count.filter(|_| read.is_ok()).unwrap_or(0)
}

fn each_process(mut look: impl FnMut(u32, &Folder, &mut Seen) -> Result<(), Errno>) -> Seen {
    let mut seen = Seen::default();
    let mut pids = Vec::new();
    let Ok(()) = Folder::open("/proc").and_then(|proc| proc.numbers(|pid| pids.push(pid))) else {
        seen.unreadable = 1;
        return seen;
    };
    let mut text = Vec::new();
    for pid in pids {
        let Ok(folder) = Folder::open(&format!("/proc/{pid}")) else { continue };
        let stat = folder.read_record("stat", &mut text);
        let stat = stat.ok().and_then(|()| switchboard_inspect::source::process::stat(&text));
        let Some(stat) = stat else { continue };
        if stat.kernel || (stat.state == 'Z' && stat.threads < 2) {
            continue;
        }
        // The first thread may have ended before the others: what they have is shown with those then.
        let other = if stat.state == 'Z' { living_thread(pid, &mut text) } else { None };
        match look(pid, other.as_ref().unwrap_or(&folder), &mut seen) {
            // What has ended holds nothing.
            Ok(()) | Err(Errno::NOENT | Errno::SRCH) => {}
            Err(_) => seen.unreadable += 1,
        }
        if seen.by.is_some() {
            break;
        }
    }
    seen
}

fn living_thread(pid: u32, text: &mut Vec<u8>) -> Option<Folder> {
    let mut threads = Vec::new();
    Folder::open(&format!("/proc/{pid}/task")).ok()?.numbers(|tid| threads.push(tid)).ok()?;
    threads.into_iter().find_map(|tid| {
        let folder = Folder::open(&format!("/proc/{pid}/task/{tid}")).ok()?;
        folder.read_record("stat", text).ok()?;
        let stat = switchboard_inspect::source::process::stat(text)?;
        (!matches!(stat.state, 'Z' | 'X')).then_some(folder)
    })
}

fn each_thread(
    pid: u32,
    folder: &Folder,
    mut look: impl FnMut(&Inside, &Memory),
) -> Result<(), Errno> {
    let tasks = Folder::open(&format!("/proc/{pid}/task"))?;
    let memory = Memory::of(folder);
    let mut threads = Vec::new();
    tasks.numbers(|tid| threads.push(tid))?;
    let mut text = Vec::new();
    for tid in threads {
        match tasks.read_record(format!("{tid}/syscall"), &mut text) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::SRCH) => continue,
            Err(errno) => return Err(errno),
        }
        if let Some(Line::Inside(inside)) = line(&text) {
            look(&inside, &memory);
        }
    }
    Ok(())
}
