//! Switching large pages on and off.
//!
//! Imports allowed: units, error.

use ioasd_client::units::{ByteLen, IovaRange, PAGE_SIZE};

use super::IoPageTable;
use super::alignment::LargePages;
use crate::error::{Coded, Errno};

/// Why large pages cannot be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LargePagesError {
    /// Domains may hold large leaves already.
    #[error(
        "large pages cannot be switched off while domains hold area {area}: unmap everything, or detach the domains, first"
    )]
    Mapped {
        /// The first area.
        area: IovaRange,
    },
    /// An area is not page aligned.
    #[error(
        "large pages cannot be switched off while area {area} with offset {page_offset} in its page is not page aligned: unmap it first"
    )]
    AreaMisaligned {
        /// The area.
        area: IovaRange,
        /// Its place in its first page.
        page_offset: ByteLen,
    },
}

impl Coded for LargePagesError {
    fn errno(&self) -> Errno {
        match self {
            Self::Mapped { .. } => Errno::INVAL,
            Self::AreaMisaligned { .. } => Errno::ADDRINUSE,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Mapped { .. } => "domains-have-areas",
            Self::AreaMisaligned { .. } => "area-misaligned",
        }
    }
}

impl<P> IoPageTable<P> {
    /// Whether domains may use large leaves.
    #[must_use]
    pub const fn large_pages(&self) -> LargePages {
        self.alignments.large_pages()
    }

    /// Switches large pages on or off. Switching on never fails.
    ///
    /// # Errors
    /// When switching off, if there are domains and areas, or if an area is not page aligned.
    pub fn set_large_pages(&mut self, large_pages: LargePages) -> Result<(), LargePagesError> {
        if large_pages == LargePages::Off && self.large_pages() == LargePages::On {
            self.check_large_pages_off()?;
        }
        self.alignments.set_large_pages(large_pages);
        Ok(())
    }

    fn check_large_pages_off(&self) -> Result<(), LargePagesError> {
        if let Some(area) = self.areas.iter().next().filter(|_| self.alignments.has_domains()) {
            return Err(LargePagesError::Mapped { area: area.iova() });
        }
        match self.misaligned_area(PAGE_SIZE) {
            Some((area, page_offset)) => Err(LargePagesError::AreaMisaligned { area, page_offset }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::constraints::Owner;
    use super::super::fixture::{mapped, piece, table};
    use super::*;

    #[test]
    fn large_pages_stay_on_while_domains_have_areas() {
        let mut table = table();
        table.add_domain(Owner::Domain(1), 1, IovaRange::ALL).unwrap();
        mapped(&mut table, 0x1000, piece(0x1000, 1));
        assert_eq!(table.set_large_pages(LargePages::Off).unwrap_err().errno(), Errno::INVAL);
        table.remove_owner(Owner::Domain(1));
        assert_eq!(table.set_large_pages(LargePages::Off).unwrap_err().errno(), Errno::ADDRINUSE);
        table.set_large_pages(LargePages::On).unwrap();
    }

    #[test]
    fn switching_large_pages_off_twice_is_nothing() {
        let mut table = table();
        table.add_domain(Owner::Domain(1), 1, IovaRange::ALL).unwrap();
        table.set_large_pages(LargePages::Off).unwrap();
        assert_eq!(table.alignment(), PAGE_SIZE);
        mapped(&mut table, 0x1000, piece(0x1000, 0));
        table.set_large_pages(LargePages::Off).unwrap();
        table.set_large_pages(LargePages::On).unwrap();
        assert_eq!(table.alignment(), 1);
    }
}
