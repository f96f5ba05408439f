//! The naive model: what must happen, page by page and byte by byte, with nothing remembered but what users did.
//!
//! A page holds a pin exactly if an access pins it or a filled area shows it; a domain translates exactly what the areas
//! say; an account pays for each pinned page of each pages object once. All of it is worked out anew from the areas and
//! the accesses whenever somebody asks.
//!
//! Imports allowed: units, ops.

use std::collections::BTreeMap;

use ioasd_client::units::{PAGE_SIZE, Permission};
use rustix::io::Errno;

use crate::ops::{Asked, Manners, Observation, Outcome, SeenArea, Spec, Translation, Value};

/// A pages object.
#[derive(Clone, Debug)]
pub struct PagesModel {
    /// Which memory.
    pub memory: usize,
    /// Its first page there.
    pub first: u64,
    /// How many.
    pub len: u64,
    /// Whether they can be written.
    pub writable: Asked,
    /// Whether the limit of the account binds.
    pub limited: Asked,
    /// Who pays.
    pub account: u32,
}

/// An area.
#[derive(Clone, Debug)]
pub struct AreaModel {
    /// Names it for ever.
    pub id: u64,
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// The pages object.
    pub pages: u64,
    /// Offset of the first byte in it.
    pub offset: u64,
    /// What may be done with it.
    pub permission: Permission,
    /// Whether it takes no new accesses.
    pub prevented: bool,
}

impl AreaModel {
    /// The offset of the byte at `iova` in the pages object.
    pub fn offset_of(&self, iova: u64) -> u64 {
        self.offset + (iova - self.start)
    }

    /// Its length.
    pub fn length(&self) -> u64 {
        self.last - self.start + 1
    }

    /// First and last page it shows.
    pub fn indexes(&self) -> (u64, u64) {
        (self.offset / PAGE_SIZE, self.offset_of(self.last) / PAGE_SIZE)
    }

    fn is_aligned(&self, alignment: u64) -> bool {
        [self.start, self.length(), self.offset].iter().all(|number| number.is_multiple_of(alignment))
    }
}

/// What one pin holds in one area.
#[derive(Clone, Debug)]
pub struct PartModel {
    /// The area.
    pub area: u64,
    /// The pages object.
    pub pages: u64,
    /// First and last page.
    pub indexes: (u64, u64),
}

/// One pin.
#[derive(Clone, Debug)]
pub struct PinModel {
    /// First and last address.
    pub range: (u64, u64),
    /// What it holds.
    pub parts: Vec<PartModel>,
}

/// An attached access.
#[derive(Clone, Debug)]
pub struct AccessModel {
    /// Whether it pins.
    pub pins: Asked,
    /// How it takes a notice.
    pub manners: Manners,
    /// What it holds.
    pub held: Vec<PinModel>,
}

/// An address space.
#[derive(Clone, Debug)]
pub struct IoasModel {
    /// Areas in the order of addresses.
    pub areas: Vec<AreaModel>,
    /// Attached domains, by their number in the world.
    pub domains: Vec<usize>,
    /// Attached accesses.
    pub accesses: BTreeMap<usize, AccessModel>,
    /// Allowed ranges, if there are any.
    pub allowed: Vec<(u64, u64)>,
    /// Whether domains may use large leaves.
    pub large_pages: Asked,
}

impl IoasModel {
    const fn new() -> Self {
        Self {
            areas: Vec::new(),
            domains: Vec::new(),
            accesses: BTreeMap::new(),
            allowed: Vec::new(),
            large_pages: Asked::Yes,
        }
    }
}

/// The world as it must be.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it is made of.
    pub spec: Spec,
    /// Every pages object there ever was.
    pub pages: BTreeMap<u64, PagesModel>,
    /// The address spaces.
    pub ioases: Vec<IoasModel>,
    /// What the memories hold.
    pub bytes: Vec<Vec<u8>>,
    /// Which pages cannot be pinned.
    pub bad: Vec<Vec<bool>>,
    /// The next area.
    pub next_area: u64,
}

