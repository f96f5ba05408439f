//! The uAPI over a socket: decodes a message, asks the context, encodes the answer.
//!
//! | file | commands |
//! |---|---|
//! | [`ioas`] | DESTROY, IOAS_ALLOC, IOAS_MAP_FILE, IOAS_COPY, IOAS_UNMAP, IOAS_NOIOMMU_GET_PA |
//! | [`lists`] | IOAS_MAP_FILES, IOAS_UNMAP_RANGES |
//! | `memory` | IOAS_MAP |
//! | `mock` | TEST_CMD |
//! | `vfio` | VFIO_IOAS and the calls of a VFIO container |
//! | [`iova_rules`] | IOAS_ALLOW_IOVAS, IOAS_IOVA_RANGES |
//! | [`option`] | OPTION |
//! | [`change_process`] | IOAS_CHANGE_PROCESS |
//! | [`hwpts`], [`hw_info`] | HWPT_ALLOC, GET_HW_INFO |
//! | [`dirty`] | HWPT_SET_DIRTY_TRACKING, HWPT_GET_DIRTY_BITMAP |
//! | [`events`] | FAULT_QUEUE_ALLOC, VEVENTQ_ALLOC |
//! | [`nesting`] | HWPT_INVALIDATE, VIOMMU_ALLOC, VDEVICE_ALLOC, HW_QUEUE_ALLOC, REGION_OPEN |
//! | [`devices`] | DEVICE_CREATE, DEVICE_ATTACH, DEVICE_REPLACE, DEVICE_DETACH, DOMAIN_EXPORT |
//! | [`channels`] | CHANNEL_OPEN |
//! | [`accesses`] | ACCESS_CREATE, ACCESS_ATTACH, ACCESS_REPLACE, ACCESS_DETACH, ACCESS_PIN, ACCESS_UNPIN, ACCESS_RW |
//!
//! Checks bite in the order of the kernel: the frame, the command's number, the argument's size, flags and reserved
//! fields, plain arithmetic, objects, and then what the address space says.
//!
//! Arrays that a command has beside its struct are read by `array`.
//!
//! Imports allowed: actors, the client crate's wire.

pub mod accesses;
mod array;
pub mod change_process;
pub mod channels;
pub mod devices;
pub mod dirty;
pub mod events;
pub mod hw_info;
pub mod hwpts;
pub mod ioas;
pub mod iova_rules;
mod line;
pub mod lists;
mod memory;
mod mock;
pub mod nesting;
pub mod option;
mod vfio;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use ioasd_client::wire::channels::{ChannelOpen, DomainFaults, MemoryServe, RegionOpen};
use ioasd_client::wire::command::{Argument, Command, Decoded};
use ioasd_client::wire::frame::{Echo, Reply, Request};
use ioasd_client::wire::mock::TestCmd;
use ioasd_client::wire::own::{
    AccessAttach, AccessCreate, AccessDetach, AccessPin, AccessReplace, AccessRw, AccessUnpin, DeviceAttach,
    DeviceCreate, DeviceDetach, DeviceReplace, DomainExport, IoasMapFiles, IoasUnmapRanges,
};
use ioasd_client::wire::uapi::{
    Destroy, FaultQueueAlloc, GetHwInfo, HwQueueAlloc, HwptAlloc, HwptGetDirtyBitmap, HwptInvalidate,
    HwptSetDirtyTracking, IoasAlloc, IoasAllowIovas, IoasChangeProcess, IoasCopy, IoasIovaRanges, IoasMap,
    IoasMapFile, IoasNoiommuGetPa, IoasUnmap, IommuOption, VdeviceAlloc, VeventqAlloc, ViommuAlloc,
};
use ioasd_client::wire::vfio::{
    VfioCheckExtension, VfioGetInfo, VfioIoas, VfioMapDma, VfioSetIommu, VfioUnmapDma,
};

use self::line::Line;
use crate::actors::client_context::state::ClientState;
use crate::actors::guard::caught;
use crate::actors::late::{Ended, note};
use crate::actors::messages::dispatch::{Dispatch, Incoming, Lane, Outgoing, Rest};
use crate::actors::requests::OK;
use crate::error::{Coded, Errno};
use crate::storage::refusal::Refusal;
use crate::sys::client_fd::ClientFd;
use crate::sys::sender::Sender;
use crate::sys::socket::Loss;

/// The name under which messages without a known command are counted.
const UNKNOWN: &str = "unknown";

/// The name under which messages are counted that no credit was left for: nobody looked which command they have.
const UNREAD: &str = "unread";

/// Understands the commands of the uAPI and of ioasd.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uapi;

/// What came with a command besides its struct.
pub struct Call<'m> {
    /// The context it is for.
    pub client: &'m Rc<ClientState>,
    /// Bytes behind the struct.
    pub payload: &'m [u8],
    /// Descriptors of the message.
    pub fds: Vec<ClientFd>,
    /// Who sent it.
    pub sender: Option<Sender>,
}

