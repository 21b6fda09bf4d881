//! What a command prints on standard output: JSON for machines, tables for eyes.
//! It does not know what the fields mean.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use super::failure::{Exit, Failure};

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For eyes.
    Table,
    /// For machines: one stable JSON object.
    Json,
}

/// Writes a result: the JSON as it is, or the lines.
pub(super) fn show(
    format: Format,
    json: &Value,
    lines: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Json => format!("{json:#}"),
        Format::Table => lines(),
    };
    let text = if text.is_empty() { text } else { text + "\n" };
    write(text.as_bytes())
}

/// Writes bytes as they are. A reader that went away is no failure.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Failed,
            format!("cannot write the result: {error}"),
        )),
        _ => Ok(()),
    }
}

/// One thing: a line a field that is set, its id first; nested fields have
/// dotted names.
pub(super) fn record(thing: &Value) -> String {
    let mut rows = Vec::new();
    flatten(String::new(), thing, &mut |name, value| {
        rows.push([name.to_owned(), value]);
    });
    rows.sort_by_key(|[name, _]| !name.ends_with("_id"));
    let mut table = table();
    table.add_rows(rows);
    lines(&table)
}

/// Many things: a line each, with these fields.
pub(super) fn list(things: &[Value], fields: &[&str]) -> String {
    let mut table = table();
    table.set_header(
        fields
            .iter()
            .map(|field| field.to_uppercase().replace('_', " ")),
    );
    for thing in things {
        table.add_row(
            fields
                .iter()
                .map(|field| thing.get(field).map(plain).unwrap_or_default()),
        );
    }
    lines(&table)
}

/// Many things: a line each, of these cells; numbers stand at the right of their
/// column.
pub(super) fn grid(
    header: &[&str],
    numbers: &[usize],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = table();
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| clean(&cell)));
    }
    for column in numbers {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    lines(&table)
}

fn lines(table: &Table) -> String {
    // The style leaves a blank before each line and blanks after it.
    let lines: Vec<_> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}

/// What a list says when it stops before the end.
pub(super) fn more(more: bool) -> &'static str {
    if more {
        "\n(there are more; see --limit)"
    } else {
        ""
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn flatten(name: String, value: &Value, row: &mut dyn FnMut(&str, String)) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() {
                    field.clone()
                } else {
                    format!("{name}.{field}")
                };
                flatten(name, value, row);
            }
        }
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::Array(items) if items.is_empty() => {}
        value => row(&name, plain(value)),
    }
}

/// A value in one line.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    clean(&text)
}

/// Without anything a terminal would obey.
pub(super) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}
