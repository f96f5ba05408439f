//! Domain: the control face of one table. Hands it to walkers and forgets them when they hang up.
//!
//! ```text
//!   client ──DOMAIN_EXPORT──▶ Domain makes a socket pair ──▶ export channel to the client, who may pass it on
//!   walker ──WALKER_OPEN on the channel──▶ arena, slots and dirty log of its own, windows and backing files shown now
//!   walker ──WALKER_FILE on the channel──▶ the backing file that lies behind an address now, with its windows
//!   client ──DOMAIN_FAULTS──▶ fault channel: what its walkers could not reach, for whoever holds it
//!   hang-up of the channel ──▶ its walkers are forgotten; nobody waits for them any more
//! ```
//!
//! The table itself belongs to the FanOut of the same arbiter. An export channel is served like a client's: what it asks the
//! Ioas is asked from outside, nobody in the engine waits for it.
//!
//! Imports allowed: domains, storage, sources, sys, exported_files, fan_out, frame_service, figures, ioas, journal, tables.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use actix::WeakAddr;
use actix::prelude::*;
use ioasd_client::layout::{FrameWindow, LogShape, WINDOW_BYTES};
use ioasd_client::units::IovaRange;
use ioasd_client::wire::FRAME_MAX;
use ioasd_client::wire::command::{Command, Decoded};
use ioasd_client::wire::frame::{Echo, Reply, Request};
use ioasd_client::wire::own::{WALKER_LOG, WALKER_OPEN_FDS, WalkerFile, WalkerOpen};

use super::exported_files::{self, UnsafeFiles};
use super::fan_out::{FanOut, WithTable};
use super::fault_channel::{self, CHANNELS_MAX};
use super::figures::{ContextStats, Depth, DomainStats};
use super::frame_service::FrameService;
use super::guard::poisoned;
use super::ioas::Ioas;
use super::journal::{Happening, Journal};
use super::messages::ioas::{Look, LookAtTable};
use super::number::Number;
use super::tables::TURN;
use crate::domains::epoch::{Epochs, WalkerId};
use crate::domains::spec::Recording;
use crate::domains::table::Budget;
use crate::error::{Coded, Errno};
use crate::sources::file::FileSource;
use crate::storage::frame_window::{FileKey, Window};
use crate::storage::refusal::Refusal;
use crate::sys::pidfd::PidFd;
use crate::sys::sender::Senders;
use crate::sys::socket::{self, Credentials};
use crate::sys::watched::Watched;

/// Bytes of the longest message on an export channel.
const MESSAGE_MAX: usize = 4096;

/// Backing files that one answer can carry; one less beside a dirty log.
const FILES_MAX: usize = socket::FDS_SENT_MAX - WALKER_OPEN_FDS;

/// Windows that one answer can carry. Walkers ask again for files whose windows were left out.
const WINDOWS_MAX: usize = FRAME_MAX / 2 / WINDOW_BYTES;

/// Walkers that may be opened through one export channel; each of them costs the agent a mapping.
const WALKERS_MAX: usize = 64;

/// The control face of one table.
pub struct Domain {
    parts: Arc<DomainParts>,
    fault_channels: Arc<Depth>,
}

/// What a domain is made of.
pub struct DomainParts {
    /// Its number in the agent.
    pub id: u64,
    /// Owner of the table.
    pub fan_out: Addr<FanOut>,
    /// Its walkers.
    pub epochs: Arc<Epochs>,
    /// Its figures.
    pub stats: Arc<DomainStats>,
    /// All frames.
    pub frames: Arc<FrameService>,
    /// What becomes of files whose mappings are not safe.
    pub unsafe_files: UnsafeFiles,
    /// The context it belongs to, and where that a walker opened it is told.
    pub owner: (Number<ContextStats>, Arc<Journal>),
}

