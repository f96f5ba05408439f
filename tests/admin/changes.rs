//! Who may change something, and what a change does.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use ioasd_client::connection::Connection;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::fixture::{Agent, TOKEN, attach, eventually, map, memory};
use crate::http::{Answer, Door};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const HOST: (&str, &str) = ("Host", "localhost");

/// Every way to change something, with its method.
const CHANGES: [(&str, &str); 6] = [
    ("PUT", "/v1/log"),
    ("POST", "/v1/reload"),
    ("POST", "/v1/drain"),
    ("DELETE", "/v1/drain"),
    ("POST", "/v1/contexts/1/evict"),
    ("DELETE", "/v1/operations/1"),
];

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Asks with these headers besides a body of JSON.
fn change(door: &Door, (method, target): (&str, &str), headers: &[(&str, &str)]) -> Answer {
    let body = if method == "PUT" { r#"{"filter":"info"}"# } else { "" };
    let all = [&[JSON][..], headers].concat();
    door.send(method, target, &all, body)
}

fn untouched(agent: &Agent) {
    let contexts = agent.socket().json("/v1/contexts")["items"].as_array().unwrap().len();
    assert_eq!((agent.socket().json("/v1/drain")["draining"].clone(), contexts), (json!(false), 1));
}

#[test]
fn over_tcp_nothing_is_changed_without_the_token() {
    let (open, agent) = (Agent::start(), Agent::with_token());
    let _clients = (open.connect(), agent.connect());
    for what in CHANGES {
        change(&open.tcp(), what, &[HOST]).assert_problem(403, "change-not-allowed", Errno::PERM);
        let wrong = bearer(TOKEN.trim_end_matches('e'));
        for headers in [&[HOST][..], &[HOST, ("Authorization", &wrong)], &[HOST, ("Authorization", TOKEN)]] {
            for door in [agent.tcp(), agent.remote()] {
                let answer = change(&door, what, headers);
                answer.assert_problem(401, "token-needed", Errno::ACCESS);
                assert!(answer.head.contains("www-authenticate: Bearer"), "{}", answer.head);
            }
        }
    }
    untouched(&open);
    untouched(&agent);
}

#[test]
fn a_page_of_another_origin_changes_nothing_even_with_the_token_and_over_the_socket() {
    let agent = Agent::with_token();
    let _client = agent.connect();
    let token = bearer(TOKEN);
    for what in CHANGES {
        for bad in [
            ("Origin", "https://evil.example"),
            ("Origin", "http://localhost:81"),
            ("Origin", "null"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
        ] {
            let headers = [HOST, ("Authorization", token.as_str()), bad];
            for door in [agent.tcp(), agent.socket()] {
                change(&door, what, &headers).assert_problem(403, "cross-origin", Errno::ACCESS);
            }
        }
        let rebound =
            [("Host", "evil.example"), ("Authorization", token.as_str()), ("Origin", "http://evil.example")];
        for door in [agent.tcp(), agent.remote()] {
            change(&door, what, &rebound).assert_problem(403, "host-not-allowed", Errno::ACCESS);
        }
        let preflight = [HOST, ("Origin", "https://evil.example"), ("Access-Control-Request-Method", what.0)];
        let answer = agent.tcp().send("OPTIONS", what.1, &preflight, "");
        assert!(answer.status >= 400 && !answer.head.contains("access-control-allow"), "{answer:?}");
    }
    untouched(&agent);
}

#[test]
fn what_a_form_can_send_is_no_change() {
    let agent = Agent::start();
    let _client = agent.connect();
    for kind in ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""] {
        for (method, target) in CHANGES.into_iter().filter(|(method, _)| *method != "DELETE") {
            let answer = agent.socket().send(method, target, &[HOST, ("Content-Type", kind)], "{}");
            answer.assert_problem(415, "content-type", Errno::INVAL);
        }
    }
    untouched(&agent);
}

#[test]
fn what_brings_nothing_needs_no_kind_and_what_brings_something_does() {
    let agent = Agent::start();
    let _client = agent.connect();
    let door = agent.socket();
    for (method, target) in
        [("POST", "/v1/drain"), ("DELETE", "/v1/drain"), ("POST", "/v1/contexts/1/evict?dry_run=true")]
    {
        assert_eq!(door.send(method, target, &[HOST], "").status, 200, "{method} {target}");
        door.send(method, target, &[HOST], "{}").assert_problem(415, "content-type", Errno::INVAL);
    }
    untouched(&agent);
}

#[test]
fn from_elsewhere_the_token_shows_everything_and_nothing_else_does() {
    let agent = Agent::with_token();
    let token = bearer(TOKEN);
    for target in ["/livez", "/readyz", "/metrics", "/version"] {
        assert_eq!(agent.remote().get(target).status, 200, "{target}");
    }
    for target in ["/", "/v1/ioas", "/openapi.json", "/v1/nothing"] {
        agent.remote().get(target).assert_problem(401, "token-needed", Errno::ACCESS);
    }
    for host in ["localhost", "192.0.2.7:9885", "NODE7.example:9885"] {
        let answer = agent.remote().send("GET", "/v1/ioas", &[("Host", host), ("Authorization", &token)], "");
        assert_eq!(answer.status, 200, "{host}");
    }
    agent.remote().ask("GET", "/metrics", "evil.example").assert_problem(
        403,
        "host-not-allowed",
        Errno::ACCESS,
    );
}

#[test]
fn with_the_token_a_context_is_evicted_and_no_other_is() {
    let agent = Agent::with_token();
    let (mut victim, mut bystander, file) = (agent.connect(), agent.connect(), memory(8));
    for client in [&mut victim, &mut bystander] {
        let ioas = client.ioas_alloc().unwrap();
        attach(client, ioas);
        map(client, ioas, &file, (0, 0x4000), 0);
    }
    let token = bearer(TOKEN);
    let evict = |query: &str| {
        let target = format!("/v1/contexts/1/evict{query}");
        let answer = change(&agent.tcp(), ("POST", &target), &[HOST, ("Authorization", &token)]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let before = evict("?dry_run=true");
    let expected = json!({ "context": 1, "dry_run": true, "gone": false, "objects": 3, "areas": 1, "pinned_bytes": 0x4000,
        "mapped_bytes": 0x4000, "domains": 1, "walkers": 0, "devices": 1, "access_pins": 0 });
    assert_eq!(before, expected);
    assert_eq!(agent.socket().json("/v1/contexts")["items"].as_array().unwrap().len(), 2);
    let done = evict("");
    assert_eq!((&done["gone"], &done["pinned_bytes"]), (&json!(true), &json!(0x4000)));
    assert!(victim.ioas_alloc().is_err());
    bystander.ioas_alloc().unwrap();
    let left = agent.socket().json("/v1/pages")["items"].clone();
    assert_eq!((left.as_array().unwrap().len(), &left[0]["context"]), (1, &json!(2)));
    let events = agent.socket().json("/v1/events")["items"].clone();
    let told = events.as_array().unwrap().iter().find(|event| event["kind"] == "changed").unwrap();
    assert_eq!((&told["context"], told["text"].as_str().unwrap().contains("evicted by")), (&json!(1), true));
    agent.socket().send("POST", "/v1/contexts/9/evict", &[HOST, JSON], "").assert_problem(
        404,
        "object-absent",
        Errno::NOENT,
    );
}

#[test]
fn draining_hangs_up_on_who_connects_and_leaves_those_who_are_there() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let door = agent.socket();
    assert_eq!(
        change(&door, ("POST", "/v1/drain"), &[HOST]).json(),
        json!({ "draining": true, "contexts": 1 })
    );
    let refused = Connection::connect(&agent.clients()).map(|mut client| client.ioas_alloc().is_err());
    assert!(refused.unwrap_or(true));
    client.ioas_alloc().unwrap();
    let ready = door.get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("admitting failed"), "{ready:?}");
    assert_eq!(change(&door, ("DELETE", "/v1/drain"), &[HOST]).json()["draining"], false);
    assert_eq!(door.get("/readyz").status, 200);
    agent.connect().ioas_alloc().unwrap();
}

#[test]
fn whoever_can_open_the_socket_but_is_not_its_owner_looks_and_changes_nothing() {
    if !rustix::process::geteuid().is_root() {
        ioasd::skip!(
            "whoever_can_open_the_socket_but_is_not_its_owner_looks_and_changes_nothing: needs root to be two users"
        );
        return;
    }
    let agent = Agent::start();
    let _client = agent.connect();
    let socket = agent.admin_socket();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&socket, 0o666);
    mode(socket.parent().unwrap(), 0o755);
    let program =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let copy = program.path().join("ioasd");
    // Another process copies it: a child of another test would keep the file open for writing, and it could not be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_ioasd")).arg(&copy).status().unwrap();
    assert!(copied.success(), "{copied}");
    mode(&copy, 0o755);
    let stranger = |arguments: &[&str]| {
        let mut command = Command::new(&copy);
        command.arg("ctl").arg("--admin").arg(&socket).args(arguments).uid(65534).gid(65534).current_dir("/");
        command.stdin(Stdio::null()).output().unwrap()
    };
    assert!(stranger(&["contexts"]).status.success());
    for arguments in
        [&["drain"][..], &["reload"], &["evict", "1"], &["evict", "1", "--dry-run"], &["log", "debug"]]
    {
        let output = stranger(arguments);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains("user 65534 may look and change nothing"), "{complaint}");
    }
    untouched(&agent);
}

#[test]
fn a_body_that_says_nothing_that_can_be_done_is_refused() {
    let agent = Agent::start();
    let door = agent.socket();
    let long = format!(r#"{{"filter":"{}"}}"#, "x".repeat(70_000));
    for body in ["", "{", "[]", r#"{"filter":1}"#, r#"{"filter":"info","fro":1}"#, &long] {
        let answer = door.send("PUT", "/v1/log", &[HOST, JSON], body);
        answer.assert_problem(400, "body-invalid", Errno::INVAL);
    }
    let answer = door.send("POST", "/v1/contexts/1/evict?dry_run=perhaps", &[HOST, JSON], "");
    answer.assert_problem(400, "parameter-invalid", Errno::INVAL);
    let answer = door.ask("PATCH", "/v1/drain", "localhost");
    answer.assert_problem(405, "method-not-allowed", Errno::OPNOTSUPP);
    assert!(answer.head.contains("allow: GET, POST, DELETE"), "{}", answer.head);
    assert!(eventually(|| door.json("/v1/config")["items"] == Value::Array(Vec::new())));
}
