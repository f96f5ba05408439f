//! `libioasd`: the client for C and whatever calls C, a thin face over `ioasd-client`. Its header is `include/ioasd.h`,
//! made from the declarations here; what a C author must know stands there and in `docs/c.md`.
//!
//! | module | what it is |
//! |---|---|
//! | [`connection`], [`ioas`], [`devices`], [`accesses`], [`notices`], [`walker`] | the functions, one file for each kind of thing |
//! | [`stream`], [`words`] | translating, and reading and writing by IOVA: what a device does all the time |
//! | [`constants`] | numbers that callers pass |
//! | `handles` | what a pointer to an opaque struct stands for |
//! | [`shell`], `mark` | what a `struct ioasd_stream` is, and which thread it belongs to |
//! | `boundary` | what comes in and goes out, and that no panic does |
//! | `error`, [`last`] | what went wrong, as errno, code and text |
//!
//! Three rules make this sound against callers whom no compiler checks:
//!
//! * A handle other than a stream is a number that is looked up, never an address that is followed. Numbers are not used
//!   twice, so that a handle that was closed is found to be.
//! * A stream is an address, for speed. Its memory stays what it is when it is closed, and one word of it, compared with
//!   the calling thread, tells whether it is open, is used by its own thread, and is in a burst.
//! * What a function gives back goes through a reference that may be null, and is checked before anything is done.
//!
//! Imports allowed: ioasd-client, `rustix`, `libc`. `unsafe` anywhere here: this is the room for what C must be trusted with.

// What is exported, in the order of the header.

pub mod constants;

pub mod last;

pub mod connection;

pub mod ioas;

pub mod devices;

pub mod walker;

pub mod shell;

pub mod stream;

pub mod words;

pub mod accesses;

pub mod notices;

mod boundary;
mod error;
mod handles;
mod mark;
