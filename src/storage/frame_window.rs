//! The agent's one space of logical frames: which frame names which page of which file.
//!
//! Frames are handed to files in windows of 1 GiB, on demand, contiguous by offset within a window and, where the next
//! window is free, beyond it. A file is known while descriptors of it are held ([`FrameSpace::retain`]). When the last
//! one goes its windows *rest*: nothing resolves through them any more, and they are not given away again before the
//! caller knows that no walker can still use them ([`FrameSpace::grace_over`]). Window 0 is never given, so that frame
//! 0 names nothing.
//!
//! Imports allowed: units, error, fault_points.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ioasd_client::units::{PageIndex, Pfn};

use crate::error::{Coded, Errno};
use crate::fault_points::{self, Injected, Point};

/// log2 of the pages of a window.
const WINDOW_SHIFT: u32 = 18;

/// Pages of a window: 1 GiB.
const WINDOW_PAGES: u64 = 1 << WINDOW_SHIFT;

/// log2 of the bytes of a window.
const WINDOW_BYTES_LG2: u8 = 30;

/// A file, whatever its name and however often it is open. Memory of a process counts as a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The device of the file system.
    pub dev: u64,
    /// The inode on it.
    pub inode: u64,
}

/// A device that no file system has.
const PROCESS_MEMORY: u64 = u64::MAX;

/// Another.
const DEVICE_MEMORY: u64 = u64::MAX - 1;

impl FileKey {
    /// Memory of a process, the `number`th that was mapped.
    #[must_use]
    pub const fn of_process(number: u64) -> Self {
        Self { dev: PROCESS_MEMORY, inode: number }
    }

    /// Memory of a device, the `number`th that was made.
    #[must_use]
    pub const fn of_device(number: u64) -> Self {
        Self { dev: DEVICE_MEMORY, inode: number }
    }
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dev {
            PROCESS_MEMORY => write!(f, "process memory {}", self.inode),
            DEVICE_MEMORY => write!(f, "device memory {}", self.inode),
            file_system => write!(f, "file {file_system:#x}:{}", self.inode),
        }
    }
}

/// How wide a frame's address may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimit {
    /// log2 of the first address that does not fit the narrowest table in use.
    pub output_lg2: u8,
}

impl FrameLimit {
    /// What every software format can hold.
    pub const EVERY_FORMAT: Self = Self { output_lg2: 48 };

    /// Number of windows below the limit, the unusable first one included.
    #[must_use]
    pub const fn windows(self) -> u64 {
        let lg2 = if self.output_lg2 > 64 { 64 } else { self.output_lg2 };
        (1 << lg2.saturating_sub(WINDOW_BYTES_LG2)) - (lg2 < WINDOW_BYTES_LG2) as u64
    }
}

/// Why no frames could be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Every window is taken or rests.
    #[error(
        "no frames left for {file}, page {file_page}: all {windows} windows of 1 GiB below 2^{} are taken, {resting} \
         of them resting; close files, or use table formats with wider output addresses",
        limit.output_lg2
    )]
    Exhausted {
        /// Who asked.
        file: FileKey,
        /// The first page without a frame.
        file_page: PageIndex,
        /// The bound of the space.
        limit: FrameLimit,
        /// Windows there are.
        windows: u64,
        /// Windows that will be free again after their grace period.
        resting: u64,
    },
    /// The file is not retained.
    #[error("{file} has no frames, because no descriptor of it is held")]
    NotRetained {
        /// Who asked.
        file: FileKey,
    },
    /// A test asked for it.
    #[error("no frames for {file}: {cause}")]
    Injected {
        /// Who asked.
        file: FileKey,
        /// What failed.
        cause: Injected,
    },
}

impl Coded for FrameError {
    fn errno(&self) -> Errno {
        match self {
            Self::Exhausted { .. } | Self::Injected { .. } => Errno::NOMEM,
            Self::NotRetained { .. } => Errno::BADF,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Exhausted { .. } => "frames-exhausted",
            Self::NotRetained { .. } => "file-not-retained",
            Self::Injected { .. } => "fault-injected",
        }
    }
}

