//! The meeting of `shm:`: its datagrams, its folder, and endpoints in one process and in many.

mod datagram;
