//! The plot: latency by size, and messages a second, both on logarithmic scales, as SVG.
//!
//! Source: SVG 1.1, basic shapes and text.

use std::fmt::Write;

use crate::bounds::SUBJECT;
use crate::contender::TABLE;
use crate::figures::{show, size};
use crate::job::{Manner, Measure};
use crate::rounds::Row;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 90.0;
const LEGEND: f64 = 200.0;
const TOP: f64 = 50.0;
const LINES_HEIGHT: f64 = 420.0;
const BAR: f64 = 22.0;
/// Between the two panels: the axis of the first, the title of the second.
const BETWEEN: f64 = 110.0;
const BOTTOM: f64 = 50.0;

/// Colours that differ for everybody (Okabe and Ito), then again with other dashes and marks.
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6000"];
const BARE: &str = "#000000";
const OURS: &str = "#c00000";

/// A contender's figures: one per size.
struct Series {
    name: &'static str,
    bare: bool,
    points: Vec<(f64, f64)>,
}

/// How a contender is drawn: the same way in both panels.
struct Style {
    colour: &'static str,
    dashes: &'static str,
    width: f64,
    mark: usize,
}

/// The whole picture.
pub(crate) fn draw(rows: &[Row]) -> String {
    let lines = series(rows, Measure::Latency, "p50_ns", |row| row.case.manner == Manner::Best);
    let mut bars = series(rows, Measure::Stream, "per_second", |row| row.case.bytes == 64);
    bars.sort_by(|a, b| b.points[0].1.total_cmp(&a.points[0].1));
    let bars_top = TOP + LINES_HEIGHT + BETWEEN;
    let height = bars_top + BAR * bars.len() as f64 + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    if !lines.is_empty() {
        latency_panel(&mut svg, &lines);
    }
    if !bars.is_empty() {
        rate_panel(&mut svg, &bars, bars_top);
    }
    svg + "</svg>\n"
}

fn series(
    rows: &[Row],
    measure: Measure,
    figure: &str,
    wanted: impl Fn(&Row) -> bool,
) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for row in rows.iter().filter(|row| row.case.measure == measure && wanted(row)) {
        let Some(spread) = row.spread(figure) else { continue };
        let point = (row.case.bytes as f64, spread.median);
        match all.iter_mut().find(|series| series.name == row.contender.name) {
            Some(series) => series.points.push(point),
            None => {
                let (name, bare) = (row.contender.name, row.contender.bare);
                all.push(Series { name, bare, points: vec![point] });
            }
        }
    }
    all
}

fn style(series: &Series) -> Style {
    let at = TABLE
        .iter()
        .filter(|row| !row.bare && row.name != SUBJECT)
        .position(|row| row.name == series.name)
        .unwrap_or(0);
    if series.bare {
        Style { colour: BARE, dashes: "2 3", width: 2.0, mark: 3 }
    } else if series.name == SUBJECT {
        Style { colour: OURS, dashes: "", width: 3.0, mark: 0 }
    } else {
        let again = at / COLOURS.len();
        let dashes = ["", "7 4", "2 2"][again % 3];
        Style { colour: COLOURS[at % COLOURS.len()], dashes, width: 1.6, mark: again % 3 }
    }
}

/// A logarithmic axis in pixels.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From a power of ten below the values to one above them.
    fn decades(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).max(1e-9);
        let high = values.fold(low, f64::max);
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        Self { low: 10_f64.powf(low), high: 10_f64.powf(high.max(low + 1.0)), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        self.from + share * (self.to - self.from)
    }

    /// Powers of ten, and their multiples.
    fn ticks(&self) -> impl Iterator<Item = (f64, bool)> {
        let first = self.low.log10().round() as i32;
        let last = self.high.log10().round() as i32;
        let high = self.high;
        (first..=last)
            .flat_map(|power| (1..10).map(move |n| (f64::from(n) * 10_f64.powi(power), n == 1)))
            .filter(move |(value, _)| *value <= high * 1.001)
    }
}

