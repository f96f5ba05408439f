//! Domain: the control face of one table. Hands it to walkers and forgets them when they hang up.
//!
//! ```text
//!   client ──DOMAIN_EXPORT──▶ Domain makes a socket pair ──▶ export channel to the client, who may pass it on
//!   walker ──WALKER_OPEN on the channel──▶ arena, slots of its own, windows and backing files as known at export
//!   hang-up of the channel ──▶ its walkers are forgotten; nobody waits for them any more
//! ```
//!
//! The table itself belongs to the FanOut of the same arbiter.
//!
//! Imports allowed: domains, storage, sources, sys, fan_out, frame_service, figures.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use actix::prelude::*;
use ioasd_client::layout::FrameWindow;
use ioasd_client::wire::command::{Command, Decoded};
use ioasd_client::wire::frame::{Echo, Reply, Request};
use ioasd_client::wire::own::{WALKER_OPEN_FDS, WalkerOpen};

use super::fan_out::{FanOut, LookAt};
use super::figures::DomainStats;
use super::frame_service::FrameService;
use super::guard::poisoned;
use crate::domains::epoch::{Epochs, WalkerId};
use crate::error::{Coded, Errno};
use crate::sources::file::FileSource;
use crate::storage::frame_window::FileKey;
use crate::storage::refusal::Refusal;
use crate::sys::file_state::{self, FileKind};
use crate::sys::socket;
use crate::sys::watched::Watched;

/// Bytes of the longest message on an export channel.
const MESSAGE_MAX: usize = 4096;

/// Backing files that one answer can carry.
const FILES_MAX: usize = socket::FDS_SENT_MAX - WALKER_OPEN_FDS;

/// Walkers that may be opened through one export channel; each of them costs the agent a mapping.
const WALKERS_MAX: usize = 64;

/// The control face of one table.
pub struct Domain {
    parts: Arc<DomainParts>,
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
}

impl Domain {
    /// The face of a table that the FanOut has.
    #[must_use]
    pub fn new(parts: DomainParts) -> Self {
        Self { parts: Arc::new(parts) }
    }
}

impl Actor for Domain {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
    }
}

/// Makes an export channel. `backing` are the files that the domain's address space shows now.
#[derive(Message)]
#[rtype(result = "Result<OwnedFd, Refusal>")]
pub struct Export {
    /// The files, without duplicates of the same file.
    pub backing: Vec<Arc<FileSource>>,
}

/// Ends the actor; its channels hang up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Close;

impl Handler<Export> for Domain {
    type Result = Result<OwnedFd, Refusal>;

    fn handle(&mut self, Export { backing }: Export, context: &mut Self::Context) -> Self::Result {
        let (own, given) =
            socket::pair().map_err(|error| refused("cannot make an export channel", &error))?;
        let channel = Watched::new(own).map_err(|error| refused("cannot watch an export channel", &error))?;
        let exported = Exported { parts: Arc::clone(&self.parts), backing, walkers: Vec::new() };
        context.spawn(exported.serve(channel).into_actor(self));
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
    backing: Vec<Arc<FileSource>>,
    walkers: Vec<WalkerId>,
}

/// What a walker gets.
struct Opened {
    arena: OwnedFd,
    slots: OwnedFd,
    windows: Vec<u8>,
    files: Vec<Arc<FileSource>>,
    answer: WalkerOpen,
}

impl Exported {
    async fn serve(mut self, channel: Watched<OwnedFd>) {
        let mut buffer = [0; MESSAGE_MAX];
        while let Ok(received) =
            channel.read_with(|channel| socket::receive(channel.as_fd(), &mut buffer)).await
        {
            if received.is_end() {
                return;
            }
            tracing::info!(domain = self.parts.id, credentials = ?received.credentials, "a walker opens a domain");
            let message = buffer.get(..received.len).unwrap_or_default();
            if self.answer(message, &channel).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&mut self, message: &[u8], channel: &Watched<OwnedFd>) -> io::Result<()> {
        let echo = Echo::of(message);
        let opened = match self.understand(message) {
            Ok(decoded) => self.open().await.map(|opened| (decoded, opened)),
            Err(refusal) => Err(refusal),
        };
        match opened {
            Ok((decoded, opened)) => {
                let body = decoded.reply_body(&opened.answer);
                let mut fds: Vec<BorrowedFd<'_>> = vec![opened.arena.as_fd(), opened.slots.as_fd()];
                fds.extend(opened.files.iter().map(|file| file.as_fd()));
                send(channel, &Reply::done(echo, &body, &opened.windows), &fds)
            }
            Err(refusal) => {
                let text = refusal.to_string();
                send(channel, &Reply::refused(echo, refusal.errno(), refusal.code(), &text), &[])
            }
        }
    }

    fn understand<'m>(&self, message: &'m [u8]) -> Result<Decoded<'m, WalkerOpen>, Refusal> {
        let request = Request::decode(message).map_err(|error| Refusal::of(&error))?;
        if request.echo.command != WalkerOpen::NUMBER {
            let text = format!("an export channel has no command {:#x}", request.echo.command);
            return Err(Refusal::new(Errno::NOTTY, "command-unknown", text));
        }
        let decoded = request.argument.decode::<WalkerOpen>().map_err(|error| Refusal::of(&error))?;
        if decoded.value.flags != 0 {
            let text = format!("WALKER_OPEN has no flags, {:#x} is set", decoded.value.flags);
            return Err(Refusal::new(Errno::OPNOTSUPP, "flags-unknown", text));
        }
        Ok(decoded)
    }

