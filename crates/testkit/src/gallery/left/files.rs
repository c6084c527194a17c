//! POSIX memory and named semaphores: files in /dev/shm, of which the kernel knows neither maker nor last user.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::ffi::CStr;

use super::super::{Stage, Sure};
use super::segments::enter;
use super::{Leftover, digits, file_id, leak, look_alike, word};

pub(super) const TABLE: &[Leftover] = &[
    leak(
        "memory-python",
        "a Python program made shared memory, and was killed",
        |stage| {
            let path = generated();
            killed(stage, &path, "posix-shm");
        },
        Sure::Probable,
    ),
    leak(
        "memory-of-an-ended-id",
        "memory has the id of the process that made it in its name, which has ended",
        |stage| {
            let pid = stage.by_one_who_ends(false, || 0).1;
            killed(stage, &format!("/dev/shm/torch_{pid}_{}_0", digits(8)), "posix-shm");
        },
        Sure::Probable,
    ),
    leak(
        "memory-random",
        "a program made memory by a random name, and was killed while it had it mapped",
        |stage| {
            killed(stage, &format!("/dev/shm/frames-{}", digits(16)), "posix-shm");
        },
        Sure::Probable,
    ),
    leak(
        "memory-of-a-browser",
        "a browser made memory, and was killed",
        |stage| {
            killed(stage, &format!("/dev/shm/.org.chromium.Chromium.{}", digits(8)), "posix-shm");
        },
        Sure::Probable,
    ),
    leak(
        "memory-hidden",
        "a program was killed before it gave memory the name it is known by",
        |stage| {
            killed(stage, &format!("/dev/shm/.speed.{}", digits(16)), "posix-shm");
        },
        Sure::Probable,
    ),
    leak(
        "memory-in-a-namespace",
        "memory was left in the /dev/shm of another mount namespace",
        in_namespace,
        Sure::Probable,
    )
    .for_root(),
    leak(
        "memory-chosen",
        "a program made memory by a name that somebody thought of, and was killed",
        |stage| {
            killed(stage, &format!("/dev/shm/{}", word()), "posix-shm");
        },
        Sure::Possible,
    ),
    leak(
        "semaphore-python",
        "a Python program made a semaphore, and was killed",
        |stage| {
            killed(stage, &format!("/dev/shm/sem.mp-{}", digits(8)), "posix-sem");
        },
        Sure::Probable,
    ),
    leak(
        "semaphore-random",
        "a program made a semaphore by a random name, and ended",
        |stage| {
            killed(stage, &format!("/dev/shm/sem.{}", digits(12)), "posix-sem");
        },
        Sure::Probable,
    ),
    look_alike("memory-open", "a process has memory open, and has not mapped it", |stage| {
        let path = generated();
        let file = stage.removes_file(&path);
        stage.actor("owner", &[], |scene| scene.tell(open(&file)));
        stage.told();
        stage.is_about(file_id("posix-shm", path.as_ref()));
    }),
    look_alike(
        "memory-of-a-ring",
        "a process registered memory with its io_uring, and closed the descriptor",
        |stage| {
            let path = generated();
            let file = stage.removes_file(&path);
            stage.actor("owner", &[], |scene| {
                let fd = open(&file);
                super::sockets::register(path.as_ref());
                // SAFETY: the descriptor is this process's own.
                unsafe { libc::close(fd) };
                scene.tell(0);
            });
            stage.told();
            stage.is_about(file_id("posix-shm", path.as_ref()));
        },
    ),
    look_alike(
        "memory-mapped",
        "a process has memory mapped, and its descriptor is closed",
        |stage| {
            mapped_by(stage, libc::MAP_SHARED, 0);
        },
    ),
    look_alike(
        "memory-mapped-privately",
        "a process has memory mapped for itself alone, and reads it",
        |stage| {
            mapped_by(stage, libc::MAP_PRIVATE, 0);
        },
    ),
    look_alike(
        "memory-of-another-mount-namespace",
        "who has memory mapped went to another mount namespace",
        |stage| {
            mapped_by(stage, libc::MAP_SHARED, libc::CLONE_NEWNS);
        },
    )
    .for_root(),
    look_alike("memory-deleted", "memory has no name any more, and is still mapped", |stage| {
        mapped_by(stage, libc::MAP_SHARED, -1);
    }),
    look_alike(
        "memory-of-a-live-id",
        "memory has the id of the process that made it in its name, which lives",
        |stage| {
            stage.actor("owner", &[], |_| {});
            let path = format!("/dev/shm/torch_{}_{}_0", stage.last(), digits(8));
            left(stage, &path, "posix-shm", 0o600);
        },
    ),
    look_alike(
        "memory-of-a-live-program",
        "memory has the name of a program in its name, which lives",
        |stage| {
            stage.actor("postgres", &[], |_| {});
            left(stage, &format!("/dev/shm/PostgreSQL.{}", digits(10)), "posix-shm", 0o600);
        },
    ),
    look_alike(
        "memory-to-be-kept",
        "memory with a generated name is marked as to be kept",
        |stage| {
            left(stage, &generated(), "posix-shm", 0o1600);
        },
    ),
    look_alike("memory-of-a-state", "a value was set, for those who come later", |stage| {
        left(stage, &format!("/dev/shm/speed-{}", word()), "posix-shm", 0o600);
    }),
    look_alike(
        "memory-with-a-number",
        "a value was set by a name with a number, for those who come later",
        |stage| {
            left(stage, &format!("/dev/shm/{}-8080", word()), "posix-shm", 0o600);
        },
    ),
    look_alike(
        "semaphore-of-an-event",
        "a semaphore was notified, for a listener that comes later",
        |stage| {
            left(stage, &format!("/dev/shm/sem.ready-{}", word()), "posix-sem", 0o600);
        },
    ),
    look_alike(
        "semaphore-opened-now-and-then",
        "a semaphore is opened again each minute, for a moment, and nobody has it in between",
        |stage| {
            let path = format!("/dev/shm/sem.backup-{}", word());
            left(stage, &path, "posix-sem", 0o600);
            let file = std::ffi::CString::new(path).expect("a path");
            stage.actor("backup", &[], |_| {
                // SAFETY: a C string; the descriptor is this process's own.
                unsafe { libc::close(libc::open(file.as_ptr(), libc::O_RDWR)) };
                std::thread::sleep(std::time::Duration::from_secs(3600));
            });
        },
    ),
    look_alike(
        "memory-told-to-a-program",
        "memory was made for a program that was told its name, and has not opened it yet",
        |stage| {
            let path = generated();
            left(stage, &path, "posix-shm", 0o600);
            stage.program("reader", &["sh", "-c", "kill -STOP $$; cat \"$0\"", &path]);
        },
    ),
];

