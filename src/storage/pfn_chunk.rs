//! One chunk of the `pinned_pfns` cache: the frames of up to 512 consecutive pages.
//!
//! A chunk is one contiguous run for as long as it can be. Anything else is an array, of 32-bit frames if all of them
//! fit and of 64-bit frames otherwise. The all-ones frame marks an absent page.
//!
//! Imports allowed: units.

use ioasd_client::units::Pfn;

/// Pages of a chunk.
pub(super) const CHUNK_PAGES: u16 = 512;

/// Contiguous frames for consecutive pages of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// First page, counted from the start of the chunk.
    pub(super) first: u16,
    /// Number of pages.
    pub(super) pages: u16,
    /// Frame of the first page.
    pub(super) pfn: Pfn,
}

impl Piece {
    const fn end(self) -> u16 {
        self.first + self.pages
    }

    const fn frame(self, at: u16) -> u64 {
        self.pfn.get() + (at - self.first) as u64
    }

    fn is_narrow(self) -> bool {
        self.pfn.get() + u64::from(self.pages) <= u64::from(u32::MAX)
    }

    /// Both pieces as one, if they touch or overlap and the frames go on contiguously.
    fn joined(self, other: Self) -> Option<Self> {
        let base = |piece: Self| piece.pfn.get().wrapping_sub(u64::from(piece.first));
        let apart = self.first.max(other.first) > self.end().min(other.end());
        let low = if self.first <= other.first { self } else { other };
        let pages = self.end().max(other.end()) - low.first;
        (!apart && base(self) == base(other)).then_some(Self { pages, ..low })
    }

    /// The part from page `from` on, up to but without page `end`.
    fn part(self, from: u16, end: u16) -> Option<Self> {
        let (from, end) = (from.max(self.first), end.min(self.end()));
        (from < end).then(|| Self { first: from, pages: end - from, pfn: Pfn::new(self.frame(from)) })
    }
}

/// Frames of 512 pages one by one, and how many of them are present.
#[derive(Clone, Debug)]
pub(super) struct Frames<T> {
    frames: Box<[T]>,
    present: u16,
}

/// An integer that holds a frame or the mark of an absent page.
pub(super) trait Slot: Copy + Eq + TryFrom<u64> + Into<u64> {
    const ABSENT: Self;
}

impl Slot for u32 {
    const ABSENT: Self = Self::MAX;
}

impl Slot for u64 {
    const ABSENT: Self = Self::MAX;
}

impl<T: Slot> Frames<T> {
    fn absent() -> Self {
        Self { frames: vec![T::ABSENT; usize::from(CHUNK_PAGES)].into_boxed_slice(), present: 0 }
    }

    fn write(&mut self, piece: Piece) {
        let slots = self.frames.iter_mut().skip(usize::from(piece.first)).take(usize::from(piece.pages));
        for (slot, at) in slots.zip(piece.first..) {
            let frame = T::try_from(piece.frame(at)).unwrap_or(T::ABSENT);
            debug_assert!(frame != T::ABSENT, "a frame does not fit its slot");
            debug_assert!(*slot == T::ABSENT || *slot == frame, "another frame is cached for the page");
            self.present += u16::from(*slot == T::ABSENT);
            *slot = frame;
        }
    }

    fn clear(&mut self, from: u16, end: u16) {
        let slots = self.frames.iter_mut().take(usize::from(end)).skip(usize::from(from));
        for slot in slots {
            self.present -= u16::from(*slot != T::ABSENT);
            *slot = T::ABSENT;
        }
    }

    /// The frame of page `at`, as a piece that goes on while frames are contiguous and the page is below `end`.
    fn piece(&self, at: u16, end: u16) -> Option<Piece> {
        let mut slots = self.frames.iter().take(usize::from(end)).skip(usize::from(at));
        let pfn: u64 = slots.next().copied().filter(|slot| *slot != T::ABSENT)?.into();
        let more = slots.zip(1..).take_while(|(slot, ahead)| {
            **slot != T::ABSENT && pfn.checked_add(*ahead) == Some((**slot).into())
        });
        let pages = u16::try_from(1 + more.count()).unwrap_or(CHUNK_PAGES);
        Some(Piece { first: at, pages, pfn: Pfn::new(pfn) })
    }

    fn check(&self) {
        assert_eq!(self.frames.len(), usize::from(CHUNK_PAGES), "a chunk of another length");
        let present = self.frames.iter().filter(|slot| **slot != T::ABSENT).count();
        assert_eq!(present, usize::from(self.present), "the page count of a chunk drifted");
    }
}

/// The frames of one chunk. Only ever empty between an erasure and its removal from the cache.
#[derive(Clone, Debug)]
pub(super) enum Chunk {
    /// One contiguous run.
    Run(Piece),
    /// Any frames below 2^32 - 1.
    Narrow(Frames<u32>),
    /// Any frames.
    Wide(Frames<u64>),
}

