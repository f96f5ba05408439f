//! The journal as a stream: who comes back gets the rest, who is slow or late is told what it missed, and nobody waits.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ioasd::actors::journal::{Happening, KEPT};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::fixture::{Agent, eventually};
use crate::http::{Door, Stream};
use crate::stuck::stick;

/// Streams that one server has at a time.
const STREAMS: usize = 32;

fn listed(door: &Door, since: u64) -> Value {
    door.json(&format!("/v1/events?since={since}"))["items"].clone()
}

#[test]
fn a_stream_says_what_the_list_says_and_goes_on_after_the_last_event_known() {
    let agent = Agent::start();
    for door in [agent.tcp(), agent.socket()] {
        let before = listed(&door, 0).as_array().unwrap().len();
        let mut stream = door.follow("/v1/events", "");
        assert!(stream.head.contains("content-type: text/event-stream"), "{}", stream.head);
        let kept: Vec<Value> = (0..before).map(|_| stream.must().data).collect();
        assert_eq!(Value::Array(kept), listed(&door, 0));
        let client = agent.connect();
        let opened = stream.must();
        assert_eq!((&opened.event[..], &opened.data["kind"]), ("", &json!("opened")));
        assert_eq!(opened.data["number"], opened.id);
        drop(client);
        let closed = stream.must();
        assert_eq!((closed.data["kind"].clone(), closed.id), (json!("closed"), opened.id + 1));
        let known = format!("Last-Event-ID: {}\r\n", opened.id);
        assert_eq!(door.follow("/v1/events?since=0", &known).must().id, closed.id);
        assert_eq!(door.follow(&format!("/v1/events?since={}", opened.id), "").must().id, closed.id);
    }
}

#[test]
fn who_comes_back_too_late_is_told_how_much_it_missed() {
    let agent = Agent::start();
    (0..KEPT + 5).for_each(|contexts| agent.tell(contexts));
    let mut stream = agent.tcp().follow("/v1/events", "Last-Event-ID: 2\r\n");
    let missed = stream.must();
    assert_eq!((&missed.event[..], missed.id), ("missed", 5));
    assert_eq!(missed.data, json!({ "missed": 3, "continues_after": 5 }));
    assert_eq!(stream.must().id, 6);
    let mut stream = agent.tcp().follow("/v1/events?since=999999", "");
    assert_eq!(stream.must().data, json!({ "missed": null, "continues_after": 5 }));
    assert_eq!(stream.must().id, 6);
}

#[test]
fn who_does_not_read_misses_what_is_forgotten_and_everything_else_comes() {
    let agent = Agent::start();
    let mut stream = agent.socket().follow("/v1/events", "");
    agent.tell(0);
    assert_eq!(stream.must().id, 1);
    let last = 4000;
    for number in 2..=last {
        let text = format!("{number}: {}", "x".repeat(4000));
        agent.shared.registry.journal().tell(Happening::changed(None, text));
    }
    let (mut known, mut missed) = (1, 0);
    while known < last {
        let message = stream.must();
        if message.event == "missed" {
            assert_eq!(message.data["missed"], message.id - known);
            missed += message.id - known;
        } else {
            assert_eq!(message.id, known + 1);
        }
        known = message.id;
    }
    assert!(missed > 0, "nothing was forgotten: the stream kept it all");
}

#[test]
fn there_are_so_many_streams_and_no_more_until_one_is_left() {
    let agent = Agent::start();
    let door = agent.socket();
    let streams: Vec<Stream> = (0..STREAMS).map(|_| door.follow("/v1/events", "")).collect();
    let stream = &[("Host", "localhost"), ("Accept", "application/json;q=0.5, text/event-stream")];
    let answer = door.send("GET", "/v1/events", stream, "");
    answer.assert_problem(503, "streams-exhausted", Errno::BUSY);
    assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    assert_eq!(listed(&door, 0), json!([]));
    drop(streams);
    assert!(eventually(|| {
        agent.tell(1);
        door.follow("/v1/events", "").head.starts_with("HTTP/1.1 200 ")
    }));
}

#[test]
fn what_cannot_be_meant_is_no_stream() {
    let agent = Agent::start();
    let ask = |target: &str, id: &str| {
        let headers = [("Host", "localhost"), ("Accept", "text/event-stream"), ("Last-Event-ID", id)];
        agent.tcp().send("GET", target, &headers, "")
    };
    ask("/v1/events", "x").assert_problem(400, "parameter-invalid", Errno::INVAL);
    ask("/v1/events?since=-1", "1").assert_problem(400, "parameter-invalid", Errno::INVAL);
    ask("/v1/events?limit=1", "1").assert_problem(400, "parameter-unknown", Errno::INVAL);
}

#[test]
fn a_stuck_data_side_stops_no_stream() {
    let agent = Agent::start();
    let _stuck = [stick(&agent, 0), stick(&agent, 1)];
    let mut stream = agent.tcp().follow("/v1/events", "");
    agent.tell(7);
    assert_eq!(stream.must().data["kind"], "stopping");
}

#[test]
fn a_server_that_stops_ends_its_streams_in_good_order_with_all_that_was_told() {
    let mut agent = Agent::start();
    let mut streams = [agent.tcp(), agent.socket()].map(|door| door.follow("/v1/events", ""));
    agent.tell(3);
    agent.stop_admin();
    for stream in &mut streams {
        assert_eq!(stream.must().data["kind"], "stopping");
        assert!(stream.next().is_none());
    }
}

#[test]
fn ctl_follows_until_the_agent_ends() {
    let mut agent = Agent::start();
    let follow = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
        let command = command.arg("ctl").arg("--admin").arg(agent.admin_socket()).args(["events", "-f"]);
        let mut child = command.args(flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        (child, lines)
    };
    (0..KEPT + 2).for_each(|contexts| agent.tell(contexts));
    let (table, mut lines) = follow(&[]);
    assert!(lines.next().unwrap().starts_with("NUMBER  AT "));
    assert_eq!(lines.next().unwrap(), "-- 2 events are forgotten and were missed");
    let row = lines.next().unwrap();
    assert!(row.starts_with("     3  ") && row.contains("stopping"), "{row}");
    let (json, mut objects) = follow(&["--json", "--since", &KEPT.to_string()]);
    let numbers =
        [1, 2].map(|_| serde_json::from_str::<Value>(&objects.next().unwrap()).unwrap()["number"].clone());
    assert_eq!(numbers, [KEPT + 1, KEPT + 2].map(Value::from));
    agent.tell(77_777);
    assert!(lines.any(|line| line.contains(", 77777 contexts may leave")));
    agent.stop_admin();
    for child in [table, json] {
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(3) && complaint.contains("has ended the stream"), "{complaint}");
    }
}
