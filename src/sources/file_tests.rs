//! The file source on real files: memory of every kind, and what only looks like it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::fs::{
    FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate,
    memfd_create, open,
};

use super::*;
use crate::sources::strength::{Abilities, Ladder};
use crate::storage::frame_window::{FrameError, FrameLimit, FrameSpace, RestToken};
use crate::storage::ledger::node::Allowance;
use crate::storage::ledger::resource::Resource;
use crate::storage::pfn::{Run, RunLimit};
use crate::storage::source::StrengthSetting;

/// The real frame space, and the tokens of what was released.
struct Space(Mutex<(FrameSpace, Vec<RestToken>)>);

impl Space {
    fn new() -> Arc<Self> {
        let limit = FrameLimit { output_lg2: 40 };
        Arc::new(Self(Mutex::new((FrameSpace::new(limit), Vec::new()))))
    }

    fn check(&self) {
        self.0.lock().0.check();
    }

    fn released(&self) -> usize {
        self.0.lock().1.len()
    }
}

impl Frames for Space {
    fn run(&self, file: FileKey, first: PageIndex, pages: u64) -> Result<(Pfn, u64), FrameError> {
        self.0.lock().0.run(file, first, pages)
    }

    fn retain(&self, file: FileKey) {
        self.0.lock().0.retain(file);
    }

    fn release(&self, file: FileKey) {
        let mut space = self.0.lock();
        let token = space.0.release(file);
        space.1.extend(token);
    }
}

fn range(first: u64, pages: u64) -> IndexRange {
    IndexRange::from_length(PageIndex::new(first), pages).unwrap()
}

fn memfd(pages: u64) -> OwnedFd {
    let file = memfd_create("source", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, pages * PAGE_SIZE).unwrap();
    file
}

fn populated(pages: u64) -> OwnedFd {
    let file = memfd(pages);
    (0..pages).for_each(|page| fill(&file, page));
    file
}

/// Writes the page's number into all of its bytes.
fn fill(file: &OwnedFd, page: u64) {
    let bytes = vec![page.to_le_bytes()[0]; 4096];
    file_io::write_all_at(file.as_fd(), ByteLen::new(page * PAGE_SIZE), &bytes).unwrap();
}

/// A host without any limit that holds at `strength`.
fn host(strength: Strength, space: Arc<Space>) -> PinHost {
    let abilities = Abilities {
        longterm: Ok(()),
        locked: Ok(()),
        memlock: MemlockLimit::Unlimited,
        swap: ByteLen::new(0),
    };
    PinHost::new(Ladder::new(StrengthSetting::Exactly(strength), &abilities).unwrap(), space)
}

fn source_in(space: &Arc<Space>, file: OwnedFd, pages: IndexRange) -> FileSource {
    FileSource::new(file, pages, &host(Strength::Resident, Arc::clone(space)), FirstTouch::none()).unwrap()
}

fn source(file: OwnedFd, pages: IndexRange) -> FileSource {
    source_in(&Space::new(), file, pages)
}

/// Tests share the limit of their process; whoever is bound by it tests limits elsewhere (`tests/strengths`).
fn is_unlimited(test: &str, abilities: &Abilities) -> bool {
    let unlimited = abilities.memlock == MemlockLimit::Unlimited;
    if !unlimited {
        crate::skip!("{test} at strengths that lock: RLIMIT_MEMLOCK binds, run it with CAP_IPC_LOCK");
    }
    unlimited
}

/// Sources of `file` at every strength that this host and process can do; says which it cannot.
fn at_every_strength(test: &str, file: impl Fn() -> OwnedFd, pages: IndexRange) -> Vec<FileSource> {
    let abilities = Abilities::probe().unwrap();
    let able = |strength: &Strength| {
        let obstacle = abilities.obstacle(*strength);
        if let Some(cause) = obstacle {
            crate::skip!("{test} at {}: {cause}", strength.name());
        }
        obstacle.is_none() && (*strength == Strength::Resident || is_unlimited(test, &abilities))
    };
    let strengths = Strength::ALL.into_iter().filter(able);
    strengths
        .map(|strength| {
            FileSource::new(file(), pages, &host(strength, Space::new()), FirstTouch::none()).unwrap()
        })
        .collect()
}