/// What the model expects: a value, or one of these errors.
///
/// Where a fill fails for two reasons, which of them is met first depends on the limits of batches.
pub type Expected = Result<Value, Vec<Errno>>;

/// Whether an outcome is what was expected.
pub fn agrees(expected: &Expected, outcome: &Outcome) -> bool {
    match (expected, outcome) {
        (Ok(expected), Ok(value)) => expected == value,
        (Err(expected), Err(errno)) => expected.contains(errno),
        _ => false,
    }
}

impl Model {
    /// The world before the first operation.
    pub fn new(spec: Spec) -> Self {
        let lengths: Vec<usize> = spec.memories.iter().map(|memory| memory.frames.len()).collect();
        Self {
            pages: BTreeMap::new(),
            ioases: vec![IoasModel::new(); spec.ioases.len()],
            bytes: lengths.iter().map(|len| vec![0; len * PAGE_SIZE as usize]).collect(),
            bad: lengths.iter().map(|len| vec![false; *len]).collect(),
            next_area: 0,
            spec,
        }
    }

    /// The largest alignment that anything attached asks for.
    pub fn alignment(&self, ioas: usize) -> u64 {
        let state = &self.ioases[ioas];
        let domains = state.domains.iter().map(|domain| self.spec.domains[*domain].granule);
        let accesses =
            state.accesses.values().map(|access| if access.pins == Asked::Yes { PAGE_SIZE } else { 1 });
        let least = if state.large_pages == Asked::Yes { 1 } else { PAGE_SIZE };
        domains.chain(accesses).fold(least, u64::max)
    }

    /// Addresses that no area may use.
    pub fn reserved(&self, ioas: usize) -> Vec<(u64, u64)> {
        let spec = &self.spec.ioases[ioas];
        let mut reserved = outside(spec.start, spec.last);
        for domain in &self.ioases[ioas].domains {
            reserved.extend(outside(self.spec.domains[*domain].start, self.spec.domains[*domain].last));
        }
        reserved
    }

    /// Whether raising the alignment to `alignment` leaves an area behind.
    pub fn misfits(&self, ioas: usize, alignment: u64) -> bool {
        alignment > self.alignment(ioas)
            && self.ioases[ioas].areas.iter().any(|area| !area.is_aligned(alignment))
    }

    /// How many pins hold an area.
    pub fn accesses_of(&self, ioas: usize, area: u64) -> u64 {
        let held = self.ioases[ioas].accesses.values().flat_map(|access| &access.held);
        held.flat_map(|pin| &pin.parts).filter(|part| part.area == area).count() as u64
    }

    /// Which pages of each pages object tier 1 holds: those that an access pins.
    pub fn cached(&self) -> BTreeMap<u64, Vec<bool>> {
        let mut cached = BTreeMap::new();
        let accesses = self.ioases.iter().flat_map(|ioas| ioas.accesses.values());
        for part in accesses.flat_map(|access| &access.held).flat_map(|pin| &pin.parts) {
            self.mark(&mut cached, part.pages, part.indexes);
        }
        cached
    }

    /// Which pages of each pages object hold a pin.
    pub fn pins(&self) -> BTreeMap<u64, Vec<bool>> {
        let mut pins = self.cached();
        for area in self.ioases.iter().filter(|ioas| !ioas.domains.is_empty()).flat_map(|ioas| &ioas.areas) {
            self.mark(&mut pins, area.pages, area.indexes());
        }
        pins
    }

    fn mark(&self, marks: &mut BTreeMap<u64, Vec<bool>>, pages: u64, (first, last): (u64, u64)) {
        let marked = marks.entry(pages).or_insert_with(|| vec![false; self.pages[&pages].len as usize]);
        (first..=last).for_each(|index| marked[index as usize] = true);
    }

