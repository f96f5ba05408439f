//! The other process of a bench: an agent that serves one client, an echo, or a program. The
//! socket of the first two is their standard input.
//!
//! Imports allowed: actors, bed, cli, program, rustix.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ioasd_client::units::ByteLen;
use rustix::io::retry_on_intr;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendFlags, SocketFlags, SocketType, recvmsg, send,
    socketpair,
};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::bed::engine_settings;
use super::{BenchError, program};
use crate::actors::engine::Engine;
use crate::actors::registry::Registry;
use crate::cli::{Exit, with_causes};
use crate::config::values::parse_size;
use crate::storage::source::Strength;

/// Bytes of an echoed message.
pub(super) const ECHOED: usize = 64;

/// How often an agent looks whether its client is gone.
const LOOK: Duration = Duration::from_millis(50);

/// The flags of the other process.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct BenchPeerArgs {
    /// What to be.
    #[arg(long)]
    pub role: Role,
    /// Memory of a program.
    #[arg(long, default_value = "16MiB", value_parser = parse_size)]
    pub size: ByteLen,
    /// How often a program times each case.
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,
}

/// What the other process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// An agent.
    Agent,
    /// A program that uses `/dev/iommu`, and has no socket.
    Program,
    /// It sends back whatever it receives, and looks who sent it.
    Echo,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Echo => "echo",
            Self::Program => "program",
        }
    }
}

/// Runs the other process until its peer hangs up.
pub fn run(args: &BenchPeerArgs) -> Exit {
    let served = match args.role {
        Role::Agent => own_socket().and_then(serve),
        Role::Echo => own_socket().and_then(|socket| echo(socket.as_fd()).map_err(BenchError::io("echo"))),
        Role::Program => program::run(args.size, args.rounds),
    };
    match served {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("{} of a bench: {}", args.role.name(), with_causes(&error));
            Exit::Failed
        }
    }
}

fn own_socket() -> Result<OwnedFd, BenchError> {
    let taken = set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(io::Error::from)
        .and_then(|()| io::stdin().as_fd().try_clone_to_owned());
    taken.map_err(BenchError::io("take over the socket"))
}

fn serve(socket: OwnedFd) -> Result<(), BenchError> {
    actix_rt::System::new().block_on(async move {
        let registry = Registry::new();
        let engine =
            Engine::start(engine_settings(Strength::Resident), std::sync::Arc::clone(&registry)).await?;
        engine.serve(socket);
        while !registry.snapshot().contexts.is_empty() {
            actix_rt::time::sleep(LOOK).await;
        }
        engine.stop().await;
        Ok(())
    })
}

fn echo(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut message = [0; ECHOED];
    while receive(socket, &mut message)? > 0 {
        send(socket, &message, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Waits for a message and takes the sender's credentials with it.
pub(super) fn receive(socket: BorrowedFd<'_>, message: &mut [u8]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received =
        retry_on_intr(|| recvmsg(socket, &mut [io::IoSliceMut::new(message)], &mut control, flags))?;
    Ok(received.bytes)
}

/// A peer that runs, and this end of its socket. It ends when this is dropped.
pub(super) struct Peer {
    child: Child,
    socket: Option<OwnedFd>,
}

impl Peer {
    /// Starts this program again in a role.
    pub(super) fn start(role: Role) -> Result<Self, BenchError> {
        let failed = |doing| move |source| BenchError::Io { doing, source };
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (own, given) = pair.map_err(io::Error::from).map_err(failed("make a socket pair"))?;
        set_socket_passcred(&given, true).map_err(io::Error::from).map_err(failed("ask for credentials"))?;
        let program = std::env::current_exe().map_err(failed("find this program"))?;
        let mut command = Command::new(program);
        command.arg("bench-peer").arg("--role").arg(role.name()).stdin(Stdio::from(given));
        let child = command.spawn().map_err(failed("start this program again"))?;
        Ok(Self { child, socket: Some(own) })
    }

    /// This end of the socket, given away once.
    pub(super) fn take_socket(&mut self) -> Result<OwnedFd, BenchError> {
        self.socket.take().ok_or(BenchError::Lost)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.socket = None;
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("bench: cannot end a peer: {error}");
        }
    }
}
