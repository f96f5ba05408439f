//! What walkers could not reach, as the agent tells it over HTTP and at the command line.

use ioasd_client::calls::ExportChannel;
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::walker::{Access, FaultKind, Stream, Walker};
use serde_json::{Value, json};

use crate::ctl::{cells, said};
use crate::fixture::{Agent, attach, eventually, map, memory};

/// An agent with one domain that shows two pages at 0x10000 of a file that can shrink, and a walker of it.
fn walked() -> (Agent, ioasd_client::connection::Connection, Walker) {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(8));
    let ioas = client.ioas_alloc().unwrap();
    let hwpt = attach(&mut client, ioas);
    map(&mut client, ioas, &file, (0, 0x2000), 0x1_0000);
    let channel = client.domain_export(hwpt).unwrap();
    (agent, client, Walker::attach(ExportChannel::from_fd(channel)).unwrap())
}

fn fault(stream: &mut Stream, iova: u64, access: Access) -> FaultKind {
    stream.enter().slice(Iova::new(iova), ByteLen::new(1), access).unwrap_err().kind
}

fn column(faults: &Value, name: &str) -> Vec<Value> {
    faults["items"].as_array().unwrap().iter().map(|fault| fault[name].clone()).collect()
}

#[test]
fn faults_are_told_by_cause_and_one_by_one_with_what_is_there_now() {
    let (agent, _client, walker) = walked();
    let door = agent.tcp();
    let none = door.json("/v1/domains/1/faults");
    assert_eq!((&none["items"], &none["counts"]["permission"]), (&json!([]), &json!(0)));
    let mut stream = walker.stream().unwrap();
    assert_eq!(fault(&mut stream, 0x1_0008, Access::Write), FaultKind::NotExported, "the file can shrink");
    assert_eq!(fault(&mut stream, 0x1_2000, Access::Read), FaultKind::NotPresent);
    assert_eq!(fault(&mut stream, 1 << 60, Access::Read), FaultKind::OutsideAperture);
    let faults = door.json("/v1/domains/1/faults");
    assert_eq!(column(&faults, "cause"), ["not-exported", "not-present", "outside-aperture"]);
    assert_eq!(column(&faults, "access"), ["write", "read", "read"]);
    assert_eq!(column(&faults, "iova"), ["0x10008", "0x12000", "0x1000000000000000"]);
    assert_eq!(column(&faults, "place"), ["taken", "free", "taken"], "no area can be at the last");
    assert_eq!(faults["items"][1]["gap"]["start"], "0x12000");
    assert_eq!(faults["items"][1]["level"], 0);
    assert_eq!(column(&faults, "pid"), vec![json!(std::process::id()); 3]);
    assert_eq!(faults["counts"]["not-present"], 1);
}

#[test]
fn faults_come_in_parts_and_outlive_their_walker() {
    let (agent, _client, walker) = walked();
    let mut stream = walker.stream().unwrap();
    for page in 0..5 {
        fault(&mut stream, page << 12, Access::Read);
    }
    (0..3).for_each(|_| assert_eq!(fault(&mut stream, 0x9000, Access::Read), FaultKind::NotPresent));
    drop((stream, walker));
    let door = agent.socket();
    assert!(eventually(|| door.json("/v1/domains/1")["walkers"] == 0));
    let first = door.json("/v1/domains/1/faults?limit=2");
    assert_eq!((column(&first, "number"), &first["next"]), (vec![json!(1), json!(2)], &json!("2")));
    let rest = door.json("/v1/domains/1/faults?after=2");
    assert_eq!(column(&rest, "times"), [1, 1, 1, 3]);
    assert_eq!((&rest["next"], &rest["counts"]["not-present"]), (&json!(null), &json!(8)));
    let metrics = door.get("/metrics").body;
    assert!(metrics.contains("ioasd_walker_faults_total{cause=\"not-present\"} 8\n"), "{metrics}");
}

#[test]
fn ctl_shows_them_as_a_table() {
    let (agent, _client, walker) = walked();
    assert_eq!(said(&agent, &["faults", "1"]), "no walker of domain 1 has met a fault\n");
    fault(&mut walker.stream().unwrap(), 0x1_3000, Access::Write);
    let text = said(&agent, &["faults", "1"]);
    assert!(text.starts_with("not-present 1\n\n"), "{text}");
    let rows = cells(&text);
    let row = rows.last().unwrap();
    assert!(row.contains(&"0x13000") && row.contains(&"write") && row.contains(&"not-present"), "{row:?}");
    assert!(text.contains("free from 0x12000 to"), "{text}");
    let json: Value = serde_json::from_str(&said(&agent, &["faults", "1", "--json"])).unwrap();
    assert_eq!(json["items"][0]["iova"], "0x13000");
}
