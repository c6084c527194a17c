//! Runs that are killed at any moment: what they closed is opened again, or they removed it and it is restored. Nothing is lost either way.

use std::path::Path;
use std::time::Duration;

use switchboard_clean::journal::State;
use switchboard_clean::recover::recover;
use switchboard_clean::remove::remove;
use switchboard_clean::restore::restore;
use switchboard_clean::{Journal, Limits, Target, target};
use switchboard_inspect::Kind;
use switchboard_kernel::posix_mq::{Access, MessageQueue};
use switchboard_kernel::posix_shm;
use switchboard_kernel::sysv_shm::{self, Segment};
use switchboard_kernel::{Permissions, random};
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, unique};

use crate::queues::{has_all, of_queue, planted};
use crate::stage::{NOW, Stage};

/// How many processes are killed for each kind.
const KILLS: u32 = 60;

/// Removes one object, and says when it begins.
pub(crate) fn interrupted(arguments: &[String]) {
    let [state, kind, object, place, file] = arguments else { return };
    let kind = Kind::named(kind).expect("a kind");
    let place = match kind {
        Kind::SysvShm => target::Place::Id(place.parse().expect("an id")),
        Kind::Mq => target::Place::Queue(place.clone()),
        _ => target::Place::File(place.clone()),
    };
    let mut numbers = file.split(':').map(|number| number.parse::<u64>().expect("a number"));
    let mut small = || u32::try_from(numbers.next().expect("a number")).expect("small");
    let file = (small(), small(), numbers.next().expect("a number"));
    let target = Target { object: object.clone(), kind, place, file: Some(file) };
    let journal = Journal::open_in(Path::new(state)).expect("a journal");
    let mut run = journal.begin(Limits::default()).expect("a run");
    report("begins");
    let done = remove(&mut run, &target, &[], NOW);
    let ended = run.end();
    report(done.map_or_else(|error| error.to_string(), |_| "removed".to_owned()));
    ended.expect("ended");
}

/// Kills a process that removes something, this long after it began. `true`: the object is there again, because it was opened or restored.
fn kill(stage: &Stage, target: &Target, after: Duration) -> State {
    let (major, minor, inode) = target.file.unwrap_or_default();
    let file = format!("{major}:{minor}:{inode}");
    let state = stage.path("state");
    let state = state.to_str().expect("a path");
    let (kind, object) = (target.kind.name(), target.object.as_str());
    let place = target.place.words();
    let arguments = [state, kind, object, &place, &file];
    let mut child = Child::role("clean-interrupted", &arguments);
    child.expect("begins");
    let until = std::time::Instant::now() + after;
    while std::time::Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill();
    for recovered in recover(&stage.journal).expect("a journal") {
        recovered.outcome.expect("opened, or removed");
    }
    assert_eq!(recover(&stage.journal).expect("a journal"), [], "nothing is left to do");
    let mut last = State::Opened;
    for name in stage.journal.runs().expect("runs") {
        let run = stage.journal.read(&name).expect("a run");
        if let Some(kept) = run.objects.get(&1) {
            last = kept.state.clone();
        }
        if last == State::Removed {
            restore(&run, 1).expect("restored");
        }
        drop(run);
        stage.journal.forget(&name).expect("forgotten");
    }
    last
}

/// Delays that reach from before the first step to after the last one, measured.
fn delays(one_removal: Duration) -> impl Iterator<Item = Duration> {
    (0..KILLS).map(move |step| one_removal * 3 * step / (2 * KILLS))
}

/// A queue with four messages, in order, whatever happens.
#[test]
fn a_queue_keeps_its_messages() {
    let stage = Stage::new();
    let (named, queue) = planted();
    let at_first = of_queue(&named.0, &queue);
    drop(queue);
    let began = std::time::Instant::now();
    let (run, done) = stage.remove_at_last(&at_first);
    let took = began.elapsed();
    done.expect("removed");
    stage.restore(&run).expect("restored");
    stage.journal.forget(&run).expect("forgotten");
    let mut seen = [0, 0];
    for after in delays(took) {
        let queue = MessageQueue::open(&named.0, Access::Both).expect("there");
        let target = of_queue(&named.0, &queue);
        drop(queue);
        let state = kill(&stage, &target, after);
        seen[usize::from(state == State::Removed)] += 1;
        let queue = MessageQueue::open(&named.0, Access::Both).expect("there again");
        assert_eq!(rustix::fs::fstat(&queue).expect("a status").st_mode & 0o777, 0o660);
        has_all(&queue);
        for at in [3, 0, 2, 1] {
            let (text, priority) = crate::queues::MESSAGES[at];
            queue.send(text, priority).expect("sent");
        }
    }
    assert!(seen[0] > 0, "some were killed before it was removed: {seen:?}");
}

#[test]
fn memory_keeps_its_name_and_bytes() {
    let stage = Stage::new();
    let name = format!("/{}", unique("clean"));
    let path = std::path::PathBuf::from(format!("/dev/shm{name}"));
    let mut bytes = vec![0; 200_000];
    random::fill(&mut bytes).expect("random bytes");
    let permissions = Permissions::new().mode(0o604);
    drop(posix_shm::Segment::create(&name, bytes.len() as u64, permissions).expect("a segment"));
    std::fs::write(&path, &bytes).expect("written");
    let mut seen = [0, 0];
    for after in delays(Duration::from_millis(8)) {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let found = std::fs::metadata(&path).expect("it is there");
        assert_eq!(found.permissions().mode() & 0o7777, 0o604);
        assert!(std::fs::read(&path).expect("read") == bytes);
        let file = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()), found.ino());
        let place = target::file(&path);
        let object = "posix-shm:x".to_owned();
        let target = Target { object, kind: Kind::PosixShm, place, file: Some(file) };
        let state = kill(&stage, &target, after);
        seen[usize::from(state == State::Removed)] += 1;
    }
    assert!(std::fs::read(&path).expect("read") == bytes);
    posix_shm::unlink(&name).expect("unlinked");
    assert!(seen[0] > 0, "some were killed before it was removed: {seen:?}");
}

#[test]
fn a_segment_keeps_its_mode() {
    let stage = Stage::new();
    let mut made = Vec::new();
    for _ in 0..KILLS {
        let mut key = [0; 4];
        random::fill(&mut key).expect("random bytes");
        let key = sysv_shm::Key::Value(i32::from_ne_bytes(key) | 1);
        let permissions = Permissions::new().mode(0o640);
        let options = sysv_shm::CreateOptions::new().exclusive(true).permissions(permissions);
        let segment = Segment::create(&key, 50_000, &options).expect("a segment");
        let memory = segment.attach(sysv_shm::Access::ReadWrite).expect("attached");
        memory.write_at(49_000, b"here").expect("written");
        made.push((key, segment.id()));
    }
    let mut seen = [0, 0];
    for ((key, id), after) in made.iter().zip(delays(Duration::from_millis(6))) {
        let place = target::Place::Id(*id);
        let object = format!("sysv-shm:{id}");
        let target = Target { object, kind: Kind::SysvShm, place, file: None };
        let state = kill(&stage, &target, after);
        seen[usize::from(state == State::Removed)] += 1;
        let segment = Segment::open(key).expect("it is there");
        assert_eq!(segment.status().expect("there").mode, 0o640);
        let mut text = [0; 4];
        let memory = segment.attach(sysv_shm::Access::ReadOnly).expect("attached");
        memory.read_at(49_000, &mut text).expect("read");
        assert_eq!(&text, b"here");
        drop(memory);
        segment.remove().expect("removed");
    }
    assert!(seen[0] > 0, "some were killed before it was removed: {seen:?}");
}
