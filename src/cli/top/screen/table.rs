//! The tenants, a row each, in as many columns as there is room for. It does not know
//! which tenants there are, nor why one is before another.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::ink::{self, Ink};
use crate::cli::top::{
    figures::Tenant,
    fleet::Fleet,
    number::Unit,
    view::{Sort, View},
};

/// Cells of the bar of a quota.
const BAR: u16 = 10;

/// Parts of a quota from which it deserves a look, and an action.
const WARN: f64 = 0.75;
const FULL: f64 = 0.9;

/// A column: its head, its width, and what it orders by.
struct Column {
    head: &'static str,
    width: u16,
    sort: Option<Sort>,
    shows: Shows,
}

enum Shows {
    Name,
    Number(Unit, fn(&Tenant) -> Option<f64>),
    Quota,
}

/// All columns from the left, and how important each is: the least goes first where
/// there is no room.
fn all(width: u16) -> Vec<(u8, Column)> {
    let number = |head, width, sort, unit, of: fn(&Tenant) -> Option<f64>| Column {
        head,
        width,
        sort,
        shows: Shows::Number(unit, of),
    };
    let name_width = (width / 4).saturating_sub(1).clamp(12, 40);
    let quota_width = match width {
        ..60 => 8,
        60..100 => 2 * BAR + 8,
        _ => 2 * BAR + 14,
    };
    vec![
        (
            0,
            Column {
                head: "TENANT",
                width: name_width,
                sort: Some(Sort::Name),
                shows: Shows::Name,
            },
        ),
        (
            1,
            number("CALLS/S", 8, Some(Sort::Calls), Unit::Count, |t| {
                Some(t.calls)
            }),
        ),
        (
            3,
            number("HITS", 6, Some(Sort::Hits), Unit::Ratio, |t| t.hit_ratio),
        ),
        (
            4,
            number("ERR/S", 6, Some(Sort::Errors), Unit::Count, |t| {
                Some(t.errors)
            }),
        ),
        (
            5,
            number("THROT/S", 8, Some(Sort::Throttled), Unit::Count, |t| {
                Some(t.throttled)
            }),
        ),
        (
            6,
            number("IN/S", 8, None, Unit::Bytes, |t| Some(t.received_bytes)),
        ),
        (
            7,
            number("OUT/S", 8, None, Unit::Bytes, |t| Some(t.sent_bytes)),
        ),
        (
            2,
            Column {
                head: if width < 60 { "QUOTA" } else { "FULLEST QUOTA" },
                width: quota_width,
                sort: Some(Sort::Quota),
                shows: Shows::Quota,
            },
        ),
    ]
}

/// Those that there is room for, with a blank after each but the last.
fn columns(width: u16) -> Vec<Column> {
    let mut columns = all(width);
    while columns.len() > 1 {
        let taken: u16 = columns.iter().map(|(_, column)| column.width + 1).sum();
        if taken <= width + 1 {
            break;
        }
        let least = columns.iter().map(|(rank, _)| *rank).max();
        columns.retain(|(rank, _)| Some(*rank) != least);
    }
    columns.into_iter().map(|(_, column)| column).collect()
}

/// Draws the head and the rows from where the selected one is seen.
pub(super) fn draw(area: Rect, buffer: &mut Buffer, ink: Ink, view: &View, fleet: &Fleet) {
    let columns = columns(area.width);
    let mut rows = area.rows();
    if let Some(row) = rows.next() {
        head(row, buffer, ink, view, &columns);
    }
    let order = view.order(fleet);
    if order.is_empty() {
        if let Some(row) = rows.next() {
            let why = match fleet.answering {
                0 => "nobody answers",
                _ => "no tenant has called yet",
            };
            ink.put_cut(row, buffer, 0, row.width, why, ink.dim());
        }
        return;
    }
    let is_selected = |tenant: &&Tenant| view.selected.as_ref() == Some(&tenant.tenant_id);
    let selected = order.iter().position(is_selected);
    let seen = usize::from(area.height.saturating_sub(1)).max(1);
    let first = selected.map_or(0, |at| (at + 1).saturating_sub(seen));
    for (tenant, row) in order.into_iter().skip(first).zip(rows) {
        draw_row(row, buffer, ink, tenant, &columns);
        if is_selected(&tenant) {
            buffer.set_style(row.intersection(buffer.area), ink.selected());
        }
    }
}

