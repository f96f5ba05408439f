//! What others use to translate, from their crates; only with the feature `bench-peers`.
//!
//! Imports allowed: vm-memory, rangemap.

use rangemap::RangeMap;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, Iotlb, Permissions,
};

use super::{ASKED, Layout, START, Translator, memory};
use crate::sys::memfd;

/// Regions that a process can well have mapped.
const REGIONS_MAX: u64 = 16_384;

/// What a number is multiplied with to be anywhere.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// All that can show the layout.
pub(super) fn translators(layout: Layout) -> Vec<Box<dyn Translator>> {
    let mut peers: Vec<Box<dyn Translator>> =
        vec![Box::new(Ranges::new(layout)), Box::new(Lookups::new(layout))];
    if layout.length / layout.leaf <= REGIONS_MAX
        && let Some(guest) = Guest::new(layout)
    {
        peers.push(Box::new(guest));
    }
    peers
}

/// `rangemap`: ranges with how far from there the memory lies.
struct Ranges(RangeMap<u64, u64>);

impl Ranges {
    fn new(layout: Layout) -> Self {
        let range = |start: u64| {
            let iova = START + start;
            (iova..iova + layout.leaf, layout.leads_to(start).wrapping_sub(iova))
        };
        Self(layout.leaves().map(range).collect())
    }
}

impl Translator for Ranges {
    fn name(&self) -> &'static str {
        "rangemap"
    }

    fn sum(&mut self, offsets: &[u64]) -> u64 {
        let place = |offset: &u64| self.0.get(&(START + offset)).map(|by| by.wrapping_add(START + offset));
        offsets.iter().filter_map(place).fold(0, u64::wrapping_add)
    }
}

/// The IOTLB of `vm-memory`, which holds all of it, filled in the order in which a device would miss: any.
struct Lookups(Iotlb);

impl Lookups {
    fn new(layout: Layout) -> Self {
        let mut iotlb = Iotlb::new();
        let length = usize::try_from(layout.leaf).unwrap_or(0);
        let mut leaves: Vec<u64> = layout.leaves().collect();
        leaves.sort_by_key(|start| start.wrapping_mul(GOLDEN_RATIO));
        for start in leaves {
            let (from, to) = (GuestAddress(START + start), GuestAddress(layout.leads_to(start)));
            let set = iotlb.set_mapping(from, to, length, Permissions::ReadWrite);
            debug_assert!(set.is_ok(), "the IOTLB takes any mapping: {set:?}");
        }
        Self(iotlb)
    }
}

impl Translator for Lookups {
    fn name(&self) -> &'static str {
        "vm-memory"
    }

    fn sum(&mut self, offsets: &[u64]) -> u64 {
        let asked = usize::try_from(ASKED).unwrap_or(0);
        let place = |offset: &u64| {
            let mut found =
                Iotlb::lookup(&self.0, GuestAddress(START + offset), asked, Permissions::Read).ok()?;
            found.next().map(|range| range.base.0)
        };
        offsets.iter().filter_map(place).fold(0, u64::wrapping_add)
    }
}

/// The guest memory of `vm-memory`, a region for each leaf.
struct Guest(GuestMemoryMmap);

impl Guest {
    fn new(layout: Layout) -> Option<Self> {
        let file = std::fs::File::from(memfd::create("ioasd-bench", memory(layout)).ok()?);
        let length = usize::try_from(layout.leaf).ok()?;
        let region = |start: u64| {
            let file = file.try_clone().ok()?;
            let place = Some(FileOffset::new(file, layout.leads_to(start)));
            Some((GuestAddress(START + start), length, place))
        };
        let regions: Vec<_> = layout.leaves().map_while(region).collect();
        GuestMemoryMmap::from_ranges_with_files(regions).ok().map(Self)
    }
}

impl Translator for Guest {
    fn name(&self) -> &'static str {
        "guest-memory"
    }

    fn sum(&mut self, offsets: &[u64]) -> u64 {
        let place = |offset: &u64| {
            let region = self.0.find_region(GuestAddress(START + offset))?;
            Some(region.file_offset()?.start() + (START + offset - region.start_addr().0))
        };
        offsets.iter().filter_map(place).fold(0, u64::wrapping_add)
    }
}
