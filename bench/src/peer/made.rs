//! What is made, opened and removed again, through the wrappers: memory of every kind, named
//! semaphores, terminals; and files that are mapped, grown, advised about and written back.

use std::path::Path;

use switchboard_kernel::memfd::{Memfd, Seals};
use switchboard_kernel::mmap::{self, Advice, Mapping, Mode, Sync};
use switchboard_kernel::posix_shm::{self, Segment};
use switchboard_kernel::pty::Master;
use switchboard_kernel::{Permissions, posix_sem, process, sysv_sem, sysv_shm};

use super::{Aligned, BYTES, Job, Known, OUT, PAGE, repeat};
use crate::objects::name_of;

pub(super) fn run(job: &Job, name: &str, (out_id, _): (i32, i32)) -> Known {
    match name {
        "memfd" => repeat(job, || {
            Memfd::create("switchboard-bench", PAGE as u64)?.map(Mode::ReadWrite).map(drop)
        }),
        "memfd-sealed" => repeat(job, || {
            let made = Memfd::create("switchboard-bench", PAGE as u64)?;
            made.add_seals(Seals::SHRINK | Seals::GROW)?;
            let received = Memfd::received(made.reopen_read_only()?, Seals::SHRINK)?;
            received.map(Mode::ReadOnly).map(drop)
        }),
        "memfd-huge" => {
            let page_bytes = u64::try_from(out_id)? << 10;
            repeat(job, || {
                let made = Memfd::create_huge("switchboard-bench", page_bytes, page_bytes)?;
                made.map(Mode::ReadWrite).map(drop)
            })
        }
        "posix-shm" => {
            let name = own_name();
            repeat(job, || {
                let made = Segment::create(&name, PAGE as u64, Permissions::new())?;
                let mapped = made.map(Mode::ReadWrite);
                posix_shm::unlink(&name)?;
                mapped.map(drop)
            })
        }
        "posix-shm-open" => {
            let name = name_of(out_id);
            repeat(job, || {
                Segment::open(&name, posix_shm::Access::ReadWrite)?.map(Mode::ReadWrite).map(drop)
            })
        }
        "sysv-shm" => {
            let options = sysv_shm::CreateOptions::new();
            repeat(job, || {
                let made = sysv_shm::Segment::create(&sysv_shm::Key::Private, PAGE, &options)?;
                let attached = made.attach(sysv_shm::Access::ReadWrite);
                made.remove()?;
                attached.map(drop)
            })
        }
        "sysv-shm-attach" => {
            let segment = sysv_shm::Segment::from_id(out_id);
            repeat(job, || segment.attach(sysv_shm::Access::ReadWrite).map(drop))
        }
        "sysv-key" => {
            let folder = Path::new("/dev/shm");
            repeat(job, || sysv_sem::key_from_path(folder, 1).map(drop))
        }
        "posix-sem-made" => {
            let (name, options) = (own_name(), posix_sem::CreateOptions::new().exclusive(true));
            repeat(job, || {
                let made = posix_sem::Semaphore::create(&name, &options)?;
                posix_sem::unlink(&name)?;
                drop(made);
                Ok(())
            })
        }
        "posix-sem-open" => {
            let name = name_of(out_id);
            repeat(job, || {
                // Whoever opens one uses it: C brings its page in only then.
                posix_sem::Semaphore::open(&name).map(|found| assert_eq!(found.value(), 0))
            })
        }
        "pty-made" => repeat(job, || {
            let master = Master::open()?;
            master.open_slave().map(drop)
        }),
        "mmap-made" => {
            let path = format!("/dev/shm{}", own_name());
            repeat(job, || {
                let file = mmap::create_file(path.as_ref(), PAGE as u64, Permissions::new())?;
                let mapped = Mapping::of_file(&file, Mode::ReadWrite, 0, PAGE);
                posix_shm::unlink(&path["/dev/shm".len()..])?;
                mapped.map(drop)
            })
        }
        "mmap-grow" => {
            let file = process::inherited_descriptor(OUT)?;
            repeat(job, || {
                let mut mapping = Mapping::of_file(&file, Mode::ReadWrite, 0, PAGE)?;
                mmap::reserve(&file, 2 * PAGE as u64)?;
                mapping.grow(2 * PAGE)?;
                drop(mapping);
                mmap::set_len(&file, PAGE as u64)
            })
        }
        "mmap-private" => {
            let file = process::inherited_descriptor(OUT)?;
            repeat(job, || Mapping::of_file(&file, Mode::Private, 0, PAGE)?.write_at(0, b"x"))
        }
        "mmap-advice" => {
            let mapping = mapping()?;
            repeat(job, || {
                mapping.advise(Advice::Random)?;
                mapping.advise(Advice::Normal)
            })
        }
        "msync" => {
            let (mapping, bytes) = (mapping()?, Aligned([1; BYTES]));
            repeat(job, || {
                mapping.write_at(0, &bytes.0)?;
                mapping.sync(0..PAGE, Sync::Wait)
            })
        }
        _ => Ok(false),
    }
}

fn mapping() -> switchboard_kernel::Result<Mapping> {
    Mapping::of_file(process::inherited_descriptor(OUT)?, Mode::ReadWrite, 0, PAGE)
}

/// A name that no other process uses.
fn own_name() -> String {
    format!("/switchboard-bench-{}", std::process::id())
}
