//! Checks of a request's numbers, before any table is looked at.
//!
//! A front end calls these in the order of the uAPI: the `*_request` checks before it looks up the IOAS, the others
//! after. The engine's own tests use the same functions.
//!
//! Imports allowed: units, error.

use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission, UserAddr};

use super::unmap::UnmapError;
use crate::error::{Coded, Errno};

/// Longest memory a MAP may name: its pages must be countable.
const MEMORY_MAX: u64 = u64::MAX - PAGE_SIZE;

/// Which number of a request is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The IOVA.
    Iova,
    /// The source IOVA of a COPY.
    SourceIova,
    /// The destination IOVA of a COPY.
    DestinationIova,
    /// The length.
    Length,
}

impl Field {
    const fn name(self) -> &'static str {
        match self {
            Self::Iova => "iova",
            Self::SourceIova => "src_iova",
            Self::DestinationIova => "dst_iova",
            Self::Length => "length",
        }
    }
}

/// Why a request makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A number is 2^64-1.
    #[error("{} is 2^64-1, which stands for no address and no length: give a smaller one", .field.name())]
    Maximum {
        /// Which number.
        field: Field,
    },
    /// Neither reading nor writing is asked for.
    #[error("neither readable nor writeable is set: set one of them")]
    NoPermission,
    /// The length is 0.
    #[error("the length of the range at {start:#x} is 0: give at least one byte")]
    ZeroLength {
        /// Where the range starts.
        start: u64,
    },
    /// The range would pass the end of the 64-bit space.
    #[error("{length} bytes from {start:#x} pass the end of the 64-bit space: shorten the range")]
    PastEnd {
        /// Where the range starts.
        start: u64,
        /// Its length.
        length: ByteLen,
    },
    /// The memory has more pages than can be counted.
    #[error("length {length} is above {max:#x}: map the memory in parts", max = MEMORY_MAX)]
    TooLong {
        /// The length.
        length: ByteLen,
    },
}

impl Coded for RequestError {
    fn errno(&self) -> Errno {
        match self {
            Self::Maximum { .. } | Self::PastEnd { .. } => Errno::OVERFLOW,
            Self::NoPermission | Self::ZeroLength { .. } | Self::TooLong { .. } => Errno::INVAL,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Maximum { .. } => "number-is-maximum",
            Self::NoPermission => "no-permission-asked",
            Self::ZeroLength { .. } => "length-zero",
            Self::PastEnd { .. } => "range-past-end",
            Self::TooLong { .. } => "length-too-long",
        }
    }
}

/// What an UNMAP is asked to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmapRequest {
    /// All areas, also if there are none.
    Everything,
    /// The areas of a range, at least one.
    Range(IovaRange),
}

impl UnmapRequest {
    /// The addresses to walk.
    #[must_use]
    pub const fn range(self) -> IovaRange {
        match self {
            Self::Everything => IovaRange::ALL,
            Self::Range(range) => range,
        }
    }

    /// The result of a walk that removed areas of `removed` bytes without an error.
    ///
    /// # Errors
    /// If nothing was removed, unless everything was asked for.
    pub const fn finish(self, removed: ByteLen) -> Result<ByteLen, UnmapError> {
        match self {
            Self::Range(range) if removed.get() == 0 => Err(UnmapError::NothingMapped { range }),
            _ => Ok(removed),
        }
    }
}

fn check_not_maximum(numbers: &[(Field, u64)]) -> Result<(), RequestError> {
    match numbers.iter().find(|(_, number)| *number == u64::MAX) {
        Some((field, _)) => Err(RequestError::Maximum { field: *field }),
        None => Ok(()),
    }
}

/// MAP and MAP_FILE before the IOAS is looked up. `iova` counts whether or not the placement is fixed.
///
/// # Errors
/// If a number is 2^64-1, or no permission is asked for.
pub fn check_map_request(
    iova: Iova,
    length: ByteLen,
    permission: Option<Permission>,
) -> Result<Permission, RequestError> {
    check_not_maximum(&[(Field::Iova, iova.get()), (Field::Length, length.get())])?;
    permission.ok_or(RequestError::NoPermission)
}

/// MAP's memory, after the IOAS has been looked up.
///
/// # Errors
/// If it passes the end of the address space, is empty, or has more pages than can be counted.
pub fn check_user_memory(addr: UserAddr, length: ByteLen) -> Result<(), RequestError> {
    if addr.checked_add(length.get()).is_none() {
        return Err(RequestError::PastEnd { start: addr.get(), length });
    }
    match length.get() {
        0 => Err(RequestError::ZeroLength { start: addr.get() }),
        1..=MEMORY_MAX => Ok(()),
        _ => Err(RequestError::TooLong { length }),
    }
}

/// MAP_FILE's part of the file, after the IOAS has been looked up.
///
/// # Errors
/// If it is empty or passes the largest offset.
pub fn check_file_range(start: ByteLen, length: ByteLen) -> Result<(), RequestError> {
    check_range(Iova::new(start.get()), length).map(|_| ())
}

