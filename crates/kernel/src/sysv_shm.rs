//! System V shared memory: segments found by a number, kept by the kernel.
//!
//! Source: `sysvipc(7)`, `shmget(2)`, `shmop(2)`, `shmctl(2)`, `proc_sys_kernel(5)`; error numbers as
//! measured on Linux 6.18.
//!
//! A segment outlives the processes that use it, until [`Segment::remove`] or a reboot. The death of
//! a process detaches it, changes nothing in the segment, and nobody is told: what it wrote stays.
//!
//! A segment cannot be cut short, so no access meets a missing page.

#![allow(unsafe_code)]

mod create;

use std::ops::Deref;
use std::ptr::{self, NonNull};

use libc::{c_int, shmid_ds};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result, checked, last_errno};
use crate::mmap::Memory;

pub use crate::sysv_key::{Key, key_from_path};
pub use create::{CreateOptions, Limits, limits};

/// How a segment is attached. Each asks for its own permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `SHM_RDONLY`: writing is an error. Needs read permission.
    ReadOnly,
    /// Needs read and write permission.
    ReadWrite,
}

/// A segment's identifier. It is a number and no more: copying and dropping it does nothing, and
/// after the segment is gone the number stands for nothing, until reused after many others.
///
/// ```
/// use switchboard_kernel::sysv_shm::{Access, CreateOptions, Key, Segment};
///
/// let segment = Segment::create(&Key::Private, 4096, &CreateOptions::new())?;
/// let attached = segment.attach(Access::ReadWrite)?;
/// segment.remove()?; // What is attached stays.
/// attached.write_at(0, b"hello")?;
/// assert!(segment.status()?.removed);
/// drop(attached);
/// assert!(segment.status().is_err());
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// | what | set by | beyond it |
/// |---|---|---|
/// | bytes of a segment | `/proc/sys/kernel/shmmax` | `EINVAL`, call `shmget over shmmax` |
/// | pages of all segments | `/proc/sys/kernel/shmall` | `ENOSPC`, call `shmget over shmall` |
/// | segments | `/proc/sys/kernel/shmmni` | `ENOSPC`, call `shmget over shmmni` |
/// | memory that may be promised | `/proc/sys/vm/overcommit_memory` | `ENOMEM` |
///
/// All but the last are of the IPC namespace. A size counts from creation on; memory is taken when
/// it is first touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    id: i32,
}

impl Segment {
    /// The segment of this identifier, as `shmget(2)` returned it here or in another process.
    /// Whether there is one shows on first use (`EINVAL`).
    #[must_use]
    pub const fn from_id(id: i32) -> Self {
        Self { id }
    }

    /// The identifier, the same in every process of this IPC namespace.
    #[must_use]
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// `shmat()`: all of it, at an address that the kernel chooses. Works after
    /// [`Segment::remove`] too, for as long as somebody has it attached.
    ///
    /// # Errors
    /// `EINVAL`: there is no such segment (any more); `EIDRM`: it is being removed; `EACCES`: its
    /// mode does not allow this access; `ENOMEM`: no address space, or over
    /// `/proc/sys/vm/max_map_count`.
    pub fn attach(&self, access: Access) -> Result<Attachment> {
        let flags = match access {
            Access::ReadOnly => libc::SHM_RDONLY,
            Access::ReadWrite => 0,
        };
        // SAFETY: no address is asked for, so it replaces nothing.
        let start = unsafe { libc::shmat(self.id, ptr::null(), flags) };
        if start.addr() == usize::MAX {
            return Err(Error::new("shmat", last_errno()));
        }
        let start = NonNull::new(start.cast()).ok_or(Error::new("shmat", Errno::NOMEM))?;
        // Only now: while it is attached, this is the same segment, whoever removes it.
        let len = self.stat().inspect_err(|_| detach(start))?.shm_segsz;
        // SAFETY: so many bytes were attached just now, and stay until the owner of this is dropped.
        Ok(Attachment { memory: unsafe { Memory::new(start, len, access == Access::ReadWrite) } })
    }

