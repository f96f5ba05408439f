//! What an address space allows, and who pays: IOAS_ALLOW_IOVAS, IOAS_IOVA_RANGES, OPTION, IOAS_CHANGE_PROCESS.
//!
//! Imports allowed: connection, error, ids, units, wire.

use std::os::fd::BorrowedFd;

use super::array::Array;
use super::no_descriptors;
use crate::connection::Connection;
use crate::error::{CallError, ProtocolError};
use crate::ids::{IoasId, ObjectId};
use crate::units::IovaRange;
use crate::wire::command::Command;
use crate::wire::record::{IovaBounds, load_all};
use crate::wire::uapi::{
    IoasAllowIovas, IoasChangeProcess, IoasIovaRanges, IommuOption, OPTION_GET, OPTION_HUGE_PAGES,
    OPTION_RLIMIT_MODE, OPTION_SET,
};

/// Ranges asked for at once.
const RANGES: u32 = 1024;

/// Whether domains may use leaves larger than a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargePages {
    /// They may.
    On,
    /// They may not; areas are aligned to pages.
    Off,
}

/// Whose limit for locked memory binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RlimitMode {
    /// That of the user.
    User,
    /// That of the process.
    Process,
}

/// What may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    /// The addresses that nobody has reserved, in ascending order.
    pub ranges: Vec<IovaRange>,
    /// What every area is a multiple of.
    pub alignment: u64,
}

/// Rules.
impl Connection {
    /// Confines automatic placement to `ranges`; none lift the restriction.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_ALLOW_IOVAS; the socket's.
    pub fn allow_iovas(&mut self, ioas: IoasId, ranges: &[IovaRange]) -> Result<(), CallError> {
        let bounds = |range: &IovaRange| IovaBounds { start: range.start(), last: range.last() };
        let array = Array::of(&ranges.iter().map(bounds).collect::<Vec<_>>())?;
        let num_iovas = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
        let allow = IoasAllowIovas { ioas_id: ioas, num_iovas, ..IoasAllowIovas::default() };
        let fds: Vec<BorrowedFd<'_>> = array.memfd().into_iter().collect();
        self.call_without_reply(&allow, &fds, array.payload())
    }

    /// Tells which addresses nobody has reserved.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_IOVA_RANGES, EMSGSIZE if there are more than a thousand; the socket's.
    pub fn iova_ranges(&mut self, ioas: IoasId) -> Result<Usable, CallError> {
        let ask = IoasIovaRanges { ioas_id: ioas, num_iovas: RANGES, ..IoasIovaRanges::default() };
        let answer = self.call(&ask, &[], &[], no_descriptors)?;
        let bounds: Vec<IovaBounds> = load_all(&answer.payload);
        let ranges: Option<Vec<IovaRange>> =
            bounds.iter().map(|bounds| IovaRange::new(bounds.start, bounds.last)).collect();
        let (wanted, found) = (u64::from(answer.value.num_iovas), answer.payload.len());
        let broken = ProtocolError::Payload { command: IoasIovaRanges::NAME, wanted, found };
        let ranges = ranges.filter(|ranges| ranges.len() as u64 == wanted).ok_or(broken)?;
        Ok(Usable { ranges, alignment: answer.value.out_iova_alignment })
    }

    /// Tells whether domains may use large leaves.
    ///
    /// # Errors
    /// [`CallError::Refused`] as OPTION; the socket's.
    pub fn large_pages(&mut self, ioas: IoasId) -> Result<LargePages, CallError> {
        let value = self.option(OPTION_HUGE_PAGES, OPTION_GET, ioas.into(), 0)?;
        Ok(if value == 0 { LargePages::Off } else { LargePages::On })
    }

    /// Lets domains use large leaves, or not.
    ///
    /// # Errors
    /// [`CallError::Refused`] as OPTION; the socket's.
    pub fn set_large_pages(&mut self, ioas: IoasId, large_pages: LargePages) -> Result<(), CallError> {
        let value = u64::from(large_pages == LargePages::On);
        self.option(OPTION_HUGE_PAGES, OPTION_SET, ioas.into(), value).map(|_| ())
    }

    /// Tells whose limit binds what is mapped from now on.
    ///
    /// # Errors
    /// [`CallError::Refused`] as OPTION; the socket's.
    pub fn rlimit_mode(&mut self) -> Result<RlimitMode, CallError> {
        let value = self.option(OPTION_RLIMIT_MODE, OPTION_GET, ObjectId::new(0), 0)?;
        Ok(if value == 0 { RlimitMode::User } else { RlimitMode::Process })
    }

    /// Chooses whose limit binds what is mapped from now on.
    ///
    /// # Errors
    /// [`CallError::Refused`] as OPTION; the socket's.
    pub fn set_rlimit_mode(&mut self, mode: RlimitMode) -> Result<(), CallError> {
        let value = u64::from(mode == RlimitMode::Process);
        self.option(OPTION_RLIMIT_MODE, OPTION_SET, ObjectId::new(0), value).map(|_| ())
    }

    fn option(&mut self, option_id: u32, op: u16, object_id: ObjectId, value: u64) -> Result<u64, CallError> {
        let option = IommuOption { option_id, op, reserved: 0, object_id, value };
        Ok(self.call(&option, &[], &[], no_descriptors)?.value.value)
    }

    /// Lets this process pay for all that the context has mapped.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_CHANGE_PROCESS; the socket's.
    pub fn change_process(&mut self) -> Result<(), CallError> {
        self.call(&IoasChangeProcess::default(), &[], &[], no_descriptors).map(|_| ())
    }
}