/// COPY before the IOASes are looked up.
///
/// # Errors
/// If a number is 2^64-1, or no permission is asked for.
pub fn check_copy_request(
    length: ByteLen,
    source: Iova,
    destination: Iova,
    permission: Option<Permission>,
) -> Result<Permission, RequestError> {
    check_not_maximum(&[
        (Field::Length, length.get()),
        (Field::SourceIova, source.get()),
        (Field::DestinationIova, destination.get()),
    ])?;
    permission.ok_or(RequestError::NoPermission)
}

/// A range of IOVAs: COPY's source after its IOAS has been looked up, and what an access pins, reads or writes.
///
/// # Errors
/// If it is empty or passes the last address.
pub const fn check_range(start: Iova, length: ByteLen) -> Result<IovaRange, RequestError> {
    if length.get() == 0 {
        return Err(RequestError::ZeroLength { start: start.get() });
    }
    match IovaRange::from_length(start, length) {
        Some(range) => Ok(range),
        None => Err(RequestError::PastEnd { start: start.get(), length }),
    }
}

/// UNMAP, after the IOAS has been looked up.
///
/// # Errors
/// If a number is 2^64-1 and the request is not (0, 2^64-1), or as [`check_range`].
pub fn check_unmap_request(iova: Iova, length: ByteLen) -> Result<UnmapRequest, RequestError> {
    if iova.get() == 0 && length.get() == u64::MAX {
        return Ok(UnmapRequest::Everything);
    }
    check_not_maximum(&[(Field::Iova, iova.get()), (Field::Length, length.get())])?;
    check_range(iova, length).map(UnmapRequest::Range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = u64::MAX;

    fn errno<T>(result: Result<T, RequestError>) -> Option<Errno> {
        result.err().map(|error| error.errno())
    }

    #[test]
    fn a_map_checks_the_maximum_before_the_permission() {
        let check = |iova, length, permission| {
            errno(check_map_request(Iova::new(iova), ByteLen::new(length), permission))
        };
        assert_eq!(check(MAX, 1, None), Some(Errno::OVERFLOW));
        assert_eq!(check(0, MAX, None), Some(Errno::OVERFLOW));
        assert_eq!(check(0, 0, None), Some(Errno::INVAL));
        assert_eq!(check(0, 0, Some(Permission::Read)), None);
    }

    #[test]
    fn user_memory_overflows_before_it_is_empty_or_too_long() {
        let check = |addr, length| errno(check_user_memory(UserAddr::new(addr), ByteLen::new(length)));
        assert_eq!(check(2, MAX - 1), Some(Errno::OVERFLOW));
        assert_eq!(check(MAX, 0), Some(Errno::INVAL));
        assert_eq!(check(0, MAX - PAGE_SIZE), None);
        assert_eq!(check(0, MAX - PAGE_SIZE + 1), Some(Errno::INVAL));
    }

    #[test]
    fn a_file_range_may_end_at_the_last_offset_and_not_beyond() {
        let check = |start, length| errno(check_file_range(ByteLen::new(start), ByteLen::new(length)));
        assert_eq!(check(MAX, 1), None);
        assert_eq!(check(MAX, 2), Some(Errno::OVERFLOW));
        assert_eq!(check(MAX, 0), Some(Errno::INVAL));
    }

    #[test]
    fn a_copy_refuses_the_maximum_in_every_number() {
        for (length, source, destination) in [(MAX, 0, 0), (1, MAX, 0), (1, 0, MAX)] {
            let result =
                check_copy_request(ByteLen::new(length), Iova::new(source), Iova::new(destination), None);
            assert_eq!(errno(result), Some(Errno::OVERFLOW));
        }
        assert_eq!(
            errno(check_copy_request(ByteLen::new(0), Iova::new(0), Iova::new(0), None)),
            Some(Errno::INVAL)
        );
    }

    #[test]
    fn only_zero_with_the_maximal_length_unmaps_everything() {
        let check = |iova, length| check_unmap_request(Iova::new(iova), ByteLen::new(length));
        assert_eq!(check(0, MAX), Ok(UnmapRequest::Everything));
        assert_eq!(errno(check(1, MAX)), Some(Errno::OVERFLOW));
        assert_eq!(errno(check(MAX, 0)), Some(Errno::OVERFLOW));
        assert_eq!(errno(check(MAX, 1)), Some(Errno::OVERFLOW));
        assert_eq!(errno(check(5, 0)), Some(Errno::INVAL));
        assert_eq!(errno(check(5, MAX - 1)), Some(Errno::OVERFLOW));
        assert_eq!(check(2, MAX - 1).map(|request| request.range().last()), Ok(Iova::new(MAX)));
    }

    #[test]
    fn unmapping_everything_of_nothing_succeeds_and_a_range_of_nothing_does_not() {
        assert_eq!(UnmapRequest::Everything.finish(ByteLen::new(0)), Ok(ByteLen::new(0)));
        let range = UnmapRequest::Range(IovaRange::ALL);
        assert_eq!(range.finish(ByteLen::new(0)).unwrap_err().errno(), Errno::NOENT);
        assert_eq!(range.finish(ByteLen::new(9)), Ok(ByteLen::new(9)));
    }
}
