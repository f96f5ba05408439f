//! Distinct bytes: each page of a file counted once, however many pages objects have it pinned.
//!
//! Every page counts for one holder: the strongest of what pins it, and the account if there is but one. So the parts add
//! up to the total. A file that one pages object is over costs one addition; the runs of the others are sorted and swept,
//! up to [`RUNS_MAX`] of them in one scrape. What is beyond is counted as if nothing were shared, and shown as unmerged.
//!
//! Imports allowed: units, `storage::{frame_window, source}`, figures.

use std::collections::BTreeMap;

use ioasd_client::units::PAGE_SIZE;

use super::books::Account;
use crate::actors::figures::PagesStats;
use crate::storage::frame_window::FileKey;
use crate::storage::source::Strength;

/// Runs that one scrape sweeps at most: some 20 ms of work.
const RUNS_MAX: usize = 200_000;

/// One holder of pages of a file.
type Holder = (Strength, Account);

/// Distinct bytes by who holds them.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    /// Bytes by account and strength.
    pub(super) bytes: BTreeMap<(Account, Strength), u64>,
    /// Bytes that were not compared with others.
    pub(super) unmerged: u64,
}

impl Distinct {
    /// Of `pages`: each with its account and the bytes it has pinned.
    pub(super) fn of<'a>(pages: impl Iterator<Item = (&'a PagesStats, Account, u64)>) -> Self {
        let (mut distinct, mut files) = (Self::default(), BTreeMap::<FileKey, Vec<_>>::new());
        for (stats, account, pinned) in pages.filter(|(.., pinned)| *pinned > 0) {
            match &stats.places {
                Some(places) => files.entry(places.file()).or_default().push((stats, account, pinned)),
                None => distinct.add((stats.strength, account), pinned),
            }
        }
        let mut room = RUNS_MAX;
        for over in files.values() {
            distinct.add_file(over, &mut room);
        }
        distinct
    }

    fn add(&mut self, (strength, account): Holder, bytes: u64) {
        *self.bytes.entry((account, strength)).or_default() += bytes;
    }

    /// What the pages objects over one file have pinned.
    fn add_file(&mut self, over: &[(&PagesStats, Account, u64)], room: &mut usize) {
        if let [(stats, account, pinned)] = over {
            return self.add((stats.strength, *account), *pinned);
        }
        let mut edges = Vec::new();
        for (stats, account, pinned) in over {
            let Some(places) = &stats.places else { continue };
            let holder = (stats.strength, *account);
            let merged = places.look(|pages| {
                let fits = pages.len() <= *room;
                *room -= if fits { pages.len() } else { 0 };
                let runs = pages.iter().filter(|_| fits).map(|run| (run.first().get(), run.last().get()));
                edges.extend(runs.flat_map(|(first, last)| [(first, holder, 1), (last + 1, holder, -1)]));
                fits
            });
            if !merged {
                self.add(holder, *pinned);
                self.unmerged += *pinned;
            }
        }
        self.sweep(edges);
    }

    /// Goes over the edges of all runs of a file: where each begins, and where it is over.
    fn sweep(&mut self, mut edges: Vec<(u64, Holder, i64)>) {
        edges.sort_unstable();
        let (mut holders, mut from) = (BTreeMap::<Holder, i64>::new(), 0);
        for (at, holder, change) in edges {
            if let Some(holder) = counted_for(&holders).filter(|_| at > from) {
                self.add(holder, (at - from).saturating_mul(PAGE_SIZE));
            }
            from = at;
            let count = holders.entry(holder).or_default();
            *count += change;
            if *count == 0 {
                holders.remove(&holder);
            }
        }
    }
}

/// The one holder for whom a page counts that all of these hold.
fn counted_for(holders: &BTreeMap<Holder, i64>) -> Option<Holder> {
    let ((strongest, account), _) = holders.first_key_value()?;
    let alone = holders.keys().all(|(_, other)| other == account);
    Some((*strongest, if alone { *account } else { Account::Shared }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGTERM: Strength = Strength::Longterm;
    const RESIDENT: Strength = Strength::Resident;

    fn swept(runs: &[(u64, u64, Holder)]) -> Vec<(Account, Strength, u64)> {
        let mut distinct = Distinct::default();
        distinct.sweep(
            runs.iter()
                .flat_map(|(first, end, holder)| [(*first, *holder, 1), (*end, *holder, -1)])
                .collect(),
        );
        let parts = distinct.bytes.into_iter();
        parts.map(|((account, strength), bytes)| (account, strength, bytes / PAGE_SIZE)).collect()
    }

    #[test]
    fn a_page_counts_once_for_the_strongest_and_for_one_account_or_for_all() {
        let [one, other] = [1, 2].map(Account::User);
        assert_eq!(swept(&[(0, 10, (RESIDENT, one)), (5, 20, (RESIDENT, one))]), [(one, RESIDENT, 20)]);
        assert_eq!(
            swept(&[(0, 10, (RESIDENT, one)), (8, 12, (LONGTERM, one))]),
            [(one, LONGTERM, 4), (one, RESIDENT, 8)]
        );
        assert_eq!(
            swept(&[(0, 10, (RESIDENT, one)), (8, 12, (LONGTERM, other))]),
            [(one, RESIDENT, 8), (other, LONGTERM, 2), (Account::Shared, LONGTERM, 2)]
        );
        assert_eq!(swept(&[(3, 4, (RESIDENT, one)); 5]), [(one, RESIDENT, 1)]);
    }

    #[test]
    fn random_runs_count_every_page_that_somebody_holds_once() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut held = [false; 100];
            let runs: Vec<_> = (0..rng.usize(..12))
                .map(|_| {
                    let first = rng.usize(..90);
                    let end = first + rng.usize(1..=10);
                    held[first..end].fill(true);
                    let holder = (Strength::ALL[rng.usize(..3)], Account::User(rng.u32(..3)));
                    (first as u64, end as u64, holder)
                })
                .collect();
            let counted: u64 = swept(&runs).into_iter().map(|(.., pages)| pages).sum();
            assert_eq!(counted, held.iter().filter(|held| **held).count() as u64, "seed {seed}: {runs:?}");
        }
    }
}
