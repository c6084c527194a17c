//! Processes as descriptors.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::pidfd;
use switchboard_kernel::process::{Signal, Spawn};
use switchboard_testkit::{Child, DEADLINE};

use crate::{hand_over, python};

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

#[test]
fn readable_after_a_kill() {
    let mut child = Child::role::<&str>("process_waiter", &[]);
    child.expect("waiting");
    let pidfd = pidfd::open(child.id()).expect("a pidfd");
    assert_eq!(pidfd::is_dead(&pidfd), Ok(false));
    assert_eq!(pidfd::wait_dead(&pidfd, Deadline::after(Duration::from_millis(1))), Ok(false));
    pidfd::send_signal(&pidfd, Signal::KILL).expect("its child");
    assert_eq!(pidfd::wait_dead(&pidfd, soon()), Ok(true));
    child.kill();
    // Reaped: the id may be another's by now, the descriptor still means the one that died.
    assert_eq!(pidfd::is_dead(&pidfd), Ok(true));
    let late = pidfd::send_signal(&pidfd, Signal::KILL);
    assert_eq!(late.map_err(|error| error.name()), Err("ESRCH"));
}

#[test]
fn waiting_tells_how_a_child_ended() {
    for (script, code, signal) in
        [("exit 0", Some(0), None), ("exit 77", Some(77), None), ("kill -KILL $$", None, Some(9))]
    {
        let child = Spawn::new("sh").args(["-c", script]).spawn().expect("a shell");
        let status = pidfd::wait(child.pidfd(), soon()).expect("its status").expect("its end");
        assert_eq!((status.code(), status.signal()), (code, signal), "{script}");
        let again = pidfd::wait(child.pidfd(), soon());
        assert_eq!(again.map_err(|error| error.name()), Err("ECHILD"));
    }
}

#[test]
fn only_children_can_be_waited_for() {
    let own = pidfd::open(std::process::id()).expect("a pidfd");
    let refused = pidfd::wait(&own, soon());
    assert_eq!(refused.map_err(|error| error.name()), Err("ECHILD"));
}

#[test]
fn ids_that_are_nobodys() {
    for (pid, name) in [(0, "EINVAL"), (u32::MAX, "EINVAL"), (i32::MAX.cast_unsigned(), "ESRCH")] {
        assert_eq!(pidfd::open(pid).map(drop).map_err(|error| error.name()), Err(name), "{pid}");
    }
}

#[test]
fn python_kills_ours_and_we_kill_python() {
    let mut ours = Child::role::<&str>("process_waiter", &[]);
    ours.expect("waiting");
    let pidfd = pidfd::open(ours.id()).expect("a pidfd");
    let program = "import select, signal\n\
                   poll = select.poll()\n\
                   poll.register(fds[0], select.POLLIN)\n\
                   say(poll.poll(0))\n\
                   signal.pidfd_send_signal(fds[0], signal.SIGKILL)\n\
                   say(len(poll.poll()))\n";
    let (test, module) = ("python_kills_ours_and_we_kill_python", "signal, os; os.pidfd_open");
    let Some(mut python) = python::start_with(test, module, program, &[pidfd.as_fd()]) else {
        return;
    };
    python.expect("[]");
    python.expect("1");
    assert_eq!(ours.wait().signal(), Some(libc::SIGKILL));

    let program = "give(meet(), os.pidfd_open(os.getpid()))\ntold()";
    let (mut python, connection) =
        python::meet(test, module, program, &[]).expect("Python, as before");
    let pidfd = hand_over::given(&connection);
    assert_eq!(pidfd::is_dead(&pidfd), Ok(false));
    pidfd::send_signal(&pidfd, Signal::KILL).expect("its own descriptor");
    assert_eq!(pidfd::wait_dead(&pidfd, soon()), Ok(true));
    assert_eq!(python.wait().signal(), Some(libc::SIGKILL));
}
