//! OPTION: RLIMIT_MODE and HUGE_PAGES.

use std::os::fd::AsFd;

use ioasd_client::calls::Iommu;
use ioasd_client::connection::Connection;
use ioasd_client::ids::{HwptId, IoasId, ObjectId};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::walker::Access;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::uapi::{IommuOption, OPTION_GET, OPTION_HUGE_PAGES, OPTION_RLIMIT_MODE, OPTION_SET};
use rustix::io::Errno;
use rustix::process::getpid;
use rustix::thread::{CapabilitySet, capabilities};

use crate::fixture::{Agent, errno};
use crate::helper::Helper;
use crate::memory::{Memory, at, attach_new, map};
use crate::raw::call_with;
use crate::walking::open;

const MODE: IommuOption = IommuOption {
    option_id: OPTION_RLIMIT_MODE,
    op: OPTION_GET,
    reserved: 0,
    object_id: ObjectId::new(0),
    value: 0,
};

fn option(client: &mut Connection, option: IommuOption) -> Result<u64, Errno> {
    let answer = call_with(client, &option, &[], &[]);
    answer.refusal().map_or_else(|| Ok(IommuOption::load(&answer.body).value), Err)
}

const fn huge(ioas: IoasId, op: u16, value: u64) -> IommuOption {
    let object_id = ObjectId::new(ioas.get());
    IommuOption { option_id: OPTION_HUGE_PAGES, op, reserved: 0, object_id, value }
}

#[test]
fn large_pages_are_on_and_go_off_while_nothing_is_in_a_domain() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(1));
    let ioas = client.ioas_alloc().unwrap();
    let (get, off, on) = (huge(ioas, OPTION_GET, 7), huge(ioas, OPTION_SET, 0), huge(ioas, OPTION_SET, 1));
    assert_eq!(option(&mut client, get), Ok(1));
    map(&mut client, ioas, memory.slice(3, 5), at(3)).unwrap();
    assert_eq!(option(&mut client, off), Err(Errno::ADDRINUSE), "an area is not page aligned");
    client.unmap_all(ioas).unwrap();
    assert_eq!(option(&mut client, off), Ok(0));
    assert_eq!((option(&mut client, get), option(&mut client, off)), (Ok(0), Ok(0)));
    assert_eq!(errno(map(&mut client, ioas, memory.slice(3, 5), at(3))), Errno::INVAL, "alignment is a page");
    attach_new(&mut client, ioas, Iommu::Shared);
    map(&mut client, ioas, memory.whole(), at(0)).unwrap();
    assert_eq!(option(&mut client, off), Ok(0), "off already");
    assert_eq!(option(&mut client, on), Ok(1), "also with areas in a domain");
    assert_eq!(option(&mut client, off), Err(Errno::INVAL));
    assert_eq!(option(&mut client, get), Ok(1));
    assert_eq!(option(&mut client, huge(ioas, OPTION_SET, 2)), Err(Errno::INVAL));
    assert_eq!(option(&mut client, huge(ioas, 2, 0)), Err(Errno::OPNOTSUPP));
    assert_eq!(option(&mut client, huge(IoasId::new(77), 2, 2)), Err(Errno::NOENT));
}

/// The leaf sizes of a domain, page by page, as a walker finds them; and that the bytes behind them are `memory`'s.
fn leaves(client: &mut Connection, hwpt: HwptId, start: u64, memory: &Memory) -> Vec<u64> {
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    let burst = stream.enter();
    let mut bytes = vec![0; usize::try_from(memory.size()).unwrap()];
    burst.read(Iova::new(start), &mut bytes).unwrap();
    assert_eq!(bytes, Memory::bytes(0, memory.size()));
    let far = ByteLen::new(1 << 40);
    let leaf = |iova| burst.locate(Iova::new(iova), far, Access::Write).unwrap().length.get();
    (start..start + memory.size()).step_by(0x1000).map(leaf).collect()
}

