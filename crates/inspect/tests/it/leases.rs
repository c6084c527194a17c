//! Who opens a file of which somebody has a lease waits for that one, for a while.

use std::fs::File;
use std::time::{Duration, Instant};

use switchboard_inspect::analysis::stuck;
use switchboard_inspect::analysis::wakers::Index;
use switchboard_inspect::analysis::why::sentence;
use switchboard_inspect::{Request, WaitOn};
use switchboard_kernel::lease;
use switchboard_testkit::{DEADLINE, Scratch};

#[test]
fn who_opens_a_leased_file() {
    let scratch = Scratch::new();
    let path = scratch.join("leased");
    let file = File::create_new(&path).expect("a file");
    let until = Instant::now() + DEADLINE;
    let taken = loop {
        match lease::take(&file) {
            // A child that another test starts at this moment has a copy of it until it runs its own program.
            Err(error) if error.name() == "EAGAIN" && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            taken => break taken,
        }
    };
    if let Err(error) = taken {
        return switchboard_testkit::skip::skip(
            "who_opens_a_leased_file",
            &format!("no lease: {error}"),
        );
    }
    let own = std::process::id();
    let opener = std::thread::spawn({
        let path = path.clone();
        move || File::open(path).map(drop)
    });
    let until = Instant::now() + DEADLINE;
    let said = loop {
        let snapshot = Request::everything().take();
        let index = Index::new(&snapshot);
        let process = snapshot.process(own).expect("this process");
        let waits = process.threads.iter().find(|thread| {
            thread.wait.as_ref().is_some_and(|wait| match &wait.on {
                WaitOn::Objects(targets) => {
                    wait.call == "open" && wait.timed && targets[0].owners == [own]
                }
                _ => false,
            })
        });
        if let Some(thread) = waits {
            break sentence(&index, &stuck::set(&index), process, thread);
        }
        assert!(Instant::now() < until, "nobody waits: {:#?}", process.threads);
    };
    assert!(said.contains("for lock:"), "{said}");
    assert!(
        said.contains(
            "/leased (a lease, which the kernel takes back after a while), until its timeout"
        ),
        "{said}"
    );
    lease::give_back(&file).expect("given back");
    opener.join().expect("no panic").expect("opened");
}
