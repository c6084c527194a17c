//! Draws the screen, of any size: the pane, what is open, the help.
//!
//! Source: docs/design/top.md, "The terminal". Nothing is written beside the area that there is.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::{Block, Clear, Widget};

use super::Pane;
use super::details;
use super::keys::HELP;
use super::rows::{Column, Mark, Row, columns};
use super::sample::Sample;
use super::view::View;
use crate::machine::Users;

/// Between two columns.
const GAP: u16 = 2;
/// The last column is not shown with less room than this, unless it stays whatever the room is.
const LEAST_LAST: u16 = 12;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const NEAR: Style = Style::new().fg(Color::Yellow);
const TITLE: Style = Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD);

/// Draws all.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View, sample: Option<&Sample>, users: &Users) {
    let area = frame.area();
    let screen = &mut Screen { buffer: frame.buffer_mut(), area };
    let Some(sample) = sample else {
        screen.put(0, 0, "switchboard top: looking...", DIM);
        return;
    };
    // What is most important stays: the rows, then their titles, then where one is.
    let (head, titles, foot) = match area.height {
        0..=2 => (0, 0, 0),
        3..=4 => (0, 1, 0),
        5..=7 => (1, 1, 1),
        _ => (2, 1, 1),
    };
    if head > 0 {
        panes(screen, view, sample);
    }
    if head > 1 {
        let (text, style) = status(view, sample, area.width.into());
        screen.put(0, 1, &text, style);
    }
    if foot > 0 {
        footer(screen, view, area.height - 1);
    }
    let body = Rect {
        x: area.x,
        y: area.y + head,
        width: area.width,
        height: area.height.saturating_sub(head + foot),
    };
    match &mut view.open {
        Some((key, scrolled)) => {
            let lines = details::lines(sample, key, users);
            text(screen, body, &details::name(key), &lines, scrolled);
        }
        None => table(screen, body, titles, view, sample),
    }
    if view.is_help {
        help(screen, area, &not_seen(view, sample));
    }
}

/// What is drawn on.
struct Screen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
}

impl Screen<'_> {
    /// Writes from a place on, as far as there is room; where it ends.
    fn put(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        self.put_in(x, y, text, self.area.width.saturating_sub(x), style)
    }

    /// As [`Self::put`], in so many columns at most.
    fn put_in(&mut self, x: u16, y: u16, text: &str, width: u16, style: Style) -> u16 {
        if x >= self.area.width || y >= self.area.height || width == 0 {
            return x;
        }
        let width = width.min(self.area.width - x);
        let (x, y) = (self.area.x + x, self.area.y + y);
        self.buffer.set_stringn(x, y, text, width.into(), style).0 - self.area.x
    }

    /// Gives a whole line a style.
    fn style_line(&mut self, y: u16, style: Style) {
        let line = Rect { x: self.area.x, y: self.area.y + y, width: self.area.width, height: 1 };
        self.buffer.set_style(line.intersection(self.area), style);
    }
}

/// The first line: the panes, and how much could be seen.
fn panes(screen: &mut Screen<'_>, view: &View, sample: &Sample) {
    let mut x = 0;
    let narrow = screen.area.width < 46;
    for pane in Pane::ALL {
        let title = if narrow && pane != view.pane {
            format!(" {} ", pane.place() + 1)
        } else {
            format!(" {} {} ", pane.place() + 1, title(pane))
        };
        let style =
            if pane == view.pane { SELECTED.add_modifier(Modifier::BOLD) } else { Style::new() };
        x = screen.put(x, 0, &title, style);
    }
    let paused = if view.is_paused { "PAUSED  " } else { "" };
    let right = format!("{paused}{}", sample.coverage());
    let width = u16::try_from(right.chars().count()).unwrap_or(u16::MAX);
    if let Some(at) = screen.area.width.checked_sub(width).filter(|&at| at > x) {
        let coverage = &sample.now.coverage;
        let whole = coverage.readable == coverage.processes && !view.is_paused;
        screen.put(at, 0, &right, if whole { DIM } else { NEAR });
    } else if view.is_paused {
        let at = screen.area.width.saturating_sub(6);
        screen.put(at, 0, "PAUSED", NEAR);
    }
}

fn title(pane: Pane) -> &'static str {
    match pane {
        Pane::Pressure => "Pressure",
        Pane::Processes => "Processes",
        Pane::Channels => "Channels",
        Pane::Limits => "Limits",
    }
}

/// What could not be seen, in whole sentences.
fn not_seen(view: &View, sample: &Sample) -> Vec<String> {
    let around = sample.channels.as_ref().filter(|_| view.pane == Pane::Channels);
    let of_channels = around.map_or(&[][..], |channels| &channels.around.not_seen);
    of_channels.iter().chain(&sample.now.coverage.missing).cloned().collect()
}

