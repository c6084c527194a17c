//! What is looked at, how it is sorted and filtered, which row is selected: the state that keys change.
//!
//! Source: docs/design/top.md.

use super::Pane;
use super::pressure::summary;
use super::rows::{self, Key, Row};
use super::sample::Sample;
use crate::machine::Users;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct View {
    pub(super) pane: Pane,
    panes: [PaneView; Pane::ALL.len()],
    /// The rows of the pane, sorted and filtered.
    pub(super) rows: Vec<Row>,
    /// How many there were before the filter.
    pub(super) total: usize,
    /// How many objects have somebody blocked, and how many limits are near.
    pub(super) summary: (usize, usize),
    /// The filter is being written.
    pub(super) is_filtering: bool,
    pub(super) is_paused: bool,
    pub(super) is_help: bool,
    /// What is open, and how far it is scrolled.
    pub(super) open: Option<(Key, usize)>,
}

/// What is kept of each pane.
#[derive(Clone, Debug, Default)]
pub(super) struct PaneView {
    /// The column it is sorted by; none: the most important first.
    pub(super) sort: Option<usize>,
    pub(super) is_turned: bool,
    pub(super) filter: String,
    selected: Option<Key>,
    /// Its place, for when it is gone.
    pub(super) at: usize,
    /// The first row on the screen.
    pub(super) first: usize,
}

impl View {
    /// The screen at the beginning.
    pub(super) fn new(pane: Pane) -> Self {
        Self {
            pane,
            panes: Default::default(),
            rows: Vec::new(),
            total: 0,
            summary: (0, 0),
            is_filtering: false,
            is_paused: false,
            is_help: false,
            open: None,
        }
    }

    pub(super) fn here(&self) -> &PaneView {
        &self.panes[self.pane.place()]
    }

    pub(super) fn here_mut(&mut self) -> &mut PaneView {
        &mut self.panes[self.pane.place()]
    }

    /// Makes the rows anew: of another look, or sorted or filtered otherwise. What was selected stays so.
    pub(super) fn update(&mut self, sample: &Sample, users: &Users) {
        let mut all = rows::rows(self.pane, sample, users);
        self.total = all.len();
        self.summary = summary(sample);
        let here = self.here();
        rows::filter(&mut all, &here.filter);
        if let Some(column) = here.sort {
            rows::sort(&mut all, column, here.is_turned);
        }
        self.rows = all;
        let selected = self.here().selected.as_ref();
        let found = selected.and_then(|key| self.rows.iter().position(|row| row.key == *key));
        // It is gone: what is in its place now.
        let at = found.unwrap_or(self.here().at).min(self.rows.len().saturating_sub(1));
        self.here_mut().at = at;
        if found.is_none() && self.here().selected.is_some() {
            self.select(at);
        }
    }

    /// Selects a row; the last one, if there are not so many.
    pub(super) fn select(&mut self, at: usize) {
        let at = at.min(self.rows.len().saturating_sub(1));
        let key = self.rows.get(at).map(|row| row.key.clone());
        let here = self.here_mut();
        // The first row is what is most important, whatever that is at the time.
        here.selected = key.filter(|_| at > 0);
        here.at = at;
    }

    /// Sorts by the next column, or the one before; beyond the last, as at the beginning.
    pub(super) fn sort_by_next(&mut self, is_back: bool) {
        let columns = rows::columns(self.pane).len();
        let here = self.here_mut();
        here.sort = match (here.sort, is_back) {
            (None, false) => Some(0),
            (None, true) => columns.checked_sub(1),
            (Some(at), false) => Some(at + 1).filter(|&at| at < columns),
            (Some(at), true) => at.checked_sub(1),
        };
        here.is_turned = false;
    }

    /// Opens the row that is selected.
    pub(super) fn open_selected(&mut self) {
        let key = self.rows.get(self.here().at).map(|row| row.key.clone());
        self.open = key.map(|key| (key, 0));
    }

    /// Has the selected row on a screen with room for so many rows.
    pub(super) fn scroll_into(&mut self, room: usize) {
        let (count, here) = (self.rows.len(), self.here_mut());
        here.first = here.first.min(count.saturating_sub(room)).min(here.at);
        if room > 0 && here.at >= here.first.saturating_add(room) {
            here.first = here.at + 1 - room;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_inspect::{Kind, Object, Snapshot};

    fn sample(ids: &[u64]) -> Sample {
        let mut snapshot = Snapshot::default();
        for id in ids {
            let mut object = Object::new(Kind::Pipe, format!("pipe:{id}"));
            (object.fill, object.size) = (Some(*id), Some(100));
            snapshot.objects.push(object);
        }
        Sample::of(snapshot)
    }

    fn selected(view: &View) -> &str {
        &view.rows[view.here().at].cells[1].text
    }

    #[test]
    fn what_is_selected_stays_so() {
        let users = Users::default();
        let mut view = View::new(Pane::Pressure);
        view.update(&sample(&[10, 20, 30]), &users);
        assert_eq!(selected(&view), "pipe:30");
        view.update(&sample(&[10, 20, 30, 40]), &users);
        assert_eq!(selected(&view), "pipe:40", "nobody chose: what is most important");
        view.select(2);
        assert_eq!(selected(&view), "pipe:20");
        view.update(&sample(&[10, 20, 50, 60, 70, 80]), &users);
        assert_eq!(selected(&view), "pipe:20");
        view.update(&sample(&[10, 50, 60, 70, 80]), &users);
        assert_eq!(selected(&view), "pipe:10", "what is in its place");
        view.update(&sample(&[]), &users);
        view.open_selected();
        assert!(view.open.is_none() && view.rows.is_empty());
        view.select(7);
        view.update(&sample(&[1]), &users);
        assert_eq!(selected(&view), "pipe:1");
    }

    #[test]
    fn each_pane_is_sorted_and_filtered_for_itself() {
        let users = Users::default();
        let mut view = View::new(Pane::Pressure);
        view.sort_by_next(false);
        view.sort_by_next(false);
        view.here_mut().filter = "pipe:3".to_owned();
        view.update(&sample(&[10, 30, 31]), &users);
        assert_eq!((view.rows.len(), view.total), (2, 3));
        assert_eq!(selected(&view), "pipe:30", "by id");
        view.here_mut().is_turned = true;
        view.update(&sample(&[10, 30, 31]), &users);
        assert_eq!(selected(&view), "pipe:31");
        view.pane = Pane::Limits;
        assert!(view.here().sort.is_none() && view.here().filter.is_empty());
        for is_back in [false, true] {
            for _ in 0..=rows::columns(Pane::Limits).len() {
                view.sort_by_next(is_back);
            }
            assert!(view.here().sort.is_none(), "once round");
        }
    }

    #[test]
    fn the_selected_row_is_on_the_screen() {
        let mut view = View::new(Pane::Pressure);
        view.update(&sample(&(0..50).collect::<Vec<_>>()), &Users::default());
        for (at, room, first) in [
            (0, 10, 0),
            (9, 10, 0),
            (10, 10, 1),
            (49, 10, 40),
            (45, 10, 40),
            (3, 10, 3),
            (3, 0, 3),
            (20, 1, 20),
            (20, 100, 0),
        ] {
            view.select(at);
            view.scroll_into(room);
            assert_eq!(view.here().first, first, "row {at} in {room}");
        }
    }
}
