//! What a program maps through its open device: pages of its objects, each at an offset of its own.
//!
//! A region goes with its object. A program that has mapped it keeps the object in use.
//!
//! Imports allowed: error, storage, sys, the client crate's units.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use ioasd_client::units::{ByteLen, PAGE_SIZE};

use crate::error::Errno;
use crate::storage::ledger::node::Allowance;
use crate::storage::refusal::Refusal;
use crate::sys::shared_pages::SharedPages;

/// Where a region is: both count whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes of the device before it.
    pub offset: ByteLen,
    /// Its bytes.
    pub length: ByteLen,
}

/// Memory of an object that can be mapped.
#[derive(Debug)]
pub struct Region {
    pages: SharedPages,
    /// Where.
    pub place: Place,
    allowance: Allowance,
}

impl Region {
    /// Whether a program has mapped it, or is about to.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.pages.is_out()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.allowance.give_back(self.place.length.get());
    }
}

/// The regions of a context, by offset.
#[derive(Debug, Default)]
pub struct Regions(RefCell<BTreeMap<u64, Weak<Region>>>);

impl Regions {
    /// Makes one of `length` bytes, which begin with `first`, at the lowest offset from the second page on. Its bytes count
    /// towards `allowance`.
    ///
    /// # Errors
    /// If that passes a limit; what the kernel says.
    pub fn add(&self, length: ByteLen, first: &[u8], allowance: Allowance) -> Result<Rc<Region>, Refusal> {
        let pages = SharedPages::new("ioasd-viommu", length, first).map_err(|error| Refusal::of(&error))?;
        allowance.take(length.get()).map_err(|exceeded| Refusal::of(&exceeded))?;
        let place = Place { offset: self.lowest_free(length), length };
        let region = Rc::new(Region { pages, place, allowance });
        self.0.borrow_mut().insert(place.offset.get(), Rc::downgrade(&region));
        Ok(region)
    }

    fn lowest_free(&self, length: ByteLen) -> ByteLen {
        let mut regions = self.0.borrow_mut();
        regions.retain(|_, region| region.strong_count() > 0);
        let mut free = PAGE_SIZE;
        for place in regions.values().filter_map(Weak::upgrade).map(|region| region.place) {
            if place.offset.get() - free >= length.get() {
                break;
            }
            free = place.offset.get().saturating_add(place.length.get());
        }
        ByteLen::new(free)
    }

    /// A descriptor to map the region with that is exactly there.
    ///
    /// # Errors
    /// ENXIO if none is; what the kernel says.
    pub fn open(&self, place: Place) -> Result<OwnedFd, Refusal> {
        let region = self.0.borrow().get(&place.offset.get()).and_then(Weak::upgrade);
        let region = region.filter(|region| region.place == place).ok_or_else(|| {
            let Place { offset, length } = place;
            let text = format!("{length} bytes at {offset} are no region: map all of what VIOMMU_ALLOC told");
            Refusal::new(Errno::NXIO, "region-absent", text)
        })?;
        region.pages.hand_out().map_err(|error| Refusal::of(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded;
    use crate::storage::ledger::resource::Resource;

    #[test]
    fn regions_lie_at_the_lowest_free_offset_and_are_told_apart_exactly() {
        let (regions, allowance) = (Regions::default(), Allowance::alone(Resource::Tables, 5 * PAGE_SIZE));
        let add = |pages: u64| regions.add(ByteLen::new(pages * PAGE_SIZE), &[], allowance.clone());
        let (first, second) = (add(2).unwrap(), add(2).unwrap());
        assert_eq!([&first, &second].map(|region| region.place.offset.get() / PAGE_SIZE), [1, 3]);
        assert_eq!(add(2).unwrap_err().errno(), Errno::NOMEM, "over the limit");
        drop(first);
        assert_eq!(allowance.used(), 2 * PAGE_SIZE);
        let third = add(1).unwrap();
        assert_eq!(
            (third.place.offset.get(), add(2).unwrap().place.offset.get()),
            (PAGE_SIZE, 5 * PAGE_SIZE)
        );
        let Place { offset, length } = second.place;
        for place in [Place { offset, length: ByteLen::new(PAGE_SIZE) }, Place { offset: length, length }] {
            assert_eq!(regions.open(place).unwrap_err().errno(), Errno::NXIO);
        }
        let open = regions.open(second.place).unwrap();
        assert!(second.is_mapped() && !third.is_mapped());
        drop(open);
        assert!(!second.is_mapped());
    }
}
