//! Walkers in processes of their own, while the addresses they read are mapped to other memory again and again.
//!
//! Each round maps eight pages full of the number of the round, unmaps them, and spoils them as soon as the unmap is
//! answered. Whatever one burst of a walker sees must be of one round. Meanwhile walkers are killed, stopped inside
//! their burst, and make children.
//!
//! `IOASD_STRESS_SECONDS` says how long it goes on.

use std::io::{Write, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ioasd::actors::retirement::{HungPolicy, HungSettings};
use ioasd::storage::frame_window::FrameLimit;
use ioasd_client::calls::{ExportChannel, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::ids::{HwptId, IoasId};
use ioasd_client::layout::{SlotIndex, WALKER_BYTES};
use ioasd_client::mapping::{MapAccess, SharedMapping};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::walker::{Burst, FaultKind, WalkFault};
use rustix::io::{Errno, dup};

use crate::fixture::{Agent, eventually};
use crate::helper::{Helper, READY};
use crate::memory::{Bystander, Memory, at, client_with_domain, map, range, write_at};
use crate::walking::open;

const IOVA: u64 = 0x1_0000;
const PAGES: u64 = 8;
const PAGE: usize = 4096;
const SPOILED: u64 = u64::MAX;

/// How many bursts a walker checks before it says that it is ready.
const WARM: u64 = 100;

/// How many files a learner sees before it says so.
const FILES_SEEN: u32 = 20;

fn seconds() -> Duration {
    let set = std::env::var("IOASD_STRESS_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(set.unwrap_or(2))
}

/// The round that a page is of; all of it.
fn round_of(page: &[u8]) -> u64 {
    let mut words = page.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let first = words.next().unwrap();
    assert!(words.all(|word| word == first), "a page is of two rounds");
    assert_ne!(first, SPOILED, "a page was read after its unmap was answered");
    first
}

/// Reads everything that is mapped; tells of which round it is.
fn look(burst: &Burst<'_>) -> Option<u64> {
    let (mut page, mut round) = (vec![0; PAGE], None);
    for number in 0..PAGES {
        if burst.read(Iova::new(IOVA + number * PAGE as u64), &mut page).is_ok() {
            let found = round_of(&page);
            assert_eq!(*round.get_or_insert(found), found, "one burst saw two rounds");
        }
    }
    round
}

/// Part of a helper: checks without end, and calls `between` inside its bursts.
fn check_with(mut between: impl FnMut()) -> ! {
    let walker = open(stdin().as_fd().try_clone_to_owned().unwrap());
    let (mut stream, mut looked) = (walker.stream().unwrap(), 0);
    loop {
        let burst = stream.enter();
        let before = look(&burst);
        between();
        let after = look(&burst);
        assert!(before.is_none() || after.is_none() || before == after, "memory changed under a burst");
        drop(burst);
        if after.is_some() {
            looked += 1;
            say_ready_at(looked);
        }
    }
}

fn say_ready_at(looked: u64) {
    say_ready_when(looked == WARM);
}

fn say_ready_when(warm: bool) {
    if warm {
        println!("{READY}");
        stdout().flush().unwrap();
    }
}

pub(crate) fn play_checker() -> ! {
    check_with(|| {})
}

pub(crate) fn play_forking_checker() -> ! {
    let mut turn = 0_u32;
    check_with(|| {
        turn += 1;
        if turn.is_multiple_of(64) {
            assert!(Command::new("true").stdin(Stdio::null()).status().unwrap().success());
        }
    })
}

/// Part of a helper: checks without end, and learns of every file that it meets. It is ready when it has seen many.
pub(crate) fn play_learner() -> ! {
    let walker = open(stdin().as_fd().try_clone_to_owned().unwrap());
    let (mut stream, mut seen, mut last) = (walker.stream().unwrap().with_iotlb(), 0, None);
    loop {
        let round = stream.burst(look_or_learn).unwrap_or(None);
        if round.is_some() && round != last {
            last = round;
            seen += 1;
            say_ready_when(seen == FILES_SEEN);
        }
    }
}

/// As [`look`]; a file that is not known is to be learned of.
fn look_or_learn(burst: &Burst<'_>) -> Result<Option<u64>, WalkFault> {
    for number in 0..PAGES {
        let read = burst.read(Iova::new(IOVA + number * PAGE as u64), &mut [0; 8]);
        if let Err(fault @ WalkFault { kind: FaultKind::NotExported, .. }) = read {
            return Err(fault);
        }
    }
    Ok(look(burst))
}

/// Part of a helper: becomes another program inside a burst.
pub(crate) fn play_changeling() -> ! {
    let walker = open(stdin().as_fd().try_clone_to_owned().unwrap());
    let mut stream = walker.stream().unwrap();
    let burst = stream.enter();
    assert!(look(&burst).is_some());
    let error = Command::new("sh")
        .args(["-c", &format!("echo '{READY}'; exec sleep 1000")])
        .stdin(Stdio::null())
        .exec();
    panic!("{error}")
}

/// Part of a helper: writes anything into the slots of a walker.
pub(crate) fn play_scribbler() -> ! {
    let mut channel = ExportChannel::from_fd(stdin().as_fd().try_clone_to_owned().unwrap());
    let parts = channel.open().unwrap();
    let slots = SharedMapping::new(&parts.slots, ByteLen::new(WALKER_BYTES), MapAccess::ReadWrite).unwrap();
    println!("{READY}");
    stdout().flush().unwrap();
    let mut bits = 1_u64;
    loop {
        for slot in SlotIndex::all() {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            slots.word(slot.offset()).unwrap().store(bits >> (bits % 64), Ordering::Relaxed);
        }
    }
}

/// The one who maps.
struct Mapper {
    client: Connection,
    ioas: IoasId,
    hwpt: HwptId,
    files: [Memory; 2],
    round: u64,
}

impl Mapper {
    fn new(agent: &Agent) -> Self {
        let (client, ioas, hwpt) = client_with_domain(agent);
        Self { client, ioas, hwpt, files: [Memory::new(PAGES), Memory::new(PAGES)], round: 0 }
    }

    fn channel(&mut self) -> OwnedFd {
        self.client.domain_export(self.hwpt).unwrap()
    }

    fn file(&self) -> &Memory {
        &self.files[usize::from(self.round % 2 == 1)]
    }

    fn map(&mut self) {
        self.round += 1;
        fill(self.file(), self.round);
        let file = &self.files[usize::from(self.round % 2 == 1)];
        map(&mut self.client, self.ioas, file.whole(), at(IOVA)).unwrap();
    }

    fn unmap(&mut self) {
        self.client.unmap(self.ioas, range(IOVA, PAGES * PAGE as u64)).unwrap();
        fill(self.file(), SPOILED);
    }

    fn rounds(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.unmap();
            self.map();
        }
    }
}

fn fill(file: &Memory, word: u64) {
    write_at(file, 0, &word.to_le_bytes().repeat(usize::try_from(file.size() / 8).unwrap()));
}

fn retiring(agent: &Agent) -> u64 {
    agent.snapshot().pages.iter().map(|entry| entry.stats.retiring.get().get()).sum()
}

/// Unmaps while a walker is stopped, wherever it is, and maps again.
fn round_with_stopped(agent: &Agent, mapper: &mut Mapper, walker: &Helper) {
    let unmapped = AtomicBool::new(false);
    walker.stop();
    thread::scope(|scope| {
        scope.spawn(|| {
            mapper.unmap();
            unmapped.store(true, Ordering::Release);
        });
        assert!(eventually(|| unmapped.load(Ordering::Acquire) || retiring(agent) > 0));
        walker.resume();
    });
    mapper.map();
}

#[test]
fn walkers_never_see_memory_after_its_unmap_whatever_happens_to_them() {
    let agent = Agent::start();
    let mut mapper = Mapper::new(&agent);
    mapper.map();
    let mut steady = Helper::checker("checker", mapper.channel());
    let mut stopped = Helper::checker("checker", mapper.channel());
    let mut forking = Helper::checker("forking-checker", mapper.channel());
    let mut mortal = Helper::checker("checker", mapper.channel());
    let end = Instant::now() + seconds();
    while Instant::now() < end {
        mapper.rounds(20);
        round_with_stopped(&agent, &mut mapper, &stopped);
        mapper.rounds(20);
        assert!(mortal.is_alive(), "a walker found something wrong");
        mortal.kill();
        mapper.rounds(5);
        mortal = Helper::checker("checker", mapper.channel());
    }
    for walker in [&mut steady, &mut stopped, &mut forking] {
        assert!(walker.is_alive(), "a walker found something wrong");
    }
    mapper.unmap();
    assert!(mapper.round > 40, "{} rounds", mapper.round);
}

/// Every round is a file of its own, so that frames go from one file to another while the walkers look.
#[test]
fn walkers_that_learn_of_files_never_take_one_for_another() {
    const WINDOWS: FrameLimit = FrameLimit { output_lg2: 39 };
    let agent = Agent::with(|settings| settings.frames = WINDOWS);
    let mut mapper = Mapper::new(&agent);
    let channels = [(); 2].map(|()| mapper.channel());
    let ready = AtomicUsize::new(0);
    let (begun, mut rounds) = (Instant::now(), 0);
    thread::scope(|scope| {
        let learners = channels.map(|channel| {
            scope.spawn(|| {
                let learner = Helper::checker("learner", channel);
                ready.fetch_add(1, Ordering::Release);
                learner
            })
        });
        let enough = |rounds| ready.load(Ordering::Acquire) == 2 && rounds > WINDOWS.windows();
        while !enough(rounds) || begun.elapsed() < seconds() {
            rounds += 1;
            let file = Memory::new(PAGES);
            fill(&file, rounds);
            map(&mut mapper.client, mapper.ioas, file.whole(), at(IOVA)).unwrap();
            (0..8).for_each(|_| thread::yield_now());
            mapper.client.unmap(mapper.ioas, range(IOVA, PAGES * PAGE as u64)).unwrap();
            fill(&file, SPOILED);
            assert!(begun.elapsed() < seconds() + Duration::from_secs(120), "the learners see nothing");
        }
        for learner in learners {
            assert!(learner.join().unwrap().is_alive(), "a walker found something wrong");
        }
    });
}

#[test]
fn a_walker_that_becomes_another_program_inside_a_burst_is_not_waited_for() {
    let agent = Agent::start();
    let mut mapper = Mapper::new(&agent);
    mapper.map();
    let mut changed = Helper::checker("changeling", mapper.channel());
    mapper.unmap();
    assert!(changed.is_alive(), "it is the other program now");
}

#[test]
fn garbage_in_slots_harms_its_own_client_alone() {
    let settings = HungSettings {
        alarm_after: Duration::from_millis(50),
        policy: HungPolicy::Fail,
        deadline: Duration::from_millis(100),
    };
    let agent = Agent::with(|start| start.walkers = settings);
    let (mut mapper, mut bystander) = (Mapper::new(&agent), Bystander::new(&agent));
    let channel = mapper.channel();
    let scribbler = Helper::checker("scribbler", dup(&channel).unwrap());
    for _ in 0..3 {
        map(&mut mapper.client, mapper.ioas, mapper.files[0].whole(), Placement::Any).unwrap();
        if let Err(error) = mapper.client.unmap_all(mapper.ioas) {
            assert!(matches!(error.errno(), Errno::TIMEDOUT | Errno::BUSY), "{error}");
        }
        bystander.goes_on();
    }
    drop(channel);
    scribbler.kill();
    assert!(eventually(|| agent.pinned_and_charged() == (0, 0)), "what retired was not let go of");
}
