//! Rows of figures: for programs one JSON object a line, for people a table.
//!
//! Imports allowed: floor, sample, scenario, serde.

use std::fmt;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::floor::Floor;
use super::sample::Samples;
use super::scenario::Scenario;

/// What one measurement is a measurement of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nanoseconds for a page, summed over domains.
    PerPage,
    /// Nanoseconds for a page in one domain.
    PerPageAndDomain,
    /// Nanoseconds for a request.
    PerRequest,
    /// Nanoseconds for one of many ranges.
    PerRange,
    /// Nanoseconds for an address.
    PerLookUp,
    /// Nanoseconds for an entry that is stored.
    PerEntry,
    /// Bytes for an object or a page.
    Bytes,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PerPage => "ns/page",
            Self::PerPageAndDomain => "ns/page/domain",
            Self::PerRequest => "ns",
            Self::PerRange => "ns/range",
            Self::PerLookUp => "ns/lookup",
            Self::PerEntry => "ns/entry",
            Self::Bytes => "B",
        })
    }
}

fn displayed<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// One case of a scenario.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// Of which scenario.
    pub(super) scenario: Scenario,
    /// `key=value` pairs.
    pub(super) case: String,
    /// Of what.
    #[serde(serialize_with = "displayed")]
    pub(super) unit: Unit,
    pub(super) median: f64,
    pub(super) p10: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    /// What bare code needed, if there is bare code for it.
    pub(super) floor: Option<f64>,
    /// Median to floor.
    pub(super) ratio: Option<f64>,
    /// Whether the floor is what this kind of machine can do, so that the figures mean something.
    pub(super) valid: bool,
}

impl Row {
    /// The row of a case that was measured beside `floor`.
    pub(super) fn new(
        scenario: Scenario,
        case: impl Into<String>,
        unit: Unit,
        measured: &Samples,
        floor: Option<&Floor>,
    ) -> Self {
        let bare = floor.map(Floor::median).filter(|floor| *floor > 0.0);
        let row = Self::beside(scenario, case, unit, measured, bare);
        Self { valid: floor.is_none_or(Floor::is_valid), ..row }
    }

    /// The row of a case that is compared with another case of the same run.
    pub(super) fn beside(
        scenario: Scenario,
        case: impl Into<String>,
        unit: Unit,
        measured: &Samples,
        floor: Option<f64>,
    ) -> Self {
        let [median, p10, p90, p99] = [50, 10, 90, 99].map(|percent| measured.quantile(percent));
        let ratio = floor.map(|floor| median / floor);
        Self { scenario, case: case.into(), unit, median, p10, p90, p99, floor, ratio, valid: true }
    }
}

/// One object a line.
pub(super) fn write_json(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    for row in rows {
        let line = serde_json::to_string(row).map_err(io::Error::other)?;
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// All rows, aligned.
pub(super) fn print_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let case = rows.iter().map(|row| row.case.len()).max().unwrap_or(0).max(4);
    writeln!(
        out,
        "{:<16} {:<case$} {:<15} {:>10} {:>10} {:>10} {:>10} {:>10} {:>7}",
        "scenario", "case", "unit", "median", "p10", "p90", "p99", "floor", "ratio"
    )?;
    for row in rows {
        let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), significant);
        writeln!(
            out,
            "{:<16} {:<case$} {:<15} {:>10} {:>10} {:>10} {:>10} {:>10} {:>7}{}",
            row.scenario,
            row.case,
            row.unit,
            significant(row.median),
            significant(row.p10),
            significant(row.p90),
            significant(row.p99),
            figure(row.floor),
            figure(row.ratio),
            if row.valid { "" } else { "  invalid: the floor is slower than this machine should be" },
        )?;
    }
    Ok(())
}

/// Three digits that matter.
fn significant(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row() -> Row {
        let mut measured = Samples::default();
        measured.add(Duration::from_nanos(250), 2);
        Row::new(Scenario::FanoutMarginal, "domains=4,frames=contiguous", Unit::PerPage, &measured, None)
    }

    #[test]
    fn a_row_is_one_json_object_with_every_key() {
        let mut out = Vec::new();
        write_json(&mut out, &[row()]).unwrap();
        let expected = r#"{"scenario":"fanout-marginal","case":"domains=4,frames=contiguous","unit":"ns/page","median":125.0,"p10":125.0,"p90":125.0,"p99":125.0,"floor":null,"ratio":null,"valid":true}"#;
        assert_eq!(String::from_utf8(out).unwrap().trim_end(), expected);
    }

    #[test]
    fn people_get_three_digits_that_matter() {
        assert_eq!([0.2512, 12.345, 10234.5].map(significant), ["0.25", "12.3", "10234"]);
        let mut out = Vec::new();
        print_table(&mut out, &[row()]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 2);
    }
}
