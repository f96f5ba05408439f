//! Every leaf size of every format, at its borders.

use ioasd::domains::error::UnmapError;
use ioasd::domains::spec::TableSpec;
use ioasd::domains::table::Budget;
use ioasd::storage::io_pagetable::LargePages;
use ioasd_client::formats::FormatId;
use ioasd_client::units::Permission;

use crate::fixture::{Run, Setup, granted, range};
use crate::leaves::leaves;

/// Each format with each of its sizes.
fn all_sizes() -> impl Iterator<Item = (TableSpec, u64)> {
    FormatId::ALL.into_iter().map(TableSpec::of).flat_map(|spec| {
        let sizes = (0..63).filter(move |lg2| spec.page_sizes().contains(*lg2));
        sizes.map(move |lg2| (spec, 1 << lg2))
    })
}

fn run(iova: u64, phys: u64, length: u64) -> Run {
    Run { iova, phys, length, permission: Permission::ReadWrite, large_pages: LargePages::On }
}

/// Maps a run and reads it back leaf by leaf, with both walkers, at the first, a middle and the last byte of each.
fn check_run(spec: TableSpec, run: Run) -> Setup {
    let mut setup = Setup::new(spec);
    assert_eq!(setup.map(run, &mut Budget::unlimited()), Ok(run.length), "{spec:?} {run:x?}");
    for leaf in leaves(spec, run) {
        for into in [0, leaf.size / 2, leaf.size - 1] {
            let found = setup.translate(leaf.iova + into);
            let expected = (leaf.phys + into, leaf.size, granted(spec.format(), run.permission));
            assert_eq!(found, Some(expected), "{spec:?} {run:x?} {leaf:x?}");
        }
    }
    let before = run.iova.checked_sub(1).and_then(|iova| setup.translate(iova));
    assert_eq!((before, setup.translate(run.iova + run.length)), (None, None), "{spec:?} {run:x?}");
    setup
}

#[test]
fn a_leaf_of_each_size_is_one_leaf_and_goes_as_one() {
    for (spec, size) in all_sizes() {
        for permission in [Permission::Read, Permission::Write, Permission::ReadWrite] {
            let run = Run { permission, ..run(size, 3 * size, size) };
            let mut setup = check_run(spec, run);
            let inside = setup.table.unmap(range(size + size / 2, size / 2), &mut Budget::unlimited());
            let granule = spec.alignment();
            match inside {
                Err(UnmapError::InsideLeaf { leaf, .. }) => assert_eq!(leaf, range(size, size)),
                Err(UnmapError::Shape { .. }) => assert!(size <= granule),
                other => panic!("{spec:?} {size:#x}: {other:?}"),
            }
            let gone = setup.table.unmap(range(size, granule), &mut Budget::new(1)).unwrap();
            setup.table.check();
            assert_eq!((gone.get(), setup.table.mapped().get()), (size, 0), "{spec:?} {size:#x}");
            assert_eq!(setup.translate(size), None);
        }
    }
}

#[test]
fn a_granule_more_or_less_or_aside_makes_smaller_leaves_around() {
    for (spec, size) in all_sizes().filter(|(spec, size)| *size > spec.alignment() && *size <= 1 << 30) {
        let granule = spec.alignment();
        let is_cheap = leaves_of_smaller(spec, size) < 100_000;
        check_run(spec, run(size, size, size + granule));
        check_run(spec, run(size - granule, 3 * size - granule, size + 2 * granule));
        if is_cheap {
            check_run(spec, run(size, size, size - granule));
            check_run(spec, run(size + granule, size + granule, size));
            check_run(spec, run(size, size + granule, size));
        }
    }
}

/// How many of the smallest leaves a leaf stands for.
fn leaves_of_smaller(spec: TableSpec, size: u64) -> u64 {
    size / spec.alignment()
}

#[test]
fn the_first_and_the_last_page_of_the_aperture_can_be_mapped_and_nothing_beyond() {
    for spec in FormatId::ALL.map(TableSpec::of) {
        let (granule, end) = (spec.alignment(), spec.aperture().last().get() + 1);
        let last_phys = (1 << spec.geometry().output_lg2) - granule;
        let mut setup = Setup::new(spec);
        for (iova, phys) in [(0, 0), (end - granule, last_phys)] {
            assert_eq!(setup.map(run(iova, phys, granule), &mut Budget::unlimited()), Ok(granule));
            assert_eq!(setup.translate(iova).map(|(found, ..)| found), Some(phys), "{spec:?}");
        }
        assert!(setup.map(run(end, 0, granule), &mut Budget::unlimited()).is_err());
        assert!(setup.map(run(granule, last_phys + granule, granule), &mut Budget::unlimited()).is_err());
        assert!(setup.map(run(granule, last_phys, 2 * granule), &mut Budget::unlimited()).is_err());
        assert_eq!(setup.table.mapped().get(), 2 * granule);
    }
}
