//! Where a situation is made: actors are forked, have the descriptors they are given and no others, and end with the stage.
//!
//! Source: `fork(2)`, `prctl(2)`. A caretaker outlives even a stage that is killed, and removes what has a name.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::DEADLINE;

/// The stage of one situation.
#[derive(Debug)]
pub struct Stage {
    actors: Vec<(&'static str, i32)>,
    /// Those that end before the curtain rises.
    brief: Vec<i32>,
    descriptors: Vec<i32>,
    memory: Vec<(usize, usize)>,
    shared: &'static Shared,
    folder: PathBuf,
    /// The ids of objects that the situation is about.
    objects: Vec<String>,
    /// The write end that tells the caretaker of the stage's end.
    alive: i32,
}

/// What all on the stage have in common, and the caretaker.
#[derive(Debug)]
struct Shared {
    met: AtomicU32,
    /// System V sets and queues: how many, and their ids, queues as negative numbers less one.
    count: AtomicU32,
    ids: [AtomicI32; 32],
    /// System V segments, likewise.
    segments: (AtomicU32, [AtomicI32; 32]),
    /// What an actor said last, and how often one did.
    told: (AtomicI32, AtomicU32),
    /// Names to be removed, each with a letter before it and a zero behind: a file, or a queue.
    names: (AtomicU32, [AtomicU8; 4096]),
}

const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Nobody may have run for so many looks in a row.
const QUIET_LOOKS: u32 = 4;

fn checked(result: i32, what: &str) -> i32 {
    assert!(result >= 0, "{what}: {}", std::io::Error::last_os_error());
    result
}

impl Stage {
    /// An empty one.
    pub(super) fn new() -> Self {
        let size = size_of::<Shared>();
        let shared = anonymous(size) as *const Shared;
        // SAFETY: the mapping is as large as a `Shared`, aligned to a page, zero, which is valid for atomics, and
        // stays until the process ends.
        let shared: &'static Shared = unsafe { &*shared };
        let folder =
            tempfile::Builder::new().prefix("sb-gallery-").tempdir().expect("a folder").keep();
        let [read, alive] = pipe();
        // SAFETY: the child uses what it copied, and ends by `_exit`.
        if checked(unsafe { libc::fork() }, "fork") == 0 {
            close(alive);
            // What ends a test run by its process group must not keep the caretaker from its work.
            // SAFETY: concerns this process alone.
            unsafe { libc::setsid() };
            name("caretaker");
            for fd in 0..2 {
                close(fd);
            }
            while read_some(read) > 0 {}
            shared.remove_all();
            shared.remove_names();
            let _ = std::fs::remove_dir_all(&folder);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
        close(read);
        Self {
            actors: Vec::new(),
            brief: Vec::new(),
            descriptors: vec![alive],
            memory: Vec::new(),
            shared,
            folder,
            objects: Vec::new(),
            alive,
        }
    }

    /// A pipe: the ends to read and to write.
    pub(super) fn pipe(&mut self) -> (i32, i32) {
        let [read, write] = pipe();
        self.descriptors.extend([read, write]);
        (read, write)
    }

    /// A descriptor that only actors who keep it have.
    pub(super) fn own(&mut self, fd: i32) -> i32 {
        self.descriptors.push(checked(fd, "a descriptor"));
        fd
    }

    /// A path in a folder that goes away.
    pub(super) fn path(&self, name: &str) -> CString {
        CString::new(self.folder.join(name).into_os_string().into_encoded_bytes()).expect("a path")
    }

    /// Memory that the actors share, and the stage does not keep.
    pub(super) fn memory(&mut self) -> usize {
        let at = anonymous(4096);
        self.memory.push((at, 4096));
        at
    }

    /// A set of System V semaphores with these counts, which goes away.
    pub(super) fn semaphores(&mut self, counts: &[u16]) -> i32 {
        // SAFETY: makes a set.
        let id = unsafe { libc::semget(libc::IPC_PRIVATE, counts.len() as i32, 0o600) };
        self.shared.note(checked(id, "semget"));
        for (index, &count) in counts.iter().enumerate() {
            // SAFETY: SETVAL takes a number.
            let set =
                unsafe { libc::semctl(id, index as i32, libc::SETVAL, libc::c_int::from(count)) };
            checked(set, "semctl");
        }
        id
    }

    /// A System V queue, which goes away.
    pub(super) fn messages(&mut self) -> i32 {
        // SAFETY: makes a queue.
        let id = checked(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) }, "msgget");
        self.shared.note(-1 - id);
        id
    }

    /// A System V segment's id, which goes away.
    pub(super) fn segment(&self, id: i32) -> i32 {
        self.shared.note_segment(checked(id, "a segment"));
        id
    }

