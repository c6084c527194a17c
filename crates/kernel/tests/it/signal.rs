//! Tests of `signal.rs`.
//!
//! A role runs in a thread that the test harness starts, and what is sent to its process could
//! reach another thread. So programs are started with the mask that they would otherwise set
//! themselves before they start threads.

mod c;
mod handler;
mod mask;
mod names;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use switchboard_kernel::error::Result;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::pidfd;
use switchboard_kernel::process::Spawn;
use switchboard_kernel::signal::{self, Code, Received, Signal, SignalSet};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE};

pub(crate) use c::{SENDER, distrustful};
pub(crate) use handler::{recorder, restorer, waker};

use crate::privileges::{become_ordinary_user, is_root, wait_until_blocked_in};

pub(crate) fn rt(offset: u32) -> Signal {
    Signal::real_time(offset).expect("a real-time signal")
}

fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn error_of<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    result.expect_err("an error").name()
}

pub(crate) fn text(received: Received) -> String {
    let Received { signal, code, pid, uid, value, .. } = received;
    format!("{signal} {code:?} {pid:?} {uid:?} {value:?}")
}

/// What [`text`] says of a signal from this process.
pub(crate) fn from_here(signal: Signal, code: Code, value: Option<i32>) -> String {
    let (pid, uid) = (std::process::id(), rustix::process::getuid().as_raw());
    format!("{signal} {code:?} {:?} {:?} {value:?}", Some(pid), Some(uid))
}

/// Starts a role in a process all of whose threads have these blocked.
pub(crate) fn role_blocking<A: ToString>(blocked: &str, name: &str, arguments: &[A]) -> Child {
    Child::role_under(&["env", &format!("--block-signal={blocked}")], name, arguments)
}

fn mine() -> SignalSet {
    SignalSet::from([Signal::USR1, Signal::USR2, rt(0), rt(1), rt(2)])
}

/// Role: with signals blocked, takes all that are pending when told `take`, waits for one when told
/// `wait`, says its thread's id when told `thread`.
pub(crate) fn taker(arguments: &[String]) {
    let set = mine();
    let _guard = signal::block(&set).unwrap();
    if let Some(limit) = arguments.first() {
        let limit = Some(limit.parse().unwrap());
        let limit = Rlimit { current: limit, maximum: limit };
        rustix::process::setrlimit(Resource::Sigpending, limit).unwrap();
    }
    report("ready");
    while let Some(order) = instruction() {
        if order == "wait" {
            report(text(signal::wait(&set, Deadline::NEVER).unwrap().unwrap()));
            continue;
        }
        if order == "thread" {
            report(signal::thread_id());
            continue;
        }
        while let Some(received) = signal::wait(&set, now()).unwrap() {
            report(text(received));
        }
        report("no more");
    }
}

fn ready_taker(arguments: &[u64]) -> Child {
    let mut child = role_blocking("USR1,USR2,RTMIN,RTMIN+1,RTMIN+2", "signal-taker", arguments);
    child.expect("ready");
    child
}

fn taken(child: &mut Child) -> Vec<String> {
    child.tell("take");
    std::iter::from_fn(|| child.line().filter(|line| line != "no more")).collect()
}

#[test]
fn a_process_gets_signals_with_sender_and_value() {
    let mut child = ready_taker(&[]);
    let (pid, pidfd) = (child.id(), pidfd::open(child.id()).unwrap());
    child.tell("thread");
    let thread = child.line().unwrap().parse().unwrap();
    let mut check = |send: &dyn Fn() -> Result<()>, signal, code, value| {
        send().unwrap();
        assert_eq!(taken(&mut child), [from_here(signal, code, value)]);
    };
    check(&|| signal::send(pid, Signal::USR1), Signal::USR1, Code::Kill, None);
    check(&|| signal::send_pidfd(&pidfd, rt(1)), rt(1), Code::Kill, None);
    check(&|| signal::send_thread(pid, thread, Signal::USR1), Signal::USR1, Code::Thread, None);
    let value = Some(i32::MIN);
    check(&|| signal::queue(pid, rt(1), i32::MIN), rt(1), Code::Queue, value);
    check(&|| signal::queue_pidfd(&pidfd, rt(1), -1), rt(1), Code::Queue, Some(-1));
    check(&|| signal::queue_pidfd(&pidfd, Signal::USR2, 7), Signal::USR2, Code::Queue, Some(7));
    check(&|| signal::queue_thread(pid, thread, rt(2), 41), rt(2), Code::Queue, Some(41));
}

#[test]
fn a_process_that_waits_is_woken() {
    let mut child = ready_taker(&[]);
    child.tell("wait");
    wait_until_blocked_in(child.id(), libc::SYS_rt_sigtimedwait);
    signal::queue(child.id(), rt(1), 5).unwrap();
    child.expect(&from_here(rt(1), Code::Queue, Some(5)));
}