fn batch(first: u64) -> PfnBatch {
    PfnBatch::new(PageIndex::new(first), RunLimit::DEFAULT).unwrap()
}

fn pin(source: &FileSource, pages: IndexRange) -> Result<PfnBatch, SourceError> {
    let mut batch = batch(pages.first().get());
    let outcome = source.pin(pages, &mut batch);
    source.check();
    batch.check();
    assert!(outcome.is_ok() || batch.is_empty(), "a failed pin left frames behind");
    outcome.map(|()| batch)
}

/// Errno, code and page of a pin that must fail.
fn refusal(source: &FileSource, pages: IndexRange) -> (Errno, &'static str, u64) {
    let error = pin(source, pages).unwrap_err();
    assert_eq!(source.pinned(), 0);
    (error.errno, error.code, error.index.get())
}

#[test]
fn pages_are_pinned_once_each_and_recalled_with_the_same_frames() {
    let source = source(populated(8), range(2, 6));
    let pinned = pin(&source, range(1, 4)).unwrap();
    assert_eq!((pinned.pages(), pinned.runs().len(), source.pinned()), (4, 1, 4));
    let mut recalled = batch(1);
    source.recall(range(1, 4), &mut recalled).unwrap();
    assert_eq!((&recalled, source.pinned()), (&pinned, 4));
    source.unpin(range(1, 4));
    assert_eq!(source.pinned(), 0);
    source.check();
}

#[test]
fn frames_follow_from_the_page_of_the_file_whoever_asks() {
    let (file, space) = (populated(8), Space::new());
    let copy = file.try_clone().unwrap();
    let whole = source_in(&space, file, range(0, 8));
    let part = source_in(&space, copy, range(3, 4));
    let (of_whole, of_part) = (pin(&whole, range(0, 8)).unwrap(), pin(&part, range(0, 4)).unwrap());
    assert_eq!(of_part.get(PageIndex::new(2)), of_whole.get(PageIndex::new(5)));
    assert_eq!(whole.key(), part.key());
    space.check();
}

#[test]
fn a_file_is_retained_until_its_last_source_goes() {
    let (file, space) = (populated(1), Space::new());
    let copy = file.try_clone().unwrap();
    let first = source_in(&space, file, range(0, 1));
    let second = source_in(&space, copy, range(0, 1));
    pin(&first, range(0, 1)).unwrap();
    drop(first);
    space.check();
    assert_eq!(space.released(), 0);
    drop(second);
    space.check();
    assert_eq!(space.released(), 1);
}

#[test]
fn a_full_batch_pins_no_more_than_fits() {
    let source = source(populated(4), range(0, 4));
    let mut full = PfnBatch::new(PageIndex::new(0), RunLimit::new(1)).unwrap();
    assert_eq!(full.push(Pfn::new(7), 1), 1);
    source.pin(range(1, 3), &mut full).unwrap();
    assert_eq!((full.runs(), source.pinned()), (&[Run { pfn: Pfn::new(7), pages: 1 }][..], 0));
    source.check();
}

#[test]
fn frames_that_jump_at_a_window_fill_only_the_runs_there_are() {
    let window = 1 << 18;
    let file = memfd(0);
    let space = Space::new();
    let source = source_in(&space, file, range(0, window + 1));
    let other = source_in(&space, memfd(1), range(0, 1));
    let mut first = batch(0);
    source.recall(range(0, 1), &mut first).unwrap();
    other.recall(range(0, 1), &mut batch(0)).unwrap();
    let mut one_run = PfnBatch::new(PageIndex::new(0), RunLimit::new(1)).unwrap();
    source.recall(range(0, window + 1), &mut one_run).unwrap();
    assert_eq!(one_run.pages(), window);
    let mut runs = batch(0);
    source.recall(range(0, window + 1), &mut runs).unwrap();
    assert_eq!((runs.pages(), runs.runs().len()), (window + 1, 2));
}

