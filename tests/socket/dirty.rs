//! What walkers write while it is tracked: told page by page, once, and not lost whatever becomes of them.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ioasd::actors::retirement::{HungPolicy, HungSettings};
use ioasd_client::calls::{AccessKind, ExportChannel, Iommu, Told, Tracking};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{HwptId, IoasId};
use ioasd_client::mapping::{MapAccess, SharedMapping};
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE};
use ioasd_client::walker::{Stream, Walker};
use rustix::io::{Errno, dup, pwrite};

use crate::fixture::{Agent, errno, eventually};
use crate::helper::Helper;
use crate::memory::{Memory, at, map, range};
use crate::walking::open;

const IOVA: u64 = 0x1_0000;
const PAGES: u64 = 16;

/// A client with sixteen pages mapped at [`IOVA`] into a domain that can be tracked.
pub(crate) struct Tracked {
    pub(crate) client: Connection,
    pub(crate) ioas: IoasId,
    pub(crate) hwpt: HwptId,
    memory: Memory,
}

impl Tracked {
    fn new(agent: &Agent) -> Self {
        let (mut client, memory) = (agent.connect(), Memory::new(PAGES));
        let ioas = client.ioas_alloc().unwrap();
        let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
        let hwpt = client.hwpt_alloc_tracked(device, ioas, None).unwrap();
        client.device_attach(device, hwpt).unwrap();
        map(&mut client, ioas, memory.whole(), at(IOVA)).unwrap();
        Self { client, ioas, hwpt, memory }
    }

    fn on(agent: &Agent) -> Self {
        let mut tracked = Self::new(agent);
        tracked.track(Tracking::On);
        tracked
    }

    fn track(&mut self, tracking: Tracking) {
        self.client.set_dirty_tracking(self.hwpt, tracking).unwrap();
    }

    fn channel(&mut self) -> OwnedFd {
        self.client.domain_export(self.hwpt).unwrap()
    }

    fn walker(&mut self) -> Walker {
        open(self.channel())
    }

    /// The pages that are told, by their numbers behind [`IOVA`].
    fn ask(&mut self, told: Told) -> Vec<u64> {
        let pages = range(IOVA, PAGES * PAGE_SIZE);
        let bitmap = self.client.dirty_bitmap(self.hwpt, pages, ByteLen::new(PAGE_SIZE), told).unwrap();
        bits(&bitmap)
    }

    fn taken(&mut self) -> Vec<u64> {
        self.ask(Told::Clean)
    }
}

/// The numbers of the bits that are set.
pub(crate) fn bits(bitmap: &[u8]) -> Vec<u64> {
    let bits =
        (0..).zip(bitmap).flat_map(|(byte, bits)| (0..8).map(move |bit| (8 * byte + bit, bits >> bit & 1)));
    bits.filter(|(_, set)| *set == 1).map(|(bit, _)| bit).collect()
}

fn write(stream: &mut Stream, page: u64) {
    stream.enter().write(Iova::new(IOVA + page * PAGE_SIZE + 5), b"x").unwrap();
}

fn streams(walker: &Walker) -> [Stream; 2] {
    [walker.stream().unwrap(), walker.stream().unwrap().with_iotlb()]
}

#[test]
fn what_is_written_is_told_once_and_what_is_read_never() {
    let agent = Agent::start();
    let mut tracked = Tracked::on(&agent);
    let walker = tracked.walker();
    for mut stream in streams(&walker) {
        for _ in 0..3 {
            stream.enter().read(Iova::new(IOVA), &mut [0; 0x3000]).unwrap();
            for page in [9, 0, 9] {
                write(&mut stream, page);
            }
            assert_eq!(tracked.ask(Told::Kept), [0, 9]);
            assert_eq!(tracked.taken(), [0, 9]);
            assert_eq!(tracked.taken(), [0; 0]);
        }
    }
}

#[test]
fn tracking_begins_clean_and_ends_without_forgetting() {
    let agent = Agent::start();
    let mut tracked = Tracked::new(&agent);
    let walker = tracked.walker();
    let [mut plain, mut remembering] = streams(&walker);
    write(&mut remembering, 1);
    assert_eq!(tracked.taken(), [0; 0], "nothing is logged before");
    tracked.track(Tracking::On);
    write(&mut remembering, 1);
    write(&mut plain, 2);
    tracked.track(Tracking::On);
    write(&mut remembering, 3);
    tracked.track(Tracking::Off);
    write(&mut plain, 4);
    assert_eq!(tracked.taken(), [3]);
}

#[test]
fn a_page_that_was_unmapped_is_clean_when_something_is_mapped_there_again() {
    let agent = Agent::start();
    let mut tracked = Tracked::on(&agent);
    let walker = tracked.walker();
    let mut stream = walker.stream().unwrap().with_iotlb();
    for page in [2, 3, 8] {
        write(&mut stream, page);
    }
    assert_eq!(tracked.ask(Told::Kept), [2, 3, 8]);
    let Tracked { client, ioas, memory, .. } = &mut tracked;
    client.unmap_all(*ioas).unwrap();
    map(client, *ioas, memory.slice(0, 0x4000), at(IOVA)).unwrap();
    map(client, *ioas, memory.slice(0x8000, 0x8000), at(IOVA + 0x8000)).unwrap();
    write(&mut stream, 3);
    assert_eq!(tracked.taken(), [3]);
}

