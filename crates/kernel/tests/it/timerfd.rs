//! Timers, waited for by poll, that outlive the processes which armed them.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::timerfd::TimerFd;
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::{instruction, report};

use crate::{hand_over, python};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(3600);

fn expires(timer: &TimerFd) -> bool {
    wait_for(timer, Interest::Readable, Deadline::after(DEADLINE)).expect("poll")
}

#[test]
fn expires_once_and_not_early() {
    let timer = TimerFd::new().expect("a timer");
    assert_eq!(timer.clear(), Ok(0));
    let start = Instant::now();
    timer.arm(SHORT, None).expect("armed");
    assert!(expires(&timer));
    assert!(start.elapsed() >= SHORT);
    assert_eq!(timer.clear(), Ok(1));
    assert_eq!(timer.clear(), Ok(0));
}

#[test]
fn counts_expirations_of_an_interval() {
    let timer = TimerFd::new().expect("a timer");
    let start = Instant::now();
    timer.arm(Duration::ZERO, Some(SHORT)).expect("armed");
    let mut expirations = 0;
    while expirations < 3 {
        assert!(expires(&timer));
        expirations += timer.clear().expect("a count");
    }
    assert!(start.elapsed() >= SHORT * 2);
}

#[test]
fn disarmed_or_armed_anew_it_forgets() {
    let timer = TimerFd::new().expect("a timer");
    timer.arm(Duration::ZERO, None).expect("armed");
    assert!(expires(&timer));
    timer.arm(LONG, None).expect("armed");
    assert_eq!(timer.clear(), Ok(0));
    timer.arm(Duration::ZERO, Some(Duration::ZERO)).expect("armed");
    assert!(expires(&timer));
    timer.disarm().expect("disarmed");
    assert_eq!(timer.clear(), Ok(0));
}

/// Role: arms the timer it was given to expire again and again, and stays.
pub(crate) fn armer(arguments: &[String]) {
    let (mut fds, _) = hand_over::take(arguments);
    let timer = TimerFd::received(fds.remove(0)).expect("a timer");
    timer.arm(SHORT, Some(SHORT)).expect("armed");
    report("armed");
    let _ = instruction();
}

/// It runs on: two looks at it, so that it expired once more after the first.
fn runs(timer: &TimerFd) {
    for _ in 0..2 {
        assert!(expires(timer));
        assert!(timer.clear().expect("a count") > 0);
    }
}

#[test]
fn a_timer_runs_on_when_who_armed_it_or_waited_for_it_is_killed() {
    let timer = TimerFd::new().expect("a timer");
    let mut armer = hand_over::start("timerfd-armer", &[], &[timer.as_fd()]);
    armer.expect("armed");
    runs(&timer);
    armer.kill();
    runs(&timer);
    let mut holder = hand_over::start("hand-over-holder", &[], &[timer.as_fd()]);
    holder.expect("holding");
    holder.kill();
    runs(&timer);
}

#[test]
fn only_a_timer_is_received() {
    let (reader, _writer) = switchboard_kernel::pipe::pipe().expect("a pipe");
    let refused = TimerFd::received(reader).map(drop).expect_err("a pipe");
    assert_eq!((refused.call(), refused.name()), ("timerfd_gettime", "EINVAL"));
}

/// Waits for the timer that it was given, then makes one, by the C library: struct itimerspec is the
/// interval and the first time.
const PYTHON: &str = "
import select
connection = meet()
theirs = take(connection)[0]
select.select([theirs], [], [])
say(int.from_bytes(os.read(theirs, 8), sys.byteorder) > 0)
timer = c('timerfd_create', 1, os.O_CLOEXEC)
times = (ctypes.c_long * 4)(0, 20_000_000, 0, 20_000_000)
say(c('timerfd_settime', timer, 0, times, None))
give(connection, timer)
told()
";

#[test]
fn python_waits_for_ours_and_we_for_its() {
    let test = "python_waits_for_ours_and_we_for_its";
    let Some((mut python, connection)) = python::meet(test, "ctypes", PYTHON, &[]) else { return };
    let timer = TimerFd::new().expect("a timer");
    let mut armer = hand_over::start("timerfd-armer", &[], &[timer.as_fd()]);
    armer.expect("armed");
    armer.kill();
    switchboard_kernel::unix_socket::send_with_fds(&connection, b"timer", &[timer.as_fd()])
        .expect("sent");
    python.expect("True");
    python.expect("0");
    let timer = TimerFd::received(hand_over::given(&connection)).expect("a timer");
    runs(&timer);
    python.kill();
    runs(&timer);
}
