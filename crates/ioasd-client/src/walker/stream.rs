//! Streams and bursts: walking tables that change meanwhile.
//!
//! The steps, and why they are in this order, are in [`protocol`](crate::layout::protocol).
//!
//! Imports allowed: units, formats, layout, mapping.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::backing::WindowsNumber;
use super::burst::{Burst, Translated};
use super::log::Writes;
use super::open::OpenDomain;
use super::reach::Reach;
use super::report::NewFiles;
pub use crate::layout::Access;
use crate::layout::protocol::{self, Entered};
use crate::layout::{SLOTS, SlotIndex};
use crate::units::Iova;

const _: () = assert!(SLOTS == u64::BITS, "slots in use are the bits of one word");

/// All slots of the walker are taken by other streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {SLOTS} slots of this walker are taken; drop a stream, or open the domain once more")]
pub struct NoSlot;

/// What was translated under one generation need not hold under another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub(super) u64);

/// The right of one thread to walk. Not `Send`: the slot belongs to the thread.
#[derive(Debug)]
pub struct Stream {
    domain: Arc<OpenDomain>,
    slot: SlotIndex,
    pub(super) reach: Reach,
    /// What becomes of faults that a new file may explain.
    pub(super) new_files: Cell<NewFiles>,
    /// The address about which this stream learned last.
    pub(super) learned: Option<Iova>,
    stays_here: PhantomData<*const ()>,
}

impl Stream {
    pub(super) fn new(domain: &Arc<OpenDomain>) -> Result<Self, NoSlot> {
        let slot = protocol::take_slot(&domain.slots_taken).ok_or(NoSlot)?;
        let reach = Reach::new(domain.learning.backing());
        let new_files = Cell::new(NewFiles::Told);
        Ok(Self {
            domain: Arc::clone(domain),
            slot,
            reach,
            new_files,
            learned: None,
            stays_here: PhantomData,
        })
    }

    /// The same, with an IOTLB: good for devices that go through memory in order or come back to the same pages, not for
    /// accesses at random to more than 4 MiB.
    #[must_use]
    pub fn with_iotlb(mut self) -> Self {
        self.reach.add_iotlb();
        self
    }

