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
    /// Counts observations by size, in buckets with fixed bounds.
    Histogram,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
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

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

/// The agent's version.
pub const BUILD_INFO: Metric = gauge(
    "ioasd_build_info",
    &["version", "profile"],
    "Always 1; version and build profile (release or debug) are in the labels.",
);
/// When it started.
pub const START_TIME: Metric = gauge(
    "ioasd_start_time_seconds",
    &[],
    "When the agent started, in seconds since 1970; changes with each start.",
);
/// Length of all pages objects.
pub const PAGES_LENGTH: Metric = gauge(
    "ioasd_pages_length_bytes",
    &[],
    "Bytes of all pages objects, pinned or not: what clients have mapped at most.",
);
/// Distinct bytes.
pub const DISTINCT: Metric = gauge(
    "ioasd_distinct_bytes",
    &["strength"],
    "Pinned bytes, each page of a file once however many pages objects pin it, under the strongest of what holds it.",
);
/// Bytes that were not compared.
pub const DISTINCT_UNMERGED: Metric = gauge(
    "ioasd_distinct_unmerged_bytes",
    &[],
    "The part of the distinct bytes that was not compared with others, because there are too many pieces for one scrape; 0 nearly always.",
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
pub const FIRST_TOUCH: Metric = counter(
    "ioasd_first_touch_bytes_total",
    &[],
    "Bytes of holes in files that the agent has allocated for clients; its own memory cgroup pays.",
);
/// Events.
pub const EVENTS: Metric = counter(
    "ioasd_events_total",
    &["kind"],
    "Events told to the journal, by kind: walkers-late, walker-killed and walkers-left are walkers that did not leave what was unmapped in time.",
);
/// Charged bytes.
pub const CHARGED: Metric =
    gauge("ioasd_charged_bytes", &[], "Bytes billed to accounts; equals the pinned bytes at rest.");
/// Length of an account's pages objects.
pub const ACCOUNT_LENGTH: Metric = gauge(
    "ioasd_account_length_bytes",
    BY_ACCOUNT,
    "Bytes of the pages objects that one account pays for. The label is the user id; accounts beyond admin.named_series are (others). The parts add up to ioasd_pages_length_bytes.",
);
/// Pinned bytes of an account.
pub const ACCOUNT_PINNED: Metric = gauge(
    "ioasd_account_pinned_bytes",
    BY_ACCOUNT,
    "Bytes that hold a pin for one account; the parts add up to ioasd_pinned_bytes.",
);
/// Held bytes of an account.
pub const ACCOUNT_HELD: Metric = gauge(
    "ioasd_account_held_bytes",
    BY_ACCOUNT,
    "Bytes that the kernel holds for one account; the parts add up to ioasd_held_bytes.",
);
/// Charged bytes of an account.
pub const ACCOUNT_CHARGED: Metric = gauge(
    "ioasd_account_charged_bytes",
    BY_ACCOUNT,
    "Bytes billed to one account; the parts add up to ioasd_charged_bytes.",
);
/// Distinct bytes of an account.
pub const ACCOUNT_DISTINCT: Metric = gauge(
    "ioasd_account_distinct_bytes",
    BY_ACCOUNT,
    "Distinct bytes that one account alone holds; what several hold is under (shared). The parts add up to ioasd_distinct_bytes.",
);
/// Mapped bytes of an account.
pub const ACCOUNT_MAPPED: Metric = gauge(
    "ioasd_account_mapped_bytes",
    &["account"],
    "Bytes that the domains of one account translate; the parts add up to ioasd_mapped_bytes.",
);
/// Table bytes of an account.
pub const ACCOUNT_TABLE: Metric = gauge(
    "ioasd_account_table_bytes",
    &["account"],
    "Bytes of IO page-table pages of one account; the parts add up to those by format.",
);
/// Folded accounts.
pub const ACCOUNTS_FOLDED: Metric = gauge(
    "ioasd_accounts_folded",
    &[],
    "Accounts that have no series of their own and are summed under (others).",
);
/// Charged bytes of a tenant.
pub const TENANT_CHARGED: Metric = gauge(
    "ioasd_tenant_charged_bytes",
    &["tenant", "strength"],
    "Bytes billed to one tenant: its name, or the path of its control group; - if that is not known, (others) beyond admin.named_series.",
);
/// Folded tenants.
pub const TENANTS_FOLDED: Metric = gauge(
    "ioasd_tenants_folded",
    &[],
    "Tenants that have no series of their own and are summed under (others).",
);
/// What of a quota is used.
pub const QUOTA_USED: Metric = gauge(
    "ioasd_quota_used",
    QUOTA,
    "What is used of a resource that has a limit, by level (host, tenant, user): bytes of pinned, longterm, locked, resident, copy, tables and first_touch; pieces of areas, objects and requests.",
);
/// The limits.
pub const QUOTA_LIMIT: Metric = gauge(
    "ioasd_quota_limit",
    &["level", "tenant", "user", "resource", "kind"],
    "A limit, in the unit of what is used: kind soft, above which an event tells so, or hard, which is never passed.",
);
/// How often soft limits were passed.
pub const QUOTA_CROSSINGS: Metric =
    counter("ioasd_quota_crossings_total", QUOTA, "How often a soft limit was passed upwards.");
/// How often hard limits refused.
pub const QUOTA_REFUSALS: Metric =
    counter("ioasd_quota_refusals_total", QUOTA, "How often a hard limit refused something.");
/// Pinned bytes of a context.
pub const CONTEXT_PINNED: Metric = gauge(
    "ioasd_context_pinned_bytes",
    &["context"],
    "Bytes pinned for one context, for the admin.named_series contexts that have most; the others are (others). Which program it is says /v1/contexts.",
);
/// Folded contexts.
pub const CONTEXTS_FOLDED: Metric = gauge(
    "ioasd_contexts_folded",
    &[],
    "Contexts with pages objects that have no series of their own and are summed under (others).",
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
/// Faults of walkers.
pub const WALKER_FAULTS: Metric = counter(
    "ioasd_walker_faults_total",
    &["cause"],
    "Accesses of walkers that reached no memory, by cause; walkers that are gone count too.",
);
/// Requests.
pub const REQUESTS: Metric = counter(
    "ioasd_requests_total",
    &["command", "result"],
    "Requests answered, by command and result: ok, or the reason of the rejection, the stable code of the error. Messages over the credits of their channel are the command unread with out-of-credit.",
);
/// What requests took.
pub const REQUEST_SECONDS: Metric = Metric {
    name: "ioasd_request_duration_seconds",
    kind: Kind::Histogram,
    labels: &["command"],
    help: "From when a request was begun to its answer, waiting for walkers included, by command.",
};
/// What takes long just now.
pub const OPERATIONS: Metric = gauge(
    "ioasd_operations",
    &["command"],
    "Requests, and ends of contexts (CLOSE), that are under way and have to wait, by command: those of /v1/operations.",
);
/// The oldest of them.
pub const OPERATION_OLDEST: Metric = gauge(
    "ioasd_operation_oldest_seconds",
    &[],
    "How long the oldest of these operations has been going on; 0 without one.",
);
/// Queues.
pub const QUEUE_DEPTH: Metric = gauge(
    "ioasd_queue_depth",
    &["queue"],
    "What is under way: requests read and not answered, movements at pages objects, work at pin threads.",
);
/// The deepest queue of one object.
pub const QUEUE_DEEPEST: Metric = gauge(
    "ioasd_queue_deepest",
    &["queue"],
    "The same at the one context, or pages object, that has most of it.",
);
/// Movements at FanOuts.
pub const FAN_OUT_MOVEMENTS: Metric =
    gauge("ioasd_fan_out_movements", &["arbiter"], "Movements that write to the tables of one arbiter.");
/// Processor time.
pub const PROCESS_CPU: Metric =
    counter("process_cpu_seconds_total", &[], "Processor time of the agent, all threads together.");
/// Resident memory.
pub const PROCESS_RESIDENT: Metric = gauge(
    "process_resident_memory_bytes",
    &[],
    "Memory of the agent's process that is there, mapped client memory included.",
);
/// Threads.
pub const PROCESS_THREADS: Metric = gauge("process_threads", &[], "Threads of the agent.");
/// Descriptors.
pub const PROCESS_FDS: Metric = gauge("process_open_fds", &[], "Descriptors that the agent has open.");
/// Descriptors at most.
pub const PROCESS_FDS_MAX: Metric =
    gauge("process_max_fds", &[], "Descriptors that it may have open; missing without a limit.");

const QUOTA: &[&str] = &["level", "tenant", "user", "resource"];
const BY_ACCOUNT: &[&str] = &["account", "strength"];

/// Every metric, in the order of the documentation.
pub const CATALOGUE: &[Metric] = &[
    BUILD_INFO,
    START_TIME,
    PAGES_LENGTH,
    PINNED,
    DISTINCT,
    DISTINCT_UNMERGED,
    HELD,
    KERNEL_HELD,
    FIRST_TOUCH,
    EVENTS,
    CHARGED,
    RETIRING,
    MAPPED,
    TABLE,
    ACCOUNT_LENGTH,
    ACCOUNT_PINNED,
    ACCOUNT_HELD,
    ACCOUNT_CHARGED,
    ACCOUNT_DISTINCT,
    ACCOUNT_MAPPED,
    ACCOUNT_TABLE,
    ACCOUNTS_FOLDED,
    TENANT_CHARGED,
    TENANTS_FOLDED,
    QUOTA_USED,
    QUOTA_LIMIT,
    QUOTA_CROSSINGS,
    QUOTA_REFUSALS,
    CONTEXT_PINNED,
    CONTEXTS_FOLDED,
    CONTEXTS,
    IOASES,
    PAGES,
    DOMAINS,
    AREAS,
    WALKERS,
    WALKER_FAULTS,
    REQUESTS,
    REQUEST_SECONDS,
    OPERATIONS,
    OPERATION_OLDEST,
    QUEUE_DEPTH,
    QUEUE_DEEPEST,
    FAN_OUT_MOVEMENTS,
    PROCESS_CPU,
    PROCESS_RESIDENT,
    PROCESS_THREADS,
    PROCESS_FDS,
    PROCESS_FDS_MAX,
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
pub const HOST_PINS_ACQUIRED: Metric = counter(
    "ioasd_host_pins_acquired_total",
    &[],
    "Pages pinned by anybody since the host started, short pins of ordinary I/O included.",
);
/// Pages unpinned.
pub const HOST_PINS_RELEASED: Metric =
    counter("ioasd_host_pins_released_total", &[], "Pages unpinned by anybody since the host started.");
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
leaves nothing behind. Within one scrape every figure is read once: totals are sums of the very numbers that the parts show.
Counters start at 0 when the agent starts. This page is made from `src/telemetry/catalogue.rs`; a test
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
            let prefix = ["ioasd_", "process_"].iter().any(|prefix| metric.name.starts_with(prefix));
            assert!(prefix, "{} lacks the prefix", metric.name);
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
