//! Another process pays: charges move as a whole or not at all.

use std::rc::Rc;
use std::sync::Arc;

use ioasd::actors::client_context::address_spaces::{Mapping, NewPages};
use ioasd::actors::client_context::state::ClientState;
use ioasd::actors::figures::ContextStats;
use ioasd::actors::handover::hand_over;
use ioasd::actors::objects::Iommu;
use ioasd::actors::payer::{Binding, Payer};
use ioasd::error::{Coded, Errno};
use ioasd::storage::Tuning;
use ioasd::storage::counts::ArrayLen;
use ioasd::storage::io_pagetable::{Placement, Writable};
use ioasd::storage::iova_allocator::OriginAddr;
use ioasd::storage::ledger::bill::{Bill, ProcessAccount};
use ioasd::storage::ledger::holder::TenantName;
use ioasd::storage::ledger::{AccountMode, Ledger, PageLimit};
use ioasd_client::formats::FormatId;
use ioasd_client::units::{ByteLen, Iova, Permission};
use rustix::process::Uid;

use crate::ops::MemorySpec;
use crate::source::{Memory, Source};
use crate::system::engine;

const PAGES: u64 = 3;

fn payer(ledger: &Ledger, uid: u32, limit: u64) -> Payer {
    let bill =
        Bill::new(ledger.account(&TenantName::Unknown, uid, 0), ProcessAccount::new(), AccountMode::User);
    Payer { bill, binding: Binding::Fixed(PageLimit(limit)) }
}

#[actix_rt::test]
async fn charges_move_to_another_payer_or_stay_with_the_old_one() {
    let (engine, local) = engine(Tuning::default()).await;
    let agent = engine.agent();
    let stats = agent.registry.register_context(ContextStats::new(Uid::from_raw(1000), None));
    let state = Rc::new(ClientState::new(Arc::clone(agent), local, stats));
    let ioas = state.ioas_alloc().unwrap();
    let device = state.device_create(Iommu::Own, FormatId::AmdV1).unwrap();
    state.device_attach(device, ioas).await.unwrap();
    let frames = (70..70 + PAGES).collect();
    let source = Source::new(Memory::new(&MemorySpec { frames, origin: 0 }), 0, PAGES);
    let new = NewPages {
        source,
        len: ArrayLen::new(PAGES),
        origin: OriginAddr::new(0),
        backing: ioasd::sources::backing::Backing::Nothing,
    };
    let handle = state.start_pages(new, payer(&agent.ledger, 1000, PAGES)).unwrap();
    let mapping = Mapping { permission: Permission::ReadWrite, placement: Placement::Fixed(Iova::new(0)) };
    let slice = ((ByteLen::new(0), ByteLen::new(PAGES * 4096)), Writable::Yes);
    state.map_pages(ioas, handle.clone(), slice, mapping).await.unwrap();
    let charged = |uid| agent.ledger.charged_to(uid).get();
    let pay = |payer: &Payer| hand_over(std::slice::from_ref(&handle), payer);
    assert_eq!((charged(1000), charged(7)), (PAGES, 0));

    assert_eq!(pay(&payer(&agent.ledger, 7, PAGES - 1)).unwrap_err().errno(), Errno::NOMEM);
    assert_eq!((charged(1000), charged(7)), (PAGES, 0), "a refused payer pays nothing");
    pay(&payer(&agent.ledger, 7, PAGES)).unwrap();
    assert_eq!((charged(1000), charged(7)), (0, PAGES));
    assert_eq!(agent.registry.snapshot().pages[0].stats.account.get(), Uid::from_raw(7));
    pay(&payer(&agent.ledger, 1000, PAGES)).unwrap();
    assert_eq!((charged(1000), charged(7)), (PAGES, 0), "and back again");

    let other = {
        let frames = (90..90 + PAGES).collect();
        let source = Source::new(Memory::new(&MemorySpec { frames, origin: 1 << 20 }), 0, PAGES);
        let (len, backing) = (ArrayLen::new(PAGES), ioasd::sources::backing::Backing::Nothing);
        let new = NewPages { source, len, origin: OriginAddr::new(1 << 20), backing };
        state.start_pages(new, payer(&agent.ledger, 1000, 2 * PAGES)).unwrap()
    };
    let placement = Placement::Fixed(Iova::new(1 << 20));
    state.map_pages(ioas, other.clone(), slice, Mapping { placement, ..mapping }).await.unwrap();
    let both = [handle.clone(), other];
    let rich_enough_for_one = payer(&agent.ledger, 7, 2 * PAGES - 1);
    assert_eq!(hand_over(&both, &rich_enough_for_one).unwrap_err().errno(), Errno::NOMEM);
    assert_eq!((charged(1000), charged(7)), (2 * PAGES, 0), "all of them or none");
    hand_over(&both, &payer(&agent.ledger, 7, 2 * PAGES)).unwrap();
    assert_eq!((charged(1000), charged(7)), (0, 2 * PAGES));
    drop(both);

    drop(handle);
    state.close().await;
    actix_rt::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!((charged(1000), charged(7)), (0, 0), "who pays last is credited");
    agent.ledger.check();
    engine.stop().await;
}
