//! The picture: a head, plots, a table of tenants, as much of them as there is room for.
//! It only draws on a buffer, and does not know what becomes of it.

mod ink;
mod plots;
mod table;

use ratatui::{buffer::Buffer, layout::Rect};

pub(super) use self::ink::Ink;
use super::{figures::Line, fleet::Fleet, number, view::View};

/// Room below which there are values instead of plots.
const PLOTS_COLUMNS: u16 = 60;
const PLOTS_ROWS: u16 = 16;

/// Room from which there is a second row of plots.
const MORE_COLUMNS: u16 = 100;
const MORE_ROWS: u16 = 36;

/// Room from which there is a line on the keys, and one on the selected tenant.
const KEYS_ROWS: u16 = 8;
const DETAIL_ROWS: u16 = 16;

/// Lines about replicas that are silent.
const SILENT_ROWS: usize = 3;

const PLOTS: [Line; 4] = [Line::Calls, Line::Errors, Line::HitRatio, Line::P99];
const MORE_PLOTS: [Line; 4] = [
    Line::NearHitRatio,
    Line::StoreP99,
    Line::InFlight,
    Line::Rss,
];

const HELP: [(&str, &str); 7] = [
    ("s, r", "order tenants by the next column; reverse"),
    ("up, down", "select a tenant, and see its quotas"),
    ("pgup, pgdn", "ten tenants at a time"),
    ("esc", "select none"),
    ("p", "pause, and go on"),
    ("?", "close this"),
    ("q", "quit"),
];

/// Draws all there is room for, with what the keys do.
pub(super) fn draw(area: Rect, buffer: &mut Buffer, ink: Ink, view: &View, fleet: &Fleet) {
    let mut rows = above(area, buffer, ink, view, fleet);
    let keys_line = (area.height >= KEYS_ROWS).then(|| rows.take_last(1));
    let detail = (area.height >= DETAIL_ROWS).then(|| rows.take_last(2));
    if view.help {
        help(rows.left, buffer, ink);
    } else {
        table::draw(rows.left, buffer, ink, view, fleet);
    }
    if let Some(line) = detail {
        table::detail(line, buffer, ink, view, fleet);
    }
    if let Some(line) = keys_line {
        keys(line, buffer, ink, view);
    }
}

/// Draws all there is room for, to be read where no key is pressed.
pub(super) fn draw_still(area: Rect, buffer: &mut Buffer, ink: Ink, fleet: &Fleet) {
    let view = View::default();
    let rows = above(area, buffer, ink, &view, fleet);
    table::draw(rows.left, buffer, ink, &view, fleet);
}

/// Draws what is above the tenants; returns the rows that are left.
fn above(area: Rect, buffer: &mut Buffer, ink: Ink, view: &View, fleet: &Fleet) -> Rows {
    let area = area.intersection(buffer.area);
    let mut rows = Rows { left: area };
    title(rows.take(1), buffer, ink, view, fleet);
    if area.height >= 4 {
        health(rows.take(1), buffer, ink, fleet);
    }
    if area.height >= 8 {
        for (address, why) in fleet.silent.iter().take(SILENT_ROWS) {
            let line = rows.take(1);
            let at = ink.put(line, buffer, 0, ink.sign(false), ink.bad());
            let text = format!(" {address} does not answer: {why}");
            ink.put_cut(line, buffer, at, line.width, &text, ink.bad());
        }
    }
    if area.height >= PLOTS_ROWS && area.width >= PLOTS_COLUMNS {
        rows.take(1);
        let more = area.height >= MORE_ROWS && area.width >= MORE_COLUMNS;
        // A third of what is left, so that the tenants have the larger part.
        let height = (rows.left.height / if more { 4 } else { 3 }).clamp(3, 9);
        plots::draw(rows.take(height), buffer, ink, fleet, &PLOTS);
        if more {
            rows.take(1);
            plots::draw(rows.take(height), buffer, ink, fleet, &MORE_PLOTS);
        }
        plots::axis(rows.take(1), buffer, ink, fleet);
        rows.take(1);
    } else if area.height >= 3 {
        values(&mut rows, buffer, ink, fleet);
    }
    rows
}