/// Consecutive frames that name consecutive pages of a file. Goes on to the end of its last window, which may lie
/// behind the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First frame.
    pub first: Pfn,
    /// Number of frames.
    pub pages: u64,
    /// The file.
    pub file: FileKey,
    /// The page of the file that the first frame names.
    pub file_page: PageIndex,
}

impl Window {
    /// This window and `next` as one, if both frames and pages go on.
    fn joined(self, next: Self) -> Option<Self> {
        let goes_on = self.file == next.file
            && self.first.get() + self.pages == next.first.get()
            && self.file_page.get() + self.pages == next.file_page.get();
        goes_on.then_some(Self { pages: self.pages + next.pages, ..self })
    }
}

/// Windows that rest, to be handed back once their grace period is over.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the windows rest until the token is handed to grace_over"]
pub struct RestToken(u64);

/// The place of a window in the space.
type Slot = u64;

/// The place of a window's pages in their file.
type FileSlot = u64;

/// A file with descriptors held.
#[derive(Debug, Default)]
struct File {
    held: u64,
    slots: BTreeMap<FileSlot, Slot>,
}

/// The space of logical frames.
#[derive(Debug)]
pub struct FrameSpace {
    limit: FrameLimit,
    files: BTreeMap<FileKey, File>,
    taken: BTreeMap<Slot, (FileKey, FileSlot)>,
    resting: BTreeMap<u64, Vec<Slot>>,
    /// How many windows that is.
    at_rest: u64,
    /// Free slots below `untouched`.
    free: BTreeSet<Slot>,
    /// Every slot from here on is free.
    untouched: Slot,
    next_token: u64,
}

impl FrameSpace {
    /// A space whose addresses stay below `limit`.
    #[must_use]
    pub const fn new(limit: FrameLimit) -> Self {
        Self {
            limit,
            files: BTreeMap::new(),
            taken: BTreeMap::new(),
            resting: BTreeMap::new(),
            at_rest: 0,
            free: BTreeSet::new(),
            untouched: 1,
            next_token: 0,
        }
    }

    /// Counts a descriptor of `file`.
    pub fn retain(&mut self, file: FileKey) {
        self.files.entry(file).or_default().held += 1;
    }

    /// Counts a descriptor of `file` off. With the last one its windows, if any, begin to rest.
    pub fn release(&mut self, file: FileKey) -> Option<RestToken> {
        let Entry::Occupied(mut entry) = self.files.entry(file) else {
            debug_assert!(false, "{file} is released more often than it was retained");
            return None;
        };
        entry.get_mut().held -= 1;
        if entry.get().held > 0 {
            return None;
        }
        let slots: Vec<_> = entry.remove().slots.into_values().collect();
        (!slots.is_empty()).then(|| self.begin_rest(slots))
    }

    fn begin_rest(&mut self, slots: Vec<Slot>) -> RestToken {
        for slot in &slots {
            self.taken.remove(slot);
        }
        let token = self.next_token;
        self.next_token += 1;
        self.at_rest += slots.len() as u64;
        self.resting.insert(token, slots);
        RestToken(token)
    }

    /// Frees the windows of `token`: nobody can still look through them.
    #[expect(clippy::needless_pass_by_value, reason = "a token is spent by handing it over")]
    pub fn grace_over(&mut self, token: RestToken) {
        let slots = self.resting.remove(&token.0).unwrap_or_default();
        self.at_rest -= slots.len() as u64;
        self.free.extend(slots);
    }