    /// Pages charged to `account`; in mode user only, if asked.
    pub fn charged(&self, pins: &BTreeMap<u64, Vec<bool>>, account: u32, only_limited: Asked) -> u64 {
        let mut sum = 0;
        for (serial, pinned) in pins {
            let pages = &self.pages[serial];
            if pages.account == account && (only_limited == Asked::No || pages.limited == Asked::Yes) {
                sum += pinned.iter().filter(|pinned| **pinned).count() as u64;
            }
        }
        sum
    }

    /// Whether `needed` more pages of a pages object may be charged.
    pub fn may_charge(&self, pins: &BTreeMap<u64, Vec<bool>>, pages: u64, needed: u64) -> bool {
        let pages = &self.pages[&pages];
        let used = self.charged(pins, pages.account, Asked::Yes);
        let limit = self.spec.limits.get(&pages.account);
        pages.limited == Asked::No || needed == 0 || limit.is_none_or(|limit| used + needed <= *limit)
    }

    /// The frame of a page.
    pub fn frame(&self, pages: u64, index: u64) -> u64 {
        let pages = &self.pages[&pages];
        self.spec.memories[pages.memory].frames[(pages.first + index) as usize]
    }

    /// Whether a page cannot be pinned.
    pub fn is_bad(&self, pages: u64, index: u64) -> bool {
        let pages = &self.pages[&pages];
        self.bad[pages.memory][(pages.first + index) as usize]
    }

    /// The area at `iova`.
    pub fn area_at(&self, ioas: usize, iova: u64) -> Option<&AreaModel> {
        self.ioases[ioas].areas.iter().find(|area| area.start <= iova && iova <= area.last)
    }

    fn translation(&self, ioas: usize, iova: u64) -> Translation {
        let area = self.area_at(ioas, iova)?;
        let offset = area.offset_of(iova);
        Some((self.frame(area.pages, offset / PAGE_SIZE) * PAGE_SIZE + offset % PAGE_SIZE, area.permission))
    }

    fn translations(&self, domain: usize) -> Vec<Translation> {
        let spec = &self.spec.domains[domain];
        let is_attached = self.ioases[spec.ioas].domains.contains(&domain);
        let granules = granules(&self.spec, domain).into_iter();
        granules.map(|iova| is_attached.then(|| self.translation(spec.ioas, iova)).flatten()).collect()
    }

    fn seen_areas(&self, ioas: usize) -> Vec<SeenArea> {
        let seen = |area: &AreaModel| SeenArea {
            iova: (area.start, area.last),
            pages: area.pages,
            offset: area.offset,
            permission: area.permission,
            accesses: self.accesses_of(ioas, area.id),
            prevented: area.prevented,
        };
        self.ioases[ioas].areas.iter().map(seen).collect()
    }

    /// What must be seen now.
    pub fn observe(&self) -> Observation {
        let pins = self.pins();
        let ioases = 0..self.ioases.len();
        let charge = |account: &u32| (*account, self.charged(&pins, *account, Asked::No));
        Observation {
            areas: ioases.clone().map(|ioas| self.seen_areas(ioas)).collect(),
            alignments: ioases.map(|ioas| self.alignment(ioas)).collect(),
            cached: self.cached(),
            translations: (0..self.spec.domains.len()).map(|domain| self.translations(domain)).collect(),
            charges: self.spec.accounts.iter().map(charge).collect(),
            pins,
        }
    }
}

/// What lies below and above `start..=last`.
pub fn outside(start: u64, last: u64) -> Vec<(u64, u64)> {
    let below = start.checked_sub(1).map(|last| (0, last));
    let above = last.checked_add(1).map(|start| (start, u64::MAX));
    below.into_iter().chain(above).collect()
}

/// The first address of every granule of the universe of a domain's address space.
pub fn granules(spec: &Spec, domain: usize) -> Vec<u64> {
    let domain = &spec.domains[domain];
    let ioas = &spec.ioases[domain.ioas];
    let count = (ioas.last - ioas.start) / domain.granule + 1;
    (0..count).map(|at| ioas.start + at * domain.granule).collect()
}
