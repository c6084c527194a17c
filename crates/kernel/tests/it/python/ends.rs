//! Whatever has two ends: bytes go to a Python and back, and either side is killed.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use switchboard_kernel::io::{self, Deadline, Interest, duplicate, wait_for};
use switchboard_testkit::DEADLINE;

use super::start_with;
use crate::hand_over;

/// Where a process reads, and where it writes.
pub(crate) type Ways = [OwnedFd; 2];

/// A socket that goes both ways.
pub(crate) fn both(socket: OwnedFd) -> Ways {
    [duplicate(&socket).expect("a copy"), socket]
}

const ECHO: &str = "
os.write(fds[1], os.read(fds[0], 100).upper())
told()
";

/// Reads to the end where there is one, and then writes until that fails.
const TO_THE_END: &str = "
say('here')
if told() == 'ends':
    say('read', len(os.read(fds[0], 100)))
try:
    while True:
        os.write(fds[1], b'anybody?')
except OSError as error:
    say('write', errno.errorcode[error.errno])
";

/// What is seen on either side when the process on the other is killed.
pub(crate) struct Death {
    /// Reading ends, by 0.
    pub(crate) ends: bool,
    /// The errors of writing.
    pub(crate) writing: &'static [&'static str],
}

/// Two pairs of ways that belong together, with a Python at one end: bytes go there and back, then it
/// is killed. Then with a Python at one end and a process of this crate at the other, which is killed.
pub(crate) fn check(test: &str, death: &Death, pair: impl Fn() -> (Ways, Ways)) {
    let ([from, to], theirs) = pair();
    let Some(mut python) = start_with(test, "socket", ECHO, &theirs.each_ref().map(AsFd::as_fd))
    else {
        return;
    };
    drop(theirs);
    assert_eq!(io::write(&to, b"there and back"), Ok(14));
    hand_over::ready(&from);
    let mut buffer = [0; 100];
    assert_eq!(io::read(&from, &mut buffer), Ok(14));
    assert_eq!(&buffer[..14], b"THERE AND BACK");
    python.kill();
    if death.ends {
        hand_over::ready(&from);
        assert_eq!(io::read(&from, &mut buffer), Ok(0));
    }
    let deadline = Deadline::after(DEADLINE);
    let error = loop {
        assert!(!deadline.passed(), "writing does not fail");
        // A full pipe takes no more, until it is broken.
        let writable =
            wait_for(&to, Interest::Writable, Deadline::after(Duration::from_millis(10)));
        if writable == Ok(true)
            && let Err(error) = io::write(&to, b"anybody?")
        {
            break error.name();
        }
    };
    assert!(death.writing.contains(&error), "{error}");

    let (ours, theirs) = pair();
    let fds = ours.each_ref().map(AsFd::as_fd);
    let mut holder = hand_over::start("hand-over-holder", &[], &fds);
    holder.expect("holding");
    drop(ours);
    let fds = theirs.each_ref().map(AsFd::as_fd);
    let mut python = start_with(test, "socket", TO_THE_END, &fds).expect("as before");
    drop(theirs);
    python.expect("here");
    holder.kill();
    python.tell(if death.ends { "ends" } else { "goes on" });
    if death.ends {
        python.expect("read 0");
    }
    let said = python.line().expect("an error");
    let error = said.strip_prefix("write ").expect("an error of writing");
    assert!(death.writing.contains(&error), "{said}");
}
