//! Mistakes that the models have to notice: one step of an algorithm left out, weakened or in another place.

mod shm;
mod sync;

/// The models of a package, and what they have to notice.
pub(super) struct Suite {
    pub(super) package: &'static str,
    /// The folder of the files that they include.
    pub(super) sources: &'static str,
    pub(super) mistakes: &'static [Mistake],
}

/// A mistake in one file.
pub(super) struct Mistake {
    pub(super) what: &'static str,
    /// From the folder of the sources.
    pub(super) file: &'static str,
    /// The text that is replaced: once in the file.
    pub(super) right: &'static str,
    pub(super) wrong: &'static str,
    /// A part of the names of the models that are run.
    pub(super) models: &'static str,
}

pub(super) const SUITES: &[Suite] = &[
    Suite {
        package: "switchboard-kernel",
        sources: "crates/kernel/src/sync",
        mistakes: sync::MISTAKES,
    },
    Suite { package: "switchboard-shm", sources: "crates/shm/src", mistakes: shm::MISTAKES },
];
