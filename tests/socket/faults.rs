//! Faults of walkers in processes of their own: what the agent knows of them while they run, after they were killed, and when
//! they lie.

use std::io::{Write, stdin, stdout};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use ioasd::domains::walker_faults::{FaultPart, KEPT};
use ioasd_client::calls::{ExportChannel, Iommu};
use ioasd_client::error::{CallError, ProtocolError};
use ioasd_client::faults::{FaultChannel, Faults};
use ioasd_client::layout::{Access, COUNTS_OFFSET, FaultKind, WALKER_BYTES};
use ioasd_client::mapping::{MapAccess, SharedMapping};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::walker::Stream;
use rustix::io::Errno;

use crate::fixture::{Agent, errno, eventually};
use crate::helper::{Helper, READY};
use crate::memory::{Memory, at, attach_new, client_with_domain, map};
use crate::walking::open;

/// Where the faulting walker reads, and where nothing is mapped.
const NOWHERE: u64 = 0x70_0000;

/// How often the faulting walker faults.
const FAULTS: u64 = 1000;

/// Part of a helper: reads what is not mapped, and stays.
pub(crate) fn play_faulter() -> ! {
    let walker = open(stdin().as_fd().try_clone_to_owned().unwrap());
    let mut stream = walker.stream().unwrap();
    for page in 0..FAULTS {
        let burst = stream.enter();
        assert!(burst.read(Iova::new(NOWHERE + (page << 12)), &mut [0]).is_err());
    }
    say_ready();
    loop {
        std::thread::park();
    }
}

/// Part of a helper: writes anything into all of a walker's memory but the slots, without end.
pub(crate) fn play_liar() -> ! {
    let mut channel = ExportChannel::from_fd(stdin().as_fd().try_clone_to_owned().unwrap());
    let parts = channel.open().unwrap();
    let memory = SharedMapping::new(&parts.slots, ByteLen::new(WALKER_BYTES), MapAccess::ReadWrite).unwrap();
    let mut bits = 1_u64;
    for round in 0_u32.. {
        for offset in (COUNTS_OFFSET..WALKER_BYTES).step_by(8) {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            memory.word(offset).unwrap().store(bits >> (bits % 64), Ordering::Relaxed);
        }
        if round == 0 {
            say_ready();
        }
    }
    unreachable!("it is killed before")
}

fn say_ready() {
    println!("{READY}");
    stdout().flush().unwrap();
}

/// What is known of the faults of domain `number` of an agent, the first being 0.
fn known(agent: &Agent, number: usize) -> FaultPart {
    agent.snapshot().domains[number].stats.faults.since(0, usize::MAX)
}

fn not_present(part: &FaultPart) -> u64 {
    part.counts.iter().find(|(kind, _)| *kind == FaultKind::NotPresent).unwrap().1
}

#[test]
fn faults_of_another_process_are_known_and_outlive_it() {
    let agent = Agent::start();
    let (mut client, ioas, hwpt) = client_with_domain(&agent);
    let memory = Memory::new(1);
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let walker = Helper::checker("faulter", client.domain_export(hwpt).unwrap());
    let pid = walker.pid();
    let part = known(&agent, 0);
    assert_eq!((not_present(&part), part.counts.sum()), (FAULTS, FAULTS));
    let last = part.faults.last().unwrap();
    assert_eq!((last.iova.get(), last.access), (NOWHERE + ((FAULTS - 1) << 12), Access::Read));
    assert!(last.process.is_none_or(|process| process == pid), "{last:?}");
    walker.kill();
    assert!(eventually(|| agent.snapshot().domains[0].stats.walkers.get() == 0));
    assert_eq!(known(&agent, 0), part, "as it was before its end");
    drop(client);
    assert!(eventually(|| agent.snapshot().domains.is_empty()));
    assert_eq!(agent.snapshot().faults.sum(), FAULTS, "the agent's own count only grows");
}

