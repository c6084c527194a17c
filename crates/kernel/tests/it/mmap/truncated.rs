//! Mappings whose file is cut short behind their back, and every other `SIGBUS`.

#![allow(unsafe_code)]
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::sync::atomic::Ordering;

use rustix::process::{Resource, Rlimit};
use switchboard_kernel::mmap::{Mapping, Mode, page_bytes};
use switchboard_testkit::Child;
use switchboard_testkit::child::report;

use super::{Shared, error_of, map_all, opened, text_at};

#[test]
fn a_file_cut_by_another_process_is_an_error() {
    for mode in [Mode::ReadOnly, Mode::ReadWrite, Mode::Private] {
        let shared = Shared::new(40);
        let [mapping, untouched] = [(); 2].map(|()| shared.map(mode));
        let mut other = Child::role("mmap_reader", &[shared.path()]);
        other.expect("mapped");
        if mode == Mode::Private {
            mapping.write_at(20 * page_bytes(), b"gone too").expect("written");
        }
        other.tell("cut 3");
        other.expect("cut");
        assert_eq!(text_at(&mapping, 0, 3 * page_bytes()).expect("text").len(), 3 * page_bytes());
        assert!(!mapping.is_truncated());
        let error = text_at(&mapping, 3 * page_bytes() - 1, 2).expect_err("beyond the end");
        assert_eq!((error.call(), error.name()), ("mmap", "EIO"), "{mode:?}");
        assert!(mapping.is_truncated() && !untouched.is_truncated());
        let mut all = vec![0; mapping.len()];
        for result in [
            mapping.read_at(0, &mut all),
            mapping.read_at(20 * page_bytes(), &mut all[..8]),
            mapping.load_u64(0).map(drop),
            mapping.load_u32(0).map(drop),
        ] {
            assert_eq!(error_of(result), "EIO", "{mode:?}");
        }
        assert_eq!(error_of(untouched.read_at(0, &mut all)), "EIO", "{mode:?}");
        let again = shared.map(mode);
        assert_eq!(again.len(), 3 * page_bytes());
        assert_eq!(again.load_u64(0).expect("a word"), 0);
        // The one who cut it finds out likewise.
        other.tell(&format!("read {}", 5 * page_bytes()));
        other.expect("mmap: Input/output error (EIO)");
    }
}

#[test]
fn writing_beyond_the_cut_is_an_error() {
    let shared = Shared::new(8);
    let [copied, word, grown] = [(); 3].map(|()| shared.map(Mode::ReadWrite));
    let counter = word.atomic_u32(7 * page_bytes()).expect("a word");
    counter.store(5, Ordering::Relaxed);
    shared.file.set_len(page_bytes() as u64).expect("cut");
    assert_eq!(error_of(copied.write_at(page_bytes() - 2, b"across")), "EIO");
    assert!(!word.is_truncated());
    assert_eq!(counter.fetch_add(1, Ordering::Relaxed), 0);
    assert!(word.is_truncated());
    assert_eq!(error_of(word.atomic_u32(0)), "EIO");
    // Cut and grown again before anybody looked: zeroes, as documented.
    shared.file.set_len(8 * page_bytes() as u64).expect("grown");
    assert_eq!(grown.load_u32(7 * page_bytes()), Ok(0));
    assert!(!grown.is_truncated());
}

#[test]
fn the_rest_of_the_last_page_is_zeroes() {
    let shared = Shared::new(1);
    let mapping = shared.map(Mode::ReadWrite);
    mapping.write_at(100, b"cut off").expect("written");
    shared.file.set_len(102).expect("cut");
    assert_eq!(text_at(&mapping, 100, 7), Ok("cu\0\0\0\0\0".to_owned()));
    assert_eq!(error_of(Mapping::of_file(&shared.file, Mode::ReadOnly, 0, 103)), "EINVAL");
    let short = Mapping::of_file(&shared.file, Mode::ReadOnly, 0, 102).expect("a mapping");
    assert_eq!(error_of(short.read_at(102, &mut [0])), "EINVAL");
    shared.file.set_len(0).expect("cut");
    assert_eq!(error_of(short.read_at(0, &mut [0])), "EIO");
}

/// Cuts a mapped file and dies of what is no mapping's fault, or lives.
pub(crate) fn foreign_signal(arguments: &[String]) {
    extern "C" fn former(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel gives a whole siginfo_t; write and _exit are async-signal-safe.
        unsafe {
            let text = format!("\n@@ former {}\n", (*info).si_code);
            libc::write(1, text.as_ptr().cast(), text.len());
            if (*info).si_code > 0 {
                libc::_exit(7);
            }
        }
    }
    let [path, how, what] = arguments else { panic!("a path, how and what") };
    // SAFETY: sigaction is integers and an optional function.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_SIGINFO;
        action.sa_sigaction = match how.as_str() {
            "handled" => former as *const () as usize,
            "ignored" => libc::SIG_IGN,
            _ => libc::SIG_DFL,
        };
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
    }
    let _ =
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let file = opened(std::slice::from_ref(path));
    let [guarded, later] = [(); 2].map(|()| map_all(&file, Mode::ReadWrite));
    // SAFETY: a new mapping that this crate knows nothing of.
    let foreign = unsafe {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let (read, shared) = (ProtFlags::READ, MapFlags::SHARED);
        mmap(std::ptr::null_mut(), page_bytes(), read, shared, &file, 0).expect("a mapping")
    };
    file.set_len(0).expect("cut");
    report(error_of(guarded.read_at(0, &mut [0])));
    match what.as_str() {
        // SAFETY: a signal to this thread.
        "sent" => assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0),
        "blocked" => block_all_signals(),
        // SAFETY: not safe at all: this raises SIGBUS.
        _ => assert_eq!(unsafe { std::ptr::read_volatile(foreign.cast::<u8>()) }, 0),
    }
    report(error_of(later.read_at(0, &mut [0])));
}