#[test]
fn standard_signals_merge_and_real_time_ones_queue_by_number() {
    let mut child = ready_taker(&[]);
    for value in 0..3 {
        for signal in [rt(1), rt(0), Signal::USR1] {
            signal::queue(child.id(), signal, value).unwrap();
        }
    }
    let expected =
        [(Signal::USR1, 0), (rt(0), 0), (rt(0), 1), (rt(0), 2), (rt(1), 0), (rt(1), 1), (rt(1), 2)];
    let expected = expected.map(|(signal, value)| from_here(signal, Code::Queue, Some(value)));
    assert_eq!(taken(&mut child), expected);
}

#[test]
fn the_queue_is_full_at_the_receivers_limit() {
    let mut child = ready_taker(&[1000]);
    let mut queued = 0;
    let refused = loop {
        match signal::queue(child.id(), rt(1), queued) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
        assert!(queued <= 1000, "no limit");
    };
    assert_eq!((refused.name(), refused.call()), ("EAGAIN", "sigqueue"));
    assert!((500..=1000).contains(&queued), "{queued}");
    // Without a queue entry there is no sender; and a standard signal always has one.
    signal::send(child.id(), rt(2)).unwrap();
    signal::send(child.id(), rt(2)).unwrap();
    signal::send(child.id(), Signal::USR1).unwrap();

    let mut expected = vec![from_here(Signal::USR1, Code::Kill, None)];
    expected.extend((0..queued).map(|value| from_here(rt(1), Code::Queue, Some(value))));
    expected.push(format!("{} Kill None Some(0) None", rt(2)));
    assert_eq!(taken(&mut child), expected);
    signal::queue(child.id(), rt(1), 0).expect("room again");
}

#[test]
fn what_a_killed_sender_sent_stays() {
    let mut receiver = ready_taker(&[]);
    let mut sender = Child::role("signal-sender", &[receiver.id()]);
    sender.expect("sent");
    sender.kill();
    let uid = rustix::process::getuid().as_raw();
    let expected = format!("{} Queue {:?} {:?} Some(99)", rt(1), Some(sender.id()), Some(uid));
    assert_eq!(taken(&mut receiver), [expected]);
}

/// Role: sends 99, and stays.
pub(crate) fn sender(arguments: &[String]) {
    signal::queue(arguments[0].parse().unwrap(), rt(1), 99).unwrap();
    report("sent");
    let _ = instruction();
}

#[test]
fn a_killed_receiver_is_gone_once_it_was_waited_for() {
    let mut child = Spawn::new("sleep").arg("1000").die_with_parent().spawn().unwrap();
    let pidfd = pidfd::open(child.id()).unwrap();
    signal::send_pidfd(&pidfd, Signal::KILL).unwrap();
    assert!(pidfd::wait_dead(&pidfd, Deadline::after(DEADLINE)).unwrap());
    // A zombie: not waited for yet.
    signal::send(child.id(), Signal::TERM).unwrap();
    signal::queue_pidfd(&pidfd, rt(1), 1).unwrap();
    assert_eq!(child.kill().unwrap().signal(), Some(libc::SIGKILL));
    assert_eq!(error_of(signal::send_pidfd(&pidfd, Signal::TERM)), "ESRCH");
    assert_eq!(error_of(signal::queue_pidfd(&pidfd, rt(1), 1)), "ESRCH");
}

#[test]
fn a_wait_ends_at_its_deadline_and_at_nothing_else() {
    let set = SignalSet::from(Signal::USR1);
    let guard = signal::block(&set).unwrap();
    assert_eq!(signal::wait(&set, now()), Ok(None));
    let since = Instant::now();
    assert_eq!(signal::wait(&set, Deadline::after(Duration::from_millis(20))), Ok(None));
    assert!(since.elapsed() >= Duration::from_millis(20));
    drop(guard);

    let mut child = role_blocking("USR1", "signal-interrupted", &[""; 0]);
    child.expect("ready");
    for handled in ["1", "2"] {
        wait_until_blocked_in(child.id(), libc::SYS_rt_sigtimedwait);
        signal::send(child.id(), Signal::USR2).unwrap();
        child.expect(handled);
    }
    signal::send(child.id(), Signal::USR1).unwrap();
    child.expect(&from_here(Signal::USR1, Code::Kill, None));
}

/// Role: waits for USR1 while USR2 interrupts; another thread tells how often it did.
pub(crate) fn interrupted(_: &[String]) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let set = SignalSet::from(Signal::USR1);
    let _guard = signal::block(&set).unwrap();
    let action = signal::Action::Count(&COUNT);
    let _handler = signal::Handler::install_interrupting(Signal::USR2, action).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The signals should interrupt the other thread.
            let _guard = signal::block(&SignalSet::all()).unwrap();
            report("ready");
            for seen in 1..=2 {
                while COUNT.load(Ordering::Acquire) < seen {
                    std::thread::sleep(Duration::from_millis(1));
                }
                report(seen);
            }
        });
        let received = signal::wait(&set, Deadline::NEVER).unwrap().unwrap();
        report(text(received));
    });
}

