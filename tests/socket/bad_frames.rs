//! Messages that no honest client sends: frames, sizes, numbers, ids, flags. The client gets its errno, others go on.

use ioasd_client::calls::AccessKind;
use ioasd_client::connection::Connection;
use ioasd_client::ids::{AccessId, DeviceId, HwptId, IoasId, ObjectId};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::FRAME_MAX;
use ioasd_client::wire::channels::{ChannelOpen, DomainFaults, Faults, MemoryServe, Notice, PinMemory};
use ioasd_client::wire::command::{Command, Visitor};
use ioasd_client::wire::frame::{Echo, REQUEST_HEADER, Tag};
use ioasd_client::wire::own::{
    AccessAttach, AccessCreate, AccessDetach, AccessPin, AccessReplace, AccessRw, AccessUnpin, DeviceAttach,
    DeviceCreate, DeviceDetach, DeviceReplace, DomainExport, IoasMapFiles, IoasUnmapRanges, WalkerFile,
    WalkerOpen,
};
use ioasd_client::wire::uapi::{
    Destroy, FaultQueueAlloc, IoasAlloc, IoasCopy, IoasMapFile, IoasUnmap, MAP_READABLE,
};
use ioasd_client::wire::{channels, own, uapi, vfio};
use rustix::io::Errno;

use crate::fixture::Agent;
use crate::memory::{Bystander, Memory, at, attach_new, map};
use crate::raw::{call_argument, call_message, refusal, request};

/// Number and size of every command whose flags and reserved fields are looked at here.
const WITH_FLAGS: [(u32, usize); 22] = [
    (Destroy::NUMBER, Destroy::SIZE),
    (IoasAlloc::NUMBER, IoasAlloc::SIZE),
    (IoasCopy::NUMBER, IoasCopy::SIZE),
    (IoasMapFile::NUMBER, IoasMapFile::SIZE),
    (IoasUnmap::NUMBER, IoasUnmap::SIZE),
    (DeviceCreate::NUMBER, DeviceCreate::SIZE),
    (DeviceAttach::NUMBER, DeviceAttach::SIZE),
    (DeviceDetach::NUMBER, DeviceDetach::SIZE),
    (DomainExport::NUMBER, DomainExport::SIZE),
    (DomainFaults::NUMBER, DomainFaults::SIZE),
    (AccessCreate::NUMBER, AccessCreate::SIZE),
    (AccessPin::NUMBER, AccessPin::SIZE),
    (AccessUnpin::NUMBER, AccessUnpin::SIZE),
    (AccessRw::NUMBER, AccessRw::SIZE),
    (DeviceReplace::NUMBER, DeviceReplace::SIZE),
    (AccessAttach::NUMBER, AccessAttach::SIZE),
    (AccessReplace::NUMBER, AccessReplace::SIZE),
    (AccessDetach::NUMBER, AccessDetach::SIZE),
    (IoasMapFiles::NUMBER, IoasMapFiles::SIZE),
    (IoasUnmapRanges::NUMBER, IoasUnmapRanges::SIZE),
    (ChannelOpen::NUMBER, ChannelOpen::SIZE),
    (MemoryServe::NUMBER, MemoryServe::SIZE),
];

/// Commands that are declared and not served on a channel.
const NOT_SERVED: [u32; 5] =
    [WalkerOpen::NUMBER, WalkerFile::NUMBER, Notice::NUMBER, PinMemory::NUMBER, Faults::NUMBER];

/// Commands that give descriptors to whoever asks.
const GIVING: [u32; 3] = [ChannelOpen::NUMBER, MemoryServe::NUMBER, FaultQueueAlloc::NUMBER];

/// A command that the agent serves on a channel.
struct Served {
    number: u32,
    min: usize,
    size: usize,
}

struct All(Vec<Served>);

impl Visitor for All {
    fn visit<C: Command>(&mut self) {
        if !NOT_SERVED.contains(&C::NUMBER) {
            self.0.push(Served { number: C::NUMBER, min: C::MIN, size: C::SIZE });
        }
    }
}