/// What a command gives back.
#[derive(Debug)]
pub struct Done<C> {
    /// The struct to copy back; `None` for commands that copy nothing.
    pub value: Option<C>,
    /// Bytes behind it.
    pub payload: Vec<u8>,
    /// Descriptors.
    pub fds: Vec<OwnedFd>,
    /// Why the command was refused nevertheless: all of this is written in spite of it.
    pub refusal: Option<Refusal>,
}

impl<C> Done<C> {
    /// Copies `value` back.
    #[must_use]
    pub fn value(value: C) -> Self {
        Self { value: Some(value), ..Self::nothing() }
    }

    /// Copies nothing back.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { value: None, payload: Vec::new(), fds: Vec::new(), refusal: None }
    }

    /// The same with bytes behind the struct.
    #[must_use]
    pub fn with_payload(self, payload: Vec<u8>) -> Self {
        Self { payload, ..self }
    }

    /// The same with a descriptor.
    #[must_use]
    pub fn with_fd(self, fd: OwnedFd) -> Self {
        Self { fds: vec![fd], ..self }
    }

    /// The same, written although the command is refused.
    #[must_use]
    pub fn but(self, refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..self }
    }
}

/// A command that the agent carries out.
pub(crate) trait Serve: Command {
    /// Does it.
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal>;
}

/// An answer before it is framed.
struct Answer {
    body: Vec<u8>,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
    refusal: Option<Refusal>,
}

impl Dispatch for Uapi {
    fn lane(&self, message: &[u8]) -> Lane {
        if Echo::of(message).command == AccessUnpin::NUMBER { Lane::Express } else { Lane::InOrder }
    }

    fn dispatch(&self, client: Rc<ClientState>, incoming: Incoming) -> LocalBoxFuture<'static, Outgoing> {
        Box::pin(async move {
            let echo = Echo::of(&incoming.message);
            let line = Line::begin();
            let work = answer(Rc::clone(&client), incoming).boxed_local();
            let work = async {
                let answered = caught("a request", work).await;
                note(|operation| operation.end(outcome(&answered)));
                answered
            };
            let (answered, rest) = match client.request(Box::pin(work)).await {
                Ended::Done(answered) => (answered, None),
                Ended::Late { command, refusal, rest } => {
                    let rest = Rest(Box::pin(rest.map(drop)));
                    (Ok((command.unwrap_or(UNKNOWN), Err(refusal))), Some(rest))
                }
            };
            let (command, result) = answered.unwrap_or_else(|refusal| (UNKNOWN, Err(refusal)));
            let refusal = result.as_ref().map_or_else(Some, |answer| answer.refusal.as_ref());
            line.end(&client, command, refusal);
            if let Some(refusal) = refusal {
                client.note_refusal(command, refusal);
            }
            let outgoing = match result {
                Ok(answer) => written(echo, answer),
                Err(refusal) => refused(echo, &refusal),
            };
            Outgoing { rest, ..outgoing }
        })
    }

    fn refuse(&self, client: &ClientState, message: &[u8], refusal: &Refusal) -> Outgoing {
        Line::begin().end(client, UNREAD, Some(refusal));
        client.note_refusal(UNREAD, refusal);
        refused(Echo::of(message), refusal)
    }
}

