//! `docs/protocol.md` says what the code does: its tables and examples are made from the declarations.
//!
//! `IOASD_BLESS=1 cargo test -p ioasd-client --test protocol_page` rewrites the made parts.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::fmt::Write as _;
use std::fs;

use ioasd_client::formats::FormatId;
use ioasd_client::ids::{AccessId, IoasId};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::channels::{self, ChannelOpen, Notice};
use ioasd_client::wire::command::{Argument, ArgumentError, Command, FieldPlace, Visitor, encode};
use ioasd_client::wire::events;
use ioasd_client::wire::frame::{Echo, FrameError, Reply, Request, Tag};
use ioasd_client::wire::own::{
    self, ACCESS_MAY_PIN, ACCESS_NOTICES, ACCESS_WRITE, ARRAY_IN_MEMFD, AccessCreate, DEVICE_OWN_IOMMU,
    HWPT_DATA_SOFTWARE,
};
use ioasd_client::wire::record::{self, Declared, RecordVisitor};
use ioasd_client::wire::uapi::{
    self, HWPT_DATA_NONE, HWPT_DIRTY_TRACKING, HWPT_FAULT_ID_VALID, HWPT_NEST_PARENT, HWPT_PASID, IoasAlloc,
    IoasMapFile, IoasUnmap, MAP_FIXED_IOVA, MAP_READABLE, MAP_WRITEABLE, OPTION_GET, OPTION_HUGE_PAGES,
    OPTION_RLIMIT_MODE, OPTION_SET,
};
use rustix::io::Errno;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");

/// A made part: the marker it stands behind, and its text.
type Part = (&'static str, String);

fn parts() -> Vec<Part> {
    vec![
        ("uapi commands", tables(uapi::visit_all::<Tables>)),
        ("own commands", tables(own::visit_all::<Tables>)),
        ("channel commands", tables(channels::visit_all::<Tables>)),
        ("event commands", tables(events::visit_all::<Tables>)),
        ("records", tables(record::visit_all::<Tables>)),
        ("flags", flags()),
        ("formats", formats()),
        ("frame codes", codes()),
        ("examples", examples()),
    ]
}

/// The page with all made parts as they should be.
fn made(page: &str) -> String {
    parts().into_iter().fold(page.to_owned(), |page, (name, text)| {
        let (begin, end) = (format!("<!-- made: {name} -->\n"), "<!-- made to here -->\n");
        let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("the page lacks {begin}"));
        let (_, behind) = rest.split_once(end).unwrap();
        format!("{before}{begin}{text}{end}{behind}")
    })
}

#[test]
fn the_page_says_what_the_code_does() {
    let page = fs::read_to_string(PAGE).unwrap();
    let wanted = made(&page);
    if std::env::var_os("IOASD_BLESS").is_some() {
        fs::write(PAGE, &wanted).unwrap();
        return;
    }
    let differing = page.lines().zip(wanted.lines()).find(|(is, wanted)| is != wanted);
    assert!(page == wanted, "bless docs/protocol.md; first difference: {differing:?}");
}

struct Tables(String);

impl Visitor for Tables {
    fn visit<C: Command>(&mut self) {
        let sizes = if C::MIN == C::SIZE {
            format!("size {}", C::SIZE)
        } else {
            format!("size {}, at least {}", C::SIZE, C::MIN)
        };
        write!(self.0, "\n**{}** {:#x}, {sizes}. {}\n\n", C::NAME, C::NUMBER, plain(C::NOTE)).unwrap();
        self.rows(&[FieldPlace { name: "size", offset: 0, bytes: 4, note: "" }]);
        C::FIELDS.iter().for_each(|field| self.row(field));
    }
}

impl RecordVisitor for Tables {
    fn visit<R: Declared>(&mut self) {
        write!(self.0, "\n**{}**, {} bytes. {}\n\n", R::NAME, R::BYTES, plain(R::NOTE)).unwrap();
        self.rows(R::FIELDS);
    }
}

