//! What the oracle speaks: operations on a small world, their outcomes, and what can be seen of a system afterwards.
//!
//! Nothing here knows the engine: the model, the in-memory world and any other system under test share these words.
//!
//! Imports allowed: units.

use std::collections::BTreeMap;
use std::future::Future;

use ioasd_client::units::Permission;
use rustix::io::Errno;

/// The memory of a client, and who owns it.
#[derive(Clone, Debug)]
pub struct MemorySpec {
    /// The frame of each page.
    pub frames: Vec<u64>,
    /// The address of the first byte.
    pub origin: u64,
}

/// An address space of the world.
#[derive(Clone, Debug)]
pub struct IoasSpec {
    /// Which client owns it.
    pub context: usize,
    /// First address that is not reserved.
    pub start: u64,
    /// Last address that is not reserved.
    pub last: u64,
}

/// A domain that can be attached to one address space.
#[derive(Clone, Copy, Debug)]
pub struct DomainSpec {
    /// Its address space.
    pub ioas: usize,
    /// Its smallest page.
    pub granule: u64,
    /// First address of its table.
    pub start: u64,
    /// Last address of its table.
    pub last: u64,
    /// Bytes that it can map.
    pub capacity: u64,
}

/// A world: everything that exists before the first operation.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The memories.
    pub memories: Vec<MemorySpec>,
    /// The address spaces.
    pub ioases: Vec<IoasSpec>,
    /// The domains.
    pub domains: Vec<DomainSpec>,
    /// The account of each context.
    pub accounts: Vec<u32>,
    /// Pages that an account may pin in mode user.
    pub limits: BTreeMap<u32, u64>,
    /// Accesses that exist for each address space.
    pub accesses: usize,
}

/// How an access takes a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// It lets go.
    LetsGo,
    /// It answers, and holds on.
    HoldsOn,
    /// It does not answer.
    Silent,
}

/// Whether somebody asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the access.
    Read,
    /// From the access.
    Write,
}

/// A range as a request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// MAP of a part of a memory; `pages` names the pages object that comes into being.
    Map {
        ioas: usize,
        pages: u64,
        memory: usize,
        offset: u64,
        length: u64,
        permission: Permission,
        writable: Asked,
        limited: Asked,
        place: Option<u64>,
    },
    /// COPY.
    Copy { from: usize, range: Range, to: usize, permission: Permission, place: Option<u64> },
    /// UNMAP.
    Unmap { ioas: usize, range: Range },
    /// Splits what reaches over an end of a range, if leaves are pages at most.
    Cut { ioas: usize, range: Range },
    /// Replaces the allowed ranges, each as first and last address.
    Allow { ioas: usize, ranges: Vec<(u64, u64)> },
    /// Attaches a domain of the world to its address space.
    Attach { domain: usize },
    /// Detaches it.
    Detach { domain: usize },
    /// Lets an access use its address space.
    AttachAccess { ioas: usize, access: usize, pins: Asked, manners: Manners },
    /// Ends that.
    DetachAccess { ioas: usize, access: usize },
    /// Pins.
    Pin { ioas: usize, access: usize, range: Range, way: Way },
    /// Undoes a pin.
    Unpin { ioas: usize, access: usize, range: Range },
    /// Reads bytes.
    Read { ioas: usize, access: usize, range: Range },
    /// Writes as many bytes, made up from `seed`.
    Write { ioas: usize, access: usize, range: Range, seed: u8 },
    /// Lets domains use large leaves, or not.
    LargePages { ioas: usize, on: Asked },
    /// Moves an access to another address space.
    ReplaceAccess { ioas: usize, access: usize, to: usize },
    /// Attaches a domain of another address space of the same client in the place of one.
    Replace { domain: usize, by: usize },
    /// A client dies: what it mapped and pinned goes, its domains are detached.
    Death { context: usize },
    /// A page can no longer be pinned, or can be again.
    Spoil { memory: usize, page: usize, bad: Asked },
}

impl Op {
    /// What kind of operation it is.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Map { .. } => "map",
            Self::Copy { .. } => "copy",
            Self::Unmap { .. } => "unmap",
            Self::Cut { .. } => "cut",
            Self::Allow { .. } => "allow",
            Self::Attach { .. } => "attach",
            Self::Detach { .. } => "detach",
            Self::AttachAccess { .. } => "attach-access",
            Self::DetachAccess { .. } => "detach-access",
            Self::Pin { .. } => "pin",
            Self::Unpin { .. } => "unpin",
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::LargePages { .. } => "large-pages",
            Self::ReplaceAccess { .. } => "replace-access",
            Self::Replace { .. } => "replace",
            Self::Death { .. } => "death",
            Self::Spoil { .. } => "spoil",
        }
    }
}

/// The bytes that a write with `seed` stores.
pub fn bytes_of(seed: u8, length: u64) -> Vec<u8> {
    (0..length).map(|at| seed.wrapping_add((at % 251) as u8)).collect()
}

/// What a successful operation tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Nothing,
    /// Where areas were placed: first and last address.
    Placed(u64, u64),
    /// How many bytes were unmapped.
    Unmapped(u64),
    /// Frames, page by page.
    Frames(Vec<u64>),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// How an operation went.
pub type Outcome = Result<Value, Errno>;

/// One area, as it can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenArea {
    /// First and last address.
    pub iova: (u64, u64),
    /// The pages object.
    pub pages: u64,
    /// Offset of the first byte in it.
    pub offset: u64,
    /// What may be done with it.
    pub permission: Permission,
    /// How many pins hold it.
    pub accesses: u64,
    /// Whether it takes no new pins.
    pub prevented: bool,
}

/// Where a granule of a domain leads: address of the frame's byte, and what may be done with it.
pub type Translation = Option<(u64, Permission)>;

/// Everything that can be seen of a system between two operations.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Observation {
    /// The areas of each address space.
    pub areas: Vec<Vec<SeenArea>>,
    /// The alignment of each address space.
    pub alignments: Vec<u64>,
    /// Which pages of each pages object hold a pin; objects without one are left out.
    pub pins: BTreeMap<u64, Vec<bool>>,
    /// Which pages of each pages object tier 1 holds; objects without one are left out.
    pub cached: BTreeMap<u64, Vec<bool>>,
    /// Every granule of every domain of the world.
    pub translations: Vec<Vec<Translation>>,
    /// Pages charged to each account.
    pub charges: BTreeMap<u32, u64>,
}

/// A system that does these operations.
pub trait System {
    /// Carries an operation out.
    fn apply(&self, op: &Op) -> impl Future<Output = Outcome>;

    /// Looks at everything. No operation is under way.
    fn observe(&self) -> impl Future<Output = Observation>;

    /// Panics unless every structure keeps its rules. No operation is under way.
    fn check(&self);
}