/// How a request ended, in a word.
fn outcome(answered: &Result<(&'static str, Result<Answer, Refusal>), Refusal>) -> &'static str {
    let refusal = match answered {
        Err(refusal) | Ok((_, Err(refusal))) => Some(refusal),
        Ok((_, Ok(answer))) => answer.refusal.as_ref(),
    };
    refusal.map_or(OK, Coded::code)
}

/// Finds the command and runs it; tells its name, too.
async fn answer(client: Rc<ClientState>, incoming: Incoming) -> (&'static str, Result<Answer, Refusal>) {
    let Incoming { message, fds, loss, sender } = incoming;
    if let Err(refusal) = whole(loss) {
        return (UNKNOWN, Err(refusal));
    }
    let request = match Request::decode(&message) {
        Ok(request) => request,
        Err(error) => return (UNKNOWN, Err(Refusal::of(&error))),
    };
    client.reap_descriptors().await;
    let call = Call { client: &client, payload: &[], fds, sender };
    carry_out(request, call).await
}

/// Runs the command of a request if it is one of those listed.
macro_rules! run_listed {
    ($request:ident, $call:ident, [$($command:ident),* $(,)?], else $other:expr) => {
        match $request.echo.command {
            $( $command::NUMBER => run::<$command>($request.argument, $call).await, )*
            _ => $other,
        }
    };
}

async fn carry_out(request: Request<'_>, call: Call<'_>) -> (&'static str, Result<Answer, Refusal>) {
    run_listed!(
        request,
        call,
        [
            Destroy,
            IoasAlloc,
            IoasAllowIovas,
            IoasIovaRanges,
            IoasCopy,
            IoasMap,
            IoasMapFile,
            IoasUnmap,
            IoasNoiommuGetPa,
            DeviceCreate,
            DeviceAttach,
            DeviceReplace,
            IoasMapFiles,
            IoasUnmapRanges,
            GetHwInfo,
            IoasChangeProcess,
            IommuOption,
            HwptAlloc,
            HwptSetDirtyTracking,
            HwptGetDirtyBitmap,
            HwptInvalidate,
            ViommuAlloc,
            VdeviceAlloc,
            FaultQueueAlloc,
            VeventqAlloc,
            HwQueueAlloc,
            DeviceDetach,
            DomainExport,
            DomainFaults,
            AccessCreate,
            AccessAttach,
            AccessReplace,
            AccessDetach,
            AccessPin,
            AccessUnpin,
            AccessRw,
            ChannelOpen,
            MemoryServe,
            RegionOpen,
        ],
        else carry_out_for_a_container(request, call).await
    )
}

/// The calls of a VFIO container, and the test command where there is mock hardware.
async fn carry_out_for_a_container(
    request: Request<'_>,
    call: Call<'_>,
) -> (&'static str, Result<Answer, Refusal>) {
    run_listed!(
        request,
        call,
        [VfioIoas, VfioCheckExtension, VfioSetIommu, VfioGetInfo, VfioMapDma, VfioUnmapDma],
        else match request.echo.command {
            TestCmd::NUMBER if call.client.mock_hardware().is_some() => {
                run::<TestCmd>(request.argument, call).await
            }
            other => (UNKNOWN, Err(unknown_command(other))),
        }
    )
}

fn whole(loss: Loss) -> Result<(), Refusal> {
    let (errno, code, text) = match loss {
        Loss::None => return Ok(()),
        Loss::Bytes => (Errno::MSGSIZE, "message-too-long", "the message is longer than 64 KiB"),
        Loss::Descriptors => (
            Errno::TOOMANYREFS,
            "too-many-descriptors",
            "the message has more descriptors than any command takes",
        ),
    };
    Err(Refusal::new(errno, code, text))
}

fn unknown_command(number: u32) -> Refusal {
    Refusal::new(Errno::NOTTY, "command-unknown", format!("there is no command {number:#x} here"))
}

async fn run<C: Serve>(argument: Argument<'_>, call: Call<'_>) -> (&'static str, Result<Answer, Refusal>) {
    note(|operation| operation.note_command(C::NAME));
    (C::NAME, run_decoded::<C>(argument, call).await)
}

async fn run_decoded<C: Serve>(argument: Argument<'_>, call: Call<'_>) -> Result<Answer, Refusal> {
    let decoded: Decoded<'_, C> = argument.decode().map_err(|error| Refusal::of(&error))?;
    let call = Call { payload: decoded.payload, ..call };
    let Done { value, payload, fds, refusal } = decoded.value.serve(call).await?;
    let body = value.map(|value| decoded.reply_body(&value)).unwrap_or_default();
    Ok(Answer { body, payload, fds, refusal })
}

fn written(echo: Echo, Answer { body, payload, fds, refusal }: Answer) -> Outgoing {
    let text = refusal.as_ref().map(Refusal::to_string).unwrap_or_default();
    let refused =
        refusal.as_ref().map(|refusal| Reply::refused(echo, refusal.errno(), refusal.code(), &text));
    let head = refused.unwrap_or_else(|| Reply::done(echo, &[], &[]));
    framed(&Reply { body: &body, payload: &payload, ..head }, fds)
}

fn refused(echo: Echo, refusal: &Refusal) -> Outgoing {
    let text = refusal.to_string();
    framed(&Reply::refused(echo, refusal.errno(), refusal.code(), &text), Vec::new())
}

fn framed(reply: &Reply<'_>, fds: Vec<OwnedFd>) -> Outgoing {
    let message = reply.encode().or_else(|error| {
        tracing::error!(%error, "an answer does not fit into a frame");
        Reply::refused(reply.echo, error.errno(), error.code(), "the answer does not fit into a frame")
            .encode()
    });
    Outgoing { message: message.unwrap_or_default(), fds, rest: None }
}

/// Refuses any flag that is not in `known`.
fn check_flags(command: &'static str, flags: u32, known: u32) -> Result<(), Refusal> {
    match flags & !known {
        0 => Ok(()),
        unknown => {
            let text = format!("{command} does not know the flags {unknown:#x}: clear them");
            Err(Refusal::new(Errno::OPNOTSUPP, "flags-unknown", text))
        }
    }
}

/// Refuses a reserved field that is not zero.
fn check_reserved(command: &'static str, reserved: u32) -> Result<(), Refusal> {
    if reserved == 0 {
        return Ok(());
    }
    let text = format!("{command} has {reserved:#x} in a reserved field: clear it");
    Err(Refusal::new(Errno::OPNOTSUPP, "reserved-not-zero", text))
}

/// Refuses descriptors where none are taken.
fn check_no_fds(command: &'static str, fds: &[ClientFd]) -> Result<(), Refusal> {
    if fds.is_empty() {
        return Ok(());
    }
    let text = format!("{command} takes no descriptors, the message has {}", fds.len());
    Err(Refusal::new(Errno::INVAL, "surplus-descriptors", text))
}
