//! How tables look, and the middle of many figures. It does not know what they are
//! figures of.

use std::thread;

use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};

pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half), values.len() % 2) {
        (Some(high), 0) => (high + values.get(half - 1).copied().unwrap_or(*high)) / 2.0,
        (Some(middle), _) => *middle,
        (None, _) => 0.0,
    }
}
