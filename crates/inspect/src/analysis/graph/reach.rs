//! What some processes reach.
//!
//! Source: docs/design/map.md, "From a process". Through what they use, or may use; whoever merely holds an end is shown, and not gone
//! on from.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{Graph, Hold};

impl Graph {
    /// Leaves only what these processes reach in so many steps; none: in any number.
    pub fn keep_reached(&mut self, pids: &[u32], most_steps: Option<usize>) {
        let by_process = self.by_process();
        let mut steps: HashMap<u32, usize> = pids.iter().map(|&pid| (pid, 0)).collect();
        let mut next: VecDeque<u32> = pids.iter().copied().collect();
        while let Some(pid) = next.pop_front() {
            let step = steps.get(&pid).copied().unwrap_or(0) + 1;
            if most_steps.is_some_and(|most| step > most) {
                continue;
            }
            for &at in by_process.get(&pid).into_iter().flatten() {
                let channel = &self.channels[at];
                // Of those who were asked for, what they hold is shown too.
                if !channel.is_used_by(pid) && step > 1 {
                    continue;
                }
                for party in &channel.parties {
                    if let Entry::Vacant(place) = steps.entry(party.pid) {
                        place.insert(step);
                        // In whatever way it was come to, it goes on from what it uses.
                        if party.hold() > Hold::Held {
                            next.push_back(party.pid);
                        }
                    }
                }
            }
        }
        let kept: BTreeSet<u32> = steps.into_keys().collect();
        self.channels.retain(|channel| {
            !channel.parties.is_empty()
                && channel.parties.iter().all(|party| kept.contains(&party.pid))
        });
        self.processes.retain(|node| kept.contains(&node.pid));
        self.forget_empty_groups();
    }

    fn forget_empty_groups(&mut self) {
        let mut numbers = HashMap::new();
        let processes = &mut self.processes;
        let old = std::mem::take(&mut self.groups);
        for (number, mut group) in old.into_iter().enumerate() {
            let there = |pid: &u32| processes.binary_search_by_key(pid, |node| node.pid).is_ok();
            group.processes.retain(there);
            if !group.processes.is_empty() {
                numbers.insert(number, self.groups.len());
                self.groups.push(group);
            }
        }
        for node in processes {
            node.group = numbers.get(&node.group).copied().unwrap_or(0);
        }
    }
}
