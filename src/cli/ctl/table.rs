//! Tables whose columns line up, and objects as a list of facts. What came from clients (names of programs, of control
//! groups) is shown without control characters, so that nobody writes to the operator's terminal.
//!
//! Imports allowed: size, `serde_json`.

use std::fmt::Write;

use ioasd_client::units::ByteLen;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cli::size::human;

/// Which way a column leans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lean {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// The head of a column.
pub(super) type Column = (&'static str, Lean);

/// A row of a list.
pub(super) trait Row: DeserializeOwned {
    /// The columns.
    const COLUMNS: &'static [Column];

    /// A cell for each.
    fn cells(&self) -> Vec<String>;
}

/// A list of rows under their heads.
pub(super) fn table<R: Row>(rows: &[R]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    aligned(R::COLUMNS, &cells)
}

/// Cells under the heads of their columns.
pub(super) fn aligned(columns: &[Column], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |place: usize, head: &str| {
        let cells = rows.iter().filter_map(|row| row.get(place)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(head.len())
    };
    let widths: Vec<usize> =
        columns.iter().enumerate().map(|(place, (head, _))| width(place, head)).collect();
    let heads: Vec<String> = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    let lines = std::iter::once(&heads).chain(&rows);
    lines.map(|cells| line(columns, &widths, cells)).collect()
}

fn line(columns: &[Column], widths: &[usize], cells: &[String]) -> String {
    let padded = columns.iter().zip(widths).zip(cells).map(|(((_, lean), width), cell)| match lean {
        Lean::Left => format!("{cell:<width$}"),
        Lean::Right => format!("{cell:>width$}"),
    });
    let line = padded.collect::<Vec<_>>().join("  ");
    line.trim_end().to_owned() + "\n"
}

/// The heads of a list whose rows are not known yet, in columns of these widths.
pub(super) fn heads<R: Row>(widths: &[usize]) -> String {
    let heads: Vec<String> = R::COLUMNS.iter().map(|(head, _)| (*head).to_owned()).collect();
    line(R::COLUMNS, widths, &heads)
}

/// A row under such heads.
pub(super) fn row<R: Row>(row: &R, widths: &[usize]) -> String {
    let cells: Vec<String> = row.cells().iter().map(|cell| printable(cell)).collect();
    line(R::COLUMNS, widths, &cells)
}

/// An object, a fact a line.
pub(super) fn details(object: &Map<String, Value>) -> String {
    let width = object.keys().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in object {
        for (count, fact) in facts(name, value).into_iter().enumerate() {
            let name = if count == 0 { name.as_str() } else { "" };
            // Writing to a string cannot fail.
            writeln!(text, "{name:<width$}  {}", printable(&fact)).unwrap_or_default();
        }
    }
    text
}

fn facts(name: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Null => vec!["-".to_owned()],
        Value::String(text) => vec![text.clone()],
        Value::Number(bytes) if name.ends_with("_bytes") || name == "length" => {
            vec![bytes.as_u64().map_or_else(|| bytes.to_string(), size)]
        }
        Value::Array(values) if values.is_empty() => vec!["-".to_owned()],
        Value::Array(values) => values.iter().flat_map(|value| facts(name, value)).collect(),
        Value::Object(object) => {
            let pairs = object.iter().map(|(key, value)| format!("{key} {}", facts(key, value).join(" ")));
            vec![pairs.collect::<Vec<_>>().join(", ")]
        }
        Value::Bool(_) | Value::Number(_) => vec![value.to_string()],
    }
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    human(ByteLen::new(bytes))
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_numbers_lean_right() {
        let rows = [["a", "1"], ["longer", "22222"]].map(|row| row.map(str::to_owned).to_vec());
        let text = aligned(&[("name", Lean::Left), ("bytes", Lean::Right)], &rows);
        assert_eq!(text, "name    bytes\na           1\nlonger  22222\n");
    }

    #[test]
    fn what_a_client_calls_itself_writes_nothing_to_the_terminal() {
        let rows = [vec!["\u{1b}[2Jx\n".to_owned()]];
        assert_eq!(aligned(&[("comm", Lean::Left)], &rows), "comm\n\u{fffd}[2Jx\u{fffd}\n");
    }

    #[test]
    fn an_object_is_a_fact_a_line() {
        let object =
            json!({ "id": 1, "pinned_bytes": 8192, "pid": null, "shown": [{ "ioas": 1 }, { "ioas": 2 }] });
        let text = details(object.as_object().unwrap());
        assert_eq!(
            text,
            "id            1\npid           -\npinned_bytes  8 KiB\nshown         ioas 1\n              ioas 2\n"
        );
    }
}