    /// The frame of `file_page` and for how many of the `pages` pages from there the frames go on. A window is
    /// assigned to the first page if it has none.
    ///
    /// # Errors
    /// If the file is not retained, or no window is left.
    pub fn run(&mut self, file: FileKey, file_page: PageIndex, pages: u64) -> Result<(Pfn, u64), FrameError> {
        let slots = &self.files.get(&file).ok_or(FrameError::NotRetained { file })?.slots;
        let file_slot = file_page.get() >> WINDOW_SHIFT;
        let slot = match slots.get(&file_slot) {
            Some(slot) => *slot,
            None => self.assign(file, file_page)?,
        };
        let offset = file_page.get() % WINDOW_PAGES;
        let windows = self.contiguous_windows(
            file,
            file_slot,
            slot,
            offset.saturating_add(pages).div_ceil(WINDOW_PAGES),
        );
        Ok((Pfn::new((slot << WINDOW_SHIFT) + offset), pages.min(windows * WINDOW_PAGES - offset)))
    }

    /// How many windows from `file_slot` on, `wanted` at most, follow each other in the space as in the file.
    fn contiguous_windows(&self, file: FileKey, file_slot: FileSlot, slot: Slot, wanted: u64) -> u64 {
        let Some(known) = self.files.get(&file) else {
            return 0;
        };
        let ahead = known.slots.range(file_slot..).zip(0..wanted);
        let joined = ahead.take_while(|((at, to), n)| **at == file_slot + n && **to == slot + n);
        joined.fold(0, |count, _| count + 1)
    }

    fn assign(&mut self, file: FileKey, file_page: PageIndex) -> Result<Slot, FrameError> {
        fault_points::hit(Point::FrameWindow).map_err(|cause| FrameError::Injected { file, cause })?;
        let file_slot = file_page.get() >> WINDOW_SHIFT;
        let slot = self.pick(file, file_slot).ok_or_else(|| self.exhausted(file, file_page))?;
        if slot == self.untouched {
            self.untouched += 1;
        } else {
            self.free.remove(&slot);
        }
        self.taken.insert(slot, (file, file_slot));
        self.files.entry(file).or_default().slots.insert(file_slot, slot);
        Ok(slot)
    }

    /// The slot behind the file's previous window if it is free, else the lowest free one.
    fn pick(&self, file: FileKey, file_slot: FileSlot) -> Option<Slot> {
        let previous = file_slot.checked_sub(1).and_then(|before| self.files.get(&file)?.slots.get(&before));
        let behind = previous.map(|slot| slot + 1).filter(|slot| self.is_free(*slot));
        let lowest =
            || self.free.first().copied().or(Some(self.untouched).filter(|slot| self.is_free(*slot)));
        behind.or_else(lowest)
    }

    fn is_free(&self, slot: Slot) -> bool {
        self.free.contains(&slot) || (self.untouched <= slot && slot < self.limit.windows())
    }

    fn exhausted(&self, file: FileKey, file_page: PageIndex) -> FrameError {
        let windows = self.limit.windows().saturating_sub(1);
        FrameError::Exhausted { file, file_page, limit: self.limit, windows, resting: self.resting() }
    }

    /// Windows that rest.
    #[must_use]
    pub const fn resting(&self) -> u64 {
        self.at_rest
    }

    /// Every window in use, in order of frames; windows that go on in frames and pages are one.
    #[must_use]
    pub fn windows(&self) -> Vec<Window> {
        joined(self.taken.iter().map(|(slot, (file, at))| window(*slot, *file, *at)))
    }

    /// The windows of `files`, file by file and in order of pages.
    #[must_use]
    pub fn windows_of(&self, files: &[FileKey]) -> Vec<Window> {
        let known = files.iter().filter_map(|key| Some((key, self.files.get(key)?)));
        joined(known.flat_map(|(key, file)| file.slots.iter().map(|(at, slot)| window(*slot, *key, *at))))
    }

    /// The page that `pfn` names.
    #[must_use]
    pub fn resolve(&self, pfn: Pfn) -> Option<(FileKey, PageIndex)> {
        let (file, file_slot) = self.taken.get(&(pfn.get() >> WINDOW_SHIFT))?;
        Some((*file, PageIndex::new((file_slot << WINDOW_SHIFT) + pfn.get() % WINDOW_PAGES)))
    }