    /// The backing files a walker may map: those that cannot shrink under it.
    fn exportable(&self) -> Result<Vec<Arc<FileSource>>, Refusal> {
        let sealed = |file: &&Arc<FileSource>| matches!(file_state::kind(file.as_fd()), Ok(FileKind::Memory(seals)) if seals.contains(rustix::fs::SealFlags::SHRINK));
        let files: Vec<_> = self.backing.iter().filter(sealed).cloned().collect();
        if files.len() <= FILES_MAX {
            return Ok(files);
        }
        let text = format!(
            "the domain shows {} files, a message carries {FILES_MAX}: map fewer files and export again",
            files.len()
        );
        Err(Refusal::new(Errno::MFILE, "too-many-files", text))
    }

    async fn open(&mut self) -> Result<Opened, Refusal> {
        if self.walkers.len() >= WALKERS_MAX {
            let text =
                format!("{WALKERS_MAX} walkers were opened through this channel: export the domain again");
            return Err(Refusal::new(Errno::MFILE, "too-many-walkers", text));
        }
        let files = self.exportable()?;
        let windows = self.windows(&files)?;
        let answer =
            WalkerOpen { flags: 0, out_windows: count(windows.len())?, out_files: count(files.len())? };
        let looked = self.parts.fan_out.send(LookAt::new(self.parts.id, |table| table.export())).await;
        let arena = looked.ok().flatten().ok_or_else(|| poisoned("a domain"))?;
        let arena = arena.map_err(|error| Refusal::of(&error))?;
        let (slots, walker) = self.parts.epochs.register_walker().map_err(|error| Refusal::of(&error))?;
        self.parts.frames.add_walker();
        self.walkers.push(walker);
        self.parts.stats.walkers.set(self.parts.stats.walkers.get() + 1);
        Ok(Opened { arena, slots, windows: windows.concat(), files, answer })
    }

    fn windows(&self, files: &[Arc<FileSource>]) -> Result<Vec<Vec<u8>>, Refusal> {
        let keys: Vec<FileKey> = files.iter().filter_map(|file| file.key()).collect();
        let windows = self.parts.frames.windows_of(&keys);
        let encode = |window: &crate::storage::frame_window::Window| {
            let file = keys.iter().position(|key| *key == window.file)?;
            let file = u32::try_from(file).ok()?;
            let window =
                FrameWindow { first: window.first, pages: window.pages, file, file_page: window.file_page };
            Some(window.encode().to_vec())
        };
        let encoded: Vec<Vec<u8>> = windows.iter().filter_map(encode).collect();
        if encoded.len() * ioasd_client::layout::WINDOW_BYTES > ioasd_client::wire::FRAME_MAX / 2 {
            let text =
                format!("the domain shows {} windows of frames, more than one answer holds", encoded.len());
            return Err(Refusal::new(Errno::TOOBIG, "too-many-windows", text));
        }
        Ok(encoded)
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        for walker in self.walkers.drain(..) {
            self.parts.epochs.unregister(walker);
            self.parts.frames.remove_walker();
            self.parts.stats.walkers.set(self.parts.stats.walkers.get().saturating_sub(1));
        }
    }
}

fn count(things: usize) -> Result<u32, Refusal> {
    u32::try_from(things)
        .map_err(|_| Refusal::new(Errno::TOOBIG, "too-many-files", "too many files for one answer"))
}

fn send(channel: &Watched<OwnedFd>, reply: &Reply<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = reply.encode().map_err(io::Error::other)?;
    socket::send(channel.as_fd(), &[&bytes], fds)
}

fn refused(what: &str, error: &io::Error) -> Refusal {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    Refusal::new(errno, "export-channel", format!("{what}: {error}"))
}