fn block_all_signals() {
    // SAFETY: the set is filled in before it is used, and the old one is not asked for.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        assert_eq!(libc::sigfillset(&raw mut all), 0);
        let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        assert_eq!(blocked, 0);
    }
}

#[test]
fn any_other_sigbus_does_what_it_did() {
    use std::os::unix::process::ExitStatusExt;
    for (how, what, lines, signal, code) in [
        ("default", "fault", &["EIO"][..], Some(libc::SIGBUS), None),
        ("default", "sent", &["EIO"], Some(libc::SIGBUS), None),
        // Not answered, but not passed on either: the kernel kills, as documented.
        ("handled", "blocked", &["EIO"], Some(libc::SIGBUS), None),
        ("ignored", "fault", &["EIO"], Some(libc::SIGBUS), None),
        ("ignored", "sent", &["EIO", "EIO"], None, Some(0)),
        ("handled", "fault", &["EIO", "former 2"], None, Some(7)),
        ("handled", "sent", &["EIO", "former -6", "EIO"], None, Some(0)),
    ] {
        let shared = Shared::new(1);
        let mut child = Child::role("mmap_signal", &[shared.path(), how, what]);
        assert_eq!(child.remaining_lines(), lines, "{how} {what}");
        let status = child.wait();
        assert_eq!((status.signal(), status.code()), (signal, code), "{how} {what}");
    }
}

/// Fills the table of watched mappings; reports how many fit, and what the next one says.
pub(crate) fn table(arguments: &[String]) {
    let file = opened(arguments);
    let mut mappings = Vec::new();
    let error = loop {
        match Mapping::of_file(&file, Mode::ReadOnly, 0, page_bytes()) {
            Ok(mapping) => mappings.push(mapping),
            Err(error) => break error,
        }
    };
    report(format_args!("{} {}", mappings.len(), error.name()));
    report(error.advice().unwrap_or_default());
    let _ = mappings.pop();
    let again = Mapping::of_file(&file, Mode::ReadOnly, 0, page_bytes());
    report(again.is_ok());
    file.set_len(0).expect("cut");
    let all = mappings.iter().chain(&again).all(|mapping| mapping.load_u32(0).is_err());
    report(all);
}

#[test]
fn a_full_table_refuses_and_forgets_nobody() {
    let shared = Shared::new(1);
    let mut child = Child::role("mmap_table", &[shared.path()]);
    child.expect("1024 ENOMEM");
    let advice = child.line().expect("an advice");
    assert!(advice.contains("1024 mappings of files"), "{advice}");
    child.expect("true");
    child.expect("true");
}

/// Forks: the child adds to an anonymous word, and finds a file cut; both report.
pub(crate) fn forked(arguments: &[String]) {
    let file = opened(arguments);
    let cut = map_all(&file, Mode::ReadWrite);
    file.set_len(0).expect("cut");
    let memory = Mapping::anonymous(100).expect("memory");
    memory.write_at(8, b"before").expect("written");
    // SAFETY: the child calls only what is async-signal-safe: it allocates and locks nothing.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut found = [0; 6];
        let same = memory.read_at(8, &mut found).is_ok() && found == *b"before";
        let truncated = cut.load_u32(0).is_err() && cut.is_truncated();
        let said = memory.write_at(8, b"after!").is_ok();
        if same && truncated && said {
            memory.atomic_u32(0).expect("a word").fetch_add(7, Ordering::Release);
        }
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and `status` a whole integer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    report(format_args!("{status} {}", memory.load_u32(0).expect("a word")));
    report(text_at(&memory, 8, 6).expect("text"));
    report(cut.is_truncated());
}

#[test]
fn a_forked_child_shares_and_finds_out_for_itself() {
    let shared = Shared::new(1);
    let mut child = Child::role("mmap_fork", &[shared.path()]);
    child.expect("0 7");
    child.expect("after!");
    child.expect("false");
}

/// Threads that map, meet the cut and unmap, all at once, beside one whose mapping stays whole.
#[test]
fn threads_do_not_meet_each_others_marks() {
    let whole = Shared::new(1);
    let kept = whole.map(Mode::ReadWrite);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let cut = Shared::new(3);
                for _ in 0..100 {
                    cut.file.set_len(3 * page_bytes() as u64).expect("grown");
                    let mapping = cut.map(Mode::ReadWrite);
                    assert_eq!(mapping.write_at(0, &[1; 100]), Ok(()));
                    cut.file.set_len(page_bytes() as u64).expect("cut");
                    assert_eq!(error_of(mapping.load_u32(2 * page_bytes())), "EIO");
                    assert_eq!(kept.load_u32(0), Ok(0));
                }
            });
        }
    });
    assert!(!kept.is_truncated());
}

/// Two threads that touch the same missing pages at once both find out.
#[test]
fn both_threads_find_out() {
    for _ in 0..100 {
        let shared = Shared::new(2);
        let mapping = shared.map(Mode::ReadWrite);
        shared.file.set_len(0).expect("cut");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut buffer = vec![0; 2 * page_bytes()];
                    assert_eq!(error_of(mapping.read_at(0, &mut buffer)), "EIO");
                    assert_eq!(error_of(mapping.write_at(0, &buffer)), "EIO");
                });
            }
        });
    }
}
