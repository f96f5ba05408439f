//! The host view: what is held in place on this host, by whom, and whether through this agent.
//!
//! Two books lie side by side. The kernel's says what each process has pinned and locked, and what each control group
//! cannot reclaim. The agent's says what it holds for the contexts that were opened from a control group. They are not
//! added up: what the agent locks is in the kernel's book under the agent's own process, what it merely found resident is
//! in none, and process memory that a client pins for the agent is in the kernel's book under that client.
//!
//! Imports allowed: `sys::host`, the registry, the catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ioasd_client::units::ByteLen;
use metrics::{Label, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use rustix::process::{Pid, getpid};

use super::catalogue::{self, HOST_CATALOGUE, Kind, Metric};
use crate::actors::registry::Registry;
use crate::sys::host::scan::HostScan;
use crate::sys::host::{Held, HostMemory};

/// A reading is shown again until it is this old, however often it is asked for.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Control groups that have series of their own; the rest is folded into one.
const GROUP_SERIES: usize = 20;

/// The label of the folded groups.
const FOLDED: &str = "(others)";

/// The control group of processes whose group cannot be seen.
const UNKNOWN: &str = "(unknown)";

/// Through whom memory is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Through this agent.
    Ioasd,
    /// By the process itself, or through something else.
    Other,
}

impl Via {
    /// The word used in labels and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ioasd => "ioasd",
            Self::Other => "other",
        }
    }

    /// How the memory of process `pid` is held.
    #[must_use]
    pub fn of(pid: Pid) -> Self {
        if pid == getpid() { Self::Ioasd } else { Self::Other }
    }
}

/// What belongs to one control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The agent's book: bytes pinned for contexts that were opened from here.
    pub ioasd: ByteLen,
    /// The kernel's book: what processes hold here, those of this agent left out.
    pub other: Held,
    /// The kernel's book: what cannot be reclaimed here and below.
    pub unevictable: ByteLen,
}

impl Group {
    fn weight(&self) -> u64 {
        self.ioasd.get().max(self.other.sum()).max(self.unevictable.get())
    }

    fn and(&self, other: &Self) -> Self {
        let sum = |one: ByteLen, other: ByteLen| ByteLen::new(one.get().saturating_add(other.get()));
        Self {
            ioasd: sum(self.ioasd, other.ioasd),
            other: self.other.and(other.other),
            unevictable: self.unevictable.max(other.unevictable),
        }
    }
}

/// A reading, kept for a while.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What the kernel told.
    pub memory: HostMemory,
    /// When.
    pub taken: SystemTime,
}

/// Reads the host when somebody asks, but not too often.
#[derive(Debug, Default)]
pub struct HostView(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    scan: HostScan,
    last: Option<(Instant, Arc<Reading>)>,
}

impl HostView {
    /// What is known now; `None` if the processes of this host cannot be listed.
    #[must_use]
    pub fn read(&self) -> Option<Arc<Reading>> {
        let mut kept = self.0.lock();
        if let Some((_, reading)) = kept.last.as_ref().filter(|(at, _)| at.elapsed() < MAX_AGE) {
            return Some(Arc::clone(reading));
        }
        let memory = kept.scan.refresh().inspect_err(|error| tracing::debug!(%error, "cannot read the host"));
        let reading = Arc::new(Reading { memory: memory.ok()?, taken: SystemTime::now() });
        kept.last = Some((Instant::now(), Arc::clone(&reading)));
        Some(reading)
    }
}

/// Both books by control group, the heaviest first.
#[must_use]
pub fn groups(memory: &HostMemory, registry: &Registry) -> Vec<(String, Group)> {
    let mut groups = ledger(registry);
    for process in memory.processes.iter().filter(|process| Via::of(process.pid) == Via::Other) {
        let name = process.cgroup.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        let group = groups.entry(name).or_default();
        group.other = group.other.and(process.held);
    }
    for found in &memory.cgroups {
        groups.entry(found.path.clone()).or_default().unevictable = found.unevictable;
    }
    let mut groups: Vec<_> = groups.into_iter().filter(|(_, group)| group.weight() > 0).collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.weight()));
    groups
}

