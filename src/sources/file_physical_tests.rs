//! The file source with physical frames.

use super::*;

/// A source of `file` with physical frames, unless this process is not shown any; says so then.
fn physical(test: &str, file: &OwnedFd, pages: IndexRange) -> Option<FileSource> {
    let host = Abilities::probe().unwrap().longterm.map_err(|cause| cause.to_string()).and_then(|()| {
        host(Strength::Longterm, Space::new()).with_physical_frames().map_err(|error| error.to_string())
    });
    match host {
        Ok(host) => {
            Some(FileSource::new(file.try_clone().unwrap(), pages, &host, FirstTouch::none()).unwrap())
        }
        Err(cause) => {
            crate::skip!("{test}: {cause}");
            None
        }
    }
}

fn frames(batch: &PfnBatch) -> Vec<u64> {
    let run = |run: &Run| (0..u64::from(run.pages)).map(|page| run.pfn.get() + page).collect::<Vec<_>>();
    batch.runs().iter().flat_map(run).collect()
}

#[test]
fn physical_frames_are_those_of_the_pinned_pages_whatever_becomes_of_the_file() {
    let file = populated(700);
    let Some(source) = physical("physical_frames_are_those", &file, range(100, 600)) else { return };
    let pinned = frames(&pin(&source, range(0, 600)).unwrap());
    assert_eq!(pinned.len(), 600);
    let mut distinct = pinned.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 600, "two pages in one frame");
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 0, 700 * PAGE_SIZE).unwrap();
    (0..700).for_each(|page| fill(&file, page));
    let mut recalled = batch(0);
    source.recall(range(0, 600), &mut recalled).unwrap();
    assert_eq!(frames(&recalled), pinned);
    let again = physical("physical_frames_are_those", &file, range(100, 600)).unwrap();
    let others = frames(&pin(&again, range(0, 600)).unwrap());
    assert!(others.iter().all(|frame| !pinned.contains(frame)), "a pinned frame was given away");
    for source in [&source, &again] {
        source.unpin(range(0, 600));
        source.check();
        assert_eq!((source.held(), source.pinned()), (0, 0));
    }
}

#[test]
fn sources_of_one_file_see_the_same_physical_frames() {
    let file = populated(64);
    let Some(whole) = physical("sources_of_one_file_see", &file, range(0, 64)) else { return };
    let part = physical("sources_of_one_file_see", &file, range(10, 20)).unwrap();
    let (of_whole, of_part) = (pin(&whole, range(0, 64)).unwrap(), pin(&part, range(5, 3)).unwrap());
    assert_eq!(frames(&of_part), frames(&of_whole)[15..18]);
    whole.unpin(range(0, 64));
    part.unpin(range(5, 3));
}

#[test]
fn physical_frames_never_overfill_a_batch() {
    let file = populated(64);
    let Some(source) = physical("physical_frames_never_overfill", &file, range(0, 64)) else { return };
    let mut small = PfnBatch::new(PageIndex::new(0), RunLimit::new(7)).unwrap();
    source.pin(range(0, 64), &mut small).unwrap();
    assert_eq!((small.pages(), source.pinned(), source.held()), (7, 7, 7));
    let mut full = PfnBatch::new(PageIndex::new(6), RunLimit::new(1)).unwrap();
    assert_eq!(full.push(Pfn::new(1), 1), 1);
    source.pin(range(7, 57), &mut full).unwrap();
    assert_eq!((full.pages(), source.pinned()), (1, 7));
    source.unpin(range(0, 7));
    source.check();
}

/// A client that takes its pages away and puts others there all the time: pins fail or hold what they say.
#[test]
fn physical_frames_of_a_file_that_never_rests_are_pinned_or_refused() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let file = populated(16);
    let Some(source) = physical("physical_frames_of_a_file_that_never_rests", &file, range(0, 16)) else {
        return;
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            while !stop.load(Ordering::Relaxed) {
                fallocate(&file, punch, 0, 16 * PAGE_SIZE).unwrap();
                fallocate(&file, FallocateFlags::empty(), 0, 16 * PAGE_SIZE).unwrap();
            }
        });
        let (mut pinned, mut refused) = (0, 0);
        for _ in 0..2000 {
            match pin(&source, range(0, 16)) {
                Ok(batch) => {
                    pinned += 1;
                    assert_eq!(source.held(), batch.pages());
                    source.unpin(batch.range().unwrap());
                }
                Err(error) => {
                    refused += 1;
                    let known = [Errno::NOMEM, Errno::FAULT, Errno::AGAIN];
                    assert!(known.contains(&error.errno), "{error}");
                }
            }
            assert_eq!((source.pinned(), source.held()), (0, 0));
        }
        stop.store(true, Ordering::Relaxed);
        println!("{pinned} pinned, {refused} refused");
    });
    source.check();
}

#[test]
fn huge_pages_have_physical_frames_in_long_runs() {
    const TEST: &str = "huge_pages_have_physical_frames_in_long_runs";
    let Some(file) = huge(TEST, 1024) else { return };
    let Some(source) = physical(TEST, &file, range(0, 1024)) else { return };
    let pinned = pin(&source, range(0, 1024)).unwrap();
    assert!(pinned.runs().len() <= 2 && pinned.pages() == 1024, "{:?}", pinned.runs());
    assert_eq!(pinned.runs()[0].pfn.get() % 512, 0);
    source.unpin(range(0, 1024));
    source.check();
}
