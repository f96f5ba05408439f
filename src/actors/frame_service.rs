//! The frame space of the agent, shared by all file sources.
//!
//! A file that nobody holds any more leaves windows behind that must rest: a walker may still know which file they were.
//! Where walkers are registered they rest until a quarter of the space does. Then the windows of every domain that is walked
//! are *renewed*: who enters later forgets all files it has learned, and who is inside is waited for, like a table that is to
//! be reused. Nobody sleeps for it: it is looked at whenever a file is let go, and when there is no window left.
//!
//! Imports allowed: storage::frame_window, sources::frames, domains::epoch.

use std::sync::Arc;

use ioasd_client::units::{PageIndex, Pfn};
use parking_lot::Mutex;

use crate::domains::epoch::{Epoch, Epochs};
use crate::sources::frames::Frames;
use crate::storage::frame_window::{FileKey, FrameError, FrameLimit, FrameSpace, RestToken, Window};

/// Windows are renewed when this part of all of them rests.
const RENEWED_PART: u64 = 4;

/// The one frame space.
#[derive(Debug)]
pub struct FrameService(Mutex<Space>);

#[derive(Debug)]
struct Space {
    frames: FrameSpace,
    limit: FrameLimit,
    /// The domain of each walker.
    walked: Vec<Arc<Epochs>>,
    resting: Vec<RestToken>,
    renewal: Option<Renewal>,
}

/// Windows that may be used again when nobody is inside any more who still knows them.
#[derive(Debug)]
struct Renewal {
    windows: Vec<RestToken>,
    inside: Vec<(Arc<Epochs>, Epoch)>,
}

impl Default for FrameService {
    fn default() -> Self {
        Self::new(FrameLimit::EVERY_FORMAT)
    }
}

impl FrameService {
    /// A space whose frames lie below `limit`.
    #[must_use]
    pub fn new(limit: FrameLimit) -> Self {
        let (walked, resting, renewal) = Default::default();
        Self(Mutex::new(Space { frames: FrameSpace::new(limit), limit, walked, resting, renewal }))
    }

    /// The windows of these files.
    #[must_use]
    pub fn windows_of(&self, files: &[FileKey]) -> Vec<Window> {
        self.0.lock().frames.windows_of(files)
    }

    /// The file and its page that `frame` names.
    #[must_use]
    pub fn resolve(&self, frame: Pfn) -> Option<(FileKey, PageIndex)> {
        self.0.lock().frames.resolve(frame)
    }

    /// A walker of this domain is about to learn windows.
    pub fn add_walker(&self, domain: &Arc<Epochs>) {
        self.0.lock().walked.push(Arc::clone(domain));
    }

    /// A walker of this domain is gone.
    pub fn remove_walker(&self, domain: &Arc<Epochs>) {
        let mut space = self.0.lock();
        if let Some(walker) = space.walked.iter().position(|walked| Arc::ptr_eq(walked, domain)) {
            space.walked.swap_remove(walker);
        }
        space.settle();
    }
}

impl Space {
    /// Frees the windows that nobody knows any more, and sees to it that those who know others forget them.
    fn settle(&mut self) {
        if self.walked.is_empty() {
            self.free_all();
            return;
        }
        self.end_renewal();
        if self.renewal.is_none() && self.frames.resting() >= self.limit.windows() / RENEWED_PART {
            self.renew();
            self.end_renewal();
        }
    }

    fn free_all(&mut self) {
        let renewed = self.renewal.take().into_iter().flat_map(|renewal| renewal.windows);
        for token in self.resting.drain(..).chain(renewed) {
            self.frames.grace_over(token);
        }
    }

    fn renew(&mut self) {
        let mut inside: Vec<(Arc<Epochs>, Epoch)> = Vec::new();
        for domain in &self.walked {
            if !inside.iter().any(|(known, _)| Arc::ptr_eq(known, domain)) {
                inside.push((Arc::clone(domain), domain.renew_windows()));
            }
        }
        self.renewal = Some(Renewal { windows: std::mem::take(&mut self.resting), inside });
    }

    fn end_renewal(&mut self) {
        let over = self.renewal.take_if(|renewal| renewal.is_over());
        for token in over.into_iter().flat_map(|renewal| renewal.windows) {
            self.frames.grace_over(token);
        }
    }
}

