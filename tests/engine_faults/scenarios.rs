//! The scenarios: what happens before, and the operation whose points fail.
//!
//! One client with two address spaces; the first has three domains, the second two. The limit of its account is just
//! what the largest scenario needs, so that a charge left behind by a failure would show.

use ioasd_client::units::{PAGE_SIZE, Permission};

use crate::ops::{Asked, DomainSpec, IoasSpec, Manners, MemorySpec, Op, Range, Spec, Way};

const P: u64 = PAGE_SIZE;

/// Whether an operation may fail when something below it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// It may.
    May,
    /// It must not.
    Never,
}

/// One scenario.
pub struct Scenario {
    /// What it is about.
    pub name: &'static str,
    /// What happens before.
    pub before: Vec<Op>,
    /// What is disturbed.
    pub op: Op,
    /// Whether it may fail.
    pub failing: Failing,
    /// Points it reaches at least.
    pub least: u64,
}

/// The world of all scenarios.
pub fn spec() -> Spec {
    let frames = vec![7, 8, 9, 30, 31, 50, 20, 21, 22, 23, 3, 60, 61, 62, 90, 91];
    let domain = |ioas, granule| DomainSpec { ioas, granule, start: 0, last: 64 * P - 1, capacity: u64::MAX };
    Spec {
        memories: vec![MemorySpec { frames, origin: 0 }],
        ioases: (0..2).map(|_| IoasSpec { context: 0, start: 0, last: 64 * P - 1 }).collect(),
        domains: vec![domain(0, P), domain(0, P / 2), domain(0, P), domain(1, P), domain(1, P / 2)],
        accounts: vec![7],
        limits: [(7, 13)].into_iter().collect(),
        accesses: 2,
    }
}

fn map_bytes(ioas: usize, pages: u64, offset: u64, length: u64, place: u64) -> Op {
    Op::Map {
        ioas,
        pages,
        memory: 0,
        offset,
        length,
        permission: Permission::ReadWrite,
        writable: Asked::Yes,
        limited: Asked::Yes,
        place: Some(place),
    }
}

fn map(ioas: usize, pages: u64, first: u64, count: u64, place: u64) -> Op {
    map_bytes(ioas, pages, first * P, count * P, place * P)
}

fn range(first: u64, count: u64) -> Range {
    Range { iova: first * P, length: count * P }
}

fn copy(from: usize, first: u64, count: u64, to: usize, place: u64) -> Op {
    let permission = Permission::ReadWrite;
    Op::Copy { from, range: range(first, count), to, permission, place: Some(place * P) }
}

fn attach(domains: &[usize]) -> Vec<Op> {
    domains.iter().map(|domain| Op::Attach { domain: *domain }).collect()
}

fn access(ioas: usize) -> Op {
    Op::AttachAccess { ioas, access: 0, pins: Asked::Yes, manners: Manners::LetsGo }
}

fn pin(ioas: usize, first: u64, count: u64) -> Op {
    Op::Pin { ioas, access: 0, range: range(first, count), way: Way::Read }
}

fn scenario(name: &'static str, least: u64, before: &[Vec<Op>], op: Op) -> Scenario {
    Scenario { name, before: before.concat(), op, failing: Failing::May, least }
}

fn sure(name: &'static str, least: u64, before: &[Vec<Op>], op: Op) -> Scenario {
    Scenario { failing: Failing::Never, ..scenario(name, least, before, op) }
}

/// Two areas behind one another in the second address space, some of their pages pinned.
fn source() -> Vec<Op> {
    vec![map(1, 1, 0, 6, 8), map(1, 2, 6, 7, 14), access(1), pin(1, 10, 2), pin(1, 13, 3)]
}

/// The same two areas in the first address space.
fn populated() -> Vec<Op> {
    [source(), vec![copy(1, 8, 13, 0, 20)]].concat()
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    [fills(), attachments(), accesses(), endings()].into_iter().flatten().collect()
}