#[test]
fn a_page_beyond_the_end_is_refused_with_einval_and_nothing_is_pinned() {
    let source = source(populated(4), range(1, 6));
    assert_eq!(refusal(&source, range(0, 4)), (Errno::INVAL, "source-beyond-end", 3));
    assert_eq!(refusal(&source, range(4, 1)), (Errno::INVAL, "source-beyond-end", 4));
    assert_eq!(pin(&source, range(0, 3)).unwrap().pages(), 3);
}

#[test]
fn a_last_page_that_the_file_has_only_in_part_is_beyond_the_end() {
    let file = populated(2);
    ftruncate(&file, 2 * PAGE_SIZE - 1).unwrap();
    assert_eq!(refusal(&source(file, range(0, 2)), range(0, 2)), (Errno::INVAL, "source-beyond-end", 1));
}

#[test]
fn a_page_number_beyond_all_files_is_refused() {
    let source = source(populated(1), range(u64::MAX >> 12, 1));
    assert_eq!(refusal(&source, range(0, 1)), (Errno::INVAL, "source-beyond-end", 0));
    assert_eq!(source.read(ByteLen::new(8192), &mut [0]).unwrap_err().errno, Errno::FAULT);
}

#[test]
fn a_hole_is_refused_with_enomem_and_named() {
    let file = memfd(6);
    [0, 1, 3, 5].into_iter().for_each(|page| fill(&file, page));
    let source = source(file, range(1, 5));
    assert_eq!(refusal(&source, range(0, 5)), (Errno::NOMEM, "source-hole", 1));
    assert_eq!(refusal(&source, range(2, 3)), (Errno::NOMEM, "source-hole", 3));
    let error = pin(&source, range(0, 5)).unwrap_err();
    assert!(error.to_string().contains("page 2 of the file is a hole"), "{error}");
    assert_eq!(pin(&source, range(4, 1)).unwrap().pages(), 1);
}

#[test]
fn allocated_pages_count_as_there_although_never_written() {
    let file = memfd(3);
    fallocate(&file, FallocateFlags::empty(), 0, 3 * PAGE_SIZE).unwrap();
    assert_eq!(pin(&source(file, range(0, 3)), range(0, 3)).unwrap().pages(), 3);
}

#[test]
fn looking_for_holes_allocates_nothing() {
    let file = memfd(64);
    let source = source(file, range(0, 64));
    assert_eq!(refusal(&source, range(0, 64)), (Errno::NOMEM, "source-hole", 0));
    assert_eq!(fstat(&source).unwrap().st_blocks, 0);
}

#[test]
fn huge_pages_that_are_not_all_there_are_refused() {
    let Ok(file) = memfd_create("huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB) else {
        crate::skip!("huge_pages_that_are_not_all_there_are_refused: this kernel has no hugetlbfs");
        return;
    };
    ftruncate(&file, 2 << 20).unwrap();
    let source = source(file, range(0, 512));
    assert_eq!(refusal(&source, range(0, 512)), (Errno::NOMEM, "source-hole", 0));
}

#[test]
fn what_is_not_memory_can_be_a_source_but_not_be_pinned() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let null = File::open("/dev/null").unwrap().into();
    let ordinary = File::open("/proc/self/status").unwrap().into();
    for file in [reader, writer, null, ordinary] {
        let source = source(file, range(0, 1));
        assert_eq!(refusal(&source, range(0, 1)), (Errno::INVAL, "source-not-memory", 0));
        assert_eq!(source.read(ByteLen::new(0), &mut [0]).unwrap_err().errno, Errno::INVAL);
        assert_eq!(source.write(ByteLen::new(0), &[0]).unwrap_err().errno, Errno::INVAL);
        assert_eq!(source.key(), None);
    }
}

#[test]
fn a_descriptor_that_only_names_a_path_is_no_open_file() {
    let file = open("/dev/null", OFlags::PATH, Mode::empty()).unwrap();
    let error =
        FileSource::new(file, range(0, 1), &host(Strength::Resident, Space::new()), FirstTouch::none())
            .err()
            .unwrap();
    assert_eq!((error.errno, error.code), (Errno::BADF, "source-unusable"));
}