fn places<'a>(
    row: Rect,
    columns: &'a [Column],
) -> impl Iterator<Item = (Rect, &'a Column)> + use<'a> {
    let mut x = row.x;
    columns.iter().map(move |column| {
        let place = Rect {
            x,
            width: column.width.min(row.right().saturating_sub(x)),
            ..row
        };
        x = x.saturating_add(column.width + 1);
        (place, column)
    })
}

fn head(row: Rect, buffer: &mut Buffer, ink: Ink, view: &View, columns: &[Column]) {
    for (place, column) in places(row, columns) {
        let mut text = column.head.to_owned();
        let mut style = ink.dim();
        if column.sort == Some(view.sort) {
            text.push(ink.arrow(view.reversed));
            style = ink.strong();
        }
        match column.shows {
            Shows::Number(..) => ink.put_right(place, buffer, &text, style),
            _ => {
                ink.put_cut(place, buffer, 0, place.width, &text, style);
            }
        }
    }
}

fn draw_row(row: Rect, buffer: &mut Buffer, ink: Ink, tenant: &Tenant, columns: &[Column]) {
    for (place, column) in places(row, columns) {
        match &column.shows {
            Shows::Name => {
                let name = match tenant.tenant_id.as_str() {
                    "" => "(nameless)",
                    name => name,
                };
                ink.put_cut(place, buffer, 0, place.width, name, ink.plain());
            }
            Shows::Number(unit, of) => {
                let number = of(tenant);
                let trouble = matches!(column.sort, Some(Sort::Errors | Sort::Throttled));
                let style = match number {
                    Some(number) if trouble && number > 0.0 => ink.warn(),
                    Some(number) if number > 0.0 => ink.plain(),
                    _ => ink.dim(),
                };
                ink.put_right(place, buffer, &unit.text(number), style);
            }
            Shows::Quota => quota(place, buffer, ink, tenant),
        }
    }
}

/// The fullest quota as a bar with its part and name; a sign where it is about to
/// refuse.
fn quota(place: Rect, buffer: &mut Buffer, ink: Ink, tenant: &Tenant) {
    let Some((quota, part)) = tenant.fullest() else {
        ink.put_cut(place, buffer, 0, place.width, "-", ink.dim());
        return;
    };
    let style = full(ink, part);
    let mut at = 0;
    if place.width > BAR + 8 {
        let filled = match part {
            part if part <= 0.0 => 0,
            // Small and not negative: a bar has few cells.
            part => ((part * f64::from(BAR)).floor() as u16).clamp(1, BAR),
        };
        let [on, off] = ink.bar();
        let on = on.to_string().repeat(usize::from(filled));
        let off = off.to_string().repeat(usize::from(BAR - filled));
        at = ink.put(place, buffer, at, &on, style);
        at = ink.put(place, buffer, at, &off, ink.dim());
        at = ink.put(place, buffer, at, " ", ink.plain());
    }
    let sign = if part >= FULL { "!" } else { "" };
    let part = format!("{:>6}{sign}", whole(part));
    at = ink.put(place, buffer, at, &part, style);
    if place.width > BAR + 8 {
        let name = format!(" {}", short(&quota.metric));
        ink.put_cut(
            place,
            buffer,
            at,
            place.width.saturating_sub(at),
            &name,
            ink.plain(),
        );
    }
}

/// Whole percents, rounded down; what is not nothing is not shown as nothing.
fn whole(part: f64) -> String {
    let percents = (part * 100.0 + 1e-9).floor();
    match percents {
        0.0 if part > 0.0 => "<1 %".to_owned(),
        percents if percents > 999.0 => ">999 %".to_owned(),
        percents => format!("{percents:.0} %"),
    }
}

fn full(ink: Ink, part: f64) -> Style {
    match part {
        part if part >= FULL => ink.bad(),
        part if part >= WARN => ink.warn(),
        _ => ink.good(),
    }
}

/// A metric in few letters.
fn short(metric: &str) -> &str {
    match metric {
        "memory_bytes" => "memory",
        "cache_entries" => "entries",
        "storage_bytes" => "storage",
        "operations_per_minute" => "calls/min",
        "data_transfer_bytes" => "transfer",
        "active_sessions" => "sessions",
        own => own,
    }
}

/// All quotas of the selected tenant.
pub(super) fn detail(area: Rect, buffer: &mut Buffer, ink: Ink, view: &View, fleet: &Fleet) {
    let selected = view.selected.as_ref().and_then(|selected| {
        let mut tenants = fleet.tenants.iter();
        tenants.find(|tenant| tenant.tenant_id == *selected)
    });
    let Some(tenant) = selected else { return };
    let mut rows = area.rows();
    let Some(mut row) = rows.next() else { return };
    let mut at = ink.put_cut(
        row,
        buffer,
        0,
        row.width / 2,
        &tenant.tenant_id,
        ink.strong(),
    );
    if tenant.quotas.is_empty() {
        ink.put(row, buffer, at, ": no quotas told", ink.dim());
        return;
    }
    at = ink.put(row, buffer, at, ": ", ink.plain());
    for (number, quota) in tenant.quotas.iter().enumerate() {
        let name = short(&quota.metric);
        let text = format!("{name} {}", quota.text());
        let gap = if number == 0 { "" } else { ink.separator() };
        let width = u16::try_from(ink::columns(&text) + ink::columns(gap)).unwrap_or(u16::MAX);
        if number > 0 && at.saturating_add(width) > row.width {
            let Some(next) = rows.next() else {
                return;
            };
            (row, at) = (next, 0);
        } else {
            at = ink.put(row, buffer, at, gap, ink.dim());
        }
        let style = quota.part().map_or(ink.plain(), |part| match part >= WARN {
            true => full(ink, part),
            false => ink.plain(),
        });
        at = ink.put_cut(row, buffer, at, row.width.saturating_sub(at), &text, style);
    }
}
