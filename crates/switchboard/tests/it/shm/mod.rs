//! Topics and queues in shared memory, where what they promise is more than what every transport does; and while
//! processes die: at every instruction of an operation, and at random.

pub(crate) mod access;
pub(crate) mod counters;
pub(crate) mod counts;
pub(crate) mod descriptors;
pub(crate) mod elsewhere;
mod ends;
pub(crate) mod feeds;
pub(crate) mod feeds_of_others;
pub(crate) mod fork;
pub(crate) mod gathered;
pub(crate) mod in_place;
#[cfg(target_arch = "x86_64")]
pub(crate) mod killstep;
pub(crate) mod losses;
pub(crate) mod namespaces;
pub(crate) mod others;
mod process;
pub(crate) mod proofs;
pub(crate) mod shortage;
mod sleeps;
mod things;
pub(crate) mod thousand;
pub(crate) mod torture;
pub(crate) mod ways;
