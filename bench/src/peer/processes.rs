//! Processes, through the wrappers: started and waited for, orphaned and adopted, looked at, and
//! interrupted by a signal of their own.

use std::sync::atomic::{AtomicU64, Ordering};

use switchboard_kernel::io::Deadline;
use switchboard_kernel::pidfd;
use switchboard_kernel::process::{self, Spawn};
use switchboard_kernel::signal::{self, Action, Handler, Signal};

use super::{Job, Known, repeat};

pub(super) fn run(job: &Job, name: &str, _: (i32, i32)) -> Known {
    let own = std::process::id();
    match name {
        "pidfd" => repeat(job, || {
            let fd = pidfd::open(own)?;
            pidfd::is_dead(&fd).map(|dead| assert!(!dead))
        }),
        "process-stat" => repeat(job, || process::stat(own).map(|stat| assert_eq!(stat.id, own))),
        "spawn" => repeat(job, || {
            let status = Spawn::new("/bin/true").spawn()?.wait(Deadline::NEVER)?;
            assert!(status.is_some_and(|status| status.success()));
            Ok(())
        }),
        "orphan" => {
            process::set_child_subreaper(true)?;
            repeat(job, || {
                // It does not wait for what it starts.
                let leaver = Spawn::new("/usr/bin/setsid").args(["--fork", "/bin/true"]);
                let mut child = leaver.spawn()?;
                child.wait(Deadline::NEVER)?;
                let orphan = process::wait_any(Deadline::NEVER)?;
                assert!(orphan.is_some_and(|(id, status)| id != child.id() && status.success()));
                Ok(())
            })
        }
        "signal-handler" => {
            static CAME: AtomicU64 = AtomicU64::new(0);
            let _handler = Handler::install(Signal::USR1, Action::Count(&CAME))?;
            let thread = signal::thread_id();
            repeat(job, || {
                let before = CAME.load(Ordering::Relaxed);
                signal::send_thread(own, thread, Signal::USR1)?;
                assert_eq!(CAME.load(Ordering::Relaxed), before + 1);
                Ok(())
            })
        }
        _ => Ok(false),
    }
}