    /// Panics unless the space keeps its rules. For tests.
    pub fn check(&self) {
        for (key, file) in &self.files {
            assert!(file.held > 0, "{key} stayed without a descriptor");
            for (file_slot, slot) in &file.slots {
                assert_eq!(
                    self.taken.get(slot),
                    Some(&(*key, *file_slot)),
                    "slot {slot} of {key} is not its own"
                );
            }
        }
        let of_files: usize = self.files.values().map(|file| file.slots.len()).sum();
        assert_eq!(of_files, self.taken.len(), "a window is taken by no file");
        let resting = self.resting.values().flatten();
        assert_eq!(self.at_rest, resting.clone().fold(0, |count, _| count + 1), "the count of rest drifted");
        let mut slots: Vec<_> = self.taken.keys().chain(resting).chain(&self.free).copied().collect();
        slots.sort_unstable();
        assert!(slots.into_iter().eq(1..self.untouched), "a slot is lost, twice in use, or 0");
        assert!(self.untouched <= self.limit.windows().max(1), "a window beyond the limit");
    }
}

const fn window(slot: Slot, file: FileKey, file_slot: FileSlot) -> Window {
    let (first, file_page) = (Pfn::new(slot << WINDOW_SHIFT), PageIndex::new(file_slot << WINDOW_SHIFT));
    Window { first, pages: WINDOW_PAGES, file, file_page }
}

