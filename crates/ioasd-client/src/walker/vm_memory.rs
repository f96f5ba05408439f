//! For devices written with `vm-memory`: the walker as their IOMMU. Only with the feature `vm-memory`.
//!
//! ```text
//! let memory = IommuMemory::new(iommu.memory()?, iommu, true, ());     what the device is given
//! let burst = memory.iommu().enter()?;                                 around whatever it does with it
//! ```
//!
//! `vm-memory` asks for a translation and goes on to use memory when the answer is no longer borrowed. So a burst cannot be
//! part of the answer: whoever runs the device enters one before, on the same thread, and leaves it behind; the device
//! needs no change for it. Outside of a burst every translation fails.
//!
//! Its "physical" addresses are those of frames, and its regions are the walker's own mappings.
//!
//! Imports allowed: units, mapping, the parts of this folder, vm-memory.
#![expect(unsafe_code, reason = "vm-memory takes addresses of memory for granted")]

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::bitmap::BS;

use vm_memory::iommu::{Error, IotlbIterator, IovaRange};

use vm_memory::{
    GuestAddress, GuestMemoryError as MemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionCollection, GuestRegionCollectionError, GuestUsize, Iommu, Iotlb, MemoryRegionAddress,
    Permissions, VolatileSlice,
};

use super::backing::Extent;
use super::burst::{Burst, Translated, Translation};
use super::log::Writes;
use super::stream::{Access, Generation, NoSlot, Stream};
use super::{WalkFault, Walker};
use crate::mapping::SharedMapping;
use crate::units::{ByteLen, Iova, Permission};

thread_local! {
    /// The bursts of this thread, the latest last.
    static INSIDE: RefCell<Vec<Inside>> = const { RefCell::new(Vec::new()) };
}

/// A burst that is not borrowed from anything.
struct Inside {
    domain: DomainAddr,
    stream: Stream,
    generation: Option<Generation>,
    translated: Translated,
    writes: Writes,
}

/// Tells the domains of a process apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct DomainAddr(usize);

/// A walker as an IOMMU.
#[derive(Debug)]
pub struct WalkerIommu {
    walker: Walker,
    /// The number under which the regions are right that were given out last.
    given: AtomicU64,
}

/// A burst of this thread. Ends when dropped.
#[must_use = "the burst ends when this is dropped"]
pub struct InBurst {
    domain: DomainAddr,
    stays_here: PhantomData<*const ()>,
}

/// Memory behind consecutive frames.
#[derive(Clone, Debug)]
pub struct FrameRegion {
    mapping: Arc<SharedMapping>,
    extent: Extent,
}

impl WalkerIommu {
    /// The walker, for devices of `vm-memory`.
    #[must_use]
    pub fn new(walker: Walker) -> Self {
        let given = AtomicU64::new(walker.domain.learning.backing().number().0);
        Self { walker, given }
    }

    /// Begins a burst on this thread. While it lasts, an unmap of what the device uses waits; so it must be short.
    ///
    /// # Errors
    /// If all slots of the walker are taken.
    pub fn enter(&self) -> Result<InBurst, NoSlot> {
        let (domain, mut stream) = (self.domain(), self.walker.stream()?);
        let burst = ManuallyDrop::new(stream.enter());
        let (generation, translated, writes) = (burst.generation, burst.translated, burst.writes);
        let inside = Inside { domain, stream, generation, translated, writes };
        INSIDE.with_borrow_mut(|all| all.push(inside));
        Ok(InBurst { domain, stays_here: PhantomData })
    }

    /// All memory that the walker knows. After [`Walker::learn`] there is more: give it to the device with
    /// `IommuMemory::with_replaced_backend`. What can only be read is a region too, but is never translated to be written.
    /// When frames have come to name other files, every translation fails until the device has been given memory again.
    ///
    /// # Errors
    /// If there is none.
    pub fn memory(&self) -> Result<GuestRegionCollection<FrameRegion>, GuestRegionCollectionError> {
        let backing = self.walker.domain.learning.backing();
        self.given.store(backing.number().0, Ordering::Relaxed);
        let regions = backing
            .extents()
            .map(|(extent, mapping)| FrameRegion { mapping: Arc::clone(mapping), extent: *extent });
        GuestRegionCollection::from_regions(regions.collect())
    }

    /// The walker.
    #[must_use]
    pub const fn walker(&self) -> &Walker {
        &self.walker
    }