/// All of them.
fn served() -> Vec<Served> {
    let mut all = All(Vec::new());
    uapi::visit_all(&mut all);
    own::visit_all(&mut all);
    channels::visit_all(&mut all);
    vfio::visit_all(&mut all);
    all.0
}

/// `length` bytes, zero behind a `size` field.
fn argument(size: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length.max(4)];
    bytes[..4].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
    bytes.truncate(length);
    bytes
}

#[test]
fn every_command_keeps_the_size_rules() {
    let agent = Agent::start();
    let (mut client, mut bystander) = (agent.connect(), Bystander::new(&agent));
    for Served { number, min, size } in served() {
        let mut refused = |argument: &[u8]| call_argument(&mut client, number, argument).refusal();
        let mut tail = argument(size + 9, size + 9);
        tail[size + 8] = 1;
        let cases = [
            ("too small", argument(min - 1, min - 1), Errno::INVAL),
            ("too small, though more follows", argument(4, size), Errno::INVAL),
            ("zero", argument(0, size), Errno::INVAL),
            ("too small and cut", argument(min - 1, 4), Errno::INVAL),
            ("a tail that is not zero", tail, Errno::TOOBIG),
            ("cut by a byte", argument(size, size - 1), Errno::FAULT),
            ("cut in a zero tail", argument(size + 100, size + 50), Errno::FAULT),
            ("the largest size", argument(u32::MAX as usize, size), Errno::FAULT),
            ("half a size field", argument(size, 2), Errno::FAULT),
            ("nothing", vec![], Errno::FAULT),
        ];
        for (what, argument, errno) in cases {
            assert_eq!(refused(&argument), Some(errno), "{number:#x}, {what}");
            bystander.goes_on();
        }
    }
    assert_eq!(client.ioas_alloc().unwrap(), IoasId::new(1), "a refused command made an object");
}

#[test]
fn a_zero_tail_changes_nothing_and_is_not_copied_back() {
    let agent = Agent::start();
    for Served { number, size, .. } in served().into_iter().filter(|it| !GIVING.contains(&it.number)) {
        let exact = call_argument(&mut agent.connect(), number, &argument(size, size));
        let longer = call_argument(&mut agent.connect(), number, &argument(size + 64, size + 64));
        assert_eq!(exact.errno, longer.errno, "{number:#x}");
        assert_eq!(exact.body.len(), longer.body.len(), "{number:#x}");
        assert_eq!(exact.body.get(4..), longer.body.get(4..), "{number:#x}");
    }
}

#[test]
fn numbers_that_are_not_served_are_no_commands_whatever_their_argument() {
    let agent = Agent::start();
    let (mut client, mut bystander) = (agent.connect(), Bystander::new(&agent));
    let served: Vec<u32> = served().iter().map(|command| command.number).collect();
    assert!((0x3b80..=0x3b95).all(|number| served.contains(&number)), "the table has a hole");
    let outside = [0, 0x80, 0x3b00, 0x3b64, 0x3b7f, 0x3b96, 0x3ba0, 0x3bbf, WalkerOpen::NUMBER, 0x3bdf];
    let others = [0x1_3b81, 0xc000_3b81, u32::MAX];
    for number in outside.into_iter().chain(others) {
        let answer = call_argument(&mut client, number, &argument(64, 64));
        assert_eq!(answer.refusal(), Some(Errno::NOTTY), "{number:#x}");
        assert_eq!(answer.echo, Echo { command: number, tag: Tag(7) });
        assert_eq!(call_argument(&mut client, number, &[]).refusal(), Some(Errno::NOTTY), "{number:#x}");
        bystander.goes_on();
    }
}

