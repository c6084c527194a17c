//! Files of sockets, and FIFOs.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::os::fd::IntoRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use super::super::stage::{idle, read_some};
use super::super::{Stage, Sure};
use super::segments::enter;
use super::{Leftover, digits, file_id, leak, look_alike};
use crate::ring::Ring;

pub(super) const TABLE: &[Leftover] = &[
    leak(
        "socket-of-the-killed",
        "a server was killed, and its socket's file is there",
        |stage| {
            let path = path(stage, "server");
            stage.by_one_killed(|| listener(&path));
            stage.is_about(file_id("unix", &path));
        },
        Sure::Certain,
    ),
    leak(
        "socket-of-datagrams",
        "a server of datagrams ended, and its socket's file is there",
        |stage| {
            let path = path(stage, "server");
            stage.by_another(|| UnixDatagram::bind(&path).expect("bound").into_raw_fd());
            stage.is_about(file_id("unix", &path));
        },
        Sure::Certain,
    ),
    leak(
        "socket-of-packets",
        "a server of packets ended, and its socket's file is there",
        |stage| {
            let path = path(stage, "server");
            stage.by_another(|| bound(libc::SOCK_SEQPACKET, &path));
            stage.is_about(file_id("unix", &path));
        },
        Sure::Certain,
    ),
    leak(
        "socket-never-listened",
        "a process bound a socket and ended before it listened",
        |stage| {
            let path = path(stage, "server");
            stage.by_another(|| bound(libc::SOCK_STREAM, &path));
            stage.is_about(file_id("unix", &path));
        },
        Sure::Certain,
    ),
    leak(
        "socket-renamed",
        "a server's socket was renamed when it was ready, and the server ended",
        |stage| {
            let (hidden, path) = (path(stage, ".hidden"), path(stage, "server"));
            stage.by_another(|| listener(&hidden));
            std::fs::rename(&hidden, &path).expect("renamed");
            stage.is_about(file_id("unix", &path));
        },
        Sure::Certain,
    ),
    leak(
        "socket-in-folders",
        "a socket's file is left some folders deep",
        |stage| {
            let folder = path(stage, "a/b/c");
            std::fs::create_dir_all(&folder).expect("folders");
            let path = folder.join("server");
            stage.by_another(|| listener(&path));
            stage.is_about(file_id("unix", &path));
        },
        Sure::Certain,
    ),
    leak(
        "socket-replaced",
        "a server moved the socket of the one before it aside, and made its own",
        |stage| {
            let (old, path) = (path(stage, "server.old"), path(stage, "server"));
            stage.by_another(|| listener(&path));
            std::fs::rename(&path, &old).expect("renamed");
            stage.actor("server", &[], |scene| scene.tell(listener(&path)));
            stage.told();
            stage.is_about(file_id("unix", &old));
        },
        Sure::Certain,
    ),
    leak(
        "socket-sent-to-the-dead",
        "a listener was in flight to a process that ended before it took it",
        |stage| {
            let path = path(stage, "server");
            stage.by_another(|| {
                let (here, there) = std::os::unix::net::UnixStream::pair().expect("a pair");
                let fd = listener(&path);
                super::flight::send(here.into_raw_fd(), &[fd]);
                there.into_raw_fd()
            });
            stage.is_about(file_id("unix", &path));
        },
        Sure::Certain,
    ),
    leak(
        "fifo-generated",
        "a FIFO for a reply has a name that nobody else knows",
        |stage| {
            let name = format!("reply-{}", digits(16));
            fifo(stage, &name);
        },
        Sure::Probable,
    ),
    leak(
        "fifo-in-a-temporary-folder",
        "a FIFO is left in a folder with a random name",
        |stage| {
            let folder = path(stage, &format!("tmp.{}", digits(12)));
            std::fs::create_dir(&folder).expect("a folder");
            let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
            fifo(stage, &format!("{name}/out"));
        },
        Sure::Probable,
    ),
    look_alike(
        "socket-abstract",
        "a server listens at an abstract name, which has no file",
        |stage| {
            let name = super::word();
            stage.actor("server", &[], |_| {
                use std::os::linux::net::SocketAddrExt;
                let address =
                    std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name");
                let listener = UnixListener::bind_addr(&address).expect("a listener");
                let _ = listener.into_raw_fd();
            });
        },
    ),
    look_alike("socket-of-a-server", "a server listens", |stage| {
        let path = path(stage, "server");
        stage.actor("server", &[], |scene| scene.tell(listener(&path)));
        stage.told();
        stage.is_about(file_id("unix", &path));
    }),
    look_alike("socket-renamed-and-served", "the file of a live socket was renamed", |stage| {
        let (hidden, path) = (path(stage, ".hidden"), path(stage, "server"));
        stage.actor("server", &[], |scene| scene.tell(listener(&hidden)));
        stage.told();
        std::fs::rename(&hidden, &path).expect("renamed");
        stage.is_about(file_id("unix", &path));
    }),
    look_alike(
        "socket-not-listening-yet",
        "a process has bound a socket, and does not listen yet",
        |stage| {
            let path = path(stage, "server");
            stage.actor("server", &[], |scene| scene.tell(bound(libc::SOCK_STREAM, &path)));
            stage.told();
            stage.is_about(file_id("unix", &path));
        },
    ),
    look_alike("socket-of-a-datagram-server", "a server waits for datagrams", |stage| {
        let path = path(stage, "server");
        stage.actor("server", &[], |scene| {
            let fd = UnixDatagram::bind(&path).expect("bound").into_raw_fd();
            scene.tell(fd);
            read_some(fd);
        });
        stage.told();
        stage.is_about(file_id("unix", &path));
    }),
    look_alike(
        "socket-of-another-network-namespace",
        "a server listens in another network namespace",
        |stage| {
            let path = path(stage, "server");
            stage.actor("server", &[], |scene| {
                enter(libc::CLONE_NEWNET);
                scene.tell(listener(&path));
            });
            stage.told();
            stage.is_about(file_id("unix", &path));
        },
    )
    .for_root(),
    look_alike(
        "fifo-with-a-waiting-reader",
        "a process waits in the opening of a FIFO for a writer",
        |stage| {
            let name = format!("reply-{}", digits(16));
            let path = fifo(stage, &name);
            stage.actor("reader", &[], |_| {
                let _ = std::fs::File::open(&path);
                idle();
            });
        },
    ),
    look_alike("fifo-held", "a process has a FIFO open, and nobody else has", |stage| {
        let name = format!("reply-{}", digits(16));
        let path = fifo(stage, &name);
        stage.actor("owner", &[], |_| {
            let both = std::fs::File::options().read(true).write(true).open(&path);
            let _ = both.expect("open").into_raw_fd();
        });
    }),
    look_alike(
        "fifo-of-a-ring",
        "a process registered a FIFO with its io_uring, and closed the descriptor",
        |stage| {
            let path = fifo(stage, &format!("reply-{}", digits(16)));
            stage.actor("server", &[], |scene| {
                register(&path);
                scene.tell(0);
            });
            stage.told();
        },
    ),
    look_alike(
        "fifo-of-a-command-that-comes",
        "a script made a FIFO for two commands, and has started neither",
        |stage| {
            let path = fifo(stage, &format!("pipe-{}", digits(16)));
            let path = path.to_str().expect("text");
            let script = "kill -STOP $$; echo x > \"$0\" & cat \"$0\"";
            stage.program("script", &["sh", "-c", script, path]);
        },
    ),
    look_alike(
        "fifo-of-a-script",
        "a FIFO has a name that somebody thought of, and waits for who comes",
        |stage| {
            // The folder of the stage has a random name: that is not what is meant.
            let path = Path::new("/tmp").join(format!("jobs-{}", super::word()));
            stage.removes_file(path.to_str().expect("text"));
            make_fifo(&path);
            stage.is_about(file_id("fifo", &path));
        },
    ),
];

