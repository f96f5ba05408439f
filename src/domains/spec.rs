//! What a table shall be: its format, what it translates, and the sizes its leaves may have.
//!
//! Imports allowed: units, error, the client crate's formats.

use ioasd_client::formats::{FormatId, Geometry, PageSizes};
use ioasd_client::units::{IovaRange, PAGE_SIZE};

use crate::error::{Coded, Errno};

/// A format, and which part of it a table uses. Every value of it is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableSpec {
    format: FormatId,
    aperture: IovaRange,
    page_sizes: PageSizes,
    recording: Recording,
}

/// What entries record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recording {
    /// Nothing.
    Nothing,
    /// That something was written through them.
    Writes,
}

/// Why there can be no such table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// More is to be translated than the format can.
    #[error("a table of {} cannot translate {wanted}: ask for a part of {possible}", format.name())]
    Aperture {
        /// The format.
        format: FormatId,
        /// What was asked for.
        wanted: IovaRange,
        /// What the format translates.
        possible: IovaRange,
    },
    /// A size that the format does not have, or no size at all.
    #[error(
        "a table of {} cannot have the page sizes {wanted}: ask for at least one and for some of {possible} alone",
        format.name()
    )]
    PageSizes {
        /// The format.
        format: FormatId,
        /// What was asked for.
        wanted: PageSizes,
        /// What the format has.
        possible: PageSizes,
    },
    /// A page of memory could not be mapped alone.
    #[error(
        "the smallest of the page sizes {wanted} is larger than a page: add one of at most {PAGE_SIZE:#x}"
    )]
    NoSmallPages {
        /// What was asked for.
        wanted: PageSizes,
    },
}

impl Coded for SpecError {
    fn errno(&self) -> Errno {
        Errno::INVAL
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Aperture { .. } => "table-aperture",
            Self::PageSizes { .. } => "table-page-sizes",
            Self::NoSmallPages { .. } => "table-page-sizes-large",
        }
    }
}

impl TableSpec {
    /// All that `format` can do.
    #[must_use]
    pub fn of(format: FormatId) -> Self {
        let (aperture, page_sizes) = (format.geometry().aperture, format.page_sizes());
        Self { format, aperture, page_sizes, recording: Recording::Nothing }
    }

    /// Records what is written, or not.
    #[must_use]
    pub const fn with_recording(self, recording: Recording) -> Self {
        Self { recording, ..self }
    }

    /// What entries record.
    #[must_use]
    pub const fn recording(&self) -> Recording {
        self.recording
    }

    /// Translates `wanted` alone.
    ///
    /// # Errors
    /// If the format does not translate all of it.
    pub fn with_aperture(self, wanted: IovaRange) -> Result<Self, SpecError> {
        let Geometry { format, aperture: possible, .. } = self.format.geometry();
        if possible.covers(wanted) {
            Ok(Self { aperture: wanted, ..self })
        } else {
            Err(SpecError::Aperture { format, wanted, possible })
        }
    }

    /// Uses leaves of these sizes alone.
    ///
    /// # Errors
    /// If there is none, the format lacks one of them, or the smallest is larger than a page.
    pub fn with_page_sizes(self, wanted: PageSizes) -> Result<Self, SpecError> {
        let (format, possible) = (self.format, self.format.page_sizes());
        if wanted.is_empty() || !possible.covers(wanted) {
            return Err(SpecError::PageSizes { format, wanted, possible });
        }
        if wanted.smallest() > PAGE_SIZE {
            return Err(SpecError::NoSmallPages { wanted });
        }
        Ok(Self { page_sizes: wanted, ..self })
    }

    /// The format.
    #[must_use]
    pub const fn format(&self) -> FormatId {
        self.format
    }

    /// What is translated.
    #[must_use]
    pub const fn aperture(&self) -> IovaRange {
        self.aperture
    }

    /// The sizes that leaves may have: iommufd's `pgsize_bitmap`.
    #[must_use]
    pub const fn page_sizes(&self) -> PageSizes {
        self.page_sizes
    }

    /// What every IOVA, output address and length is a multiple of: the smallest leaf.
    #[must_use]
    pub const fn alignment(&self) -> u64 {
        self.page_sizes.smallest()
    }

    /// The geometry with this aperture.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry { aperture: self.aperture, ..self.format.geometry() }
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::units::Iova;

    use super::*;

    fn range(start: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova::new(start), Iova::new(last)).unwrap()
    }

    #[test]
    fn the_kernel_s_mock_domains_can_be_made() {
        let small = TableSpec::of(FormatId::AmdV1Granule2K);
        assert_eq!((small.alignment(), small.aperture()), (0x800, range(0, (1 << 38) - 1)));
        let mock = small.with_aperture(range(0x100_0000, 0x7fff_ffff)).unwrap();
        assert_eq!(mock.geometry().aperture, range(0x100_0000, 0x7fff_ffff));
        let huge = small.with_page_sizes(PageSizes::new(1 << 20 | PAGE_SIZE)).unwrap();
        assert_eq!((huge.alignment(), huge.page_sizes().bitmap()), (PAGE_SIZE, 0x10_1000));
    }

    #[test]
    fn what_the_format_cannot_do_is_refused() {
        let spec = TableSpec::of(FormatId::VtdSs);
        let errors = [
            spec.with_aperture(range(0, 1 << 48)).unwrap_err(),
            spec.with_page_sizes(PageSizes::new(0)).unwrap_err(),
            spec.with_page_sizes(PageSizes::new(1 << 12 | 1 << 13)).unwrap_err(),
            spec.with_page_sizes(PageSizes::new(1 << 21)).unwrap_err(),
        ];
        let codes = ["table-aperture", "table-page-sizes", "table-page-sizes", "table-page-sizes-large"];
        assert_eq!(errors.map(|error| error.code()), codes);
        assert!(errors.iter().all(|error| error.errno() == Errno::INVAL));
        assert!(errors[0].to_string().contains("vtd-ss"), "{}", errors[0]);
    }
}
