//! A tour of the client: maps, a second channel, many requests under way, an access that lets go when asked.
//!
//! `cargo run -p ioasd-client --example tour -- /run/ioasd/ioasd.sock`; a test runs it, too.

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ioasd_client::calls::{AccessKind, FileSlice, PinIntent, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::ids::IoasId;
use ioasd_client::pipeline::Pipeline;
use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission};
use ioasd_client::wire::own::AccessUnpin;
use ioasd_client::wire::uapi::{IoasMapFile, IoasUnmap};
use rustix::event::{PollFd, PollFlags, poll};

const PAGES: u64 = 16;
const PAGE: u64 = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args_os().nth(1).ok_or("usage: tour SOCKET")?;
    tour(&PathBuf::from(socket))
}

/// Everything, one after the other.
pub(crate) fn tour(socket: &Path) -> Result<(), Box<dyn Error>> {
    let mut agent = Connection::connect(socket)?;
    let (ioas, memory) = (agent.ioas_alloc()?, filled_memory()?);
    map_one_by_one(&mut agent, ioas, &memory)?;
    let opened = agent.open_channel()?;
    let mut pipeline = Pipeline::new(opened.channel, usize::try_from(opened.credits)?);
    map_ahead(&mut pipeline, ioas, &memory)?;
    let_go_when_asked(&mut agent, &mut pipeline, ioas)
    // Here `agent` is dropped, the last lease: the context ends, whatever is still mapped.
}

/// Memory whose pages are there: the agent does not allocate them.
fn filled_memory() -> Result<OwnedFd, Box<dyn Error>> {
    let memory = rustix::fs::memfd_create("tour", rustix::fs::MemfdFlags::CLOEXEC)?;
    let bytes = vec![7; usize::try_from(PAGES * PAGE)?];
    rustix::io::pwrite(&memory, &bytes, 0)?;
    Ok(memory)
}

/// The blocking form: one call, one answer. A refusal carries errno, code and the agent's explanation.
fn map_one_by_one(agent: &mut Connection, ioas: IoasId, memory: &OwnedFd) -> Result<(), CallError> {
    let page = FileSlice { file: memory.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(PAGE) };
    let iova = agent.map_file(ioas, page, Permission::ReadWrite, Placement::Any)?;
    match agent.map_file(ioas, page, Permission::ReadWrite, Placement::Fixed(iova)) {
        Err(CallError::Refused { errno, code, text, .. }) => {
            println!("as expected, {errno} ({code}): {text}");
        }
        other => println!("unexpected: {other:?}"),
    }
    agent.unmap_all(ioas).map(drop)
}

/// The form that does not wait: all maps are under way before the first answer is looked at.
fn map_ahead(pipeline: &mut Pipeline, ioas: IoasId, memory: &OwnedFd) -> Result<(), Box<dyn Error>> {
    for page in 0..PAGES {
        let (offset, length) = (ByteLen::new(page * PAGE), ByteLen::new(PAGE));
        let slice = FileSlice { file: memory.as_fd(), offset, length };
        let place = Placement::Fixed(Iova::new(0x10_0000 + page * PAGE));
        pipeline.send(&slice.request(ioas, Permission::ReadWrite, place), &[memory.as_fd()], &[])?;
    }
    while pipeline.in_flight() > 0 {
        poll(&mut [PollFd::new(&*pipeline, PollFlags::IN)], None)?;
        while let Some(arrived) = pipeline.try_receive()? {
            println!("mapped at {}", arrived.answer::<IoasMapFile>()?.value.iova);
        }
    }
    Ok(())
}

/// One thread that unmaps what its own access has pinned, and lets go when it is asked to.
fn let_go_when_asked(
    agent: &mut Connection,
    pipeline: &mut Pipeline,
    ioas: IoasId,
) -> Result<(), Box<dyn Error>> {
    let (access, mut notices) = agent.access_create_with_notices(ioas, AccessKind::Pinning)?;
    let pinned = IovaRange::from_length(Iova::new(0x10_0000), ByteLen::new(PAGE)).ok_or("no range")?;
    agent.access_pin(access, pinned, PinIntent::Write)?;
    let unmap = IoasUnmap { ioas_id: ioas, iova: Iova::new(0), length: ByteLen::new(u64::MAX) };
    let unmapping = pipeline.send(&unmap, &[], &[])?;
    let mut asked = None;
    loop {
        poll(&mut [PollFd::new(&*pipeline, PollFlags::IN), PollFd::new(&notices, PollFlags::IN)], None)?;
        while let Some(notice) = notices.try_receive()? {
            println!("letting go of {}", notice.range);
            let (iova, length) = (pinned.start(), pinned.length());
            let unpin = AccessUnpin { access_id: access, iova, length, ..AccessUnpin::default() };
            pipeline.send(&unpin, &[], &[])?;
            asked = Some(notice);
        }
        while let Some(arrived) = pipeline.try_receive()? {
            if arrived.tag == unmapping {
                println!("unmapped {}", arrived.answer::<IoasUnmap>()?.value.length);
                return Ok(());
            }
            // The unpin, which overtakes the unmap that waits for it. Only now has the access let go.
            arrived.answer::<AccessUnpin>()?;
            asked.take().map_or(Ok(()), |notice| notices.acknowledge(&notice))?;
        }
    }
}