impl DomainParts {
    /// Takes over what walkers wrote that are gone, so that their logs need not be kept. If a log cannot be read it is, until
    /// the next channel ends.
    async fn take_over_logs(&self) {
        let logs = Arc::new(self.epochs.left_behind());
        let mut rest = Some(IovaRange::ALL);
        while let Some(range) = rest.filter(|_| !logs.is_empty()) {
            let these = Arc::clone(&logs);
            let work =
                WithTable::new(self.id, move |table| table.take_over(&these, range, &mut Budget::new(TURN)));
            let Ok(Some(Ok(next))) = self.fan_out.send(work).await else { return };
            rest = next.and_then(|next| IovaRange::new(next, range.last()));
        }
        self.epochs.forget(&logs);
    }
}

impl Domain {
    /// The face of a table that the FanOut has.
    #[must_use]
    pub fn new(parts: DomainParts) -> Self {
        Self { parts: Arc::new(parts), fault_channels: Arc::default() }
    }
}

impl Actor for Domain {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
    }
}

/// Makes an export channel.
#[derive(Message)]
#[rtype(result = "Result<OwnedFd, Refusal>")]
pub struct Export {
    /// The address space that the domain shows, which an export channel does not keep.
    pub ioas: WeakAddr<Ioas>,
}

/// Makes a fault channel.
#[derive(Debug, Message)]
#[rtype(result = "Result<OwnedFd, Refusal>")]
pub struct TellFaults;

/// Ends the actor; its channels hang up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Close;

impl Handler<Export> for Domain {
    type Result = Result<OwnedFd, Refusal>;

    fn handle(&mut self, Export { ioas }: Export, context: &mut Self::Context) -> Self::Result {
        let (own, given) =
            socket::pair().map_err(|error| refused("cannot make an export channel", &error))?;
        let channel = Watched::new(own).map_err(|error| refused("cannot watch an export channel", &error))?;
        let exported = Exported {
            parts: Arc::clone(&self.parts),
            ioas,
            given: VecDeque::new(),
            walkers: Vec::new(),
            asking: None,
            credentials: None,
        };
        let parts = Arc::clone(&self.parts);
        let served = async move {
            exported.serve(channel).await;
            parts.take_over_logs().await;
        };
        context.spawn(served.into_actor(self));
        Ok(given)
    }
}

impl Handler<TellFaults> for Domain {
    type Result = Result<OwnedFd, Refusal>;

    fn handle(&mut self, TellFaults: TellFaults, context: &mut Self::Context) -> Self::Result {
        if self.fault_channels.get() >= CHANNELS_MAX {
            let text = format!("the domain has {CHANNELS_MAX} fault channels already: close one of them");
            return Err(Refusal::new(Errno::MFILE, "too-many-channels", text));
        }
        let (own, given) = socket::pair().map_err(|error| refused("cannot make a fault channel", &error))?;
        let channel = Watched::new(own).map_err(|error| refused("cannot watch a fault channel", &error))?;
        let faults = Arc::clone(self.parts.epochs.faults());
        let place = self.fault_channels.enter();
        context.spawn(fault_channel::serve(channel, faults, place).into_actor(self));
        Ok(given)
    }
}

impl Handler<Close> for Domain {
    type Result = ();

    fn handle(&mut self, Close: Close, context: &mut Self::Context) {
        context.stop();
    }
}

/// One export channel and the walkers that were opened through it. Dropping it forgets them.
struct Exported {
    parts: Arc<DomainParts>,
    ioas: WeakAddr<Ioas>,
    /// Files that walkers were given, the latest last. As long as they are here they keep their frames, also while the
    /// domain shows nothing of them.
    given: VecDeque<Arc<FileSource>>,
    walkers: Vec<WalkerId>,
    /// The process that sent the message being answered, if that is certain, and who the kernel says it is.
    asking: Option<Arc<PidFd>>,
    credentials: Option<Credentials>,
}

/// What a walker gets.
struct Answer {
    body: Vec<u8>,
    windows: Vec<u8>,
    /// Arena, slots and dirty log, if it opens the domain.
    made: Vec<OwnedFd>,
    files: Vec<Arc<FileSource>>,
}

/// What there is to see in a domain.
struct Shown {
    arena: OwnedFd,
    log: Option<OwnedFd>,
    files: Vec<Arc<FileSource>>,
}