/// What a chunk has to be to hold what it holds and some pieces more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Run(Piece),
    Narrow,
    Wide,
}

impl Form {
    /// The smallest form for `chunk` with `pieces` added.
    pub(super) fn needed(chunk: Option<&Chunk>, pieces: &[Piece]) -> Self {
        let run = match chunk {
            Some(Chunk::Wide(_)) => return Self::Wide,
            Some(Chunk::Narrow(_)) => None,
            Some(Chunk::Run(run)) => Some(*run),
            None => pieces.first().copied(),
        };
        if let Some(joined) = run.and_then(|run| pieces.iter().try_fold(run, |run, piece| run.joined(*piece)))
        {
            return Self::Run(joined);
        }
        let is_narrow = run.iter().chain(pieces).all(|piece| piece.is_narrow());
        if is_narrow { Self::Narrow } else { Self::Wide }
    }

    /// Whether `chunk` has this form already.
    pub(super) const fn is_form_of(self, chunk: &Chunk) -> bool {
        matches!(
            (self, chunk),
            (Self::Run(_), Chunk::Run(_)) | (Self::Narrow, Chunk::Narrow(_)) | (Self::Wide, Chunk::Wide(_))
        )
    }
}

impl Chunk {
    /// A chunk without pages.
    pub(super) const EMPTY: Self = Self::Run(Piece { first: 0, pages: 0, pfn: Pfn::new(0) });

    /// Adds `pieces` in `form`, which is the one they need.
    pub(super) fn store(&mut self, form: Form, pieces: &[Piece]) {
        if !form.is_form_of(self) {
            self.widen(form);
        }
        match (form, &mut *self) {
            (Form::Run(joined), chunk) => *chunk = Self::Run(joined),
            (_, Self::Narrow(frames)) => pieces.iter().for_each(|piece| frames.write(*piece)),
            (_, Self::Wide(frames)) => pieces.iter().for_each(|piece| frames.write(*piece)),
            (_, Self::Run(_)) => debug_assert!(false, "a chunk did not take its form"),
        }
    }

    fn widen(&mut self, form: Form) {
        let mut wider =
            if form == Form::Wide { Self::Wide(Frames::absent()) } else { Self::Narrow(Frames::absent()) };
        let mut from = 0;
        while let Some(piece) = self.next_piece(from) {
            match &mut wider {
                Self::Run(_) => {}
                Self::Narrow(frames) => frames.write(piece),
                Self::Wide(frames) => frames.write(piece),
            }
            from = piece.end();
        }
        *self = wider;
    }

    fn next_piece(&self, from: u16) -> Option<Piece> {
        match self {
            Self::Run(run) => run.part(from, CHUNK_PAGES),
            _ => (from..CHUNK_PAGES).find_map(|at| self.piece(at, CHUNK_PAGES)),
        }
    }

    /// The frames from page `at` on while they are contiguous, below page `end`; `None` if `at` is absent.
    pub(super) fn piece(&self, at: u16, end: u16) -> Option<Piece> {
        match self {
            Self::Run(run) => run.part(at, end).filter(|part| part.first == at),
            Self::Narrow(frames) => frames.piece(at, end),
            Self::Wide(frames) => frames.piece(at, end),
        }
    }

    /// Forgets the pages from `from` up to but without `end`.
    pub(super) fn erase(&mut self, from: u16, end: u16) {
        match self {
            Self::Run(run) => match (run.part(0, from), run.part(end, CHUNK_PAGES)) {
                (Some(_), Some(_)) => {
                    let form = if run.is_narrow() { Form::Narrow } else { Form::Wide };
                    self.widen(form);
                    self.erase(from, end);
                }
                (Some(rest), None) | (None, Some(rest)) => *run = rest,
                (None, None) => *self = Self::EMPTY,
            },
            Self::Narrow(frames) => frames.clear(from, end),
            Self::Wide(frames) => frames.clear(from, end),
        }
    }

    /// Pages present.
    pub(super) const fn pages(&self) -> u16 {
        match self {
            Self::Run(run) => run.pages,
            Self::Narrow(frames) => frames.present,
            Self::Wide(frames) => frames.present,
        }
    }

    /// Bytes of the array, if there is one.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Run(_) => 0,
            Self::Narrow(frames) => size_of_val(&*frames.frames),
            Self::Wide(frames) => size_of_val(&*frames.frames),
        }
    }

    /// Panics unless the chunk keeps its rules. For tests.
    pub(super) fn check(&self) {
        match self {
            Self::Run(run) => assert!(run.end() <= CHUNK_PAGES, "a run leaves its chunk"),
            Self::Narrow(frames) => frames.check(),
            Self::Wide(frames) => frames.check(),
        }
        assert!(self.pages() > 0, "an empty chunk stayed");
    }
}
