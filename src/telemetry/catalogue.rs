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
    pub(super) const fn name(self) -> &'static str {
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
/// Bytes held by the kernel's own count.
pub const KERNEL_HELD: Metric = gauge(
    "ioasd_kernel_held_bytes",
    &["strength"],
    "What the kernel counts for the agent's process: VmPin for longterm, VmLck for locked. Equals the held bytes, except that huge pages are counted whole and once, and hugetlb pages are never counted as locked.",
);
/// First-touched bytes.
pub const FIRST_TOUCH: Metric = Metric {
    name: "ioasd_first_touch_bytes_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Bytes of holes in files that the agent has allocated for clients; its own memory cgroup pays.",
};
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
    KERNEL_HELD,
    FIRST_TOUCH,
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

/// Memory held in place by processes.
pub const HOST_PINNED: Metric = gauge(
    "ioasd_host_pinned_bytes",
    &["via"],
    "VmPin of all processes of the host, by whether the process is this agent (ioasd) or not (other).",
);
/// Memory locked by processes.
pub const HOST_LOCKED: Metric = gauge(
    "ioasd_host_locked_bytes",
    &["via"],
    "VmLck of all processes of the host, by whether the process is this agent (ioasd) or not (other).",
);
/// Unevictable memory.
pub const HOST_UNEVICTABLE: Metric = gauge(
    "ioasd_host_unevictable_bytes",
    &[],
    "Memory of the host that cannot be reclaimed, as the kernel counts it; long-term pins are not in it.",
);
/// Locked memory.
pub const HOST_MLOCKED: Metric = gauge("ioasd_host_mlocked_bytes", &[], "The locked part of it.");
/// Pages pinned.
pub const HOST_PINS_ACQUIRED: Metric = Metric {
    name: "ioasd_host_pins_acquired_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Pages pinned by anybody since the host started, short pins of ordinary I/O included.",
};
/// Pages unpinned.
pub const HOST_PINS_RELEASED: Metric = Metric {
    name: "ioasd_host_pins_released_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Pages unpinned by anybody since the host started.",
};
/// Pinned by control group.
pub const HOST_CGROUP_PINNED: Metric = gauge(
    "ioasd_host_cgroup_pinned_bytes",
    &["cgroup", "via"],
    "Via ioasd: bytes this agent has pinned for contexts opened from the control group. Via other: VmPin of its \
     processes. The two are different books and are not added up. The heaviest groups only, the rest is (others).",
);
/// Locked by control group.
pub const HOST_CGROUP_LOCKED: Metric = gauge(
    "ioasd_host_cgroup_locked_bytes",
    &["cgroup"],
    "VmLck of the processes of a control group, this agent left out.",
);
/// Unevictable by control group.
pub const HOST_CGROUP_UNEVICTABLE: Metric = gauge(
    "ioasd_host_cgroup_unevictable_bytes",
    &["cgroup"],
    "Memory of a control group that cannot be reclaimed, groups below included: do not add up.",
);
/// What was not read.
pub const HOST_UNREAD: Metric = gauge(
    "ioasd_host_unread_processes",
    &[],
    "Processes of the host that are missing in these figures: not read yet, or not readable.",
);

/// Every metric of the host view, in the order of the documentation.
pub const HOST_CATALOGUE: &[Metric] = &[
    HOST_PINNED,
    HOST_LOCKED,
    HOST_UNEVICTABLE,
    HOST_MLOCKED,
    HOST_PINS_ACQUIRED,
    HOST_PINS_RELEASED,
    HOST_CGROUP_PINNED,
    HOST_CGROUP_LOCKED,
    HOST_CGROUP_UNEVICTABLE,
    HOST_UNREAD,
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
    CATALOGUE.iter().chain(HOST_CATALOGUE).fold(HEAD.to_owned(), |mut page, metric| {
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
        for metric in CATALOGUE.iter().chain(HOST_CATALOGUE) {
            assert!(metric.name.starts_with("ioasd_"), "{} lacks the prefix", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('|'), "{}", metric.name);
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let mut names: Vec<_> = CATALOGUE.iter().chain(HOST_CATALOGUE).map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len() + HOST_CATALOGUE.len());
    }
}
