//! The configuration read again while the agent runs: by SIGHUP, over the admin socket, by `ioasd ctl`.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

#[path = "agent_process/mod.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod agent_process;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;

use ioasd_client::calls::{FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, Iova, Permission};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;

use agent_process::{Agent, ioasd, wait_until};

fn json(agent: &Agent, method: &str, path: &str) -> (u16, Value) {
    let (status, body) = agent.ask(method, path).unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

/// The texts of all events of a kind.
fn events(agent: &Agent, kind: &str) -> Vec<String> {
    let (_, events) = json(agent, "GET", "/v1/events");
    let field = |event: &Value, name: &str| event.get(name).and_then(Value::as_str).unwrap().to_owned();
    let events = events.get("items").and_then(Value::as_array).unwrap();
    events.iter().filter(|event| field(event, "kind") == kind).map(|event| field(event, "text")).collect()
}

/// Finds the agent by the file, which may be wrong.
fn ctl(agent: &Agent, arguments: &[&str]) -> Output {
    ioasd().arg("ctl").arg("--config").arg(agent.path("ioasd.toml")).args(arguments).output().unwrap()
}

fn client(agent: &Agent) -> Client {
    let mut connection = agent.connect();
    let ioas = connection.ioas_alloc().unwrap();
    let device = connection.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    connection.device_attach(device, ioas).unwrap();
    let file = memfd_create("reload-test", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::pwrite(&file, &[7; 0x4000], 0), Ok(0x4000));
    Client { connection, ioas, file }
}

/// A client with a table and four pages of memory.
struct Client {
    connection: Connection,
    ioas: IoasId,
    file: OwnedFd,
}

impl Client {
    fn map(&mut self, iova: u64) -> Result<Iova, CallError> {
        let file =
            FileSlice { file: self.file.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(0x4000) };
        self.connection.map_file(self.ioas, file, Permission::ReadWrite, Placement::Fixed(Iova::new(iova)))
    }
}

fn errno(error: &CallError) -> Errno {
    let CallError::Refused { errno, .. } = error else { panic!("not a refusal: {error:?}") };
    *errno
}

/// The tenant of whoever runs the tests, with limits and rights of `rest`.
fn tenant(rest: &str) -> String {
    format!("[[tenant]]\nname = \"vms\"\nuids = [{}]\n{rest}\n", rustix::process::getuid().as_raw())
}

#[test]
fn after_sighup_a_new_limit_binds_a_client_that_is_there_and_takes_nothing_from_it() {
    let agent = Agent::start("", &tenant("limits = { pinned = \"1MiB\" }"));
    let mut client = client(&agent);
    client.map(0x10_0000).unwrap();
    agent.write(&tenant("limits = { pinned = \"20KiB\" }"));
    agent.signal(Signal::HUP);
    wait_until("it is told", || !events(&agent, "changed").is_empty());
    assert_eq!(events(&agent, "changed"), ["configuration read again for SIGHUP: changed tenant.vms.limits"]);
    let refused = client.map(0x20_0000).unwrap_err();
    assert_eq!(errno(&refused), Errno::NOMEM);
    assert!(refused.to_string().contains("its tenant has 16384 of the 20480 it may have"), "{refused}");
    let (_, pages) = json(&agent, "GET", "/v1/pages");
    assert_eq!(pages["items"][0]["pinned_bytes"], 0x4000, "{pages}");
    agent.write(&tenant("limits = { pinned = \"64KiB\" }"));
    agent.signal(Signal::HUP);
    wait_until("the client may have more", || client.map(0x20_0000).is_ok());
}

#[test]
fn rights_count_at_once_for_a_context_that_is_there_and_for_one_that_comes() {
    let agent = Agent::start("", &tenant(""));
    let _client = client(&agent);
    agent.write(&tenant("connect = false"));
    let (status, answer) = json(&agent, "POST", "/v1/reload");
    assert_eq!((status, &answer["applied"]), (200, &serde_json::json!(["tenant.vms.connect"])), "{answer}");
    let denied = Connection::connect(&agent.path("ioasd.sock")).unwrap().ioas_alloc().unwrap_err();
    let uid = rustix::process::getuid().as_raw();
    assert!(
        denied.to_string().contains(&format!("tenant vms, user {uid} may not open a context")),
        "{denied}"
    );
    let line = format!(
        "its tenant has connect = false, in [[tenant]] vms, {}:6",
        agent.path("ioasd.toml").display()
    );
    assert!(denied.to_string().contains(&line), "{denied}");
    agent.write(&tenant(""));
    assert_eq!(json(&agent, "POST", "/v1/reload").1["applied"], serde_json::json!(["tenant.vms.connect"]));
    drop(client(&agent));
}

/// What may be mapped binds the maps that follow; what is mapped stays.
#[test]
fn a_source_that_is_denied_is_refused_from_then_on_with_one_text_everywhere() {
    let agent = Agent::start("", &tenant(""));
    let mut client = client(&agent);
    client.map(0x10_0000).unwrap();
    agent.write(&tenant("sources = [\"hugetlb\"]"));
    let (_, answer) = json(&agent, "POST", "/v1/reload");
    assert_eq!(answer["applied"], serde_json::json!(["tenant.vms.sources"]), "{answer}");
    let refused = client.map(0x20_0000).unwrap_err();
    let CallError::Refused { errno, code, text, .. } = &refused else { panic!("{refused}") };
    assert_eq!((*errno, code.as_str()), (Errno::PERM, "source-denied"));
    assert_eq!(events(&agent, "refused").last(), Some(text));
    let explained = ctl(&agent, &["--json", "explain", "1", "--length", "16KiB", "--source", "memfd"]);
    let explained: Value = serde_json::from_slice(&explained.stdout).unwrap();
    let refusal = &explained["refusal"];
    assert_eq!((&refusal["code"], refusal["text"].as_str()), (&"source-denied".into(), Some(text.as_str())));
    let (_, pages) = json(&agent, "GET", "/v1/pages");
    assert_eq!(pages["items"][0]["pinned_bytes"], 0x4000, "{pages}");
    assert_eq!(client.connection.unmap_all(client.ioas).unwrap().get(), 0x4000);
}

/// A token that others can read refuses the whole reload; another one is in force at once, and the old one is refused.
#[test]
fn the_token_is_read_again_and_the_one_before_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let put = |text: &str, mode: u32| {
        std::fs::write(&token, text).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    put("the-first-token-1\n", 0o600);
    let port = free_port();
    let agent = Agent::start("", &format!("remote = \"127.0.0.1:{port}\"\ntoken_file = {token:?}\n"));
    let status = |token: &str| ask_over_tcp(port, token);
    assert_eq!((status("the-first-token-1"), status("the-second-token-2")), (200, 401));
    put("the-second-token-2\n", 0o644);
    let (refused, problem) = json(&agent, "POST", "/v1/reload");
    assert!(
        refused == 409 && problem["detail"].as_str().unwrap().contains("nobody else may read it"),
        "{problem}"
    );
    assert_eq!(status("the-first-token-1"), 200, "the old one is in force");
    put("the-second-token-2\n", 0o600);
    let (_, answer) = json(&agent, "POST", "/v1/reload");
    assert_eq!(answer["applied"], serde_json::json!(["what admin.token_file holds"]), "{answer}");
    assert_eq!((status("the-first-token-1"), status("the-second-token-2")), (401, 200));
}

/// A port of loopback that nobody listened on a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The status of what only the token opens.
fn ask_over_tcp(port: u16, token: &str) -> u16 {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close");
    write!(stream, "GET /v1/status HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_wrong_file_leaves_the_old_configuration_in_force_and_is_told_everywhere() {
    let agent = Agent::start("", &tenant("limits = { pinned = \"20KiB\" }"));
    let mut client = client(&agent);
    client.map(0x10_0000).unwrap();
    agent.write(&tenant("limits = { pined = \"1GiB\" }\nexprot = false"));
    agent.signal(Signal::HUP);
    wait_until("it is told", || !events(&agent, "not-reloaded").is_empty());
    let (status, problem) = json(&agent, "POST", "/v1/reload");
    assert_eq!(
        (status, problem["type"].as_str()),
        (409, Some("urn:ioasd:error:configuration-invalid")),
        "{problem}"
    );
    assert_eq!(problem["errno"], Errno::INVAL.raw_os_error());
    let asked = ctl(&agent, &["reload"]);
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    let said = String::from_utf8(asked.stderr).unwrap();
    let log = std::fs::read_to_string(agent.path("log")).unwrap();
    for told in [problem["detail"].as_str().unwrap(), &said, &log, &events(&agent, "not-reloaded").join(" ")]
    {
        assert!(told.contains("unknown limit") && told.contains("did you mean pinned?"), "{told}");
        assert!(told.contains("tenant.exprot: unknown key, did you mean export?"), "{told}");
    }
    assert_eq!(errno(&client.map(0x20_0000).unwrap_err()), Errno::NOMEM, "the old limit is in force");
    std::fs::remove_file(agent.path("ioasd.toml")).unwrap();
    let (status, problem) = json(&agent, "POST", "/v1/reload");
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("cannot read"), "{problem}");
}

#[test]
fn what_needs_a_restart_is_named_until_there_is_one() {
    let agent = Agent::start("", "");
    agent.write("[engine]\npin_threads = 3\n[limits]\nhost = { areas = 7 }\ncredits_per_channel = 3\n");
    let said = String::from_utf8(ctl(&agent, &["reload"]).stdout).unwrap();
    for line in
        ["applied        limits.host", "needs_restart  limits.credits_per_channel", "engine.pin_threads"]
    {
        assert!(said.contains(line), "{said}");
    }
    let (_, config) = json(&agent, "GET", "/v1/config");
    let row = |key: &str| {
        config["items"].as_array().unwrap().iter().find(|row| row["key"] == key).unwrap()["value"].clone()
    };
    assert_eq!((row("pin_threads"), row("host")), ("0".into(), "{ areas = 7 }".into()));
    let (_, again) = json(&agent, "POST", "/v1/reload");
    assert_eq!(
        (again["applied"].to_string(), again["needs_restart"].as_array().unwrap().len()),
        ("[]".into(), 2)
    );
}

/// What is mapped never passes the greater of the limits.
#[test]
fn limits_change_while_many_clients_charge_and_no_page_is_lost() {
    const GREAT: u64 = 0x1_0000;
    let limits = [0x8000, GREAT].map(|pinned| tenant(&format!("limits = {{ pinned = {pinned} }}")));
    let agent = Agent::start("", &limits[1]);
    let (mapped, done) = (AtomicU64::new(0), AtomicBool::new(false));
    scope(|threads| {
        for _ in 0..6 {
            threads.spawn(|| {
                let mut client = client(&agent);
                while !done.load(Ordering::Relaxed) {
                    if let Err(error) = client.map(0x10_0000) {
                        assert_eq!(errno(&error), Errno::NOMEM);
                        continue;
                    }
                    let before = mapped.fetch_add(0x4000, Ordering::Relaxed);
                    assert!(before + 0x4000 <= GREAT, "{before} bytes were mapped");
                    mapped.fetch_sub(0x4000, Ordering::Relaxed);
                    assert_eq!(client.connection.unmap_all(client.ioas).unwrap().get(), 0x4000);
                }
            });
        }
        for turn in 0..20 {
            agent.write(&limits[turn % 2]);
            let (status, answer) = json(&agent, "POST", "/v1/reload");
            assert_eq!(status, 200, "{answer}");
        }
        done.store(true, Ordering::Relaxed);
    });
    wait_until("all is given back", || {
        let (_, accounts) = json(&agent, "GET", "/v1/accounts");
        accounts["items"].as_array().unwrap().iter().all(|row| row["counters"]["pinned"]["used"] == 0)
    });
}
