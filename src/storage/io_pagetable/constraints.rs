//! What attached things ask of an IOAS: an alignment, and ranges to keep free.
//!
//! Each request names its owner and holds until the owner goes. Adding one checks every area, also one that is not
//! ready; a request that is refused changes nothing. Raising the alignment looks at all areas; the rest is logarithmic.
//!
//! Imports allowed: units, error.

use std::fmt;

use ioasd_client::units::{ByteLen, IovaRange, PAGE_SIZE};

use super::IoPageTable;
use super::range_set::before;
use crate::error::{Coded, Errno};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// An IO page table.
    Domain(u64),
    /// A software user.
    Access(u64),
    /// A device with reserved regions.
    Device(u64),
    /// The test command.
    Command,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(id) => write!(f, "domain {id}"),
            Self::Access(id) => write!(f, "access {id}"),
            Self::Device(id) => write!(f, "device {id}"),
            Self::Command => f.write_str("the test command"),
        }
    }
}

/// Why something cannot be attached to an IOAS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The alignment is no power of two, or larger than a page.
    #[error("{owner} needs iovas aligned to {alignment:#x}: give it a power of two, at most the page size {max:#x}", max = PAGE_SIZE)]
    Alignment {
        /// Who asked.
        owner: Owner,
        /// What it asked for.
        alignment: u64,
    },
    /// An area does not have the alignment.
    #[error(
        "{owner} needs alignment {alignment:#x}, area {area} with offset {page_offset} in its page has less: unmap it first"
    )]
    AreaMisaligned {
        /// Who asked.
        owner: Owner,
        /// What it asked for.
        alignment: u64,
        /// The area.
        area: IovaRange,
        /// Its place in its first page.
        page_offset: ByteLen,
    },
    /// An area lies in the range to reserve.
    #[error("{owner} reserves {wanted}, area {area} lies there: unmap it first")]
    AreaInReserved {
        /// Who asked.
        owner: Owner,
        /// The range it asked for.
        wanted: IovaRange,
        /// The area.
        area: IovaRange,
    },
    /// An allowed range lies in the range to reserve.
    #[error(
        "{owner} reserves {wanted}, but {allowed} is promised as allowed: change the allowed ranges first"
    )]
    AllowedInReserved {
        /// Who asked.
        owner: Owner,
        /// The range it asked for.
        wanted: IovaRange,
        /// The allowed range.
        allowed: IovaRange,
    },
}

impl Coded for AttachError {
    fn errno(&self) -> Errno {
        match self {
            Self::Alignment { .. } => Errno::INVAL,
            Self::AreaMisaligned { .. } | Self::AreaInReserved { .. } | Self::AllowedInReserved { .. } => {
                Errno::ADDRINUSE
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Alignment { .. } => "alignment-unsupported",
            Self::AreaMisaligned { .. } => "area-misaligned",
            Self::AreaInReserved { .. } => "reserved-range-mapped",
            Self::AllowedInReserved { .. } => "reserved-range-allowed",
        }
    }
}

impl<P> IoPageTable<P> {
    /// The alignment every new area must have.
    #[must_use]
    pub const fn alignment(&self) -> u64 {
        self.alignments.current()
    }

    /// The addresses that nobody has reserved, in ascending order.
    #[must_use]
    pub fn usable_ranges(&self) -> Vec<IovaRange> {
        self.reserved.union().holes()
    }

    /// Adds what a domain needs: its smallest page size as alignment, and everything outside its aperture reserved.
    ///
    /// # Errors
    /// If one of the three is refused; nothing changes then.
    pub fn add_domain(
        &mut self,
        owner: Owner,
        alignment: u64,
        aperture: IovaRange,
    ) -> Result<(), AttachError> {
        self.add_alignment(owner, alignment)?;
        let reserved = outside(aperture).try_for_each(|range| self.add_reserved(owner, range));
        reserved.inspect_err(|_| self.remove_owner(owner))
    }

    /// Forgets all that `owner` asked for.
    pub fn remove_owner(&mut self, owner: Owner) {
        self.remove_alignment(owner);
        self.remove_reserved(owner);
    }

    /// Raises the alignment to `alignment` at least, until `owner` goes. An owner asks once.
    ///
    /// # Errors
    /// If the alignment is not one a page has, or if an area lacks it.
    pub fn add_alignment(&mut self, owner: Owner, alignment: u64) -> Result<(), AttachError> {
        if !alignment.is_power_of_two() || alignment > PAGE_SIZE {
            return Err(AttachError::Alignment { owner, alignment });
        }
        if let Some((area, page_offset)) = self.misaligned_area(alignment) {
            return Err(AttachError::AreaMisaligned { owner, alignment, area, page_offset });
        }
        self.alignments.add(owner, alignment);
        Ok(())
    }

    /// Drops the alignment that `owner` asked for.
    pub fn remove_alignment(&mut self, owner: Owner) {
        self.alignments.remove(owner);
    }

