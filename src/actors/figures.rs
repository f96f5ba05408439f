//! The figures that each kind of object shows of itself: plain atomics with one writer, the object's actor.
//!
//! What never changes is a plain field. Reads take no lock; see the registry for what that means for sums.
//!
//! Imports allowed: units, `storage::source`, the registry's numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::units::ByteLen;
use rustix::process::{Pid, Uid};

use super::number::Number;
use crate::storage::source::Strength;

/// A number of bytes that one actor writes and anybody reads.
#[derive(Debug, Default)]
pub struct Bytes(AtomicU64);

impl Bytes {
    /// Shows `bytes` from now on.
    pub fn set(&self, bytes: ByteLen) {
        self.0.store(bytes.get(), Ordering::Relaxed);
    }

    /// The bytes shown last.
    #[must_use]
    pub fn get(&self) -> ByteLen {
        ByteLen::new(self.0.load(Ordering::Relaxed))
    }
}

/// A number of things that one actor writes and anybody reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Shows `count` from now on.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The count shown last.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a context shows.
#[derive(Debug)]
pub struct ContextStats {
    /// The user who opened it.
    pub uid: Uid,
    /// The process that opened it, if it lives in a pid namespace we can see.
    pub pid: Option<Pid>,
    /// Objects in its namespace.
    pub objects: Count,
}

impl ContextStats {
    /// A context without objects.
    #[must_use]
    pub fn new(uid: Uid, pid: Option<Pid>) -> Self {
        Self { uid, pid, objects: Count::default() }
    }
}

/// What an IO address space shows.
#[derive(Debug)]
pub struct IoasStats {
    /// The context it belongs to.
    pub context: Number<ContextStats>,
    /// Areas in its IOVA map.
    pub areas: Count,
    /// Bytes of IOVA that its areas cover.
    pub mapped: Bytes,
}

impl IoasStats {
    /// An empty address space of `context`.
    #[must_use]
    pub fn new(context: Number<ContextStats>) -> Self {
        Self { context, areas: Count::default(), mapped: Bytes::default() }
    }
}

/// What a pages object shows. Length, pinned and charged are three different things.
#[derive(Debug)]
pub struct PagesStats {
    /// Bytes of the whole array.
    pub length: ByteLen,
    /// What holds its pins.
    pub strength: Strength,
    /// The user whose account pays.
    pub account: Uid,
    /// Bytes that hold a pin now.
    pub pinned: Bytes,
    /// Bytes the account has been billed for.
    pub charged: Bytes,
    /// Bytes unmapped everywhere that wait for walkers before they are unpinned; part of `pinned`.
    pub retiring: Bytes,
}

impl PagesStats {
    /// An array of `length` bytes, nothing of it pinned.
    #[must_use]
    pub fn new(length: ByteLen, strength: Strength, account: Uid) -> Self {
        let (pinned, charged, retiring) = Default::default();
        Self { length, strength, account, pinned, charged, retiring }
    }
}

/// What a domain shows.
#[derive(Debug)]
pub struct DomainStats {
    /// The page-table format, in the word used in reports and metrics.
    pub format: &'static str,
    /// The address space whose areas it maps.
    pub ioas: Number<IoasStats>,
    /// Bytes of IOVA that its table translates.
    pub mapped: Bytes,
    /// Bytes of page-table pages.
    pub table: Bytes,
    /// Walkers registered.
    pub walkers: Count,
}

impl DomainStats {
    /// An empty table in `format`.
    #[must_use]
    pub fn new(format: &'static str, ioas: Number<IoasStats>) -> Self {
        let (mapped, table) = Default::default();
        Self { format, ioas, mapped, table, walkers: Count::default() }
    }
}
