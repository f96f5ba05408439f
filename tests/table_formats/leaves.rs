//! How a run is cut into leaves, the slow and obvious way.

use ioasd::domains::spec::TableSpec;
use ioasd::storage::io_pagetable::LargePages;
use ioasd_client::units::PAGE_SIZE;

use crate::fixture::Run;

/// One leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// First address.
    pub iova: u64,
    /// First output address.
    pub phys: u64,
    /// Bytes.
    pub size: u64,
    /// Entries it fills.
    pub entries: u64,
}

/// The leaves of a run: each the largest that divides both addresses and fits into what is left.
pub fn leaves(spec: TableSpec, run: Run) -> Vec<Leaf> {
    let (mut leaves, mut done) = (Vec::new(), 0);
    while done < run.length {
        let (iova, phys) = (run.iova + done, run.phys + done);
        let fits = |size: u64| {
            let allowed = run.large_pages == LargePages::On || size <= PAGE_SIZE;
            allowed && iova % size == 0 && phys % size == 0 && size <= run.length - done
        };
        let size = (0..63)
            .rev()
            .filter(|lg2| spec.page_sizes().contains(*lg2))
            .map(|lg2| 1 << lg2)
            .find(|size| fits(*size));
        let size = size.unwrap();
        leaves.push(Leaf { iova, phys, size, entries: entries(spec, size) });
        done += size;
    }
    leaves
}

/// How many entries a leaf fills: its size over the largest power of 512 granules that is not larger.
fn entries(spec: TableSpec, size: u64) -> u64 {
    let granule = spec.geometry().granule();
    let items = (0..6).map(|level| granule << (9 * level));
    size / items.take_while(|item| *item <= size).last().unwrap()
}
