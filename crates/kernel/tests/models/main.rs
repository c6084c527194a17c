//! Models of [`switchboard_kernel::sync`] in loom: every order in which threads may come, and every value
//! that a memory as weak as C11's may show them, up to a bound.
//!
//! Source: Norris and Demsky, "CDSchecker: checking concurrent data structures written with C/C++ atomics",
//! OOPSLA 2013, which is what loom does. docs/design/sync-models.md says what the models leave out.
//!
//! The algorithms are the product's own files, included here by their paths. This crate is the rest of
//! the world to them: what they import by `crate::` and by `std::` is in [`world`].

// The included files mean this crate when they say `std`.
extern crate self as std;
extern crate std as real_std;

/// As that of the standard library, for a thread of a model.
macro_rules! thread_local {
    ($(#[$attribute:meta])* static $name:ident: Cell<$value:ty> = const { Cell::new($first:expr) };) => {
        $(#[$attribute])*
        static $name: crate::world::PerThread<$value> = {
            loom::thread_local! {
                static KEY: core::cell::Cell<$value> = core::cell::Cell::new($first);
            }
            crate::world::PerThread(&KEY)
        };
    };
}

mod world;

// What the included files find under these names.
pub(crate) use core::{any, cell, marker, ops, panic, ptr, time};
pub(crate) use world::{futex, pthread, shared_words};

pub(crate) mod error {
    pub(crate) use switchboard_kernel::{Error, Result};
}

pub(crate) mod io {
    pub(crate) use switchboard_kernel::io::Deadline;
}

#[allow(dead_code, unused_imports, unreachable_pub, reason = "the models use a part of it")]
pub(crate) mod sync;
