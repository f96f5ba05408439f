//! `ioasd ctl` as a process: tables, JSON, and what its exit code says.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ioasd_client::calls::{AccessKind, PinIntent};
use serde_json::Value;

use crate::fixture::{Agent, attach, map, memory, range};
use crate::http::Door;

/// Runs it against the admin server at `admin`.
pub(crate) fn ctl_at(admin: impl AsRef<Path>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
    for variable in ["IOASD_SOCKET", "IOASD_CONFIG", "IOASD_LOG"] {
        command.env_remove(variable);
    }
    let command = command.arg("ctl").arg("--admin").arg(admin.as_ref()).args(arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

/// What it says when all is well.
#[track_caller]
pub(crate) fn said(agent: &Agent, arguments: &[&str]) -> String {
    let output = ctl_at(agent.admin_socket(), arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The cells of each line.
pub(crate) fn cells(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

#[test]
fn tables_show_a_client_at_work() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(4));
    let ioas = client.ioas_alloc().unwrap();
    attach(&mut client, ioas);
    map(&mut client, ioas, &file, (0, 0x4000), 0x10_0000);
    let access = client.access_create(ioas, AccessKind::Pinning).unwrap();
    client.access_pin(access, range(0x10_0000, 0x1000), PinIntent::Read).unwrap();
    let areas = said(&agent, &["areas", "1"]);
    let rows = cells(&areas);
    assert_eq!(rows[0][..6], ["START", "LAST", "LENGTH", "MAY", "STATE", "PAGES"]);
    assert_eq!(rows[1][..6], ["0x100000", "0x103fff", "16 KiB", "rw", "ready", "1"]);
    for (list, heads) in [
        ("contexts", "ID  PID"),
        ("ioas", "ID  CONTEXT"),
        ("pages", "ID  CONTEXT"),
        ("domains", "ID  CONTEXT"),
        ("accesses", "ID  CONTEXT"),
        ("devices", "ID  CONTEXT"),
        ("accounts", "ID  ABOVE"),
        ("payers", "PID"),
        ("events", "NUMBER  AT"),
    ] {
        let text = said(&agent, &[list]);
        let squeezed = text.split_whitespace().collect::<Vec<_>>().join("  ");
        assert!(squeezed.starts_with(heads), "{list}: {text}");
        let rows = if list == "accounts" { 4 } else { 1 };
        assert_eq!(text.lines().count(), 1 + rows, "{list}: {text}");
    }
    let status = said(&agent, &["status"]);
    assert!(
        status.lines().any(|line| line.starts_with("pinned_bytes") && line.ends_with("16 KiB")),
        "{status}"
    );
    let walk = said(&agent, &["walk", "1", "0x100123"]);
    assert!(walk.starts_with("0x100123 in domain 1, amd-v1, 4 levels\n"), "{walk}");
    assert_eq!(walk.lines().filter(|line| line.contains("  table  ")).count(), 3, "{walk}");
    assert!(walk.lines().any(|line| line.starts_with("file ") && line.ends_with("offset 291")), "{walk}");
    for one in ["contexts", "ioas", "pages", "domains"] {
        let text = said(&agent, &[one, "1"]);
        assert!(text.lines().any(|line| cells(line) == [["id", "1"]]), "{text}");
    }
}

#[test]
fn json_is_the_agents_own_and_a_list_is_whole() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for _ in 0..1001 {
        client.ioas_alloc().unwrap();
    }
    let list: Value = serde_json::from_str(&said(&agent, &["ioas", "--json"])).unwrap();
    assert_eq!((list["items"].as_array().unwrap().len(), &list["next"]), (1001, &Value::Null));
    let one: Value = serde_json::from_str(&said(&agent, &["--json", "ioas", "7"])).unwrap();
    assert_eq!(one, agent.socket().json("/v1/ioas/7"));
}

#[test]
fn over_tcp_it_says_the_same() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.ioas_alloc().unwrap();
    let Door::Tcp(address) = agent.tcp() else { unreachable!() };
    let output = ctl_at(format!("http://{address}"), &["ioas"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), said(&agent, &["ioas"]));
}

#[test]
fn the_exit_code_tells_what_went_wrong() {
    let agent = Agent::start();
    let nowhere = agent.admin_socket().with_file_name("nobody.sock");
    let output = ctl_at(&nowhere, &["status"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaint.starts_with("ioasd: no agent answers at ") && complaint.contains("nobody.sock"),
        "{complaint}"
    );
    let output = ctl_at(agent.admin_socket(), &["areas", "99"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "ioasd: there is no ioas 99, or no longer\n");
    for wrong in [&["walk", "1", "0xg"][..], &["areas"], &["frobnicate"]] {
        assert_eq!(ctl_at(agent.admin_socket(), wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(ctl_at("https://127.0.0.1:1", &["status"]).status.code(), Some(2));
}

#[test]
fn top_writes_frames_where_there_is_no_terminal_the_heaviest_first() {
    let agent = Agent::start();
    let clients: Vec<_> = [(1, 0x1000), (3, 0x3000), (2, 0x2000)]
        .into_iter()
        .map(|(pages, length)| {
            let (mut client, file) = (agent.connect(), memory(pages));
            let ioas = client.ioas_alloc().unwrap();
            attach(&mut client, ioas);
            map(&mut client, ioas, &file, (0, length), 0x10_0000);
            client
        })
        .collect();
    let frame = said(&agent, &["top"]);
    assert!(
        frame.starts_with("ioasd ") && frame.contains("pinned 24 KiB") && !frame.contains('\x1b'),
        "{frame}"
    );
    let rows: Vec<&str> = frame.lines().skip_while(|line| !line.contains("PINNED")).skip(1).collect();
    let numbers: Vec<&str> = rows.iter().filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!(numbers, ["2", "3", "1"], "{frame}");
    let frames = said(&agent, &["top", "ioas", "-n", "2", "--interval", "1"]);
    assert_eq!(frames.matches("address spaces by mapped").count(), 2, "{frames}");
    assert_eq!(said(&agent, &["top", "accounts", "--once"]).matches("accounts by pinned").count(), 1);
    drop(clients);
    assert_eq!(ctl_at(agent.admin_socket(), &["top", "--once", "-n", "2"]).status.code(), Some(2));
}

#[test]
fn an_explanation_says_where_a_map_goes_or_what_is_in_its_way() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(4));
    let ioas = client.ioas_alloc().unwrap();
    attach(&mut client, ioas);
    map(&mut client, ioas, &file, (0, 0x4000), 0x10_0000);
    let fits = said(&agent, &["explain", "1", "--length", "8KiB", "--iova", "0x200000"]);
    assert!(fits.starts_with("map        would succeed, at 0x200000 to 0x201fff\n"), "{fits}");
    assert!(fits.contains("paid by    host, "), "{fits}");
    let refused = said(&agent, &["explain", "1", "--length", "1MiB", "--iova", "0x100000"]);
    for said in [
        "would be refused\n",
        "errno 17, iova-occupied\n",
        "range [0x100000, 0x1fffff] touches area [0x100000, 0x103fff]",
        "area       0x100000 to 0x103fff, ready\n",
        "alignment  0x1000, for domain 1\n",
    ] {
        assert!(refused.contains(said), "{said:?} is not in {refused}");
    }
    let pinned =
        refused.lines().filter(|line| cells(line).first().is_some_and(|row| row.contains(&"pinned")));
    assert!(pinned.clone().any(|line| line.starts_with("tenant")), "{refused}");
    let bad = ctl_at(agent.admin_socket(), &["explain", "1", "--length", "1", "--strength", "a&b"]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
}

#[test]
fn limits_are_shown_as_a_tree_with_what_is_used_of_each() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(4));
    let ioas = client.ioas_alloc().unwrap();
    attach(&mut client, ioas);
    map(&mut client, ioas, &file, (0, 0x4000), 0x10_0000);
    let all = said(&agent, &["limits"]);
    let rows = cells(&all);
    assert_eq!(rows[0], ["ACCOUNT", "OF", "USED", "SOFT", "HARD", "CROSSED", "REFUSED"]);
    assert_eq!(rows[1][0], "host");
    assert_eq!(
        rows.iter().filter(|row| row.contains(&"pinned") && row.contains(&"16 KiB")).count(),
        4,
        "{all}"
    );
    let one = said(&agent, &["limits", "--context", "1"]);
    let rows = cells(&one);
    assert_eq!(rows.iter().filter(|row| row.contains(&"pinned")).count(), 1, "{one}");
    assert!(rows[1][0].starts_with("context 1"), "{one}");
    assert_eq!(said(&agent, &["limits", "--tenant", "nobody"]).lines().count(), 1);
}