#[test]
fn bytes_are_those_of_the_page_in_the_file() {
    let source = source(populated(4), range(1, 3));
    let mut bytes = [0; 4];
    source.read(ByteLen::new(2 * PAGE_SIZE - 2), &mut bytes).unwrap();
    assert_eq!(bytes, [2, 2, 3, 3]);
    source.write(ByteLen::new(PAGE_SIZE - 1), &[8, 9]).unwrap();
    source.read(ByteLen::new(PAGE_SIZE - 2), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 8, 9, 2]);
}

#[test]
fn a_shrunk_file_is_an_error_for_bytes_and_pins_and_no_signal() {
    let source = source(populated(4), range(0, 4));
    let pinned = pin(&source, range(0, 4)).unwrap();
    ftruncate(&source, 2 * PAGE_SIZE).unwrap();
    let error = source.read(ByteLen::new(2 * PAGE_SIZE - 1), &mut [0; 2]).unwrap_err();
    assert_eq!((error.errno, error.code), (Errno::FAULT, "source-shrunk"));
    let error = source.write(ByteLen::new(2 * PAGE_SIZE - 1), &[0; 2]).unwrap_err();
    assert_eq!((error.errno, error.code), (Errno::FAULT, "source-shrunk"));
    assert_eq!(fstat(&source).unwrap().st_size, 8192);
    let mut recalled = batch(0);
    source.recall(range(0, 4), &mut recalled).unwrap();
    assert_eq!(recalled, pinned);
    source.unpin(range(0, 4));
    assert_eq!(refusal(&source, range(0, 4)), (Errno::INVAL, "source-beyond-end", 2));
}

#[test]
fn a_sealed_file_is_pinned_and_read_but_not_written() {
    let file = populated(2);
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE).unwrap();
    let source = source(file, range(0, 2));
    assert_eq!(pin(&source, range(0, 2)).unwrap().pages(), 2);
    source.read(ByteLen::new(PAGE_SIZE), &mut [0]).unwrap();
    let error = source.write(ByteLen::new(0), &[1]).unwrap_err();
    assert_eq!((error.errno, error.code), (Errno::PERM, "source-no-permission"));
}

#[test]
fn a_file_opened_for_reading_is_pinned_and_read_but_not_written() {
    let file = populated(2);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let source = source(File::open(path).unwrap().into(), range(0, 2));
    assert_eq!(pin(&source, range(0, 2)).unwrap().pages(), 2);
    let mut byte = [0];
    source.read(ByteLen::new(PAGE_SIZE), &mut byte).unwrap();
    assert_eq!(byte, [1]);
    assert_eq!(source.write(ByteLen::new(0), &[1]).unwrap_err().errno, Errno::PERM);
}

/// Slots do not begin where the source does, so that the first and the last are partial.
#[test]
fn every_strength_holds_what_is_pinned_and_lets_go_of_it() {
    for source in at_every_strength("every_strength_holds", || populated(1500), range(100, 1400)) {
        let holds = source.strength() != Strength::Resident;
        let pinned = pin(&source, range(0, 1400)).unwrap();
        assert_eq!((pinned.pages(), source.pinned()), (1400, 1400));
        assert_eq!(source.held(), if holds { 1400 } else { 0 });
        source.unpin(range(0, 300));
        source.unpin(range(300, 200));
        source.check();
        source.unpin(range(500, 900));
        source.check();
        assert_eq!((source.held(), source.pinned()), (0, 0), "{}", source.strength().name());
    }
}

#[test]
fn a_slot_that_is_pinned_in_part_is_held_whole_until_its_last_page_goes() {
    let file = populated(1024);
    for source in at_every_strength("a_slot_in_part", || file.try_clone().unwrap(), range(0, 1024)) {
        pin(&source, range(0, 1024)).unwrap();
        source.unpin(range(0, 511));
        let expected = match source.strength() {
            Strength::Longterm => 1024,
            Strength::Locked => 513,
            Strength::Resident | Strength::Copy => 0,
        };
        assert_eq!(source.held(), expected);
        pin(&source, range(0, 2)).unwrap();
        source.unpin(range(511, 1));
        source.unpin(range(0, 2));
        source.unpin(range(512, 512));
        source.check();
        assert_eq!(source.held(), 0);
    }
}

