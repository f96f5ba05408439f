//! `rewriting`: where IOVAs lead while the agent's side unmaps and maps in the very tables that are walked.
//!
//! A map of four times `--size` in leaves of 4 KiB. The upper half of every leaf table is taken away and written again, over
//! and over, with a grace period in between, as an unmap has it; addresses are looked up in the lower halves. A round times
//! both with and without that, in processor time of the one thread that looks up. What is stored meanwhile is timed by the
//! wall: it is done on another CPU, if there is one.
//!
//! Imports allowed: cpus, report, sample, translate, domains, the client crate.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE};
use rustix::thread::CpuSet;

use super::cpus::{OneCpu, keep_to};
use super::report::{Row, Unit};
use super::sample::{Samples, timed_by_the_wall};
use super::scenario::Scenario;
use super::translate::ours::{Walked, leaf_at, table_of};
use super::translate::{Layout, Order, START, translate};
use super::{BenchError, Plan};
use crate::domains::map::MapRun;
use crate::domains::table::{Budget, DomainTable};
use crate::storage::io_pagetable::LargePages;

/// What the leaf table covers, and the part of it that is written again and again.
const REGION: u64 = 2 << 20;
const REWRITTEN: u64 = REGION / 2;

/// Regions taken away before a grace period.
const AT_A_TIME: usize = 64;

/// The writer, for as long as a round takes.
struct Writer<'t> {
    table: &'t mut dyn DomainTable,
    layout: Layout,
    stored: &'t AtomicU64,
    stop: &'t AtomicBool,
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    let one = OneCpu::enter()?;
    let others = one.others();
    let layout = Layout { length: plan.size.get() * 4, leaf: PAGE_SIZE };
    let mut table = table_of(layout)?;
    let mut walked = Walked::new(&*table, layout, "walker", |stream| stream)?;
    let offsets: Vec<u64> =
        Order::Random.offsets(layout.length).iter().map(|offset| offset & !REWRITTEN).collect();
    let [mut idle, mut meanwhile, mut stores] = <[Samples; 3]>::default();
    for _ in 0..plan.rounds {
        translate(&mut walked, layout, &offsets, &mut idle)?;
        let (time, stored) = while_rewritten(&mut *table, layout, others, || {
            translate(&mut walked, layout, &offsets, &mut meanwhile)
        })?;
        stores.add(time, stored);
    }
    let row = |case: &str, samples, floor| {
        Row::beside(Scenario::Rewriting, format!("{layout},{case}"), Unit::PerLookUp, samples, floor)
    };
    let stored = Row { unit: Unit::PerEntry, ..row("op=store", &stores, None) };
    let beside = idle.quantile(50);
    Ok(vec![row("tables=idle", &idle, None), row("tables=rewritten", &meanwhile, Some(beside)), stored])
}

/// Does `work` while a thread rewrites `table`; tells how long that took, and how many entries were stored meanwhile.
fn while_rewritten(
    table: &mut dyn DomainTable,
    layout: Layout,
    others: CpuSet,
    work: impl FnOnce() -> Result<(), BenchError>,
) -> Result<(Duration, u64), BenchError> {
    let (stored, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut writer = Writer { table, layout, stored: &stored, stop: &stop };
    thread::scope(|scope| {
        let rewriting = scope.spawn(move || keep_to(&others).and_then(|()| writer.run()));
        while stored.load(Ordering::Relaxed) == 0 && !rewriting.is_finished() {
            thread::yield_now();
        }
        let before = stored.load(Ordering::Relaxed);
        let (time, worked) = timed_by_the_wall(work);
        let meanwhile = stored.load(Ordering::Relaxed) - before;
        stop.store(true, Ordering::Relaxed);
        rewriting.join().map_err(|_| BenchError::Lost)??;
        worked.map(|()| (time, meanwhile))
    })
}

impl Writer<'_> {
    fn run(&mut self) -> Result<(), BenchError> {
        let regions: Vec<u64> = (0..self.layout.length / REGION).map(|number| number * REGION).collect();
        while !self.stop.load(Ordering::Relaxed) {
            for some in regions.chunks(AT_A_TIME) {
                self.rewrite(some)?;
            }
        }
        Ok(())
    }

    fn rewrite(&mut self, regions: &[u64]) -> Result<(), BenchError> {
        let runs: Vec<MapRun> = regions.iter().map(|region| self.upper_half(*region)).collect();
        for run in &runs {
            let range = IovaRange::from_length(run.iova, run.length).ok_or(BenchError::Lost)?;
            self.table.unmap(range, &mut Budget::unlimited()).map_err(|_| BenchError::Lost)?;
        }
        let epochs = self.table.epochs();
        let begun = epochs.advance();
        while !epochs.all_left(begun) {
            spin_loop();
        }
        for run in &runs {
            self.table.map(run, &mut Budget::unlimited()).map_err(|_| BenchError::Lost)?;
        }
        let entries = regions.len() as u64 * (REWRITTEN / PAGE_SIZE);
        self.stored.fetch_add(2 * entries, Ordering::Relaxed);
        Ok(())
    }

    /// The upper half of a region, in one run.
    fn upper_half(&self, region: u64) -> MapRun {
        let first = leaf_at(self.layout, region + REWRITTEN, LargePages::Off);
        MapRun {
            length: ByteLen::new(REWRITTEN),
            phys: first.phys,
            iova: Iova::new(START + region + REWRITTEN),
            ..first
        }
    }
}
