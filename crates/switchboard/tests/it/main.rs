//! The library, between real processes.

#![forbid(unsafe_code)]

mod address;
mod conformance;
mod event;
mod forked;
mod loans;
mod log;
mod message;
mod place;
mod service;
mod shm;
mod state;
#[cfg(feature = "tokio")]
mod tasks;

use switchboard_testkit::child::{Role, enter};

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] = &[
    #[cfg(feature = "tokio")]
    ("async-publisher", tasks::publisher),
    #[cfg(feature = "tokio")]
    ("async-receiver", tasks::receiver),
    #[cfg(feature = "tokio")]
    ("async-sender", tasks::sender),
    #[cfg(feature = "tokio")]
    ("async-subscriber", tasks::subscriber),
    #[cfg(feature = "tokio")]
    ("tasks-of-one-thread", tasks::one_thread),
    ("borrower", loans::borrower),
    ("crowd", conformance::crowds::crowd),
    ("event-stranger", event::stranger),
    ("few-objects", event::few_objects),
    ("forked-queue", forked::queue),
    ("forked-second", forked::second),
    ("forked-state", forked::state),
    ("full-file-system", conformance::limits::full_file_system),
    ("json-receiver", conformance::ends::json_receiver),
    ("limited-listener", event::limited_listener),
    ("listener", event::listener),
    ("lender", loans::lender),
    ("log-damaged", log::full::damaged),
    ("log-rejected", log::full::rejected),
    ("log-drained", log::full::drained),
    ("log-endless", log::batches::endless),
    ("log-feeder", log::batches::feeder),
    ("log-forker", log::fork::forker),
    ("log-maker", log::foreign::maker),
    ("log-limited", log::batches::limited),
    ("log-repeater", log::batches::repeater),
    #[cfg(target_arch = "x86_64")]
    ("log-killstep", log::killstep::publisher),
    #[cfg(target_arch = "x86_64")]
    ("log-killstep-batch", log::killstep::batch_publisher),
    ("log-named", log::crash::named),
    ("log-named-reader", log::named::reader),
    ("log-publisher", log::topic::publisher),
    ("log-receiver", log::crash::receiver),
    ("log-healthy", log::given_back::healthy),
    ("log-sender", log::waiting::sender),
    ("log-waiting", log::waiting::waiting),
    ("log-short-files", log::limits::short_files),
    ("log-small-disk", log::limits::small_disk),
    ("log-hole", log::full::hole),
    ("log-large-pushes", log::synced::large_pushes),
    ("log-mappings", log::full::mappings),
    ("log-sparse", log::full::sparse),
    ("log-small-queue", log::limits::small_queue),
    ("log-stranger", log::topic::stranger),
    ("log-writer", log::crash::writer),
    ("lossy-proxy", conformance::udp::lossy_proxy),
    ("notifier", event::notifier),
    ("publisher", conformance::ends::publisher),
    ("receiver", conformance::ends::receiver),
    ("sender", conformance::ends::sender),
    ("subscriber", conformance::ends::subscriber),
    #[cfg(feature = "tokio")]
    ("services-of-one-thread", tasks::services),
    ("service-client", service::client),
    ("service-crowd", service::crowd),
    ("service-crowded", service::crowded),
    ("service-ledger", service::ledger),
    ("service-mortal-client", service::torture::mortal_client),
    ("service-mortal-server", service::torture::mortal_server),
    ("service-starter", service::starter),
    ("service-worker", service::worker),
    ("shm-access-choosy", shm::access::choosy),
    ("shm-access-host", shm::access::host),
    ("shm-access-refused", shm::access::refused),
    ("shm-access-looker", shm::access::looker),
    ("shm-access-visitor", shm::access::visitor),
    ("shm-access-system", shm::namespaces::system_scope),
    ("shm-feeds-host", shm::feeds_of_others::host),
    ("shm-feeds-visitor", shm::feeds_of_others::visitor),
    ("shm-busy-reader", shm::counts::busy_reader),
    ("lonely-reader", shm::counts::lonely_reader),
    ("shm-busy-writer", shm::counts::busy_writer),
    ("shm-idle", shm::counts::idle),
    ("shm-idle-links", shm::counts::idle_links),
    ("shm-elsewhere", shm::elsewhere::publisher),
    ("shm-joins-later", shm::elsewhere::joins_later),
    ("shm-forks-between", shm::fork::forks_between),
    ("shm-sends-large", shm::in_place::sends_large),
    ("shm-thousand-channels", shm::thousand::channels),
    ("shm-one-of-crowd", shm::thousand::subscriber),
    ("shm-comer", shm::descriptors::comer),
    ("shm-descriptors", shm::descriptors::counted),
    ("shm-counted-end", shm::counters::counted),
    ("shm-crowd-publisher", shm::thousand::publisher),
    ("shm-forker", shm::fork::forker),
    ("shm-mortal", shm::torture::mortal),
    ("shm-fed-subscriber", shm::gathered::subscriber),
    ("shm-ways-publisher", shm::ways::publisher),
    ("shm-ways-subscriber", shm::ways::subscriber),
    ("shm-few-files", shm::shortage::few_files),
    ("shm-other", shm::others::other),
    ("shm-short-for-large", shm::shortage::reader_of_large),
    ("shm-short-reader", shm::shortage::reader),
    ("shm-short-writer", shm::shortage::writer),
    ("shm-busy-client", shm::counts::busy_client),
    ("shm-busy-server", shm::counts::busy_server),
    #[cfg(target_arch = "x86_64")]
    ("shm-feed-victim", shm::killstep::feed_victim),
    #[cfg(target_arch = "x86_64")]
    ("shm-service-victim", shm::killstep::service_victim),
    #[cfg(target_arch = "x86_64")]
    ("shm-survivor", shm::killstep::survivor),
    #[cfg(target_arch = "x86_64")]
    ("shm-victim", shm::killstep::victim),
    ("shm-witness", shm::torture::witness),
    ("shm-writer", shm::losses::writer),
    ("small-files", state::small_files),
    ("state-reader", state::reader),
    ("state-stranger", state::stranger),
    ("state-writer", state::writer),
    ("key-writer", shm::feeds::key_writer),
    ("event-echo", shm::proofs::echo),
    ("key-storm", shm::proofs::storm),
    ("storm", state::storm),
    ("storm-watcher", state::storm_watcher),
    ("stranger", conformance::permissions::stranger),
    ("topic-crowd", conformance::topics::crowd),
    ("topic-sampler", conformance::topics::sampler),
    ("strict-receiver", conformance::permissions::strict_receiver),
];

#[test]
fn child_process() {
    enter(ROLES);
}