    /// `shmctl(IPC_STAT)`: size, users and permissions.
    ///
    /// # Errors
    /// `EINVAL`: there is no such segment (any more); `EACCES`: without read permission.
    pub fn status(&self) -> Result<Status> {
        let found = self.stat()?;
        let pid = |pid: libc::pid_t| u32::try_from(pid).unwrap_or(0);
        // Twice as wide on aarch64 as on x86-64.
        #[allow(clippy::useless_conversion)]
        let mode = u32::from(found.shm_perm.mode);
        Ok(Status {
            len_bytes: found.shm_segsz,
            attached: found.shm_nattch,
            creator_pid: pid(found.shm_cpid),
            last_user_pid: pid(found.shm_lpid),
            owner: found.shm_perm.uid,
            group: found.shm_perm.gid,
            creator: found.shm_perm.cuid,
            creator_group: found.shm_perm.cgid,
            mode: mode & 0o777,
            key: found.shm_perm.__key,
            removed: mode & SHM_DEST != 0,
        })
    }

    /// `shmctl(IPC_RMID)`: marks it for removal. No key finds it any more, and it goes when the last
    /// process has detached it or died: at once, if none has it attached. Until then those who know
    /// its id can still attach it.
    ///
    /// # Errors
    /// `EPERM`: unless the caller is its owner, its creator or has `CAP_SYS_ADMIN`; `EINVAL`:
    /// there is no such segment (any more).
    pub fn remove(&self) -> Result<()> {
        // SAFETY: IPC_RMID reads and writes no structure.
        checked(unsafe { libc::shmctl(self.id, libc::IPC_RMID, ptr::null_mut()) })
            .of("shmctl")
            .map(drop)
    }

    fn stat(&self) -> Result<shmid_ds> {
        // SAFETY: shmid_ds is integers only; all zeroes is a valid value.
        let mut found: shmid_ds = unsafe { std::mem::zeroed() };
        // SAFETY: IPC_STAT writes one shmid_ds, and `found` is one.
        checked(unsafe { libc::shmctl(self.id, libc::IPC_STAT, &raw mut found) }).of("shmctl")?;
        Ok(found)
    }
}

/// An attached segment, detached on drop. Reading, writing and atomics are those of [`Memory`].
#[derive(Debug)]
pub struct Attachment {
    memory: Memory,
}

impl Deref for Attachment {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        detach(self.memory.start());
    }
}

/// A segment's size, users and permissions, from `shmctl(IPC_STAT)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Its size in bytes, as asked for; it takes whole pages.
    pub len_bytes: usize,
    /// How often it is attached now, by all processes together.
    pub attached: u64,
    /// The creator's process id, which may have passed on to another process since; 0 if it is from
    /// a PID namespace that is not visible here.
    pub creator_pid: u32,
    /// The process that last attached or detached it, likewise; 0 if none did yet.
    pub last_user_pid: u32,
    /// The owner's user id.
    pub owner: u32,
    /// The owning group's id.
    pub group: u32,
    /// The creator's user id, which has the owner's rights for good.
    pub creator: u32,
    /// The creator's group id, which has the group's rights for good.
    pub creator_group: u32,
    /// Permission bits.
    pub mode: u32,
    /// The key it was created with; 0 for a private segment, and for one that is removed.
    pub key: i32,
    /// Whether it is marked for removal.
    pub removed: bool,
}

/// From `linux/shm.h`: a mode bit of a segment that is marked for removal.
const SHM_DEST: u32 = 0o1000;

/// `shmdt(start)`: `start` is what `shmat` returned, and nobody borrows from there any more.
fn detach(start: NonNull<u8>) {
    // SAFETY: the callers say so.
    let _: c_int = unsafe { libc::shmdt(start.as_ptr().cast()) };
}
