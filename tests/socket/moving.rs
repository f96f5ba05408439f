//! ACCESS_ATTACH, ACCESS_REPLACE, ACCESS_DETACH: accesses that move between address spaces.

use std::thread;

use ioasd_client::calls::{AccessKind, PinIntent};
use ioasd_client::connection::Connection;
use ioasd_client::ids::{AccessId, IoasId};
use ioasd_client::units::{Iova, IovaRange};
use ioasd_client::wire::own::{AccessAttach, AccessDetach, AccessReplace};
use rustix::io::Errno;

use crate::fixture::{Agent, errno};
use crate::memory::{Memory, at, map, range};
use crate::raw::refusal;

fn attach(client: &mut Connection, access_id: AccessId, ioas_id: IoasId) -> Option<Errno> {
    refusal(client, &AccessAttach { flags: 0, access_id, ioas_id }, &[])
}

fn replace(client: &mut Connection, access_id: AccessId, ioas_id: IoasId) -> Option<Errno> {
    refusal(client, &AccessReplace { flags: 0, access_id, ioas_id }, &[])
}

fn detach(client: &mut Connection, access_id: AccessId) -> Option<Errno> {
    refusal(client, &AccessDetach { access_id, ..AccessDetach::default() }, &[])
}

fn read(client: &mut Connection, access: AccessId, iova: u64) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; 16];
    match client.access_read(access, Iova::new(iova), &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(errno(Err::<(), _>(error))),
    }
}

#[test]
fn an_access_uses_the_address_space_it_was_moved_to() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, ioas, memory.slice(0, 0x1000), at(0x1000)).unwrap();
    map(&mut client, other, memory.slice(0x2000, 0x1000), at(0x1000)).unwrap();
    let access = client.access_create(ioas, AccessKind::Bytes).unwrap();
    assert_eq!(read(&mut client, access, 0x1000), Ok(Memory::bytes(0, 16)));
    assert_eq!(attach(&mut client, access, other), Some(Errno::INVAL), "attached already");
    assert_eq!(replace(&mut client, access, other), None);
    assert_eq!(read(&mut client, access, 0x1000), Ok(Memory::bytes(0x2000, 16)));
    client.destroy(ioas).unwrap();
    assert_eq!(errno(client.destroy(other)), Errno::BUSY);
    assert_eq!(detach(&mut client, access), None);
    assert_eq!(read(&mut client, access, 0x1000), Err(Errno::NOENT));
    for refused in [detach(&mut client, access), replace(&mut client, access, other)] {
        assert_eq!(refused, Some(Errno::NOENT), "attached to nothing");
    }
    assert_eq!(attach(&mut client, access, IoasId::new(77)), Some(Errno::NOENT));
    assert_eq!(attach(&mut client, access, other), None);
    assert_eq!(replace(&mut client, access, IoasId::new(77)), Some(Errno::NOENT));
    assert_eq!(replace(&mut client, access, other), None, "the same again is nothing");
    assert_eq!(replace(&mut client, AccessId::new(77), other), Some(Errno::NOENT));
    client.destroy(access).unwrap();
}

#[test]
fn an_access_that_does_not_let_go_stays_and_can_pin_on() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, ioas, memory.whole(), at(0)).unwrap();
    let access = client.access_create(ioas, AccessKind::Pinning).unwrap();
    client.access_pin(access, range(0, 0x2000), PinIntent::Read).unwrap();
    assert_eq!(replace(&mut client, access, other), Some(Errno::DEADLK));
    assert_eq!(detach(&mut client, access), Some(Errno::DEADLK));
    client.access_pin(access, range(0x2000, 0x1000), PinIntent::Read).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x3000, 0x3000));
    client.destroy(other).unwrap();
    client.access_unpin(access, range(0, 0x2000)).unwrap();
    client.access_unpin(access, range(0x2000, 0x1000)).unwrap();
    assert_eq!(detach(&mut client, access), None);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn a_move_to_areas_that_are_not_aligned_is_refused_and_reserved_bits_come_first() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(1));
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, other, memory.slice(3, 5), at(3)).unwrap();
    let access = client.access_create(ioas, AccessKind::Pinning).unwrap();
    assert_eq!(replace(&mut client, access, other), Some(Errno::ADDRINUSE));
    assert_eq!(errno(map(&mut client, ioas, memory.slice(3, 5), at(3))), Errno::INVAL, "it is still there");
    let nobody = AccessId::new(77);
    let mut refused = [
        refusal(&mut client, &AccessReplace { flags: 1, access_id: nobody, ioas_id: ioas }, &[]),
        refusal(&mut client, &AccessAttach { flags: 1, access_id: nobody, ioas_id: ioas }, &[]),
        refusal(&mut client, &AccessDetach { flags: 1, access_id: nobody, reserved: 0 }, &[]),
        refusal(&mut client, &AccessDetach { flags: 0, access_id: nobody, reserved: 1 }, &[]),
    ]
    .into_iter();
    assert!(refused.all(|errno| errno == Some(Errno::OPNOTSUPP)));
    assert_eq!(detach(&mut client, access), None);
    assert_eq!(attach(&mut client, access, other), Some(Errno::ADDRINUSE));
    map(&mut client, ioas, memory.slice(3, 5), at(3)).unwrap();
}

#[test]
fn an_access_that_is_told_to_leave_lets_go_of_everything_and_moves() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, ioas, memory.whole(), at(0)).unwrap();
    let (access, mut notices) = client.access_create_with_notices(ioas, AccessKind::Pinning).unwrap();
    let pinned = [range(0, 0x2000), range(0x1000, 0x3000)];
    for range in pinned {
        client.access_pin(access, range, PinIntent::Read).unwrap();
    }
    let mut its_channel = client.open_channel().unwrap().channel;
    thread::scope(|scope| {
        scope.spawn(|| {
            let notice = notices.receive().unwrap();
            assert_eq!((notice.access, notice.range), (access, IovaRange::ALL));
            let refused = its_channel.access_pin(access, range(0, 0x1000), PinIntent::Read);
            assert_eq!(errno(refused), Errno::NOENT, "it may not take hold of more");
            for range in pinned {
                its_channel.access_unpin(access, range).unwrap();
            }
            notices.acknowledge(&notice).unwrap();
        });
        client.access_replace(access, other).unwrap();
    });
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    client.destroy(ioas).unwrap();
    client.access_detach(access).unwrap();
    client.access_attach(access, other).unwrap();
}
