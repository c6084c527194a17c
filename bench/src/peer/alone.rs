//! What one process does for itself, through the wrappers: locks that nobody contends for, copies to
//! and from shared memory, bytes moved inside the kernel.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use switchboard_kernel::file_lock::{Lock, Mode as LockMode};
use switchboard_kernel::inotify::{Buffer, Inotify, Mask};
use switchboard_kernel::io;
use switchboard_kernel::mmap::{Mapping, Mode};
use switchboard_kernel::pthread::Mutex;
use switchboard_kernel::shared_words::{OBJECT_BYTES, SharedWords};
use switchboard_kernel::splice::{Pages, SpliceFlags, splice, tee};
use switchboard_kernel::{Result, pipe, process};

use super::{Aligned, BYTES, Job, Known, MUTEX, OUT, PAGE, repeat};

pub(super) fn run(job: &Job, name: &str, _: (i32, i32)) -> Known {
    match name {
        "pthread-mutex" => {
            let memory = SharedWords::from_fd(process::inherited_descriptor(OUT)?)?;
            let mutex = Mutex::open(memory.slot(MUTEX, OBJECT_BYTES)?)?;
            repeat(job, || mutex.lock()?.or_repair(|| ()).map(drop))
        }
        "flock" => lock(job, Lock::flock(LockMode::Exclusive)),
        "process-lock" => lock(job, Lock::process(LockMode::Exclusive)),
        "open-file-lock" => lock(job, Lock::open_file(LockMode::Exclusive)),
        "inotify" => inotify(job),
        "splice" => splice_there_and_back(job),
        "tee" => tee_and_drop(job),
        "vmsplice" => vmsplice_and_drop(job),
        "memory-in-64" | "watched-in-64" => copy_in::<BYTES>(job),
        "memory-out-64" | "watched-out-64" => copy_out::<BYTES>(job),
        "memory-in-4096" | "watched-in-4096" => copy_in::<PAGE>(job),
        "memory-out-4096" | "watched-out-4096" => copy_out::<PAGE>(job),
        _ => Ok(false),
    }
}

fn lock(job: &Job, lock: Lock) -> Known {
    let file = process::inherited_descriptor(OUT)?;
    repeat(job, || lock.lock(&file)?.unlock())
}

/// One byte written to a watched file, and the event read.
fn inotify(job: &Job) -> Known {
    let file = std::fs::File::from(process::inherited_descriptor(OUT)?);
    let inotify = Inotify::new()?;
    inotify.watch_fd(&file, Mask::MODIFY)?;
    let mut buffer = Buffer::with_capacity(PAGE);
    repeat(job, || {
        file.write_at(b"x", 0).expect("a file in memory");
        inotify.try_read(&mut buffer)?;
        assert_eq!(buffer.events().count(), 1);
        Ok(())
    })
}

/// What a pipe holds.
const PIPE_BYTES: usize = 65_536;

fn splice_there_and_back(job: &Job) -> Known {
    let ((from, source), (back, there)) = (pipe::pipe()?, pipe::pipe()?);
    io::write_all(&source, &[0; PIPE_BYTES])?;
    let moved = |from, to| {
        splice(from, to, PIPE_BYTES, SpliceFlags::empty()).map(|n| assert_eq!(n, PIPE_BYTES))
    };
    repeat(job, || {
        moved(&from, &there)?;
        moved(&back, &source)
    })
}

fn tee_and_drop(job: &Job) -> Known {
    let ((from, source), (copy, to)) = (pipe::pipe()?, pipe::pipe()?);
    io::write_all(&source, &[0; PIPE_BYTES])?;
    let nowhere = nowhere();
    repeat(job, || {
        tee(&from, &to, PIPE_BYTES, SpliceFlags::empty()).map(|n| assert_eq!(n, PIPE_BYTES))?;
        dropped(&copy, &nowhere)
    })
}

fn vmsplice_and_drop(job: &Job) -> Known {
    let (from, to) = pipe::pipe()?;
    let nowhere = nowhere();
    let mut pages = Pages::new(PIPE_BYTES)?;
    pages.bytes_mut().fill(1);
    let mut frozen = pages.freeze()?;
    repeat(job, || {
        frozen.rewind();
        frozen.vmsplice(&to, SpliceFlags::empty()).map(|n| assert_eq!(n, PIPE_BYTES))?;
        dropped(&from, &nowhere)
    })
}

fn nowhere() -> std::fs::File {
    std::fs::File::options().write(true).open("/dev/null").expect("there is a /dev/null")
}

fn dropped(from: impl AsFd, nowhere: &std::fs::File) -> Result<()> {
    splice(from, nowhere, PIPE_BYTES, SpliceFlags::empty()).map(|n| assert_eq!(n, PIPE_BYTES))
}

fn mapping() -> Result<Mapping> {
    Mapping::of_file(process::inherited_descriptor(OUT)?, Mode::ReadWrite, 0, 2 * PAGE)
}

fn copy_in<const N: usize>(job: &Job) -> Known {
    let (mapping, bytes) = (mapping()?, Aligned([1; N]));
    // The copy is opaque to the compiler, as C's buffer is.
    repeat(job, || mapping.write_at(PAGE, &bytes.0))
}

fn copy_out<const N: usize>(job: &Job) -> Known {
    let (mapping, mut bytes) = (mapping()?, Aligned([0; N]));
    repeat(job, || mapping.read_at(PAGE, &mut bytes.0))
}
