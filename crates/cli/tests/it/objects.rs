//! `create` and `unlink`.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use switchboard_testkit::{Scratch, unique};

use crate::run::{Run, eventually, run};

#[test]
fn a_fifo_with_its_mode() {
    let scratch = Scratch::new();
    run(scratch.path(), &["create", "fifo:./f", "--mode", "0640"], "").code(0).prints("");
    let metadata = std::fs::metadata(scratch.join("f")).expect("a FIFO");
    assert!(metadata.file_type().is_fifo());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    run(scratch.path(), &["create", "fifo:./f"], "").code(1).says("exists already");

    // One that was created stays when its users leave.
    let receiver = Run::start(scratch.path(), &["recv", "fifo:./f"]);
    run(scratch.path(), &["send", "fifo:./f"], "x\n").code(0);
    receiver.wait().code(0).prints("x\n");
    assert!(scratch.join("f").exists());

    let json = "{\"address\":\"fifo:./f\",\"unlinked\":true}\n";
    run(scratch.path(), &["unlink", "--json", "fifo:./f"], "").code(0).prints(json);
    assert!(!scratch.join("f").exists());
    run(scratch.path(), &["unlink", "fifo:./f"], "").code(3).says("nothing of this name");
}

#[test]
fn queues_with_their_sizes() {
    let scratch = Scratch::new();
    let mq = format!("mq:/{}", unique("objects"));
    let sizes = ["--max-messages", "2", "--max-message", "8"];
    let create = [&["create", "--json", &mq], &sizes[..]].concat();
    run(scratch.path(), &create, "").code(0).prints(format!(
        "{{\"address\":\"{mq}?max-messages=2&max-message=8\",\"created\":true}}\n"
    ));
    run(scratch.path(), &["send", "--no-wait", &mq], "123456789\n").code(1).says("at most 8 fit");
    let full = run(scratch.path(), &["send", "--timeout", "50ms", &mq], "1\n2\n3\n");
    run(scratch.path(), &["create", "sysv:.", "--capacity", "4KiB"], "").code(0);
    run(scratch.path(), &["unlink", &mq, "mq:/", "sysv:."], "").code(2).says("not an address");
    full.code(3).says("2 messages sent");
    run(scratch.path(), &["unlink", &mq], "").code(3);
    run(scratch.path(), &["unlink", "sysv:."], "").code(3);
}

#[test]
fn what_cannot_be_created_or_removed() {
    let scratch = Scratch::new();
    run(scratch.path(), &["create", "unix:./s"], "").code(2).says("nothing to create");
    run(scratch.path(), &["create", "fifo:./no/f"], "").code(3).says("there is no folder");
    run(scratch.path(), &["create", "fifo:./f", "--max-messages", "1"], "").code(2).says("^^^");
    let receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    eventually("a socket", || scratch.join("s").exists());
    let in_use = run(scratch.path(), &["unlink", "unix:./s"], "").code(1);
    in_use.says(&format!("process {}", receiver.id()));
}

#[test]
fn options_that_an_empty_log_would_not_keep() {
    let scratch = Scratch::new();
    let with_flag = ["create", "file:./log", "--capacity", "1MiB"];
    run(scratch.path(), &with_flag, "").code(2).says("takes no ?capacity=").says("each command");
    for option in ["segment=64KiB", "durability=synced", "retain=1h", "reader=a", "max-message=9"] {
        let address = format!("file:./log?{option}");
        run(scratch.path(), &["create", &address], "").code(2).says("takes no ?");
    }
    assert!(!scratch.join("log").exists());
    run(scratch.path(), &["create", "file:./log", "--mode", "0660"], "").code(0);
}

#[test]
fn what_is_no_object_of_ours_is_not_removed() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("notes"), "mine").expect("a file");
    let refused = run(scratch.path(), &["unlink", "mmap:./notes"], "").code(1);
    refused.says("holds no state").says("rm");
    std::fs::create_dir(scratch.join("folder")).expect("a folder");
    std::fs::write(scratch.join("folder/lock"), "mine").expect("a file");
    let refused = run(scratch.path(), &["unlink", "file:./folder"], "").code(1);
    refused.says("folder/lock is not of the log").says("nothing was removed").says("rm");
    for name in ["notes", "folder/lock"] {
        assert_eq!(std::fs::read(scratch.join(name)).expect("a file"), b"mine", "{name}");
    }
}

#[test]
fn a_socket_that_a_dead_process_left() {
    let scratch = Scratch::new();
    let mut receiver = Run::start(scratch.path(), &["recv", "unix:./s"]);
    eventually("a socket", || scratch.join("s").exists());
    receiver.kill();
    assert!(scratch.join("s").exists());
    run(scratch.path(), &["unlink", "unix:./s"], "").code(0);
    assert!(!scratch.join("s").exists());
}