impl Exported {
    async fn serve(mut self, channel: Watched<OwnedFd>) {
        let (mut buffer, mut senders) = ([0; MESSAGE_MAX], Senders::of_each(channel.as_fd()));
        while let Ok((received, sender)) =
            channel.read_with(|channel| senders.receive(channel.as_fd(), &mut buffer)).await
        {
            if received.is_end() {
                return;
            }
            tracing::info!(domain = self.parts.id, credentials = ?received.credentials, "a walker asks");
            let message = buffer.get(..received.len).unwrap_or_default();
            self.asking = sender.and_then(|sender| sender.process);
            self.credentials = received.credentials;
            if self.answer(message, &channel).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&mut self, message: &[u8], channel: &Watched<OwnedFd>) -> io::Result<()> {
        let echo = Echo::of(message);
        match self.carry_out(message).await {
            Ok(answer) => {
                let made = answer.made.iter().map(AsFd::as_fd);
                let fds: Vec<BorrowedFd<'_>> =
                    made.chain(answer.files.iter().map(|file| file.as_fd())).collect();
                send(channel, &Reply::done(echo, &answer.body, &answer.windows), &fds)
            }
            Err(refusal) => {
                let text = refusal.to_string();
                send(channel, &Reply::refused(echo, refusal.errno(), refusal.code(), &text), &[])
            }
        }
    }

    async fn carry_out(&mut self, message: &[u8]) -> Result<Answer, Refusal> {
        let request = Request::decode(message).map_err(|error| Refusal::of(&error))?;
        match request.echo.command {
            WalkerOpen::NUMBER => self.open(decode(&request, |open: &WalkerOpen| open.flags)?).await,
            WalkerFile::NUMBER => {
                self.file(decode(&request, |file: &WalkerFile| file.flags | file.reserved)?).await
            }
            command => {
                let text = format!("an export channel has no command {command:#x}");
                Err(Refusal::new(Errno::NOTTY, "command-unknown", text))
            }
        }
    }

    async fn open(&mut self, decoded: Decoded<'_, WalkerOpen>) -> Result<Answer, Refusal> {
        if self.walkers.len() >= WALKERS_MAX {
            let text =
                format!("{WALKERS_MAX} walkers were opened through this channel: export the domain again");
            return Err(Refusal::new(Errno::MFILE, "too-many-walkers", text));
        }
        let (slots, walker) = self.register()?;
        let opened = self.shown(walker).await;
        if opened.is_err() {
            self.walkers.retain(|known| *known != walker);
            self.forget(walker);
        }
        let Shown { arena, log, files } = opened?;
        self.tell();
        let windows = self.windows(&files);
        let flags = if log.is_some() { WALKER_LOG } else { 0 };
        let answer = WalkerOpen { flags, out_windows: count(windows.len()), out_files: count(files.len()) };
        let body = decoded.reply_body(&answer);
        let made = [arena, slots].into_iter().chain(log).collect();
        Ok(Answer { body, windows: windows.concat(), made, files })
    }

    /// Registers a walker. From here on windows that it is told of are not given to other files before it has left.
    fn register(&mut self) -> Result<(OwnedFd, WalkerId), Refusal> {
        let epochs = &self.parts.epochs;
        self.parts.frames.add_walker(epochs);
        let registered = epochs.register_walker_of(self.asking.clone());
        let (slots, walker) = registered.map_err(|error| {
            self.parts.frames.remove_walker(epochs);
            Refusal::of(&error)
        })?;
        self.walkers.push(walker);
        self.parts.stats.walkers.set(self.parts.stats.walkers.get() + 1);
        Ok((slots, walker))
    }

    /// That somebody walks is of interest to whoever asks later.
    fn tell(&self) {
        let (context, journal) = &self.parts.owner;
        journal.tell(Happening::walked(*context, self.parts.stats.object, self.credentials));
    }

    fn forget(&self, walker: WalkerId) {
        self.parts.epochs.unregister(walker);
        self.parts.frames.remove_walker(&self.parts.epochs);
        self.parts.stats.walkers.set(self.parts.stats.walkers.get().saturating_sub(1));
    }

    /// What the domain shows to `walker`, which gets a dirty log if the domain records what is written.
    async fn shown(&mut self, walker: WalkerId) -> Result<Shown, Refusal> {
        let look = WithTable::new(self.parts.id, |table| (table.spec(), table.export()));
        let rule = self.parts.unsafe_files;
        let mut files = self.ask(Box::new(move |table| exported_files::shown(table, rule))).await?;
        let looked = self.parts.fan_out.send(look).await;
        let (spec, arena) = looked.ok().flatten().ok_or_else(|| poisoned("a domain"))?;
        let log = match spec.recording() {
            Recording::Nothing => None,
            Recording::Writes => Some(self.parts.epochs.add_log(walker, LogShape::of(spec.geometry()))),
        };
        files.truncate(FILES_MAX - usize::from(log.is_some()));
        self.keep(&files);
        let log = log.transpose().map_err(|error| Refusal::of(&error))?;
        Ok(Shown { arena: arena.map_err(|error| Refusal::of(&error))?, log, files })
    }

    async fn file(&mut self, decoded: Decoded<'_, WalkerFile>) -> Result<Answer, Refusal> {
        let (iova, rule) = (decoded.value.iova, self.parts.unsafe_files);
        let file = self.ask(Box::new(move |table| exported_files::at(table, iova, rule))).await??;
        let files = vec![file];
        self.keep(&files);
        let windows = self.windows(&files);
        let body = decoded.reply_body(&WalkerFile { out_windows: count(windows.len()), ..decoded.value });
        Ok(Answer { body, windows: windows.concat(), made: Vec::new(), files })
    }

    /// Keeps files that are given out, but no more than one answer carries.
    fn keep(&mut self, files: &[Arc<FileSource>]) {
        for file in files {
            if !self.given.iter().any(|kept| kept.key() == file.key()) {
                self.given.push_back(Arc::clone(file));
            }
        }
        self.given.drain(..self.given.len().saturating_sub(FILES_MAX));
    }

    /// Asks the address space that the domain shows.
    async fn ask<R: Send + 'static>(&self, look: Look<R>) -> Result<R, Refusal> {
        let ioas = self.ioas.upgrade().ok_or_else(|| poisoned("an ioas"))?;
        ioas.send(LookAtTable(look)).await.map_err(|_| poisoned("an ioas"))
    }

