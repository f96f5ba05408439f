//! Ten thousand objects in one context: made, used, destroyed in any order, and left behind.

use ioasd_client::calls::{AccessKind, Iommu};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{IoasId, ObjectId};
use rustix::io::Errno;

use crate::fixture::{Agent, errno};
use crate::memory::{Memory, at, map};

const SPACES: usize = 4000;
const WITH_DEVICES: usize = 100;

/// Each address space comes with an access, every other with a device; the first devices are attached, which makes HWPTs.
fn fill(client: &mut Connection, memory: &Memory) -> Vec<ObjectId> {
    let mut ids = Vec::new();
    for number in 0..SPACES {
        let ioas = client.ioas_alloc().unwrap();
        ids.push(ioas.into());
        ids.push(client.access_create(ioas, AccessKind::Pinning).unwrap().into());
        if number % 2 == 0 {
            let device = client.device_create(FormatId::AmdV1, Iommu::Shared).unwrap();
            ids.push(device.into());
            if number < WITH_DEVICES * 2 {
                map(client, ioas, memory.whole(), at(0)).unwrap();
                ids.push(client.device_attach(device, ioas).unwrap().into());
            }
        }
    }
    ids
}

#[test]
fn ten_thousand_objects_live_in_a_context_and_go_with_it() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(1));
    let ids = fill(&mut client, &memory);
    assert_eq!(ids.len(), SPACES * 5 / 2 + WITH_DEVICES);
    assert!(ids.iter().zip(1..).all(|(id, wanted)| id.get() == wanted), "ids are given in order");
    assert_eq!(agent.snapshot().contexts[0].stats.objects.get(), ids.len() as u64);
    let pinned = WITH_DEVICES as u64 * memory.size();
    assert_eq!(agent.pinned_and_charged(), (pinned, pinned));
    assert_eq!(agent.snapshot().domains.len(), WITH_DEVICES);
    let gone: Vec<ObjectId> = ids.iter().copied().filter(|id| client.destroy(*id).is_ok()).collect();
    assert!(gone.len() > ids.len() / 2, "{} could be destroyed", gone.len());
    for id in &gone {
        assert_eq!(errno(client.destroy(*id)), Errno::NOENT);
    }
    let lowest = gone.iter().min().copied().unwrap();
    assert_eq!(client.ioas_alloc().unwrap(), IoasId::new(lowest.get()));
}