#[test]
fn a_burst_that_goes_on_is_waited_for_and_what_it_writes_later_is_told() {
    let agent = Agent::start();
    let mut tracked = Tracked::on(&agent);
    let helper = Helper::checker("writer-in-burst", tracked.channel());
    let Tracked { mut client, hwpt, .. } = tracked;
    let (done, when_done) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let pages = range(IOVA, PAGES * PAGE_SIZE);
            let bitmap = client.dirty_bitmap(hwpt, pages, ByteLen::new(PAGE_SIZE), Told::Clean).unwrap();
            done.send(bits(&bitmap)).unwrap();
        });
        let early = when_done.recv_timeout(Duration::from_millis(100));
        assert!(early.is_err(), "who writes may still be writing: {early:?}");
        helper.kill();
        assert_eq!(when_done.recv().unwrap(), [1, 2], "what it could have written is told");
    });
}

#[test]
fn what_walkers_wrote_that_are_gone_is_told() {
    let agent = Agent::start();
    let mut tracked = Tracked::on(&agent);
    let kept = tracked.channel();
    let killed = Helper::checker("writer-in-burst", dup(&kept).unwrap());
    killed.kill();
    for page in [4, 5, 6] {
        let walker = tracked.walker();
        write(&mut walker.stream().unwrap(), page);
    }
    let walkers = |agent: &Agent| agent.snapshot().domains[0].stats.walkers.get();
    assert!(eventually(|| walkers(&agent) == 1), "channels that were closed");
    assert_eq!(tracked.ask(Told::Kept), [1, 2, 4, 5, 6]);
    drop(kept);
    assert!(eventually(|| walkers(&agent) == 0));
    assert_eq!(tracked.taken(), [1, 2, 4, 5, 6]);
    assert_eq!(tracked.taken(), [0; 0]);
}

#[test]
fn a_read_that_is_given_up_on_loses_nothing() {
    let settings = HungSettings {
        alarm_after: Duration::from_millis(50),
        policy: HungPolicy::Fail,
        deadline: Duration::from_millis(100),
    };
    let agent = Agent::with(|start| start.walkers = settings);
    let mut tracked = Tracked::on(&agent);
    let walker = tracked.walker();
    write(&mut walker.stream().unwrap(), 7);
    let helper = Helper::checker("writer-in-burst", tracked.channel());
    let pages = range(IOVA, PAGES * PAGE_SIZE);
    let page = ByteLen::new(PAGE_SIZE);
    for _ in 0..2 {
        let late = tracked.client.dirty_bitmap(tracked.hwpt, pages, page, Told::Clean);
        assert_eq!(errno(late), Errno::TIMEDOUT);
    }
    assert_eq!(errno(tracked.client.set_dirty_tracking(tracked.hwpt, Tracking::On)), Errno::TIMEDOUT);
    helper.kill();
    assert!(eventually(|| tracked.ask(Told::Kept) == [1, 2, 7]), "{:?}", tracked.ask(Told::Kept));
    assert_eq!(tracked.taken(), [1, 2, 7]);
}

#[test]
fn garbage_in_a_log_harms_its_own_domain_alone() {
    let agent = Agent::start();
    let (mut tracked, mut other) = (Tracked::on(&agent), Tracked::on(&agent));
    let mut channel = ExportChannel::from_fd(tracked.channel());
    let log = channel.open().unwrap().log.unwrap();
    let mapped = SharedMapping::new(&log, ByteLen::new(4096), MapAccess::ReadWrite).unwrap();
    for word in 0..512 {
        mapped.word(8 * word).unwrap().store(u64::MAX, Ordering::Relaxed);
    }
    pwrite(&log, &[0xff; 0x3000], 1 << 30).unwrap();
    assert_eq!(rustix::fs::ftruncate(&log, 4096), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&log, 1 << 60), Err(Errno::PERM));
    assert_eq!(tracked.taken(), (0..PAGES).collect::<Vec<_>>(), "it is believed, where something is mapped");
    assert_eq!((tracked.taken(), other.taken()), (vec![], vec![]));
    let other_walker = other.walker();
    write(&mut other_walker.stream().unwrap(), 3);
    assert_eq!(other.taken(), [3]);
}

#[test]
fn what_is_written_through_an_access_is_told() {
    let agent = Agent::start();
    let mut tracked = Tracked::new(&agent);
    let access = tracked.client.access_create(tracked.ioas, AccessKind::Bytes).unwrap();
    let at = |page: u64| Iova::new(IOVA + page * PAGE_SIZE - 1);
    tracked.client.access_write(access, at(1), b"xy").unwrap();
    tracked.track(Tracking::On);
    tracked.client.access_write(access, at(5), b"xy").unwrap();
    tracked.client.access_read(access, at(9), &mut [0; 2]).unwrap();
    assert_eq!(tracked.ask(Told::Kept), [4, 5]);
    assert_eq!(tracked.taken(), [4, 5]);
    assert_eq!(tracked.taken(), [0; 0]);
}

#[test]
fn who_cannot_be_tracked_is_told_so() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    let hwpt = client.device_attach(device, ioas).unwrap();
    assert_eq!(errno(client.set_dirty_tracking(hwpt, Tracking::On)), Errno::OPNOTSUPP);
    let parts = ExportChannel::from_fd(client.domain_export(hwpt).unwrap()).open().unwrap();
    assert!(parts.log.is_none());
}
