//! What the agent says it holds: its `/metrics`, understood.
//!
//! Imports allowed: units, plan, the metrics catalogue.

use std::fmt::Write;

use ioasd_client::units::ByteLen;

use super::plan::{Plan, human};
use crate::storage::source::Strength;
use crate::telemetry::catalogue::{
    AREAS, CHARGED, CONTEXTS, DOMAINS, HELD, IOASES, MAPPED, Metric, PAGES, PAGES_LENGTH, PINNED, RETIRING,
    TABLE, WALKERS,
};

/// What must all be 0 when every client is gone.
const NOTHING_LEFT: [Metric; 13] = [
    PINNED,
    HELD,
    CHARGED,
    MAPPED,
    RETIRING,
    PAGES_LENGTH,
    TABLE,
    CONTEXTS,
    IOASES,
    PAGES,
    DOMAINS,
    AREAS,
    WALKERS,
];

/// A figure that is not what it must be while everything is mapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent reports {found} for {name}{labels}, not {expected}")]
pub(super) struct WrongFigure {
    name: &'static str,
    labels: &'static str,
    found: u64,
    expected: u64,
}

/// The samples of a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Figures(Vec<Sample>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    name: String,
    /// With its braces; empty without labels.
    labels: String,
    value: u64,
}

impl Figures {
    /// Reads those samples of the Prometheus text that are asked for. They are whole numbers; `None` if one is not.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let samples = text.lines().filter(|line| NOTHING_LEFT.iter().any(|metric| is_of(*metric, line)));
        samples.map(Sample::parse).collect::<Option<_>>().map(Self)
    }

    /// The samples of `metric`, in the order of their labels: a scrape has them in any order.
    fn by_labels(&self, metric: Metric) -> Vec<&Sample> {
        let mut samples: Vec<_> = self.0.iter().filter(|sample| sample.name == metric.name).collect();
        samples.sort_unstable_by_key(|sample| &sample.labels);
        samples
    }

    fn total(&self, metric: Metric) -> u64 {
        self.0.iter().filter(|sample| sample.name == metric.name).map(|sample| sample.value).sum()
    }

    /// What holds the pinned memory; the weakest, if there are several.
    pub(super) fn strength(&self) -> Option<Strength> {
        let pinned = self.by_labels(PINNED);
        let of = |strength: &Strength| {
            let label = format!("{{strength=\"{}\"}}", strength.name());
            pinned.iter().any(|sample| sample.labels == label && sample.value > 0)
        };
        Strength::ALL.into_iter().rev().find(of)
    }

    /// Checks what must hold while `plan` is mapped: held once, mapped in every domain.
    pub(super) fn check_mapped(&self, plan: Plan) -> Result<(), WrongFigure> {
        let (size, devices) = (plan.size().get(), u64::from(plan.device_count()));
        let require = |metric: Metric, labels, found, expected| {
            let wrong = WrongFigure { name: metric.name, labels, found, expected };
            if found == expected { Ok(()) } else { Err(wrong) }
        };
        let totals = [
            (PAGES_LENGTH, size),
            (PINNED, size),
            (CHARGED, size),
            (RETIRING, 0),
            (MAPPED, plan.mapped().get()),
            (CONTEXTS, 1),
            (IOASES, 2),
            (PAGES, plan.areas()),
            (AREAS, 2 * plan.areas()),
            (DOMAINS, devices),
            (WALKERS, devices),
        ];
        totals
            .into_iter()
            .try_for_each(|(metric, expected)| require(metric, "", self.total(metric), expected))
    }

    /// What is left of what must be gone, as `name value` pairs; empty if nothing is.
    pub(super) fn left(&self) -> String {
        let left = NOTHING_LEFT.into_iter().map(|metric| (metric.name, self.total(metric)));
        let left = left.filter(|(_, value)| *value > 0).map(|(name, value)| format!("{name} {value}"));
        left.collect::<Vec<_>>().join(", ")
    }

    /// The figures of the mapped memory, for people.
    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        let mut row = |name: &str, bytes: u64, remark: &str| {
            let row = format!("  {name:<18}{:>9}  {remark}", human(ByteLen::new(bytes)));
            let written = writeln!(table, "{}", row.trim_end());
            debug_assert!(written.is_ok(), "a string takes every write");
        };
        row("length", self.total(PAGES_LENGTH), "");
        for sample in self.by_labels(PINNED) {
            let strength = sample.labels.trim_start_matches("{strength=\"").trim_end_matches("\"}");
            let remark = if sample.value > 0 { "once, for all domains together" } else { "" };
            row(&format!("pinned, {strength}"), sample.value, remark);
        }
        row(
            "held",
            self.total(HELD),
            "what the kernel holds for these pins; more than pinned while slots are half used",
        );
        row("charged", self.total(CHARGED), "to one account");
        row("mapped", self.total(MAPPED), &format!("the sum over {} domains", self.total(DOMAINS)));
        row("tables", self.total(TABLE), &format!("for {} walkers", self.total(WALKERS)));
        table.trim_end().to_owned()
    }
}

