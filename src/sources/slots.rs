//! The book of one source's long-term pins: which slot of which ring holds which pages.
//!
//! A slot holds at most 2 MiB and is let go as a whole, when the last of its pages is unpinned. Until then it holds more
//! than is pinned: `held >= pinned`, and equal where unpins end at the edges of slots. A page that is pinned again while
//! its old slot lingers gets a new one, because the old one may hold a page that the file has lost meanwhile.
//!
//! Imports allowed: units, ring_pool's places.

use std::collections::{BTreeMap, HashMap};

use ioasd_client::units::{IndexRange, PAGE_SIZE, PageIndex};

use super::ring_pool::Place;

/// Pages of a slot: 2 MiB.
pub(super) const SLOT_PAGES: u64 = (2 << 20) / PAGE_SIZE;

/// Pages that one slot pins.
#[derive(Debug)]
struct Piece {
    last: u64,
    place: Place,
}

/// What a slot holds, and how much of it is pinned still.
#[derive(Debug)]
struct Slot {
    held: u64,
    pinned: u64,
}

/// The book.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pieces: BTreeMap<u64, Piece>,
    slots: HashMap<Place, Slot>,
    held: u64,
}

impl Slots {
    /// Notes that `place` pins `range`, none of which was pinned.
    pub(super) fn add(&mut self, range: IndexRange, place: Place) {
        self.pieces.insert(range.first().get(), Piece { last: range.last().get(), place });
        self.slots.insert(place, Slot { held: range.pages(), pinned: range.pages() });
        self.held += range.pages();
    }

    /// Notes that `range` is pinned no more. Gives the slots that hold nothing else.
    pub(super) fn remove(&mut self, range: IndexRange) -> Vec<Place> {
        let (first, last) = (range.first().get(), range.last().get());
        self.cut_before(first);
        if let Some(behind) = last.checked_add(1) {
            self.cut_before(behind);
        }
        let gone: Vec<u64> = self.pieces.range(first..=last).map(|(at, _)| *at).collect();
        gone.into_iter().filter_map(|at| self.remove_piece(at)).collect()
    }

    fn remove_piece(&mut self, at: u64) -> Option<Place> {
        let Piece { last, place } = self.pieces.remove(&at)?;
        let slot = self.slots.get_mut(&place)?;
        slot.pinned = slot.pinned.saturating_sub(last - at + 1);
        if slot.pinned > 0 {
            return None;
        }
        self.held -= self.slots.remove(&place)?.held;
        Some(place)
    }

    /// Makes `page` the first of its piece, if it lies inside one.
    fn cut_before(&mut self, page: u64) {
        let Some((_, piece)) = self.pieces.range_mut(..page).next_back() else { return };
        if piece.last >= page {
            let behind = Piece { last: piece.last, place: piece.place };
            piece.last = page - 1;
            self.pieces.insert(page, behind);
        }
    }

    /// Everything that is held, for a source that ends with pins.
    pub(super) fn clear(&mut self) -> Vec<Place> {
        self.pieces.clear();
        self.held = 0;
        self.slots.drain().map(|(place, _)| place).collect()
    }

    /// Pages that the kernel holds.
    pub(super) const fn held(&self) -> u64 {
        self.held
    }

    /// Panics unless the book keeps its rules. For tests.
    pub(super) fn check(&self) {
        let mut pinned: HashMap<Place, u64> = HashMap::new();
        let mut end = 0;
        for (first, piece) in &self.pieces {
            assert!(*first >= end && piece.last >= *first, "pieces overlap at page {first:#x}");
            end = piece.last + 1;
            *pinned.entry(piece.place).or_default() += end - first;
        }
        assert_eq!(self.held, self.slots.values().map(|slot| slot.held).sum::<u64>());
        assert_eq!(pinned.len(), self.slots.len(), "a slot without pages, or pages without a slot");
        for (place, slot) in &self.slots {
            assert_eq!(pinned.get(place), Some(&slot.pinned), "{place:?} counts wrong");
            assert!(
                slot.held >= slot.pinned && slot.held <= SLOT_PAGES,
                "{place:?} holds {} pages",
                slot.held
            );
        }
    }
}

/// `range` in pieces that lie within slots of the file each.
pub(super) fn cut_at_slots(range: IndexRange) -> impl Iterator<Item = IndexRange> {
    let last = range.last().get();
    let mut next = Some(range.first().get());
    std::iter::from_fn(move || {
        let first = next?;
        let end = (first | (SLOT_PAGES - 1)).min(last);
        next = end.checked_add(1).filter(|next| *next <= last);
        IndexRange::new(PageIndex::new(first), PageIndex::new(end))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn range(first: u64, pages: u64) -> IndexRange {
        IndexRange::from_length(PageIndex::new(first), pages).unwrap()
    }

    fn place(slot: u32) -> Place {
        Place { ring: 0, slot }
    }

    #[test]
    fn a_slot_goes_with_the_last_of_its_pages() {
        let mut slots = Slots::default();
        slots.add(range(0, 512), place(1));
        slots.add(range(512, 100), place(2));
        assert_eq!(slots.remove(range(100, 412)), []);
        slots.check();
        assert_eq!(slots.held(), 612);
        assert_eq!(slots.remove(range(0, 100)), [place(1)]);
        assert_eq!(slots.held(), 100);
        assert_eq!(slots.clear(), [place(2)]);
        slots.check();
    }

    #[test]
    fn a_page_that_is_pinned_again_is_counted_in_its_new_slot() {
        let mut slots = Slots::default();
        slots.add(range(0, 512), place(1));
        assert_eq!(slots.remove(range(0, 256)), []);
        slots.add(range(0, 8), place(2));
        slots.check();
        assert_eq!(slots.held(), 520);
        assert_eq!(slots.remove(range(0, 8)), [place(2)]);
        assert_eq!(slots.remove(range(256, 256)), [place(1)]);
    }

    #[test]
    fn ranges_are_cut_at_the_slots_of_the_file() {
        let cuts = |first, pages| -> Vec<(u64, u64)> {
            cut_at_slots(range(first, pages)).map(|cut| (cut.first().get(), cut.pages())).collect()
        };
        assert_eq!(cuts(0, 512), [(0, 512)]);
        assert_eq!(cuts(511, 514), [(511, 1), (512, 512), (1024, 1)]);
        assert_eq!(cuts(7, 3), [(7, 3)]);
        assert_eq!(cuts(u64::MAX - 1, 2), [(u64::MAX - 1, 2)]);
    }

    #[test]
    fn any_order_of_pins_and_unpins_keeps_the_book_right() {
        for seed in 0..40 {
            println!("seed {seed}");
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut slots, mut pinned, mut next) = (Slots::default(), BTreeSet::new(), 0);
            for _ in 0..300 {
                let wanted = range(rng.u64(..2000), rng.u64(1..900));
                let pages = || wanted.first().get()..=wanted.last().get();
                if pages().all(|page| !pinned.contains(&page)) {
                    for piece in cut_at_slots(wanted) {
                        next += 1;
                        slots.add(piece, place(next));
                    }
                    pinned.extend(pages());
                } else {
                    for page in pages().filter(|page| pinned.remove(page)).collect::<Vec<_>>() {
                        slots.remove(range(page, 1));
                    }
                }
                slots.check();
                assert!(slots.held() >= pinned.len() as u64);
                assert!(!pinned.is_empty() || slots.held() == 0);
            }
        }
    }
}