/// What is left of an area that is given away row by row.
struct Rows {
    left: Rect,
}

impl Rows {
    fn take(&mut self, rows: u16) -> Rect {
        let rows = rows.min(self.left.height);
        let taken = Rect {
            height: rows,
            ..self.left
        };
        self.left.y += rows;
        self.left.height -= rows;
        taken
    }

    fn take_last(&mut self, rows: u16) -> Rect {
        let rows = rows.min(self.left.height);
        self.left.height -= rows;
        Rect {
            y: self.left.bottom(),
            height: rows,
            ..self.left
        }
    }
}

fn title(line: Rect, buffer: &mut Buffer, ink: Ink, view: &View, fleet: &Fleet) {
    let narrow = line.width < PLOTS_COLUMNS;
    let clock = match view.paused {
        true => " PAUSED ".to_owned(),
        false if narrow => String::new(),
        false => clock(fleet.time_ms),
    };
    let kept = match clock.len() {
        0 => 0,
        columns => u16::try_from(columns + 1).unwrap_or(u16::MAX),
    };
    let room = line.width.saturating_sub(kept);
    let name = if narrow {
        "riptide"
    } else {
        env!("CARGO_PKG_NAME")
    };
    let mut at = ink.put_cut(line, buffer, 0, room, name, ink.strong());
    let replicas = match narrow {
        true => format!("{}/{}", fleet.answering, fleet.replicas),
        false if fleet.replicas == 1 => format!("{} of 1 replica", fleet.answering),
        false => format!("{} of {} replicas", fleet.answering, fleet.replicas),
    };
    let replicas_style = match fleet.answering == fleet.replicas {
        true => ink.plain(),
        false => ink.bad(),
    };
    let up = fleet.up_ms.map(|ms| format!("up {}", number::span(ms)));
    let parts = [
        (fleet.versions.join(", "), ink.plain()),
        (fleet.backends.join(", "), ink.plain()),
        (replicas, replicas_style),
        (up.unwrap_or_default(), ink.plain()),
    ];
    for (number, (part, style)) in parts.into_iter().enumerate() {
        if part.is_empty() {
            continue;
        }
        let gap = match (narrow, number) {
            (true, _) | (_, 0) => " ",
            _ => ink.separator(),
        };
        at = ink.put_cut(line, buffer, at, room.saturating_sub(at), gap, ink.dim());
        at = ink.put_cut(line, buffer, at, room.saturating_sub(at), &part, style);
    }
    let style = match view.paused {
        true => ink.selected(),
        false => ink.dim(),
    };
    ink.put_right(line, buffer, &clock, style);
}

/// The time of day of the figures.
fn clock(time_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(time_ms) {
        Ok(time) if time_ms > 0 => time.strftime("%H:%M:%S UTC").to_string(),
        _ => String::new(),
    }
}

/// What does not serve comes first, with its reason: there may be no room for all.
fn health(line: Rect, buffer: &mut Buffer, ink: Ink, fleet: &Fleet) {
    let mut told: Vec<_> = fleet.health.iter().collect();
    told.sort_by_key(|health| health.serving);
    let failing = told.iter().filter(|health| !health.serving).count();
    if told.is_empty() {
        ink.put_cut(line, buffer, 0, line.width, "health unknown", ink.dim());
        return;
    }
    let names: usize = told
        .iter()
        .map(|health| short(&health.service).len() + 4)
        .sum();
    if failing == 0 && names > usize::from(line.width) {
        let at = ink.put(line, buffer, 0, ink.sign(true), ink.good());
        let all = format!(" all {} parts serve", told.len());
        ink.put_cut(line, buffer, at, line.width, &all, ink.plain());
        return;
    }
    let mut at = 0;
    for health in told {
        let style = match health.serving {
            true => ink.good(),
            false => ink.bad(),
        };
        let gap = if at == 0 { "" } else { "  " };
        at = ink.put(line, buffer, at, gap, ink.plain());
        at = ink.put(line, buffer, at, ink.sign(health.serving), style);
        let text = match (health.serving, health.trouble.as_str()) {
            (false, "") => format!(" {} does not serve", short(&health.service)),
            (false, trouble) => format!(" {}: {trouble}", short(&health.service)),
            (true, _) => format!(" {}", short(&health.service)),
        };
        let style = if health.serving { ink.plain() } else { style };
        at = ink.put_cut(
            line,
            buffer,
            at,
            line.width.saturating_sub(at),
            &text,
            style,
        );
    }
}

