//! The test command, for agents with mock hardware.
//!
//! | file | operations |
//! |---|---|
//! | [`devices`] | ADD_RESERVED, MOCK_DOMAIN, MOCK_DOMAIN_FLAGS, MOCK_DOMAIN_REPLACE, SET_TEMP_MEMORY_LIMIT |
//! | [`accesses`] | CREATE_ACCESS, ACCESS_PAGES, DESTROY_ACCESS_PAGES, ACCESS_RW, ACCESS_PLACES, ACCESS_REPLACE_IOAS |
//! | [`checks`] | MD_CHECK_MAP, MD_CHECK_REFS |
//! | [`dirty`] | DIRTY |
//! | [`nesting`] | MD_CHECK_IOTLB, DEV_CHECK_CACHE, PASID_ATTACH, PASID_REPLACE, PASID_DETACH, PASID_CHECK_HWPT |
//! | [`dma_bufs`] | DMABUF_GET, DMABUF_REVOKE |
//! | [`triggers`] | TRIGGER_IOPF, TRIGGER_VEVENT |
//!
//! Imports allowed: actors, storage's request checks, the client crate's wire.

mod accesses;
mod checks;
mod devices;
mod dirty;
mod dma_bufs;
mod nesting;
mod triggers;

use ioasd_client::wire::mock::{
    OP_ACCESS_PAGES, OP_ACCESS_PLACES, OP_ACCESS_REPLACE_IOAS, OP_ACCESS_RW, OP_ADD_RESERVED,
    OP_CREATE_ACCESS, OP_DESTROY_ACCESS_PAGES, OP_DEV_CHECK_CACHE, OP_DIRTY, OP_DMABUF_GET, OP_DMABUF_REVOKE,
    OP_MD_CHECK_IOTLB, OP_MD_CHECK_MAP, OP_MD_CHECK_REFS, OP_MOCK_DOMAIN, OP_MOCK_DOMAIN_FLAGS,
    OP_MOCK_DOMAIN_REPLACE, OP_PASID_ATTACH, OP_PASID_CHECK_HWPT, OP_PASID_DETACH, OP_PASID_REPLACE,
    OP_SET_TEMP_MEMORY_LIMIT, OP_TRIGGER_IOPF, OP_TRIGGER_VEVENT, TestCmd,
};

use super::{Call, Done, Serve};
use crate::error::Errno;
use crate::storage::refusal::Refusal;

impl Serve for TestCmd {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        call.client.may_mock()?;
        match self.op {
            OP_ADD_RESERVED => devices::add_reserved(self, call).await,
            OP_MOCK_DOMAIN | OP_MOCK_DOMAIN_FLAGS => devices::mock_domain(self, call).await,
            OP_MOCK_DOMAIN_REPLACE => devices::mock_domain_replace(self, call).await,
            OP_SET_TEMP_MEMORY_LIMIT => devices::set_temp_memory_limit(self, &call),
            OP_MD_CHECK_MAP => checks::check_map(self, call).await,
            OP_MD_CHECK_REFS => checks::check_refs(self, call).await,
            OP_MD_CHECK_IOTLB => nesting::check_iotlb(self, &call),
            OP_DEV_CHECK_CACHE => nesting::check_cache(self, &call),
            OP_TRIGGER_IOPF => triggers::fault(self, &call),
            OP_TRIGGER_VEVENT => triggers::vevent(self, &call),
            OP_PASID_ATTACH => nesting::attach(self, call).await,
            OP_PASID_REPLACE => nesting::replace(self, call).await,
            OP_PASID_DETACH => nesting::detach(self, call).await,
            OP_PASID_CHECK_HWPT => nesting::check(self, &call),
            OP_DIRTY => dirty::mark(self, call).await,
            OP_DMABUF_GET => dma_bufs::get(self, &call),
            OP_DMABUF_REVOKE => dma_bufs::revoke(self, call).await,
            OP_CREATE_ACCESS => accesses::create(self, call).await,
            OP_ACCESS_PAGES => accesses::pin(self, call).await,
            OP_DESTROY_ACCESS_PAGES => accesses::unpin(self, call).await,
            OP_ACCESS_RW => accesses::move_bytes(self, call).await,
            OP_ACCESS_PLACES => accesses::places(self, call).await,
            OP_ACCESS_REPLACE_IOAS => accesses::replace_ioas(self, call).await,
            other => {
                let text = format!("the mock hardware has no operation {other}");
                Err(Refusal::new(Errno::OPNOTSUPP, "mock-operation-unknown", text))
            }
        }
    }
}
