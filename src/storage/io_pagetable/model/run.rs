//! Random operations on a table and on the model, which must agree on everything.

use std::collections::BTreeMap;

use fastrand::Rng;
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE, Permission};

use super::super::fixture::range;
use super::super::*;
use super::bytes::{HALF, Life, No, Plot, Slice, Space, Step};
use crate::error::{Coded, Errno};
use crate::storage::iova_allocator::OriginAddr;

const SEEDS: u64 = 100;
const STEPS: usize = 400;

struct Pair {
    rng: Rng,
    table: IoPageTable<u32>,
    space: Space,
    ids: BTreeMap<u64, AreaId>,
    open: Vec<(Reservation, Vec<u64>)>,
    /// The tag of each access taken, and who took it.
    held: Vec<(u64, Holder)>,
}

fn errno(no: No) -> Errno {
    match no {
        No::Inval => Errno::INVAL,
        No::Overflow => Errno::OVERFLOW,
        No::Exist => Errno::EXIST,
        No::Perm => Errno::PERM,
        No::Nospc => Errno::NOSPC,
        No::Addrinuse => Errno::ADDRINUSE,
        No::Noent => Errno::NOENT,
        No::Busy => Errno::BUSY,
    }
}

/// Both failed with the same errno, or both succeeded.
fn both<T, U, E: Coded>(ours: Result<T, E>, model: Result<U, No>) -> Option<(T, U)> {
    match (ours, model) {
        (Ok(ours), Ok(model)) => Some((ours, model)),
        (ours, model) => {
            let message = ours.as_ref().err().map_or_else(String::new, ToString::to_string);
            assert_eq!(ours.err().map(|error| error.errno()), model.err().map(errno), "{message}");
            None
        }
    }
}

fn owner(number: u32) -> Owner {
    match number {
        0..4 => Owner::Domain(u64::from(number)),
        4..8 => Owner::Access(u64::from(number)),
        8..12 => Owner::Device(u64::from(number)),
        _ => Owner::Command,
    }
}

fn transfer(write: bool) -> Transfer {
    if write { Transfer::Write } else { Transfer::Read }
}

