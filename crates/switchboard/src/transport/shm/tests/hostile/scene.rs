//! Two honest processes on one channel, and a liar who comes to one of them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use switchboard_testkit::{DEADLINE, Scratch, unique};

use super::honest::{Honest, Resources};
use crate::message::{Bytes, Message as _};
use crate::options::Options;
use crate::transport::Setup;
use crate::transport::shm::ends::Opened;
use crate::transport::shm::hello::{Pattern, Role};

/// Messages have never been away for longer, whatever a liar does: a sleeper that nobody wakes looks by
/// itself after a second, and these machines are busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(6);

/// Who is lied to may keep so much more memory, and so many more mappings, in the end. An allocator maps as
/// it likes; each lie would be one.
const MORE: (u64, u64) = (4096, 16);
/// AddressSanitizer remembers each piece of memory.
const MORE_WHEN_WATCHED: (u64, u64) = (256 << 10, 1000);

/// The one who is lied to, the one who is not to notice, and their channel.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) scratch: Scratch,
    pub(super) pattern: Pattern,
    pub(super) victim: Honest,
    pub(super) third: Honest,
    /// What the victim is.
    role: Role,
    before: Option<Resources>,
    /// What it is being told.
    lie: String,
}

impl Scene {
    /// Honest messages flow between the two.
    pub(super) fn of(pattern: Pattern, victim: Role, query: &str) -> Self {
        Self::with(pattern, victim, query, true)
    }

    /// The same, where perhaps nobody but its caller drives the one who is lied to.
    pub(super) fn with(pattern: Pattern, victim: Role, query: &str, io_thread: bool) -> Self {
        let scratch = own_scratch();
        let secret = unique("secret");
        let start = |role| {
            let io_thread = io_thread || role != victim;
            Honest::start_with(&scratch, pattern, role, &secret, query, io_thread)
        };
        // Who reads is there before the first message.
        let (reader, writer) = (start(Role::Reader), start(Role::Writer));
        let is_reader = victim == Role::Reader;
        let (victim_end, third) = if is_reader { (reader, writer) } else { (writer, reader) };
        let mut scene = Self {
            scratch,
            pattern,
            victim: victim_end,
            third,
            role: victim,
            before: None,
            lie: "nothing".into(),
        };
        scene.reader().until_more(200);
        scene.before = Some(scene.victim.resources());
        scene
    }

    /// The folder of the channel's folder.
    pub(super) fn base(&self) -> &Path {
        self.scratch.path()
    }

    pub(super) fn reader(&mut self) -> &mut Honest {
        if self.role == Role::Reader { &mut self.victim } else { &mut self.third }
    }

    pub(super) fn writer(&mut self) -> &mut Honest {
        if self.role == Role::Reader { &mut self.third } else { &mut self.victim }
    }

    /// From here on it is this lie.
    pub(super) fn begin(&mut self, lie: &str) {
        lie.clone_into(&mut self.lie);
    }

    /// Honest messages come as before, and nobody says anything else. The longest time between two of them.
    #[track_caller]
    pub(super) fn goes_on(&mut self) -> Duration {
        let count = self.reader().until_more(20);
        assert!(count.pause < LONGEST_PAUSE, "nothing came for {:?}", count.pause);
        self.writer().count();
        count.pause
    }

    /// Liars are gone, and the one they came to has what it had, but for the memory that its allocator
    /// keeps.
    #[track_caller]
    pub(super) fn is_as_before(&mut self) {
        let before = self.before.expect("as it was");
        self.victim.until_peers(1);
        let is_watched = std::env::var_os("ASAN_OPTIONS").is_some();
        let (kib, mappings) = if is_watched { MORE_WHEN_WATCHED } else { MORE };
        let since = Instant::now();
        loop {
            let now = self.victim.resources();
            let grown = now.resident_kib.saturating_sub(before.resident_kib);
            // An arena that has grown stays so.
            let is_same = now.descriptors <= before.descriptors + 6
                && now.mappings <= before.mappings + mappings
                && grown < kib;
            if is_same {
                return;
            }
            assert!(since.elapsed() < DEADLINE, "{before:?} became {now:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Nothing is left of the liars, and every honest message has come.
    #[track_caller]
    pub(super) fn end(mut self) {
        let sent = self.finish();
        let since = Instant::now();
        while self.pattern == Pattern::Topic && self.reader().ask("through") != [sent] {
            assert!(since.elapsed() < DEADLINE, "{sent} were sent, {:?}", self.reader().count());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.reader().ask("finish"), [sent, 0], "all up to the last, and none beyond");
    }

    /// As [`end`](Self::end), where a liar has settled some messages by right.
    #[track_caller]
    pub(super) fn end_without_all(mut self) {
        self.finish();
    }

    #[track_caller]
    fn finish(&mut self) -> u64 {
        "the end".clone_into(&mut self.lie);
        self.goes_on();
        self.is_as_before();
        let sent = self.writer().ask("finish");
        let [sent] = sent[..] else { panic!("{sent:?}") };
        sent
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            switchboard_testkit::skip::say(&format!(
                "{:?}, lies to the {:?}: {}",
                self.pattern, self.role, self.lie
            ));
        }
    }
}

/// A folder that others cannot touch, as channels demand.
pub(super) fn own_scratch() -> Scratch {
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o700)).expect("a mode");
    scratch
}

/// An end in this process that nobody drives but the test, and the folder of its channel's folder.
pub(super) fn open_here<E: Opened>(options: Options) -> (Scratch, E) {
    let scratch = own_scratch();
    let address = format!("shm:channel?scope={}", scratch.path().display());
    let address = address.parse().expect("an address");
    let end = E::open(Setup::new(address, options, Bytes::schema()));
    (scratch, end.expect("an end"))
}

/// Ends another thread also when this one fails.
pub(super) struct Stop<'a>(pub(super) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The same with a topic and a queue.
pub(super) fn both(victim: Role, query: &str, mut act: impl FnMut(&mut Scene)) {
    for pattern in [Pattern::Topic, Pattern::Queue] {
        let mut scene = Scene::of(pattern, victim, query);
        act(&mut scene);
        scene.end();
    }
}