    /// A System V set's id, which goes away.
    pub(super) fn set(&self, id: i32) -> i32 {
        self.shared.note(checked(id, "a set"));
        id
    }

    /// A System V queue's id, which goes away.
    pub(super) fn queue(&self, id: i32) -> i32 {
        self.shared.note(-1 - checked(id, "a queue"));
        id
    }

    /// A file that is removed at the end, whoever makes it.
    pub(super) fn removes_file(&self, path: &str) -> CString {
        self.shared.note_name(b'F', path);
        CString::new(path).expect("a path")
    }

    /// A POSIX queue that is removed at the end.
    pub(super) fn removes_queue(&self, name: &str) -> CString {
        self.shared.note_name(b'Q', name);
        CString::new(name).expect("a name")
    }

    /// An object that the situation is about, as the inspector names it.
    pub(super) fn is_about(&mut self, id: String) {
        self.objects.push(id);
    }

    /// The objects that the situation is about.
    pub(super) fn objects(&self) -> &[String] {
        &self.objects
    }

    /// Has another process do something, which ends then and is reaped; what that came to.
    pub(super) fn by_another(&self, does: impl FnOnce() -> i32) -> i32 {
        self.by_one_who_ends(false, does).0
    }

    /// As [`Stage::by_another`], but it is killed while it has what it made.
    pub(super) fn by_one_killed(&self, does: impl FnOnce() -> i32) -> i32 {
        self.by_one_who_ends(true, does).0
    }

    /// As [`Stage::by_another`], with the id that the process had.
    pub(super) fn by_one_who_ends(&self, killed: bool, does: impl FnOnce() -> i32) -> (i32, i32) {
        let shared = self.shared;
        let pid = self.fork("brief", &self.descriptors, |_| {
            let result = does();
            shared.told.0.store(result, Ordering::SeqCst);
            // SAFETY: ends the child at once.
            unsafe {
                if killed {
                    libc::kill(libc::getpid(), libc::SIGKILL);
                }
                libc::_exit(0)
            };
        });
        let mut status = 0;
        // SAFETY: the child is this process's own.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(status, if killed { libc::SIGKILL } else { 0 }, "a brief process failed");
        (shared.told.0.load(Ordering::SeqCst), pid)
    }