/// A path on the stage.
fn path(stage: &Stage, name: &str) -> PathBuf {
    PathBuf::from(stage.path(name).into_string().expect("text"))
}

fn listener(path: &Path) -> i32 {
    UnixListener::bind(path).expect("a listener").into_raw_fd()
}

/// A socket that is bound, and no more.
fn bound(kind: i32, path: &Path) -> i32 {
    // SAFETY: zeroes are valid for an address, and the path fits into it with a zero behind.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, kind, 0);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as u16;
        let bytes = path.as_os_str().as_encoded_bytes();
        assert!(bytes.len() < address.sun_path.len(), "the path is too long");
        for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
            *place = *byte as libc::c_char;
        }
        let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        let done = libc::bind(fd, (&raw const address).cast(), len);
        assert!(done == 0, "bind: {}", std::io::Error::last_os_error());
        fd
    }
}

/// Has a file by an io_uring alone; where there is none, by a descriptor.
pub(super) fn register(path: &Path) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("open");
    match Ring::holding(&[&file]) {
        Ok(ring) => std::mem::forget(ring),
        Err(_) => std::mem::forget(file),
    }
}

fn make_fifo(path: &Path) {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
    // SAFETY: a C string and a mode.
    let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
    assert!(made == 0, "mkfifo: {}", std::io::Error::last_os_error());
}

fn fifo(stage: &mut Stage, name: &str) -> PathBuf {
    let path = path(stage, name);
    make_fifo(&path);
    stage.is_about(file_id("fifo", &path));
    path
}
