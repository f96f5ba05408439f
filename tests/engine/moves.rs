//! An access that moves: it lets go of everything first, or stays as it was.
//!
//! Imports allowed: units, ops, link, world.

use ioasd_client::units::{PAGE_SIZE, Permission};
use rustix::io::Errno;

use crate::link::Pace;
use crate::ops::{Asked, IoasSpec, Manners, MemorySpec, Op, Outcome, Range, Spec, System, Value, Way};
use crate::world::{World, block_on};

/// Two address spaces of one client, and memory of two pages.
fn spec() -> Spec {
    let ioas = IoasSpec { context: 0, start: 0, last: 64 * PAGE_SIZE - 1 };
    Spec {
        memories: vec![MemorySpec { frames: vec![9, 7], origin: 0 }],
        ioases: vec![ioas.clone(), ioas],
        domains: Vec::new(),
        accounts: vec![1],
        limits: [].into_iter().collect(),
        accesses: 1,
    }
}

/// A world in which an access has pinned a page of address space 0.
fn pinned(manners: Manners) -> World {
    let world = World::new(spec(), 1, Pace::Sequential);
    let map = Op::Map {
        ioas: 0,
        pages: 1,
        memory: 0,
        offset: 0,
        length: 2 * PAGE_SIZE,
        permission: Permission::ReadWrite,
        writable: Asked::Yes,
        limited: Asked::Yes,
        place: Some(0),
    };
    assert!(block_on(world.apply(&map)).is_ok());
    let attach = Op::AttachAccess { ioas: 0, access: 0, pins: Asked::Yes, manners };
    assert_eq!(block_on(world.apply(&attach)), Ok(Value::Nothing));
    assert_eq!(pin(&world, 0), Ok(Value::Frames(vec![9])));
    world
}

const fn page(number: u64) -> Range {
    Range { iova: number * PAGE_SIZE, length: PAGE_SIZE }
}

fn pin(world: &World, number: u64) -> Outcome {
    block_on(world.apply(&Op::Pin { ioas: 0, access: 0, range: page(number), way: Way::Read }))
}

fn unpin(world: &World, number: u64) -> Outcome {
    block_on(world.apply(&Op::Unpin { ioas: 0, access: 0, range: page(number) }))
}

fn replace(world: &World) -> Outcome {
    block_on(world.apply(&Op::ReplaceAccess { ioas: 0, access: 0, to: 1 }))
}

#[test]
fn an_access_that_does_not_let_go_stays_and_goes_on_as_before() {
    for manners in [Manners::HoldsOn, Manners::Silent] {
        let world = pinned(manners);
        for _ in 0..2 {
            assert_eq!(replace(&world), Err(Errno::DEADLK), "{manners:?}");
            world.check();
        }
        assert_eq!(pin(&world, 1), Ok(Value::Frames(vec![7])), "{manners:?} is barred after a refused move");
        assert_eq!((unpin(&world, 0), unpin(&world, 1)), (Ok(Value::Nothing), Ok(Value::Nothing)));
        assert_eq!(replace(&world), Ok(Value::Nothing), "it holds nothing any more");
        assert_eq!(pin(&world, 0), Err(Errno::NOENT), "it has moved");
    }
}

#[test]
fn an_access_that_lets_go_moves_and_leaves_nothing_pinned() {
    let world = pinned(Manners::LetsGo);
    assert_eq!(replace(&world), Ok(Value::Nothing));
    assert!(block_on(world.observe()).pins.is_empty());
    world.check();
    assert_eq!(unpin(&world, 0), Err(Errno::NOENT));
}
