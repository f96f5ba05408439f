//! DIRTY: what a mock device would have written.
//!
//! Imports allowed: actors, domains, storage's request checks, the client crate's wire.

use std::num::NonZeroU64;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::mock::{DIRTY_PAGES_MAX, TestCmd};

use crate::domains::dirty_bitmap::DirtyPages;
use crate::error::Errno;
use crate::storage::io_pagetable::check_range;
use crate::storage::refusal::Refusal;
use crate::uapi::dirty::{absent, part};
use crate::uapi::{Call, Done};

/// The struct comes back with the number of bits that were set, mapped or not.
pub(super) async fn mark(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (pages, first) = (pages(&command)?, ByteLen::new(command.at_48));
    let (hwpt, _) = call.client.hwpt_to_ask(ObjectId::new(command.id)).await?;
    let bitmap = part(pages, first, call.payload);
    let set = bitmap.as_ref().map(|bitmap| bitmap.pages().collect()).unwrap_or_default();
    let count = call.client.mark_dirty(&hwpt, set).await?;
    bitmap.ok_or_else(|| absent(TestCmd::NAME, pages, first))?;
    Ok(Done::value(command.with(56, count)))
}

/// The pages that the bits of the whole bitmap stand for.
fn pages(command: &TestCmd) -> Result<DirtyPages, Refusal> {
    let (iova, length, page_size) = (command.at_24, command.at_32, command.at_40);
    let page_size = NonZeroU64::new(page_size).filter(|size| iova.is_multiple_of(size.get()));
    let page_size = page_size.filter(|size| length != 0 && length.is_multiple_of(size.get()));
    let page_size = page_size.ok_or_else(|| {
        let text = format!("{length:#x} bytes from {iova:#x} on are not whole pages of this size");
        Refusal::new(Errno::INVAL, "not-whole-pages", text)
    })?;
    if length / page_size > DIRTY_PAGES_MAX {
        let text = format!("{} pages are more than {DIRTY_PAGES_MAX}", length / page_size);
        return Err(Refusal::new(Errno::OVERFLOW, "too-many-pages", text));
    }
    let range = check_range(Iova::new(iova), ByteLen::new(length)).map_err(|error| Refusal::of(&error))?;
    Ok(DirtyPages { range, page_size })
}
