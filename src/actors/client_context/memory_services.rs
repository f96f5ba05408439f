//! The processes that use a context: their memory, and the memory channels on which they are asked to pin it.
//!
//! ```text
//!   a pin thread ──PIN_MEMORY──▶ process     registers the range with a ring that is not enabled
//!        │       ◀──its number──
//!        ├──pidfd_getfd, scratch file, restrictions, enable──▶ the ring is ours
//!        └──PIN_MEMORY of nothing──▶ process     closes its descriptor
//! ```
//!
//! A process is asked one thing at a time, and has one deadline. One that misses it, or answers with what is no answer, is
//! not asked again: it can keep a thread waiting once.
//!
//! Imports allowed: state, sources, storage, sys, the client crate's wire.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ioasd_client::units::{ByteLen, UserAddr};
use ioasd_client::wire::channels::PinMemory;
use ioasd_client::wire::command::{Argument, Command, encode};
use ioasd_client::wire::frame::{Echo, Reply, Request, Tag};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::state::ClientState;
use crate::error::Errno;
use crate::sources::process::Owner;
use crate::sources::upcall::{PinUpcall, UpcallError};
use crate::storage::refusal::Refusal;
use crate::sys::failure::SysError;
use crate::sys::pidfd::PidFd;
use crate::sys::process_memory::ProcessMemory;
use crate::sys::ring_channel::RingChannel;
use crate::sys::sender::Sender;
use crate::sys::socket::{self, Loss};

/// How long a process may take to pin: it may have to bring its pages in.
const DEADLINE: Duration = Duration::from_secs(5);

/// Bytes of the longest answer that is one.
const ANSWER_MAX: usize = 512;

/// The processes of one context.
#[derive(Default)]
pub(super) struct MemoryServices {
    services: RefCell<Vec<Arc<MemoryService>>>,
    owners: RefCell<Vec<Owner>>,
}

/// One process that pins its memory when it is asked to.
pub(super) struct MemoryService {
    process: Arc<PidFd>,
    channel: Mutex<Option<Asking>>,
}

/// Our end of a memory channel.
struct Asking {
    socket: OwnedFd,
    last: u64,
}

impl MemoryServices {
    /// The memory of `process`, as it is now.
    pub(super) fn owner(&self, process: &Arc<PidFd>) -> Result<Owner, SysError> {
        let mut owners = self.owners.borrow_mut();
        owners.retain(|owner| owner.memory.is_there());
        if let Some(known) = owners.iter().find(|owner| owner.is(process)) {
            return Ok(known.clone());
        }
        let owner = Owner { process: Arc::clone(process), memory: Arc::new(ProcessMemory::open(process)?) };
        owners.push(owner.clone());
        Ok(owner)
    }

    /// How `process` is asked to pin, if it can be.
    pub(super) fn upcall(&self, process: &PidFd) -> Option<Arc<dyn PinUpcall>> {
        let services = self.services.borrow();
        let found = services.iter().find(|service| service.process.pid() == process.pid())?;
        Some(Arc::clone(found) as Arc<dyn PinUpcall>)
    }
}

impl ClientState {
    /// Has the sender pin its memory when that is due; gives its end of the memory channel.
    ///
    /// # Errors
    /// ESRCH if the sender is not known by handle; EMFILE if there are as many processes as channels are allowed.
    pub fn memory_serve(self: &Rc<Self>, who: Option<&Sender>) -> Result<OwnedFd, Refusal> {
        let process = who.and_then(|who| who.process.as_ref()).ok_or_else(|| {
            let text = "it is not certain which process sent this: send it on a channel of its own";
            Refusal::new(Errno::SRCH, "sender-unknown", text)
        })?;
        let mut services = self.memory.services.borrow_mut();
        services.retain(|service| {
            service.process.pid() != process.pid() && service.process.has_exited() == Ok(false)
        });
        if services.len() >= self.agent.settings.channels {
            let text = format!("{} processes serve their memory already", services.len());
            return Err(Refusal::new(Errno::MFILE, "too-many-channels", text));
        }
        let (own, given) = socket::pair().map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Refusal::new(errno, "channel-open", format!("cannot open a memory channel: {error}"))
        })?;
        let channel = Mutex::new(Some(Asking { socket: own, last: 0 }));
        services.push(Arc::new(MemoryService { process: Arc::clone(process), channel }));
        Ok(given)
    }
}

impl PinUpcall for MemoryService {
    fn pin(&self, start: UserAddr, length: ByteLen) -> Result<RingChannel, UpcallError> {
        let mut channel = self.channel.lock();
        let asking = channel.as_mut().ok_or(UpcallError::Gone)?;
        let pinned = asking.pin(&self.process, start, length);
        if matches!(pinned, Err(UpcallError::Gone | UpcallError::Silent(_) | UpcallError::Nonsense)) {
            *channel = None;
        }
        pinned
    }
}

impl Asking {
    fn pin(&mut self, process: &PidFd, start: UserAddr, length: ByteLen) -> Result<RingChannel, UpcallError> {
        self.ask(&PinMemory { start, length, ..PinMemory::default() })?;
        let ring = self.answer(Instant::now() + DEADLINE)?;
        let taken = RingChannel::take(process, ring, (start, length)).map_err(UpcallError::NotTaken);
        self.ask(&PinMemory::default())?;
        taken
    }

    fn ask(&mut self, command: &PinMemory) -> Result<(), UpcallError> {
        self.last += 1;
        let echo = Echo { command: PinMemory::NUMBER, tag: Tag(self.last) };
        let argument = encode(command);
        let message = Request { echo, argument: Argument::new(&argument) }.encode();
        let message = message.map_err(|_| UpcallError::Nonsense)?;
        socket::send(self.socket.as_fd(), &[&message], &[]).map_err(|_| UpcallError::Gone)
    }

    /// The ring that the process has pinned with.
    fn answer(&self, deadline: Instant) -> Result<i32, UpcallError> {
        self.wait(deadline)?;
        let mut buffer = [0; ANSWER_MAX];
        let received = socket::receive(self.socket.as_fd(), &mut buffer).map_err(|_| UpcallError::Gone)?;
        if received.is_end() {
            return Err(UpcallError::Gone);
        }
        let message = buffer.get(..received.len).unwrap_or_default();
        let reply = Reply::decode(message).map_err(|_| UpcallError::Nonsense)?;
        let wanted = Echo { command: PinMemory::NUMBER, tag: Tag(self.last) };
        if reply.echo != wanted || received.loss != Loss::None || !received.fds.is_empty() {
            return Err(UpcallError::Nonsense);
        }
        if reply.errno != 0 {
            return Err(UpcallError::Refused(Errno::from_raw_os_error(reply.errno)));
        }
        i32::try_from(PinMemory::load(reply.body).out_ring).map_err(|_| UpcallError::Nonsense)
    }

    fn wait(&self, deadline: Instant) -> Result<(), UpcallError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(UpcallError::Silent(DEADLINE)),
                Ok(_) => return Ok(()),
                Err(_) => return Err(UpcallError::Gone),
            }
        }
    }
}