/// The agent's book by the control group of those who opened it.
fn ledger(registry: &Registry) -> BTreeMap<String, Group> {
    let contexts = registry.contexts();
    let names: BTreeMap<u64, &str> = contexts
        .iter()
        .filter_map(|context| Some((context.number.get(), context.stats.program.cgroup.as_deref()?)))
        .collect();
    let mut groups = BTreeMap::<String, Group>::new();
    for pages in registry.all_pages() {
        let name = names.get(&pages.stats.context.get()).copied().unwrap_or(UNKNOWN);
        let group = groups.entry(name.to_owned()).or_default();
        group.ioasd = ByteLen::new(group.ioasd.get().saturating_add(pages.stats.pinned.get().get()));
    }
    groups
}

/// What all processes hold, by whether it is this agent.
#[must_use]
pub fn held(memory: &HostMemory, via: Via) -> Held {
    let ours = memory.processes.iter().filter(|process| Via::of(process.pid) == via);
    ours.fold(Held::default(), |sum, process| sum.and(process.held))
}

/// The Prometheus text of `reading`.
#[must_use]
pub fn scrape(reading: &Reading, registry: &Registry) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe();
        record(&reading.memory);
        record_groups(&groups(&reading.memory, registry));
    });
    recorder.handle().render()
}

fn describe() {
    for metric in HOST_CATALOGUE {
        match metric.kind {
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Histogram => {}
        }
    }
}

fn record(memory: &HostMemory) {
    for via in [Via::Ioasd, Via::Other] {
        let (held, label) = (held(memory, via), || vec![Label::new("via", via.name())]);
        set(catalogue::HOST_PINNED, label(), held.pinned.get());
        set(catalogue::HOST_LOCKED, label(), held.locked.get());
    }
    for (metric, bytes) in
        [(catalogue::HOST_UNEVICTABLE, memory.unevictable), (catalogue::HOST_MLOCKED, memory.mlocked)]
    {
        bytes.into_iter().for_each(|bytes| set(metric, vec![], bytes.get()));
    }
    if let Some(pins) = memory.pins {
        counter!(catalogue::HOST_PINS_ACQUIRED.name).absolute(pins.acquired);
        counter!(catalogue::HOST_PINS_RELEASED.name).absolute(pins.released);
    }
    let unread = memory.coverage.unread.saturating_add(memory.coverage.unreadable);
    set(catalogue::HOST_UNREAD, vec![], u64::try_from(unread).unwrap_or(u64::MAX));
}

fn record_groups(groups: &[(String, Group)]) {
    let (shown, folded) = groups.split_at(groups.len().min(GROUP_SERIES));
    for (name, group) in shown {
        record_group(name, group);
    }
    let rest = folded.iter().fold(Group::default(), |sum, (_, group)| sum.and(group));
    record_group(FOLDED, &rest);
}

fn record_group(name: &str, group: &Group) {
    let labels = |via: Via| vec![Label::new("cgroup", name.to_owned()), Label::new("via", via.name())];
    set(catalogue::HOST_CGROUP_PINNED, labels(Via::Ioasd), group.ioasd.get());
    set(catalogue::HOST_CGROUP_PINNED, labels(Via::Other), group.other.pinned.get());
    let label = || vec![Label::new("cgroup", name.to_owned())];
    set(catalogue::HOST_CGROUP_LOCKED, label(), group.other.locked.get());
    set(catalogue::HOST_CGROUP_UNEVICTABLE, label(), group.unevictable.get());
}

fn set(metric: Metric, labels: Vec<Label>, value: u64) {
    gauge!(metric.name, labels).set(value as f64);
}

#[cfg(test)]
mod tests {
    use rustix::process::Uid;

    use super::*;
    use crate::actors::figures::{ContextStats, examples};
    use crate::sys::host::{HostCgroup, HostProcess, PinCounters};
    use crate::sys::opener::Program;