fn joined(windows: impl Iterator<Item = Window>) -> Vec<Window> {
    let mut list: Vec<Window> = Vec::new();
    for window in windows {
        match list.last_mut().and_then(|last| Some((last.joined(window)?, last))) {
            Some((longer, last)) => *last = longer,
            None => list.push(window),
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = WINDOW_PAGES;
    const A: FileKey = FileKey { dev: 1, inode: 7 };
    const B: FileKey = FileKey { dev: 1, inode: 8 };

    fn space(windows: u64) -> FrameSpace {
        let mut space =
            FrameSpace::new(FrameLimit { output_lg2: 30 + u8::try_from(windows.ilog2()).unwrap() });
        space.retain(A);
        space.retain(B);
        space
    }

    fn run(space: &mut FrameSpace, file: FileKey, page: u64, pages: u64) -> (u64, u64) {
        let (pfn, pages) = space.run(file, PageIndex::new(page), pages).unwrap();
        space.check();
        assert_eq!(space.resolve(pfn), Some((file, PageIndex::new(page))));
        (pfn.get(), pages)
    }

    #[test]
    fn frames_are_contiguous_by_offset_and_never_zero() {
        let mut space = space(16);
        assert_eq!(run(&mut space, A, 5, 100), (GIB + 5, 100));
        assert_eq!(run(&mut space, A, 0, 1), (GIB, 1));
        assert_eq!(run(&mut space, A, 10, 2 * GIB), (GIB + 10, GIB - 10));
        assert_eq!(space.resolve(Pfn::new(0)), None);
        assert_eq!(space.resolve(Pfn::new(2 * GIB)), None);
    }

    #[test]
    fn a_run_goes_on_into_a_window_that_follows() {
        let mut space = space(16);
        run(&mut space, A, 0, 1);
        run(&mut space, A, GIB, 1);
        assert_eq!(run(&mut space, A, 10, 3 * GIB), (GIB + 10, 2 * GIB - 10));
        run(&mut space, B, 0, 1);
        run(&mut space, A, 2 * GIB, 1);
        assert_eq!(run(&mut space, A, 10, 3 * GIB), (GIB + 10, 2 * GIB - 10));
        let windows: Vec<_> =
            space.windows().iter().map(|w| (w.first.get() / GIB, w.pages / GIB, w.file)).collect();
        assert_eq!(windows, [(1, 2, A), (3, 1, B), (4, 1, A)]);
        assert_eq!(space.windows_of(&[B]).len(), 1);
        assert_eq!(space.windows_of(&[A, B]).len(), 3);
    }

    #[test]
    fn the_next_window_of_a_file_prefers_its_neighbour_to_the_lowest_free() {
        let mut space = space(16);
        run(&mut space, B, 0, 1);
        run(&mut space, A, 0, 1);
        let token = space.release(B).unwrap();
        space.grace_over(token);
        assert_eq!(run(&mut space, A, GIB, 1), (3 * GIB, 1));
        assert_eq!(run(&mut space, A, 9 * GIB, 1), (GIB, 1));
    }

    #[test]
    fn windows_rest_after_the_last_descriptor_until_their_grace_is_over() {
        let mut space = space(2);
        space.retain(A);
        run(&mut space, A, 0, 1);
        assert_eq!(space.release(A), None);
        let token = space.release(A).unwrap();
        space.check();
        assert_eq!(space.resolve(Pfn::new(GIB)), None);
        assert_eq!(space.windows(), []);
        let refused = space.run(B, PageIndex::new(3), 1).unwrap_err();
        assert!(matches!(refused, FrameError::Exhausted { file: B, windows: 1, resting: 1, .. }));
        assert_eq!(refused.errno(), Errno::NOMEM);
        assert!(refused.to_string().contains("2^31"), "{refused}");
        space.grace_over(token);
        assert_eq!(run(&mut space, B, 3, 1), (GIB + 3, 1));
        assert_eq!(space.run(A, PageIndex::new(0), 1), Err(FrameError::NotRetained { file: A }));
    }

    #[test]
    fn limits_that_leave_no_window_or_every_one_are_kept() {
        for output_lg2 in [0, 29, 30] {
            let mut space = FrameSpace::new(FrameLimit { output_lg2 });
            space.retain(A);
            assert!(space.run(A, PageIndex::new(0), 1).is_err());
            space.check();
        }
        assert_eq!(FrameLimit { output_lg2: 48 }.windows(), 1 << 18);
        assert_eq!(FrameLimit { output_lg2: 255 }.windows(), 1 << 34);
    }

    #[test]
    fn no_frame_names_two_pages_and_no_page_has_two_frames() {
        for seed in 0..50 {
            println!("seed {seed}");
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut space = space(32);
            let mut names: BTreeMap<u64, (FileKey, u64)> = BTreeMap::new();
            let mut tokens = Vec::new();
            for _ in 0..300 {
                let file = if rng.bool() { A } else { B };
                match rng.u8(..20) {
                    0 => {
                        tokens.extend(space.release(file));
                        space.retain(file);
                        names.retain(|_, (named, _)| *named != file);
                    }
                    1..=4 if !tokens.is_empty() => {
                        space.grace_over(tokens.swap_remove(rng.usize(..tokens.len())));
                    }
                    _ => name_random(&mut rng, &mut space, &mut names, file),
                }
                space.check();
            }
        }
    }

    fn name_random(
        rng: &mut fastrand::Rng,
        space: &mut FrameSpace,
        names: &mut BTreeMap<u64, (FileKey, u64)>,
        file: FileKey,
    ) {
        let page = rng.u64(..12 * GIB);
        let Ok((pfn, pages)) = space.run(file, PageIndex::new(page), rng.u64(1..3 * GIB)) else {
            return;
        };
        let (pfn, last) = (pfn.get(), pages - 1);
        for at in [0, rng.u64(..pages), last] {
            let named = *names.entry(pfn + at).or_insert((file, page + at));
            assert_eq!(named, (file, page + at));
            assert_eq!(space.resolve(Pfn::new(pfn + at)), Some((file, PageIndex::new(page + at))));
        }
        let pages_of_file: BTreeSet<_> = names.values().filter(|(named, _)| *named == file).collect();
        assert_eq!(pages_of_file.len(), names.values().filter(|(named, _)| *named == file).count());
    }
}