    /// An actor that gets this process id and does nothing; needs CAP_CHECKPOINT_RESTORE.
    pub(super) fn actor_of_id(&mut self, name: &'static str, pid: i32) {
        let wanted = [pid];
        // SAFETY: zeroes are valid for `clone_args`.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.exit_signal = libc::SIGCHLD as u64;
        (arguments.set_tid, arguments.set_tid_size) = (wanted.as_ptr() as u64, 1);
        let size = size_of::<libc::clone_args>();
        // SAFETY: the arguments are whole, and the id lives on; the child makes system calls only.
        let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
        if made == 0 {
            // SAFETY: concerns this process alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            for &fd in self.descriptors.iter().chain(&[0, 1]) {
                close(fd);
            }
            idle();
        }
        assert_eq!(made, i64::from(pid), "clone3: {}", std::io::Error::last_os_error());
        self.actors.push((name, pid));
    }

    /// In a process that nobody waits for: sleeps until the stage is gone.
    pub(super) fn until_the_stage_ends(stage: u32) -> ! {
        // SAFETY: makes a descriptor; one entry, as said; ends this process.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, stage, 0) as i32;
            let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            libc::poll(&raw mut entry, 1, -1);
            libc::_exit(0)
        }
    }

    /// Waits until so many are here, this one among them.
    pub(super) fn meet(&self, count: u32) {
        Scene { shared: self.shared }.meet(count);
    }

    /// What the actor says that was made last.
    pub(super) fn told(&self) -> i32 {
        let until = Instant::now() + DEADLINE;
        while self.shared.told.1.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < until, "the actor says nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.shared.told.1.store(0, Ordering::SeqCst);
        self.shared.told.0.load(Ordering::SeqCst)
    }

    /// The actor that was made last.
    pub(super) fn last(&self) -> i32 {
        self.actors.last().expect("an actor").1
    }

    /// A process that does this, and then waits for ever. It has the descriptors in `keep`, and of the stage's no others.
    pub(super) fn actor(&mut self, name: &'static str, keep: &[i32], does: impl FnOnce(&Scene)) {
        let pid = self.fork(name, keep, does);
        self.actors.push((name, pid));
    }

    /// A program of the machine, which stops itself.
    pub(super) fn program(&mut self, name: &'static str, command: &[&str]) {
        let words: Vec<CString> =
            command.iter().map(|word| CString::new(*word).expect("no zero")).collect();
        let mut pointers: Vec<*const libc::c_char> =
            words.iter().map(|word| word.as_ptr()).collect();
        pointers.push(std::ptr::null());
        self.actor(name, &[], |_| {
            // SAFETY: C strings, and a list of them that a null ends.
            unsafe { libc::execvp(pointers[0], pointers.as_ptr()) };
            panic!("execvp: {}", std::io::Error::last_os_error());
        });
    }

    /// A process that does this, and ends.
    pub(super) fn brief(&mut self, name: &'static str, keep: &[i32], does: impl FnOnce(&Scene)) {
        let pid = self.fork(name, keep, |scene| {
            does(scene);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        });
        self.brief.push(pid);
    }

    /// As [`Stage::actor`], in a PID namespace of its own.
    pub(super) fn actor_in_namespace(
        &mut self,
        name: &'static str,
        keep: &[i32],
        does: impl FnOnce(&Scene),
    ) {
        let own = std::fs::File::open("/proc/self/ns/pid").expect("a namespace");
        // SAFETY: concerns children of this process only.
        checked(unsafe { libc::unshare(libc::CLONE_NEWPID) }, "unshare");
        self.actor(name, keep, does);
        // SAFETY: the descriptor is open; as above.
        let back =
            unsafe { libc::setns(std::os::fd::AsRawFd::as_raw_fd(&own), libc::CLONE_NEWPID) };
        checked(back, "setns");
    }

    fn fork(&self, actor: &'static str, keep: &[i32], does: impl FnOnce(&Scene)) -> i32 {
        // SAFETY: the child uses what it copied, and ends by `_exit`; nobody else on the stage holds a lock it needs.
        let pid = checked(unsafe { libc::fork() }, "fork");
        if pid == 0 {
            // SAFETY: concerns this process alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            name(actor);
            for &fd in self.descriptors.iter().chain(&[0, 1]) {
                if !keep.contains(&fd) {
                    close(fd);
                }
            }
            let scene = Scene { shared: self.shared };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| does(&scene)));
            if done.is_ok() {
                idle();
            }
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(1) };
        }
        pid
    }

    /// Lets go of what the actors have, waits until all of them sleep, and gives their names and ids.
    pub(super) fn settled(&mut self) -> Vec<(&'static str, i32)> {
        for &fd in self.descriptors.iter().filter(|&&fd| fd != self.alive) {
            close(fd);
        }
        for (at, len) in self.memory.drain(..) {
            // SAFETY: this process uses it no more.
            unsafe { libc::munmap(at as *mut libc::c_void, len) };
        }
        for &pid in &self.brief {
            let mut status = 0;
            // SAFETY: the child is this process's own.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
        }
        let until = Instant::now() + DEADLINE;
        let (mut before, mut quiet) = (Vec::new(), 0);
        while quiet < QUIET_LOOKS {
            assert!(Instant::now() < until, "the actors do not come to rest: {before:?}");
            std::thread::sleep(LOOK_AGAIN);
            let now: Vec<Option<String>> =
                self.actors.iter().map(|&(name, pid)| at_rest(name, pid)).collect();
            let same = now == before && now.iter().all(Option::is_some);
            quiet = if same { quiet + 1 } else { 0 };
            before = now;
        }
        self.actors.clone()
    }

    /// Ends everybody. What has a name, the caretaker removes.
    pub(super) fn end(self) {
        // Those who wait before those who are waited for.
        for &(_, pid) in self.actors.iter().rev() {
            // SAFETY: the child is this process's own, and was not waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        for &(_, pid) in &self.actors {
            let mut status = 0;
            // SAFETY: as above.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
        }
        close(self.alive);
    }
}

/// What an actor can do on the stage.
#[derive(Debug)]
pub(super) struct Scene {
    shared: &'static Shared,
}

