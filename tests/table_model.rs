//! A table against a map of pages: random runs, budgets and addresses, every byte checked after every step.
//! Every other seed has a walker registered.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use ioasd::domains::arena::ArenaSize;
use ioasd::domains::table::{Budget, DomainTable, Table};
use ioasd_client::formats::AmdV1;
use ioasd_client::layout::BootId;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission, Pfn};

const STEPS: u32 = 4000;
const SEEDS: u64 = 4;

/// Pages in windows around the borders of leaf tables and of the tables above.
const WINDOWS: [u64; 5] = [0, 512 - 40, 512 * 512 - 40, 512 * 512 * 512 - 40, (1 << 36) - 80];
const WINDOW_PAGES: u64 = 80;

struct Model {
    table: Table<AmdV1<4>>,
    pages: BTreeMap<u64, (u64, Permission)>,
    rng: fastrand::Rng,
    walked: Walked,
}

/// Whether a walker is registered, so that tables wait before they are reused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walked {
    Yes,
    No,
}

impl Model {
    fn new(seed: u64) -> Self {
        let table = Table::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([1; 16])).unwrap();
        let walked = if seed.is_multiple_of(2) { Walked::No } else { Walked::Yes };
        if walked == Walked::Yes {
            table.epochs().register_walker().unwrap();
        }
        Self { table, pages: BTreeMap::new(), rng: fastrand::Rng::with_seed(seed), walked }
    }

    fn some_run(&mut self) -> (u64, u64) {
        let window = *self.rng.choice(&WINDOWS).unwrap();
        let first = self.rng.u64(0..WINDOW_PAGES);
        (window + first, self.rng.u64(1..=WINDOW_PAGES - first))
    }

    fn map(&mut self) {
        let (page, pages) = self.some_run();
        let pfn = self.rng.u64(0..1 << 40);
        let permission =
            *self.rng.choice(&[Permission::Read, Permission::Write, Permission::ReadWrite]).unwrap();
        let mut budget = Budget::new(self.rng.u64(1..WINDOW_PAGES));
        let wanted = pages.min(budget.left());
        let length = ByteLen::new(pages * PAGE_SIZE);
        let done = self.table.map(iova(page), Pfn::new(pfn).phys(), length, permission, &mut budget);
        if self.pages.range(page..page + wanted).next().is_some() {
            assert!(done.is_err(), "an overlap at page {page} was not noticed");
            return;
        }
        assert_eq!(done, Ok(ByteLen::new(wanted * PAGE_SIZE)));
        self.pages.extend((0..wanted).map(|k| (page + k, (pfn + k, permission))));
    }

    fn unmap(&mut self) {
        let (page, pages) = self.some_run();
        let mut budget = Budget::new(self.rng.u64(1..WINDOW_PAGES));
        let range = IovaRange::from_length(iova(page), ByteLen::new(pages * PAGE_SIZE)).unwrap();
        let before = self.pages.len();
        let (done, complete) = match self.table.unmap(range, &mut budget) {
            Ok(done) => (done, true),
            Err(ioasd::domains::error::UnmapError::NotMapped { done, .. }) => (done, false),
            Err(error) => panic!("{error}"),
        };
        let done = done.get() / PAGE_SIZE;
        self.pages.retain(|at, _| *at < page || *at >= page + done);
        assert_eq!(complete, (before - self.pages.len()) as u64 == done);
        if self.walked == Walked::Yes {
            self.table.epochs().advance();
        }
    }

    fn check(&mut self) {
        self.table.check();
        assert_eq!(self.table.mapped(), ByteLen::new(self.pages.len() as u64 * PAGE_SIZE));
        for _ in 0..20 {
            let (page, _) = self.some_run();
            let found = self.table.translate(iova(page));
            let expected =
                self.pages.get(&page).map(|(pfn, permission)| (Pfn::new(*pfn).phys(), *permission));
            assert_eq!(found.map(|(phys, _, permission)| (phys, permission)), expected, "page {page:#x}");
        }
    }
}

fn iova(page: u64) -> Iova {
    Iova::new(page * PAGE_SIZE)
}

#[test]
fn a_table_translates_what_was_mapped_and_nothing_else() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut model = Model::new(seed);
        for _ in 0..STEPS {
            if model.rng.u8(0..5) < 3 {
                model.map();
            } else {
                model.unmap();
            }
            model.check();
        }
    }
}
