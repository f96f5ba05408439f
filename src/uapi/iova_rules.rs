//! IOAS_ALLOW_IOVAS, IOAS_IOVA_RANGES: which addresses areas may have.
//!
//! Imports allowed: actors, storage's checks, the client crate's wire.

use ioasd_client::units::IovaRange;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::record::IovaBounds;
use ioasd_client::wire::uapi::{IoasAllowIovas, IoasIovaRanges};

use super::array::Array;
use super::{Call, Done, Serve, check_reserved};
use crate::error::Errno;
use crate::storage::io_pagetable::check_allowed_range;
use crate::storage::refusal::Refusal;

impl Serve for IoasAllowIovas {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_reserved(Self::NAME, self.reserved)?;
        call.client.require_ioas(self.ioas_id.into())?;
        let array = Array::of(Self::NAME, call.payload, call.fds, self.allowed_iovas)?;
        let bounds: Vec<IovaBounds> = array.read(self.num_iovas)?;
        let ranges: Result<Vec<_>, _> =
            bounds.iter().map(|bounds| check_allowed_range(bounds.start, bounds.last)).collect();
        let ranges = ranges.map_err(|error| Refusal::of(&error))?;
        call.client.allow_iovas(self.ioas_id.into(), ranges).await?;
        Ok(Done::nothing())
    }
}

impl Serve for IoasIovaRanges {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_reserved(Self::NAME, self.reserved)?;
        let (ranges, alignment) = call.client.iova_ranges(self.ioas_id.into()).await?;
        let array = Array::of(Self::NAME, call.payload, call.fds, self.allowed_iovas)?;
        let room = usize::try_from(self.num_iovas).unwrap_or(usize::MAX);
        let bounds: Vec<IovaBounds> = ranges.iter().take(room).map(bounds).collect();
        let payload = array.give_back(&bounds)?;
        let num_iovas = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
        let done =
            Done::value(Self { num_iovas, out_iova_alignment: alignment, ..self }).with_payload(payload);
        Ok(if ranges.len() > room { done.but(too_many(ranges.len(), room)) } else { done })
    }
}

const fn bounds(range: &IovaRange) -> IovaBounds {
    IovaBounds { start: range.start(), last: range.last() }
}

fn too_many(ranges: usize, room: usize) -> Refusal {
    let text = format!("there are {ranges} ranges, the array has room for {room}: ask again with more");
    Refusal::new(Errno::MSGSIZE, "array-too-short", text)
}