fn fills() -> Vec<Scenario> {
    let all = || attach(&[0, 1, 2]);
    vec![
        scenario("map without a domain", 1, &[], map(0, 1, 2, 6, 3)),
        scenario("map into three domains", 8, &[all()], map(0, 1, 2, 9, 3)),
        scenario("map to the limit", 8, &[all(), vec![map(0, 1, 0, 4, 0)]], map(0, 2, 4, 9, 40)),
        scenario(
            "map from the middle of a page",
            8,
            &[attach(&[1]), vec![map(0, 1, 0, 2, 0)]],
            map_bytes(0, 2, 2 * P + P / 2, 5 * P + P / 2, 4 * P + P / 2),
        ),
        scenario(
            "copy of two areas with pins into three domains",
            8,
            &[source(), all()],
            copy(1, 8, 13, 0, 1),
        ),
        scenario(
            "copy of two areas in domains into three domains",
            8,
            &[attach(&[3, 4]), source(), all()],
            copy(1, 9, 11, 0, 1),
        ),
        scenario("copy into the same address space", 4, &[all(), populated()], copy(0, 22, 9, 0, 1)),
    ]
}

fn attachments() -> Vec<Scenario> {
    let more = || vec![copy(0, 22, 3, 0, 40)];
    vec![
        scenario("attach the first domain", 8, &[populated(), more()], Op::Attach { domain: 0 }),
        scenario(
            "attach the first domain to pages in another's domain",
            8,
            &[attach(&[3]), populated(), more()],
            Op::Attach { domain: 1 },
        ),
        scenario(
            "attach the second domain",
            8,
            &[populated(), more(), attach(&[0])],
            Op::Attach { domain: 1 },
        ),
        scenario(
            "replace a domain by that of another address space",
            8,
            &[attach(&[0, 1]), populated(), more()],
            Op::Replace { domain: 1, by: 3 },
        ),
        sure("detach the storage domain", 0, &[attach(&[0, 1, 2]), populated()], Op::Detach { domain: 0 }),
        sure("detach the last domain", 0, &[attach(&[2]), populated(), more()], Op::Detach { domain: 2 }),
    ]
}

fn accesses() -> Vec<Scenario> {
    let free = || vec![map(1, 1, 0, 6, 8), map(1, 2, 6, 7, 14), access(1)];
    let write = Op::Write { ioas: 1, access: 0, range: Range { iova: 9 * P + 100, length: 8 * P }, seed: 3 };
    let read = Op::Read { ioas: 1, access: 0, range: Range { iova: 9 * P + 100, length: 8 * P } };
    vec![
        scenario("pin over two areas", 6, &[free()], pin(1, 8, 13)),
        scenario("pin over two areas with pins", 6, &[source()], pin(1, 9, 11)),
        scenario(
            "pin over two areas shown elsewhere in part",
            6,
            &[source(), vec![copy(1, 11, 4, 0, 0)], attach(&[0, 1])],
            pin(1, 9, 11),
        ),
        scenario("pin the same once more", 1, &[source()], pin(1, 10, 2)),
        scenario("read over two areas", 4, &[source()], read),
        scenario("write over two areas", 4, &[source()], write),
    ]
}

fn endings() -> Vec<Scenario> {
    let unpin = Op::Unpin { ioas: 1, access: 0, range: range(9, 11) };
    let small = || vec![Op::LargePages { ioas: 0, on: Asked::No }];
    let part = |unmap| {
        let (ioas, range) = (0, range(22, 7));
        if unmap { Op::Unmap { ioas, range } } else { Op::Cut { ioas, range } }
    };
    let pinned = || [source(), vec![pin(1, 9, 11)]].concat();
    vec![
        sure(
            "unmap everything of three domains",
            0,
            &[attach(&[0, 1, 2]), populated()],
            Op::Unmap { ioas: 0, range: Range { iova: 0, length: u64::MAX } },
        ),
        sure("cut a part out of three domains", 0, &[small(), attach(&[0, 1, 2]), populated()], part(false)),
        sure(
            "unmap a part that was cut out",
            0,
            &[small(), attach(&[0, 1, 2]), populated(), vec![part(false)]],
            part(true),
        ),
        sure(
            "unmap what an access holds",
            0,
            &[attach(&[3, 4]), source()],
            Op::Unmap { ioas: 1, range: range(8, 13) },
        ),
        sure(
            "an access moves away from what it holds",
            0,
            &[attach(&[3]), source()],
            Op::ReplaceAccess { ioas: 1, access: 0, to: 0 },
        ),
        sure("large pages off", 0, &[source()], Op::LargePages { ioas: 1, on: Asked::No }),
        sure("unpin", 0, &[pinned()], unpin),
        sure("detach an access", 0, &[pinned(), attach(&[3])], Op::DetachAccess { ioas: 1, access: 0 }),
        sure("a client dies", 0, &[attach(&[0, 2, 4]), populated()], Op::Death { context: 0 }),
    ]
}