impl Renewal {
    fn is_over(&self) -> bool {
        self.inside.iter().all(|(domain, epoch)| {
            domain.forget_dead(*epoch);
            domain.all_left(*epoch)
        })
    }
}

impl Frames for FrameService {
    fn run(&self, file: FileKey, first: PageIndex, pages: u64) -> Result<(Pfn, u64), FrameError> {
        let mut space = self.0.lock();
        let found = space.frames.run(file, first, pages);
        if !matches!(found, Err(FrameError::Exhausted { .. })) {
            return found;
        }
        space.settle();
        space.frames.run(file, first, pages)
    }

    fn retain(&self, file: FileKey) {
        self.0.lock().frames.retain(file);
    }

    fn release(&self, file: FileKey) {
        let mut space = self.0.lock();
        let resting = space.frames.release(file);
        space.resting.extend(resting);
        space.settle();
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::layout::SlotIndex;
    use ioasd_client::layout::protocol::{self, Entered};

    use super::*;
    use crate::domains::epoch::{WalkerId, examples};
    use crate::error::{Coded, Errno};
    use crate::sys::mapping::SharedMapping;

    /// One with 15 windows to give.
    fn service() -> FrameService {
        FrameService::new(FrameLimit { output_lg2: 34 })
    }

    /// A file comes, gets a frame, and goes.
    fn pass(service: &FrameService, number: u64) -> Result<u64, FrameError> {
        let file = FileKey { dev: 1, inode: number };
        service.retain(file);
        let run = service.run(file, PageIndex::new(0), 1);
        service.release(file);
        run.map(|(frame, _)| frame.get())
    }

    struct Walker {
        id: WalkerId,
        memory: SharedMapping,
        arena: Arc<SharedMapping>,
    }

    fn walked(service: &FrameService) -> (Arc<Epochs>, Walker) {
        let (epochs, arena) = examples::epochs_and_arena();
        let (memory, id) = examples::walker(&epochs);
        service.add_walker(&epochs);
        (epochs, Walker { id, memory, arena })
    }

    impl Walker {
        fn enter(&self) -> Entered {
            let slot = self.memory.word(SlotIndex::new(0).unwrap().offset()).unwrap();
            protocol::enter(slot, &*self.arena)
        }

        fn leave(&self) {
            protocol::leave(self.memory.word(SlotIndex::new(0).unwrap().offset()).unwrap());
        }
    }

    #[test]
    fn files_without_end_pass_where_nobody_walks() {
        let service = service();
        let frames: Vec<u64> = (0..100).map(|number| pass(&service, number).unwrap()).collect();
        assert!(frames.iter().all(|frame| *frame == frames[0]), "the first window is always free again");
    }

    #[test]
    fn files_without_end_pass_beside_a_walker_that_forgets_them_now_and_then() {
        let service = service();
        let (epochs, walker) = walked(&service);
        let mut numbers = Vec::new();
        for number in 0..1000 {
            let windows = walker.enter().windows;
            walker.leave();
            numbers.push(windows);
            pass(&service, number).unwrap();
        }
        numbers.dedup();
        assert!(numbers.is_sorted() && (200..=334).contains(&numbers.len()), "{} renewals", numbers.len());
        service.remove_walker(&epochs);
    }

    #[test]
    fn windows_are_not_given_away_while_somebody_is_inside_who_knows_them() {
        let service = service();
        let (_epochs, walker) = walked(&service);
        let before = walker.enter().windows;
        let passed: Vec<u64> = (0..100).map_while(|number| pass(&service, number).ok()).collect();
        let mut distinct = passed.clone();
        distinct.dedup();
        assert_eq!((passed.len(), distinct.len()), (15, 15), "a window was given to two files");
        assert_eq!(pass(&service, 200).unwrap_err().errno(), Errno::NOMEM);
        walker.leave();
        let after = walker.enter();
        assert!(after.windows > before, "who enters now forgets");
        for number in 300..304 {
            pass(&service, number).unwrap();
        }
    }

    #[test]
    fn a_walker_that_is_gone_is_not_waited_for() {
        let service = service();
        let (epochs, walker) = walked(&service);
        let (_other, _) = walked(&service);
        walker.enter();
        while pass(&service, 1).is_ok() {}
        epochs.unregister(walker.id);
        service.remove_walker(&epochs);
        for number in 2..1000 {
            pass(&service, number).unwrap();
        }
    }
}
