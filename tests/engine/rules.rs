//! The rules of the operations: what each does to the model, or why it is refused. The order of the checks counts.
//!
//! Imports allowed: units, ops, model, placing.

use ioasd_client::units::{PAGE_SIZE, Permission};
use rustix::io::Errno;

use crate::model::{AreaModel, Expected, Model, PagesModel, outside};
use crate::ops::{Asked, Manners, Op, Range, Value};
use crate::placing::PieceModel;

impl Model {
    /// Does `op`; a refused one leaves no trace, but for what an UNMAP or a write did before its error.
    pub fn apply(&mut self, op: &Op) -> Expected {
        match op {
            Op::Map { .. } => self.map(op),
            Op::Copy { from, range, to, permission, place } => {
                self.copy(*from, *range, *to, *permission, *place)
            }
            Op::Unmap { ioas, range } => self.unmap(*ioas, *range),
            Op::Cut { ioas, range } => self.cut(*ioas, *range),
            Op::Allow { ioas, ranges } => self.allow(*ioas, ranges),
            Op::Attach { domain } => self.attach(*domain),
            Op::Detach { domain } => self.detach(*domain),
            Op::AttachAccess { ioas, access, pins, manners } => {
                self.attach_access(*ioas, *access, *pins, *manners)
            }
            Op::DetachAccess { ioas, access } => {
                self.ioases[*ioas].accesses.remove(access);
                Ok(Value::Nothing)
            }
            Op::Pin { ioas, access, range, way } => self.pin(*ioas, *access, *range, *way),
            Op::Unpin { ioas, access, range } => self.unpin(*ioas, *access, *range),
            Op::Read { ioas, access, range } => self.read(*ioas, *access, *range),
            Op::Write { ioas, access, range, seed } => self.write(*ioas, *access, *range, *seed),
            Op::LargePages { ioas, on } => self.large_pages(*ioas, *on),
            Op::ReplaceAccess { ioas, access, to } => self.replace_access(*ioas, *access, *to),
            Op::Replace { domain, by } => self.replace(*domain, *by),
            Op::Death { context } => self.death(*context),
            Op::Spoil { memory, page, bad } => {
                self.bad[*memory][*page] = *bad == Asked::Yes;
                Ok(Value::Nothing)
            }
        }
    }

    /// The pages object that a MAP makes.
    pub fn pages_of(&self, op: &Op) -> PagesModel {
        let Op::Map { ioas, memory, offset, length, writable, limited, .. } = op else { unreachable!() };
        let first = *offset / PAGE_SIZE;
        let account = self.spec.accounts[self.spec.ioases[*ioas].context];
        let len = (*offset + *length).div_ceil(PAGE_SIZE) - first;
        PagesModel { memory: *memory, first, len, writable: *writable, limited: *limited, account }
    }

    fn map(&mut self, op: &Op) -> Expected {
        let Op::Map { ioas, pages, offset, length, permission, place, .. } = op else { unreachable!() };
        if place.unwrap_or(0) == u64::MAX || *length == u64::MAX {
            return refused(Errno::OVERFLOW);
        }
        if *length == 0 {
            return refused(Errno::INVAL);
        }
        if offset.checked_add(*length - 1).is_none() {
            return refused(Errno::OVERFLOW);
        }
        let made = self.pages_of(op);
        self.pages.insert(*pages, made);
        let piece = PieceModel { pages: *pages, offset: *offset % PAGE_SIZE, length: *length };
        let placed = self.place_and_fill(*ioas, &[piece], *permission, *place);
        if placed.is_err() {
            self.pages.remove(pages);
        }
        placed
    }

    fn copy(
        &mut self,
        from: usize,
        range: Range,
        to: usize,
        permission: Permission,
        place: Option<u64>,
    ) -> Expected {
        if [range.length, range.iova, place.unwrap_or(0)].contains(&u64::MAX) {
            return refused(Errno::OVERFLOW);
        }
        let last = checked_last(range)?;
        let mut pieces = Vec::new();
        let mut next = range.iova;
        loop {
            let Some(area) = self.area_at(from, next) else { return refused(Errno::NOENT) };
            let end = area.last.min(last);
            pieces.push(PieceModel {
                pages: area.pages,
                offset: area.offset_of(next),
                length: end - next + 1,
            });
            if end == last {
                break;
            }
            next = end + 1;
        }
        self.place_and_fill(to, &pieces, permission, place)
    }

