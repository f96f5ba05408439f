//! What takes long: listed while it lasts, with how far it has come and what it waits for; cancelled where it can be undone.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use ioasd::actors::operation::{Operation, Undoable};
use ioasd_client::calls::{ExportChannel, FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{HwptId, IoasId};
use ioasd_client::units::{ByteLen, Iova, Permission};
use ioasd_client::walker::Walker;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::ctl::{ctl_at, said};
use crate::fixture::{Agent, attach, eventually, map, memory, range};
use crate::http::{Answer, Door};
use crate::stuck::{slow_down, stick};

/// Pages of what takes long; each is a batch of its own.
const PAGES: usize = 1024;
const BYTES: u64 = (PAGES as u64) << 12;

/// Where it goes.
const PLACE: u64 = 0x4000_0000;

/// So many domains that the last one lives on the other arbiter.
const DOMAINS: usize = 6;

/// A client at home on arbiter 0, with a page mapped at 0x1000 into [`DOMAINS`] domains.
fn client(agent: &Agent) -> (Connection, IoasId) {
    let (mut client, file) = (agent.connect(), memory(1));
    let ioas = client.ioas_alloc().unwrap();
    for _ in 0..DOMAINS {
        attach(&mut client, ioas);
    }
    map(&mut client, ioas, &file, (0, 0x1000), 0x1000);
    (client, ioas)
}

fn operations(agent: &Agent) -> Vec<Value> {
    agent.socket().json("/v1/operations")["items"].as_array().unwrap().clone()
}

/// The one operation there is, once it is as wanted.
#[track_caller]
fn operation(agent: &Agent, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = || operations(agent).into_iter().find(|operation| wanted(operation));
    assert!(eventually(|| found().is_some()), "{:?}", operations(agent));
    found().unwrap()
}

fn done(operation: &Value) -> u64 {
    operation["done_bytes"].as_u64().unwrap()
}

fn cancel(door: &Door, operation: &Value) -> Answer {
    door.send("DELETE", &format!("/v1/operations/{}", operation["id"]), &[("Host", "localhost")], "")
}

/// Lets what is stuck go on, slowly, until some of it is done.
fn a_part_of_it(agent: &Agent, stuck: Sender<()>) -> (Value, Sender<()>) {
    let slow = slow_down(agent, 1);
    drop(stuck);
    (operation(agent, |operation| done(operation) > 0), slow)
}

/// Cancels it; what came of it.
fn cancelled(agent: &Agent, operation: &Value) -> Value {
    let answer = cancel(&agent.socket(), operation);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        agent.socket().get("/v1/events?limit=1000").body.contains("is cancelled: said process"),
        "nobody is told"
    );
    answer.json()
}

/// Work of a client on a thread of its own, which gives the client back.
type Working<T> = JoinHandle<(Connection, Result<T, CallError>)>;

fn map_long(mut client: Connection, ioas: IoasId) -> Working<Iova> {
    thread::spawn(move || {
        let file = memory(PAGES);
        let slice = FileSlice {
            file: std::os::fd::AsFd::as_fd(&file),
            offset: ByteLen::new(0),
            length: ByteLen::new(BYTES),
        };
        let place = Placement::Fixed(Iova::new(PLACE));
        let mapped = client.map_file(ioas, slice, Permission::ReadWrite, place);
        (client, mapped)
    })
}

/// Asserts that a request was cancelled; what its client was told.
#[track_caller]
fn assert_cancelled<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    let Err(CallError::Refused { errno, code, text, .. }) = result else { panic!("{result:?}") };
    assert_eq!((errno, &*code), (Errno::CANCELED, "operation-cancelled"), "{text}");
    text
}

/// Bytes pinned, billed and mapped into all domains.
fn held(agent: &Agent) -> [u64; 3] {
    let status = agent.socket().json("/v1/status");
    ["pinned_bytes", "charged_bytes", "mapped_bytes"].map(|name| status[name].as_u64().unwrap())
}

const PAGE_HELD: [u64; 3] = [0x1000, 0x1000, 0x1000 * DOMAINS as u64];

