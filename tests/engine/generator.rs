//! Random worlds, and random operations that are likely to mean something in the state they meet.
//!
//! Imports allowed: units, ops, model.

use ioasd_client::units::{PAGE_SIZE, Permission};

use crate::model::{AreaModel, Model};
use crate::ops::{Asked, DomainSpec, IoasSpec, Manners, MemorySpec, Op, Range, Spec, Way};

/// Pages of addresses that each address space has.
const UNIVERSE: u64 = 24;

/// Pages of each memory.
const MEMORY: u64 = 12;

/// How frames follow one another.
#[derive(Clone, Copy, Debug)]
enum Frames {
    Contiguous,
    Scattered,
    Mixed,
}

/// Three clients, two of one user; four address spaces, one of them at the end of all addresses; eight domains.
pub fn world(rng: &mut fastrand::Rng) -> Spec {
    let low = |context| IoasSpec { context, start: 0, last: UNIVERSE * PAGE_SIZE - 1 };
    let high = |context| IoasSpec { context, start: u64::MAX - UNIVERSE * PAGE_SIZE + 1, last: u64::MAX };
    let ioases = vec![low(0), low(0), high(1), low(2)];
    let domains = [0, 0, 0, 1, 1, 2, 2, 3].map(|ioas| domain(rng, ioas, &ioases[ioas]));
    let limits = [(1000, rng.u64(4..30))].into_iter().collect();
    Spec {
        memories: (0..3).map(|number| memory(rng, number)).collect(),
        domains: domains.to_vec(),
        ioases,
        accounts: vec![1000, 1000, 1001],
        limits,
        accesses: 3,
    }
}

fn domain(rng: &mut fastrand::Rng, ioas: usize, spec: &IoasSpec) -> DomainSpec {
    let granule = if rng.u8(..3) == 0 { PAGE_SIZE / 2 } else { PAGE_SIZE };
    let capacity = if rng.u8(..3) == 0 { rng.u64(4..16) * PAGE_SIZE } else { u64::MAX };
    let mut domain = DomainSpec { ioas, granule, start: spec.start, last: spec.last, capacity };
    if rng.u8(..6) == 0 {
        domain.start += PAGE_SIZE;
    }
    if rng.u8(..6) == 0 {
        domain.last -= PAGE_SIZE;
    }
    domain
}

fn memory(rng: &mut fastrand::Rng, number: u64) -> MemorySpec {
    let kind = *rng.choice(&[Frames::Contiguous, Frames::Scattered, Frames::Mixed]).unwrap();
    let base = 0x1000 * (number + 1);
    let mut frames: Vec<u64> = (base..base + MEMORY).collect();
    match kind {
        Frames::Contiguous => {}
        Frames::Scattered => {
            frames.iter_mut().for_each(|frame| *frame = base + 2 * (*frame - base));
            rng.shuffle(&mut frames);
        }
        Frames::Mixed => frames.chunks_mut(1 + rng.usize(1..4)).rev().enumerate().for_each(|(at, chunk)| {
            chunk.iter_mut().for_each(|frame| *frame += 0x100 * (at as u64 + 1));
        }),
    }
    MemorySpec { frames, origin: if number == 0 { 0 } else { number << 40 } }
}

/// What a sequence is mostly about.
#[derive(Clone, Copy, Debug)]
enum Taste {
    /// Everything.
    Mixed,
    /// Pins that come and go while areas are copied and domains come and go.
    Pins,
}

/// Makes one operation after the other.
pub struct Generator {
    rng: fastrand::Rng,
    taste: Taste,
    next_pages: u64,
}

/// How finely numbers are chosen.
#[derive(Clone, Copy, Debug)]
enum Grain {
    Page,
    Half,
    Byte,
}