    fn place_and_fill(
        &mut self,
        ioas: usize,
        pieces: &[PieceModel],
        permission: Permission,
        place: Option<u64>,
    ) -> Expected {
        let (start, last) = self.place(ioas, pieces, permission, place).map_err(|errno| vec![errno])?;
        let domains = self.ioases[ioas].domains.clone();
        let areas_before = self.ioases[ioas].areas.clone();
        let mut next = start;
        for piece in pieces {
            let area = AreaModel {
                id: self.next_area,
                start: next,
                last: next + (piece.length - 1),
                pages: piece.pages,
                offset: piece.offset,
                permission,
                prevented: false,
            };
            self.next_area += 1;
            next = next.wrapping_add(piece.length);
            let refused = if domains.is_empty() { Vec::new() } else { self.fill_refusals(&area, &domains) };
            if !refused.is_empty() {
                self.ioases[ioas].areas = areas_before;
                return Err(refused);
            }
            self.ioases[ioas].areas.push(area);
            self.ioases[ioas].areas.sort_by_key(|area| area.start);
        }
        Ok(Value::Placed(start, last))
    }

    /// Why an area cannot be filled into `domains`, if it cannot; areas that are there already are filled.
    fn fill_refusals(&self, area: &AreaModel, domains: &[usize]) -> Vec<Errno> {
        let pins = self.pins();
        let (first, last) = area.indexes();
        let is_pinned = |index: u64| pins.get(&area.pages).is_some_and(|pinned| pinned[index as usize]);
        let unpinned: Vec<u64> = (first..=last).filter(|index| !is_pinned(*index)).collect();
        if !self.may_charge(&pins, area.pages, unpinned.len() as u64) {
            return vec![Errno::NOMEM];
        }
        let mut refused = Vec::new();
        if unpinned.iter().any(|index| self.is_bad(area.pages, *index)) {
            refused.push(Errno::FAULT);
        }
        for domain in domains.iter().map(|domain| &self.spec.domains[*domain]) {
            let mapped: u64 = self.ioases[domain.ioas].areas.iter().map(AreaModel::length).sum();
            if [area.start, area.length(), area.offset]
                .iter()
                .any(|number| !number.is_multiple_of(domain.granule))
            {
                refused.push(Errno::NXIO);
            }
            if mapped + area.length() > domain.capacity {
                refused.push(Errno::NOMEM);
            }
        }
        refused
    }

    fn allow(&mut self, ioas: usize, ranges: &[(u64, u64)]) -> Expected {
        if ranges.iter().any(|(start, last)| start >= last) {
            return refused(Errno::INVAL);
        }
        for (at, range) in ranges.iter().enumerate() {
            if ranges[at + 1..].iter().any(|other| touch(*range, *other)) {
                return refused(Errno::INVAL);
            }
        }
        let reserved = self.reserved(ioas);
        if ranges.iter().any(|range| reserved.iter().any(|reserved| touch(*range, *reserved))) {
            return refused(Errno::ADDRINUSE);
        }
        self.ioases[ioas].allowed = ranges.to_vec();
        Ok(Value::Nothing)
    }

    fn attach(&mut self, domain: usize) -> Expected {
        let spec = self.spec.domains[domain];
        let ioas = spec.ioas;
        if self.ioases[ioas].domains.contains(&domain) {
            return refused(Errno::EXIST);
        }
        if self.misfits(ioas, spec.granule) {
            return refused(Errno::ADDRINUSE);
        }
        for range in outside(spec.start, spec.last) {
            let area_lies_there =
                self.ioases[ioas].areas.iter().any(|area| touch((area.start, area.last), range));
            if area_lies_there || self.ioases[ioas].allowed.iter().any(|allowed| touch(*allowed, range)) {
                return refused(Errno::ADDRINUSE);
            }
        }
        self.fill_new_domain(ioas, domain)?;
        self.ioases[ioas].domains.push(domain);
        Ok(Value::Nothing)
    }

    /// Area by area: those before count as mapped by the new domain, and as pinned.
    fn fill_new_domain(&mut self, ioas: usize, domain: usize) -> Result<(), Vec<Errno>> {
        let mut trial = self.clone();
        let areas = std::mem::take(&mut trial.ioases[ioas].areas);
        let has_domains = !self.ioases[ioas].domains.is_empty();
        trial.ioases[ioas].domains = vec![domain];
        for area in areas {
            let mut refused = trial.fill_refusals(&area, &[domain]);
            if has_domains {
                refused.retain(|errno| *errno == Errno::NXIO);
                let mapped: u64 = trial.ioases[ioas].areas.iter().map(AreaModel::length).sum();
                let is_full = mapped + area.length() > self.spec.domains[domain].capacity;
                refused.extend(is_full.then_some(Errno::NOMEM));
            }
            if !refused.is_empty() {
                return Err(refused);
            }
            trial.ioases[ioas].areas.push(area);
        }
        Ok(())
    }

    fn detach(&mut self, domain: usize) -> Expected {
        let ioas = self.spec.domains[domain].ioas;
        self.ioases[ioas].domains.retain(|other| *other != domain);
        Ok(Value::Nothing)
    }

