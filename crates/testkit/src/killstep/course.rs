//! The course of an operation as the first victim took it, so that later ones find their boundary.

use std::collections::HashMap;

use super::walk::Walk;
use super::{Call, Depth, Place};

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
    /// The next instruction.
    pub(super) place: Place,
    /// How often that was come to so far, this time included.
    pub(super) times: usize,
    /// Whether the boundary before was elsewhere. Not while an instruction repeats itself, or sleeps.
    pub(super) is_arrival: bool,
    /// How many events there were before, and whether this is one.
    pub(super) events_before: usize,
    pub(super) is_event: bool,
    pub(super) changed: bool,
    pub(super) ended: Option<Call>,
}

impl Course {
    /// The walk is at the next boundary.
    pub(super) fn note(&mut self, walk: &Walk<'_>) {
        let (here, address) = (walk.here(), walk.address());
        let is_arrival = self.last.replace(address) != Some(address);
        let times = self.times.entry(address).or_default();
        *times += usize::from(is_arrival);
        self.spots.push(Spot {
            is_event: here.is_event(),
            place: here.place,
            times: *times,
            is_arrival,
            events_before: walk.events_before(),
            changed: here.changed,
            ended: here.ended,
        });
    }

    /// How many boundaries.
    pub(super) fn len(&self) -> usize {
        self.spots.len()
    }

    pub(super) fn place(&self, number: usize) -> Option<&Place> {
        self.spots.get(number).map(|spot| &spot.place)
    }

    /// Those at which to kill.
    pub(super) fn goals(&self, depth: Depth) -> Vec<Goal> {
        match depth {
            Depth::Every => (0..self.len()).map(Goal::Number).collect(),
            Depth::Quick => {
                let events = self.spots.iter().filter(|spot| spot.is_event).count();
                (0..events).map(Goal::Event).collect()
            }
        }
    }

    /// The last arrival that is not beyond the goal, and the goal by its number.
    pub(super) fn way_to(&self, goal: Goal) -> Option<(usize, &Spot, Goal)> {
        let number = match goal {
            Goal::End => None,
            Goal::Number(number) => Some(number),
            Goal::Event(event) => {
                self.spots.iter().position(|spot| spot.is_event && spot.events_before == event)
            }
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

    fn course(spots: &[(u64, bool, bool)]) -> Course {
        let mut course = Course::default();
        for &(offset, is_arrival, is_event) in spots {
            let place = Place { module: Path::new("/x").into(), offset };
            let events_before = course.spots.iter().filter(|spot| spot.is_event).count();
            let (changed, ended) = (false, None);
            course.spots.push(Spot {
                place,
                times: 1,
                is_arrival,
                events_before,
                is_event,
                changed,
                ended,
            });
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
        assert_eq!(course.goals(Depth::Quick).len(), 3);
        assert_eq!(course.goals(Depth::Every).len(), 4);
    }
}
