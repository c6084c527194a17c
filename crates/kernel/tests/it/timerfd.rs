//! Timers, waited for by poll.

use std::time::{Duration, Instant};

use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::timerfd::TimerFd;
use switchboard_testkit::DEADLINE;

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