/// `tenant` of `riptide.persistence.v1.TenantService`; what has no name is all of it.
fn short(service: &str) -> String {
    let name = service.rsplit('.').next().unwrap_or(service);
    match name.strip_suffix("Service") {
        Some(name) if !name.is_empty() => name.to_lowercase(),
        _ if name.is_empty() => "all".to_owned(),
        _ => name.to_owned(),
    }
}

/// What the plots would show, as it is now.
fn values(rows: &mut Rows, buffer: &mut Buffer, ink: Ink, fleet: &Fleet) {
    let two = rows.left.width < PLOTS_COLUMNS && rows.left.height >= 5;
    let columns: u16 = if two { 2 } else { 4 };
    for lines in PLOTS.chunks(usize::from(columns)) {
        let row = rows.take(1);
        let width = row.width / columns;
        for (column, line) in (0..).zip(lines) {
            let cell = Rect {
                x: row.x + column * width,
                width: width.saturating_sub(1),
                ..row
            };
            plots::value(cell, buffer, ink, fleet, *line);
        }
    }
}

fn keys(line: Rect, buffer: &mut Buffer, ink: Ink, view: &View) {
    let order = match view.reversed {
        true => format!("by {}, reversed", view.sort.name()),
        false => format!("by {}", view.sort.name()),
    };
    let select = if ink.unicode() { "↑↓" } else { "arrows" };
    let pause = if view.paused { "go on" } else { "pause" };
    let keys = [
        ("q", "quit"),
        ("s", order.as_str()),
        (select, "select"),
        ("p", pause),
        ("?", "help"),
    ];
    let mut at = 0;
    for (key, does) in keys {
        let gap = if at == 0 { "" } else { "  " };
        at = ink.put(line, buffer, at, gap, ink.dim());
        at = ink.put(line, buffer, at, key, ink.strong());
        at = ink.put(line, buffer, at, " ", ink.dim());
        at = ink.put(line, buffer, at, does, ink.dim());
    }
}

fn help(area: Rect, buffer: &mut Buffer, ink: Ink) {
    for ((key, does), row) in HELP.iter().zip(area.rows()) {
        ink.put(row, buffer, 0, key, ink.strong());
        ink.put_cut(
            row,
            buffer,
            12,
            row.width.saturating_sub(12),
            does,
            ink.plain(),
        );
    }
}

/// A picture as text: a line a row, without blanks at its end.
pub(super) fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let lines = buffer.content.chunks(width).map(|cells| {
        let mut line = String::new();
        // What is wide takes the cell after it too.
        let mut covered = 0;
        for cell in cells {
            if covered == 0 {
                line.push_str(cell.symbol());
                covered = ink::columns(cell.symbol());
            }
            covered = covered.saturating_sub(1);
        }
        line.truncate(line.trim_end().len());
        line
    });
    let lines: Vec<_> = lines.collect();
    let used = lines.iter().rposition(|line| !line.is_empty());
    lines
        .into_iter()
        .take(used.map_or(0, |last| last + 1))
        .flat_map(|line| [line, "\n".to_owned()])
        .collect()
}

#[cfg(test)]
mod tests;
