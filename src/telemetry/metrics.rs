//! A scrape: the Prometheus text made from a snapshot of the registry.
//!
//! Each scrape fills a recorder of its own and throws it away. Nothing is cached, so a dead object cannot linger, and
//! nothing is installed globally, so several agents can live in one process.
//!
//! Imports allowed: `storage::source`, `actors::{auditor, registry}`, the catalogue.

use std::collections::BTreeMap;

use ioasd_client::units::ByteLen;
use metrics::{Label, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::catalogue::{self, CATALOGUE, Kind, Metric};
use crate::actors::auditor::Held;
use crate::actors::registry::{Registry, Snapshot};
use crate::storage::source::Strength;

/// The media type of what [`scrape`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The Prometheus text for what `registry` holds now.
#[must_use]
pub fn scrape(registry: &Registry) -> String {
    let snapshot = registry.snapshot();
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe();
        record(&snapshot);
    });
    recorder.handle().render()
}

fn describe() {
    for metric in CATALOGUE {
        match metric.kind {
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Counter => describe_counter!(metric.name, metric.help),
        }
    }
}

fn record(snapshot: &Snapshot) {
    let version = vec![Label::new("version", env!("CARGO_PKG_VERSION"))];
    set(catalogue::BUILD_INFO, version, 1);
    record_pages(snapshot);
    record_kernel(snapshot);
    record_accounts(snapshot);
    record_domains(snapshot);
    record_counts(snapshot);
    record_requests(snapshot);
}

fn record_pages(snapshot: &Snapshot) {
    let pages = || snapshot.pages.iter().map(|entry| &entry.stats);
    set_bytes(catalogue::PAGES_LENGTH, vec![], pages().map(|stats| stats.length));
    set_bytes(catalogue::CHARGED, vec![], pages().map(|stats| stats.charged.get()));
    set_bytes(catalogue::RETIRING, vec![], pages().map(|stats| stats.retiring.get()));
    // Every strength is shown always, so that 0 bytes is a sample and not a gap.
    for strength in Strength::ALL {
        let those = || pages().filter(|stats| stats.strength == strength);
        let label = || vec![Label::new("strength", strength.name())];
        set_bytes(catalogue::PINNED, label(), those().map(|stats| stats.pinned.get()));
        set_bytes(catalogue::HELD, label(), those().map(|stats| stats.held.get()));
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

fn record_accounts(snapshot: &Snapshot) {
    let mut accounts = BTreeMap::<u32, u64>::new();
    for stats in snapshot.pages.iter().map(|entry| &entry.stats) {
        *accounts.entry(stats.account.get().as_raw()).or_default() += stats.charged.get().get();
    }
    for (uid, bytes) in accounts {
        set(catalogue::ACCOUNT_CHARGED, vec![Label::new("account", uid.to_string())], bytes);
    }
}

fn record_domains(snapshot: &Snapshot) {
    let domains = || snapshot.domains.iter().map(|entry| &entry.stats);
    set_bytes(catalogue::MAPPED, vec![], domains().map(|stats| stats.mapped.get()));
    set(catalogue::WALKERS, vec![], domains().map(|stats| stats.walkers.get()).sum());
    let mut formats = BTreeMap::<&'static str, u64>::new();
    for stats in domains() {
        *formats.entry(stats.format).or_default() += stats.table.get().get();
    }
    for (format, bytes) in formats {
        set(catalogue::TABLE, vec![Label::new("format", format)], bytes);
    }
}

fn record_counts(snapshot: &Snapshot) {
    set(catalogue::CONTEXTS, vec![], count(&snapshot.contexts));
    set(catalogue::IOASES, vec![], count(&snapshot.ioases));
    set(catalogue::PAGES, vec![], count(&snapshot.pages));
    set(catalogue::DOMAINS, vec![], count(&snapshot.domains));
    set(catalogue::AREAS, vec![], snapshot.ioases.iter().map(|entry| entry.stats.areas.get()).sum());
}

fn record_requests(snapshot: &Snapshot) {
    for request in &snapshot.requests {
        let labels = vec![Label::new("command", request.command), Label::new("result", request.result)];
        counter!(catalogue::REQUESTS.name, labels).absolute(request.count);
    }
}

fn count<T>(entries: &[T]) -> u64 {
    u64::try_from(entries.len()).unwrap_or(u64::MAX)
}

fn set_bytes(metric: Metric, labels: Vec<Label>, values: impl Iterator<Item = ByteLen>) {
    set(metric, labels, values.map(ByteLen::get).fold(0, u64::saturating_add));
}

/// Prometheus samples are doubles: exact up to 2^53, which is 8 PiB.
fn set(metric: Metric, labels: Vec<Label>, value: u64) {
    gauge!(metric.name, labels).set(value as f64);
}

#[cfg(test)]
mod tests {
    use ioasd_client::ids::ObjectId;
    use rustix::process::{Pid, Uid};

    use super::*;
    use crate::actors::figures::{ContextStats, IoasStats, PagesStats, examples};
    use crate::actors::requests::OK;

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
        assert_sample(&text, &format!("ioasd_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
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
        assert_sample(&text, "ioasd_account_charged_bytes{account=\"1000\"} 8193");
        assert_sample(&text, "ioasd_account_charged_bytes{account=\"0\"} 4096");
        assert_sample(&text, "ioasd_retiring_bytes 4096");
        assert_sample(&text, "ioasd_pages 3");
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
            registry.requests().record("IOAS_MAP_FILE", result);
        }
        for _ in 0..2 {
            let text = scrape(&registry);
            assert_sample(&text, "ioasd_requests_total{command=\"IOAS_MAP_FILE\",result=\"ok\"} 2");
            assert_sample(&text, "ioasd_requests_total{command=\"IOAS_MAP_FILE\",result=\"iova-taken\"} 1");
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
        registry.requests().record("DESTROY", OK);
        let text = scrape(&registry);
        for metric in CATALOGUE {
            assert_sample(&text, &format!("# HELP {} {}", metric.name, metric.help));
            let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
            assert_sample(&text, &format!("# TYPE {} {kind}", metric.name));
        }
        let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(families, CATALOGUE.len(), "{text}");
    }
}
