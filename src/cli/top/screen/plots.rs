//! What is told over time, as columns: the newest at the right. It does not know what
//! is told.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Style},
};

use super::ink::Ink;
use crate::cli::top::{
    figures::{Line, Merged},
    fleet::Fleet,
    number::{self, Unit},
};

/// Columns between two plots.
const GAP: u16 = 2;

/// Draws plots beside each other: a line on what is plotted, and columns below it.
pub(super) fn draw(area: Rect, buffer: &mut Buffer, ink: Ink, fleet: &Fleet, lines: &[Line]) {
    for (cell, line) in cells(area, lines.len()).zip(lines) {
        plot(cell, buffer, ink, fleet, *line);
    }
}

/// From when to when the plots above are.
pub(super) fn axis(row: Rect, buffer: &mut Buffer, ink: Ink, fleet: &Fleet) {
    for cell in cells(row, 4) {
        let points = fleet.points(Line::Calls);
        let columns = columns(points, cell.width, fleet, Line::Calls);
        if columns.shown.is_empty() {
            continue;
        }
        let begin = cell
            .width
            .saturating_sub(u16::try_from(columns.shown.len()).unwrap_or(u16::MAX));
        let ago = i64::try_from(columns.points).unwrap_or(i64::MAX);
        let ago_ms = match ago.saturating_mul(fleet.step_ms) {
            ms @ 60_000.. => ms - ms % 60_000,
            ms => ms,
        };
        let ago = format!("-{}", number::span(ago_ms));
        // Where there is little to see there is no room for both ends.
        let at = begin.min(cell.width.saturating_sub(12));
        ink.put(cell, buffer, at, &ago, ink.dim());
        ink.put_right(cell, buffer, "now", ink.dim());
    }
}

/// What is plotted, and what it is now.
pub(super) fn value(row: Rect, buffer: &mut Buffer, ink: Ink, fleet: &Fleet, line: Line) -> u16 {
    let now = fleet.now(line);
    let troubled = line == Line::Errors && now.is_some_and(|errors| errors > 0.0);
    let style = match troubled {
        true => ink.bad(),
        false => ink.strong(),
    };
    let at = ink.put(row, buffer, 0, line.title(), ink.dim());
    let at = ink.put(row, buffer, at, " ", ink.dim());
    let mut text = line.unit().text(now);
    if troubled {
        text.push_str(" !");
    }
    ink.put(row, buffer, at, &text, style)
}

fn plot(area: Rect, buffer: &mut Buffer, ink: Ink, fleet: &Fleet, line: Line) {
    let head = Rect {
        height: area.height.min(1),
        ..area
    };
    let told = value(head, buffer, ink, fleet, line);
    let columns = columns(fleet.points(line), area.width, fleet, line);
    let values = columns.shown.iter().copied().flatten();
    let most = match line.unit() {
        Unit::Ratio => 1.0,
        _ => values.fold(0.0, f64::max),
    };
    if line.unit() != Unit::Ratio && most > 0.0 {
        let scale = format!("max {}", line.unit().text(Some(most)));
        let room = Rect {
            x: head.x + told + 1,
            width: head.width.saturating_sub(told + 1),
            ..head
        };
        ink.put_right(room, buffer, &scale, ink.dim());
    }
    let body = Rect {
        y: area.y + head.height,
        height: area.height - head.height,
        ..area
    };
    let style = style(ink, line);
    let begin = body
        .width
        .saturating_sub(u16::try_from(columns.shown.len()).unwrap_or(u16::MAX));
    let rows = usize::from(body.height);
    for (at, value) in (begin..).zip(columns.shown) {
        let Some(value) = value else { continue };
        let full = eighths(value, most, rows);
        for (up, y) in (0..rows).zip((body.top()..body.bottom()).rev()) {
            let (symbol, style) = match (full, up) {
                (0, 0) => (ink.zero(), ink.dim()),
                _ => (ink.level(full.saturating_sub(up * 8)), style),
            };
            if let Some(cell) = buffer.cell_mut((body.x.saturating_add(at), y)) {
                cell.set_char(symbol).set_style(style);
            }
        }
    }
}

fn style(ink: Ink, line: Line) -> Style {
    ink.colour(match line {
        Line::Calls | Line::InFlight | Line::Connections => Color::Cyan,
        Line::Errors => Color::Red,
        Line::HitRatio | Line::NearHitRatio => Color::Green,
        Line::P50 | Line::P99 | Line::StoreP99 => Color::Yellow,
        Line::Rss | Line::Near => Color::Blue,
    })
}

