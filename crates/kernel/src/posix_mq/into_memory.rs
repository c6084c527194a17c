//! Receiving into shared memory: what a process took is there for others, too, whenever it is killed.
//!
//! Source: `mq_receive(3)`; the kernel copies a message to where the caller wants it before it forgets it.

#![allow(unsafe_code)]

use libc::c_uint;

use super::{LONG_PAST, MessageQueue, timed_out_means_again};
use crate::error::{Result, last_errno};
use crate::io::retry;
use crate::mmap::Memory;

impl MessageQueue {
    /// `mq_timedreceive(a time long past)`: as [`MessageQueue::try_recv`], to a place in mapped memory, with the priority at
    /// another one. Returns the length in bytes.
    ///
    /// If that memory is a file, a process that is killed in this call has either not taken the message, or it is in the file.
    /// Its length then is not.
    ///
    /// # Errors
    /// `EINVAL`: not within the memory, or the priority is not at a multiple of 4; `EACCES`: it is read-only; else as
    /// [`MessageQueue::try_recv`].
    pub fn try_recv_into(
        &self,
        memory: &Memory,
        offset: usize,
        room_bytes: usize,
        priority_offset: usize,
    ) -> Result<usize> {
        let text = memory.writable_place(offset, room_bytes, 1)?;
        let priority = memory.writable_place(priority_offset, size_of::<c_uint>(), 4)?;
        let until = LONG_PAST;
        retry("mq_timedreceive", || {
            // SAFETY: `writable_place` checked that the room and the priority's word are mapped for writing, as long as `memory`
            // lives; nobody has a reference to bytes of it. The time limit is a valid timespec.
            let received = unsafe {
                libc::mq_timedreceive(
                    self.raw(),
                    text.cast(),
                    room_bytes,
                    priority.cast::<c_uint>(),
                    &raw const until,
                )
            };
            usize::try_from(received).map_err(|_| timed_out_means_again(last_errno()))
        })
    }
}
