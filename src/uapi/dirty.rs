//! HWPT_SET_DIRTY_TRACKING, HWPT_GET_DIRTY_BITMAP: what devices have written.
//!
//! Imports allowed: actors, domains, storage's request checks, the client crate's wire.

use std::num::NonZeroU64;

use ioasd_client::units::{ByteLen, Flag, IovaRange};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::own::DIRTY_PART_MAX;
use ioasd_client::wire::uapi::{
    DIRTY_BITMAP_NO_CLEAR, DIRTY_TRACKING_ENABLE, HwptGetDirtyBitmap, HwptSetDirtyTracking,
};

use super::{Call, Done, Serve, check_flags, check_no_fds, check_reserved};
use crate::domains::dirty::{Cleaning, Tracking};
use crate::domains::dirty_bitmap::{DirtyBitmap, DirtyPages};
use crate::error::Errno;
use crate::storage::io_pagetable::check_range;
use crate::storage::refusal::Refusal;

impl Serve for HwptSetDirtyTracking {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_flags(Self::NAME, self.flags, DIRTY_TRACKING_ENABLE)?;
        let tracking = match Flag::of(self.flags, DIRTY_TRACKING_ENABLE) {
            Flag::Set => Tracking::On,
            Flag::Clear => Tracking::Off,
        };
        call.client.set_dirty_tracking(self.hwpt_id.into(), tracking).await?;
        Ok(Done::nothing())
    }
}

impl Serve for HwptGetDirtyBitmap {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_flags(Self::NAME, self.flags, DIRTY_BITMAP_NO_CLEAR)?;
        check_reserved(Self::NAME, self.reserved)?;
        check_no_fds(Self::NAME, &call.fds)?;
        let (hwpt, alignment) = call.client.hwpt_to_ask(self.hwpt_id.into()).await?;
        let pages = pages(&self, alignment)?;
        let cleaning = match Flag::of(self.flags, DIRTY_BITMAP_NO_CLEAR) {
            Flag::Set => Cleaning::Keep,
            Flag::Clear => Cleaning::Clean,
        };
        let told = call.client.read_dirty(&hwpt, part(pages, self.data, call.payload), cleaning).await?;
        let told = told.ok_or_else(|| absent(Self::NAME, pages, self.data))?;
        Ok(Done::value(self).with_payload(told.into_bytes()))
    }
}

/// The pages that the bits of the whole bitmap stand for.
fn pages(ask: &HwptGetDirtyBitmap, alignment: u64) -> Result<DirtyPages, Refusal> {
    let range = check_range(ask.iova, ask.length).map_err(|error| Refusal::of(&error))?;
    require_multiple(range, alignment)?;
    let page_size = NonZeroU64::new(ask.page_size.get());
    let page_size = page_size.ok_or_else(|| invalid("pages of 0 bytes cannot be told apart".to_owned()))?;
    require_multiple(range, page_size.get())?;
    Ok(DirtyPages { range, page_size })
}

fn require_multiple(range: IovaRange, unit: u64) -> Result<(), Refusal> {
    if range.start().get().is_multiple_of(unit) && range.length().get().is_multiple_of(unit) {
        return Ok(());
    }
    Err(invalid(format!("{range} does not begin and end at multiples of {unit:#x}")))
}

fn invalid(text: String) -> Refusal {
    Refusal::new(Errno::INVAL, "dirty-range", text)
}

/// The part of a bitmap that came with a command, if it did.
pub(super) fn part(pages: DirtyPages, first: ByteLen, payload: &[u8]) -> Option<DirtyBitmap> {
    let fitting = Some(payload).filter(|payload| payload.len() <= DIRTY_PART_MAX)?;
    DirtyBitmap::part(pages, first, fitting.to_vec())
}

/// Why a part cannot be used.
pub(super) fn absent(command: &str, pages: DirtyPages, first: ByteLen) -> Refusal {
    let text = format!(
        "{command}: there is no part of a bitmap, or more than {DIRTY_PART_MAX} bytes of it, or none of its {} \
         bytes from byte {} on",
        pages.bytes(),
        first.get()
    );
    Refusal::new(Errno::FAULT, "bitmap-absent", text)
}