    /// The windows of `files` as they travel, as many as one answer holds.
    fn windows(&self, files: &[Arc<FileSource>]) -> Vec<Vec<u8>> {
        let keys: Vec<FileKey> = files.iter().filter_map(|file| file.key()).collect();
        let windows = self.parts.frames.windows_of(&keys);
        let encode = |window: &Window| {
            let file = keys.iter().position(|key| *key == window.file)?;
            let file = u32::try_from(file).ok()?;
            let window =
                FrameWindow { first: window.first, pages: window.pages, file, file_page: window.file_page };
            Some(window.encode().to_vec())
        };
        windows.iter().filter_map(encode).take(WINDOWS_MAX).collect()
    }
}

/// The argument of a request whose words that must be 0 are.
fn decode<'m, C: Command>(
    request: &Request<'m>,
    zero: impl FnOnce(&C) -> u32,
) -> Result<Decoded<'m, C>, Refusal> {
    let decoded = request.argument.decode::<C>().map_err(|error| Refusal::of(&error))?;
    match zero(&decoded.value) {
        0 => Ok(decoded),
        set => {
            let text = format!("{} has no flags, {set:#x} is set", C::NAME);
            Err(Refusal::new(Errno::OPNOTSUPP, "flags-unknown", text))
        }
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        for walker in std::mem::take(&mut self.walkers) {
            self.forget(walker);
        }
    }
}

/// A number of things that fit into one answer.
fn count(things: usize) -> u32 {
    u32::try_from(things).unwrap_or(u32::MAX)
}

fn send(channel: &Watched<OwnedFd>, reply: &Reply<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = reply.encode().map_err(io::Error::other)?;
    socket::send(channel.as_fd(), &[&bytes], fds)
}

fn refused(what: &str, error: &io::Error) -> Refusal {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    Refusal::new(errno, "export-channel", format!("{what}: {error}"))
}
