//! Who has something by an io_uring alone.
//!
//! Source: docs/design/leaks.md, "What an io_uring holds".

use std::collections::HashSet;

use rustix::fs::{FileType, Statx};

use super::{Join, Key};
use crate::analysis::leaks::UNKNOWN_IN_FLIGHT;
use crate::collect::Found;
use crate::kind::Kind;
use crate::model::{End, Via};
use crate::source::descriptors::What;
use crate::source::folder::device;
use crate::source::rings::Registered;
use crate::text::escaped;

impl Join {
    /// Takes what is registered with io_urings, and counts what cannot be told.
    pub(crate) fn rings(&mut self, found: &mut [Found]) {
        if found.iter().all(|one| one.rings.is_empty()) {
            return;
        }
        let open: HashSet<u64> = found
            .iter()
            .flat_map(|one| &one.descriptors)
            .filter_map(|one| if let What::Socket(inode) = one.what { Some(inode) } else { None })
            .collect();
        for one in found {
            let pid = one.process.pid;
            for (fd, ring) in std::mem::take(&mut one.rings) {
                let state = &mut one.process.rings;
                state.busy += u32::from(ring.is_busy);
                state.unknown += u32::from(!ring.is_whole);
                for (name, what) in &ring.files {
                    let at = match what {
                        Registered::Other => continue,
                        Registered::File(status) => match self.registered(name, status) {
                            Some(at) => Some(at),
                            // A file that is no IPC.
                            None => continue,
                        },
                        Registered::Socket(inode) => self.sockets.get(inode).copied(),
                        // A queue that was opened by its name is shown without its file system.
                        Registered::Unknown => self.queue_named(name),
                    };
                    let Some(at) = at else {
                        state.unknown += 1;
                        continue;
                    };
                    let end = End { pid, via: Via::Ring(fd), reads: true, writes: true };
                    self.objects[at].ends.push(end);
                    // Whoever has it open is asked for what is in flight in it.
                    if let Registered::Socket(inode) = what
                        && self.objects[at].kind == Kind::Unix
                        && !open.contains(inode)
                    {
                        self.objects[at].details.insert(UNKNOWN_IN_FLIGHT, "not known how many");
                    }
                }
            }
        }
    }

    fn registered(&mut self, name: &[u8], status: &Statx) -> Option<usize> {
        let file = (device(status), status.stx_ino);
        if FileType::from_raw_mode(status.stx_mode.into()) == FileType::Fifo {
            let at = self.object(Key::of_file(Kind::Fifo, file.0, file.1));
            let fifo = &mut self.objects[at];
            fifo.add_name(escaped(name));
            (fifo.uid, fifo.gid) = (Some(status.stx_uid), Some(status.stx_gid));
            fifo.mode = Some(u32::from(status.stx_mode) & 0o7777);
            return Some(at);
        }
        let kinds = [Kind::PosixShm, Kind::PosixSem, Kind::Mq];
        kinds.into_iter().find_map(|kind| self.find(&Key::of_file(kind, file.0, file.1)))
    }

    fn queue_named(&self, name: &[u8]) -> Option<usize> {
        let name = escaped(name);
        self.objects.iter().position(|one| one.kind == Kind::Mq && one.names.contains(&name))
    }
}
