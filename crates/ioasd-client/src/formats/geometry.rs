//! The size and shape of a table.
//!
//! Imports allowed: units, formats.

use super::{Format, FormatId};
use crate::units::{Iova, IovaRange};

/// The size and shape of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// The format.
    pub format: FormatId,
    /// Levels walked.
    pub levels: u32,
    /// log2 of the bytes that an entry of level 0 covers.
    pub granule_lg2: u32,
    /// Bits of the addresses that leaves name.
    pub output_lg2: u32,
    /// The IOVAs that can be mapped.
    pub aperture: IovaRange,
}

impl Geometry {
    /// The geometry of format `F`, with everything it can translate as its aperture.
    #[must_use]
    pub const fn of<F: Format>() -> Self {
        let last = Iova::new(u64::MAX >> (64 - F::IOVA_LG2));
        let aperture = match IovaRange::new(Iova::new(0), last) {
            Some(range) => range,
            None => IovaRange::ALL,
        };
        Self {
            format: F::ID,
            levels: F::LEVELS,
            granule_lg2: F::GRANULE_LG2,
            output_lg2: F::OUTPUT_LG2,
            aperture,
        }
    }

    /// Bytes that an entry of level 0 covers.
    #[must_use]
    pub const fn granule(&self) -> u64 {
        1 << self.granule_lg2
    }
}
