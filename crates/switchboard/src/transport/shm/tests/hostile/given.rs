//! Descriptors that liars give away: none is believed that is not exactly what it has to be.

use std::os::fd::{AsFd, OwnedFd};

use switchboard_shm::layout::{PAGE_BYTES, reader, writer, writer_bytes};

use super::memory::{self, CAPACITY_BYTES, Made};
use super::peer::{LyingWriter, dial, hello, say_hello};
use super::scene::{Scene, both};
use crate::transport::shm::datagram::Datagram;
use crate::transport::shm::geometry::{QUEUE, TOPIC};
use crate::transport::shm::hello::{Pattern, Role};

const CAPACITY: u64 = CAPACITY_BYTES as u64;

/// What is wrong in the header page of a ring.
fn rings(pattern: u32) -> Vec<(&'static str, OwnedFd)> {
    let with = |index, word| memory::ring(pattern).with(index, word).make();
    let long = |len_bytes: usize, capacity: u64| {
        let made = Made { len_bytes, ..memory::ring(pattern) };
        made.with(writer::CAPACITY_WORD, capacity).make()
    };
    let too_large = writer_bytes(*writer::CAPACITY_BYTES.end() as usize * 2);
    let mut all = vec![
        ("no ring", with(writer::MAGIC_WORD, 0)),
        ("a page for a ring", with(writer::MAGIC_WORD, reader::MAGIC)),
        ("another version", with(writer::KIND_WORD, 2)),
        ("no capacity", with(writer::CAPACITY_WORD, 0)),
        ("twice its capacity", with(writer::CAPACITY_WORD, CAPACITY * 2)),
        ("half its capacity", with(writer::CAPACITY_WORD, CAPACITY / 2)),
        ("all the capacity there is", with(writer::CAPACITY_WORD, u64::MAX)),
        ("unknown flags", with(writer::FLAGS_WORD, 4)),
        ("a page less", long(writer_bytes(CAPACITY_BYTES) - PAGE_BYTES, CAPACITY)),
        ("three quarters", long(writer_bytes(3 * 4096), 3 * 4096)),
        ("a header page alone", long(PAGE_BYTES, CAPACITY)),
        ("a small ring", long(writer_bytes(2048), 2048)),
        ("a large ring", {
            let made = Made { reserved: false, len_bytes: too_large, ..memory::ring(pattern) };
            made.make()
        }),
    ];
    all.extend(memory::wrong(&memory::ring(pattern)));
    all
}

/// What a writer gives with its hello, and with its welcome.
fn give(scene: &mut Scene, name: &str, bell: &OwnedFd, ring: &OwnedFd) {
    scene.begin(name);
    let raw = dial(scene.base(), scene.pattern, Role::Reader);
    let both = [bell.as_fd(), ring.as_fd()];
    let is_topic = scene.pattern == Pattern::Topic;
    say_hello(&raw, &hello(scene.pattern, Role::Writer), &both[..1 + usize::from(is_topic)]);
    let welcome = Datagram::Welcome { slot: 0, position: 0, number: 0 };
    // It may have been refused by now.
    let _ = raw.say_it(&welcome, if is_topic { &[] } else { &both[1..] });
    scene.victim.expect_error("misbehaved", "");
    raw.until_refused("");
    drop(raw);
    scene.goes_on();
}

#[test]
fn memory_of_a_writer_is_checked() {
    for (pattern, number) in [(Pattern::Topic, TOPIC), (Pattern::Queue, QUEUE)] {
        let mut scene = Scene::of(pattern, Role::Reader, "");
        let bell = memory::bell().make();
        for (name, ring) in rings(number) {
            give(&mut scene, name, &bell, &ring);
        }
        let ring = memory::ring(number).make();
        for (name, bell) in memory::wrong(&memory::bell()) {
            give(&mut scene, name, &bell, &ring);
        }
        let two = Made { len_bytes: 2 * PAGE_BYTES, ..memory::bell() };
        give(&mut scene, "two doorbells", &two.make(), &ring);
        scene.end();
    }
}

#[test]
fn segments_of_a_writer_are_checked() {
    both(Role::Reader, "", |scene| {
        for (name, fd) in memory::wrong(&memory::segment(PAGE_BYTES)) {
            scene.begin(name);
            let mut liar = LyingWriter::open(scene.base(), scene.pattern, false);
            liar.messages(1);
            liar.give_segment(0, fd);
            scene.victim.expect_error("misbehaved", "a segment that cannot be trusted");
            liar.raw.until_refused("a segment that cannot be trusted");
            scene.goes_on();
        }
    });
}

fn pages() -> Vec<(&'static str, OwnedFd)> {
    let mut all = vec![
        ("no page", memory::page().with(reader::MAGIC_WORD, 0).make()),
        ("a ring for a page", memory::page().with(reader::MAGIC_WORD, writer::MAGIC).make()),
        ("another version", memory::page().with(reader::VERSION_WORD, 2).make()),
        ("two pages", Made { len_bytes: 2 * PAGE_BYTES, ..memory::page() }.make()),
    ];
    all.extend(memory::wrong(&memory::page()));
    all
}

#[test]
fn memory_of_a_reader_is_checked() {
    both(Role::Writer, "", |scene| {
        for (name, page) in pages() {
            scene.begin(name);
            let raw = dial(scene.base(), scene.pattern, Role::Writer);
            say_hello(&raw, &hello(scene.pattern, Role::Reader), &[page.as_fd()]);
            raw.until_refused("page");
            drop(raw);
            scene.goes_on();
        }
    });
}
