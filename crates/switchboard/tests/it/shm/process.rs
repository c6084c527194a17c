//! What the system says of a process. Source: `proc(5)`.

use std::collections::BTreeMap;
use std::fs;

/// Memory of `shm:`, by what the mappings say: all of it is reserved when it is made, and one that is mapped
/// twice counts once.
pub(super) fn shared_bytes() -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").expect("the mappings");
    let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
    for line in maps.lines().filter(|line| line.contains("/memfd:")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (begin, end) = words[0].split_once('-').expect("a range");
        let [begin, end] = [begin, end].map(|word| u64::from_str_radix(word, 16).expect("hex"));
        let offset = u64::from_str_radix(words[2], 16).expect("an offset");
        // By inode: parts of one file may be mapped with rights of their own.
        let size = sizes.entry(words[4]).or_default();
        *size = (*size).max(offset + end - begin);
    }
    sizes.values().sum()
}

/// How many mappings of such memory there are.
pub(super) fn shared_mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("the mappings");
    maps.lines().filter(|line| line.contains("/memfd:")).count()
}

/// Pages of this process's own.
pub(super) fn own_bytes() -> u64 {
    field(&fs::read_to_string("/proc/self/status").expect("a status"), "RssAnon:") * 1024
}

/// Open descriptors.
pub(super) fn descriptors() -> usize {
    // One is that of the folder itself.
    fs::read_dir("/proc/self/fd").expect("the descriptors").count() - 1
}

/// How often the threads of a process, those that there are now, gave the processor away.
pub(super) fn sleeps(pid: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let each = tasks.flatten().filter_map(status);
    each.map(|status| field(&status, "voluntary_ctxt_switches:")).sum()
}

fn field(status: &str, name: &str) -> u64 {
    let rest = status.lines().find_map(|line| line.strip_prefix(name)).expect("such a line");
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}
