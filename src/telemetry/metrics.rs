//! A scrape: the Prometheus text made from a snapshot of the registry.
//!
//! Each scrape fills a recorder of its own and throws it away. Nothing is cached, so a dead object cannot linger, and
//! nothing is installed globally, so several agents can live in one process. What sums over memory comes from the books;
//! histograms are written by `text`, because the agent counts them in buckets of its own.
//!
//! Imports allowed: `storage::source`, `sys::own_process`, `actors::{auditor, figures, latencies, registry, view}`, the catalogue,
//! books, quotas, text.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::SystemTime;

use ioasd_client::units::ByteLen;
use metrics::{Label, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::books::{Books, Sums, Tables};
use super::catalogue::{self, CATALOGUE, Kind, Metric};
use super::{quotas, text};
use crate::actors::auditor::Held;
use crate::actors::figures::cause;
use crate::actors::registry::Snapshot;
use crate::actors::view::View;
use crate::storage::source::Strength;
use crate::sys::own_process::OwnProcess;

/// The media type of what [`scrape`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Accounts, and contexts, that have series of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedSeries(pub u32);

impl Default for NamedSeries {
    fn default() -> Self {
        Self(100)
    }
}

/// The Prometheus text for what `view` shows now.
#[must_use]
pub fn scrape(view: &View, NamedSeries(cap): NamedSeries) -> String {
    let (snapshot, process) = (view.registry.snapshot(), OwnProcess::now());
    let cap = usize::try_from(cap).unwrap_or(usize::MAX);
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe();
        record_start(view);
        record_books(&Books::of(&snapshot, cap));
        quotas::record(&view.ledger, cap);
        record_kernel(&snapshot);
        record_counts(&snapshot);
        record_events(view);
        record_walker_faults(&snapshot);
        record_requests(&snapshot);
        record_operations(&snapshot);
        record_queues(&snapshot, view);
        record_process(process);
    });
    let mut text = recorder.handle().render();
    text::counter(&mut text, &catalogue::PROCESS_CPU, process.cpu.as_secs_f64());
    text::histograms(&mut text, &catalogue::REQUEST_SECONDS, &view.registry.requests().latencies().list());
    text
}

fn describe() {
    for metric in CATALOGUE {
        match metric.kind {
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Histogram => {}
        }
    }
}

fn record_start(view: &View) {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let version = Label::new("version", env!("CARGO_PKG_VERSION"));
    set(catalogue::BUILD_INFO, vec![version, Label::new("profile", profile)], 1);
    let since = view.registry.since().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    gauge!(catalogue::START_TIME.name).set(since.as_secs_f64());
}

/// Every strength is shown always, so that 0 bytes is a sample and not a gap.
fn record_books(books: &Books) {
    let totals = Strength::ALL.map(|strength| (strength, books.total(strength)));
    for (strength, total) in &totals {
        let label = || vec![Label::new("strength", strength.name())];
        set(catalogue::PINNED, label(), total.pinned);
        set(catalogue::HELD, label(), total.held);
        set(catalogue::DISTINCT, label(), total.distinct);
    }
    let sum = |of: fn(&Sums) -> u64| totals.iter().map(|(_, total)| of(total)).sum();
    set(catalogue::PAGES_LENGTH, vec![], sum(|total| total.length));
    set(catalogue::CHARGED, vec![], sum(|total| total.charged));
    set(catalogue::RETIRING, vec![], sum(|total| total.retiring));
    set(catalogue::DISTINCT_UNMERGED, vec![], books.unmerged);
    record_tables(&books.tables);
    record_accounts(books);
    for (context, bytes) in &books.contexts {
        set(catalogue::CONTEXT_PINNED, named("context", context), *bytes);
    }
    set(catalogue::CONTEXTS_FOLDED, vec![], books.contexts_folded as u64);
}

