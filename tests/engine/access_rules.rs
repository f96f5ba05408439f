//! The rules of accesses: pin, unpin, read and write.
//!
//! Imports allowed: units, ops, model, rules.

use ioasd_client::units::PAGE_SIZE;
use rustix::io::Errno;

use crate::model::{AccessModel, AreaModel, Expected, Model, PartModel, PinModel};
use crate::ops::{Asked, Manners, Range, Value, Way, bytes_of};
use crate::rules::{checked_last, refused};

impl Model {
    /// Attaches an access.
    pub fn attach_access(&mut self, ioas: usize, access: usize, pins: Asked, manners: Manners) -> Expected {
        if self.ioases[ioas].accesses.contains_key(&access) {
            return refused(Errno::INVAL);
        }
        if pins == Asked::Yes && self.misfits(ioas, PAGE_SIZE) {
            return refused(Errno::ADDRINUSE);
        }
        self.ioases[ioas].accesses.insert(access, AccessModel { pins, manners, held: Vec::new() });
        Ok(Value::Nothing)
    }

    /// Moves an access, which lets go of everything first.
    pub fn replace_access(&mut self, ioas: usize, access: usize, to: usize) -> Expected {
        let Some(state) = self.ioases[ioas].accesses.get(&access).cloned() else {
            return refused(Errno::NOENT);
        };
        if ioas == to {
            return Ok(Value::Nothing);
        }
        let (pins, manners, holds) = (state.pins, state.manners, !state.held.is_empty());
        let mut trial = self.clone();
        trial.attach_access(to, access, pins, manners)?;
        if holds && manners != Manners::LetsGo {
            return refused(Errno::DEADLK);
        }
        trial.ioases[ioas].accesses.remove(&access);
        *self = trial;
        Ok(Value::Nothing)
    }

    /// The areas of a range as far as they serve an access; the error behind them, if there is one.
    fn walk(
        &self,
        ioas: usize,
        (start, last): (u64, u64),
        way: Way,
        pin: Asked,
    ) -> (Vec<(AreaModel, u64, u64)>, Option<Errno>) {
        let mut parts = Vec::new();
        let mut next = start;
        loop {
            let Some(area) = self.area_at(ioas, next) else { return (parts, Some(Errno::NOENT)) };
            let end = area.last.min(last);
            let starts_odd = !area.offset_of(next).is_multiple_of(PAGE_SIZE);
            let ends_odd = end < last && !(area.offset_of(end) + 1).is_multiple_of(PAGE_SIZE);
            if area.prevented || (pin == Asked::Yes && (starts_odd || ends_odd)) {
                return (parts, Some(Errno::INVAL));
            }
            let writable = self.pages[&area.pages].writable == Asked::Yes;
            let permitted = match way {
                Way::Read => area.permission.can_read(),
                Way::Write => area.permission.can_write() && writable,
            };
            if !permitted {
                return (parts, Some(Errno::PERM));
            }
            parts.push((area.clone(), next, end));
            if end == last {
                return (parts, None);
            }
            next = end + 1;
        }
    }

    /// Pins area by area; what was pinned before an error is let go of.
    pub fn pin(&mut self, ioas: usize, access: usize, range: Range, way: Way) -> Expected {
        let last = checked_last(range)?;
        match self.ioases[ioas].accesses.get(&access) {
            None => return refused(Errno::NOENT),
            Some(state) if state.pins == Asked::No => return refused(Errno::OPNOTSUPP),
            Some(_) => {}
        }
        let (parts, end) = self.walk(ioas, (range.iova, last), way, Asked::Yes);
        let mut trial = self.clone();
        let mut frames = Vec::new();
        let mut held = PinModel { range: (range.iova, last), parts: Vec::new() };
        for (area, from, to) in parts {
            let indexes = (area.offset_of(from) / PAGE_SIZE, area.offset_of(to) / PAGE_SIZE);
            trial.pin_part(&area, indexes)?;
            frames.extend((indexes.0..=indexes.1).map(|index| self.frame(area.pages, index)));
            let part = PartModel { area: area.id, pages: area.pages, indexes };
            held.parts.push(part.clone());
            let trial_access = trial.ioases[ioas].accesses.get_mut(&access).unwrap();
            trial_access.held.push(PinModel { range: held.range, parts: vec![part] });
        }
        if let Some(errno) = end {
            return refused(errno);
        }
        self.ioases[ioas].accesses.get_mut(&access).unwrap().held.push(held);
        Ok(Value::Frames(frames))
    }

    fn pin_part(&self, area: &AreaModel, indexes: (u64, u64)) -> Result<(), Vec<Errno>> {
        let pins = self.pins();
        let is_pinned = |index: u64| pins.get(&area.pages).is_some_and(|pinned| pinned[index as usize]);
        let unpinned: Vec<u64> = (indexes.0..=indexes.1).filter(|index| !is_pinned(*index)).collect();
        if !self.may_charge(&pins, area.pages, unpinned.len() as u64) {
            return Err(vec![Errno::NOMEM]);
        }
        let bad = unpinned.iter().any(|index| self.is_bad(area.pages, *index));
        if bad { Err(vec![Errno::FAULT]) } else { Ok(()) }
    }

    /// Undoes one pin of exactly this range.
    pub fn unpin(&mut self, ioas: usize, access: usize, range: Range) -> Expected {
        let last = checked_last(range)?;
        let Some(access) = self.ioases[ioas].accesses.get_mut(&access) else { return refused(Errno::NOENT) };
        let Some(place) = access.held.iter().position(|pin| pin.range == (range.iova, last)) else {
            return refused(Errno::NOENT);
        };
        access.held.remove(place);
        Ok(Value::Nothing)
    }

    /// Reads up to the first byte that cannot be reached.
    pub fn read(&mut self, ioas: usize, access: usize, range: Range) -> Expected {
        let mut bytes = Vec::new();
        self.transfer(ioas, access, range, Way::Read, |_, byte| bytes.push(*byte))?;
        Ok(Value::Bytes(bytes))
    }

    /// Writes up to the first byte that cannot be reached.
    pub fn write(&mut self, ioas: usize, access: usize, range: Range, seed: u8) -> Expected {
        let new = bytes_of(seed, range.length);
        self.transfer(ioas, access, range, Way::Write, |at, byte| *byte = new[at])?;
        Ok(Value::Nothing)
    }

    /// Page by page, up to the first byte that cannot be reached.
    fn transfer(
        &mut self,
        ioas: usize,
        access: usize,
        range: Range,
        way: Way,
        mut each: impl FnMut(usize, &mut u8),
    ) -> Result<(), Vec<Errno>> {
        let last = checked_last(range)?;
        if !self.ioases[ioas].accesses.contains_key(&access) {
            return Err(vec![Errno::NOENT]);
        }
        let pins = self.pins();
        let (parts, end) = self.walk(ioas, (range.iova, last), way, Asked::No);
        for (area, from, to) in parts {
            for iova in from..=to {
                let (index, into) = (area.offset_of(iova) / PAGE_SIZE, area.offset_of(iova) % PAGE_SIZE);
                let is_pinned = pins.get(&area.pages).is_some_and(|pinned| pinned[index as usize]);
                if !is_pinned && self.is_bad(area.pages, index) {
                    return Err(vec![Errno::FAULT]);
                }
                let pages = &self.pages[&area.pages];
                let at = (pages.first + index) * PAGE_SIZE + into;
                each((iova - range.iova) as usize, &mut self.bytes[pages.memory][at as usize]);
            }
        }
        end.map_or(Ok(()), |errno| Err(vec![errno]))
    }
}