fn latency_panel(svg: &mut String, lines: &[Series]) {
    let (right, bottom) = (WIDTH - LEGEND - 20.0, TOP + LINES_HEIGHT);
    let values = lines.iter().flat_map(|series| series.points.iter().map(|point| point.1));
    let y = Axis::decades(values, bottom, TOP);
    let sizes: Vec<f64> = lines
        .iter()
        .max_by_key(|series| series.points.len())
        .map(|series| series.points.iter().map(|point| point.0).collect())
        .unwrap_or_default();
    let low = sizes.iter().copied().fold(f64::INFINITY, f64::min);
    let high = sizes.iter().copied().fold(low * 2.0, f64::max);
    let x = Axis { low: low / 1.3, high: high * 1.3, from: LEFT, to: right };

    heading(svg, TOP - 22.0, "Latency, one way, both sides polling: p50, nanoseconds");
    for (value, whole) in y.ticks() {
        let at = y.at(value);
        rule(svg, (LEFT, at), (right, at), whole);
        if whole {
            text(svg, (LEFT - 8.0, at + 4.0), "end", &show(value));
        }
    }
    for &bytes in &sizes {
        let at = x.at(bytes);
        rule(svg, (at, TOP), (at, bottom), false);
        text(svg, (at, bottom + 18.0), "middle", &size(bytes as usize));
    }
    text(svg, (f64::midpoint(LEFT, right), bottom + 40.0), "middle", "bytes of payload");
    for series in lines {
        let style = style(series);
        let points: Vec<(f64, f64)> =
            series.points.iter().map(|point| (x.at(point.0), y.at(point.1))).collect();
        polyline(svg, &points, &style);
        for point in points {
            mark(svg, point, &style);
        }
    }
    legend(svg, lines, right + 24.0);
}

/// In the order of the lines at their left ends, where they are farthest apart.
fn legend(svg: &mut String, lines: &[Series], left: f64) {
    let first = |series: &Series| series.points.first().map_or(0.0, |point| point.1);
    let mut order: Vec<&Series> = lines.iter().collect();
    order.sort_by(|a, b| first(b).total_cmp(&first(a)));
    for (at, series) in order.into_iter().enumerate() {
        let y = TOP + 10.0 + 24.0 * at as f64;
        let style = style(series);
        polyline(svg, &[(left, y), (left + 30.0, y)], &style);
        mark(svg, (left + 15.0, y), &style);
        text(svg, (left + 38.0, y + 4.0), "start", series.name);
    }
}

fn rate_panel(svg: &mut String, bars: &[Series], top: f64) {
    let left = LEFT + 60.0;
    let right = WIDTH - 120.0;
    let bottom = top + BAR * bars.len() as f64;
    let x = Axis::decades(bars.iter().map(|series| series.points[0].1), left, right);
    heading(svg, top - 14.0, "Messages of 64 bytes a second, all received in order");
    for (value, whole) in x.ticks() {
        let at = x.at(value);
        rule(svg, (at, top), (at, bottom), whole);
        if whole {
            text(svg, (at, bottom + 18.0), "middle", &show(value));
        }
    }
    for (at, series) in bars.iter().enumerate() {
        let y = top + BAR * at as f64;
        let value = series.points[0].1;
        let width = x.at(value) - left;
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
            y + 3.0,
            BAR - 6.0,
            style(series).colour
        );
        text(svg, (left - 8.0, y + 15.0), "end", series.name);
        text(svg, (left + width + 6.0, y + 15.0), "start", &show(value));
    }
}

fn heading(svg: &mut String, y: f64, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{y:.1}\" font-size=\"16\" font-weight=\"bold\">{words}</text>"
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        words.replace('&', "&amp;").replace('<', "&lt;")
    );
}

fn rule(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), strong: bool) {
    let colour = if strong { "#999999" } else { "#e4e4e4" };
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn polyline(svg: &mut String, points: &[(f64, f64)], style: &Style) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" \
         stroke-dasharray=\"{}\"/>",
        points.join(" "),
        style.colour,
        style.width,
        style.dashes
    );
}

fn mark(svg: &mut String, (x, y): (f64, f64), style: &Style) {
    let colour = style.colour;
    let _ = match style.mark {
        0 => writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"),
        1 => writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\" fill=\"{colour}\"/>",
            x - 3.5,
            y - 3.5
        ),
        2 => writeln!(svg, "<path d=\"M{x:.1} {:.1}l4 7h-8z\" fill=\"{colour}\"/>", y - 4.0),
        _ => writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"#ffffff\" stroke=\"{colour}\"/>"
        ),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_reach_around_their_values() {
        let axis = Axis::decades([70.0, 42_000.0].into_iter(), 500.0, 0.0);
        assert_eq!((axis.low, axis.high), (10.0, 100_000.0));
        assert!((axis.at(10.0) - 500.0).abs() < 1e-9);
        assert!((axis.at(100_000.0) - 0.0).abs() < 1e-9);
        assert!((axis.at(1000.0) - 250.0).abs() < 1e-9);
        let whole: Vec<f64> = axis.ticks().filter(|tick| tick.1).map(|tick| tick.0).collect();
        assert_eq!(whole.len(), 5);
    }

    #[test]
    fn one_value_has_an_axis_too() {
        let axis = Axis::decades([100.0].into_iter(), 0.0, 100.0);
        assert_eq!((axis.low, axis.high), (100.0, 1000.0));
    }
}
