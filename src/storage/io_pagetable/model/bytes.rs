//! The model: an address space byte by byte.
//!
//! Only the lowest and the highest [`HALF`] bytes can be used; what lies between is reserved from the start.
//!
//! Imports allowed: units.

use std::collections::BTreeMap;

use ioasd_client::units::PAGE_SIZE;

pub(super) const HALF: u64 = 0x8000;
const TOP: u64 = u64::MAX - HALF + 1;
const HUGE: u64 = 1 << 21;

/// Errnos by name, so that the model shares no code with the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum No {
    Inval,
    Overflow,
    Exist,
    Perm,
    Nospc,
    Addrinuse,
    Noent,
    Busy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Installing,
    Ready,
    Retiring,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plot {
    pub(super) tag: u64,
    pub(super) start: u64,
    pub(super) last: u64,
    pub(super) pages: u32,
    pub(super) offset: u64,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) pages_writable: bool,
    pub(super) life: Life,
    pub(super) accesses: u64,
    pub(super) locks: u64,
    pub(super) prevented: bool,
}

impl Plot {
    fn fits(&self, alignment: u64) -> bool {
        let length = (self.last - self.start).wrapping_add(1);
        (self.start | length | (self.offset % PAGE_SIZE)).is_multiple_of(alignment)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) pages: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) pages_writable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    Accessed(u64),
    Take(u64),
}

pub(super) struct Space {
    pub(super) plots: Vec<Plot>,
    pub(super) reserved: Vec<(u32, u64, u64)>,
    pub(super) allowed: Vec<(u64, u64)>,
    pub(super) asked: BTreeMap<u32, u64>,
    pub(super) domains: u32,
    pub(super) small_only: bool,
    next_tag: u64,
}

/// All addresses that exist in the model.
pub(super) fn universe() -> impl DoubleEndedIterator<Item = u64> + Clone {
    (0..HALF).chain(TOP..=u64::MAX)
}

fn between(ranges: &[(u64, u64)], byte: u64) -> bool {
    ranges.iter().any(|(start, last)| (*start..=*last).contains(&byte))
}

impl Space {
    pub(super) fn new() -> Self {
        Self {
            plots: Vec::new(),
            reserved: vec![(u32::MAX, HALF, TOP - 1)],
            allowed: Vec::new(),
            asked: BTreeMap::new(),
            domains: 0,
            small_only: false,
            next_tag: 0,
        }
    }

    pub(super) fn alignment(&self) -> u64 {
        let base = if self.small_only { PAGE_SIZE } else { 1 };
        self.asked.values().copied().max().unwrap_or(1).max(base)
    }

    pub(super) fn plot_at(&self, byte: u64) -> Option<&Plot> {
        self.plots.iter().find(|plot| (plot.start..=plot.last).contains(&byte))
    }

    pub(super) fn plot(&mut self, tag: u64) -> &mut Plot {
        self.plots.iter_mut().find(|plot| plot.tag == tag).unwrap()
    }

    fn is_reserved(&self, byte: u64) -> bool {
        self.reserved.iter().any(|(_, start, last)| (*start..=*last).contains(&byte))
    }

    /// Plots with a byte in the range, by address.
    fn plots_in(&self, start: u64, last: u64) -> Vec<Plot> {
        let mut found: Vec<Plot> =
            self.plots.iter().filter(|plot| plot.start <= last && start <= plot.last).cloned().collect();
        found.sort_by_key(|plot| plot.start);
        found
    }

    /// Places slices; gives the tags and the start.
    pub(super) fn place(
        &mut self,
        slices: &[Slice],
        (read, write): (bool, bool),
        fixed: Option<u64>,
        origin: u64,
    ) -> Result<(Vec<u64>, u64), No> {
        let length: u64 = slices.iter().map(|slice| slice.length).sum();
        if length == 0 || !length.is_multiple_of(self.alignment()) {
            return Err(No::Inval);
        }
        let start = match fixed {
            Some(start) => self.fixed(start, length)?,
            None => self.automatic(length, origin)?,
        };
        for slice in slices {
            if write && !slice.pages_writable {
                return Err(No::Perm);
            }
            if !(slice.offset % PAGE_SIZE).is_multiple_of(self.alignment()) {
                return Err(No::Inval);
            }
        }
        let mut tags = Vec::new();
        let mut at = start;
        for slice in slices {
            tags.push(self.next_tag);
            self.plots.push(Plot {
                tag: self.next_tag,
                start: at,
                last: at + (slice.length - 1),
                pages: slice.pages,
                offset: slice.offset,
                read,
                write,
                pages_writable: slice.pages_writable,
                life: Life::Installing,
                accesses: 0,
                locks: 0,
                prevented: false,
            });
            self.next_tag += 1;
            at = at.wrapping_add(slice.length);
        }
        Ok((tags, start))
    }

