//! The allowed ranges: where automatic placement may put areas, if there are any. Fixed placement ignores them.
//!
//! Imports allowed: units, error.

use ioasd_client::units::{Iova, IovaRange};

use super::IoPageTable;
use super::constraints::Owner;
use super::range_set::RangeSet;
use crate::error::{Coded, Errno};

/// Why a list of allowed ranges is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    /// A range has fewer than two bytes.
    #[error(
        "allowed range from {start} to {last} has fewer than two bytes: give a last address above the start"
    )]
    TooShort {
        /// First address.
        start: Iova,
        /// Last address.
        last: Iova,
    },
    /// Two ranges of the list share an address.
    #[error("allowed ranges {first} and {second} overlap: merge them")]
    Overlap {
        /// One of them.
        first: IovaRange,
        /// The other.
        second: IovaRange,
    },
    /// A range shares an address with a reserved one.
    #[error("allowed range {allowed} overlaps {reserved}, reserved by {owner}: leave that out")]
    Reserved {
        /// The allowed range.
        allowed: IovaRange,
        /// The reserved range.
        reserved: IovaRange,
        /// Who reserved it.
        owner: Owner,
    },
}

impl Coded for AllowError {
    fn errno(&self) -> Errno {
        match self {
            Self::TooShort { .. } | Self::Overlap { .. } => Errno::INVAL,
            Self::Reserved { .. } => Errno::ADDRINUSE,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => "allowed-range-too-short",
            Self::Overlap { .. } => "allowed-ranges-overlap",
            Self::Reserved { .. } => "allowed-range-reserved",
        }
    }
}

/// The range of a request that names both ends.
///
/// # Errors
/// If it has fewer than two bytes.
pub fn check_allowed_range(start: Iova, last: Iova) -> Result<IovaRange, AllowError> {
    let range = IovaRange::new(start, last).filter(|_| start != last);
    range.ok_or(AllowError::TooShort { start, last })
}

impl<P> IoPageTable<P> {
    /// Replaces the allowed ranges; an empty list lifts the restriction. Areas outside stay.
    ///
    /// # Errors
    /// If a range is too short, two of them overlap, or one shares an address with a reserved range; the old list
    /// stays then.
    pub fn set_allowed(&mut self, ranges: Vec<IovaRange>) -> Result<(), AllowError> {
        let mut ranges = ranges;
        ranges.sort_unstable();
        for range in &ranges {
            check_allowed_range(range.start(), range.last())?;
        }
        check_disjoint(&ranges)?;
        ranges.iter().try_for_each(|range| self.check_not_reserved(*range))?;
        self.allowed = RangeSet::union_of(ranges);
        Ok(())
    }

    /// The allowed ranges in ascending order, those that touch as one; empty if there is no restriction.
    pub fn allowed_ranges(&self) -> impl Iterator<Item = IovaRange> {
        self.allowed.iter()
    }

    fn check_not_reserved(&self, allowed: IovaRange) -> Result<(), AllowError> {
        match self.reserved.conflict(allowed) {
            Some((owner, reserved)) => Err(AllowError::Reserved { allowed, reserved, owner }),
            None => Ok(()),
        }
    }
}

fn check_disjoint(sorted: &[IovaRange]) -> Result<(), AllowError> {
    let neighbours = sorted.iter().zip(sorted.iter().skip(1));
    match neighbours.into_iter().find(|(first, second)| first.intersects(**second)) {
        Some((first, second)) => Err(AllowError::Overlap { first: *first, second: *second }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{range, table};
    use super::*;

    fn errno(ranges: &[(u64, u64)]) -> Option<Errno> {
        let mut table = table();
        table.add_reserved(Owner::Command, range(0x8000, 0x8fff)).unwrap();
        let ranges = ranges.iter().map(|&(start, last)| range(start, last)).collect();
        let result = table.set_allowed(ranges);
        table.check();
        result.err().map(|error| error.errno())
    }

    #[test]
    fn one_byte_ranges_and_overlaps_are_invalid_and_touching_is_fine() {
        assert_eq!(errno(&[(5, 5)]), Some(Errno::INVAL));
        assert_eq!(errno(&[(10, 20), (0, 10)]), Some(Errno::INVAL));
        assert_eq!(errno(&[(10, 20), (0, 9)]), None);
        assert_eq!(errno(&[(0, 1), (u64::MAX - 1, u64::MAX)]), None);
        let reversed = check_allowed_range(Iova::new(2), Iova::new(1)).unwrap_err();
        assert_eq!((reversed.errno(), reversed.code()), (Errno::INVAL, "allowed-range-too-short"));
    }

    #[test]
    fn a_list_with_an_overlap_is_invalid_even_where_it_is_reserved() {
        assert_eq!(errno(&[(0x8000, 0x8fff), (0x8fff, 0x9000)]), Some(Errno::INVAL));
        assert_eq!(errno(&[(0x8fff, 0x9000)]), Some(Errno::ADDRINUSE));
        assert_eq!(errno(&[(0x9000, 0x9001), (0x7000, 0x7fff)]), None);
    }

    #[test]
    fn a_refused_list_keeps_the_old_one_and_an_empty_one_lifts_it() {
        let mut table = table();
        table.set_allowed(vec![range(0, 9), range(10, 19)]).unwrap();
        assert!(table.set_allowed(vec![range(30, 30)]).is_err());
        assert_eq!(table.allowed_ranges().collect::<Vec<_>>(), [range(0, 19)]);
        table.set_allowed(vec![]).unwrap();
        assert_eq!(table.allowed_ranges().count(), 0);
    }
}