impl Scene {
    /// Waits until so many actors are here.
    pub(super) fn meet(&self, count: u32) {
        self.shared.met.fetch_add(1, Ordering::SeqCst);
        let until = Instant::now() + DEADLINE;
        while self.shared.met.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < until, "nobody comes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Scene {
    /// Says something to the stage.
    pub(super) fn tell(&self, what: i32) {
        self.shared.told.0.store(what, Ordering::SeqCst);
        self.shared.told.1.fetch_add(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn note_segment(&self, id: i32) {
        let at = self.segments.0.fetch_add(1, Ordering::SeqCst) as usize;
        self.segments.1[at].store(id, Ordering::SeqCst);
    }

    fn note_name(&self, kind: u8, name: &str) {
        let bytes: Vec<u8> = [&[kind], name.as_bytes(), b"\0"].concat();
        let at = self.names.0.load(Ordering::SeqCst) as usize;
        for (place, byte) in self.names.1[at..at + bytes.len()].iter().zip(&bytes) {
            place.store(*byte, Ordering::SeqCst);
        }
        self.names.0.store((at + bytes.len()) as u32, Ordering::SeqCst);
    }

    fn remove_names(&self) {
        let len = self.names.0.load(Ordering::SeqCst) as usize;
        let bytes: Vec<u8> =
            self.names.1[..len].iter().map(|byte| byte.load(Ordering::SeqCst)).collect();
        for name in bytes.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let path = CString::new(&name[1..]).expect("no zero");
            // SAFETY: both take a C string.
            unsafe {
                if name[0] == b'F' {
                    libc::unlink(path.as_ptr())
                } else {
                    libc::mq_unlink(path.as_ptr())
                };
            }
        }
        let count = self.segments.0.load(Ordering::SeqCst) as usize;
        for id in self.segments.1.iter().take(count) {
            // SAFETY: IPC_RMID uses no argument.
            unsafe {
                libc::shmctl(id.load(Ordering::SeqCst), libc::IPC_RMID, std::ptr::null_mut())
            };
        }
    }

    fn note(&self, id: i32) {
        let at = self.count.fetch_add(1, Ordering::SeqCst) as usize;
        self.ids[at].store(id, Ordering::SeqCst);
    }

    fn remove_all(&self) {
        let count = self.count.load(Ordering::SeqCst) as usize;
        for id in self.ids.iter().take(count) {
            let id = id.load(Ordering::SeqCst);
            // SAFETY: IPC_RMID uses no argument.
            unsafe {
                if id >= 0 {
                    libc::semctl(id, 0, libc::IPC_RMID);
                } else {
                    libc::msgctl(-1 - id, libc::IPC_RMID, std::ptr::null_mut());
                }
            }
        }
    }
}

/// What shows whether an actor ran: its threads' states and how often they ran; none while one runs.
fn at_rest(name: &str, pid: i32) -> Option<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.unwrap_or_else(|error| panic!("the actor {name} is gone: {error}"));
    let mut text = String::new();
    for task in tasks {
        let task = task.ok()?.path();
        let stat = std::fs::read_to_string(task.join("stat")).ok()?;
        let state = stat.rsplit(')').next()?.trim_start().chars().next()?;
        assert!(state != 'Z', "the actor {name} has ended");
        if !matches!(state, 'S' | 'T' | 't' | 'D') {
            return None;
        }
        text.push(state);
        text += &std::fs::read_to_string(task.join("schedstat")).ok()?;
    }
    Some(text)
}

/// Sleeps for ever; a signal that is handled does not end it.
pub(super) fn idle() {
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

/// Waits until a process sleeps in [`idle`].
pub(super) fn until_idle(pid: i32) {
    #[cfg(target_arch = "x86_64")]
    const CALL: i64 = libc::SYS_pause;
    // Where there is no `pause(2)`, the C library waits for no descriptors.
    #[cfg(not(target_arch = "x86_64"))]
    const CALL: i64 = libc::SYS_ppoll;
    until(pid, "sleeps for ever", || {
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
        call.is_ok_and(|call| call.starts_with(&format!("{CALL} ")))
    });
}

/// Waits until the first thread of a process has ended.
pub(super) fn until_first_thread_ends(pid: i32) {
    until(pid, "has lost its first thread", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
    });
}

fn until(pid: i32, what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < until, "{pid} never {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Names this thread.
pub(super) fn name(name: &str) {
    let name = CString::new(name).expect("a name");
    // SAFETY: the name is a C string, of which the kernel copies up to 15 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Closes a descriptor that nobody else uses.
pub(super) fn close(fd: i32) {
    // SAFETY: the stage's own descriptors are closed once, by whoever does not keep them.
    unsafe { libc::close(fd) };
}

fn pipe() -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors. Close-on-exec, so that programs that actors start have none of them.
    checked(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, "pipe2");
    ends
}

fn anonymous(len: usize) -> usize {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: new memory where the kernel likes.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    assert!(at != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    at as usize
}

/// Reads once, whatever comes.
pub(super) fn read_some(fd: i32) -> isize {
    let mut buffer = [0_u8; 512];
    // SAFETY: the buffer is as long as said.
    unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) }
}

/// Writes until that blocks, and as long as somebody could read.
pub(super) fn write_on(fd: i32, len: usize) {
    let block = vec![b'x'; len];
    // SAFETY: the block is as long as said.
    while unsafe { libc::write(fd, block.as_ptr().cast(), block.len()) } > 0 {}
}