#[test]
fn with_large_pages_off_every_leaf_is_a_page_and_afterwards_they_are_large_again() {
    const START: u64 = 0x20_0000;
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(1024));
    let ioas = client.ioas_alloc().unwrap();
    assert_eq!(option(&mut client, huge(ioas, OPTION_SET, 0)), Ok(0));
    let (_, hwpt) = attach_new(&mut client, ioas, Iommu::Shared);
    map(&mut client, ioas, memory.whole(), at(START)).unwrap();
    assert_eq!(leaves(&mut client, hwpt, START, &memory), vec![0x1000; 1024], "while it maps");
    let (_, second) = attach_new(&mut client, ioas, Iommu::Own);
    assert_eq!(
        leaves(&mut client, second, START, &memory),
        vec![0x1000; 1024],
        "in a domain that comes later"
    );
    client.unmap_all(ioas).unwrap();
    assert_eq!(option(&mut client, huge(ioas, OPTION_SET, 1)), Ok(1));
    map(&mut client, ioas, memory.whole(), at(START)).unwrap();
    let large = leaves(&mut client, hwpt, START, &memory);
    assert_eq!((large[0], large[511], large[512]), (0x20_0000, 0x1000, 0x20_0000));
}

#[test]
fn option_checks_in_the_order_of_the_kernel() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut refused = |value: IommuOption| option(&mut client, value);
    assert_eq!(refused(IommuOption { reserved: 1, option_id: 9, ..MODE }), Err(Errno::OPNOTSUPP));
    assert_eq!(refused(IommuOption { option_id: 2, ..MODE }), Err(Errno::OPNOTSUPP));
    assert_eq!(refused(IommuOption { object_id: ObjectId::new(1), ..MODE }), Err(Errno::OPNOTSUPP));
    assert_eq!(refused(IommuOption { op: 2, ..MODE }), Err(Errno::OPNOTSUPP));
    assert_eq!(refused(MODE), Ok(0));
}

/// Whether the kernel says that this process may choose limits.
fn is_privileged() -> bool {
    capabilities(Some(getpid())).unwrap().effective.contains(CapabilitySet::SYS_RESOURCE)
}

#[test]
fn rlimit_mode_is_chosen_with_privilege_before_there_are_objects() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let set = |value| IommuOption { op: OPTION_SET, value, ..MODE };
    if !is_privileged() {
        assert_eq!(option(&mut client, set(1)), Err(Errno::PERM));
        ioasd::skip!("rlimit_mode_is_chosen_with_privilege_before_there_are_objects: needs CAP_SYS_RESOURCE");
        return;
    }
    assert_eq!(option(&mut client, set(2)), Err(Errno::INVAL));
    assert_eq!(option(&mut client, MODE), Ok(0), "the mode is kept");
    assert_eq!(option(&mut client, set(1)), Ok(1));
    assert_eq!(option(&mut client, MODE), Ok(1));
    client.ioas_alloc().unwrap();
    assert_eq!(option(&mut client, set(0)), Err(Errno::BUSY));
    assert_eq!(option(&mut client, set(2)), Err(Errno::BUSY), "objects come before the value");
    assert_eq!(option(&mut client, MODE), Ok(1));
    assert_eq!(option(&mut agent.connect(), MODE), Ok(0), "each context has its own");
}

#[test]
fn a_process_without_the_privilege_cannot_choose_whoever_opened_the_context() {
    if !rustix::process::geteuid().is_root() {
        ioasd::skip!("a_process_without_the_privilege_cannot_choose_whoever_opened_the_context: needs root");
        return;
    }
    let agent = Agent::start();
    let client = agent.connect();
    Helper::nobody_with("chooser", client.as_fd().try_clone_to_owned().unwrap());
}

/// What a process of another user finds on the connection of a privileged one.
pub(crate) fn play_chooser(mut client: Connection) {
    assert!(!is_privileged(), "the helper has kept its privilege");
    let set = IommuOption { op: OPTION_SET, value: 9, ..MODE };
    assert_eq!(option(&mut client, set), Err(Errno::PERM), "the privilege comes before the value");
    client.ioas_alloc().unwrap();
    assert_eq!(option(&mut client, set), Err(Errno::PERM), "and before the objects");
    assert_eq!(option(&mut client, MODE), Ok(0));
}
