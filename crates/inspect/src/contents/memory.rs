//! What lies in shared memory, read without mapping it where that is possible.
//!
//! Source: `proc_pid_fd(5)`, `proc_pid_mem(5)`, `shmop(2)`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use switchboard_kernel::sysv_shm::{Access, Segment};

use super::{Contents, Head, Unseen, descriptors, inode};
use crate::model::{Object, Via};
use crate::source::folder::{Folder, device};
use crate::source::numbers;
use crate::text::unescaped;

/// A segment: by the memory of somebody who has it attached; if nobody has, by attaching it.
pub(super) fn segment(object: &Object, most: usize) -> Result<Contents, Unseen> {
    if let Some(found) = by_memory(object, most) {
        return Ok(found);
    }
    if object.namespace.is_some() {
        return Err(Unseen::Refused(
            "it is in another IPC namespace: look there, with nsenter --ipc".to_owned(),
        ));
    }
    let id = inode(object).and_then(|id| i32::try_from(id).ok());
    let segment =
        Segment::from_id(id.ok_or_else(|| Unseen::Nobody("it has no id here".to_owned()))?);
    let attached = segment.attach(Access::ReadOnly).map_err(|error| match error.name() {
        "EINVAL" | "EIDRM" => Unseen::Nobody("it is gone".to_owned()),
        _ => Unseen::Refused(format!("attaching it: {error}")),
    })?;
    let mut bytes = vec![0; attached.len().min(most)];
    let read = attached.read_at(0, &mut bytes);
    read.map_err(|error| Unseen::Refused(format!("reading it: {error}")))?;
    let mut found = Contents::of(Head::Bytes(bytes));
    found.more = attached.len() > most;
    found
        .notes
        .push("it was attached to be read, and shows this process as its last user".to_owned());
    Ok(found)
}

/// A file in memory: opened once more for reading, by its name or by a descriptor; else by the memory of somebody who maps it.
pub(super) fn of_file(object: &Object, most: usize) -> Result<Contents, Unseen> {
    let named =
        object.names.iter().filter(|name| name.starts_with('/') && !name.ends_with(" (deleted)"));
    let named = named.filter_map(|name| String::from_utf8(unescaped(name)?).ok());
    let held =
        descriptors(object, |_| true).into_iter().map(|(pid, fd)| format!("/proc/{pid}/fd/{fd}"));
    for path in named.chain(held) {
        let Some(file) = open(object, &path) else { continue };
        let mut bytes = vec![0; most + 1];
        if let Ok(len) = read(&file, &mut bytes) {
            bytes.truncate(len.min(most));
            let mut found = Contents::of(Head::Bytes(bytes));
            found.more = len > most;
            return Ok(found);
        }
    }
    by_memory(object, most).ok_or_else(|| match object.ends.is_empty() {
        true => Unseen::Refused("it may not be opened by this user".to_owned()),
        false => Unseen::Refused(
            "neither its file nor the memory of who has it may be read; root can".to_owned(),
        ),
    })
}

fn read(file: &File, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

/// Opens a path if it leads to the object: nothing else is opened, by which somebody could wait.
fn open(object: &Object, path: &str) -> Option<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let folder = Folder::open("/proc/self/fd").ok()?;
    let name = std::os::fd::AsRawFd::as_raw_fd(&place).to_string();
    let status = folder.status(name.as_str()).ok()?;
    let is_file = rustix::fs::FileType::from_raw_mode(status.stx_mode.into())
        == rustix::fs::FileType::RegularFile;
    if !is_file || !is_it(object, device(&status), status.stx_ino) {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let reopened = format!("/proc/self/fd/{name}");
    let file = rustix::fs::open(&reopened, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| rustix::fs::open(&reopened, flags, Mode::empty()));
    file.ok().map(File::from)
}

fn is_it(object: &Object, device: u64, number: u64) -> bool {
    let (major, minor) = numbers::device(device);
    object.id.ends_with(&format!(":{major}:{minor}:{number}"))
        || (object.id.matches(':').count() == 1 && inode(object) == Some(number))
}

/// What somebody who maps it has there, from the beginning of that mapping.
fn by_memory(object: &Object, most: usize) -> Option<Contents> {
    let maps = object.ends.iter().filter_map(|end| match end.via {
        Via::Map(start) if start > 0 && end.reads => Some((end.pid, start)),
        _ => None,
    });
    for (pid, start) in maps {
        let Some((end, offset)) = mapping(pid, start, object) else { continue };
        let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { continue };
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(most)];
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        let mut found = Contents::of(Head::Bytes(bytes));
        found.more = len > most || object.size.is_some_and(|size| size > len as u64);
        if offset > 0 {
            found.notes.push(format!("from byte {offset} on, where process {pid} maps it"));
        }
        return Some(found);
    }
    None
}

/// Where a mapping ends, and where in the object it begins; none if it is another object's by now.
fn mapping(pid: u32, start: u64, object: &Object) -> Option<(u64, u64)> {
    let text = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let internal = rustix::fs::makedev(0, 1);
    let found =
        crate::source::maps::shared(&text, internal).into_iter().find(|one| one.start == start)?;
    let same = is_it(object, found.device, found.inode)
        || inode(object) == Some(found.inode)
        || object.id.split([':', '@']).nth(1) == Some(found.inode.to_string().as_str());
    same.then_some((found.end, found.offset))
}
