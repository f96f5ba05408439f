//! Automatic placement: which hole of an address space a new mapping gets.
//!
//! First fit, lowest address first. The alignment of a mapping is as large as its length and its origin suggest, so
//! that large pages become possible, and at most [`HUGE_PAGE_SIZE`]; the origin's place within its page is ORed into
//! the address. Neither the first nor the last page of the address space is ever given out, and no hole of one byte.
//!
//! The search walks the used ranges from the lowest address on: its cost is linear in the ranges below the result. It
//! is the only placement step that is not logarithmic.
//!
//! Imports allowed: units, error.

use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE};

use crate::error::{Coded, Errno};

/// The largest alignment a mapping is given.
pub const HUGE_PAGE_SIZE: u64 = 1 << 21;

/// First length that automatic placement refuses.
const LENGTH_LIMIT: u64 = u64::MAX / 2;

/// Where the first byte of a mapping lies in its origin: a user address, or an offset in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OriginAddr(u64);

impl OriginAddr {
    /// Wraps a user address or a file offset.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Why no address could be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// The length is beyond what automatic placement handles.
    #[error("length {length} is too long for automatic placement, at most {max:#x}: map it in parts, or at a fixed iova", max = LENGTH_LIMIT - 1)]
    TooLong {
        /// The length asked for.
        length: ByteLen,
    },
    /// The mapping starts at an odd place of its origin, or is too short, for the alignment the IOAS needs.
    #[error(
        "origin {origin:#x} with length {length} is aligned to {found:#x} only, the ioas needs {required:#x}: align the memory"
    )]
    Misaligned {
        /// The origin.
        origin: u64,
        /// The length asked for.
        length: ByteLen,
        /// The alignment that origin and length allow.
        found: u64,
        /// The alignment of the IOAS.
        required: u64,
    },
    /// No hole is large enough.
    #[error(
        "no hole of {length} aligned to {alignment:#x} outside areas and reserved ranges, within the allowed ranges: unmap something or widen the allowed ranges"
    )]
    NoSpace {
        /// The length asked for.
        length: ByteLen,
        /// The alignment asked for.
        alignment: u64,
    },
}

impl Coded for AllocateError {
    fn errno(&self) -> Errno {
        match self {
            Self::TooLong { .. } => Errno::OVERFLOW,
            Self::Misaligned { .. } => Errno::INVAL,
            Self::NoSpace { .. } => Errno::NOSPC,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "length-too-long",
            Self::Misaligned { .. } => "origin-misaligned",
            Self::NoSpace { .. } => "iova-space-exhausted",
        }
    }
}

/// What a hole must offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    length: ByteLen,
    alignment: u64,
    low_bits: u64,
}

impl Fit {
    /// The addresses automatic placement may give out.
    #[must_use]
    pub const fn window() -> IovaRange {
        match IovaRange::new(Iova::new(PAGE_SIZE), Iova::new(u64::MAX - PAGE_SIZE)) {
            Some(window) => window,
            None => IovaRange::ALL,
        }
    }

    /// What `length` bytes from `origin` need in an IOAS whose alignment is `required`.
    ///
    /// # Errors
    /// If the length is too long, or origin and length do not allow the required alignment.
    pub fn new(length: ByteLen, origin: OriginAddr, required: u64) -> Result<Self, AllocateError> {
        if length.get() == 0 || length.get() >= LENGTH_LIMIT {
            return Err(AllocateError::TooLong { length });
        }
        let alignment = natural_alignment(length, origin);
        if alignment < required {
            return Err(AllocateError::Misaligned {
                origin: origin.get(),
                length,
                found: alignment,
                required,
            });
        }
        Ok(Self { length, alignment, low_bits: origin.get() % PAGE_SIZE })
    }

    /// The lowest place in `span` that avoids `used`, ranges in ascending order of their starts.
    #[must_use]
    pub fn first_in(&self, span: IovaRange, used: impl Iterator<Item = IovaRange>) -> Option<IovaRange> {
        let mut free = span.start();
        for range in used {
            if let Some(found) =
                range.start().get().checked_sub(1).and_then(|last| self.at(free, Iova::new(last)))
            {
                return Some(found);
            }
            free = free.max(range.last().checked_add(1)?);
        }
        self.at(free, span.last())
    }