#[test]
fn a_map_that_is_cancelled_in_the_middle_leaves_no_trace_and_its_client_goes_on() {
    let agent = Agent::with_batches_of(1);
    let (client, ioas) = client(&agent);
    let stuck = stick(&agent, 1);
    let mapping = map_long(client, ioas);
    let begun = operation(&agent, |operation| operation["waits_for"] == "tables");
    let expected = json!({ "context": 1, "command": "IOAS_MAP_FILE", "object": null, "ioas": 1,
        "start": format!("{PLACE:#x}"), "last": format!("{:#x}", PLACE + BYTES - 1), "doing": "filling",
        "waits_for": "tables", "trouble": null, "done_bytes": 0, "total_bytes": BYTES, "answered": false,
        "cancellable": true, "fixed": null });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&begun[name], value, "{name}");
    }
    let (half, slow) = a_part_of_it(&agent, stuck);
    assert!(done(&half) > 0 && done(&half) < BYTES && half["id"] == begun["id"], "{half}");
    assert_eq!(agent.socket().json(&format!("/v1/operations/{}", half["id"]))["command"], "IOAS_MAP_FILE");
    let answer = cancelled(&agent, &half);
    let expected = json!({ "operation": half["id"], "context": 1, "command": "IOAS_MAP_FILE", "over": true,
        "outcome": "operation-cancelled" });
    assert_eq!(answer, expected);
    drop(slow);
    let (mut client, mapped) = mapping.join().unwrap();
    let text = assert_cancelled(mapped);
    let events = agent.socket().json("/v1/events?limit=1000");
    let refused =
        events["items"].as_array().unwrap().iter().find(|event| event["kind"] == "refused").unwrap();
    assert_eq!((&refused["code"], &refused["text"]), (&json!("operation-cancelled"), &json!(text)));
    assert_eq!((held(&agent), operations(&agent)), (PAGE_HELD, vec![]));
    map(&mut client, ioas, memory(1), (0, 0x1000), PLACE);
    client.unmap(ioas, range(PLACE, 0x1000)).unwrap();
    client.unmap(ioas, range(0x1000, 0x1000)).unwrap();
    assert_eq!(held(&agent), [0; 3]);
}

#[test]
fn what_a_client_has_under_way_is_undone_when_it_is_gone() {
    let agent = Agent::with_batches_of(1);
    let (client, ioas) = client(&agent);
    let stuck = stick(&agent, 1);
    let mapping = map_long(client, ioas);
    operation(&agent, |operation| operation["waits_for"] == "tables");
    let (_, slow) = a_part_of_it(&agent, stuck);
    agent.socket().send("POST", "/v1/contexts/1/evict", &[("Host", "localhost")], "");
    assert!(mapping.join().unwrap().1.is_err());
    let undone = || agent.socket().get("/v1/events?limit=1000").body.contains("because its client is gone");
    assert!(eventually(undone), "{:?}", operations(&agent));
    drop(slow);
    assert!(eventually(|| held(&agent) == [0; 3] && operations(&agent).is_empty()));
}

#[test]
fn an_attach_is_cancelled_once_it_has_begun_and_the_device_can_be_attached_again() {
    let agent = Agent::with_batches_of(1);
    let (mut client, ioas) = client(&agent);
    attach(&mut client, ioas);
    let (other, file) = (client.ioas_alloc().unwrap(), memory(PAGES));
    map(&mut client, other, &file, (0, BYTES), PLACE);
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    let stuck = stick(&agent, 1);
    let attaching: Working<HwptId> = thread::spawn(move || {
        let attached = client.device_attach(device, other);
        (client, attached)
    });
    let waiting = operation(&agent, |operation| operation["command"] == "DEVICE_ATTACH");
    assert_eq!((&waiting["object"], &waiting["cancellable"]), (&json!(device.get()), &json!(false)));
    let problem = cancel(&agent.socket(), &waiting).assert_problem(409, "operation-fixed", Errno::BUSY);
    assert!(problem.contains("nothing of it yet"), "{problem}");
    let (half, slow) = a_part_of_it(&agent, stuck);
    assert_eq!((&half["doing"], &half["total_bytes"]), (&json!("filling"), &json!(BYTES)));
    assert_eq!(cancelled(&agent, &half)["outcome"], "operation-cancelled");
    drop(slow);
    let (mut client, attached) = attaching.join().unwrap();
    assert_cancelled(attached);
    assert_eq!(held(&agent), [0x1000, 0x1000, 0x1000 * (DOMAINS as u64 + 1)]);
    client.device_attach(device, ioas).unwrap();
}

