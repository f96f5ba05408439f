//! Prometheus text for what the exporter cannot be given: counters that are no whole numbers, and histograms whose buckets
//! are counted elsewhere. Label values are names of commands, which need no escaping.
//!
//! Imports allowed: `actors::latencies`, the catalogue.

use std::fmt::Write;

use super::catalogue::Metric;
use crate::actors::latencies::{BOUNDS_MICROS, LatencyReport};

/// Adds one sample of a counter.
pub(super) fn counter(text: &mut String, metric: &Metric, value: f64) {
    head(text, metric);
    line(text, format_args!("{} {value}", metric.name));
}

/// Adds the histogram of each command.
pub(super) fn histograms(text: &mut String, metric: &Metric, reports: &[LatencyReport]) {
    if reports.is_empty() {
        return;
    }
    head(text, metric);
    for report in reports {
        histogram(text, metric.name, report);
    }
}

/// A bucket counts all that is not slower than its bound, those of the buckets before included.
fn histogram(text: &mut String, name: &str, LatencyReport { command, buckets, sum }: &LatencyReport) {
    let mut count = 0;
    let bounds = BOUNDS_MICROS.iter().map(|micros| (*micros as f64 / 1e6).to_string());
    for (bound, more) in bounds.chain(["+Inf".to_owned()]).zip(buckets) {
        count += more;
        line(text, format_args!("{name}_bucket{{command=\"{command}\",le=\"{bound}\"}} {count}"));
    }
    line(text, format_args!("{name}_sum{{command=\"{command}\"}} {}", sum.as_secs_f64()));
    line(text, format_args!("{name}_count{{command=\"{command}\"}} {count}"));
}

fn head(text: &mut String, Metric { name, kind, help, .. }: &Metric) {
    line(text, format_args!("# HELP {name} {help}"));
    line(text, format_args!("# TYPE {name} {}", kind.name()));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let written = writeln!(text, "{line}");
    debug_assert!(written.is_ok(), "a string takes every write");
}
