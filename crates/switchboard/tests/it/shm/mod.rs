//! Topics and queues in shared memory, where what they promise is more than what every transport does.

pub(crate) mod counts;
pub(crate) mod elsewhere;
mod ends;
pub(crate) mod fork;
pub(crate) mod losses;
mod process;
pub(crate) mod thousand;