    fn fixed(&self, start: u64, length: u64) -> Result<u64, No> {
        if !start.is_multiple_of(self.alignment()) {
            return Err(No::Inval);
        }
        let last = start.checked_add(length - 1).ok_or(No::Overflow)?;
        let touches_middle = start < TOP && last >= HALF;
        let mut bytes = universe().filter(|byte| (start..=last).contains(byte));
        if touches_middle || bytes.clone().any(|byte| self.is_reserved(byte)) {
            return Err(No::Inval);
        }
        if bytes.any(|byte| self.plot_at(byte).is_some()) {
            return Err(No::Exist);
        }
        Ok(start)
    }

    fn automatic(&self, length: u64, origin: u64) -> Result<u64, No> {
        if length >= u64::MAX / 2 {
            return Err(No::Overflow);
        }
        let mut align = 1;
        while align < length && align < HUGE {
            align *= 2;
        }
        while !origin.is_multiple_of(align) {
            align /= 2;
        }
        if align < self.alignment() {
            return Err(No::Inval);
        }
        let free = |byte: &u64| {
            (PAGE_SIZE..=u64::MAX - PAGE_SIZE).contains(byte)
                && (self.allowed.is_empty() || between(&self.allowed, *byte))
                && !self.is_reserved(*byte)
                && self.plot_at(*byte).is_none()
        };
        let mut hole: Option<(u64, u64)> = None;
        for byte in universe() {
            let joins = free(&byte);
            let ended = if joins && byte != TOP { None } else { hole.take() };
            if let Some(start) = ended.and_then(|hole| place_in(hole, length, align, origin)) {
                return Ok(start);
            }
            if joins {
                hole = Some((hole.map_or(byte, |(start, _)| start), byte));
            }
        }
        hole.and_then(|hole| place_in(hole, length, align, origin)).ok_or(No::Nospc)
    }

    pub(super) fn allow(&mut self, ranges: &[(u64, u64)]) -> Result<(), No> {
        let overlap =
            |byte: u64| ranges.iter().filter(|(start, last)| (*start..=*last).contains(&byte)).count() > 1;
        if ranges.iter().any(|(start, last)| start >= last || overlap(*start)) {
            return Err(No::Inval);
        }
        let clash = |(start, last): &(u64, u64)| {
            self.reserved.iter().any(|(_, first, end)| start.max(first) <= last.min(end))
        };
        if ranges.iter().any(clash) {
            return Err(No::Addrinuse);
        }
        self.allowed = ranges.to_vec();
        Ok(())
    }

    pub(super) fn reserve(&mut self, owner: u32, start: u64, last: u64) -> Result<(), No> {
        let used = |byte: u64| self.plot_at(byte).is_some() || between(&self.allowed, byte);
        if universe().any(|byte| (start..=last).contains(&byte) && used(byte)) {
            return Err(No::Addrinuse);
        }
        self.reserved.push((owner, start, last));
        Ok(())
    }

    pub(super) fn align(&mut self, owner: u32, alignment: u64) -> Result<(), No> {
        if ![1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096].contains(&alignment) {
            return Err(No::Inval);
        }
        if alignment > self.alignment() && !self.plots.iter().all(|plot| plot.fits(alignment)) {
            return Err(No::Addrinuse);
        }
        self.asked.insert(owner, alignment);
        Ok(())
    }

    pub(super) fn add_domain(
        &mut self,
        owner: u32,
        alignment: u64,
        (start, last): (u64, u64),
    ) -> Result<(), No> {
        self.align(owner, alignment)?;
        let mut result = Ok(());
        if start > 0 {
            result = self.reserve(owner, 0, start - 1);
        }
        if last < u64::MAX && result.is_ok() {
            result = self.reserve(owner, last + 1, u64::MAX);
        }
        if result.is_err() {
            self.leave(owner);
        } else {
            self.domains += 1;
        }
        result
    }

    pub(super) fn leave(&mut self, owner: u32) {
        self.asked.remove(&owner);
        self.reserved.retain(|(of, ..)| *of != owner);
    }

    pub(super) fn set_small_only(&mut self, small_only: bool) -> Result<(), No> {
        if small_only && !self.small_only {
            if self.domains > 0 && !self.plots.is_empty() {
                return Err(No::Inval);
            }
            if self.alignment() < PAGE_SIZE && !self.plots.iter().all(|plot| plot.fits(PAGE_SIZE)) {
                return Err(No::Addrinuse);
            }
        }
        self.small_only = small_only;
        Ok(())
    }