/// A walker in a burst that has not ended.
fn walker_of(client: &mut Connection, ioas: IoasId) -> Walker {
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    let hwpt = client.device_attach(device, ioas).unwrap();
    Walker::attach(ExportChannel::from_fd(client.domain_export(hwpt).unwrap())).unwrap()
}

#[test]
fn an_unmap_that_waits_for_a_walker_is_told_apart_and_cannot_be_cancelled() {
    let agent = Agent::start();
    let (mut client, ioas) = client(&agent);
    let walker = walker_of(&mut client, ioas);
    let mut stream = walker.stream().unwrap();
    let burst = stream.enter();
    let unmapping: Working<ByteLen> = thread::spawn(move || {
        let unmapped = client.unmap(ioas, range(0x1000, 0x1000));
        (client, unmapped)
    });
    let waiting = operation(&agent, |operation| operation["waits_for"] == "walkers");
    assert_eq!((&waiting["command"], &waiting["doing"]), (&json!("IOAS_UNMAP"), &json!("taking-out")));
    assert_eq!((done(&waiting), &waiting["total_bytes"]), (0x1000, &json!(0x1000)));
    let problem = cancel(&agent.socket(), &waiting).assert_problem(409, "operation-fixed", Errno::BUSY);
    assert!(problem.contains("(IOAS_UNMAP) cannot be cancelled: it takes away"), "{problem}");
    assert_eq!((&waiting["cancellable"], waiting["fixed"].is_string()), (&json!(false), true));
    let table = said(&agent, &["operations"]);
    assert!(table.contains("IOAS_UNMAP") && table.contains("[################] 100 % of 4 KiB"), "{table}");
    assert_eq!(said(&agent, &["top", "operations", "--once"]).matches("IOAS_UNMAP").count(), 1);
    assert_eq!(said(&agent, &["operations", "--context", "2"]).lines().count(), 1);
    let id = waiting["id"].to_string();
    assert!(said(&agent, &["operations", &id]).contains("waits_for"), "one of them");
    let refused = ctl_at(agent.admin_socket(), &["operations", "cancel", &id]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    drop(burst);
    assert_eq!(unmapping.join().unwrap().1.unwrap(), ByteLen::new(0x1000));
    assert!(eventually(|| operations(&agent).is_empty()));
}

#[test]
fn a_context_that_is_taken_down_is_an_operation_that_can_be_waited_for() {
    let agent = Agent::start();
    let (mut client, ioas) = client(&agent);
    let walker = walker_of(&mut client, ioas);
    let mut stream = walker.stream().unwrap();
    let burst = stream.enter();
    let socket = agent.admin_socket();
    let evicting = thread::spawn(move || ctl_at(socket, &["evict", "1", "--wait"]));
    let closing = operation(&agent, |operation| operation["waits_for"] == "walkers");
    assert_eq!((&closing["command"], &closing["context"]), (&json!("CLOSE"), &json!(1)));
    let metrics = agent.socket().get("/metrics").body;
    assert!(metrics.contains("ioasd_operations{command=\"CLOSE\"} 1"), "{metrics}");
    drop(burst);
    let evicted = evicting.join().unwrap();
    let text = String::from_utf8(evicted.stdout).unwrap();
    assert!(evicted.status.success() && text.lines().any(|line| line.ends_with("true")), "{text}");
    assert_eq!((held(&agent), operations(&agent)), ([0; 3], vec![]));
}

/// Each map is either there as a whole or not at all, and what the operator is told is what came of it.
#[test]
fn a_cancel_and_the_end_of_a_map_meet_without_harm() {
    let agent = Agent::with_batches_of(1);
    let (mut client, ioas) = client(&agent);
    let door = agent.socket();
    let over = Arc::new(());
    let rounds = Arc::downgrade(&over);
    let cancelling = thread::spawn(move || {
        let mut outcomes = Vec::new();
        while rounds.strong_count() > 0 {
            for operation in door.json("/v1/operations?command=IOAS_MAP_FILE")["items"].as_array().unwrap() {
                let answer = cancel(&door, operation);
                if answer.status == 200 {
                    outcomes.push(answer.json()["outcome"].as_str().unwrap().to_owned());
                }
            }
        }
        outcomes
    });
    let file = memory(16);
    let mut refused = 0;
    for _ in 0..60 {
        let slice = FileSlice {
            file: std::os::fd::AsFd::as_fd(&file),
            offset: ByteLen::new(0),
            length: ByteLen::new(0x1_0000),
        };
        let mapped = client.map_file(ioas, slice, Permission::Read, Placement::Fixed(Iova::new(PLACE)));
        match mapped {
            Ok(_) => assert_eq!(client.unmap(ioas, range(PLACE, 0x1_0000)).unwrap(), ByteLen::new(0x1_0000)),
            Err(error) => {
                assert_cancelled::<()>(Err(error));
                refused += 1;
            }
        }
        assert_eq!(held(&agent), PAGE_HELD);
    }
    drop(over);
    let outcomes = cancelling.join().unwrap();
    let cancelled = outcomes.iter().filter(|outcome| *outcome == "operation-cancelled").count();
    assert!(
        outcomes.iter().all(|outcome| ["ok", "operation-cancelled"].contains(&outcome.as_str())),
        "{outcomes:?}"
    );
    assert!(cancelled >= refused, "{refused} maps were cancelled, and {cancelled} are told of: {outcomes:?}");
}

#[test]
fn ten_thousand_operations_come_in_parts_and_by_context_and_command() {
    let agent = Agent::start();
    let _clients = [agent.connect(), agent.connect()];
    let registry = &agent.shared.registry;
    assert!(eventually(|| registry.contexts().len() == 2));
    let (contexts, ioas) = (registry.contexts(), ioasd::actors::figures::IoasStats::new);
    let ioas = registry.register_ioas(ioas(contexts[0].number, ioasd_client::ids::ObjectId::new(1)));
    let listed: Vec<_> = (0..10_000)
        .map(|place| {
            let operation = Operation::new(contexts[place % 2].number, Instant::now());
            operation.note_command(if place % 10 == 0 { "IOAS_UNMAP" } else { "IOAS_MAP" });
            operation.begin(ioas.number(), Undoable::Yes, ByteLen::new(0x1000));
            registry.register_operation(Arc::new(operation))
        })
        .collect();
    let door = agent.socket();
    let part = door.json("/v1/operations?limit=1000");
    assert_eq!((part["items"].as_array().unwrap().len(), part["next"].as_str()), (1000, Some("1000")));
    let count = |target: &str| door.json(target)["items"].as_array().unwrap().len();
    assert_eq!(count("/v1/operations?limit=1000&after=9500"), 500);
    assert_eq!(count("/v1/operations?limit=1000&command=IOAS_UNMAP"), 1000);
    assert_eq!(count("/v1/operations?limit=1000&command=IOAS_UNMAP&context=2"), 0);
    assert_eq!(count("/v1/operations?command=NOTHING"), 0);
    assert!(door.get("/metrics").body.contains("ioasd_operations{command=\"IOAS_MAP\"} 9000"));
    assert_eq!(said(&agent, &["operations"]).lines().count(), 10_001);
    door.get("/v1/operations/10001").assert_problem(404, "object-absent", Errno::NOENT);
    for bad in ["", "ioas_map", "IOAS%20MAP"] {
        door.get(&format!("/v1/operations?command={bad}")).assert_problem(
            400,
            "parameter-invalid",
            Errno::INVAL,
        );
    }
    door.get("/v1/operations?ioas=1").assert_problem(400, "parameter-unknown", Errno::INVAL);
    drop(listed);
    assert!(operations(&agent).is_empty());
}