#[test]
fn one_call_reaches_a_bounded_number_of_slots_and_the_next_goes_on() {
    let pages = 70 * 512;
    let file = memfd(pages);
    fallocate(&file, FallocateFlags::empty(), 0, pages * PAGE_SIZE).unwrap();
    for source in at_every_strength("one_call_reaches", || file.try_clone().unwrap(), range(0, pages)) {
        let first = pin(&source, range(0, pages)).unwrap().pages();
        assert_eq!(first, if source.strength() == Strength::Resident { pages } else { 64 * 512 });
        if first < pages {
            assert_eq!(pin(&source, range(first, pages - first)).unwrap().pages(), pages - first);
        }
        source.unpin(range(0, pages));
        source.check();
    }
}

#[test]
fn a_file_that_shrinks_or_gets_holes_under_its_pins_kills_nobody() {
    for source in at_every_strength("a_file_that_shrinks", || populated(1024), range(0, 1024)) {
        pin(&source, range(0, 1024)).unwrap();
        ftruncate(&source, 600 * PAGE_SIZE).unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&source, punch, 0, 100 * PAGE_SIZE).unwrap();
        let mut byte = [9];
        source.read(ByteLen::new(0), &mut byte).unwrap();
        assert_eq!(byte, [0]);
        source.unpin(range(0, 1024));
        source.check();
        assert_eq!(refusal(&source, range(0, 600)), (Errno::NOMEM, "source-hole", 0));
        assert_eq!(refusal(&source, range(0, 1024)), (Errno::INVAL, "source-beyond-end", 600));
        assert_eq!(pin(&source, range(100, 500)).unwrap().pages(), 500);
        source.unpin(range(100, 500));
        assert_eq!(source.held(), 0);
    }
}

/// The agent checks, the client shortens, the agent pins: that order cannot be excluded.
#[test]
fn a_file_that_shrinks_between_the_check_and_the_pin_is_an_error_and_no_signal() {
    for source in at_every_strength("a_file_that_shrinks_between", || populated(1024), range(0, 1024)) {
        let memory = source.memory().unwrap();
        ftruncate(&source, 100 * PAGE_SIZE).unwrap();
        let held = memory.hold.hold(source.as_fd(), range(0, 1024));
        if source.strength() == Strength::Resident {
            assert_eq!(held, Ok(1024));
            continue;
        }
        let error = source.not_held(memory, range(0, 1024), held.unwrap_err());
        assert!(matches!(error.errno, Errno::FAULT | Errno::NOMEM), "{error}");
        assert_eq!(source.held(), 0);
        source.check();
    }
}

#[test]
fn long_term_pins_keep_pages_that_the_file_has_lost() {
    for source in at_every_strength("long_term_pins_keep", || populated(512), range(0, 512)) {
        pin(&source, range(0, 512)).unwrap();
        ftruncate(&source, 0).unwrap();
        assert_eq!(source.held(), if source.strength() == Strength::Resident { 0 } else { 512 });
        source.unpin(range(0, 512));
        assert_eq!(source.held(), 0);
    }
}

#[test]
fn sources_of_one_file_hold_each_for_itself() {
    let file = populated(512);
    let sources = || at_every_strength("sources_of_one_file", || file.try_clone().unwrap(), range(0, 512));
    for (first, second) in sources().into_iter().zip(sources()) {
        pin(&first, range(0, 512)).unwrap();
        pin(&second, range(0, 512)).unwrap();
        let held = first.held();
        second.unpin(range(0, 512));
        assert_eq!((first.held(), second.held()), (held, 0));
        drop(first);
    }
}

