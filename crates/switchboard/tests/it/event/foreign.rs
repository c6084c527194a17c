//! Programs that are not ours on the other side: Python, kill(1); and a set that is removed.

use switchboard::{Event, object};
use switchboard_testkit::Child;

use super::{Place, ask, ask_event, listening, notifying};
use crate::place::{python, run_python};

#[test]
fn python_and_a_posix_semaphore() {
    let test = "python_and_a_posix_semaphore";
    let Some(python) = python(test, "posix_ipc") else { return };
    let place = Place::of("sem");
    let name = place.target();
    let make = "import posix_ipc, sys\n\
                s = posix_ipc.Semaphore(sys.argv[1], posix_ipc.O_CREX, initial_value=2)";
    run_python(&python, make, &[name]);
    let (mut listener, address) = listening(&place.address);
    ask_event(&mut listener, "try");
    ask_event(&mut listener, "try");
    assert_eq!(ask(&mut listener, "try"), "none");
    let release = "import posix_ipc, sys\nposix_ipc.Semaphore(sys.argv[1]).release()";
    assert_eq!(ask(&mut listener, "forever"), "waiting");
    run_python(&python, release, &[name]);
    assert!(listener.line().is_some_and(|line| line.starts_with("event ")));
    assert_eq!(ask(&mut notifying(&address), "notify"), "done");
    let acquire = "import posix_ipc, sys\n\
                   s = posix_ipc.Semaphore(sys.argv[1])\ns.acquire(10)\nprint(s.value)";
    assert_eq!(run_python(&python, acquire, &[name]), "0");
}

#[test]
fn python_and_a_system_v_semaphore() {
    let test = "python_and_a_system_v_semaphore";
    let Some(python) = python(test, "sysv_ipc") else { return };
    let place = Place::of("sysv-sem");
    let key = "k = sysv_ipc.ftok(sys.argv[1], 1, silence_warning=True)\n";
    let program = |rest: &str| format!("import sysv_ipc, sys\n{key}{rest}");
    let make = program("s = sysv_ipc.Semaphore(k, sysv_ipc.IPC_CREX, initial_value=1)");
    run_python(&python, &make, &[place.target()]);
    let (mut listener, address) = listening(&place.address);
    ask_event(&mut listener, "try");
    assert_eq!(ask(&mut listener, "forever"), "waiting");
    let release = program("sysv_ipc.Semaphore(k).release()");
    run_python(&python, &release, &[place.target()]);
    assert!(listener.line().is_some_and(|line| line.starts_with("event ")));
    assert_eq!(ask(&mut notifying(&address), "notify"), "done");
    let acquire = program("s = sysv_ipc.Semaphore(k)\ns.acquire(10)\nprint(s.value)");
    assert_eq!(run_python(&python, &acquire, &[place.target()]), "0");
}

#[test]
fn kill_and_python_and_signals() {
    let (mut listener, _) = listening("signal:self/SIGUSR1");
    assert_eq!(ask(&mut listener, "forever"), "waiting");
    let kill = format!("kill -USR1 {}", listener.id());
    let status = std::process::Command::new("sh").args(["-c", &kill]).status();
    assert!(status.expect("a shell").success());
    assert!(listener.line().is_some_and(|line| line.starts_with("event merged=true")));

    let Some(python) = python("kill_and_python_and_signals", "signal") else { return };
    let mut command = std::process::Command::new(&python);
    let program = "import signal\ns = {signal.SIGRTMIN + 1}\n\
                   signal.pthread_sigmask(signal.SIG_BLOCK, s)\nprint('ready', flush=True)\n\
                   i = signal.sigwaitinfo(s)\nprint(i.si_pid, flush=True)";
    command.args(["-c", program]);
    let mut child = Child::command(command);
    child.expect("ready");
    let mut notifier = notifying(&format!("signal:{}/SIGRTMIN+1", child.id()));
    assert_eq!(ask(&mut notifier, "value 5"), "done");
    child.expect(&notifier.id().to_string());
}

#[test]
fn a_set_that_is_removed_wakes_its_listeners() {
    let place = Place::of("sysv-sem");
    let (mut listener, address) = listening(&place.address);
    let mut notifier = notifying(&address);
    assert_eq!(ask(&mut listener, "forever"), "waiting");
    object::unlink(&place.parsed("")).expect("removed");
    let answer = listener.line().expect("an answer");
    assert!(answer.starts_with("error System") && answer.contains("removed"), "{answer}");
    let answer = ask(&mut notifier, "notify");
    assert!(answer.starts_with("error System") && answer.contains("removed"), "{answer}");
    // Whoever opens it again makes a new one.
    Event::open(&place.address).and_then(|event| event.notifier()).expect("a new set");
}
