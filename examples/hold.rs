//! The smallest client: maps a memfd into an address space with one device, says so, and holds it until its standard
//! input ends. If the agent hangs up first, it fails.
//!
//! ```text
//! cargo run --example hold -- SOCKET MEBIBYTES
//! ```

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ioasd_client::calls::{FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::units::{ByteLen, Permission};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(socket), Some(size)) = (arguments.next(), arguments.next()) else {
        return Err("usage: hold SOCKET MEBIBYTES".into());
    };
    let length = size.to_str().ok_or("the size is no number")?.parse::<u64>()? << 20;
    let mut agent = Connection::connect(Path::new(&socket))?;
    let ioas = agent.ioas_alloc()?;
    let device = agent.device_create(FormatId::AmdV1, Iommu::Shared)?;
    agent.device_attach(device, ioas)?;
    let memory = memory(length)?;
    let slice = FileSlice { file: memory.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(length) };
    let iova = agent.map_file(ioas, slice, Permission::ReadWrite, Placement::Any)?;
    println!("holding {length} bytes at {iova}");
    hold(&agent.into_fd())
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