fn writable(yes: bool) -> Writable {
    if yes { Writable::Yes } else { Writable::No }
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut table = IoPageTable::new();
        table.add_reserved(Owner::Device(u64::MAX), range(HALF, u64::MAX - HALF)).unwrap();
        let (ids, open, held) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { rng: Rng::with_seed(seed), table, space: Space::new(), ids, open, held }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.u32(0..one_in) == 0
    }

    /// A multiple of 0x400 below `limit`, rarely of one byte.
    fn round(&mut self, limit: u64) -> u64 {
        let unit = if self.chance(10) { 1 } else { [0x400, 0x800, 0x1000, 0x1000][self.rng.usize(0..4)] };
        self.rng.u64(0..limit) / unit * unit
    }

    fn address(&mut self) -> u64 {
        let low = self.round(HALF);
        match self.rng.u32(0..12) {
            0 => u64::MAX - low,
            1..5 => u64::MAX - HALF + 1 + low,
            _ => low,
        }
    }

    fn length(&mut self) -> u64 {
        match self.rng.u32(0..30) {
            0 => self.rng.u64(0..3),
            1 => u64::MAX - self.round(0x1_0000),
            2 => u64::MAX / 2 - 1 + self.rng.u64(0..2),
            _ => self.round(0x4000),
        }
    }

    fn ends(&mut self) -> (u64, u64) {
        let (one, two) = (self.address(), self.address());
        let near = one.saturating_add(self.round(0x4000).saturating_sub(1));
        let last = if self.chance(4) { two } else { near };
        (one.min(last), one.max(last))
    }

    /// All or the end of a plot, with luck of one that is pinned to page boundaries.
    fn ends_of_plot(&mut self) -> (u64, u64) {
        if self.space.plots.is_empty() || self.chance(3) {
            return self.ends();
        }
        let at = self.rng.usize(0..self.space.plots.len());
        let Plot { start, last, offset, .. } = self.space.plots[at];
        let boundary = start.saturating_add(PAGE_SIZE - offset % PAGE_SIZE).min(last);
        (if self.rng.bool() { start } else { boundary }, last)
    }

    fn slices(&mut self) -> Vec<Slice> {
        let count = if self.chance(4) { self.rng.usize(1..4) } else { 1 };
        let slice = |pair: &mut Self| Slice {
            pages: pair.rng.u32(0..100),
            offset: pair.round(0x4000),
            length: if count == 1 { pair.length() } else { 1 + pair.round(0x2000) },
            pages_writable: !pair.chance(5),
        };
        (0..count).map(|_| slice(self)).collect()
    }

    fn place(&mut self, slices: &[Slice]) {
        let pieces: Vec<_> = slices
            .iter()
            .map(|slice| Piece {
                pages: slice.pages,
                offset: ByteLen::new(slice.offset),
                length: ByteLen::new(slice.length),
                pages_writable: writable(slice.pages_writable),
            })
            .collect();
        let fixed = if self.rng.bool() { Some(self.address()) } else { None };
        let placement = fixed.map_or(Placement::Any, |iova| Placement::Fixed(Iova::new(iova)));
        let origin = if self.chance(4) { 0 } else { self.round(0x1_0000) };
        let (permission, flags) = match self.rng.u32(0..3) {
            0 => (Permission::Read, (true, false)),
            1 => (Permission::Write, (false, true)),
            _ => (Permission::ReadWrite, (true, true)),
        };
        let ours = self.table.reserve(&pieces, permission, placement, OriginAddr::new(origin));
        let model = self.space.place(slices, flags, fixed, origin);
        let Some((reservation, (tags, start))) = both(ours, model) else {
            return;
        };
        assert_eq!(reservation.iova().start(), Iova::new(start));
        self.ids.extend(tags.iter().copied().zip(reservation.areas().iter().copied()));
        self.open.push((reservation, tags));
    }

    fn copy(&mut self) {
        let (start, last) = self.ends();
        let ours = self.table.copy_pieces(range(start, last));
        let Some((pieces, slices)) = both(ours, self.space.copy(start, last)) else {
            return;
        };
        let pairs = pieces.iter().zip(&slices);
        assert_eq!(pieces.len(), slices.len());
        for (piece, slice) in pairs {
            assert_eq!((piece.pages, piece.offset.get()), (slice.pages, slice.offset));
            assert_eq!(piece.length.get(), slice.length);
            assert_eq!(piece.pages_writable, writable(slice.pages_writable));
        }
        self.place(&slices);
    }

    /// Settles one open reservation.
    fn settle(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (reservation, tags) = self.open.swap_remove(self.rng.usize(0..self.open.len()));
        if self.chance(4) {
            self.table.abort(reservation);
            self.space.plots.retain(|plot| !tags.contains(&plot.tag));
        } else {
            self.table.publish(&reservation);
            tags.iter().for_each(|tag| self.space.plot(*tag).life = Life::Ready);
        }
    }

    fn unmap(&mut self) {
        let (start, last) = if self.chance(12) { (0, u64::MAX) } else { self.ends() };
        let mut cursor = Some(start);
        while let Some(at) = cursor {
            let ours = self.table.unmap_step(range(start, last), Iova::new(at));
            cursor = both(ours, self.space.unmap(at, last)).and_then(|steps| self.act_on(steps));
            self.compare();
        }
    }

    /// Does what a step asks for; gives the cursor of the next one.
    fn act_on(&mut self, steps: (UnmapStep, Step)) -> Option<u64> {
        match steps {
            (UnmapStep::Done, Step::Done) => None,
            (UnmapStep::Accessed { area, iova }, Step::Accessed(tag)) => {
                assert_eq!(area, self.ids[&tag]);
                self.let_go(Some(tag)).then_some(iova.start().get())
            }
            (UnmapStep::Take { area, iova, next }, Step::Take(tag)) => {
                assert_eq!((area, iova.last().get()), (self.ids[&tag], self.space.plot(tag).last));
                self.table.begin_retire(area);
                self.space.plot(tag).life = Life::Retiring;
                next.map(Iova::get)
            }
            (ours, model) => panic!("{ours:?} against {model:?}"),
        }
    }

    fn finish_retiring(&mut self) {
        let retiring = self.space.plots.iter().find(|plot| plot.life == Life::Retiring);
        let Some(tag) = retiring.map(|plot| plot.tag) else {
            return;
        };
        let removed = self.table.remove(self.ids[&tag]).unwrap();
        assert_eq!(removed.iova().start().get(), self.space.plot(tag).start);
        self.space.plots.retain(|plot| plot.tag != tag);
    }

    fn access(&mut self) {
        let ((start, last), pin, write) = (self.ends_of_plot(), self.rng.bool(), self.chance(3));
        let kind = if pin { AccessKind::Pin(transfer(write)) } else { AccessKind::Copy(transfer(write)) };
        let walk = self.table.access_walk(range(start, last), kind);
        let (served, end) = self.space.access(start, last, pin, write);
        assert_eq!(walk.end.as_ref().err().map(Coded::errno), end.map(errno), "{:?}", walk.end);
        let ours: Vec<_> = walk.parts.iter().map(|part| (part.area, part.iova)).collect();
        let model: Vec<_> = served.iter().map(|(tag, from, to)| (self.ids[tag], range(*from, *to))).collect();
        assert_eq!(ours, model);
        if pin && walk.end.is_ok() {
            served.iter().for_each(|(tag, ..)| self.hold(*tag));
        }
    }

    fn hold(&mut self, tag: u64) {
        let holder = if self.chance(4) { Holder::Internal } else { Holder::External };
        self.table.add_access_to(self.ids[&tag], holder);
        self.space.plot(tag).accesses += 1;
        self.space.plot(tag).locks += u64::from(holder == Holder::Internal);
        self.held.push((tag, holder));
    }

    /// Drops one access, of `tag` if given; false if there is none, or if it does not want to leave.
    fn let_go(&mut self, tag: Option<u64>) -> bool {
        let of_tag = |(held, _): &(u64, Holder)| tag.is_none_or(|tag| tag == *held);
        let Some(at) = self.held.iter().position(of_tag) else {
            return false;
        };
        if self.chance(5) {
            return false;
        }
        let (tag, holder) = self.held.swap_remove(at);
        self.table.drop_access_from(self.ids[&tag], holder);
        self.space.plot(tag).accesses -= 1;
        self.space.plot(tag).locks -= u64::from(holder == Holder::Internal);
        true
    }

    fn split(&mut self) {
        let byte = if self.rng.bool() { self.address().saturating_sub(1) } else { self.address() };
        let ours = self.table.cut_out(range(0, byte));
        if let Some((splits, split)) = both(ours, self.space.split(byte)) {
            let tags: Vec<u64> = split.into_iter().flat_map(|(left, right)| [left, right]).collect();
            let parts: Vec<_> = splits.into_iter().flat_map(|split| split.parts).collect();
            assert_eq!(parts.len(), tags.len(), "parts");
            self.ids.extend(tags.into_iter().zip(parts.into_iter().map(|(id, _)| id)));
        }
    }

    fn allow(&mut self) {
        let count = self.rng.usize(0..4);
        let ranges: Vec<_> = (0..count).map(|_| self.ends()).collect();
        let ours = self.table.set_allowed(ranges.iter().map(|(start, last)| range(*start, *last)).collect());
        both(ours, self.space.allow(&ranges));
    }

    fn reserve(&mut self) {
        let (start, last) = self.ends();
        let number = self.rng.u32(8..13);
        both(
            self.table.add_reserved(owner(number), range(start, last)),
            self.space.reserve(number, start, last),
        );
        self.compare_usable();
    }

    fn align(&mut self) {
        let number = self.rng.u32(4..8);
        let alignment = [0, 1, 1, 0x400, 0x400, 0x800, 0x1000, 0x2000, 3][self.rng.usize(0..9)];
        both(self.table.add_alignment(owner(number), alignment), self.space.align(number, alignment));
    }

    fn add_domain(&mut self) {
        let number = self.rng.u32(0..4);
        if self.space.asked.contains_key(&number) {
            return;
        }
        let alignment = [1, 0x400, 0x800, 0x1000, 0x2000][self.rng.usize(0..5)];
        let aperture = if self.rng.bool() { (0, u64::MAX) } else { self.ends() };
        let ours = self.table.add_domain(owner(number), alignment, range(aperture.0, aperture.1));
        both(ours, self.space.add_domain(number, alignment, aperture));
        self.compare_usable();
    }

    fn leave(&mut self) {
        let number = self.rng.u32(0..13);
        self.space.domains -= u32::from(number < 4 && self.space.asked.contains_key(&number));
        self.table.remove_owner(owner(number));
        self.space.leave(number);
        self.compare_usable();
    }

    fn toggle_large_pages(&mut self) {
        let small_only = self.rng.bool();
        let large_pages = if small_only { LargePages::Off } else { LargePages::On };
        both(self.table.set_large_pages(large_pages), self.space.set_small_only(small_only));
    }

    fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..25 => {
                let slices = self.slices();
                self.place(&slices);
            }
            25..33 => self.copy(),
            33..50 => self.settle(),
            50..58 => self.unmap(),
            58..64 => self.finish_retiring(),
            64..74 => self.access(),
            74..78 => drop(self.let_go(None)),
            78..82 => self.split(),
            82..84 => self.allow(),
            84..87 => self.reserve(),
            87..90 => self.align(),
            90..92 => self.add_domain(),
            92..98 => self.leave(),
            _ => self.toggle_large_pages(),
        }
        self.compare();
    }

    fn compare_usable(&self) {
        let ours: Vec<_> = self
            .table
            .usable_ranges()
            .iter()
            .map(|range| (range.start().get(), range.last().get()))
            .collect();
        assert_eq!(ours, self.space.usable());
    }

    fn compare(&mut self) {
        self.table.check();
        self.space.plots.sort_by_key(|plot| plot.start);
        let ids = self.space.plots.iter().map(|plot| self.ids[&plot.tag]);
        assert!(ids.eq(self.table.areas().map(Area::id)), "the areas differ");
        for (area, plot) in self.table.areas().zip(&self.space.plots) {
            assert_eq!(as_plot(area, plot.tag), *plot);
            assert_eq!(self.table.area(area.id()), Some(area));
        }
        assert_eq!(self.table.alignment(), self.space.alignment());
    }
}

fn as_plot(area: &Area<u32>, tag: u64) -> Plot {
    Plot {
        tag,
        start: area.iova().start().get(),
        last: area.iova().last().get(),
        pages: *area.pages(),
        offset: area.shape().byte_offset().get(),
        read: area.permission().can_read(),
        write: area.permission().can_write(),
        pages_writable: area.pages_writable() == Writable::Yes,
        life: match area.state() {
            AreaState::Installing => Life::Installing,
            AreaState::Ready => Life::Ready,
            AreaState::Withdrawn => panic!("no memory of devices is mapped here"),
            AreaState::Retiring => Life::Retiring,
        },
        accesses: area.accesses(),
        locks: area.locks(),
        prevented: area.new_accesses() == NewAccesses::Prevented,
    }
}

/// Names the seed if the test it is part of fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

#[test]
fn random_operations_agree_with_the_model() {
    for seed in 0..SEEDS {
        let _named = Seed(seed);
        let mut pair = Pair::new(seed);
        (0..STEPS).for_each(|_| pair.step());
    }
}
