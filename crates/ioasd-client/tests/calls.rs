//! The client against an agent that answers whatever a test wants, also what no honest agent would.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};

use ioasd_client::calls::{AccessKind, ExportChannel, FileSlice, Iommu, PinIntent, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::error::{CallError, ProtocolError};
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{AccessId, DeviceId, HwptId, IoasId, ObjectId};
use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission};
use ioasd_client::wire::command::{Command, Decoded};
use ioasd_client::wire::frame::{Echo, FrameError, Reply, Request, Tag};
use ioasd_client::wire::{own, uapi};
use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Bytes and descriptors of a message.
type Message = (Vec<u8>, Vec<OwnedFd>);

fn pair() -> (Connection, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    let (client, agent) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    (Connection::from_fd(client), agent)
}

fn receive(agent: &OwnedFd) -> Message {
    let mut bytes = vec![0; 65536];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let buffer = &mut [std::io::IoSliceMut::new(&mut bytes)];
    let length = recvmsg(agent, buffer, &mut control, RecvFlags::empty()).unwrap().bytes;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let rustix::net::RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(length);
    (bytes, fds)
}

fn send(agent: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(agent, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
}

/// An agent that answers one request with what `answer` makes of it.
fn agent(answer: impl FnOnce(Message) -> Message + Send + 'static) -> (Connection, JoinHandle<()>) {
    let (connection, socket) = pair();
    let thread = thread::spawn(move || {
        let (bytes, fds) = answer(receive(&socket));
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        send(&socket, &bytes, &fds);
    });
    (connection, thread)
}

/// What an honest agent makes of command `C`.
fn honest<C: Command>(
    (bytes, _): Message,
    serve: impl FnOnce(&Decoded<'_, C>, usize) -> (C, Vec<u8>),
    fds: Vec<OwnedFd>,
) -> Message {
    let request = Request::decode(&bytes).unwrap();
    assert_eq!(request.echo.command, C::NUMBER);
    let decoded = request.argument.decode::<C>().unwrap();
    let (value, payload) = serve(&decoded, fds.len());
    (Reply::done(request.echo, &decoded.reply_body(&value), &payload).encode().unwrap(), fds)
}

fn memfd(size: u64) -> OwnedFd {
    let fd = memfd_create("calls", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, size).unwrap();
    fd
}

fn range(start: u64, length: u64) -> IovaRange {
    IovaRange::from_length(Iova::new(start), ByteLen::new(length)).unwrap()
}

#[test]
fn an_address_space_comes_back_with_its_id() {
    let (mut client, agent) = agent(|message| {
        honest::<uapi::IoasAlloc>(
            message,
            |_, _| (uapi::IoasAlloc { flags: 0, out_ioas_id: IoasId::new(5) }, vec![]),
            vec![],
        )
    });
    assert_eq!(client.ioas_alloc().unwrap(), IoasId::new(5));
    agent.join().unwrap();
}

#[test]
fn map_file_passes_the_file_itself() {
    let file = memfd(0x3000);
    let inode = fstat(&file).unwrap().st_ino;
    let (mut client, agent) = agent(move |message| {
        assert_eq!(message.1.len(), 1);
        assert_eq!(fstat(&message.1[0]).unwrap().st_ino, inode);
        honest::<uapi::IoasMapFile>(
            message,
            |decoded, _| {
                let map = decoded.value;
                assert_eq!((map.flags, map.fd, map.iova), (2 | 4, 0, Iova::new(0)));
                assert_eq!((map.start, map.length), (ByteLen::new(0x1000), ByteLen::new(0x2000)));
                (uapi::IoasMapFile { iova: Iova::new(0x8000), ..map }, vec![])
            },
            vec![],
        )
    });
    let slice = FileSlice { file: file.as_fd(), offset: ByteLen::new(0x1000), length: ByteLen::new(0x2000) };
    let iova = client.map_file(IoasId::new(1), slice, Permission::ReadWrite, Placement::Any).unwrap();
    assert_eq!(iova, Iova::new(0x8000));
    agent.join().unwrap();
}

#[test]
fn flags_tell_permission_and_placement() {
    let (mut client, agent) = agent(|message| {
        honest::<uapi::IoasCopy>(
            message,
            |decoded, _| {
                assert_eq!((decoded.value.flags, decoded.value.dst_iova), (1 | 4, Iova::new(0x7000)));
                assert_eq!(
                    (decoded.value.src_ioas_id, decoded.value.dst_ioas_id),
                    (IoasId::new(1), IoasId::new(2))
                );
                (decoded.value, vec![])
            },
            vec![],
        )
    });
    let target = (IoasId::new(2), Placement::Fixed(Iova::new(0x7000)));
    let iova = client.copy((IoasId::new(1), range(0x1000, 0x1000)), target, Permission::Read).unwrap();
    assert_eq!(iova, Iova::new(0x7000));
    agent.join().unwrap();
}

#[test]
fn unmapping_everything_is_the_pair_of_the_uapi() {
    let (mut client, agent) = agent(|message| {
        honest::<uapi::IoasUnmap>(
            message,
            |decoded, _| {
                assert_eq!(
                    (decoded.value.iova, decoded.value.length),
                    (Iova::new(0), ByteLen::new(u64::MAX))
                );
                (uapi::IoasUnmap { length: ByteLen::new(0), ..decoded.value }, vec![])
            },
            vec![],
        )
    });
    assert_eq!(client.unmap_all(IoasId::new(1)).unwrap(), ByteLen::new(0));
    agent.join().unwrap();
}

#[test]
fn a_refusal_carries_errno_code_and_words() {
    let (mut client, agent) = agent(|(bytes, _)| {
        let echo = Echo::of(&bytes);
        (Reply::refused(echo, Errno::BUSY, "object-busy", "device 3 uses it").encode().unwrap(), vec![])
    });
    let error = client.destroy(ObjectId::new(1)).unwrap_err();
    assert_eq!((error.errno(), error.code()), (Errno::BUSY, Some("object-busy")));
    assert_eq!(error.to_string(), "DESTROY refused (object-busy): device 3 uses it");
    agent.join().unwrap();
}

#[test]
fn destroy_needs_no_struct_back() {
    let (mut client, agent) =
        agent(|(bytes, _)| (Reply::done(Echo::of(&bytes), &[], &[]).encode().unwrap(), vec![]));
    client.destroy(IoasId::new(1)).unwrap();
    agent.join().unwrap();
}

#[test]
fn devices_attach_detach_and_export() {
    let (mut client, thread) = agent(|message| {
        honest::<own::DeviceCreate>(
            message,
            |decoded, _| {
                assert_eq!(decoded.value.format, 1);
                (own::DeviceCreate { out_device_id: DeviceId::new(2), ..decoded.value }, vec![])
            },
            vec![],
        )
    });
    assert_eq!(client.device_create(FormatId::AmdV1, Iommu::Shared).unwrap(), DeviceId::new(2));
    thread.join().unwrap();

    let (mut client, thread) = agent(|message| {
        honest::<own::DeviceAttach>(
            message,
            |decoded, _| (own::DeviceAttach { pt_id: ObjectId::new(9), ..decoded.value }, vec![]),
            vec![],
        )
    });
    assert_eq!(client.device_attach(DeviceId::new(2), IoasId::new(1)).unwrap(), HwptId::new(9));
    thread.join().unwrap();

    let (mut client, thread) =
        agent(|message| honest::<own::DeviceDetach>(message, |decoded, _| (decoded.value, vec![]), vec![]));
    client.device_detach(DeviceId::new(2)).unwrap();
    thread.join().unwrap();
}

#[test]
fn an_export_channel_opens_into_its_parts() {
    let answer = |windows: usize, fds: usize, files: u32| {
        move |message| {
            let open = own::WalkerOpen { flags: 0, out_windows: 2, out_files: files };
            let fds = (0..fds).map(|_| memfd(1)).collect();
            honest::<own::WalkerOpen>(message, |_, _| (open, vec![7; windows * 32]), fds)
        }
    };
    let open = |answer| {
        let (connection, agent) = agent(answer);
        let parts = ExportChannel::from_fd(connection.into_fd()).open();
        agent.join().unwrap();
        parts
    };
    let parts = open(answer(2, 253, 251)).unwrap();
    assert_eq!((parts.windows.len(), parts.files.len()), (64, 251));
    assert!(matches!(
        open(answer(1, 3, 1)),
        Err(CallError::Protocol(ProtocolError::Payload { wanted: 64, .. }))
    ));
    let too_few = open(answer(2, 3, 2)).unwrap_err();
    assert!(matches!(too_few, CallError::Protocol(ProtocolError::Descriptors { wanted: 4, found: 3, .. })));
    let too_many = open(answer(2, 3, u32::MAX)).unwrap_err();
    assert!(matches!(
        too_many,
        CallError::Protocol(ProtocolError::Descriptors { wanted: 0x1_0000_0001, .. })
    ));
}

#[test]
fn an_export_is_exactly_one_descriptor() {
    for fds in 0..3 {
        let (mut client, agent) = agent(move |message| {
            let fds = (0..fds).map(|_| memfd(1)).collect();
            honest::<own::DomainExport>(message, |decoded, _| (decoded.value, vec![]), fds)
        });
        assert_eq!(client.domain_export(HwptId::new(1)).is_ok(), fds == 1, "{fds} descriptors");
        agent.join().unwrap();
    }
}

#[test]
fn an_access_carries_bytes_both_ways() {
    let (mut client, thread) = agent(|message| {
        honest::<own::AccessRw>(
            message,
            |decoded, _| {
                (decoded.value, (0..decoded.value.length.get()).map(|at| at.to_le_bytes()[0]).collect())
            },
            vec![],
        )
    });
    let mut bytes = [0; 4];
    client.access_read(AccessId::new(1), Iova::new(0x1000), &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1, 2, 3]);
    thread.join().unwrap();

    let (mut client, thread) = agent(|message| {
        honest::<own::AccessRw>(
            message,
            |decoded, _| {
                assert_eq!((decoded.value.flags, decoded.payload), (1, &[9, 8][..]));
                (decoded.value, vec![])
            },
            vec![],
        )
    });
    client.access_write(AccessId::new(1), Iova::new(0x1000), &[9, 8]).unwrap();
    thread.join().unwrap();
}

#[test]
fn accesses_pin_and_unpin_the_range_they_name() {
    let (mut client, thread) = agent(|message| {
        honest::<own::AccessCreate>(
            message,
            |decoded, _| {
                assert_eq!(decoded.value.flags, 1);
                (own::AccessCreate { out_access_id: AccessId::new(4), ..decoded.value }, vec![])
            },
            vec![],
        )
    });
    assert_eq!(client.access_create(IoasId::new(1), AccessKind::Pinning).unwrap(), AccessId::new(4));
    thread.join().unwrap();

    let (mut client, thread) = agent(|message| {
        honest::<own::AccessPin>(
            message,
            |decoded, _| {
                let pin = decoded.value;
                assert_eq!((pin.flags, pin.iova, pin.length), (1, Iova::new(0x1000), ByteLen::new(0x2000)));
                (pin, vec![])
            },
            vec![],
        )
    });
    client.access_pin(AccessId::new(4), range(0x1000, 0x2000), PinIntent::Write).unwrap();
    thread.join().unwrap();

    let (mut client, thread) =
        agent(|message| honest::<own::AccessUnpin>(message, |decoded, _| (decoded.value, vec![]), vec![]));
    client.access_unpin(AccessId::new(4), range(0x1000, 0x2000)).unwrap();
    thread.join().unwrap();
}

/// What `ioas_alloc` makes of a raw answer.
fn alloc_answered(answer: impl FnOnce(Echo) -> Message + Send + 'static) -> ProtocolError {
    let (mut client, agent) = agent(|(bytes, _)| answer(Echo::of(&bytes)));
    let error = client.ioas_alloc().unwrap_err();
    agent.join().unwrap();
    match error {
        CallError::Protocol(error) => error,
        other => panic!("not a protocol error: {other}"),
    }
}

#[test]
fn what_no_honest_agent_sends_is_a_protocol_error() {
    let other_tag = alloc_answered(|echo| {
        let echo = Echo { tag: Tag(echo.tag.0 + 1), ..echo };
        (Reply::done(echo, &[0; 12], &[]).encode().unwrap(), vec![])
    });
    assert!(matches!(other_tag, ProtocolError::OtherRequest { command: 0x3b81, tag: 2 }));
    let no_body = alloc_answered(|echo| (Reply::done(echo, &[], &[]).encode().unwrap(), vec![]));
    assert!(matches!(no_body, ProtocolError::Body { wanted: 12, found: 0, .. }));
    let unasked = alloc_answered(|echo| (Reply::done(echo, &[0; 12], &[]).encode().unwrap(), vec![memfd(1)]));
    assert!(matches!(unasked, ProtocolError::Descriptors { wanted: 0, found: 1, .. }));
    let short = alloc_answered(|_| (vec![0; 5], vec![]));
    assert_eq!(short, ProtocolError::Frame(FrameError::Short { found: 5, wanted: 32 }));
    let long = alloc_answered(|_| (vec![0; 65537], vec![]));
    assert!(matches!(long, ProtocolError::Frame(FrameError::Long { .. })));
}

#[test]
fn a_closed_connection_is_told_apart_from_an_answer() {
    let (mut client, socket) = pair();
    drop(socket);
    assert!(matches!(client.ioas_alloc(), Err(CallError::Protocol(ProtocolError::Closed))));
    let (mut client, socket) = pair();
    let thread = thread::spawn(move || drop(receive(&socket)));
    assert!(matches!(client.ioas_alloc(), Err(CallError::Protocol(ProtocolError::Closed))));
    thread.join().unwrap();
}

#[test]
fn nobody_at_the_path_is_an_error_of_the_socket() {
    let error = Connection::connect(std::path::Path::new("/nonexistent/ioasd.sock")).unwrap_err();
    assert_eq!(error.errno(), Errno::NOENT);
}

#[test]
fn raw_bytes_reach_the_agent_as_they_are() {
    let (mut client, agent) = agent(|(bytes, fds)| (bytes, fds));
    let file = memfd(1);
    let echoed = client.call_bytes(b"not a frame", &[file.as_fd(), file.as_fd()]).unwrap();
    assert_eq!((echoed.bytes.as_slice(), echoed.fds.len()), (&b"not a frame"[..], 2));
    agent.join().unwrap();
}
