//! The fault points of the passive leaves: whichever of them fires, the structure is as it was before.
//!
//! A binary of its own, because the armed point is one per process.
#![expect(clippy::unwrap_used, reason = "a test")]

use ioasd::error::{Coded, Errno};
use ioasd::fault_points::{Armed, Point};
use ioasd::storage::counts::{Charged, Delta};
use ioasd::storage::frame_window::{FileKey, FrameLimit, FrameSpace};
use ioasd::storage::ledger::bill::{Bill, ProcessAccount};
use ioasd::storage::ledger::holder::TenantName;
use ioasd::storage::ledger::{AccountMode, Ledger, PageLimit};
use ioasd::storage::pfn::{PfnBatch, RunLimit};
use ioasd::storage::pinned_pfns::PinnedPfns;
use ioasd::storage::source::Strength;
use ioasd_client::units::{IndexRange, PageIndex, Pfn};
use parking_lot::Mutex;

/// One test at a time: each asks points outside of its own armed part.
static ALONE: Mutex<()> = Mutex::new(());

fn batch(first: u64, runs: &[(u64, u64)]) -> PfnBatch {
    let mut batch = PfnBatch::new(PageIndex::new(first), RunLimit::DEFAULT).unwrap();
    for (pfn, pages) in runs {
        assert_eq!(batch.push(Pfn::new(*pfn), *pages), *pages);
    }
    batch
}

fn frames(cache: &PinnedPfns) -> Vec<Option<Pfn>> {
    (0..4096).map(|index| cache.get(PageIndex::new(index))).collect()
}

/// New chunks, a run that turns into an array and an array that turns wide, at every one of which the store may fail.
#[test]
fn a_failed_store_leaves_nothing_of_its_batch_in_the_cache() {
    let _alone = ALONE.lock();
    let mut before = PinnedPfns::new();
    before.store(&batch(600, &[(70, 10)])).unwrap();
    before.store(&batch(2500, &[(5, 1), (9, 1)])).unwrap();
    let again = batch(600, &[(70, 10), (1 << 20, 490), (1 << 40, 1400)]);
    let mut failures = 0;
    for n in 0.. {
        let mut cache = before.clone();
        let armed = Armed::nth(n);
        let stored = cache.store(&again);
        let fired = armed.disarm();
        cache.check();
        let Err(error) = stored else { break };
        failures += 1;
        assert_eq!((fired, error.errno()), (Some(Point::CacheAlloc), Errno::NOMEM));
        assert_eq!((frames(&cache), cache.bytes()), (frames(&before), before.bytes()));
    }
    assert_eq!(failures, 4, "one for each chunk that is new or changes its form");
}

#[test]
fn an_erasure_asks_no_fault_point() {
    let _alone = ALONE.lock();
    let mut cache = PinnedPfns::new();
    cache.store(&batch(0, &[(70, 2000)])).unwrap();
    let armed = Armed::nth(0);
    cache.erase(IndexRange::from_length(PageIndex::new(5), 3).unwrap());
    assert_eq!(armed.disarm(), None);
    assert_eq!(cache.pages(), 1997);
    cache.check();
}

#[test]
fn only_a_charge_that_may_be_refused_asks_its_point() {
    let _alone = ALONE.lock();
    let ledger = Ledger::new();
    let account = ledger.account(&TenantName::Unknown, 1, 1);
    let bill = Bill::new(account.clone(), ProcessAccount::new(), AccountMode::User);
    let limit = Some(PageLimit(10));
    let armed = Armed::nth(0);
    let refused = bill.charge(Delta::more(5), Strength::Locked, limit).unwrap_err();
    assert_eq!((armed.disarm(), refused.errno()), (Some(Point::Charge), Errno::NOMEM));
    assert_eq!((account.charged(), account.limited()), (Charged::new(0), Charged::new(0)));
    let armed = Armed::nth(0);
    bill.pay_too(&bill, (5, Strength::Locked), limit).unwrap();
    bill.let_go(&bill, (5, Strength::Locked));
    bill.charge(Delta::fewer(0), Strength::Locked, limit).unwrap();
    bill.charge(Delta::None, Strength::Locked, limit).unwrap();
    assert_eq!(armed.disarm(), None);
    ledger.check();
}

#[test]
fn a_window_that_could_not_be_assigned_is_still_free() {
    let _alone = ALONE.lock();
    let file = FileKey { dev: 1, inode: 2 };
    let mut space = FrameSpace::new(FrameLimit { output_lg2: 31 });
    space.retain(file);
    let armed = Armed::nth(0);
    let refused = space.run(file, PageIndex::new(0), 1).unwrap_err();
    assert_eq!((armed.disarm(), refused.errno()), (Some(Point::FrameWindow), Errno::NOMEM));
    space.check();
    assert_eq!(space.windows(), []);
    assert!(space.run(file, PageIndex::new(0), 1).is_ok());
}