#[test]
fn broken_frames_are_answered_as_far_as_they_can_be_read() {
    let agent = Agent::start();
    let (mut client, mut bystander) = (agent.connect(), Bystander::new(&agent));
    let whole = request(IoasAlloc::NUMBER, 0x1122_3344_5566_7788, &argument(12, 12));
    let with = |at: usize, byte: u8| {
        let mut broken = whole.clone();
        broken[at] = byte;
        broken
    };
    let longer = [whole.clone(), vec![0]].concat();
    let cases = [
        ("empty", vec![]),
        ("one byte", vec![b'I']),
        ("a header cut", whole[..REQUEST_HEADER - 1].to_vec()),
        ("another magic", with(0, b'X')),
        ("another version", with(16, 2)),
        ("flags", with(18, 1)),
        ("a length too large", with(20, whole[20] + 1)),
        ("a length too small", with(20, whole[20] - 1)),
        ("a byte more than the length", longer),
        ("a byte less than the length", whole[..whole.len() - 1].to_vec()),
        ("random bytes", vec![0xa5; 4000]),
    ];
    for (what, message) in cases {
        let answer = call_message(&mut client, &message, &[]);
        assert_eq!(answer.refusal(), Some(Errno::PROTO), "{what}");
        assert_eq!(answer.echo, Echo::of(&message), "{what}");
        bystander.goes_on();
    }
    assert_eq!(call_message(&mut client, &whole, &[]).refusal(), None);
}

#[test]
fn the_longest_message_is_taken_and_one_byte_more_is_refused() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let room = FRAME_MAX - REQUEST_HEADER;
    let longest = request(IoasAlloc::NUMBER, 1, &argument(room, room));
    assert_eq!(longest.len(), FRAME_MAX);
    assert_eq!(call_message(&mut client, &longest, &[]).refusal(), None);
    let too_long = [longest, vec![0]].concat();
    assert_eq!(call_message(&mut client, &too_long, &[]).refusal(), Some(Errno::MSGSIZE));
    assert_eq!(call_message(&mut client, &[0; 2 * FRAME_MAX], &[]).refusal(), Some(Errno::MSGSIZE));
    assert_eq!(client.ioas_alloc().unwrap(), IoasId::new(2));
}

/// One object of every kind, and an id that was one.
struct Objects {
    client: Connection,
    ioas: u32,
    device: u32,
    hwpt: u32,
    access: u32,
    stale: u32,
}

impl Objects {
    fn new(agent: &Agent) -> Self {
        let mut client = agent.connect();
        let ioas = client.ioas_alloc().unwrap();
        let (device, hwpt) = attach_new(&mut client, ioas, ioasd_client::calls::Iommu::Own);
        let access = client.access_create(ioas, AccessKind::Pinning).unwrap();
        let stale = client.ioas_alloc().unwrap();
        client.destroy(stale).unwrap();
        let (ioas, device, hwpt) = (ioas.get(), device.get(), hwpt.get());
        Self { client, ioas, device, hwpt, access: access.get(), stale: stale.get() }
    }

    /// Ids that name no object of a kind whose objects are `good`.
    fn wrong(&self, good: u32) -> Vec<u32> {
        let kinds = [self.ioas, self.device, self.hwpt, self.access].into_iter().filter(|id| *id != good);
        kinds.chain([0, self.stale, 99, 0x7fff_ffff, 0x8000_0000, u32::MAX]).collect()
    }

    /// A command that takes several kinds tells an object of another kind from none; the device is attached already.
    fn expect_target(&mut self, id: u32) {
        let attach =
            DeviceAttach { flags: 0, device_id: DeviceId::new(self.device), pt_id: ObjectId::new(id) };
        let expected = match id {
            id if id == self.hwpt => Errno::BUSY,
            id if id == self.device || id == self.access => Errno::INVAL,
            _ => Errno::NOENT,
        };
        assert_eq!(refusal(&mut self.client, &attach, &[]), Some(expected), "DEVICE_ATTACH to {id:#x}");
    }

    fn expect<C: Command>(&mut self, id: u32, value: C) {
        assert_eq!(refusal(&mut self.client, &value, &[]), Some(Errno::NOENT), "{}, id {id:#x}", C::NAME);
    }
}