fn generated() -> String {
    format!("/dev/shm/psm_{}", digits(12))
}

/// Makes a file of a page and keeps it open.
fn open(path: &CStr) -> i32 {
    // SAFETY: a C string and a mode.
    let fd =
        unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600) };
    assert!(fd >= 0, "open: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is open.
    unsafe { libc::ftruncate(fd, 4096) };
    fd
}

fn map(path: &CStr, how: i32) -> i32 {
    let fd = open(path);
    // SAFETY: new memory where the kernel likes; the descriptor is this process's own.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, how, fd, 0);
        assert!(at != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        libc::close(fd);
    }
    0
}

fn killed(stage: &mut Stage, path: &str, kind: &str) {
    let file = stage.removes_file(path);
    stage.by_one_killed(|| map(&file, libc::MAP_SHARED));
    stage.is_about(file_id(kind, path.as_ref()));
}

/// A file that nobody has.
fn left(stage: &mut Stage, path: &str, kind: &str, mode: u32) {
    let file = stage.removes_file(path);
    stage.by_another(|| {
        open(&file);
        // SAFETY: a C string.
        unsafe { libc::chmod(file.as_ptr(), mode) }
    });
    stage.is_about(file_id(kind, path.as_ref()));
}

/// Memory that an actor has mapped, who then enters other namespaces (or takes its name away, for -1).
fn mapped_by(stage: &mut Stage, how: i32, namespaces: i32) {
    let path = generated();
    let file = stage.removes_file(&path);
    stage.actor("user", &[], |scene| {
        scene.tell(map(&file, how));
        if namespaces > 0 {
            scene.meet(2);
            enter(namespaces);
            let none = c"none".as_ptr();
            // SAFETY: C strings; concerns this mount namespace alone.
            unsafe {
                libc::mount(
                    none,
                    c"/".as_ptr(),
                    none,
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                );
                libc::mount(none, c"/dev/shm".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null());
            }
        }
    });
    stage.told();
    stage.is_about(file_id("posix-shm", path.as_ref()));
    if namespaces > 0 {
        stage.meet(2);
    }
    if namespaces < 0 {
        std::fs::remove_file(&path).expect("removed");
    }
}

fn in_namespace(stage: &mut Stage) {
    let path = std::ffi::CString::new(generated()).expect("a path");
    stage.actor("keeper", &[], |scene| {
        enter(libc::CLONE_NEWNS);
        let none = c"none".as_ptr();
        // SAFETY: C strings; concerns this mount namespace alone; the child uses what it copied.
        unsafe {
            libc::mount(
                none,
                c"/".as_ptr(),
                none,
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            );
            let mounted =
                libc::mount(none, c"/dev/shm".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null());
            assert!(mounted == 0, "mount: {}", std::io::Error::last_os_error());
            let child = libc::fork();
            if child == 0 {
                open(&path);
                libc::_exit(0);
            }
            let mut status = 0;
            libc::waitpid(child, &raw mut status, 0);
        }
        scene.tell(0);
    });
    stage.told();
    let seen = format!("/proc/{}/root{}", stage.last(), path.to_str().expect("text"));
    stage.is_about(file_id("posix-shm", seen.as_ref()));
}
