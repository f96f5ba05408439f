//! Which files behind a domain walkers may map, and why not others.
//!
//! A file that is cut short under its mapping kills the process that touches it, and so does one whose pages run out. So
//! only memory goes to walkers, and what can shrink, or has huge pages that are not all there, only where the agent is told to.
//! A map of such a file succeeds; walkers fault there with `not exported`.
//!
//! Imports allowed: sources, storage, sys, pages_handle.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

use ioasd_client::units::Iova;
use rustix::fs::SealFlags;

use super::pages_handle::PagesHandle;
use crate::error::Errno;
use crate::sources::file::FileSource;
use crate::storage::io_pagetable::IoPageTable;
use crate::storage::refusal::Refusal;
use crate::sys::file_state::{self, FileKind};

/// What becomes of files whose mappings are not safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsafeFiles {
    /// Walkers do not get them.
    #[default]
    Withheld,
    /// Walkers get them: whoever can change them can kill device processes.
    Exported,
}

/// Why walkers do not get a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Withheld {
    NotMemory,
    CanShrink,
    NotAllocated,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMemory => "it is no file of memory: map memfds",
            Self::CanShrink => "it can shrink: seal it with F_SEAL_SHRINK",
            Self::NotAllocated => "its huge pages are not all allocated: use fallocate",
        })
    }
}

/// The files that an address space shows and walkers may map, each once.
pub(super) fn shown(table: &IoPageTable<PagesHandle>, rule: UnsafeFiles) -> Vec<Arc<FileSource>> {
    let (mut files, mut known) = (Vec::new(), BTreeSet::new());
    for file in table.ready_areas().filter_map(|area| area.pages().backing().file()) {
        if file.key().is_some_and(|key| known.insert(key)) && may_map(file, rule).is_ok() {
            files.push(Arc::clone(file));
        }
    }
    files
}

/// The file behind `iova`, if walkers may map it.
pub(super) fn at(
    table: &IoPageTable<PagesHandle>,
    iova: Iova,
    rule: UnsafeFiles,
) -> Result<Arc<FileSource>, Refusal> {
    let area = table
        .area_at(iova)
        .filter(|area| area.is_ready())
        .ok_or_else(|| Refusal::new(Errno::NOENT, "not-mapped", format!("nothing is mapped at {iova}")))?;
    let file = area.pages().backing().file().filter(|file| file.key().is_some()).ok_or(Withheld::NotMemory);
    let file = file.and_then(|file| may_map(file, rule).map(|()| Arc::clone(file)));
    file.map_err(|why| {
        let text = format!("what is mapped at {iova} is not exported to walkers, because {why}");
        Refusal::new(Errno::PERM, "not-exported", text)
    })
}

fn may_map(file: &FileSource, rule: UnsafeFiles) -> Result<(), Withheld> {
    let Ok(FileKind::Memory(seals)) = file_state::kind(file.as_fd()) else { return Err(Withheld::NotMemory) };
    if rule == UnsafeFiles::Exported {
        return Ok(());
    }
    if !seals.contains(SealFlags::SHRINK) {
        return Err(Withheld::CanShrink);
    }
    let allocated = || file_state::state(file.as_fd()).is_ok_and(|state| state.is_fully_allocated());
    if file.huge_page().is_none() || allocated() { Ok(()) } else { Err(Withheld::NotAllocated) }
}
