//! Tests of `signal.rs`. Signals meant for a process run in processes with one thread, so that it
//! is known which thread they reach.