#[test]
fn a_walker_that_dies_before_anybody_looked_has_told_nevertheless() {
    let agent = Agent::start();
    let (mut client, _, hwpt) = client_with_domain(&agent);
    Helper::checker("faulter", client.domain_export(hwpt).unwrap()).kill();
    assert!(eventually(|| agent.snapshot().domains[0].stats.walkers.get() == 0));
    assert_eq!(not_present(&known(&agent, 0)), FAULTS);
}

#[test]
fn what_a_liar_tells_harms_its_own_domain_alone() {
    let agent = Agent::start();
    let (mut client, ioas, hwpt) = client_with_domain(&agent);
    let (_, other) = attach_new(&mut client, ioas, Iommu::Own);
    let liar = Helper::checker("liar", client.domain_export(hwpt).unwrap());
    let walker = Helper::checker("faulter", client.domain_export(other).unwrap());
    for _ in 0..200 {
        let part = known(&agent, 0);
        assert!(part.faults.len() <= KEPT && part.faults.is_sorted_by_key(|fault| fault.number));
        assert!(agent.snapshot().faults.sum() < 1 << 50);
    }
    assert_eq!(not_present(&known(&agent, 1)), FAULTS);
    let memory = Memory::new(1);
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    client.unmap_all(ioas).unwrap();
    liar.kill();
    walker.kill();
    drop(client);
    agent.assert_clean();
}

#[test]
fn a_handler_is_told_of_the_faults_of_another_process() {
    let agent = Agent::start();
    let (mut client, _, hwpt) = client_with_domain(&agent);
    let mut handlers: Vec<_> = (0..4).map(|_| client.domain_faults(hwpt).unwrap()).collect();
    assert_eq!(errno(client.domain_faults(hwpt)), Errno::MFILE);
    let mut handler = FaultChannel::from_fd(handlers.remove(0));
    assert_eq!(handler.try_receive().unwrap(), None);
    drop(handlers);
    assert!(eventually(|| client.domain_faults(hwpt).is_ok()), "places are free again");
    let walker = Helper::checker("faulter", client.domain_export(hwpt).unwrap());
    let (mut told, mut missed, mut last) = (0, 0, None);
    while last != Some(NOWHERE + ((FAULTS - 1) << 12)) {
        let Faults { missed: more, faults } = handler.receive().unwrap();
        assert!(faults.iter().all(|fault| fault.kind() == Some(FaultKind::NotPresent)));
        assert!(faults.iter().all(|fault| fault.access() == Access::Read && fault.times == 1));
        told += faults.len() as u64;
        missed += more;
        last = faults.last().map(|fault| fault.iova.get());
    }
    assert_eq!(known(&agent, 0).faults.last().unwrap().number, told + missed);
    walker.kill();
    drop(client);
    assert!(matches!(handler.receive(), Err(CallError::Protocol(ProtocolError::Closed))));
    agent.assert_clean();
}

#[test]
fn a_handler_that_does_not_read_costs_nothing_and_is_told_what_it_missed() {
    let agent = Agent::start();
    let (mut client, _, hwpt) = client_with_domain(&agent);
    let mut handler = FaultChannel::from_fd(client.domain_faults(hwpt).unwrap());
    let walker = open(client.domain_export(hwpt).unwrap());
    let mut stream = walker.stream().unwrap();
    let fault = |stream: &mut Stream, page: u64| {
        assert!(stream.enter().read(Iova::new(page << 12), &mut [0]).is_err());
        agent.snapshot().domains[0].stats.faults.look();
    };
    (0..40 * KEPT as u64).for_each(|page| fault(&mut stream, page));
    let (mut told, mut missed, end) = (0, 0, known(&agent, 0).faults.last().unwrap().number);
    while told + missed < end {
        let Faults { missed: more, faults } = handler.receive().unwrap();
        told += faults.len() as u64;
        missed += more;
    }
    assert!(missed > 0 && told > 0, "{told} told, {missed} missed");
}