#[test]
fn ids_of_nothing_and_of_another_kind_are_absent() {
    let agent = Agent::start();
    let (mut objects, mut bystander) = (Objects::new(&agent), Bystander::new(&agent));
    let length = ByteLen::new(0x1000);
    for id in objects.wrong(objects.ioas) {
        let ioas_id = IoasId::new(id);
        objects.expect(id, IoasMapFile { flags: MAP_READABLE, ioas_id, length, ..Default::default() });
        objects.expect(id, IoasUnmap { ioas_id, length, ..Default::default() });
        objects
            .expect(id, IoasCopy { flags: MAP_READABLE, src_ioas_id: ioas_id, length, ..Default::default() });
        objects.expect(id, AccessCreate { ioas_id, ..Default::default() });
        objects.expect_target(id);
    }
    for id in objects.wrong(objects.device) {
        let (device_id, pt_id) = (DeviceId::new(id), ObjectId::new(objects.ioas));
        objects.expect(id, DeviceAttach { flags: 0, device_id, pt_id });
        objects.expect(id, DeviceDetach { device_id, ..Default::default() });
    }
    for id in objects.wrong(objects.hwpt) {
        objects.expect(id, DomainExport { hwpt_id: HwptId::new(id), ..Default::default() });
        objects.expect(id, DomainFaults { hwpt_id: HwptId::new(id), ..Default::default() });
    }
    for id in objects.wrong(objects.access) {
        let access_id = AccessId::new(id);
        objects.expect(id, AccessPin { access_id, length, ..Default::default() });
        objects.expect(id, AccessUnpin { access_id, length, ..Default::default() });
        objects.expect(id, AccessRw { access_id, length, ..Default::default() });
    }
    for id in [0, objects.stale, 99, u32::MAX] {
        objects.expect(id, Destroy { id: ObjectId::new(id) });
    }
    bystander.goes_on();
}

#[test]
fn the_target_of_a_copy_is_looked_up_after_its_source() {
    let agent = Agent::start();
    let (mut objects, memory) = (Objects::new(&agent), Memory::new(1));
    let src_ioas_id = IoasId::new(objects.ioas);
    map(&mut objects.client, src_ioas_id, memory.whole(), at(0x1000)).unwrap();
    let (src_iova, length) = (Iova::new(0x1000), ByteLen::new(0x1000));
    for id in objects.wrong(objects.ioas) {
        let dst_ioas_id = IoasId::new(id);
        let copy = IoasCopy {
            flags: MAP_READABLE,
            dst_ioas_id,
            src_ioas_id,
            length,
            src_iova,
            ..Default::default()
        };
        objects.expect(id, copy);
    }
}

#[test]
fn unknown_flags_and_reserved_fields_are_unsupported_before_anything_else() {
    let agent = Agent::start();
    let (mut client, mut bystander) = (agent.connect(), Bystander::new(&agent));
    let mut unsupported = |number: u32, size: usize, offset: usize, value: u32| {
        let mut argument = argument(size, size);
        argument[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        let refused = call_argument(&mut client, number, &argument).refusal();
        assert_eq!(refused, Some(Errno::OPNOTSUPP), "{number:#x}, {value:#x} at {offset}");
        bystander.goes_on();
    };
    let known = |number| match number {
        IoasCopy::NUMBER | IoasMapFile::NUMBER => 7,
        AccessCreate::NUMBER => 3,
        DeviceCreate::NUMBER | AccessPin::NUMBER | AccessRw::NUMBER => 1,
        IoasMapFiles::NUMBER | IoasUnmapRanges::NUMBER => 1,
        _ => 0,
    };
    let with_flags =
        WITH_FLAGS.into_iter().filter(|(number, _)| ![Destroy::NUMBER, IoasUnmap::NUMBER].contains(number));
    for (number, size) in with_flags {
        for bit in (0..32).map(|bit| 1 << bit).filter(|bit| known(number) & bit == 0) {
            unsupported(number, size, 4, bit);
        }
    }
    let reserved = [
        DeviceDetach::NUMBER,
        DomainExport::NUMBER,
        DomainFaults::NUMBER,
        AccessPin::NUMBER,
        AccessUnpin::NUMBER,
        AccessRw::NUMBER,
        ChannelOpen::NUMBER,
    ];
    for (number, size) in WITH_FLAGS.into_iter().filter(|(number, _)| reserved.contains(number)) {
        unsupported(number, size, 12, 1);
    }
    for format in [0, 7, u32::MAX] {
        unsupported(DeviceCreate::NUMBER, DeviceCreate::SIZE, 8, format);
    }
    assert_eq!(client.ioas_alloc().unwrap(), IoasId::new(1), "a refused command made an object");
}