    fn process(pid: Pid, cgroup: Option<&str>, pinned: u64, locked: u64) -> HostProcess {
        HostProcess {
            pid,
            uid: Uid::ROOT,
            comm: "x".to_owned(),
            cgroup: cgroup.map(str::to_owned),
            held: Held { pinned: ByteLen::new(pinned), locked: ByteLen::new(locked) },
        }
    }

    fn memory() -> HostMemory {
        HostMemory {
            unevictable: Some(ByteLen::new(500)),
            pins: Some(PinCounters { acquired: 9, released: 4 }),
            processes: vec![
                process(Pid::INIT, Some("/a"), 300, 20),
                process(getpid(), Some("/agent"), 7000, 0),
                process(Pid::from_raw(3).unwrap(), None, 0, 11),
            ],
            cgroups: vec![HostCgroup { path: "/a".to_owned(), unevictable: ByteLen::new(400) }],
            ..HostMemory::default()
        }
    }

    /// A registry whose first context was opened from `/a` and has 4096 bytes pinned.
    fn registry_of_a() -> (Arc<Registry>, impl Sized) {
        let registry = Registry::new();
        let program = Program { cgroup: Some("/a".to_owned()), ..Program::default() };
        let context = registry.register_context(ContextStats::new(Uid::ROOT, None).by(program));
        let pages = registry.register_pages(examples::pages(4096, 0));
        pages.pinned.set(ByteLen::new(4096));
        (registry, (context, pages))
    }

    #[test]
    fn both_books_lie_side_by_side_and_are_not_added_up() {
        let (registry, _guards) = registry_of_a();
        let groups = groups(&memory(), &registry);
        let names: Vec<_> = groups.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["/a", UNKNOWN], "the agent's own group holds nothing of its own");
        let a = groups[0].1;
        assert_eq!((a.ioasd.get(), a.unevictable.get()), (4096, 400));
        assert_eq!((a.other.pinned.get(), a.other.locked.get()), (300, 20));
        assert_eq!((held(&memory(), Via::Ioasd).sum(), held(&memory(), Via::Other).sum()), (7000, 331));
    }

    #[test]
    fn every_host_metric_is_shown_and_no_other() {
        let (registry, _guards) = registry_of_a();
        let memory = HostMemory { mlocked: Some(ByteLen::new(5)), ..memory() };
        let text = scrape(&Reading { memory, taken: SystemTime::now() }, &registry);
        for metric in HOST_CATALOGUE {
            let line = format!("# TYPE {} {}", metric.name, metric.kind.name());
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
        assert_eq!(text.matches("# TYPE ").count(), HOST_CATALOGUE.len(), "{text}");
        assert!(text.contains("ioasd_host_cgroup_pinned_bytes{cgroup=\"/a\",via=\"ioasd\"} 4096"), "{text}");
        assert!(text.contains("ioasd_host_pins_acquired_total 9"), "{text}");
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_a_gap_and_not_a_zero() {
        let text =
            scrape(&Reading { memory: HostMemory::default(), taken: SystemTime::now() }, &Registry::new());
        assert!(!text.contains("ioasd_host_pins_acquired_total") && !text.contains("mlocked"), "{text}");
    }

    #[test]
    fn small_groups_are_folded_into_one_series() {
        let cgroups =
            (1..=30).map(|size| HostCgroup { path: format!("/{size}"), unevictable: ByteLen::new(size) });
        let memory = HostMemory { cgroups: cgroups.collect(), ..HostMemory::default() };
        let text = scrape(&Reading { memory, taken: SystemTime::now() }, &Registry::new());
        assert_eq!(text.matches("ioasd_host_cgroup_unevictable_bytes{").count(), GROUP_SERIES + 1, "{text}");
        assert!(text.contains("{cgroup=\"/11\"} 11") && !text.contains("{cgroup=\"/10\"}"), "{text}");
        assert!(text.contains("{cgroup=\"(others)\"} 10"), "{text}");
    }

    #[test]
    fn a_reading_is_shown_again_for_a_while() {
        let view = HostView::default();
        let (one, other) = (view.read().unwrap(), view.read().unwrap());
        assert!(Arc::ptr_eq(&one, &other));
    }
}