    /// Holes of the reserved bytes.
    pub(super) fn usable(&self) -> Vec<(u64, u64)> {
        let mut holes: Vec<(u64, u64)> = Vec::new();
        for byte in universe().filter(|byte| !self.is_reserved(*byte)) {
            match holes.last_mut() {
                Some((_, last)) if *last + 1 == byte => *last = byte,
                _ => holes.push((byte, byte)),
            }
        }
        holes
    }

    pub(super) fn unmap(&mut self, cursor: u64, last: u64) -> Result<Step, No> {
        let Some(plot) = self.plots_in(cursor, last).into_iter().next() else {
            return Ok(Step::Done);
        };
        if plot.life != Life::Ready || plot.locks > 0 {
            return Err(No::Busy);
        }
        if plot.start < cursor || plot.last > last {
            return Err(No::Noent);
        }
        if plot.accesses > 0 {
            self.plot(plot.tag).prevented = true;
            return Ok(Step::Accessed(plot.tag));
        }
        Ok(Step::Take(plot.tag))
    }

    /// The parts of ready plots from `start` on, and whether they reach `last`.
    fn parts(&self, start: u64, last: u64) -> (Vec<(Plot, u64, u64)>, bool) {
        let mut parts = Vec::new();
        let mut at = start;
        loop {
            let Some(plot) = self.plot_at(at).filter(|plot| plot.life == Life::Ready) else {
                return (parts, false);
            };
            parts.push((plot.clone(), at, plot.last.min(last)));
            if plot.last >= last {
                return (parts, true);
            }
            at = plot.last + 1;
        }
    }

    /// The slices a copy would show.
    pub(super) fn copy(&self, start: u64, last: u64) -> Result<Vec<Slice>, No> {
        let (parts, whole) = self.parts(start, last);
        let slice = |(plot, from, to): (Plot, u64, u64)| Slice {
            pages: plot.pages,
            offset: plot.offset + (from - plot.start),
            length: to - from + 1,
            pages_writable: plot.pages_writable,
        };
        if whole { Ok(parts.into_iter().map(slice).collect()) } else { Err(No::Noent) }
    }

    /// The plots an access is served by, each with its part, and why there are no more.
    pub(super) fn access(
        &self,
        start: u64,
        last: u64,
        pin: bool,
        write: bool,
    ) -> (Vec<(u64, u64, u64)>, Option<No>) {
        let (parts, whole) = self.parts(start, last);
        let mut served = Vec::new();
        for (plot, from, to) in parts {
            let page_of = |byte: u64| (plot.offset + (byte - plot.start)) % PAGE_SIZE;
            let odd = page_of(from) != 0 || (to < last && page_of(to) != PAGE_SIZE - 1);
            if plot.prevented || (pin && odd) {
                return (served, Some(No::Inval));
            }
            let permitted = if write { plot.write && plot.pages_writable } else { plot.read };
            if !permitted {
                return (served, Some(No::Perm));
            }
            served.push((plot.tag, from, to));
        }
        (served, (!whole).then_some(No::Noent))
    }

    pub(super) fn split(&mut self, byte: u64) -> Result<Option<(u64, u64)>, No> {
        let alignment = self.alignment();
        let Some(plot) = self.plot_at(byte).cloned() else {
            return Ok(None);
        };
        if byte == plot.start || byte == plot.last {
            return Ok(None);
        }
        if plot.life != Life::Ready || plot.prevented {
            return Err(No::Busy);
        }
        let inner = plot.offset + (byte + 1 - plot.start);
        if !(byte + 1).is_multiple_of(alignment) || !inner.is_multiple_of(alignment) || plot.accesses > 0 {
            return Err(No::Inval);
        }
        if self.domains > 0 && !self.small_only {
            return Err(No::Inval);
        }
        let (left, right) = (self.next_tag, self.next_tag + 1);
        self.next_tag += 2;
        self.plots.retain(|other| other.tag != plot.tag);
        self.plots.push(Plot { tag: left, last: byte, ..plot.clone() });
        self.plots.push(Plot { tag: right, start: byte + 1, offset: inner, ..plot });
        Ok(Some((left, right)))
    }
}

/// The start of the lowest fit in a hole.
fn place_in((first, last): (u64, u64), length: u64, align: u64, origin: u64) -> Option<u64> {
    let start = first.checked_next_multiple_of(align)? | (origin % PAGE_SIZE);
    (start < last && last - start >= length - 1).then_some(start)
}