    fn replace(&mut self, domain: usize, by: usize) -> Expected {
        if !self.ioases[self.spec.domains[domain].ioas].domains.contains(&domain) {
            return refused(Errno::INVAL);
        }
        self.attach(by)?;
        self.detach(domain)
    }

    fn large_pages(&mut self, ioas: usize, on: Asked) -> Expected {
        let state = &self.ioases[ioas];
        if on == Asked::No && state.large_pages == Asked::Yes {
            if !state.domains.is_empty() && !state.areas.is_empty() {
                return refused(Errno::INVAL);
            }
            if self.misfits(ioas, PAGE_SIZE) {
                return refused(Errno::ADDRINUSE);
            }
        }
        self.ioases[ioas].large_pages = on;
        Ok(Value::Nothing)
    }

    fn unmap(&mut self, ioas: usize, range: Range) -> Expected {
        let everything = range.iova == 0 && range.length == u64::MAX;
        if !everything && [range.iova, range.length].contains(&u64::MAX) {
            return refused(Errno::OVERFLOW);
        }
        let last = if everything { u64::MAX } else { checked_last(range)? };
        let mut removed = 0;
        loop {
            let areas = &self.ioases[ioas].areas;
            let Some(area) = areas.iter().find(|area| touch((area.start, area.last), (range.iova, last)))
            else {
                break;
            };
            if area.start < range.iova || area.last > last {
                return refused(Errno::NOENT);
            }
            let (id, length) = (area.id, area.length());
            self.ask_to_leave(ioas, id)?;
            self.ioases[ioas].areas.retain(|area| area.id != id);
            removed += length;
        }
        if removed == 0 && !everything { refused(Errno::NOENT) } else { Ok(Value::Unmapped(removed)) }
    }

    fn cut(&mut self, ioas: usize, range: Range) -> Expected {
        let last = checked_last(range)?;
        if self.ioases[ioas].large_pages == Asked::Yes {
            return Ok(Value::Nothing);
        }
        let ends = [Some(last), range.iova.checked_sub(1)];
        let mut cuts = Vec::new();
        for end in ends.into_iter().flatten() {
            cuts.extend(self.cut_behind(ioas, end)?);
        }
        for cut in cuts {
            let id = self.next_area;
            self.next_area += 2;
            let areas = &mut self.ioases[ioas].areas;
            let place = areas.iter().position(|area| area.start <= cut && cut <= area.last).unwrap();
            let whole = areas.remove(place);
            let low = AreaModel { id, last: cut - 1, ..whole.clone() };
            let high = AreaModel { id: id + 1, start: cut, offset: whole.offset_of(cut), ..whole };
            areas.splice(place..place, [low, high]);
        }
        Ok(Value::Nothing)
    }

    fn cut_behind(&self, ioas: usize, byte: u64) -> Result<Option<u64>, Vec<Errno>> {
        let Some(area) = self.area_at(ioas, byte) else { return Ok(None) };
        if [area.start, area.last].contains(&byte) {
            return Ok(None);
        }
        let cut = byte + 1;
        let is_aligned = [cut, area.offset_of(cut)].iter().all(|at| at.is_multiple_of(PAGE_SIZE));
        match (area.prevented, is_aligned, self.accesses_of(ioas, area.id)) {
            (true, _, _) => refused(Errno::BUSY),
            (false, true, 0) => Ok(Some(cut)),
            (false, _, _) => refused(Errno::INVAL),
        }
    }

    fn ask_to_leave(&mut self, ioas: usize, id: u64) -> Result<(), Vec<Errno>> {
        if self.accesses_of(ioas, id) == 0 {
            return Ok(());
        }
        let area = self.ioases[ioas].areas.iter_mut().find(|area| area.id == id).unwrap();
        area.prevented = true;
        let range = (area.start, area.last);
        for access in
            self.ioases[ioas].accesses.values_mut().filter(|access| access.manners == Manners::LetsGo)
        {
            access.held.retain(|pin| !touch(pin.range, range));
        }
        if self.accesses_of(ioas, id) == 0 { Ok(()) } else { Err(vec![Errno::DEADLK]) }
    }

    fn death(&mut self, context: usize) -> Expected {
        for (ioas, spec) in self.spec.ioases.iter().enumerate() {
            if spec.context == context {
                let state = &mut self.ioases[ioas];
                state.accesses.clear();
                state.areas.clear();
                state.domains.clear();
            }
        }
        Ok(Value::Nothing)
    }
}

/// One errno and no other.
pub fn refused<T>(errno: Errno) -> Result<T, Vec<Errno>> {
    Err(vec![errno])
}

/// The last address of a range that a user names.
pub fn checked_last(range: Range) -> Result<u64, Vec<Errno>> {
    if range.length == 0 {
        return refused(Errno::INVAL);
    }
    range.iova.checked_add(range.length - 1).ok_or(vec![Errno::OVERFLOW])
}

fn touch(one: (u64, u64), other: (u64, u64)) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}