/// The second line: how it stands, and what could not be seen: in whole sentences, else their beginnings, else how many the help has.
fn status(view: &View, sample: &Sample, room: usize) -> (String, Style) {
    let (blocked, near) = view.summary;
    let counted = |n: usize, one: &str, more: &str| {
        switchboard_inspect::text::counted(n.try_into().unwrap_or(u64::MAX), one, more)
    };
    let mut parts = vec![
        counted(blocked, "object has somebody blocked", "objects have somebody blocked"),
        counted(near, "limit is near", "limits are near"),
    ];
    let shown = view.rows.len();
    if shown == view.total {
        parts.push(counted(shown, "row", "rows"));
    } else {
        parts.push(format!("{shown} of {} rows, with \"{}\"", view.total, view.here().filter));
    }
    if view.pane == Pane::Channels {
        if sample.channels.is_none() {
            parts.push("not looked at yet".to_owned());
        }
        let elsewhere = sample.ends_elsewhere();
        if elsewhere > 0 {
            let ends = counted(elsewhere, "end", "ends");
            parts.push(format!("{ends} elsewhere: say --scope DIR"));
        }
    }
    let missing = not_seen(view, sample);
    let with = |more: &dyn Fn(&String) -> String| {
        let all = parts.iter().cloned().chain(missing.iter().map(more));
        all.collect::<Vec<_>>().join("; ")
    };
    let brief = |one: &str| one[..one.find([':', ',', '(']).unwrap_or(one.len())].trim().to_owned();
    let fits = |text: &String| text.chars().count() <= room;
    let text =
        [with(&|one| format!("not seen: {one}")), with(&|one| format!("not seen: {}", brief(one)))]
            .into_iter()
            .find(fits)
            .unwrap_or_else(|| {
                // Before what can be cut.
                parts.insert(2, format!("unseen: {}, see ?", missing.len()));
                parts.join("; ")
            });
    let style = match (blocked, near) {
        (0, 0) => DIM,
        (0, _) => NEAR,
        _ => Style::new().fg(Color::Red),
    };
    (text, style)
}

/// The last line: keys, or the filter that is written.
fn footer(screen: &mut Screen<'_>, view: &View, y: u16) {
    if view.is_filtering {
        let text = format!("/{}_   Enter keeps, Esc takes away", view.here().filter);
        screen.put(0, y, &text, BOLD);
        return;
    }
    let keys = if view.open.is_some() {
        "Esc close  Up/Down scroll  p pause  q close  ? help"
    } else {
        "q quit  ? help  1-4 pane  Enter open  s sort  r turn  / filter  p pause"
    };
    screen.put(0, y, keys, DIM);
}

/// The rows of the pane.
fn table(screen: &mut Screen<'_>, body: Rect, titles: u16, view: &mut View, sample: &Sample) {
    let all = columns(view.pane);
    let shown = fitting(all, body.width);
    let mut y = body.y - screen.area.y;
    let end = y + body.height;
    if titles > 0 && y < end {
        let sort = view.here().sort;
        let mut x = 0;
        for (at, width) in &shown {
            let column = &all[*at];
            let mut text = column.title.to_owned();
            if sort == Some(*at) {
                text.push(if view.here().is_turned { '^' } else { 'v' });
            }
            cell(screen, (x, y), *width, column.right, &text, TITLE);
            x = x.saturating_add(*width).saturating_add(GAP);
        }
        y += 1;
    }
    let room = usize::from(end.saturating_sub(y));
    view.scroll_into(room);
    if view.rows.is_empty() {
        screen.put(0, y, nothing(view, sample), DIM);
        return;
    }
    let (first, selected) = (view.here().first, view.here().at);
    for (at, row) in view.rows.iter().enumerate().skip(first).take(room) {
        line(screen, y, &shown, all, row);
        if at == selected {
            screen.style_line(y, SELECTED);
        }
        y += 1;
    }
}

/// Why there is no row.
fn nothing(view: &View, sample: &Sample) -> &'static str {
    match view.pane {
        _ if view.total > 0 => "nothing has that text in it; Esc takes the filter away",
        Pane::Channels if sample.channels.is_none() => "looking...",
        Pane::Channels => "nobody has a channel of shm: open here",
        Pane::Limits if sample.limits.is_empty() => "looking...",
        _ => "nothing can be seen",
    }
}

fn line(screen: &mut Screen<'_>, y: u16, shown: &[(usize, u16)], all: &[Column], row: &Row) {
    let style = match row.mark {
        Mark::Plain => Style::new(),
        Mark::Near => NEAR,
        Mark::Bad => BAD,
    };
    screen.style_line(y, style);
    let mut x = 0;
    for (at, width) in shown {
        if let (Some(one), Some(column)) = (row.cells.get(*at), all.get(*at)) {
            cell(screen, (x, y), *width, column.right, &one.text, style);
        }
        x = x.saturating_add(*width).saturating_add(GAP);
    }
}