impl Tables {
    fn rows(&mut self, fields: &[FieldPlace]) {
        self.0.push_str("| offset | bytes | field | meaning |\n|---|---|---|---|\n");
        fields.iter().for_each(|field| self.row(field));
    }

    fn row(&mut self, FieldPlace { name, offset, bytes, note }: &FieldPlace) {
        writeln!(self.0, "| {offset} | {bytes} | `{name}` | {} |", plain(note)).unwrap();
    }
}

fn tables(visit_all: fn(&mut Tables)) -> String {
    let mut tables = Tables(String::new());
    visit_all(&mut tables);
    tables.0 + "\n"
}

/// Documentation without links, in one line.
fn plain(note: &str) -> String {
    let words = note.split_whitespace().collect::<Vec<_>>().join(" ");
    let without_targets =
        words.split("](").enumerate().map(|(part, text)| match (part, text.split_once(')')) {
            (1.., Some((_, behind))) => format!("]{behind}"),
            _ => text.to_owned(),
        });
    let text: String = without_targets.collect();
    text.replace("[`", "`").replace("`]", "`").replace("super::record::", "").replace("super::own::", "")
}

fn flags() -> String {
    let rows = [
        ("IOAS_MAP, IOAS_MAP_FILE, IOAS_COPY", "MAP_FIXED_IOVA", MAP_FIXED_IOVA),
        ("the same", "MAP_WRITEABLE", MAP_WRITEABLE),
        ("the same", "MAP_READABLE", MAP_READABLE),
        ("OPTION, `option_id`", "OPTION_RLIMIT_MODE", OPTION_RLIMIT_MODE),
        ("the same", "OPTION_HUGE_PAGES", OPTION_HUGE_PAGES),
        ("OPTION, `op`", "OPTION_SET", OPTION_SET.into()),
        ("the same", "OPTION_GET", OPTION_GET.into()),
        ("HWPT_ALLOC, `flags`", "HWPT_NEST_PARENT", HWPT_NEST_PARENT),
        ("the same", "HWPT_DIRTY_TRACKING", HWPT_DIRTY_TRACKING),
        ("the same", "HWPT_FAULT_ID_VALID", HWPT_FAULT_ID_VALID),
        ("the same", "HWPT_PASID", HWPT_PASID),
        ("HWPT_ALLOC, `data_type`", "HWPT_DATA_NONE", HWPT_DATA_NONE),
        ("the same", "HWPT_DATA_SOFTWARE", HWPT_DATA_SOFTWARE),
        ("IOAS_MAP_FILES, IOAS_UNMAP_RANGES", "ARRAY_IN_MEMFD", ARRAY_IN_MEMFD),
        ("DEVICE_CREATE", "DEVICE_OWN_IOMMU", DEVICE_OWN_IOMMU),
        ("ACCESS_CREATE", "ACCESS_MAY_PIN", ACCESS_MAY_PIN),
        ("ACCESS_CREATE", "ACCESS_NOTICES", ACCESS_NOTICES),
        ("ACCESS_PIN, ACCESS_RW", "ACCESS_WRITE", ACCESS_WRITE),
    ];
    let head = "| commands | flag | value |\n|---|---|---|\n".to_owned();
    rows.iter()
        .fold(head, |text, (commands, name, value)| format!("{text}| {commands} | `{name}` | {value} |\n"))
}

fn formats() -> String {
    let head = "| number | format |\n|---|---|\n".to_owned();
    FormatId::ALL
        .iter()
        .fold(head, |text, format| format!("{text}| {} | `{}` |\n", format.number(), format.name()))
}

