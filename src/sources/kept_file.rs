//! What the agent keeps of a client's file as long as any source is over it, however often it was passed.
//!
//! Imports allowed: storage::frame_window's key, kept_mapping, sys.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::kept_mapping::KeptMapping;
use crate::storage::frame_window::FileKey;
use crate::sys::file_state::FileAccess;

/// The one mapping of a file, and what was found out about it.
#[derive(Debug)]
pub(super) struct KeptFile {
    mapping: KeptMapping,
    counts_prove: AtomicBool,
    alone: Mutex<()>,
}

impl KeptFile {
    fn new() -> Self {
        Self {
            mapping: KeptMapping::new(FileAccess::ReadWrite),
            counts_prove: AtomicBool::new(false),
            alone: Mutex::default(),
        }
    }

    /// The mapping that long-term pins are made over.
    pub(super) const fn mapping(&self) -> &KeptMapping {
        &self.mapping
    }

    /// Keeps everybody else who asks for it from bringing in pages of the mapping.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock()
    }

    /// Whether a file that has as much allocated as its size needs has no hole.
    pub(super) fn counts_prove(&self) -> bool {
        self.counts_prove.load(Ordering::Relaxed)
    }

    /// From now on counts prove that nothing is missing: nothing is allocated beyond the end, and nothing can be.
    pub(super) fn let_counts_prove(&self) {
        self.counts_prove.store(true, Ordering::Relaxed);
    }
}

/// All files that sources are over.
#[derive(Debug, Default)]
pub(super) struct KeptFiles(Mutex<HashMap<FileKey, Weak<KeptFile>>>);

impl KeptFiles {
    /// The file behind `key`.
    pub(super) fn get(&self, key: FileKey) -> Arc<KeptFile> {
        let mut files = self.0.lock();
        if let Some(file) = files.get(&key).and_then(Weak::upgrade) {
            return file;
        }
        if files.len() == files.capacity() {
            files.retain(|_, file| file.strong_count() > 0);
        }
        let file = Arc::new(KeptFile::new());
        files.insert(key, Arc::downgrade(&file));
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_kept_once_and_only_while_it_is_used() {
        let files = KeptFiles::default();
        let key = |inode| FileKey { dev: 1, inode };
        let kept = files.get(key(1));
        kept.let_counts_prove();
        assert!(files.get(key(1)).counts_prove() && !files.get(key(2)).counts_prove());
        drop(kept);
        assert!(!files.get(key(1)).counts_prove());
        (0..1000).for_each(|inode| drop(files.get(key(inode))));
        assert!(files.0.lock().len() < 1000, "files that nobody uses stay known");
    }
}