impl Generator {
    /// A generator of the sequence named by `seed`.
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let taste = if rng.u8(..3) == 0 { Taste::Pins } else { Taste::Mixed };
        Self { rng, taste, next_pages: 0 }
    }

    /// The next operation.
    pub fn next(&mut self, model: &Model) -> Op {
        let ioas = self.rng.usize(..model.ioases.len());
        let dice = match (self.taste, self.rng.u8(..6)) {
            (Taste::Pins, 0..3) => self.rng.u32(670..870),
            (Taste::Pins, 3) => self.rng.u32(450..570),
            (Taste::Pins | Taste::Mixed, _) => self.rng.u32(..1160),
        };
        match dice {
            0..210 => self.map(model, ioas),
            210..330 => self.copy(model, ioas),
            330..450 => Op::Unmap { ioas, range: self.unmap_range(model, ioas) },
            450..530 => Op::Attach { domain: self.domain(model, Asked::No) },
            530..570 => Op::Detach { domain: self.domain(model, Asked::Yes) },
            570..640 => self.attach_access(model, ioas),
            640..670 => Op::DetachAccess { ioas, access: self.rng.usize(..model.spec.accesses) },
            670..790 => {
                let (access, way) = (self.access(model, ioas), self.way());
                Op::Pin { ioas, access, range: self.range(model, ioas), way }
            }
            790..870 => self.unpin(model, ioas),
            870..910 => Op::Read { ioas, access: self.access(model, ioas), range: self.range(model, ioas) },
            910..950 => {
                let most = UNIVERSE * PAGE_SIZE;
                let access = self.access(model, ioas);
                let range = self.range(model, ioas);
                let range = Range { length: range.length.min(most), ..range };
                Op::Write { ioas, access, range, seed: self.rng.u8(..) }
            }
            950..960 => Op::Allow { ioas, ranges: self.allowed(model, ioas) },
            960..962 => Op::Death { context: self.rng.usize(..model.spec.accounts.len()) },
            962..1000 => self.spoil(model),
            1000..1030 => Op::LargePages { ioas, on: if self.one_in(3) { Asked::No } else { Asked::Yes } },
            1030..1065 => {
                let to = self.sibling(model, ioas);
                Op::ReplaceAccess { ioas, access: self.access(model, ioas), to }
            }
            1065..1100 => self.replace(model),
            _ => self.cut(model, ioas),
        }
    }

    /// An address space of the same client; it may be the same one.
    fn sibling(&mut self, model: &Model, ioas: usize) -> usize {
        let context = model.spec.ioases[ioas].context;
        let siblings: Vec<usize> =
            (0..model.ioases.len()).filter(|other| model.spec.ioases[*other].context == context).collect();
        self.rng.choice(siblings).unwrap_or(ioas)
    }

    /// Between two address spaces of one client; another attach where there is no such pair.
    fn replace(&mut self, model: &Model) -> Op {
        let domain = self.domain(model, Asked::Yes);
        let specs = &model.spec.domains;
        let of = |domain: usize| (specs[domain].ioas, model.spec.ioases[specs[domain].ioas].context);
        let (ioas, context) = of(domain);
        let others: Vec<usize> =
            (0..specs.len()).filter(|other| of(*other).0 != ioas && of(*other).1 == context).collect();
        match self.rng.choice(others) {
            Some(by) => Op::Replace { domain, by },
            None => Op::Attach { domain: self.domain(model, Asked::No) },
        }
    }

    /// Operations that meet at the same pages: pins are let go of while areas that show them are filled and pinned.
    pub fn storm(&mut self, model: &Model) -> Vec<Op> {
        let ioas = self.rng.usize(..model.ioases.len());
        let mut ops = Vec::new();
        for (access, state) in &model.ioases[ioas].accesses {
            for pin in state.held.iter().rev().take(3) {
                let range = Range { iova: pin.range.0, length: pin.range.1 - pin.range.0 + 1 };
                ops.push(Op::Unpin { ioas, access: *access, range });
            }
        }
        let free = |(_, spec): &(usize, &DomainSpec)| spec.ioas == ioas;
        let domains: Vec<usize> =
            model.spec.domains.iter().enumerate().filter(free).map(|(at, _)| at).collect();
        let domain = *self.rng.choice(&domains).unwrap();
        ops.push(if self.one_in(3) { Op::Detach { domain } } else { Op::Attach { domain } });
        for _ in 0..self.rng.usize(1..4) {
            let (access, range) = (self.access(model, ioas), self.range(model, ioas));
            ops.push(Op::Pin { ioas, access, range, way: Way::Read });
        }
        let range = self.range(model, ioas);
        ops.push(Op::Copy { from: ioas, range, to: ioas, permission: Permission::Read, place: None });
        self.rng.shuffle(&mut ops);
        ops
    }

    /// A domain that is attached, or is not; sometimes any.
    fn domain(&mut self, model: &Model, attached: Asked) -> usize {
        let all = 0..model.spec.domains.len();
        let is_attached =
            |domain: &usize| model.ioases[model.spec.domains[*domain].ioas].domains.contains(domain);
        let wanted: Vec<usize> =
            all.clone().filter(|domain| is_attached(domain) == (attached == Asked::Yes)).collect();
        let any = self.rng.usize(all);
        if self.one_in(6) { any } else { self.rng.choice(wanted).unwrap_or(any) }
    }

    fn one_in(&mut self, chances: u32) -> bool {
        self.rng.u32(..chances) == 0
    }

    fn grain(&mut self) -> Grain {
        match self.rng.u8(..20) {
            0..13 => Grain::Page,
            13..18 => Grain::Half,
            _ => Grain::Byte,
        }
    }

    /// A number of bytes below `pages` pages.
    fn bytes(&mut self, grain: Grain, pages: u64) -> u64 {
        match grain {
            Grain::Page => self.rng.u64(..pages) * PAGE_SIZE,
            Grain::Half => self.rng.u64(..2 * pages) * (PAGE_SIZE / 2),
            Grain::Byte => self.rng.u64(..pages * PAGE_SIZE),
        }
    }

    fn length(&mut self, grain: Grain) -> u64 {
        match self.rng.u16(..300) {
            0 => 0,
            1 => u64::MAX,
            _ => self.bytes(grain, 5) + if matches!(grain, Grain::Byte) { 1 } else { PAGE_SIZE },
        }
    }

    fn place(&mut self, model: &Model, ioas: usize, grain: Grain) -> Option<u64> {
        match self.rng.u16(..300) {
            0 => Some(u64::MAX),
            1..100 => None,
            _ => Some(model.spec.ioases[ioas].start + self.bytes(grain, UNIVERSE)),
        }
    }

    fn permission(&mut self) -> Permission {
        let choices = [Permission::ReadWrite, Permission::ReadWrite, Permission::Read, Permission::Write];
        *self.rng.choice(&choices).unwrap()
    }

    fn way(&mut self) -> Way {
        if self.one_in(2) { Way::Read } else { Way::Write }
    }

    fn asked(&mut self, one_in: u32) -> Asked {
        if self.one_in(one_in) { Asked::Yes } else { Asked::No }
    }

    fn map(&mut self, model: &Model, ioas: usize) -> Op {
        let grain = self.grain();
        let length = self.length(grain);
        let offset = self.bytes(grain, MEMORY).min((MEMORY * PAGE_SIZE).saturating_sub(length));
        self.next_pages += 1;
        Op::Map {
            ioas,
            pages: self.next_pages,
            memory: self.rng.usize(..model.spec.memories.len()),
            offset,
            length,
            permission: self.permission(),
            writable: if self.one_in(8) { Asked::No } else { Asked::Yes },
            limited: self.asked(2),
            place: self.place(model, ioas, grain),
        }
    }

    /// Within one context.
    fn copy(&mut self, model: &Model, from: usize) -> Op {
        let to = self.sibling(model, from);
        let grain = self.grain();
        let (range, permission) = (self.range(model, from), self.permission());
        Op::Copy { from, range, to, permission, place: self.place(model, to, grain) }
    }

    fn area<'a>(&mut self, model: &'a Model, ioas: usize) -> Option<&'a AreaModel> {
        self.rng.choice(&model.ioases[ioas].areas)
    }

    fn unmap_range(&mut self, model: &Model, ioas: usize) -> Range {
        match self.rng.u8(..40) {
            0 => Range { iova: 0, length: u64::MAX },
            1..12 => self.range(model, ioas),
            _ => match self.area(model, ioas) {
                Some(area) => Range { iova: area.start, length: area.length() },
                None => self.range(model, ioas),
            },
        }
    }

    /// In an address space whose leaves are pages at most, if there is one.
    fn cut(&mut self, model: &Model, ioas: usize) -> Op {
        let small = (0..model.ioases.len()).filter(|ioas| model.ioases[*ioas].large_pages == Asked::No);
        let ioas = self.rng.choice(small.collect::<Vec<_>>()).unwrap_or(ioas);
        Op::Cut { ioas, range: self.range(model, ioas) }
    }

    /// A range that has to do with areas: whole ones, neighbours together, a part, or any.
    fn range(&mut self, model: &Model, ioas: usize) -> Range {
        let grain = self.grain();
        let Some(area) = self.area(model, ioas) else { return self.any_range(model, ioas) };
        let whole = Range { iova: area.start, length: area.length() };
        match self.rng.u8(..16) {
            0..2 => self.any_range(model, ioas),
            2..8 => whole,
            8..12 => self.behind_too(model, ioas, whole),
            _ => self.part(whole, area.offset, grain),
        }
    }

    fn any_range(&mut self, model: &Model, ioas: usize) -> Range {
        let grain = self.grain();
        let iova = model.spec.ioases[ioas].start + self.bytes(grain, UNIVERSE);
        Range { iova, length: self.length(grain) }
    }

    /// The range and some of what follows it.
    fn behind_too(&mut self, model: &Model, ioas: usize, whole: Range) -> Range {
        let mut last = whole.iova + (whole.length - 1);
        for area in &model.ioases[ioas].areas {
            if Some(area.start) == last.checked_add(1) && !self.one_in(3) {
                last = if self.one_in(2) { area.last } else { self.rng.u64(area.start..=area.last) };
            }
        }
        Range { iova: whole.iova, length: last - whole.iova + 1 }
    }

    /// A part that begins at a page of the pages, if the grain is that coarse.
    fn part(&mut self, whole: Range, offset: u64, grain: Grain) -> Range {
        let into_page = match grain {
            Grain::Page => (PAGE_SIZE - offset % PAGE_SIZE) % PAGE_SIZE,
            Grain::Half | Grain::Byte => 0,
        };
        let pages = whole.length.div_ceil(PAGE_SIZE);
        let skip = (into_page + self.bytes(grain, pages)).min(whole.length - 1);
        let rest = whole.length - skip;
        let length = (self.bytes(grain, pages) + 1).next_multiple_of(PAGE_SIZE).min(rest);
        Range { iova: whole.iova + skip, length }
    }

    fn access(&mut self, model: &Model, ioas: usize) -> usize {
        let attached: Vec<usize> = model.ioases[ioas].accesses.keys().copied().collect();
        let any = self.rng.usize(..model.spec.accesses);
        if self.one_in(20) { any } else { self.rng.choice(&attached).copied().unwrap_or(any) }
    }

    fn attach_access(&mut self, model: &Model, ioas: usize) -> Op {
        let mut access = self.rng.usize(..model.spec.accesses);
        if model.ioases[ioas].accesses.contains_key(&access) {
            access = self.rng.usize(..model.spec.accesses);
        }
        let manners = match self.rng.u8(..12) {
            0 => Manners::HoldsOn,
            1 => Manners::Silent,
            _ => Manners::LetsGo,
        };
        Op::AttachAccess { ioas, access, pins: if self.one_in(3) { Asked::No } else { Asked::Yes }, manners }
    }

    /// Mostly of a pin that is there.
    fn unpin(&mut self, model: &Model, ioas: usize) -> Op {
        let accesses = model.ioases.iter().enumerate().flat_map(|(ioas, state)| {
            state.accesses.iter().map(move |(access, state)| (ioas, *access, state))
        });
        let pins: Vec<_> = accesses
            .flat_map(|(ioas, access, state)| state.held.iter().map(move |pin| (ioas, access, pin.range)))
            .collect();
        match self.rng.choice(pins) {
            Some((ioas, access, (start, last))) if !self.one_in(10) => {
                Op::Unpin { ioas, access, range: Range { iova: start, length: last - start + 1 } }
            }
            _ => Op::Unpin { ioas, access: self.access(model, ioas), range: self.range(model, ioas) },
        }
    }

    fn allowed(&mut self, model: &Model, ioas: usize) -> Vec<(u64, u64)> {
        let base = model.spec.ioases[ioas].start;
        let mut range = || {
            let start = base + self.rng.u64(..UNIVERSE) * PAGE_SIZE;
            (start, start.saturating_add(self.rng.u64(..8) * PAGE_SIZE).max(start))
        };
        let ranges = [range(), range()];
        ranges[..self.rng.usize(..3)].to_vec()
    }

    /// Heals more than it spoils.
    fn spoil(&mut self, model: &Model) -> Op {
        let memory = self.rng.usize(..model.bad.len());
        let spoilt = model.bad[memory].iter().position(|bad| *bad);
        match spoilt {
            Some(page) if !self.one_in(4) => Op::Spoil { memory, page, bad: Asked::No },
            _ => Op::Spoil { memory, page: self.rng.usize(..MEMORY as usize), bad: Asked::Yes },
        }
    }
}