fn record_accounts(books: &Books) {
    for ((account, strength), sums) in &books.pages {
        let labels = || vec![label("account", account), Label::new("strength", strength.name())];
        set(catalogue::ACCOUNT_LENGTH, labels(), sums.length);
        set(catalogue::ACCOUNT_PINNED, labels(), sums.pinned);
        set(catalogue::ACCOUNT_HELD, labels(), sums.held);
        set(catalogue::ACCOUNT_CHARGED, labels(), sums.charged);
        set(catalogue::ACCOUNT_DISTINCT, labels(), sums.distinct);
    }
    set(catalogue::ACCOUNTS_FOLDED, vec![], books.accounts_folded as u64);
}

fn record_tables(tables: &Tables) {
    set(catalogue::MAPPED, vec![], tables.values().map(|sums| sums.mapped).sum());
    let (mut formats, mut accounts) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, (u64, u64)>::new());
    for ((account, format), sums) in tables {
        *formats.entry(*format).or_default() += sums.table;
        let (mapped, table) = accounts.entry(*account).or_default();
        *mapped += sums.mapped;
        *table += sums.table;
    }
    for (format, bytes) in formats {
        set(catalogue::TABLE, vec![Label::new("format", format)], bytes);
    }
    for (account, (mapped, table)) in accounts {
        set(catalogue::ACCOUNT_MAPPED, vec![label("account", account)], mapped);
        set(catalogue::ACCOUNT_TABLE, vec![label("account", account)], table);
    }
}

/// Nothing is shown that the kernel does not tell.
fn record_kernel(snapshot: &Snapshot) {
    counter!(catalogue::FIRST_TOUCH.name).absolute(snapshot.first_touched.get());
    let Some(held) = Held::by_kernel_now() else { return };
    for (strength, bytes) in [(Strength::Longterm, held.longterm), (Strength::Locked, held.locked)] {
        set(catalogue::KERNEL_HELD, vec![Label::new("strength", strength.name())], bytes.get());
    }
}

fn record_events(view: &View) {
    for (kind, times) in view.registry.journal().told() {
        let labels = vec![Label::new("kind", kind.name())];
        counter!(catalogue::EVENTS.name, labels).absolute(times);
    }
}

fn record_counts(snapshot: &Snapshot) {
    set(catalogue::CONTEXTS, vec![], snapshot.contexts.len() as u64);
    set(catalogue::IOASES, vec![], snapshot.ioases.len() as u64);
    set(catalogue::PAGES, vec![], snapshot.pages.len() as u64);
    set(catalogue::DOMAINS, vec![], snapshot.domains.len() as u64);
    set(catalogue::AREAS, vec![], snapshot.ioases.iter().map(|entry| entry.stats.areas.get()).sum());
    set(catalogue::WALKERS, vec![], snapshot.domains.iter().map(|entry| entry.stats.walkers.get()).sum());
}

fn record_walker_faults(snapshot: &Snapshot) {
    for (kind, count) in snapshot.faults.iter() {
        let labels = vec![Label::new("cause", cause(kind))];
        counter!(catalogue::WALKER_FAULTS.name, labels).absolute(count);
    }
}

fn record_requests(snapshot: &Snapshot) {
    for request in &snapshot.requests {
        let labels = vec![Label::new("command", request.command), Label::new("result", request.result)];
        counter!(catalogue::REQUESTS.name, labels).absolute(request.count);
    }
}

fn record_operations(Snapshot { operations, .. }: &Snapshot) {
    let mut commands: BTreeMap<&str, u64> = BTreeMap::new();
    for command in operations.iter().filter_map(|entry| entry.stats.command()) {
        *commands.entry(command).or_default() += 1;
    }
    for (command, count) in commands {
        set(catalogue::OPERATIONS, vec![label("command", command)], count);
    }
    let oldest = operations.iter().map(|entry| entry.stats.age()).max().unwrap_or_default();
    gauge!(catalogue::OPERATION_OLDEST.name).set(oldest.as_secs_f64());
}

