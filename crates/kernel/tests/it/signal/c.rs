//! With C at the other end.

use switchboard_kernel::io::Deadline;
use switchboard_kernel::signal::{self, Code, SignalSet};
use switchboard_testkit::DEADLINE;
use switchboard_testkit::child::report;

use super::{role_blocking, rt, text};
use crate::c_program::compile;

const RECEIVER: &str = r#"
#include <signal.h>
#include <stdio.h>
int main(void) {
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    puts("ready");
    fflush(stdout);
    sigwaitinfo(&set, &info);
    printf("%d %d %d %d %d\n", info.si_signo - SIGRTMIN, info.si_code == SI_QUEUE,
           (int)info.si_pid, (int)info.si_uid, info.si_value.sival_int);
    return 0;
}
"#;

#[test]
fn a_c_program_takes_a_value() {
    let Some(program) = compile("a_c_program_takes_a_value", RECEIVER) else { return };
    let mut child = program.start(&[]);
    child.expect("ready");
    let pidfd = switchboard_kernel::pidfd::open(child.id()).unwrap();
    signal::queue_pidfd(pidfd, rt(1), -123_456).unwrap();
    let (pid, uid) = (std::process::id(), rustix::process::getuid().as_raw());
    child.expect(&format!("1 1 {pid} {uid} -123456"));
    assert!(child.wait().success());
}

/// The second signal says that it is from process 1 and of user 4711.
pub(crate) const SENDER: &str = r#"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    pid_t pid = atoi(argv[1]);
    union sigval value = { .sival_int = 17 };
    siginfo_t forged;
    if (sigqueue(pid, SIGRTMIN + 1, value)) return 1;
    memset(&forged, 0, sizeof forged);
    forged.si_code = SI_QUEUE;
    forged.si_pid = 1;
    forged.si_uid = 4711;
    forged.si_value.sival_int = 18;
    if (syscall(SYS_rt_sigqueueinfo, pid, SIGRTMIN + 1, &forged)) return 2;
    forged.si_code = SI_USER;
    return syscall(SYS_rt_sigqueueinfo, pid, SIGRTMIN + 1, &forged) == -1 ? 0 : 3;
}
"#;

#[test]
fn a_c_program_sends_a_value_and_may_lie_about_itself() {
    let test = "a_c_program_sends_a_value_and_may_lie_about_itself";
    let Some(program) = compile(test, SENDER) else { return };
    let mut receiver = role_blocking("RTMIN+1", "signal-distrustful", &[""; 0]);
    receiver.expect("ready");
    let mut sender = program.command().arg(receiver.id().to_string()).spawn().unwrap();
    let pid = sender.id();
    assert_eq!(sender.wait().unwrap().code(), Some(0));
    let uid = rustix::process::getuid().as_raw();
    receiver.expect(&format!("SIGRTMIN+1 Queue {:?} {:?} Some(17)", Some(pid), Some(uid)));
    receiver.expect("SIGRTMIN+1 Queue Some(1) Some(4711) Some(18)");
    receiver.expect("nothing verified");
}

/// Role: takes two signals with values.
pub(crate) fn distrustful(_: &[String]) {
    let set = SignalSet::from(rt(1));
    let _guard = signal::block(&set).unwrap();
    report("ready");
    for _ in 0..2 {
        let received = signal::wait(&set, Deadline::after(DEADLINE)).unwrap().unwrap();
        assert!(received.code == Code::Queue && !received.is_sender_verified());
        report(text(received));
    }
    report("nothing verified");
}
