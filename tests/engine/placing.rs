//! Where the model places areas: fixed and automatic addresses.
//!
//! Imports allowed: units, model.

use ioasd_client::units::{PAGE_SIZE, Permission};
use rustix::io::Errno;

use crate::model::Model;
use crate::ops::Asked;

/// The alignment that automatic placement never exceeds.
const HUGE_PAGE: u64 = 1 << 21;

/// A slice of a pages object to be placed.
#[derive(Clone, Copy, Debug)]
pub struct PieceModel {
    /// The pages object.
    pub pages: u64,
    /// Offset of its first byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl Model {
    /// First and last address of the pieces, one behind the other.
    pub fn place(
        &self,
        ioas: usize,
        pieces: &[PieceModel],
        permission: Permission,
        place: Option<u64>,
    ) -> Result<(u64, u64), Errno> {
        let length: u64 = pieces.iter().map(|piece| piece.length).sum();
        let alignment = self.alignment(ioas);
        if !length.is_multiple_of(alignment) {
            return Err(Errno::INVAL);
        }
        let placed = match place {
            Some(iova) => self.place_fixed(ioas, iova, length)?,
            None => self.place_anywhere(ioas, pieces[0], length)?,
        };
        for piece in pieces {
            if permission.can_write() && self.pages[&piece.pages].writable == Asked::No {
                return Err(Errno::PERM);
            }
            if !piece.offset.is_multiple_of(alignment) {
                return Err(Errno::INVAL);
            }
        }
        Ok(placed)
    }

    fn place_fixed(&self, ioas: usize, iova: u64, length: u64) -> Result<(u64, u64), Errno> {
        if !iova.is_multiple_of(self.alignment(ioas)) {
            return Err(Errno::INVAL);
        }
        let last = iova.checked_add(length - 1).ok_or(Errno::OVERFLOW)?;
        if self.reserved(ioas).iter().any(|(start, end)| *start <= last && iova <= *end) {
            return Err(Errno::INVAL);
        }
        if self.ioases[ioas].areas.iter().any(|area| area.start <= last && iova <= area.last) {
            return Err(Errno::EXIST);
        }
        Ok((iova, last))
    }

    fn place_anywhere(&self, ioas: usize, piece: PieceModel, length: u64) -> Result<(u64, u64), Errno> {
        if length >= u64::MAX / 2 {
            return Err(Errno::OVERFLOW);
        }
        let pages = &self.pages[&piece.pages];
        let address = self.spec.memories[pages.memory].origin + pages.first * PAGE_SIZE + piece.offset;
        let mut align = length.next_power_of_two().min(HUGE_PAGE);
        while !address.is_multiple_of(align) {
            align /= 2;
        }
        if align < self.alignment(ioas) {
            return Err(Errno::INVAL);
        }
        let holes = self.holes(ioas);
        let fit = |(first, last): &(u64, u64)| {
            let start = first.checked_next_multiple_of(align)? | (address % PAGE_SIZE);
            let end = start.checked_add(length - 1)?;
            (start < *last && end <= *last).then_some((start, end))
        };
        holes.iter().find_map(fit).ok_or(Errno::NOSPC)
    }

    /// What automatic placement may use: neither the first nor the last page, nothing used, only what is allowed.
    fn holes(&self, ioas: usize) -> Vec<(u64, u64)> {
        let window = (PAGE_SIZE, u64::MAX - PAGE_SIZE);
        let mut holes = merged(&self.ioases[ioas].allowed);
        if holes.is_empty() {
            holes.push(window);
        }
        let mut used = self.reserved(ioas);
        used.extend([(0, window.0 - 1), (window.1 + 1, u64::MAX)]);
        used.extend(self.ioases[ioas].areas.iter().map(|area| (area.start, area.last)));
        for range in used {
            holes = holes.into_iter().flat_map(|hole| without(hole, range)).collect();
        }
        holes
    }
}

/// The ranges in order, those that touch as one.
fn merged(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, last) in sorted {
        match merged.last_mut() {
            Some(before) if before.1.checked_add(1) == Some(start) => before.1 = last,
            _ => merged.push((start, last)),
        }
    }
    merged
}

/// What is left of a hole without a range.
fn without(hole: (u64, u64), range: (u64, u64)) -> Vec<(u64, u64)> {
    if range.1 < hole.0 || hole.1 < range.0 {
        return vec![hole];
    }
    let below = (hole.0 < range.0).then(|| (hole.0, range.0 - 1));
    let above = (range.1 < hole.1).then(|| (range.1 + 1, hole.1));
    below.into_iter().chain(above).collect()
}
