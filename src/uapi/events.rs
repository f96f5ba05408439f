//! FAULT_QUEUE_ALLOC, VEVENTQ_ALLOC.
//!
//! Imports allowed: actors, the client crate's wire.

use ioasd_client::wire::command::Command;
use ioasd_client::wire::uapi::{FaultQueueAlloc, VEVENTQ_DEPTH_MAX, VeventqAlloc};

use super::nesting::require_type;
use super::{Call, Done, Serve, check_flags, check_no_fds, check_reserved};
use crate::error::Errno;
use crate::storage::refusal::Refusal;

impl Serve for FaultQueueAlloc {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        let (out_fault_id, given) = call.client.fault_queue_alloc()?;
        Ok(Done::value(Self { out_fault_id, ..self }).with_fd(given))
    }
}

impl Serve for VeventqAlloc {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        check_reserved(Self::NAME, self.reserved)?;
        require_type(Self::NAME, self.kind)?;
        if !(1..=VEVENTQ_DEPTH_MAX).contains(&self.depth) {
            let text = format!("a queue keeps 1 to {VEVENTQ_DEPTH_MAX} events, not {}", self.depth);
            return Err(Refusal::new(Errno::INVAL, "veventq-depth", text));
        }
        let (out_veventq_id, given) = call.client.veventq_alloc(self.viommu_id, (self.kind, self.depth))?;
        Ok(Done::value(Self { out_veventq_id, ..self }).with_fd(given))
    }
}
