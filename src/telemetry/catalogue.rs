//! The catalogue of metrics: name, kind, labels and help of everything on `/metrics`.
//!
//! Names follow the Prometheus rules: base units, plural for counted things, `_total` for counters, `_info` for facts.
//! `docs/metrics.md` is [`page`]; a test compares them.
//!
//! Imports allowed: `std`.

use std::fmt::Write;

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down; set afresh at each scrape.
    Gauge,
    /// Only grows while the agent runs.
    Counter,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

/// The agent's version.
pub const BUILD_INFO: Metric =
    gauge("ioasd_build_info", &["version"], "Always 1; the version is in the label.");
/// Length of all pages objects.
pub const PAGES_LENGTH: Metric = gauge(
    "ioasd_pages_length_bytes",
    &[],
    "Bytes of all pages objects, pinned or not: what clients have mapped at most.",
);
/// Pinned bytes.
pub const PINNED: Metric = gauge(
    "ioasd_pinned_bytes",
    &["strength"],
    "Bytes that hold a pin, each pages object once, by what holds them. Strengths are never summed silently.",
);
/// Held bytes.
pub const HELD: Metric = gauge(
    "ioasd_held_bytes",
    &["strength"],
    "Bytes that the kernel holds for pins, each source for itself: at least the pinned bytes, more while part of a 2 MiB slot is unpinned.",
);
/// Charged bytes.
pub const CHARGED: Metric =
    gauge("ioasd_charged_bytes", &[], "Bytes billed to accounts; equals the pinned bytes at rest.");
/// Charged bytes of an account.
pub const ACCOUNT_CHARGED: Metric = gauge(
    "ioasd_account_charged_bytes",
    &["account"],
    "Bytes billed to one account; the label is the user id.",
);
/// Retiring bytes.
pub const RETIRING: Metric = gauge(
    "ioasd_retiring_bytes",
    &[],
    "Bytes unmapped from every domain that stay pinned until the last walker has left them; part of the pinned bytes.",
);
/// Mapped bytes.
pub const MAPPED: Metric = gauge(
    "ioasd_mapped_bytes",
    &[],
    "Bytes that domains translate, summed over domains: memory in two domains counts twice.",
);
/// Table bytes.
pub const TABLE: Metric = gauge("ioasd_table_bytes", &["format"], "Bytes of IO page-table pages, by format.");
/// Live contexts.
pub const CONTEXTS: Metric = gauge("ioasd_contexts", &[], "Contexts that are open.");
/// Live IOASes.
pub const IOASES: Metric = gauge("ioasd_ioas", &[], "IO address spaces.");
/// Live pages objects.
pub const PAGES: Metric =
    gauge("ioasd_pages", &[], "Pages objects: one for each MAP whose memory is still in use.");
/// Live domains.
pub const DOMAINS: Metric = gauge("ioasd_domains", &[], "Domains: IO page tables that are kept up to date.");
/// Areas.
pub const AREAS: Metric = gauge("ioasd_areas", &[], "Areas in all IO address spaces.");
/// Walkers.
pub const WALKERS: Metric = gauge("ioasd_walkers", &[], "Walkers registered with domains.");
/// Requests.
pub const REQUESTS: Metric = Metric {
    name: "ioasd_requests_total",
    kind: Kind::Counter,
    labels: &["command", "result"],
    help: "Requests answered, by command and result: ok, or the stable code of the error.",
};

/// Every metric, in the order of the documentation.
pub const CATALOGUE: &[Metric] = &[
    BUILD_INFO,
    PAGES_LENGTH,
    PINNED,
    HELD,
    CHARGED,
    ACCOUNT_CHARGED,
    RETIRING,
    MAPPED,
    TABLE,
    CONTEXTS,
    IOASES,
    PAGES,
    DOMAINS,
    AREAS,
    WALKERS,
    REQUESTS,
];

const HEAD: &str = "# Metrics

Served by the admin server at `/metrics`. Gauges are read from the live objects at each scrape, so an object that is gone
leaves nothing behind. Counters start at 0 when the agent starts. This page is made from `src/telemetry/catalogue.rs`; a test
compares the two, `IOASD_BLESS=1 cargo test --lib metrics_page` rewrites it.

| metric | kind | labels | meaning |
|---|---|---|---|
";

/// The text of `docs/metrics.md`.
#[must_use]
pub fn page() -> String {
    CATALOGUE.iter().fold(HEAD.to_owned(), |mut page, metric| {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let written =
            writeln!(page, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind.name(), metric.help);
        debug_assert!(written.is_ok(), "a string takes every write");
        page
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_page_is_made_from_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("IOASD_BLESS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page());
    }

    #[test]
    fn names_follow_the_rules() {
        for metric in CATALOGUE {
            assert!(metric.name.starts_with("ioasd_"), "{} lacks the prefix", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('|'), "{}", metric.name);
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
    }
}