    /// The error when no span has a place.
    #[must_use]
    pub const fn no_space(&self) -> AllocateError {
        AllocateError::NoSpace { length: self.length, alignment: self.alignment }
    }

    /// The place in the hole `first..=last`, if it fits.
    fn at(&self, first: Iova, last: Iova) -> Option<IovaRange> {
        let rounded = first.checked_add(self.alignment - 1)?.get() & !(self.alignment - 1);
        let start = Iova::new(rounded | self.low_bits);
        if start >= last {
            return None;
        }
        let found = IovaRange::from_length(start, self.length)?;
        (found.last() <= last).then_some(found)
    }
}

fn natural_alignment(length: ByteLen, origin: OriginAddr) -> u64 {
    let by_length = length.get().next_power_of_two();
    let by_origin = 1_u64.checked_shl(origin.get().trailing_zeros()).unwrap_or(u64::MAX);
    by_length.min(by_origin).min(HUGE_PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(length: u64, origin: u64) -> Fit {
        Fit::new(ByteLen::new(length), OriginAddr::new(origin), 1).unwrap()
    }

    fn range(start: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova::new(start), Iova::new(last)).unwrap()
    }

    fn start(fit: Fit, used: &[IovaRange]) -> Option<u64> {
        fit.first_in(Fit::window(), used.iter().copied()).map(|found| found.start().get())
    }

    #[test]
    fn an_empty_space_gives_the_first_aligned_address_above_the_first_page() {
        assert_eq!(start(fit(1, 0), &[]), Some(PAGE_SIZE));
        assert_eq!(start(fit(3 * PAGE_SIZE, 0), &[]), Some(4 * PAGE_SIZE));
        assert_eq!(start(fit(1 << 30, 0), &[]), Some(HUGE_PAGE_SIZE));
        assert_eq!(start(fit(1 << 30, PAGE_SIZE), &[]), Some(PAGE_SIZE));
    }

    #[test]
    fn the_low_bits_of_the_origin_are_ored_in() {
        assert_eq!(start(fit(2048, 0x7000_0800), &[]), Some(0x1800));
        assert_eq!(start(fit(0x400, 0x800), &[range(0x1000, 0x13ff)]), Some(0x1c00));
    }

    #[test]
    fn a_hole_of_one_byte_is_never_given_out_and_one_of_two_is() {
        assert_eq!(start(fit(1, 0), &[range(0, 0x1fff), range(0x2001, u64::MAX)]), None);
        assert_eq!(start(fit(1, 0), &[range(0, 0x1fff), range(0x2002, u64::MAX)]), Some(0x2000));
    }

    #[test]
    fn the_last_page_is_never_given_out() {
        let below = u64::MAX - 2 * PAGE_SIZE;
        assert_eq!(start(fit(PAGE_SIZE, 0), &[range(0, below)]), Some(below + 1));
        assert_eq!(start(fit(PAGE_SIZE, 0), &[range(0, below + 1)]), None);
        assert_eq!(start(fit(1, 0), &[range(0, u64::MAX)]), None);
    }

    #[test]
    fn lengths_from_half_the_space_on_are_refused() {
        let make = |length| Fit::new(ByteLen::new(length), OriginAddr::new(0), 1);
        assert!(make(u64::MAX / 2 - 1).is_ok());
        assert_eq!(make(u64::MAX / 2).unwrap_err().errno(), Errno::OVERFLOW);
        assert_eq!(make(0).unwrap_err().errno(), Errno::OVERFLOW);
    }

    #[test]
    fn an_odd_origin_cannot_meet_the_alignment_of_the_ioas() {
        let error = Fit::new(ByteLen::new(PAGE_SIZE), OriginAddr::new(1), PAGE_SIZE).unwrap_err();
        assert_eq!((error.errno(), error.code()), (Errno::INVAL, "origin-misaligned"));
    }
}