/// Whether a line is a sample of `metric`.
fn is_of(metric: Metric, line: &str) -> bool {
    line.strip_prefix(metric.name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['{', ' ']))
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_at(series.find('{').unwrap_or(series.len()));
        Some(Self { name: name.to_owned(), labels: labels.to_owned(), value: value.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::DemoArgs;

    fn plan() -> Plan {
        Plan::new(&DemoArgs { size: ByteLen::new(65536), domains: 2.try_into().unwrap(), hold: false })
            .unwrap()
    }

    const MAPPED_TEXT: &str = "# HELP ioasd_pinned_bytes Bytes.
# TYPE ioasd_pinned_bytes gauge
ioasd_pinned_bytes{strength=\"longterm\"} 0
ioasd_pinned_bytes{strength=\"resident\"} 65536

ioasd_pages_length_bytes 65536
ioasd_charged_bytes 65536
ioasd_mapped_bytes 131072
ioasd_table_bytes{format=\"amdv1\"} 40960
ioasd_contexts 1
ioasd_ioas 2
ioasd_pages 5
ioasd_areas 10
ioasd_domains 2
ioasd_walkers 2
";

    #[test]
    fn memory_held_once_and_mapped_twice_is_right() {
        assert_eq!(Figures::parse(MAPPED_TEXT).unwrap().check_mapped(plan()), Ok(()));
    }

    #[test]
    fn every_single_figure_must_be_right() {
        for line in MAPPED_TEXT.lines().filter(|line| line.starts_with("ioasd") && !line.contains("table")) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let wrong = format!("{series} {}", value.parse::<u64>().unwrap() + 1);
            let figures = Figures::parse(&MAPPED_TEXT.replace(line, &wrong)).unwrap();
            assert!(figures.check_mapped(plan()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whatever_is_left_is_named() {
        let nothing = Figures::parse("ioasd_pinned_bytes{strength=\"resident\"} 0\nioasd_pages 0\n").unwrap();
        assert_eq!(nothing.left(), "");
        for metric in NOTHING_LEFT {
            let figures = Figures::parse(&format!("{}{{a=\"b\"}} 7\n", metric.name)).unwrap();
            assert_eq!(figures.left(), format!("{} 7", metric.name));
        }
        let requests = Figures::parse("ioasd_requests_total{command=\"DESTROY\",result=\"ok\"} 7").unwrap();
        assert_eq!(requests.left(), "");
    }

    #[test]
    fn what_is_no_whole_number_is_not_understood() {
        assert_eq!(Figures::parse("ioasd_pages 0.5"), None);
        assert_eq!(Figures::parse("ioasd_pages"), None);
        let others = "ioasd_pages_of_another_kind 0.5\nioasd_request_seconds_sum{command=\"DESTROY\"} 0.5\n";
        assert_eq!(Figures::parse(others), Some(Figures(Vec::new())));
    }

    #[test]
    fn the_table_shows_strengths_apart() {
        let table = Figures::parse(MAPPED_TEXT).unwrap().table();
        assert!(table.contains("pinned, longterm        0 B\n"), "{table}");
        assert!(table.contains("pinned, resident     64 KiB  once"), "{table}");
        assert!(table.contains("mapped              128 KiB  the sum over 2 domains"), "{table}");
    }
}