    /// Keeps areas out of `range` until `owner` goes.
    ///
    /// # Errors
    /// If an area or an allowed range shares an address with it.
    pub fn add_reserved(&mut self, owner: Owner, range: IovaRange) -> Result<(), AttachError> {
        if let Some(area) = self.areas.first_in(range) {
            return Err(AttachError::AreaInReserved { owner, wanted: range, area: area.iova() });
        }
        if let Some(allowed) = self.allowed.first_in(range) {
            return Err(AttachError::AllowedInReserved { owner, wanted: range, allowed });
        }
        self.reserved.add(owner, range);
        Ok(())
    }

    /// Drops every range that `owner` reserved.
    pub fn remove_reserved(&mut self, owner: Owner) {
        self.reserved.remove(owner);
    }

    /// The first area that lacks `alignment`, if that is more than the alignment now.
    pub(super) fn misaligned_area(&self, alignment: u64) -> Option<(IovaRange, ByteLen)> {
        if alignment <= self.alignment() {
            return None;
        }
        let area = self.areas.iter().find(|area| !area.is_aligned(alignment))?;
        Some((area.iova(), area.shape().page_offset()))
    }
}

/// What lies below and above `aperture`.
fn outside(aperture: IovaRange) -> impl Iterator<Item = IovaRange> {
    let all = IovaRange::ALL;
    let below = before(aperture.start()).and_then(|last| IovaRange::new(all.start(), last));
    let above = aperture.last().checked_add(1).and_then(|start| IovaRange::new(start, all.last()));
    below.into_iter().chain(above)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{mapped, mapped_row, piece, range, table};
    use super::*;

    #[test]
    fn an_alignment_is_refused_while_an_area_starts_inside_a_page_and_falls_back_on_detach() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x1000, 0x800));
        let error = table.add_alignment(Owner::Access(1), PAGE_SIZE).unwrap_err();
        assert_eq!((error.errno(), error.code()), (Errno::ADDRINUSE, "area-misaligned"));
        assert_eq!(table.alignment(), 1);
        table.add_domain(Owner::Domain(1), 2048, IovaRange::ALL).unwrap();
        assert_eq!(table.alignment(), 2048);
        table.begin_retire(id);
        assert_eq!(table.add_alignment(Owner::Access(1), PAGE_SIZE).unwrap_err().errno(), Errno::ADDRINUSE);
        table.remove(id).unwrap();
        table.add_alignment(Owner::Access(1), PAGE_SIZE).unwrap();
        table.remove_owner(Owner::Access(1));
        table.remove_owner(Owner::Domain(1));
        assert_eq!(table.alignment(), 1);
        table.check();
    }

    #[test]
    fn an_alignment_there_already_is_not_checked_again() {
        let mut table = table();
        table.add_alignment(Owner::Access(1), PAGE_SIZE).unwrap();
        mapped_row(&mut table, 0x1000, &[piece(0x800, 0), piece(0x800, 0)]);
        table.add_alignment(Owner::Access(2), PAGE_SIZE).unwrap();
        table.remove_owner(Owner::Access(1));
        table.remove_owner(Owner::Access(2));
        assert_eq!(table.add_alignment(Owner::Access(2), PAGE_SIZE).unwrap_err().errno(), Errno::ADDRINUSE);
    }

    #[test]
    fn alignments_that_no_page_has_are_refused() {
        for alignment in [0, 3, 2 * PAGE_SIZE] {
            let error = table().add_alignment(Owner::Domain(1), alignment).unwrap_err();
            assert_eq!(error.errno(), Errno::INVAL);
        }
    }

    #[test]
    fn a_domain_whose_aperture_is_refused_leaves_nothing_behind() {
        let mut table = table();
        mapped(&mut table, 0x10_0000, piece(0x1000, 0));
        let error = table.add_domain(Owner::Domain(1), PAGE_SIZE, range(0x1000, 0xf_ffff)).unwrap_err();
        assert_eq!((error.errno(), error.code()), (Errno::ADDRINUSE, "reserved-range-mapped"));
        assert_eq!((table.alignment(), table.usable_ranges()), (1, vec![IovaRange::ALL]));
        table.set_allowed(vec![range(0, 0x1fff)]).unwrap();
        let error = table.add_domain(Owner::Domain(1), PAGE_SIZE, range(0x1000, 0x10_ffff)).unwrap_err();
        assert_eq!((error.errno(), error.code()), (Errno::ADDRINUSE, "reserved-range-allowed"));
        assert_eq!((table.alignment(), table.usable_ranges()), (1, vec![IovaRange::ALL]));
        table.check();
    }

    #[test]
    fn the_usable_ranges_are_the_aperture() {
        let mut table = table();
        let aperture = range(0x1000, u64::MAX - 1);
        table.add_domain(Owner::Domain(1), 1, aperture).unwrap();
        assert_eq!(table.usable_ranges(), [aperture]);
        table.remove_owner(Owner::Domain(1));
        assert_eq!(table.usable_ranges(), [IovaRange::ALL]);
        table.add_reserved(Owner::Device(1), IovaRange::ALL).unwrap();
        table.add_reserved(Owner::Device(2), range(3, 5)).unwrap();
        assert_eq!(table.usable_ranges(), []);
        table.check();
    }
}
