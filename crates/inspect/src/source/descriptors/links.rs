//! Where /proc/PID/fd/N leads, as the link says it.
//!
//! Source: `proc_pid_fd(5)`: `pipe:[4471]`, `socket:[812]`, `anon_inode:[eventfd]`, `anon_inode:inotify`, a path.

use crate::kind::Kind;
use crate::text::escaped;

/// What has no path and no inode of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nameless {
    /// Something to talk through, or to wait for.
    Object(Kind),
    /// An io_uring.
    IoUring,
}

/// What a link without a path and an inode leads to; none for what is no IPC.
#[must_use]
pub fn nameless(link: &[u8]) -> Option<Nameless> {
    Some(Nameless::Object(match link.strip_prefix(b"anon_inode:")? {
        b"[eventfd]" => Kind::Eventfd,
        b"[eventpoll]" => Kind::Epoll,
        b"[signalfd]" => Kind::Signalfd,
        b"[timerfd]" => Kind::Timerfd,
        b"[pidfd]" => Kind::Pidfd,
        b"inotify" | b"[fanotify]" => Kind::Inotify,
        b"[io_uring]" => return Some(Nameless::IoUring),
        _ => return None,
    }))
}

/// By the name that commands take: `pipe:4471`, else what the link says, escaped.
#[must_use]
pub fn named_by_link(link: &[u8]) -> String {
    let text = escaped(link);
    let bare = |kind: &str| {
        Some(format!("{kind}:{}", text.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?))
    };
    bare("pipe").or_else(|| bare("socket")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        for (link, found) in [
            (&b"anon_inode:[eventfd]"[..], Some(Nameless::Object(Kind::Eventfd))),
            (b"anon_inode:inotify", Some(Nameless::Object(Kind::Inotify))),
            (b"anon_inode:[io_uring]", Some(Nameless::IoUring)),
            (b"anon_inode:[eventfd", None),
            (b"/anon_inode:[eventfd]", None),
            (b"pipe:[7]", None),
        ] {
            assert_eq!(nameless(link), found);
        }
        for (link, name) in [
            (&b"pipe:[7]"[..], "pipe:7"),
            (b"socket:[7]", "socket:7"),
            (b"/tmp/pipe:[7]", "/tmp/pipe:[7]"),
            (b"/a\nb", "/a\\nb"),
        ] {
            assert_eq!(named_by_link(link), name);
        }
    }
}