#[test]
fn a_thread_gets_what_is_sent_to_it() {
    let (said, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let set = SignalSet::from([Signal::USR1, rt(3)]);
        let _guard = signal::block(&set).unwrap();
        said.send(signal::thread_id()).unwrap();
        let first = signal::wait(&set, Deadline::after(DEADLINE)).unwrap().unwrap();
        let second = signal::wait(&set, Deadline::after(DEADLINE)).unwrap().unwrap();
        [first, second]
    });
    let (process, id) = (std::process::id(), told.recv().unwrap());
    signal::send_thread(process, id, Signal::USR1).unwrap();
    signal::queue_thread(process, id, rt(3), 3).unwrap();
    let mut got = thread.join().unwrap();
    got.sort_by_key(|received| received.signal);
    assert_eq!(
        got.map(|received| (received.code, received.value)),
        [(Code::Thread, None), (Code::Queue, Some(3)),]
    );
    assert_eq!(got.map(|received| received.is_sender_verified()), [true, false]);
    // The kernel says that a thread has ended shortly before it forgets it.
    let since = Instant::now();
    while Path::new(&format!("/proc/self/task/{id}")).exists() {
        assert!(since.elapsed() < DEADLINE, "thread {id} does not go");
        std::thread::yield_now();
    }
    assert_eq!(error_of(signal::send_thread(process, id, Signal::USR1)), "ESRCH");
}

#[test]
fn a_group_gets_it_together() {
    let (reader, writer) = switchboard_kernel::pipe::pipe().unwrap();
    let mut child = Spawn::new("sh")
        .args(["-c", "sleep 1000 & echo both; wait"])
        .stdout(writer)
        .new_process_group()
        .spawn()
        .unwrap();
    let mut buffer = [0; 8];
    assert_eq!(switchboard_kernel::io::read_full(&reader, &mut buffer[..5]), Ok(5));
    assert_eq!(&buffer[..5], b"both\n");
    signal::send_group(child.id(), Signal::TERM).unwrap();
    // The end of file says that the second one has ended too.
    crate::hand_over::ready(&reader);
    assert_eq!(switchboard_kernel::io::read(&reader, &mut buffer), Ok(0));
    let status = child.wait(Deadline::after(DEADLINE)).unwrap().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGTERM));
}

#[test]
fn ids_that_mean_many_processes_are_refused() {
    for id in [0, u32::MAX, i32::MAX.cast_unsigned() + 1] {
        assert_eq!(error_of(signal::send(id, Signal::CONT)), "EINVAL");
        assert_eq!(error_of(signal::send_group(id, Signal::CONT)), "EINVAL");
        assert_eq!(error_of(signal::queue(id, Signal::CONT, 1)), "EINVAL");
        assert_eq!(error_of(signal::send_thread(id, 1, Signal::CONT)), "EINVAL");
        assert_eq!(error_of(signal::queue_thread(1, id, Signal::CONT, 1)), "EINVAL");
    }
    assert_eq!(error_of(signal::send_group(1, Signal::CONT)), "EINVAL");
    let null = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(error_of(signal::send_pidfd(null, Signal::CONT)), "EBADF");
}

#[test]
fn another_users_process_is_out_of_reach() {
    let mut child = Child::role("signal-stranger", &[std::process::id()]);
    if is_root() {
        child.expect("EPERM EPERM EPERM");
    } else {
        child.expect("allowed");
    }
}

/// Role: as an ordinary user, signals a process that may be root's.
pub(crate) fn stranger(arguments: &[String]) {
    let pid = arguments[0].parse().unwrap();
    become_ordinary_user();
    // SIGCONT would be allowed within one session, SIGURG does nothing.
    let pidfd = pidfd::open(pid).unwrap();
    let sent = [
        signal::send(pid, Signal::URG),
        signal::queue(pid, Signal::URG, 1),
        signal::queue_pidfd(pidfd, Signal::URG, 1),
    ];
    if sent.iter().all(Result::is_ok) {
        report("allowed");
    } else {
        report(sent.map(error_of).join(" "));
    }
}

#[test]
fn a_child_that_ended_says_so() {
    let mut child = role_blocking("CHLD", "signal-parent", &[""; 0]);
    child.expect("reason 1 status 3, from it");
    child.expect("reason 2 status 15, from it");
}

/// Role: takes SIGCHLD of two children.
pub(crate) fn parent(_: &[String]) {
    let set = SignalSet::from(Signal::CHILD);
    let _guard = signal::block(&set).unwrap();
    for script in ["exit 3", "kill $$"] {
        let mut child = Spawn::new("sh").args(["-c", script]).spawn().unwrap();
        let received = signal::wait(&set, Deadline::after(DEADLINE)).unwrap().unwrap();
        let Code::Child { reason, status } = received.code else {
            panic!("{received:?}");
        };
        assert!(received.is_sender_verified());
        assert_eq!(received.pid, Some(child.id()));
        report(format_args!("reason {reason} status {status}, from it"));
        child.wait(Deadline::NEVER).unwrap();
    }
}