/// The places of so many plots beside each other.
fn cells(area: Rect, plots: usize) -> impl Iterator<Item = Rect> {
    let plots = u16::try_from(plots).unwrap_or(u16::MAX).max(1);
    let width = (area.width + GAP) / plots;
    (0..plots).map(move |number| Rect {
        x: area.x + number * width,
        width: width.saturating_sub(GAP),
        ..area
    })
}

/// How many eighths of rows a value fills: none only where it is nothing.
fn eighths(value: f64, most: f64, rows: usize) -> usize {
    if value <= 0.0 || most <= 0.0 {
        return 0;
    }
    let all = rows.saturating_mul(8);
    let part = (value / most).clamp(0.0, 1.0);
    // Small and not negative: a plot has few rows.
    ((part * all as f64).ceil() as usize).clamp(1, all.max(1))
}

/// Points put together, so that they fit.
struct Columns {
    shown: Vec<Option<f64>>,
    /// How many points they are.
    points: usize,
}

/// As many points in each column as make the newest of them fit. Which points share a
/// column depends on when they were, so that a plot moves, and does not flicker.
fn columns(points: &[Option<f64>], width: u16, fleet: &Fleet, line: Line) -> Columns {
    let width = usize::from(width).max(1);
    let share = points.len().div_ceil(width).max(1);
    let last = fleet.time_ms / fleet.step_ms.max(1);
    let last = usize::try_from(last).unwrap_or_default() % share;
    // The newest column holds the points of its span so far.
    let newest = (last + 1).min(points.len());
    let (older, newest) = points.split_at(points.len() - newest);
    let mut spans: Vec<&[Option<f64>]> = older.rchunks(share).collect();
    spans.reverse();
    spans.push(newest);
    let cut = spans.len().saturating_sub(width);
    let spans = spans.into_iter().skip(cut).filter(|span| !span.is_empty());
    let mut taken = 0;
    let shown = spans.map(|span| {
        taken += span.len();
        let values = || span.iter().copied().flatten();
        match line.merged() {
            // A peak must not vanish in a mean.
            Merged::Most => values().max_by(f64::total_cmp),
            _ if line == Line::Errors => values().max_by(f64::total_cmp),
            _ => {
                let count = values().count().max(1) as f64;
                values()
                    .map(|value| value / count)
                    .reduce(|sum, value| sum + value)
            }
        }
    });
    let shown = shown.collect();
    Columns {
        shown,
        points: taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_nothing_is_seen_and_the_most_is_full() {
        let cases = [
            (0.0, 8.0, 1, 0),
            (1e-9, 8.0, 1, 1),
            (8.0, 8.0, 1, 8),
            (4.0, 8.0, 2, 8),
            (9.0, 8.0, 2, 16),
            (f64::MAX, f64::MAX, 3, 24),
            (5.0, 0.0, 3, 0),
            (5.0, 5.0, 0, 1),
        ];
        for (value, most, rows, full) in cases {
            assert_eq!(eighths(value, most, rows), full, "{value} of {most}");
        }
    }

    #[test]
    fn points_share_columns_by_their_time() {
        let points: Vec<_> = (0..10).map(|n| Some(f64::from(n))).collect();
        let at = |time_ms| Fleet {
            time_ms,
            step_ms: 1000,
            ..Fleet::default()
        };
        let shown = |time_ms, line| columns(&points, 5, &at(time_ms), line).shown;
        let most = shown(1001, Line::P99);
        assert_eq!(most, [1.0, 3.0, 5.0, 7.0, 9.0].map(Some));
        // A step later the newest has a column of its own until the next joins it.
        let most = shown(2000, Line::P99);
        assert_eq!(most, [2.0, 4.0, 6.0, 8.0, 9.0].map(Some));
        let mean = shown(1000, Line::Calls);
        assert_eq!(mean, [0.5, 2.5, 4.5, 6.5, 8.5].map(Some));
        assert!(columns(&[], 5, &at(0), Line::Calls).shown.is_empty());
        let few = columns(&points[..2], 5, &at(0), Line::Calls);
        assert_eq!((few.shown, few.points), (vec![Some(0.0), Some(1.0)], 2));
    }
}
