//! Topics and queues in shared memory, where what they promise is more than what every transport does.

mod ends;
pub(crate) mod losses;