/// Writes a cell; one that is too long is cut, which a mark shows.
fn cell(
    screen: &mut Screen<'_>,
    at: (u16, u16),
    width: u16,
    right: bool,
    text: &str,
    style: Style,
) {
    let count = text.chars().count();
    let room = usize::from(width);
    let (x, y) = at;
    if count > room {
        screen.put_in(x, y, text, width.saturating_sub(1), style);
        screen.put_in(x + width.saturating_sub(1), y, "…", 1, style);
    } else if right {
        // It fits, so the difference is no more than the width.
        let before = u16::try_from(room - count).unwrap_or(0);
        screen.put_in(x + before, y, text, width - before, style);
    } else {
        screen.put_in(x, y, text, width, style);
    }
}

/// The columns that there is room for, with their widths. The last one takes what is left.
fn fitting(all: &[Column], room: u16) -> Vec<(usize, u16)> {
    let mut shown: Vec<usize> = (0..all.len()).collect();
    let needed = |shown: &[usize]| -> u16 {
        let last = shown.last().copied();
        let width = |at: &usize| {
            let stretches = Some(*at) == last && *at + 1 == all.len();
            GAP + if stretches { LEAST_LAST } else { all[*at].width }
        };
        shown.iter().map(width).sum::<u16>().saturating_sub(GAP)
    };
    while needed(&shown) > room {
        let spare = shown.iter().rev().copied().max_by_key(|&at| all[at].spare);
        match spare.filter(|&at| all[at].spare > 0) {
            Some(spare) => shown.retain(|&at| at != spare),
            None => break,
        }
    }
    let mut x = 0_u16;
    let count = shown.len();
    let with_width = shown.into_iter().enumerate().map(|(place, at)| {
        let left = room.saturating_sub(x);
        let width = if place + 1 == count { left } else { all[at].width.min(left) };
        x = x.saturating_add(width).saturating_add(GAP);
        (at, width)
    });
    with_width.collect()
}

/// What is open: a frame with lines that can be scrolled.
fn text(screen: &mut Screen<'_>, area: Rect, title: &str, lines: &[String], scrolled: &mut usize) {
    let block = Block::bordered().title(format!(" {title} "));
    // Without room for a frame the lines alone.
    let inner = if area.height >= 5 && area.width >= 20 {
        let inner = block.inner(area);
        block.render(area, screen.buffer);
        inner
    } else {
        area
    };
    let wrapped = wrapped(lines, inner.width.into());
    *scrolled = (*scrolled).min(wrapped.len().saturating_sub(usize::from(inner.height)));
    let (x, mut y) = (inner.x - screen.area.x, inner.y - screen.area.y);
    for line in wrapped.iter().skip(*scrolled).take(inner.height.into()) {
        screen.put_in(x, y, line, inner.width, Style::new());
        y += 1;
    }
}

/// Lines in a width: a long one goes on in the next, further in.
fn wrapped(lines: &[String], width: usize) -> Vec<String> {
    let mut all = Vec::new();
    if width == 0 {
        return all;
    }
    for line in lines {
        let indent: String = line.chars().take_while(|c| *c == ' ').take(width / 2).collect();
        let mut rest: Vec<char> = line.chars().collect();
        let mut first = true;
        loop {
            let before = if first { String::new() } else { format!("{indent}  ") };
            let room = width.saturating_sub(before.chars().count()).max(1);
            if rest.len() <= room {
                all.push(before + &rest.iter().collect::<String>());
                break;
            }
            // Where there is a space in the second half, there.
            let cut = rest[..room].iter().rposition(|c| *c == ' ').filter(|at| *at > room / 2);
            let cut = cut.map_or(room, |at| at + 1);
            let next = rest.split_off(cut);
            all.push(before + &rest.iter().collect::<String>());
            (rest, first) = (next, false);
        }
    }
    all
}

/// The help, over what is there.
fn help(screen: &mut Screen<'_>, area: Rect, not_seen: &[String]) {
    let mut lines: Vec<String> =
        HELP.iter().map(|(key, what)| format!("{key:<14} {what}")).collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) + 4;
    let width = u16::try_from(width).unwrap_or(u16::MAX).min(area.width);
    if !not_seen.is_empty() {
        let first = ["Not seen:".to_owned()];
        lines.splice(
            0..0,
            first
                .into_iter()
                .chain(not_seen.iter().map(|one| format!("  {one}")))
                .chain([String::new()]),
        );
    }
    let rows = wrapped(&lines, usize::from(width.saturating_sub(2))).len();
    let height = u16::try_from(rows + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(place, screen.buffer);
    text(screen, place, "switchboard top", &lines, &mut 0);
}

#[cfg(test)]
mod tests;
