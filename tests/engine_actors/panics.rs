//! A source that panics takes its own address space out of use, and nothing else.

use std::rc::Rc;
use std::sync::Arc;

use ioasd::actors::client_context::address_spaces::{Mapping, NewPages};
use ioasd::actors::client_context::state::ClientState;
use ioasd::actors::figures::ContextStats;
use ioasd::actors::objects::Iommu;
use ioasd::error::{Coded, Errno};
use ioasd::storage::Tuning;
use ioasd::storage::counts::ArrayLen;
use ioasd::storage::io_pagetable::{Placement, UnmapRequest};
use ioasd::storage::iova_allocator::OriginAddr;
use ioasd::storage::pfn::PfnBatch;
use ioasd::storage::source::{PageSource, SourceError, Strength};
use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, IndexRange, Iova, IovaRange, Permission};
use rustix::process::Uid;

use crate::ops::MemorySpec;
use crate::source::{Memory, Source};
use crate::system::engine;

struct Panics;

impl PageSource for Panics {
    fn name(&self) -> String {
        "a source with a bug".to_owned()
    }

    fn strength(&self) -> Strength {
        Strength::Resident
    }

    fn pin(&self, _: IndexRange, _: &mut PfnBatch) -> Result<(), SourceError> {
        panic!("a bug in a source, on purpose")
    }

    fn recall(&self, _: IndexRange, _: &mut PfnBatch) -> Result<(), SourceError> {
        Ok(())
    }

    fn unpin(&self, _: IndexRange) {}

    fn read(&self, _: ByteLen, _: &mut [u8]) -> Result<(), SourceError> {
        Ok(())
    }

    fn write(&self, _: ByteLen, _: &[u8]) -> Result<(), SourceError> {
        Ok(())
    }
}

async fn map(
    state: &ClientState,
    ioas: ObjectId,
    source: Arc<dyn PageSource>,
    iova: u64,
) -> Result<Iova, Errno> {
    let new = NewPages {
        source,
        len: ArrayLen::new(1),
        origin: OriginAddr::new(0),
        backing: ioasd::sources::backing::Backing::Nothing,
    };
    let mapping = Mapping { permission: Permission::ReadWrite, placement: Placement::Fixed(Iova::new(iova)) };
    let handle = state.start_pages(new, state.payer(None)).unwrap();
    let slice = (ByteLen::new(0), ByteLen::new(4096));
    let writable = ioasd::storage::io_pagetable::Writable::Yes;
    let mapped = state.map_pages(ioas, handle, (slice, writable), mapping).await;
    mapped.map(IovaRange::start).map_err(|refusal| refusal.errno())
}

fn good() -> Arc<dyn PageSource> {
    Source::new(Memory::new(&MemorySpec { frames: vec![77], origin: 0 }), 0, 1)
}

#[actix_rt::test]
async fn a_panic_poisons_the_address_space_and_everybody_else_goes_on() {
    let (engine, local) = engine(Tuning::default()).await;
    let agent = engine.agent();
    let client = |uid| {
        let stats = agent.registry.register_context(ContextStats::new(Uid::from_raw(uid), None));
        Rc::new(ClientState::new(Arc::clone(agent), local.clone(), stats))
    };
    let (one, other) = (client(1000), client(1001));
    let (poisoned, sound) = (one.ioas_alloc().unwrap(), one.ioas_alloc().unwrap());
    let elsewhere = other.ioas_alloc().unwrap();
    for (state, ioas) in [(&one, poisoned), (&one, sound), (&other, elsewhere)] {
        let device = state.device_create(Iommu::Own, FormatId::AmdV1).unwrap();
        state.device_attach(device, ioas).await.unwrap();
        assert_eq!(map(state, ioas, good(), 0x10_0000).await, Ok(Iova::new(0x10_0000)));
    }
    assert_eq!(map(&one, poisoned, Arc::new(Panics), 0x20_0000).await, Err(Errno::IO));
    assert_eq!(map(&one, poisoned, good(), 0x30_0000).await, Err(Errno::IO));
    let unmapped = one.unmap(poisoned, UnmapRequest::Everything).await;
    assert_eq!(unmapped.unwrap_err().errno(), Errno::IO);
    for (state, ioas) in [(&one, sound), (&other, elsewhere)] {
        assert_eq!(map(state, ioas, good(), 0x30_0000).await, Ok(Iova::new(0x30_0000)));
    }
    one.close().await;
    other.close().await;
    actix_rt::time::sleep(std::time::Duration::from_millis(20)).await;
    let left = agent.registry.snapshot();
    assert!(left.pages.is_empty() && left.domains.is_empty() && left.ioases.is_empty(), "{left:?}");
    assert_eq!(agent.ledger.sum_charged().get(), 0);
    engine.stop().await;
}