    /// Begins a burst. While it lasts, nothing that it translates is taken away; an unmap waits for its end.
    #[inline]
    pub fn enter(&mut self) -> Burst<'_> {
        let Entered { generation, alive, windows } = protocol::enter(self.slot_word(), &self.domain.arena);
        let writes = self.domain.writes(alive);
        let generation = writes.map(|_| Generation(generation));
        self.reach.begin(generation, WindowsNumber(windows));
        let translated = Translated::new(self.domain.header.geometry.aperture, generation);
        Burst { stream: self, generation, translated, writes: writes.unwrap_or(Writes::Unlogged) }
    }

    #[inline]
    pub(super) fn domain(&self) -> &OpenDomain {
        &self.domain
    }

    pub(super) const fn slot(&self) -> SlotIndex {
        self.slot
    }

    #[inline]
    pub(super) fn slot_word(&self) -> &AtomicU64 {
        let word = self.domain.slots.word(self.slot.offset());
        word.unwrap_or_else(|| unreachable!("the slots memfd was mapped whole and writable"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        protocol::leave(self.slot_word());
        protocol::give_slot_back(&self.domain.slots_taken, self.slot);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::atomic::Ordering;

    use super::super::burst::Translation;
    use super::super::fault::{FaultKind, WalkFault};
    use super::super::open::tests::{TABLES, header, parts};
    use super::super::open::{DomainParts, Walker};
    use super::*;
    use crate::formats::{AmdV1, Format, Level, TABLE_BYTES, TABLE_ENTRIES, TableAddr};
    use crate::layout::{
        ALIVE_OFFSET, EPOCH_OFFSET, GENERATION_OFFSET, HEADER_BYTES, IS_ALIVE, IS_DEAD, OUTSIDE,
        WINDOWS_OFFSET,
    };
    use crate::mapping::SharedMapping;
    use crate::units::{ByteLen, Permission, PhysAddr};

    type Amd = AmdV1<4>;

    pub(in crate::walker) fn page(phys: u64, permission: Permission) -> u64 {
        Amd::leaf(PhysAddr::new(phys), 12, permission)
    }

    /// A walker, and the view through which its arena is written. The domain is alive.
    pub(in crate::walker) fn domain() -> (Walker, SharedMapping) {
        domain_with(None)
    }

    /// The same, of a walker that has this log.
    pub(in crate::walker) fn domain_with(log: Option<OwnedFd>) -> (Walker, SharedMapping) {
        let (parts, writer) = parts(header());
        set(&writer, EPOCH_OFFSET, 7);
        set(&writer, ALIVE_OFFSET, IS_ALIVE);
        (Walker::open(DomainParts { log, ..parts }).unwrap(), writer)
    }

    pub(in crate::walker) fn set(writer: &SharedMapping, offset: u64, value: u64) {
        writer.word(offset).unwrap().store(value, Ordering::SeqCst);
    }

    pub(in crate::walker) fn table(number: u64) -> TableAddr {
        TableAddr::new(HEADER_BYTES + number * TABLE_BYTES)
    }

    /// Tables 0 to 3 lead to IOVA 0, whose entry becomes `leaf`.
    pub(in crate::walker) fn link_to_zero(writer: &SharedMapping, leaf: u64) {
        for level in 1..4 {
            let entry = Amd::table(table(4 - level), Level::new(u32::try_from(level).unwrap()));
            set(writer, table(3 - level).get(), entry);
        }
        set(writer, table(3).get(), leaf);
    }

    pub(in crate::walker) fn fault(walker: &Walker, iova: u64, access: Access) -> WalkFault {
        walker.stream().unwrap().enter().locate(Iova::new(iova), ByteLen::new(1), access).unwrap_err()
    }

    #[test]
    fn a_burst_holds_its_slot_at_the_epoch_and_leaves_it_empty() {
        let (walker, writer) = domain();
        let mut first = walker.stream().unwrap();
        let mut second = walker.stream().unwrap();
        let slot = second.slot.offset();
        assert_ne!(first.slot, second.slot);
        let held = |stream: &Stream| stream.domain.slots.load(slot).unwrap();
        let burst = second.enter();
        let generation = burst.generation();
        assert_eq!(held(burst.stream), 7);
        drop(burst);
        drop(first.enter());
        assert_eq!(held(&second), OUTSIDE);
        set(&writer, GENERATION_OFFSET, 1);
        assert_ne!(second.enter().generation(), generation);
    }

    #[test]
    fn each_kind_of_fault_names_the_level_and_the_entry() {
        let (walker, writer) = domain();
        let leaf = page(0x10_0000, Permission::Read);
        link_to_zero(&writer, leaf);
        assert_eq!(fault(&walker, 0, Access::Write).kind, FaultKind::Permission);
        assert_eq!(fault(&walker, 0, Access::Write).entry, leaf);
        assert_eq!(fault(&walker, 0x1000, Access::Read).kind, FaultKind::NotPresent);
        let high = fault(&walker, 1 << 40, Access::Read);
        assert_eq!((high.kind, high.level, high.entry), (FaultKind::NotPresent, Level::new(3), 0));
        assert_eq!(fault(&walker, 1 << 48, Access::Read).kind, FaultKind::OutsideAperture);
        for foreign in [0xf_f000, 0x10_4000] {
            link_to_zero(&writer, page(foreign, Permission::ReadWrite));
            assert_eq!(fault(&walker, 0, Access::Read).kind, FaultKind::NotExported);
        }
        set(&writer, ALIVE_OFFSET, IS_DEAD);
        assert_eq!(fault(&walker, 0, Access::Read).kind, FaultKind::Dead);
    }

    #[test]
    fn a_table_can_take_rights_from_everything_below() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_0000, Permission::ReadWrite));
        let no_writes = Amd::table(table(2), Level::new(2)) & !(1 << 62);
        set(&writer, table(1).get(), no_writes);
        assert_eq!(fault(&walker, 0, Access::Write).kind, FaultKind::Permission);
        let mut stream = walker.stream().unwrap();
        let found = stream.enter().locate(Iova::new(9), ByteLen::new(10), Access::Read).unwrap();
        let expected = Translation {
            phys: PhysAddr::new(0x10_0009),
            file: 0,
            offset: ByteLen::new(9),
            length: ByteLen::new(10),
            permission: Permission::Read,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_table_outside_the_arena_is_a_fault() {
        let (walker, writer) = domain();
        for address in [HEADER_BYTES + TABLES * TABLE_BYTES, 0xf_ffff_ffff_f000] {
            link_to_zero(&writer, 0);
            set(&writer, table(1).get(), Amd::table(TableAddr::new(address), Level::new(2)));
            assert_eq!(fault(&walker, 0, Access::Read).kind, FaultKind::Malformed, "{address:#x}");
        }
    }

    #[test]
    fn tables_of_any_bytes_can_be_walked() {
        for seed in 0..20_u64 {
            let (walker, writer) = domain();
            let mut bits = seed;
            let mut next = || {
                bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bits ^ bits >> 31
            };
            for word in 0..TABLES * TABLE_ENTRIES as u64 {
                let wild = next();
                let table =
                    Amd::table(table(wild % (TABLES + 1)), Level::new(u32::try_from(wild % 5).unwrap()));
                set(&writer, HEADER_BYTES + word * 8, if wild & 0x30 == 0 { wild } else { table });
            }
            let mut stream = walker.stream().unwrap();
            let burst = stream.enter();
            for _ in 0..2000 {
                let found = burst.locate(Iova::new(next() >> 16), ByteLen::new(1 << 40), Access::Read);
                if let Ok(Translation { offset, length, .. }) = found {
                    assert!(offset.get() + length.get() <= 0x4000, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn bytes_are_copied_across_pages_that_lie_apart() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_3000, Permission::ReadWrite));
        set(&writer, table(3).get() + 8, page(0x10_1000, Permission::ReadWrite));
        let mut stream = walker.stream().unwrap();
        let bytes: Vec<u8> = (0..200).collect();
        stream.enter().write(Iova::new(0xfa0), &bytes).unwrap();
        let mut back = vec![0; 200];
        stream.enter().read(Iova::new(0xfa0), &mut back).unwrap();
        assert_eq!(back, bytes);
        let burst = stream.enter();
        let pieces: Result<Vec<_>, _> =
            burst.translate(Iova::new(0xfa0), ByteLen::new(200), Access::Read).collect();
        assert_eq!(pieces.unwrap().iter().map(|piece| piece.memory.len()).collect::<Vec<_>>(), [96, 104]);
        drop(burst);
        let fault = stream.enter().read(Iova::new(0x1fff), &mut [0; 2]).unwrap_err();
        assert_eq!((fault.iova, fault.kind), (Iova::new(0x2000), FaultKind::NotPresent));
    }

    fn byte(stream: &mut Stream, iova: u64) -> Result<u8, FaultKind> {
        let mut byte = [0];
        stream.enter().read(Iova::new(iova), &mut byte).map_err(|fault| fault.kind)?;
        Ok(byte[0])
    }

    #[test]
    fn an_iotlb_remembers_within_a_generation_and_no_longer() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_0000, Permission::Read));
        let mut stream = walker.stream().unwrap().with_iotlb();
        assert_eq!(byte(&mut stream, 8), Ok(0));
        link_to_zero(&writer, 0);
        assert_eq!(byte(&mut stream, 0), Ok(0), "the agent has not begun a new generation yet");
        assert_eq!(stream.enter().write(Iova::new(0), &[1]).unwrap_err().kind, FaultKind::NotPresent);
        set(&writer, GENERATION_OFFSET, 1);
        assert_eq!(byte(&mut stream, 0), Err(FaultKind::NotPresent));
        link_to_zero(&writer, page(0x10_1000, Permission::Read));
        assert_eq!(byte(&mut stream, 0), Ok(0));
        set(&writer, ALIVE_OFFSET, IS_DEAD);
        assert_eq!(byte(&mut stream, 0), Err(FaultKind::Dead));
    }

    #[test]
    fn a_table_that_was_unlinked_hides_nothing_that_is_mapped_since() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_0000, Permission::ReadWrite));
        let mut stream = walker.stream().unwrap();
        assert_eq!(byte(&mut stream, 0), Ok(0));
        set(&writer, table(1).get(), Amd::table(table(0), Level::new(2)));
        set(&writer, table(2).get(), 0);
        assert_eq!(byte(&mut stream, 0), Err(FaultKind::Malformed), "the way from the root is not one");
        link_to_zero(&writer, page(0x10_1000, Permission::ReadWrite));
        assert_eq!(byte(&mut stream, 0), Ok(0));
    }

    #[test]
    fn a_way_that_is_kept_grants_no_more_than_the_tables_before_it() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_0000, Permission::ReadWrite));
        let no_writes = Amd::table(table(2), Level::new(2)) & !(1 << 62);
        set(&writer, table(1).get(), no_writes);
        let mut stream = walker.stream().unwrap();
        for _ in 0..2 {
            assert_eq!(byte(&mut stream, 0), Ok(0));
            let refused = stream.enter().write(Iova::new(0), &[1]).unwrap_err();
            assert_eq!(refused.kind, FaultKind::Permission);
        }
    }

    #[test]
    fn what_is_known_of_files_is_forgotten_when_windows_are_renewed() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_0000, Permission::Read));
        for iotlb in [false, true] {
            let stream = walker.stream().unwrap();
            let mut stream = if iotlb { stream.with_iotlb() } else { stream };
            let knows = |stream: &mut Stream| stream.enter().read(Iova::new(0), &mut [0]).is_ok();
            assert!(knows(&mut stream));
            set(&writer, WINDOWS_OFFSET, 1);
            assert!(!knows(&mut stream) && !knows(&mut stream), "also the second time");
            set(&writer, WINDOWS_OFFSET, 0);
        }
        set(&writer, WINDOWS_OFFSET, 1);
        assert_eq!(fault(&walker, 0, Access::Read).kind, FaultKind::NotExported, "of a stream made later");
    }

    #[test]
    fn a_slice_allows_what_it_was_asked_for_and_the_tables_grant() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_0000, Permission::ReadWrite));
        for iotlb in [false, true] {
            let stream = walker.stream().unwrap();
            let mut stream = if iotlb { stream.with_iotlb() } else { stream };
            let burst = stream.enter();
            for _ in 0..2 {
                let slice = |access| burst.slice(Iova::new(0xffc), ByteLen::new(100), access).unwrap();
                let (read, write) = (slice(Access::Read), slice(Access::Write));
                assert_eq!((read.memory.len(), read.permission()), (4, Permission::ReadWrite));
                assert_eq!(
                    (read.memory.store::<u32>(0, 1), write.memory.store::<u32>(0, 5)),
                    (None, Some(()))
                );
                assert_eq!(read.memory.load::<u32>(0), Some(5));
            }
        }
    }
}