    fn domain(&self) -> DomainAddr {
        DomainAddr(Arc::as_ptr(&self.walker.domain).addr())
    }

    fn lookup(&self, range: &IovaRange, access: Permissions) -> Result<Iotlb, Error> {
        INSIDE.with_borrow(|inside| {
            let Some(inside) = inside.iter().rfind(|inside| inside.domain == self.domain()) else {
                let reason = "this thread is in no burst; call WalkerIommu::enter first".to_owned();
                return Err(Error::IommuMisconfigured { reason });
            };
            if inside.stream.reach.backing().number().0 != self.given.load(Ordering::Relaxed) {
                let reason = "frames name other files than before: learn the address, and give the device WalkerIommu::memory again";
                return Err(Error::IommuMisconfigured { reason: reason.to_owned() });
            }
            let Inside { stream, generation, translated, writes, .. } = inside;
            let burst = Burst { stream, generation: *generation, translated: *translated, writes: *writes };
            fill(&ManuallyDrop::new(burst), range, access)
        })
    }
}

/// The translations of a range.
fn fill(burst: &Burst<'_>, range: &IovaRange, access: Permissions) -> Result<Iotlb, Error> {
    let (mut iotlb, mut at, mut left) = (Iotlb::new(), range.base.0, range.length as u64);
    let refused = |reason: String| Error::CannotResolve { iova_range: range.clone(), reason };
    while left > 0 {
        let found = locate(burst, Iova::new(at), ByteLen::new(left), access);
        let found = found.map_err(|fault| refused(fault.to_string()))?;
        let length = usize::try_from(found.length.get()).map_err(|error| refused(error.to_string()))?;
        let (from, to) = (GuestAddress(at), GuestAddress(found.phys.get()));
        iotlb.set_mapping(from, to, length, permissions(found.permission))?;
        left -= found.length.get();
        at = at.checked_add(found.length.get()).unwrap_or(0);
    }
    Ok(iotlb)
}

fn locate(burst: &Burst<'_>, at: Iova, left: ByteLen, access: Permissions) -> Result<Translation, WalkFault> {
    match access {
        Permissions::No | Permissions::Read => burst.locate(at, left, Access::Read),
        Permissions::Write => burst.locate(at, left, Access::Write),
        Permissions::ReadWrite => {
            burst.locate(at, left, Access::Read)?;
            burst.locate(at, left, Access::Write)
        }
    }
}

const fn permissions(permission: Permission) -> Permissions {
    match permission {
        Permission::Read => Permissions::Read,
        Permission::Write => Permissions::Write,
        Permission::ReadWrite => Permissions::ReadWrite,
        Permission::Neither => Permissions::No,
    }
}

impl Iommu for WalkerIommu {
    type IotlbGuard<'a> = Box<Iotlb>;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<Self::IotlbGuard<'_>>, Error> {
        let range = IovaRange { base: iova, length };
        let iotlb = Box::new(self.lookup(&range, access)?);
        Iotlb::lookup(iotlb, iova, length, access).map_err(|fails| Error::CannotResolve {
            iova_range: range,
            reason: format!("{} parts are not mapped", fails.misses.len() + fails.access_fails.len()),
        })
    }
}

impl Drop for InBurst {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(|inside| {
            let latest = inside.iter().rposition(|inside| inside.domain == self.domain);
            latest.map(|latest| inside.remove(latest))
        });
    }
}

impl GuestMemoryRegion for FrameRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.extent.length
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(self.extent.first)
    }

    fn bitmap(&self) -> BS<'_, Self::B> {}

    fn get_host_address(&self, address: MemoryRegionAddress) -> Result<*mut u8, MemoryError> {
        Ok(self.get_slice(address, 1)?.ptr_guard_mut().as_ptr())
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, Self::B>>, MemoryError> {
        let outside = || MemoryError::InvalidBackendAddress;
        let end = offset.0.checked_add(count as u64).ok_or_else(outside)?;
        if end > self.extent.length {
            return Err(outside());
        }
        let offset = ByteLen::new(self.extent.offset.get() + offset.0);
        let slice = self.mapping.slice(offset, count).map_err(|_| outside())?;
        // SAFETY: the bytes are mapped as long as the region lives, which the slice borrows; whoever else of this process
        // looks at them does so through atomics.
        Ok(unsafe { VolatileSlice::new(slice.as_ptr(), count) })
    }
}

impl GuestMemoryRegionBytes for FrameRegion {}
