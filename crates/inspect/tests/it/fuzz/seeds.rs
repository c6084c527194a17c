//! What to begin with: what the kernel says here and now.

pub(super) fn files(names: &[&str]) -> Vec<Vec<u8>> {
    let read = |name: &&str| std::fs::read(format!("/proc/{name}")).ok();
    let all = names.iter().filter_map(read);
    all.map(|text| text[..text.len().min(2000)].to_vec()).filter(|text| !text.is_empty()).collect()
}

pub(super) fn maps_seeds() -> Vec<Vec<u8>> {
    let mut all = files(&["self/maps"]);
    all.push(
        b"7f10-7f20 rw-s 00001000 00:01 77 /memfd:a b (deleted)\n7f20-7f30 rw-s 0 00:01 3 /SYSV00000000 (deleted)\n\
          7f40-7f50 rw-s 00000000 00:19 5                  /dev/shm/sem.x\n7f50-7f60 rw-s 0 00:01 6 /dev/zero (deleted)\n\
          7f60-7f70 rw-p 00000000 00:19 7 /dev/shm/x\n"
            .to_vec(),
    );
    all
}

pub(super) fn ring_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "pos:\t0\nino:\t21510379\nSqMask:\t0x3\nCachedSqHead:\t2\nCqMask:\t0x7\nCachedCqTail:\t2\nSQEs:\t0\nSqThread:\t-1\n\
UserFiles:\t4\n    0: /tmp/a\\040b\n    1: /memfd:a\\040(deleted)\n    2: socket:[21]\n    3: <none>\nUserBufs:\t1\n    0: 0x7f00/4096\n\
PollList:\n  op=22, task_works=0\nCqOverflowList:\nNAPI:\tdisabled\n",
        "SqMask:\t0x3\nSqHead:\t1\nUserFiles:\t0\nUserBufs:\t0\nPollList:\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(super) fn fdinfo_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "pos:\t0\nflags:\t02000001\nmnt_id:\t9\nino:\t77\n",
        "pos:\t0\nflags:\t04002\neventfd-count:               1f\neventfd-id: 9\neventfd-semaphore: 0\n",
        "pos:\t0\nflags:\t02\ntfd:        4 events:       1f data:                4  pos:0 ino:41234df sdev:f\n",
        "flags:\t02\nsigmask:\t0000000000000200\n",
        "clockid: 0\nticks: 0\nsettime flags: 01\nit_value: (0, 90)\nit_interval: (1, 0)\n",
        "inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8\n",
        "Pid:\t812\nNSpid:\t812\nino:\t77\n",
        "flags:\t02\nino:\t77\nscm_fds: 2\n",
        "tty-index:\t3\nlock:\t1: FLOCK  ADVISORY  WRITE 17537 fe:00:10534959 0 EOF\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).chain(files(&["self/fdinfo/0"])).collect()
}

pub(super) fn link_seeds() -> Vec<Vec<u8>> {
    let links = [
        "pipe:[4471]",
        "socket:[812]",
        "anon_inode:[eventfd]",
        "anon_inode:inotify",
        "anon_inode:[io_uring]",
        "/memfd:a b (deleted)",
        "/dev/shm/sem.x",
        "/SYSV0000beef (deleted)",
        "/dev/zero (deleted)",
    ];
    links.iter().map(|link| link.as_bytes().to_vec()).collect()
}

pub(super) fn locks_seeds() -> Vec<Vec<u8>> {
    let mut all = files(&["locks"]);
    all.push(
        b"1: FLOCK  ADVISORY  WRITE 17537 fe:00:10534959 0 EOF\n1: -> FLOCK  ADVISORY  READ 17538 fe:00:10534959 0 EOF\n\
          2: OFDLCK ADVISORY  READ -1 00:19:7 5 9\n3: POSIX  ADVISORY  WRITE 12 00:19:7 0 0\n4: LEASE  ACTIVE  READ 9 fe:00:3 0 EOF\n"
            .to_vec(),
    );
    all
}

pub(super) fn sysv_seeds() -> Vec<Vec<u8>> {
    let mut all = files(&["sysvipc/shm", "sysvipc/sem", "sysvipc/msg"]);
    all.push(
        b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n\
          -559038737          3  1600                  4096    10    11      2     7     8     7     8 0 0 0\n"
            .to_vec(),
    );
    all.push(
        b"key msqid perms cbytes qnum lspid lrpid uid gid\n 1 2 600 4 5 6 7 8 9 0 0 0 0 0\n"
            .to_vec(),
    );
    all
}

pub(super) fn inet_seeds() -> Vec<Vec<u8>> {
    let mut all = files(&["net/tcp", "net/udp", "net/tcp6"]);
    all.push(
        b"  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000  1000        0 4242 1\n\
          1: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:C350 01 00000001:00000002 00:00000000 00000000 0 0 7 1\n"
            .to_vec(),
    );
    all
}

/// Answers as the kernel writes them: a Unix socket that listens, a connection, and the end.
pub(super) fn datagram_seeds() -> Vec<Vec<u8>> {
    let attribute = |kind: u16, value: &[u8]| {
        let len = u16::try_from(4 + value.len()).expect("short");
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let message = |kind: u16, body: &[u8]| {
        let len = u32::try_from(16 + body.len()).expect("short");
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let mut unix = vec![1, 1, 10, 0, 7, 0, 0, 0];
    unix.extend([0; 8]);
    unix.extend(attribute(0, b"\0name\n"));
    unix.extend(attribute(2, &77_u32.to_ne_bytes()));
    unix.extend(attribute(3, &[8, 0, 0, 0, 9, 0, 0, 0]));
    unix.extend(attribute(4, &[3, 0, 0, 0, 5, 0, 0, 0]));
    unix.extend(attribute(5, &[1; 36]));
    unix.extend(attribute(6, &[3]));
    unix.extend(attribute(7, &1000_u32.to_ne_bytes()));
    let mut inet = vec![2, 1, 0, 0, 0x1f, 0x90, 0xc3, 0x50, 127, 0, 0, 1];
    inet.resize(72, 0);
    inet.extend(attribute(2, &[1; 232]));
    inet.extend(attribute(7, &[2; 36]));
    let error = (-2_i32).to_ne_bytes();
    let done = message(3, &[0; 4]);
    vec![
        [message(20, &unix), message(20, &inet), done.clone()].concat(),
        [message(20, &inet), message(2, &error)].concat(),
        done,
    ]
}