fn record_queues(snapshot: &Snapshot, view: &View) {
    let requests: Vec<u64> = snapshot.contexts.iter().map(|entry| entry.stats.requests.get()).collect();
    let movements: Vec<u64> = snapshot.pages.iter().map(|entry| entry.stats.movements.get()).collect();
    for (queue, depths) in [("requests", requests), ("movements", movements)] {
        let label = || vec![Label::new("queue", queue)];
        set(catalogue::QUEUE_DEPTH, label(), depths.iter().sum());
        set(catalogue::QUEUE_DEEPEST, label(), depths.into_iter().max().unwrap_or(0));
    }
    set(catalogue::QUEUE_DEPTH, vec![Label::new("queue", "pins")], view.load.pins());
    for (arbiter, movements) in view.load.fan_outs().enumerate() {
        set(catalogue::FAN_OUT_MOVEMENTS, vec![label("arbiter", arbiter)], movements);
    }
}

fn record_process(process: OwnProcess) {
    let figures = [
        (catalogue::PROCESS_RESIDENT, process.resident.map(ByteLen::get)),
        (catalogue::PROCESS_THREADS, process.threads),
        (catalogue::PROCESS_FDS, process.descriptors),
        (catalogue::PROCESS_FDS_MAX, process.descriptors_max),
    ];
    for (metric, figure) in figures {
        figure.into_iter().for_each(|figure| set(metric, vec![], figure));
    }
}

fn label(name: &'static str, value: impl Display) -> Label {
    Label::new(name, value.to_string())
}

/// The label of what is shown by its number, or of all that is folded.
fn named(name: &'static str, number: &Option<u64>) -> Vec<Label> {
    vec![number.map_or_else(|| Label::new(name, "(others)"), |number| label(name, number))]
}