#[test]
fn memory_that_cannot_be_written_is_held_by_locks_and_not_long_term() {
    let file = populated(2);
    let read_only =
        || File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
    let new =
        |host: &PinHost| FileSource::new(OwnedFd::from(read_only()), range(0, 2), host, FirstTouch::none());
    let error = new(&host(Strength::Longterm, Space::new())).err().unwrap();
    assert_eq!((error.errno, error.code), (Errno::PERM, "source-read-only"));
    let abilities = Abilities::probe().unwrap();
    let auto = PinHost::new(Ladder::new(StrengthSetting::Auto, &abilities).unwrap(), Space::new());
    let source = new(&auto).unwrap();
    assert_ne!(source.strength(), Strength::Longterm);
    assert_eq!(pin(&source, range(0, 2)).unwrap().pages(), 2);
    source.unpin(range(0, 2));
    assert_eq!(source.held(), 0);
}

#[test]
fn auto_gives_the_first_strength_that_holds_all_of_the_source_and_keeps_to_it() {
    let limited = |swap| Abilities {
        longterm: Ok(()),
        locked: Ok(()),
        memlock: MemlockLimit::Bytes(ByteLen::new(4 * PAGE_SIZE)),
        swap: ByteLen::new(swap),
    };
    let host = |swap| PinHost::new(Ladder::new(StrengthSetting::Auto, &limited(swap)).unwrap(), Space::new());
    let open = |host: &PinHost, pages| {
        FileSource::new(populated(pages), range(0, pages), host, FirstTouch::none()).unwrap()
    };
    let swapless = host(0);
    let first = open(&swapless, 3);
    let sources = [open(&swapless, 2), open(&swapless, 1), open(&swapless, 5)];
    let strengths: Vec<_> =
        std::iter::once(&first).chain(&sources).map(|source| source.strength().name()).collect();
    assert_eq!(strengths, ["longterm", "locked", "longterm", "resident"]);
    drop(first);
    assert_eq!(open(&swapless, 3).strength(), Strength::Longterm, "a source that ends gives its claim back");
    assert_eq!(
        open(&host(1), 5).strength(),
        Strength::Longterm,
        "with swap the limit is met, never a weaker strength"
    );
}

#[test]
fn pages_allocated_beyond_the_end_do_not_stand_in_for_a_hole() {
    for sealed in [false, true] {
        let file = memfd(3);
        [0, 2].into_iter().for_each(|page| fill(&file, page));
        fallocate(&file, FallocateFlags::KEEP_SIZE, 3 * PAGE_SIZE, PAGE_SIZE).unwrap();
        if sealed {
            fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        }
        assert_eq!(refusal(&source(file, range(0, 3)), range(0, 3)), (Errno::NOMEM, "source-hole", 1));
    }
}

#[test]
fn the_count_proves_a_sealed_file_whole_once_it_was_searched() {
    let file = populated(8);
    fcntl_add_seals(&file, SealFlags::GROW).unwrap();
    let source = source(file, range(0, 8));
    let proves = || source.memory().unwrap().kept.counts_prove();
    assert!(!proves());
    pin(&source, range(2, 1)).unwrap();
    assert!(proves());
    source.unpin(range(2, 1));
    fallocate(&source, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 3 * PAGE_SIZE, PAGE_SIZE)
        .unwrap();
    assert_eq!(refusal(&source, range(0, 8)), (Errno::NOMEM, "source-hole", 3));
    let unsealed = self::source(populated(8), range(0, 8));
    pin(&unsealed, range(0, 8)).unwrap();
    assert!(!unsealed.memory().unwrap().kept.counts_prove());
}

