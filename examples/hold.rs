//! The smallest client: maps a memfd into an address space with one device, says so, and holds it until its standard
//! input ends. If the agent hangs up first, it fails. With a number of areas it maps the memory in so many parts, a free
//! page behind each, and every fourth of them once more; if a later part is refused it says so and holds the others.
//!
//! ```text
//! cargo run --example hold -- SOCKET MEBIBYTES [AREAS]
//! ```

use std::error::Error;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ioasd_client::calls::{FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Where parts are mapped.
const FIRST: Iova = Iova::new(2 << 20);

/// How far behind a part its second mapping is.
const AGAIN: u64 = 1 << 40;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(socket), Some(size)) = (arguments.next(), arguments.next()) else {
        return Err("usage: hold SOCKET MEBIBYTES [AREAS]".into());
    };
    let areas = arguments.next().map(|areas| count(&areas)).transpose()?;
    let length = count(&size)? << 20;
    let mut agent = Connection::connect(Path::new(&socket))?;
    let ioas = agent.ioas_alloc()?;
    let device = agent.device_create(FormatId::AmdV1, Iommu::Shared)?;
    agent.device_attach(device, ioas)?;
    let memory = memory(length)?;
    let iova = match areas {
        None => {
            let slice =
                FileSlice { file: memory.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(length) };
            agent.map_file(ioas, slice, Permission::ReadWrite, Placement::Any)?
        }
        Some(areas) => map_parts(&mut agent, ioas, &memory, (length, areas))?,
    };
    println!("holding {length} bytes at {iova}");
    hold(&agent.into_fd())
}

fn count(text: &OsStr) -> Result<u64, Box<dyn Error>> {
    Ok(text.to_str().ok_or("not a number")?.parse()?)
}

/// Maps `length` bytes in so many parts from address `FIRST` on; tells where the first is.
fn map_parts(
    agent: &mut Connection,
    ioas: IoasId,
    memory: &OwnedFd,
    (length, areas): (u64, u64),
) -> Result<Iova, Box<dyn Error>> {
    let part = length.checked_div(areas).unwrap_or(0) & !(PAGE_SIZE - 1);
    if part == 0 {
        return Err("each area needs a page: fewer AREAS, or more MEBIBYTES".into());
    }
    for number in 0..areas {
        let slice = FileSlice {
            file: memory.as_fd(),
            offset: ByteLen::new(number * part),
            length: ByteLen::new(part),
        };
        let start = Iova::new(FIRST.get() + number * (part + PAGE_SIZE));
        match agent.map_file(ioas, slice, Permission::ReadWrite, Placement::Fixed(start)) {
            Err(refusal @ CallError::Refused { .. }) if number > 0 => {
                println!("after {number} of {areas} areas: {refusal}");
                break;
            }
            mapped => mapped?,
        };
        if let Some(range) = IovaRange::from_length(start, ByteLen::new(part)).filter(|_| number % 4 == 0) {
            let again = Iova::new(start.get() + AGAIN);
            agent.copy((ioas, range), (ioas, Placement::Fixed(again)), Permission::Read)?;
        }
    }
    Ok(FIRST)
}

/// A memfd that is there in full and can neither shrink nor grow.
fn memory(length: u64) -> Result<OwnedFd, Box<dyn Error>> {
    let file = memfd_create("hold", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let zeroes = vec![0; 1 << 20];
    for offset in (0..length).step_by(zeroes.len()) {
        rustix::io::pwrite(&file, &zeroes, offset)?;
    }
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(file)
}

fn hold(agent: &OwnedFd) -> Result<(), Box<dyn Error>> {
    let input = std::io::stdin();
    loop {
        let mut waiting = [PollFd::new(&input, PollFlags::IN), PollFd::new(agent, PollFlags::IN)];
        poll(&mut waiting, None)?;
        let [typed, agent] = waiting.map(|fd| fd.revents());
        if !agent.is_empty() {
            return Err("the agent hung up: the mapping is gone".into());
        }
        if !typed.is_empty() && rustix::io::read(&input, &mut [0_u8; 64])? == 0 {
            return Ok(());
        }
    }
}
