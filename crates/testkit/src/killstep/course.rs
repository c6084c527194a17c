//! The course of an operation as the first victim took it, so that later ones find their boundary.

use std::collections::HashMap;

use super::walk::Walk;
use super::{Boundary, Depth, How, Place};

/// A boundary to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    End,
    Number(usize),
    /// By its number among the events: the same one in every run, though loops may differ in length.
    Event(usize),
}

/// All boundaries, in order.
#[derive(Debug, Default)]
pub(super) struct Course {
    spots: Vec<Spot>,
    /// How often each address was come to so far.
    times: HashMap<u64, usize>,
    /// The address of the last boundary.
    last: Option<u64>,
}

/// A boundary on it.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) here: Boundary,
    /// How often that was come to so far, this time included.
    pub(super) times: usize,
    /// Whether the boundary before was elsewhere. Not while an instruction repeats itself, or sleeps.
    pub(super) is_arrival: bool,
    /// How many events there were before.
    pub(super) events_before: usize,
}

impl Course {
    /// The walk is at the next boundary.
    pub(super) fn note(&mut self, walk: &Walk<'_>) {
        let (here, address) = (walk.here(), walk.address());
        let is_arrival = self.last.replace(address) != Some(address);
        let times = self.times.entry(address).or_default();
        *times += usize::from(is_arrival);
        let events_before = walk.events_before();
        self.spots.push(Spot { here, times: *times, is_arrival, events_before });
    }

    /// How many boundaries.
    pub(super) fn len(&self) -> usize {
        self.spots.len()
    }

    pub(super) fn place(&self, number: usize) -> Option<&Place> {
        self.spots.get(number).map(|spot| &spot.here.place)
    }

    /// Whether it slept in a system call.
    pub(super) fn sleeps(&self) -> bool {
        self.spots.iter().any(|spot| spot.here.blocked.is_some())
    }

    /// Those that are events.
    pub(super) fn events(&self) -> Vec<Boundary> {
        let boundaries = self.spots.iter().map(|spot| &spot.here);
        boundaries.filter(|here| here.is_event()).cloned().collect()
    }

    /// Those at which to kill, or to stop.
    pub(super) fn goals(&self, how: How, depth: Depth) -> Vec<Goal> {
        let goal = |spot: &Spot| match depth {
            Depth::Every => Some(Goal::Number(spot.here.number)),
            _ if spot.here.is_event() => Some(Goal::Event(spot.events_before)),
            // Who is dead has forgotten what it read.
            _ if how == How::Stop && spot.here.loaded => Some(Goal::Number(spot.here.number)),
            _ => None,
        };
        depth.of(self.spots.iter().filter_map(goal).collect())
    }

    /// The last arrival that is not beyond the goal, and the goal by its number.
    pub(super) fn way_to(&self, goal: Goal) -> Option<(usize, &Spot, Goal)> {
        let number = match goal {
            Goal::End => None,
            Goal::Number(number) => Some(number),
            Goal::Event(event) => self
                .spots
                .iter()
                .position(|spot| spot.here.is_event() && spot.events_before == event),
        }?;
        let mut before = self.spots.iter().enumerate().take(number + 1).rev();
        let (at, spot) = before.find(|(_, spot)| spot.is_arrival)?;
        Some((at, spot, Goal::Number(number)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Offsets; whether it arrives there; whether shared bytes changed.
    fn course(spots: &[(u64, bool, bool)]) -> Course {
        let mut course = Course::default();
        for (number, &(offset, is_arrival, changed)) in spots.iter().enumerate() {
            let here = Boundary {
                number,
                who: "victim",
                place: Place { module: Path::new("/x").into(), offset },
                changed,
                loaded: offset == 4,
                ended: None,
                begins: None,
                blocked: None,
                after: None,
                end: false,
            };
            let events_before = course.events().len();
            course.spots.push(Spot { here, times: 1, is_arrival, events_before });
        }
        course
    }

    #[test]
    fn a_goal_is_come_to_by_the_last_arrival() {
        let course =
            course(&[(0, true, true), (4, true, false), (4, false, true), (8, true, true)]);
        let way = |goal| course.way_to(goal).map(|(at, _, goal)| (at, goal));
        assert_eq!(way(Goal::Number(3)), Some((3, Goal::Number(3))));
        assert_eq!(way(Goal::Number(2)), Some((1, Goal::Number(2))));
        assert_eq!(way(Goal::Event(1)), Some((1, Goal::Number(2))));
        assert_eq!(way(Goal::Event(2)), Some((3, Goal::Number(3))));
        assert_eq!(way(Goal::Event(3)), None);
        assert_eq!(way(Goal::End), None);
    }

    #[test]
    fn a_stop_also_matters_after_a_load() {
        let course = course(&[(0, true, true), (4, true, false), (8, true, true)]);
        let (first, load, last) = (Goal::Event(0), Goal::Number(1), Goal::Event(1));
        assert_eq!(course.goals(How::Kill, Depth::Quick), [first, last]);
        assert_eq!(course.goals(How::Stop, Depth::Quick), [first, load, last]);
        assert_eq!(course.goals(How::Kill, Depth::Every).len(), 3);
    }
}