/// Prometheus samples are doubles: exact up to 2^53, which is 8 PiB.
fn set(metric: Metric, labels: Vec<Label>, value: u64) {
    gauge!(metric.name, labels).set(value as f64);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use ioasd_client::ids::ObjectId;
    use ioasd_client::units::{IndexRange, PageIndex};
    use rustix::process::{Pid, Uid};

    use super::*;
    use crate::actors::credits::Credits;
    use crate::actors::figures::{ContextStats, IoasStats, PagesStats, examples};
    use crate::actors::load::Load;
    use crate::actors::operation::Operation;
    use crate::actors::registry::Registry;
    use crate::actors::requests::OK;
    use crate::storage::frame_window::FileKey;
    use crate::storage::ledger::Ledger;
    use crate::storage::ledger::holder::TenantName;
    use crate::storage::ledger::limits::{Limit, Limits, TreeLimits};
    use crate::storage::ledger::resource::Resource;

    fn scrape(registry: &Arc<Registry>) -> String {
        super::scrape(&View::of(Arc::clone(registry)), NamedSeries::default())
    }

    fn pages(length: u64, account: u32) -> PagesStats {
        examples::pages(length, account)
    }

    #[track_caller]
    fn assert_sample(text: &str, sample: &str) {
        assert!(text.lines().any(|line| line == sample), "no line {sample:?} in\n{text}");
    }

    #[test]
    fn an_idle_agent_shows_zeroes_and_not_gaps() {
        let text = scrape(&Registry::new());
        assert_sample(&text, "ioasd_pinned_bytes{strength=\"resident\"} 0");
        assert_sample(&text, "ioasd_contexts 0");
        assert_sample(&text, "ioasd_walker_faults_total{cause=\"not-present\"} 0");
        assert_sample(
            &text,
            &format!("ioasd_build_info{{version=\"{}\",profile=\"debug\"}} 1", env!("CARGO_PKG_VERSION")),
        );
        assert_sample(&text, "ioasd_queue_depth{queue=\"requests\"} 0");
        let started = text.lines().find_map(|line| line.strip_prefix("ioasd_start_time_seconds "));
        assert!(started.is_some_and(|started| started.parse::<f64>().unwrap() > 1.7e9), "{text}");
    }

    #[test]
    fn a_scrape_sums_over_objects_and_splits_by_label() {
        let registry = Registry::new();
        let [mine, also_mine, theirs] = [(8192, 1000), (4096, 1000), (4096, 0)]
            .map(|(length, uid)| registry.register_pages(pages(length, uid)));
        mine.pinned.set(ByteLen::new(8192));
        mine.charged.set(ByteLen::new(8192));
        also_mine.charged.set(ByteLen::new(1));
        theirs.charged.set(ByteLen::new(4096));
        theirs.retiring.set(ByteLen::new(4096));
        let text = scrape(&registry);
        assert_sample(&text, "ioasd_pages_length_bytes 16384");
        assert_sample(&text, "ioasd_pinned_bytes{strength=\"resident\"} 8192");
        assert_sample(&text, "ioasd_charged_bytes 12289");
        assert_sample(&text, "ioasd_account_charged_bytes{account=\"1000\",strength=\"resident\"} 8193");
        assert_sample(&text, "ioasd_account_charged_bytes{account=\"0\",strength=\"resident\"} 4096");
        assert_sample(&text, "ioasd_retiring_bytes 4096");
        assert_sample(&text, "ioasd_pages 3");
    }

    #[test]
    fn operations_are_counted_by_command_and_the_oldest_tells_its_age() {
        let registry = Registry::new();
        assert_sample(&scrape(&registry), "ioasd_operation_oldest_seconds 0");
        let long_ago = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        let context = registry.register_context(ContextStats::new(Uid::ROOT, Some(Pid::INIT)));
        let _listed = ["IOAS_UNMAP", "IOAS_UNMAP", "CLOSE"].map(|command| {
            let operation = Operation::new(context.number(), long_ago);
            operation.note_command(command);
            registry.register_operation(Arc::new(operation))
        });
        let text = scrape(&registry);
        assert_sample(&text, "ioasd_operations{command=\"IOAS_UNMAP\"} 2");
        assert_sample(&text, "ioasd_operations{command=\"CLOSE\"} 1");
        let oldest = text.lines().find_map(|line| line.strip_prefix("ioasd_operation_oldest_seconds "));
        assert!(oldest.is_some_and(|oldest| oldest.parse::<f64>().unwrap() >= 100.0), "{text}");
    }

    #[test]
    fn domains_are_summed_and_their_tables_split_by_format() {
        let registry = Registry::new();
        let context = registry.register_context(ContextStats::new(Uid::ROOT, Some(Pid::INIT)));
        let ioas = registry.register_ioas(IoasStats::new(context.number(), ObjectId::new(1)));
        ioas.areas.set(5);
        let [first, second, third] = ["amd-v1", "amd-v1", "vtd"]
            .map(|format| registry.register_domain(examples::domain(format, ioas.number())));
        for domain in [&first, &second, &third] {
            domain.mapped.set(ByteLen::new(4096));
            domain.table.set(ByteLen::new(12_288));
            domain.walkers.set(2);
        }
        let text = scrape(&registry);
        assert_sample(&text, "ioasd_mapped_bytes 12288");
        assert_sample(&text, "ioasd_table_bytes{format=\"amd-v1\"} 24576");
        assert_sample(&text, "ioasd_table_bytes{format=\"vtd\"} 12288");
        assert_sample(&text, "ioasd_walkers 6");
        assert_sample(&text, "ioasd_areas 5");
    }

    #[test]
    fn a_page_of_a_file_is_distinct_once_and_the_accounts_add_up() {
        let registry = Registry::new();
        let file = FileKey { dev: 1, inode: 2 };
        let pinned = [(0, 0..=3), (0, 2..=5), (1000, 5..=6)].map(|(uid, range)| {
            let (first, last) = (PageIndex::new(*range.start()), PageIndex::new(*range.end()));
            let range = IndexRange::new(first, last).unwrap();
            let guard = registry.register_pages(examples::pages_of(file, range, uid));
            guard.pinned.set(ByteLen::new(range.pages() << 12));
            guard
        });
        let text = scrape(&registry);
        let account = |who: &str, pages: u64| {
            let labels = format!("account=\"{who}\",strength=\"resident\"");
            assert_sample(&text, &format!("ioasd_account_distinct_bytes{{{labels}}} {}", pages << 12));
        };
        assert_sample(&text, &format!("ioasd_pinned_bytes{{strength=\"resident\"}} {}", 10 << 12));
        assert_sample(&text, &format!("ioasd_distinct_bytes{{strength=\"resident\"}} {}", 7 << 12));
        account("0", 5);
        account("1000", 1);
        account("(shared)", 1);
        drop(pinned);
    }

    #[test]
    fn a_dead_object_leaves_no_series_behind() {
        let registry = Registry::new();
        let guard = registry.register_pages(pages(4096, 4711));
        assert!(scrape(&registry).contains("4711"));
        drop(guard);
        let text = scrape(&registry);
        assert!(!text.contains("4711"), "{text}");
        assert_sample(&text, "ioasd_pages 0");
    }

    #[test]
    fn requests_are_counted_from_the_start_of_the_agent() {
        let registry = Registry::new();
        for result in [OK, OK, "iova-taken"] {
            registry.requests().record("IOAS_MAP_FILE", result, Duration::from_micros(30));
        }
        for _ in 0..2 {
            let text = scrape(&registry);
            assert_sample(&text, "ioasd_requests_total{command=\"IOAS_MAP_FILE\",result=\"ok\"} 2");
            assert_sample(&text, "ioasd_requests_total{command=\"IOAS_MAP_FILE\",result=\"iova-taken\"} 1");
            let bucket = "ioasd_request_duration_seconds_bucket{command=\"IOAS_MAP_FILE\",le=";
            assert_sample(&text, &format!("{bucket}\"0.000025\"}} 0"));
            assert_sample(&text, &format!("{bucket}\"0.00005\"}} 3"));
            assert_sample(&text, &format!("{bucket}\"+Inf\"}} 3"));
            assert_sample(&text, "ioasd_request_duration_seconds_count{command=\"IOAS_MAP_FILE\"} 3");
            assert_sample(&text, "ioasd_request_duration_seconds_sum{command=\"IOAS_MAP_FILE\"} 0.00009");
        }
    }

    #[test]
    fn two_agents_in_one_process_do_not_see_each_other() {
        let (one, other) = (Registry::new(), Registry::new());
        let _guard = one.register_pages(pages(4096, 0));
        assert_sample(&scrape(&one), "ioasd_pages 1");
        assert_sample(&scrape(&other), "ioasd_pages 0");
    }

    #[test]
    fn every_metric_of_the_catalogue_is_shown_with_its_help_and_kind_and_no_other() {
        let registry = Registry::new();
        let context = registry.register_context(ContextStats::new(Uid::ROOT, Some(Pid::INIT)));
        let ioas = registry.register_ioas(IoasStats::new(context.number(), ObjectId::new(1)));
        let _domain = registry.register_domain(examples::domain("amd-v1", ioas.number()));
        let _pages = registry.register_pages(pages(4096, 0));
        registry.requests().record("DESTROY", OK, Duration::ZERO);
        let operation = Operation::new(context.number(), Instant::now());
        operation.note_command("DESTROY");
        let _operation = registry.register_operation(Arc::new(operation));
        let limit = Limit { soft: 4096, hard: 1 << 20 };
        let limits = TreeLimits { host: Limits::NONE.with(Resource::Pinned, limit), ..TreeLimits::default() };
        let ledger = Arc::new(Ledger::with(limits, Arc::new(|_| ())));
        let _account = ledger.account(&TenantName::named("blue"), 0, 1);
        let load = Load { fan_outs: vec![Credits::default().permits()], pins: None };
        let view = View { load, ledger, ..View::of(registry) };
        let text = super::scrape(&view, NamedSeries::default());
        for metric in CATALOGUE {
            assert_sample(&text, &format!("# HELP {} {}", metric.name, metric.help));
            assert_sample(&text, &format!("# TYPE {} {}", metric.name, metric.kind.name()));
        }
        let host = "level=\"host\",tenant=\"\",user=\"\",resource=\"pinned\"";
        assert_sample(&text, &format!("ioasd_quota_limit{{{host},kind=\"hard\"}} 1048576"));
        assert_sample(&text, &format!("ioasd_quota_used{{{host}}} 0"));
        assert_sample(&text, "ioasd_tenant_charged_bytes{tenant=\"blue\",strength=\"longterm\"} 0");
        let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(families, CATALOGUE.len(), "{text}");
    }
}