fn codes() -> String {
    let frame = [
        FrameError::Short { found: 23, wanted: 24 },
        FrameError::Magic { found: 0 },
        FrameError::Version { found: 2 },
        FrameError::Flags { found: 1 },
        FrameError::Length { declared: 27, found: 28 },
    ];
    let argument = [
        ArgumentError::Unreadable { size: 40, present: 12 },
        ArgumentError::TooSmall { command: "IOAS_ALLOC", min: 12, size: 8 },
        ArgumentError::UnknownTail { command: "IOAS_ALLOC", known: 12, offset: 15 },
    ];
    let frames = frame.iter().map(|error| (error.errno(), error.code(), error.to_string()));
    let arguments = argument.iter().map(|error| (error.errno(), error.code(), error.to_string()));
    let head = "| errno | code | for instance |\n|---|---|---|\n".to_owned();
    frames.chain(arguments).fold(head, |text, (errno, code, example)| {
        format!("{text}| {} | `{code}` | {example} |\n", errno.raw_os_error())
    })
}

fn request<C: Command>(tag: u64, value: &C) -> Vec<u8> {
    let argument = encode(value);
    let echo = Echo { command: C::NUMBER, tag: Tag(tag) };
    Request { echo, argument: Argument::new(&argument) }.encode().unwrap()
}

fn done<C: Command>(tag: u64, value: &C) -> Vec<u8> {
    let echo = Echo { command: C::NUMBER, tag: Tag(tag) };
    Reply::done(echo, &encode(value), &[]).encode().unwrap()
}

/// Bytes as people read them, sixteen a line.
fn dump(bytes: &[u8]) -> String {
    let line = |(index, chunk): (usize, &[u8])| {
        let hex: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            chunk.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        format!("{:04x}  {:<47}  {text}\n", index * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

fn examples() -> String {
    let map = IoasMapFile {
        flags: MAP_READABLE | MAP_WRITEABLE | MAP_FIXED_IOVA,
        ioas_id: IoasId::new(1),
        fd: 0,
        start: ByteLen::new(0),
        length: ByteLen::new(0x4000),
        iova: Iova::new(0x10_0000),
    };
    let unmap = IoasUnmap { ioas_id: IoasId::new(1), iova: Iova::new(0), length: ByteLen::new(u64::MAX) };
    let create = AccessCreate {
        flags: ACCESS_MAY_PIN | ACCESS_NOTICES,
        ioas_id: IoasId::new(1),
        out_access_id: AccessId::new(0),
    };
    let notice = Notice {
        access_id: AccessId::new(2),
        iova: Iova::new(0x10_0000),
        last: Iova::new(0x10_3fff),
        ..Notice::default()
    };
    let refused = Echo { command: IoasUnmap::NUMBER, tag: Tag(4) };
    let refused = Reply::refused(refused, Errno::NOENT, "nothing-unmapped", "nothing is mapped there");
    let settled = Reply::done(Echo { command: Notice::NUMBER, tag: Tag(1) }, &[], &[]);
    let all = [
        ("A request: IOAS_ALLOC, tag 1", request(1, &IoasAlloc::default())),
        ("Its reply: address space 1", done(1, &IoasAlloc { flags: 0, out_ioas_id: IoasId::new(1) })),
        ("IOAS_MAP_FILE, tag 2: 16 KiB of the one descriptor of this message at 0x100000", request(2, &map)),
        ("IOAS_UNMAP of everything, tag 3", request(3, &unmap)),
        ("Its reply: 0x4000 bytes", done(3, &IoasUnmap { length: ByteLen::new(0x4000), ..unmap })),
        ("A refusal: ENOENT (2), a code of 16 bytes, a text of 23", refused.encode().unwrap()),
        ("CHANNEL_OPEN, tag 0; the reply carries a descriptor", request(0, &ChannelOpen::default())),
        ("ACCESS_CREATE with notices, tag 5; the reply carries a descriptor", request(5, &create)),
        ("A notice, from the agent on a notice channel, tag 1", request(1, &notice)),
        ("Its answer, from the client", settled.encode().unwrap()),
    ];
    let shown = |(what, bytes): &(&str, Vec<u8>)| format!("{what}:\n\n```text\n{}```\n\n", dump(bytes));
    all.iter().map(shown).collect::<String>()
}
