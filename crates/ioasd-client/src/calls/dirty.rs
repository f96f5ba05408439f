//! What devices have written: HWPT_SET_DIRTY_TRACKING, HWPT_GET_DIRTY_BITMAP.
//!
//! Imports allowed: connection, error, ids, units, wire.

use super::{no_descriptors, require_payload};
use crate::connection::Connection;
use crate::error::CallError;
use crate::ids::HwptId;
use crate::units::{ByteLen, IovaRange};
use crate::wire::own::DIRTY_PART_MAX;
use crate::wire::uapi::{
    DIRTY_BITMAP_NO_CLEAR, DIRTY_TRACKING_ENABLE, HwptGetDirtyBitmap, HwptSetDirtyTracking,
};

/// Whether what is written through a HWPT is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// It is. What was written before is forgotten.
    On,
    /// It is not.
    Off,
}

/// What becomes of pages that are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// They are clean: told again when they are written to again.
    Clean,
    /// They stay as they are.
    Kept,
}

/// Dirty tracking.
impl Connection {
    /// Begins or ends to track what is written through a HWPT.
    ///
    /// # Errors
    /// [`CallError::Refused`], EOPNOTSUPP unless the HWPT was allocated for it; the socket's.
    pub fn set_dirty_tracking(&mut self, hwpt: HwptId, tracking: Tracking) -> Result<(), CallError> {
        let flags = match tracking {
            Tracking::On => DIRTY_TRACKING_ENABLE,
            Tracking::Off => 0,
        };
        let set = HwptSetDirtyTracking { flags, hwpt_id: hwpt, ..HwptSetDirtyTracking::default() };
        self.call_without_reply(&set, &[], &[])
    }

    /// Which parts of a range were written to: a bitmap, one bit for `page_size` bytes, the first in the lowest bit of the
    /// first byte. Asked for part by part if it is long.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn dirty_bitmap(
        &mut self,
        hwpt: HwptId,
        range: IovaRange,
        page_size: ByteLen,
        told: Told,
    ) -> Result<Vec<u8>, CallError> {
        let flags = match told {
            Told::Clean => 0,
            Told::Kept => DIRTY_BITMAP_NO_CLEAR,
        };
        let (iova, length) = (range.start(), range.length());
        let bytes = (length.get() / page_size.get().max(1)).div_ceil(8);
        let mut bitmap = Vec::new();
        for first in (0..bytes).step_by(DIRTY_PART_MAX) {
            let data = ByteLen::new(first);
            let get = HwptGetDirtyBitmap { hwpt_id: hwpt, flags, reserved: 0, iova, length, page_size, data };
            let part = usize::try_from(bytes - first).unwrap_or(usize::MAX).min(DIRTY_PART_MAX);
            let told = self.call(&get, &[], &vec![0; part], no_descriptors)?.payload;
            require_payload("HWPT_GET_DIRTY_BITMAP", part as u64, &told)?;
            bitmap.extend(told);
        }
        Ok(bitmap)
    }
}