#[test]
fn holes_are_first_touched_up_to_the_limit_and_counted() {
    let touch = |pages: u64| FirstTouch {
        allowed: Allowance::alone(Resource::FirstTouch, pages * PAGE_SIZE),
        total: Arc::default(),
    };
    let file = memfd(6);
    [0, 3].into_iter().for_each(|page| fill(&file, page));
    let host = host(Strength::Resident, Space::new());
    let open = |touch: &FirstTouch| {
        FileSource::new(file.try_clone().unwrap(), range(0, 6), &host, touch.clone()).unwrap()
    };
    let little = touch(3);
    assert_eq!(refusal(&open(&little), range(0, 6)), (Errno::NOMEM, "source-hole", 1));
    let text = pin(&open(&little), range(0, 6)).unwrap_err().to_string();
    assert!(text.contains("has 0 of the 12288 it may have"), "{text}");
    assert_eq!(little.total.load(Ordering::Relaxed), 0);
    let enough = touch(4);
    assert_eq!(pin(&open(&enough), range(0, 6)).unwrap().pages(), 6);
    assert_eq!(enough.total.load(Ordering::Relaxed), 4 * PAGE_SIZE);
    assert_eq!(enough.allowed.used(), 4 * PAGE_SIZE);
    assert_eq!(fstat(&file).unwrap().st_blocks, 6 * 8);
    ftruncate(&file, 0).unwrap();
    ftruncate(&file, 2 * PAGE_SIZE).unwrap();
    let read_only = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
    let source = FileSource::new(OwnedFd::from(read_only), range(0, 2), &host, touch(100)).unwrap();
    assert_eq!(refusal(&source, range(0, 2)).0, Errno::BADF);
}

/// A file of 2 MiB pages with `pages` small ones, all there; says so where there are none.
fn huge(test: &str, pages: u64) -> Option<OwnedFd> {
    let file = memfd_create("huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::ALLOW_SEALING);
    let file = file.and_then(|file| {
        ftruncate(&file, pages * PAGE_SIZE)?;
        fallocate(&file, FallocateFlags::empty(), 0, pages * PAGE_SIZE)?;
        Ok(file)
    });
    if let Err(errno) = &file {
        crate::skip!("{test}: no huge pages ({errno}); see /proc/sys/vm/nr_hugepages");
    }
    file.ok()
}

#[test]
fn huge_pages_are_held_at_every_strength_and_written_through_the_file() {
    const TEST: &str = "huge_pages_are_held_at_every_strength";
    let Some(file) = huge(TEST, 1024) else { return };
    for source in at_every_strength(TEST, || file.try_clone().unwrap(), range(256, 768)) {
        let holds = source.strength() != Strength::Resident;
        let pinned = pin(&source, range(0, 768)).unwrap();
        assert_eq!((pinned.pages(), pinned.runs().len()), (768, 1));
        assert_eq!(source.held(), if holds { 768 } else { 0 });
        let mut bytes = [0; 2];
        source.read(ByteLen::new(767 * PAGE_SIZE), &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0]);
        source.unpin(range(0, 768));
        assert_eq!(source.held(), 0);
        assert_eq!(refusal(&source, range(768, 1)), (Errno::INVAL, "source-beyond-end", 768));
        assert_eq!(fstat(&source).unwrap().st_size, 4 << 20, "mapping enlarged the file");
    }
}

#[test]
fn a_huge_page_that_is_missing_is_refused_or_first_touched() {
    const TEST: &str = "a_huge_page_that_is_missing";
    let Some(file) = huge(TEST, 512) else { return };
    ftruncate(&file, 4 << 20).unwrap();
    let host = host(Strength::Resident, Space::new());
    let open = |bytes| {
        let touch =
            FirstTouch { allowed: Allowance::alone(Resource::FirstTouch, bytes), total: Arc::default() };
        FileSource::new(file.try_clone().unwrap(), range(0, 1024), &host, touch).unwrap()
    };
    assert_eq!(refusal(&open(2 << 20), range(0, 1024)), (Errno::NOMEM, "source-hole", 0));
    let source = open(4 << 20);
    match pin(&source, range(0, 1024)) {
        Ok(pinned) => assert_eq!(pinned.pages(), 1024),
        Err(error) => return crate::skip!("{TEST}: no second huge page ({error})"),
    }
    assert_eq!(source.touch.total.load(Ordering::Relaxed), 2 << 20);
    assert_eq!(source.touch.allowed.used(), 2 << 20);
    source.unpin(range(0, 1024));
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "is not in the set"))]
fn check_finds_an_unpin_too_many() {
    let source = source(populated(2), range(0, 2));
    pin(&source, range(0, 1)).unwrap();
    source.unpin(range(0, 2));
    source.check();
}

#[path = "file_physical_tests.rs"]
mod physical_frames;
